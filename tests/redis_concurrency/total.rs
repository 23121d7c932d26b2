//! Slots that all keys have together, beside those of each.

use std::time::Duration;

use tokio::task::JoinHandle;
use tower_quota::{
    BackendErrorKind, BusyScope, Key, Rejection,
    algorithm::Portion,
    backend::guarded::Fallback,
    concurrency::{SharedConcurrencyBuilder, SharedConcurrencyLimiter, Slot},
};

use crate::{
    servers::{PATIENCE, Standalone},
    support::{busy, server, slots, until, until_idle, usage_when},
};

fn limited(
    running: &Standalone,
    max_per_key: u64,
    max_total: u64,
) -> SharedConcurrencyBuilder<tower_quota::backend::redis::Server> {
    slots(server(&running.url()), max_per_key).max_total(max_total)
}

fn wait(
    limiter: &SharedConcurrencyLimiter,
    key: &Key,
    weight: u64,
) -> JoinHandle<Result<Slot, Rejection>> {
    tokio::spawn(limiter.acquire(key, weight))
}

/// Until so many wait, of all keys.
async fn waiting(limiter: &SharedConcurrencyLimiter, many: u64) {
    usage_when(limiter, &Key::GLOBAL, |usage| usage.total_waiting == many).await;
}

#[tokio::test]
async fn a_refusal_says_whether_the_key_is_full_or_all_together() {
    let running = Standalone::start();
    let [one, other] = [0; 2].map(|_| limited(&running, 2, 3).build());
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(Key::from);
    let held = one.try_acquire(&alice, 2).await.expect("she has two");
    let last = other.try_acquire(&bob, 1).await.expect("one is left");
    for (key, weight, scope, limit) in [
        (&alice, 1, BusyScope::Key, 2),
        (&bob, 1, BusyScope::Total, 3),
        (&carol, 1, BusyScope::Total, 3),
        (&carol, 3, BusyScope::Key, 2),
    ] {
        let refusal = busy(other.try_acquire(key, weight).await);
        assert_eq!((refusal.scope, refusal.limit), (scope, limit), "{key:?}");
    }
    let usage = one.usage(&alice).await.expect("it answers");
    assert_eq!((usage.in_use, usage.total_in_use), (2, 3));
    assert_eq!(running.ask::<u64>(&["DBSIZE"]), 1, "all of them are one value");
    drop((held, last));
    until_idle(&one, &alice).await;
    until_idle(&one, &bob).await;
    assert_eq!(running.ask::<u64>(&["DBSIZE"]), 0, "it is gone with the last of them");

    // More than there are of all together is never there.
    let narrow = limited(&running, 5, 2).name_of_its_own();
    let never = busy(narrow.acquire(&alice, 3).await);
    assert_eq!((never.scope, never.is_final()), (BusyScope::Total, true));
    let closed = limited(&running, 1, 0).name_of_its_own();
    assert!(busy(closed.try_acquire(&alice, 1).await).is_final());
}

/// Limiters whose slots are not those of the others in a test.
trait Apart {
    fn name_of_its_own(self) -> SharedConcurrencyLimiter;
}

impl Apart for SharedConcurrencyBuilder<tower_quota::backend::redis::Server> {
    fn name_of_its_own(self) -> SharedConcurrencyLimiter {
        self.prefix(tower_quota::PolicyName::from_static("apart")).build()
    }
}

#[tokio::test]
async fn who_waits_for_its_key_keeps_nobody_else_waiting() {
    let running = Standalone::start();
    let [one, other] = [0; 2].map(|_| limited(&running, 1, 3).build());
    let [alice, bob] = ["alice", "bob"].map(Key::from);
    let held = one.acquire(&alice, 1).await.expect("there is one");
    let first = wait(&other, &alice, 1);
    waiting(&one, 1).await;
    let second = wait(&one, &alice, 1);
    waiting(&one, 2).await;
    let bobs = other.try_acquire(&bob, 1).await.expect("his key has one, and so have all");
    drop(held);
    let first = first.await.expect("it runs").expect("its turn comes");
    assert_eq!(one.usage(&alice).await.expect("it answers").waiting, 1, "one at a time");
    drop(first);
    drop(second.await.expect("it runs").expect("its turn comes"));
    drop(bobs);
    until_idle(&one, &alice).await;
    until_idle(&one, &bob).await;
}

