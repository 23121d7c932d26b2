//! What is lent, to whom and in which order.

use std::time::Duration;

use tokio_test::{assert_pending, assert_ready, task};
use tower_quota::{BusyScope, Key, Rejection};

use crate::{
    servers::{Flavor, Standalone},
    support::{busy, server, slots, until, until_idle, usage_when},
};

#[tokio::test]
async fn two_instances_share_the_slots_of_a_key() {
    let running = Standalone::start();
    let [one, other] = [0; 2].map(|_| slots(server(&running.url()), 2).build());
    let key = Key::from("alice");
    let first = one.try_acquire(&key, 1).await.expect("there are two");
    let second = other.try_acquire(&key, 1).await.expect("there is one");
    for limiter in [&one, &other] {
        assert_eq!(busy(limiter.try_acquire(&key, 1).await).scope, BusyScope::Key);
    }
    let bob = one.try_acquire(&Key::from("bob"), 2).await.expect("another key has its own");
    assert_eq!((bob.weight(), bob.is_lost()), (2, false));
    assert_eq!(one.held_here(), 3);

    drop(first);
    usage_when(&other, &key, |usage| usage.in_use == 1).await;
    let third = other.try_acquire(&key, 1).await.expect("one is free again");
    drop((second, third, bob));
    until_idle(&one, &key).await;
    until_idle(&one, &Key::from("bob")).await;
    assert_eq!(running.ask::<u64>(&["DBSIZE"]), 0, "an idle key leaves nothing");
}

#[tokio::test]
async fn a_refusal_writes_nothing() {
    let running = Standalone::start();
    let limiter = slots(server(&running.url()), 1).build();
    let key = Key::from("alice");
    let _held = limiter.try_acquire(&key, 1).await.expect("there is one");
    let before = running.calls_of("set");
    for weight in [1, 1, 2, u64::MAX] {
        let refusal = busy(limiter.try_acquire(&key, weight).await);
        assert_eq!(refusal.is_final(), weight > 1);
    }
    assert_eq!(busy(limiter.acquire(&key, 2).await).limit, 1);
    assert_eq!(running.calls_of("set"), before);
}

#[tokio::test]
async fn who_waits_is_served_in_the_order_of_coming_over_all_instances() {
    let running = Standalone::start();
    let instances = [0; 3].map(|_| slots(server(&running.url()), 2).build());
    let key = Key::from("alice");
    let held = instances[0].acquire(&key, 2).await.expect("there are two");
    let mut waiting = Vec::new();
    // The second wants both, and those behind it do not pass it.
    for (place, weight) in [1, 2, 1, 1, 2, 1].into_iter().enumerate() {
        let limiter = instances[place % 3].clone();
        let of = key.clone();
        waiting.push(tokio::spawn(async move { limiter.acquire(&of, weight).await }));
        usage_when(&instances[0], &key, |usage| usage.waiting == place as u64 + 1).await;
    }
    drop(held);
    for (place, turn) in waiting.iter_mut().enumerate() {
        let slot = turn.await.expect("it runs").expect("its turn comes");
        // Of two that hold one each, the second may have come already.
        let usage = usage_when(&instances[0], &key, |_| true).await;
        assert!(usage.in_use <= 2 && usage.waiting <= 5 - place as u64, "{place}: {usage:?}");
        drop(slot);
    }
    until_idle(&instances[1], &key).await;
}

#[tokio::test]
async fn a_line_is_bounded_and_a_place_is_given_up() {
    let running = Standalone::start();
    let limiter = slots(server(&running.url()), 1).max_waiting(1).build();
    let key = Key::from("alice");
    let held = limiter.acquire(&key, 1).await.expect("there is one");
    let mut waiting = task::spawn(limiter.acquire(&key, 1));
    assert_pending!(waiting.poll());
    usage_when(&limiter, &key, |usage| usage.waiting == 1).await;
    assert_eq!(busy(limiter.acquire(&key, 1).await).scope, BusyScope::Queue);
    assert_pending!(waiting.poll());

    drop(waiting);
    usage_when(&limiter, &key, |usage| usage.waiting == 0).await;
    let mut next = task::spawn(limiter.acquire(&key, 1));
    assert_pending!(next.poll());
    usage_when(&limiter, &key, |usage| usage.waiting == 1).await;
    drop(held);
    until("that it is woken", || next.is_woken()).await;
    // It is woken by the answer, and by its turn.
    let mut slot = None;
    until("its turn", || {
        if let std::task::Poll::Ready(its) = next.poll() {
            slot = Some(its);
        }
        slot.is_some()
    })
    .await;
    let slot = slot.expect("it has come").expect("its turn comes");
    assert_eq!(slot.key(), &key);
    let mut free = task::spawn(async { drop(slot) });
    assert_ready!(free.poll());
    until_idle(&limiter, &key).await;
}

