//! A limit that is changed while threads decide by it, in every order that a scheduler finds.
//!
//! Run with `RUSTFLAGS="--cfg shuttle" cargo test --lib`.

use std::{sync::Arc, time::Duration};

use shuttle::thread;

use super::*;
use crate::{
    algorithm::TokenBucket,
    backend::{Local, LocalBuilder},
    name::PolicyName,
    quota::Quota,
    time::{Clock, Timestamp},
};

#[derive(Clone)]
struct Stopped;

impl Clock for Stopped {
    fn now(&self) -> Timestamp {
        Timestamp::from_secs(1)
    }
}

type Model = Limiter<TokenBucket, Local<TokenBucket, Stopped>>;

/// Ten years for a quota, so that nothing comes back meanwhile.
fn bucket(limit: u64) -> TokenBucket {
    let decade = Duration::from_secs(3_650 * 86_400);
    TokenBucket::new(Quota::new(limit, decade).expect("a quota"))
}

fn limiter(limit: u64) -> Model {
    let limit = Limit::new(PolicyName::from_static("changing"), bucket(limit));
    Limiter::of(limit, LocalBuilder::new().build_with_clock(Stopped))
}

/// The quota of a limit, which all that the limit says of itself agrees on.
fn quota_of(limit: &Limit<TokenBucket>) -> u64 {
    let (quota, said) = (limit.algorithm().capacity().units(), &limit.policies()[0]);
    assert_eq!((said.quota, limit.name().as_str()), (quota, "changing"), "a torn limit");
    quota
}

fn admits(limiter: &Model) -> u64 {
    let decision = limiter.decide_now(&Key::GLOBAL, 1).expect("a store");
    let (left, of) = (decision.snapshot().remaining, decision.snapshot().limit);
    assert!((of == 2 || of == 5) && left < of, "decided by {of}, which is neither limit");
    u64::from(decision.is_allowed())
}

fn in_every_order(check: impl Fn() + Send + Sync + 'static) {
    let check = Arc::new(check);
    let random = Arc::clone(&check);
    shuttle::check_random(move || random(), 2_000);
    shuttle::check_pct(move || check(), 2_000, 3);
}

#[test]
fn a_change_is_seen_by_whoever_comes_after_it_and_never_in_part() {
    in_every_order(|| {
        let limiter = limiter(1);
        let changers: Vec<_> = [2, 3]
            .map(|limit| {
                let limiter = limiter.clone();
                thread::spawn(move || {
                    limiter.set_algorithm(bucket(limit));
                    // The other one may have come between; the first limit is gone for good.
                    assert!(quota_of(&limiter.limit()) > 1, "a change was not seen");
                })
            })
            .into();
        let follower = {
            let mut handle = limiter.clone();
            thread::spawn(move || {
                for _ in 0..3 {
                    handle.refresh();
                    let known = quota_of(handle.known_limit());
                    let in_force = quota_of(&handle.limit());
                    assert!((1..=3).contains(&known) && (1..=3).contains(&in_force));
                    assert!(known == 1 || in_force > 1, "a change was taken back");
                }
                handle
            })
        };
        changers.into_iter().for_each(|changer| changer.join().expect("done"));
        let mut handle = follower.join().expect("done");
        // Whatever the handle saw in between, it now knows what is in force.
        let in_force = quota_of(&limiter.limit());
        handle.refresh();
        assert_eq!(quota_of(handle.known_limit()), in_force);
        assert!(in_force > 1);
    });
}

#[test]
fn what_was_used_counts_under_whichever_limit_each_thread_decides() {
    in_every_order(|| {
        let limiter = limiter(2);
        let deciders: Vec<_> = (0..2)
            .map(|_| {
                let limiter = limiter.clone();
                thread::spawn(move || admits(&limiter) + admits(&limiter))
            })
            .collect();
        limiter.set_algorithm(bucket(5));
        let mut admitted = admits(&limiter);
        admitted += deciders.into_iter().map(|it| it.join().expect("done")).sum::<u64>();
        admitted += (0..5).map(|_| admits(&limiter)).sum::<u64>();
        assert_eq!(admitted, 5, "of five that there are in all");
    });
}