/// The large one stands before the slots of all. Small ones of any key that come later wait behind it,
/// though there is room for them.
#[tokio::test]
async fn who_waits_for_the_total_is_not_passed_by_other_keys() {
    let running = Standalone::start();
    let [one, other] = [0; 2].map(|_| limited(&running, 3, 4).build());
    let [alice, bob, carol, dave] = ["alice", "bob", "carol", "dave"].map(Key::from);
    let (alices, bobs) = (one.acquire(&alice, 2).await, other.acquire(&bob, 1).await);
    let large = wait(&one, &carol, 3);
    waiting(&one, 1).await;
    assert_eq!(busy(other.try_acquire(&dave, 1).await).scope, BusyScope::Total);
    let small = wait(&other, &dave, 1);
    waiting(&one, 2).await;
    // Three are free for the large one only when both have gone.
    drop(bobs);
    usage_when(&one, &bob, |usage| usage.in_use == 0).await;
    assert_eq!(one.usage(&dave).await.expect("it answers").total_waiting, 2);
    drop(alices);
    let large = large.await.expect("it runs").expect("its turn comes");
    let small = small.await.expect("it runs").expect("and there is one left");
    drop((large, small));
    until_idle(&one, &carol).await;
    until_idle(&one, &dave).await;
}

#[tokio::test]
async fn the_line_of_all_keys_is_bounded_and_that_of_each() {
    let running = Standalone::start();
    let limiter = limited(&running, 1, 1).max_waiting(2).max_total_waiting(3).build();
    let keys = ["alice", "bob", "carol"].map(Key::from);
    let held = limiter.acquire(&keys[0], 1).await.expect("there is one");
    let mut line = Vec::new();
    for (key, many) in [(&keys[0], 1), (&keys[0], 2), (&keys[1], 3)] {
        line.push(wait(&limiter, key, 1));
        waiting(&limiter, many).await;
    }
    for (key, bound) in [(&keys[0], 2), (&keys[1], 3), (&keys[2], 3)] {
        let full = busy(limiter.acquire(key, 1).await);
        assert_eq!((full.scope, full.limit), (BusyScope::Queue, bound), "{key:?}");
    }
    // One who leaves makes room.
    line.remove(1).abort();
    waiting(&limiter, 2).await;
    line.push(wait(&limiter, &keys[2], 1));
    waiting(&limiter, 3).await;
    drop(held);
    for turn in line {
        drop(turn.await.expect("it runs").expect("its turn comes"));
    }
    until_idle(&limiter, &keys[2]).await;
}

/// No call but those that give back slots and places: whoever waits is served by them, or never.
#[tokio::test]
async fn what_is_given_back_together_is_handed_out_without_another_call() {
    let running = Standalone::start();
    let an_hour = Duration::from_secs(3_600);
    let [one, other] =
        [0; 2].map(|_| limited(&running, 2, 20).lease(an_hour).look_every(an_hour).build());
    let key = |of: u64| Key::from(of);
    let mut held = Vec::new();
    for of in 0..20 {
        held.push(one.acquire(&key(of), 1).await.expect("there are twenty"));
    }
    let leaving: Vec<_> = (20..30).map(|of| wait(&one, &key(of), 2)).collect();
    waiting(&one, 10).await;
    // Those of another instance are told on its channel, once it listens.
    let mut staying: Vec<_> = (30..35).map(|of| wait(&one, &key(of), 2)).collect();
    waiting(&one, 15).await;
    staying.extend((35..40).map(|of| wait(&other, &key(of), 2)));
    waiting(&one, 20).await;
    listening(&running, 2).await;
    leaving.iter().for_each(JoinHandle::abort);
    drop(held);
    let mut slots = Vec::new();
    for turn in staying {
        let turn = tokio::time::timeout(PATIENCE, turn).await;
        slots.push(turn.expect("it is told").expect("it runs").expect("its turn comes"));
    }
    let usage = one.usage(&key(30)).await.expect("it answers");
    assert_eq!((usage.total_in_use, usage.total_waiting), (20, 0));
    drop(slots);
    usage_when(&one, &Key::GLOBAL, |usage| usage.total_in_use == 0).await;
}

