use std::{num::NonZeroU32, time::Duration};

use tokio::time::Instant;
use tower_quota::{
    Cost, PolicyName, Quota,
    algorithm::{
        Algorithm, FixedWindow, LeakyBucket, LeaseBucket, Plan, Rule, SlidingCounter, SlidingLog,
        SlidingWindow, TokenBucket,
    },
    queue::{Ask, Order},
};

use crate::support::{alice, assert_deserted, builder, come, millis, starts, tenths};

#[tokio::test(start_paused = true)]
async fn who_came_first_goes_first_each_at_its_turn() {
    let queue = builder(tenths()).build();
    let begin = Instant::now();
    let mut waiting = Vec::new();
    for _ in 0..5 {
        waiting.push(come(&queue, 1).await);
    }
    assert_eq!(queue.stats(&alice()).depth, 4);
    assert_eq!(starts(begin, waiting).await, [0, 100, 200, 300, 400]);
    assert_deserted(&queue);
}

/// Nine come for costs of 1, 2 and 3: each starts when it was promised, and none before the other.
async fn everybody_starts_as_promised<A: Algorithm>(algorithm: A) {
    let queue = builder(algorithm.clone()).build();
    let mut waiting = Vec::new();
    for cost in [1, 2, 3, 1, 1, 2, 3, 3, 1] {
        waiting.push(come(&queue, cost).await);
        // Some come later.
        if cost == 2 {
            tokio::time::advance(millis(10)).await;
        }
    }
    let mut last = None;
    for waiting in waiting {
        let (admitted, at) = waiting.await.expect("no panic");
        let admitted = admitted.expect("admitted");
        assert!(last <= Some(at), "{algorithm:?}: one passed another");
        last = Some(at);
        // Timers are a millisecond coarse, and late only by that.
        let late = admitted.waited.saturating_sub(admitted.promised);
        assert!(admitted.waited >= admitted.promised, "{algorithm:?}: {admitted:?}");
        assert!(late < millis(1), "{algorithm:?}: {admitted:?}");
    }
    assert_deserted(&queue);
}

#[tokio::test(start_paused = true)]
async fn everybody_starts_as_promised_under_every_algorithm() {
    let quota = Quota::per_second(5);
    everybody_starts_as_promised(TokenBucket::new(quota)).await;
    everybody_starts_as_promised(TokenBucket::new(quota).burst(3)).await;
    everybody_starts_as_promised(LeakyBucket::new(quota)).await;
    everybody_starts_as_promised(LeakyBucket::new(quota).depth(3)).await;
    everybody_starts_as_promised(FixedWindow::new(quota)).await;
    everybody_starts_as_promised(SlidingWindow::new(quota)).await;
    everybody_starts_as_promised(SlidingLog::new(quota)).await;
    everybody_starts_as_promised(SlidingCounter::new(quota)).await;
}

#[tokio::test(start_paused = true)]
async fn turns_that_come_in_one_tick_of_the_timer_are_all_taken() {
    // Three in a millisecond: the timer wakes one of them, who admits the others.
    let queue = builder(TokenBucket::new(Quota::per_second(3_000)).burst(6)).build();
    let begin = Instant::now();
    let mut waiting = Vec::new();
    for _ in 0..3_006 {
        waiting.push(come(&queue, 1).await);
        if waiting.len() == 1_000 {
            break;
        }
    }
    let starts = starts(begin, waiting).await;
    assert_eq!((starts[5], starts[6], starts[999]), (0, 1, 332));
}

/// When the last of a thousand starts, in milliseconds, at 2,000 a second.
async fn the_last_of_a_thousand<A: Algorithm>(algorithm: A) -> u128 {
    let queue = builder(algorithm).build();
    let begin = Instant::now();
    let mut waiting = Vec::new();
    for _ in 0..1_000 {
        waiting.push(come(&queue, 1).await);
    }
    starts(begin, waiting).await.into_iter().max().expect("a thousand")
}

#[tokio::test(start_paused = true)]
async fn a_burst_below_a_tick_of_the_timer_is_used_up_where_turns_are_given_out_ahead() {
    let quota = Quota::per_second(2_000);
    for burst in 1..=3 {
        let ahead = LeaseBucket::new(quota, burst).ahead(millis(5));
        let last = the_last_of_a_thousand(ahead).await;
        assert!((499..=501).contains(&last), "burst {burst}: {last} ms");
    }
    // Who is asked for when it can start finds one each time that a timer wakes somebody, and two
    // come back.
    assert!(the_last_of_a_thousand(TokenBucket::new(quota).burst(1)).await >= 990);
    assert!(the_last_of_a_thousand(TokenBucket::new(quota).burst(2)).await <= 501);
}

