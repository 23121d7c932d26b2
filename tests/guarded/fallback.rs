use std::{error::Error, time::Duration};

use tower_quota::{
    BackendErrorKind, Charge, Cost, Decision, Demand, Quota, RetryAfter,
    algorithm::{LeakyBucket, Plan, Portion, TokenBucket},
    backend::{Backend, guarded::Fallback},
    time::ManualClock,
};

use crate::support::{
    Does, Remote, UNREACHABLE, alice, ask, guard, half, is_allowed, limit, open, settings,
};

#[tokio::test(start_paused = true)]
async fn a_local_share_admits_its_part_of_the_limit() {
    let (guard, remote) = guard(half());
    open(&guard, &remote).await;
    // Three of its five went while the breaker was closing.
    assert!(is_allowed(&guard).await && is_allowed(&guard).await);
    let refused = ask(&guard).await.expect("decided here");
    assert!(!refused.is_allowed());
    assert_eq!(refused.snapshot().limit, 5);
}

#[tokio::test(start_paused = true)]
async fn any_failed_decision_is_that_of_the_share_and_takes_nothing_from_the_backend() {
    let kinds = [
        BackendErrorKind::Unreachable,
        BackendErrorKind::StoreFull,
        BackendErrorKind::Malformed,
        BackendErrorKind::TimedOut,
    ];
    for kind in kinds {
        let (guard, remote) = guard(half());
        remote.does(Does::Fails(kind));
        assert_eq!(ask(&guard).await.expect("decided here").snapshot().remaining, 4);
        assert_eq!(remote.left(&limit(), &alice()), 10);
        assert_eq!(guard.counts().decided_otherwise, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn instances_together_admit_the_limit_and_no_more() {
    let remote = Remote::new();
    let mut admitted = 0;
    let mut guards = Vec::new();
    for index in 0..3 {
        let portion = Portion::of(3).and_then(|portion| portion.index(index)).expect("three");
        let settings = settings(Fallback::LocalShare(portion));
        guards.push(settings.build_with_clock(remote.clone(), ManualClock::new()));
    }
    remote.does(UNREACHABLE);
    for guard in &guards {
        for _ in 0..20 {
            admitted += u64::from(is_allowed(guard).await);
        }
    }
    assert_eq!(admitted, 10);
}

#[tokio::test(start_paused = true)]
async fn an_outage_admits_what_the_documentation_says_and_no_more() {
    let (guard, remote) = guard(Fallback::LocalShare(Portion::WHOLE));
    let admit_all = async || {
        let mut admitted = 0;
        while is_allowed(&guard).await {
            admitted += 1;
        }
        admitted
    };
    // The whole limit before it, the whole of it again at the switch …
    assert_eq!(admit_all().await, 10);
    remote.does(UNREACHABLE);
    assert_eq!(admit_all().await, 10);
    // … and what has come back meanwhile at the switch back.
    remote.clock().advance(Duration::from_secs(86_400 / 2));
    tokio::time::advance(Duration::from_secs(2)).await;
    remote.does(Does::Answers);
    assert_eq!(admit_all().await, 5);
    // The store of the share remembers: the next outage has no new burst.
    remote.does(UNREACHABLE);
    assert_eq!(admit_all().await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_cost_above_the_share_but_not_the_limit_is_refused_until_the_backend_is_asked_again() {
    let (guard, remote) = guard(half());
    open(&guard, &remote).await;
    let wait = async |units| {
        let decision = guard.decide(&limit(), &alice(), &Demand::exactly(Cost::new(units))).await;
        decision.expect("decided here").retry_after()
    };
    let Some(RetryAfter::After(time)) = wait(8).await else { panic!("never, or at once") };
    assert!(time >= Duration::from_millis(500) && time <= Duration::from_secs(1), "{time:?}");
    assert_eq!(wait(11).await, Some(RetryAfter::Never));
}

#[tokio::test(start_paused = true)]
async fn a_share_of_less_than_one_unit_refuses_and_says_when_to_come_back() {
    let (guard, remote) = guard(Fallback::LocalShare(Portion::of(11).expect("eleven")));
    remote.does(UNREACHABLE);
    let refused = ask(&guard).await.expect("decided here");
    assert_eq!(refused.snapshot().limit, 0);
    assert!(matches!(refused.retry_after(), Some(RetryAfter::After(time)) if !time.is_zero()));
}

#[tokio::test(start_paused = true)]
async fn refusing_passes_the_error_on_and_says_that_it_was_not_asked_while_open() {
    let (guard, remote) = guard(Fallback::Refuse);
    remote.does(UNREACHABLE);
    for _ in 0..3 {
        let error = ask(&guard).await.expect_err("no answer");
        assert_eq!(error.kind(), BackendErrorKind::Unreachable);
    }
    let error = ask(&guard).await.expect_err("not asked");
    assert_eq!(error.kind(), BackendErrorKind::CircuitOpen);
    let cause = error.source().expect("the last failure").to_string();
    assert_eq!(cause, "the rate limit backend could not be reached");
}

#[tokio::test(start_paused = true)]
async fn admitting_lets_everything_through_and_says_that_it_is_unmetered() {
    let (guard, remote) = guard(Fallback::Admit);
    open(&guard, &remote).await;
    for _ in 0..50 {
        let decision = ask(&guard).await.expect("admitted");
        assert!(decision.charge().is_some_and(|charge| charge.is_unmetered()));
        assert_eq!((decision.snapshot().limit, decision.snapshot().remaining), (10, 9));
    }
    assert!(guard.local().is_empty());
}

#[tokio::test(start_paused = true)]
async fn admitting_does_not_admit_what_no_quota_would() {
    let (guard, remote) = guard(Fallback::Admit);
    open(&guard, &remote).await;
    let demand = Demand::exactly(Cost::new(11));
    let decision = guard.decide(&limit(), &alice(), &demand).await.expect("decided here");
    assert_eq!(decision.retry_after(), Some(RetryAfter::Never));
    let closed = TokenBucket::new(Quota::CLOSED);
    let decision = guard.decide(&closed, &alice(), &Demand::exactly(Cost::ONE)).await;
    assert!(!decision.expect("decided here").is_allowed());
}

#[tokio::test(start_paused = true)]
async fn what_the_backend_admits_is_metered() {
    let (guard, _) = guard(Fallback::Admit);
    let decision = ask(&guard).await.expect("an answer");
    assert_eq!(decision.charge().map(|charge| charge.is_unmetered()), Some(false));
}

#[tokio::test(start_paused = true)]
async fn a_share_of_a_plan_keeps_the_places_of_its_limits() {
    let plan = Plan::new()
        .limit(tower_quota::PolicyName::from_static("one"), TokenBucket::new(Quota::per_day(100)))
        .limit(tower_quota::PolicyName::from_static("two"), TokenBucket::new(Quota::per_day(4)))
        .build()
        .expect("a plan");
    let remote = Remote::new();
    let guard = settings(half()).build_with_clock(remote.clone(), ManualClock::new());
    remote.does(UNREACHABLE);
    let demand = Demand::exactly(Cost::ONE);
    let mut last = None;
    for _ in 0..3 {
        last = Some(guard.decide(&plan, &alice(), &demand).await.expect("decided here"));
    }
    let Some(Decision::Deny { snapshot, violated, .. }) = last else { panic!("not refused") };
    assert_eq!((snapshot.policy, snapshot.limit), (1, 2));
    assert!(violated.contains(1) && !violated.contains(0));
}

#[tokio::test(start_paused = true)]
async fn a_share_of_a_leaky_bucket_drains_slower() {
    let remote = Remote::new();
    let guard = settings(half()).build_with_clock(remote.clone(), ManualClock::new());
    remote.does(UNREACHABLE);
    let bucket = LeakyBucket::new(Quota::per_second(10)).depth(4);
    let mut delays = Vec::new();
    for _ in 0..3 {
        let decision = guard.decide(&bucket, &alice(), &Demand::exactly(Cost::ONE)).await;
        delays.push(decision.expect("decided here").charge().map(|Charge { delay, .. }| delay));
    }
    assert_eq!(delays, [Some(Duration::ZERO), Some(Duration::from_millis(200)), None]);
}

#[tokio::test(start_paused = true)]
async fn peeks_and_demands_for_as_many_as_there_are_go_to_the_share_too() {
    let (guard, remote) = guard(half());
    open(&guard, &remote).await;
    let peek = guard.decide(&limit(), &alice(), &Demand::peek(Cost::ONE)).await;
    assert_eq!(peek.expect("decided here").snapshot().remaining, 1);
    let rest = guard.decide(&limit(), &alice(), &Demand::up_to(10, Cost::ONE)).await;
    let charge = rest.expect("decided here").charge().expect("two are left");
    assert_eq!(charge.cost, Cost::new(2));
}