/// Until so many instances hear of their turns.
async fn listening(running: &Standalone, many: usize) {
    let listen = || running.ask::<Vec<String>>(&["PUBSUB", "CHANNELS"]).len() >= many;
    until("that they listen", listen).await;
}

/// A server that forgot a holder, and by the time that enters again somebody waits: for the slots of all,
/// or for those of the same key.
#[tokio::test]
async fn a_holder_that_was_forgotten_enters_again_whoever_waits() {
    let running = Standalone::start();
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(Key::from);
    let name = "tq:slots:{all}";
    for waits_at in [&bob, &alice] {
        let one = limited(&running, 3, 3).lease(Duration::from_secs(6)).build();
        let other = limited(&running, 3, 3).lease(Duration::from_secs(60)).build();
        let held = one.acquire(&alice, 1).await.expect("there are three");
        let carols = other.acquire(&carol, 1).await.expect("there are two");
        let large = wait(&other, waits_at, 3);
        waiting(&other, 1).await;
        // The first of the two holders is taken out: 48 bytes, after their number and the instant.
        let mut state: Vec<u8> = running.ask(&["GET", name]);
        assert_eq!((&state[..8], state.len()), (&2_f64.to_le_bytes()[..], 16 + 3 * 48));
        state.drain(16..64);
        state[..8].copy_from_slice(&1_f64.to_le_bytes());
        running.set(name, &state);
        usage_when(&other, &alice, |usage| usage.in_use == 1).await;
        assert!(!held.is_lost());
        drop((held, carols));
        drop(large.await.expect("it runs").expect("its turn comes"));
        usage_when(&other, &alice, |usage| usage.total_in_use == 0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_server_the_share_is_of_both() {
    let running = Standalone::start();
    let portion = Portion::of(2).expect("two instances");
    let limiter = limited(&running, 4, 6).on_failure(Fallback::LocalShare(portion));
    let limiter = limiter.timeout(Duration::from_secs(3)).lease(Duration::from_secs(120));
    let limiter = limiter.build();
    let [alice, bob] = ["alice", "bob"].map(Key::from);
    let lent = limiter.acquire(&alice, 1).await.expect("there are six");
    running.kill();
    // Two of each key and three of all, one of which the server has lent.
    let own = limiter.acquire(&bob, 2).await.expect("his share");
    for (key, scope, limit) in [(&alice, BusyScope::Total, 6), (&bob, BusyScope::Key, 4)] {
        let refusal = busy(limiter.try_acquire(key, 1).await);
        assert_eq!((refusal.scope, refusal.limit), (scope, limit), "{key:?}");
    }
    drop(own);
    drop(limiter.acquire(&alice, 1).await.expect("the rest of hers"));
    drop(lent);
}

#[tokio::test]
async fn a_value_of_another_type_is_told_as_such() {
    let running = Standalone::start();
    let total = limited(&running, 1, 1).build();
    let single = slots(server(&running.url()), 1).build();
    running.ask::<u64>(&["LPUSH", "tq:slots:{all}", "strange"]);
    running.ask::<u64>(&["SADD", "tq:slots:{t.alice}", "strange"]);
    for limiter in [total, single] {
        let refused = limiter.try_acquire(&Key::from("alice"), 1).await;
        let Err(Rejection::Backend(error)) = refused else { panic!("{refused:?}") };
        assert_eq!(error.kind(), BackendErrorKind::Malformed);
    }
}