#[tokio::test]
async fn where_there_is_no_total_the_line_of_a_key_has_only_its_own_bound() {
    let running = Standalone::start();
    let limiter = slots(server(&running.url()), 1).max_total_waiting(1).max_waiting(2).build();
    let key = Key::from("alice");
    let held = limiter.acquire(&key, 1).await.expect("there is one");
    let mut line = Vec::new();
    for place in 1..=2 {
        line.push(tokio::spawn(limiter.acquire(&key, 1)));
        usage_when(&limiter, &key, |usage| usage.waiting == place).await;
    }
    let full = busy(limiter.acquire(&key, 1).await);
    assert_eq!((full.scope, full.limit), (BusyScope::Queue, 2));
    drop(held);
    for turn in line {
        drop(turn.await.expect("it runs").expect("its turn comes"));
    }
    until_idle(&limiter, &key).await;
}

#[tokio::test]
async fn a_slot_is_kept_as_long_as_it_is_held_and_its_renewals_travel_together() {
    let running = Standalone::start();
    let limiter = slots(server(&running.url()), 50).lease(Duration::from_secs(9)).build();
    let key = Key::from("alice");
    let mut held = Vec::new();
    for _ in 0..50 {
        held.push(limiter.acquire(&key, 1).await.expect("there are fifty"));
    }
    let before = running.calls_of("evalsha");
    // Each is renewed, and again, until the first loans of all would be over.
    let mut ends = ends_of(&running);
    let over = ends.iter().copied().fold(0.0, f64::max);
    let mut rounds = 0;
    while ends.iter().any(|end| *end <= over + 500_000.0) {
        let least = |ends: &[f64]| ends.iter().copied().fold(f64::MAX, f64::min);
        let was = least(&ends);
        until("that all are renewed", || {
            ends = ends_of(&running);
            least(&ends) > was
        })
        .await;
        rounds += 1;
    }
    let renewals = running.calls_of("evalsha") - before;
    assert!(held.iter().all(|slot| !slot.is_lost()));
    // In each round one batch leaves in a few calls.
    assert!(renewals <= 4 * (rounds + 1), "{renewals} calls renew fifty slots {rounds} times");
    assert_eq!(limiter.usage(&key).await.expect("it answers").in_use, 50);
    drop(held);
    until_idle(&limiter, &key).await;
}

/// When the loans of the one key end that there is, by the server.
fn ends_of(running: &Standalone) -> Vec<f64> {
    let names: Vec<String> = running.ask(&["KEYS", "*"]);
    let [name] = &names[..] else { panic!("one key has slots: {names:?}") };
    let state: Vec<u8> = running.ask(&["GET", name]);
    let of = |record: &[u8]| f64::from_le_bytes(record[24..].try_into().expect("eight bytes"));
    state[16..].chunks_exact(32).map(of).collect()
}

#[tokio::test]
async fn a_value_that_is_none_of_ours_fails_its_own_key() {
    let running = Standalone::start();
    let limiter = slots(server(&running.url()), 1).build();
    for (value, name) in [(&b"strange"[..], "a"), (&[255; 40][..], "b")] {
        running.set(&format!("tq:slots:{{t.{name}}}"), value);
        let refused = limiter.try_acquire(&Key::from(name), 1).await;
        assert!(matches!(refused, Err(Rejection::Backend(_))), "{refused:?}");
    }
    let _well = limiter.try_acquire(&Key::from("c"), 1).await.expect("another key is well");
}

#[tokio::test]
async fn valkey_lends_as_redis_does() {
    let running = Standalone::start_with(Flavor::Valkey, &[]);
    let [one, other] = [0; 2].map(|_| slots(server(&running.url()), 1).build());
    let key = Key::from("alice");
    let held = one.acquire(&key, 1).await.expect("there is one");
    let of = key.clone();
    let next = tokio::spawn(async move { other.acquire(&of, 1).await.map(drop) });
    usage_when(&one, &key, |usage| usage.waiting == 1).await;
    drop(held);
    next.await.expect("it runs").expect("its turn comes");
    until_idle(&one, &key).await;
}

#[tokio::test]
async fn a_clock_that_goes_back_keeps_no_dead_holder_longer() {
    let running = Standalone::start();
    let limiter = slots(server(&running.url()), 1).lease(Duration::from_secs(6)).build();
    let key = Key::from("alice");
    let held = limiter.acquire(&key, 1).await.expect("there is one");
    let names: Vec<String> = running.ask(&["KEYS", "*"]);
    let [name] = &names[..] else { panic!("one key has slots: {names:?}") };
    let mut state: Vec<u8> = running.ask(&["GET", name]);
    drop(held);
    until_idle(&limiter, &key).await;
    // As the state of one who was killed looks when the clock has gone back by an hour: written then,
    // and lent until some seconds later.
    let instants = [8..16, 40..48];
    for at in instants {
        let instant = f64::from_le_bytes(state[at.clone()].try_into().expect("eight bytes"));
        state[at].copy_from_slice(&(instant + 3.6e9).to_le_bytes());
    }
    running.set(name, &state);
    assert_eq!(busy(limiter.try_acquire(&key, 1).await).scope, BusyScope::Key);
    until_idle(&limiter, &key).await;
    drop(limiter.try_acquire(&key, 1).await.expect("its time is over"));
}