#[tokio::test(start_paused = true)]
async fn a_large_cost_at_the_head_is_not_passed_by_small_ones() {
    let queue = builder(TokenBucket::new(Quota::per_second(10))).build();
    let begin = Instant::now();
    let first = come(&queue, 10).await;
    let large = come(&queue, 10).await;
    let small = come(&queue, 1).await;
    assert_eq!(starts(begin, [first, large, small]).await, [0, 1_000, 1_100]);
}

#[tokio::test(start_paused = true)]
async fn who_comes_while_somebody_waits_does_not_pass_even_if_there_is_enough_for_it() {
    let queue = builder(TokenBucket::new(Quota::per_second(10))).build();
    let begin = Instant::now();
    let half = come(&queue, 5).await;
    let large = come(&queue, 10).await;
    let small = come(&queue, 1).await;
    assert_eq!(starts(begin, [half, large, small]).await, [0, 500, 600]);
}

#[tokio::test(start_paused = true)]
async fn keys_have_lines_of_their_own() {
    let queue = builder(tenths()).build();
    let begin = Instant::now();
    let (one, two) = (come(&queue, 1).await, come(&queue, 1).await);
    let other = crate::support::come_for(&queue, &"bob".into(), 1).await;
    assert_eq!(queue.lines(), 1);
    assert_eq!(starts(begin, [one, two, other]).await, [0, 100, 0]);
    assert_deserted(&queue);
}

#[tokio::test(start_paused = true)]
async fn the_newest_goes_first_where_it_is_told_so() {
    let queue = builder(tenths()).order(Order::NewestFirst).build();
    let begin = Instant::now();
    let mut waiting = Vec::new();
    for _ in 0..4 {
        waiting.push(come(&queue, 1).await);
        tokio::time::advance(millis(1)).await;
    }
    assert_eq!(starts(begin, waiting).await, [0, 300, 200, 100]);
    assert_deserted(&queue);
}

#[tokio::test(start_paused = true)]
async fn flows_take_turns_by_their_weights() {
    let queue = builder(tenths()).order(Order::Fair).build();
    come(&queue, 1).await.await.expect("no panic").0.expect("admitted");
    let begin = Instant::now();
    let mut waiting = Vec::new();
    for (flow, weight) in [("light", 1), ("heavy", 2)] {
        for _ in 0..4 {
            let weight = NonZeroU32::new(weight).expect("not zero");
            let ask = Ask::new(1).flow(flow.into()).weight(weight);
            waiting.push(come(&queue, ask).await);
        }
    }
    let heavy = waiting.split_off(4);
    assert_eq!(starts(begin, waiting).await, [100, 400, 700, 800]);
    assert_eq!(starts(begin, heavy).await, [200, 300, 500, 600]);
    assert_deserted(&queue);
}

#[tokio::test(start_paused = true)]
async fn a_plan_admits_in_turn_by_the_limit_that_binds() {
    let requests = Rule::from(TokenBucket::new(Quota::per_second(10)).burst(1));
    let tokens = Rule::from(TokenBucket::new(Quota::per_second(100)).burst(50));
    let plan = Plan::new()
        .limit(PolicyName::from_static("requests"), requests)
        .limit_on(1, PolicyName::from_static("tokens"), tokens)
        .build()
        .expect("a plan");
    let queue = builder(plan).build();
    let begin = Instant::now();
    let mut waiting = Vec::new();
    for tokens in [50, 10, 30, 1] {
        waiting.push(come(&queue, Cost::new(1).with(1, tokens)).await);
    }
    assert_eq!(starts(begin, waiting).await, [0, 100, 400, 500]);
}

#[tokio::test(start_paused = true)]
async fn a_queue_says_who_waits_and_for_how_long() {
    let queue = builder(tenths()).build();
    let first = come(&queue, 1).await;
    let (second, third) = (come(&queue, 1).await, come(&queue, 1).await);
    tokio::time::advance(millis(50)).await;
    let stats = queue.stats(&alice());
    assert_eq!((stats.depth, stats.units, stats.oldest_wait), (2, 2, millis(50)));
    assert_eq!(queue.stats(&"bob".into()).oldest_wait, Duration::ZERO);
    starts(Instant::now(), [first, second, third]).await;
    let counts = queue.counts();
    assert_eq!((counts.admitted_at_once, counts.admitted_in_turn, counts.waiting), (1, 2, 0));
}
