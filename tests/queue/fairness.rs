use std::time::Duration;

use tokio::time::Instant;
use tower_quota::queue::{Ask, Order, Priority};

use crate::support::{assert_deserted, builder, come, millis, starts, tenths};

/// However many wait in other flows, a quiet one waits for one turn of each and one more.
#[tokio::test(start_paused = true)]
async fn a_quiet_flow_waits_for_its_share_and_one_turn_whatever_the_flood() {
    let queue = builder(tenths()).order(Order::Fair).build();
    let flood = |flow: u64| Ask::new(1).flow(flow.into());
    for _ in 0..100 {
        for flow in 0..4 {
            drop(come(&queue, flood(flow)).await);
        }
    }
    for _ in 0..20 {
        // At any moment of the flood.
        tokio::time::advance(millis(137)).await;
        let (admitted, _) =
            come(&queue, Ask::new(1).flow("quiet".into())).await.await.expect("no panic");
        let waited = admitted.expect("admitted").waited;
        // Five flows share ten turns a second.
        assert!(waited <= millis(500 + 100), "{waited:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn first_in_first_out_lets_a_quiet_caller_wait_behind_the_whole_flood() {
    let queue = builder(tenths()).build();
    for _ in 0..100 {
        drop(come(&queue, 1).await);
    }
    let (admitted, _) = come(&queue, 1).await.await.expect("no panic");
    assert_eq!(admitted.expect("admitted").waited, Duration::from_secs(10));
}

/// New flows without end start at the virtual time; without their progress they would pass the
/// second one of an old flow for ever.
#[tokio::test(start_paused = true)]
async fn an_endless_row_of_new_flows_does_not_starve_an_old_one() {
    let queue = builder(tenths()).order(Order::Fair).build();
    let first = come(&queue, Ask::new(1).flow("old".into())).await;
    let begin = Instant::now();
    let old = [
        come(&queue, Ask::new(1).flow("old".into())).await,
        come(&queue, Ask::new(1).flow("old".into())).await,
        come(&queue, Ask::new(1).flow("old".into())).await,
    ];
    // Two new ones are always there.
    let mut fresh = 0_u64;
    for _ in 0..100 {
        for _ in 0..if fresh == 0 { 2 } else { 1 } {
            drop(come(&queue, Ask::new(1).flow(fresh.into())).await);
            fresh += 1;
        }
        tokio::time::sleep(millis(100)).await;
    }
    starts(begin, [first]).await;
    let starts = starts(begin, old).await;
    // Three flows at a time: two rounds for each of the old one's, at the most.
    assert!(starts[2] <= 2 * 3 * 3 * 100, "{starts:?}");
}

#[tokio::test(start_paused = true)]
async fn a_high_priority_goes_first_among_those_who_came_together() {
    let queue = builder(tenths()).build();
    let begin = Instant::now();
    let ask = |priority| Ask::new(1).priority(priority);
    let waiting = [
        come(&queue, 1).await,
        come(&queue, ask(Priority::LOW)).await,
        come(&queue, ask(Priority::NORMAL)).await,
        come(&queue, ask(Priority::HIGH)).await,
    ];
    assert_eq!(starts(begin, waiting).await, [0, 300, 200, 100]);
    assert_deserted(&queue);
}

/// Requests of high priority come at the rate of the limit, for ever. One of low priority is passed by
/// those who come within the head start of ten seconds, and by no other.
#[tokio::test(start_paused = true)]
async fn a_low_priority_is_passed_only_for_the_length_of_the_head_start() {
    for order in [Order::Fifo, Order::Fair] {
        let queue = builder(tenths()).order(order).build();
        drop(come(&queue, Ask::new(1).priority(Priority::HIGH)).await);
        drop(come(&queue, Ask::new(1).priority(Priority::HIGH)).await);
        let low = come(&queue, Ask::new(1).priority(Priority::LOW)).await;
        let flood = tokio::spawn({
            let queue = queue.clone();
            async move {
                for _ in 0..300 {
                    drop(come(&queue, Ask::new(1).priority(Priority::HIGH)).await);
                    tokio::time::sleep(millis(100)).await;
                }
            }
        });
        let (admitted, _) = low.await.expect("no panic");
        let waited = admitted.expect("admitted").waited;
        assert!(waited >= millis(9_900) && waited <= millis(10_300), "{order:?}: {waited:?}");
        flood.await.expect("no panic");
    }
}
