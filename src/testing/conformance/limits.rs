//! The limits that a backend is checked under: a small one, one whose rate does not come out even,
//! a fast one, a slow one, and one that is closed.

use std::time::Duration;

use crate::{
    algorithm::{
        FixedWindow, LeakyBucket, Plan, PlanBuilder, SlidingCounter, SlidingLog, SlidingWindow,
        TokenBucket,
    },
    name::PolicyName,
    quota::Quota,
};

fn uneven() -> Quota {
    Quota::new(7, Duration::from_secs(11)).expect("a quota")
}

fn slow() -> Quota {
    Quota::per_day(2)
}

pub(super) fn token_buckets() -> Vec<TokenBucket> {
    vec![
        TokenBucket::new(Quota::per_second(10)).burst(4),
        TokenBucket::new(uneven()),
        TokenBucket::new(Quota::per_second(900_000_000)).burst(1_000),
        TokenBucket::within_period(Quota::per_minute(60), 5),
        TokenBucket::new(slow()),
        TokenBucket::new(Quota::CLOSED),
    ]
}

pub(super) fn leaky_buckets() -> Vec<LeakyBucket> {
    vec![
        LeakyBucket::new(Quota::per_second(10)).depth(4),
        LeakyBucket::new(uneven()),
        LeakyBucket::new(Quota::per_second(1_000_000))
            .depth(1_000)
            .max_wait(Duration::from_micros(30)),
        LeakyBucket::new(slow()).depth(1),
        LeakyBucket::new(Quota::CLOSED),
    ]
}

pub(super) fn fixed_windows() -> Vec<FixedWindow> {
    vec![
        FixedWindow::new(Quota::per_second(4)),
        FixedWindow::new(uneven()).offset(Duration::from_secs(3)),
        FixedWindow::from_first_hit(Quota::per_minute(60)),
        FixedWindow::new(Quota::per_day(1_000_000_000)),
        FixedWindow::new(Quota::CLOSED),
    ]
}

pub(super) fn sliding_windows() -> Vec<SlidingWindow> {
    let segments =
        |quota, segments| SlidingWindow::new(quota).segments(segments).expect("segments");
    vec![
        SlidingWindow::new(Quota::per_second(4)),
        segments(Quota::new(7, Duration::from_secs(12)).expect("a quota"), 3),
        SlidingWindow::new(Quota::per_minute(60)),
        segments(Quota::per_day(1_000_000_000), 2),
        SlidingWindow::new(Quota::CLOSED),
    ]
}

pub(super) fn sliding_logs() -> Vec<SlidingLog> {
    vec![
        SlidingLog::new(Quota::per_second(4)),
        SlidingLog::new(uneven()),
        SlidingLog::new(Quota::per_minute(60)).max_entries(10),
        SlidingLog::new(Quota::CLOSED),
    ]
}

pub(super) fn sliding_counters() -> Vec<SlidingCounter> {
    vec![
        SlidingCounter::new(Quota::per_second(4)),
        SlidingCounter::new(uneven()),
        SlidingCounter::new(Quota::per_day(1_000_000_000)),
        SlidingCounter::new(Quota::CLOSED),
    ]
}

pub(super) fn plans() -> Vec<Plan> {
    const ONE: PolicyName = PolicyName::from_static("one");
    const TWO: PolicyName = PolicyName::from_static("two");
    const THREE: PolicyName = PolicyName::from_static("three");
    let plan = |limits: PlanBuilder| limits.build().expect("a plan");
    vec![
        plan(Plan::new().limit(ONE, TokenBucket::new(Quota::per_second(10)).burst(4))),
        plan(
            Plan::new()
                .limit(ONE, TokenBucket::new(uneven()))
                .limit(TWO, SlidingWindow::new(Quota::per_minute(20)))
                .limit_on(1, THREE, FixedWindow::new(Quota::per_hour(500))),
        ),
        plan(
            Plan::new()
                .limit(ONE, SlidingLog::new(Quota::per_second(3)))
                .limit(TWO, LeakyBucket::new(Quota::per_second(2)).depth(4))
                .limit(THREE, SlidingCounter::new(uneven())),
        ),
    ]
}
