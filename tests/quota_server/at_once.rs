//! Many requests at once, over a backend that does not answer at once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use futures::future::{BoxFuture, FutureExt as _, join_all};
use tower_quota::{
    BackendError, BackendErrorKind, Charge, Cost, Decision, Demand, Key, MaybeReady,
    algorithm::Plan,
    backend::{Backend, Local, LocalBuilder},
    quota_service::{Ask, Descriptor, QuotaService, ReservationId, SettleError},
    time::{ManualClock, Timestamp},
};

/// A backend that fails once: at the decision of this number.
#[derive(Clone)]
struct FailsAt(usize, Arc<AtomicUsize>, Local<Plan, ManualClock>);

impl Backend<Plan> for FailsAt {
    type Decide = <Local<Plan, ManualClock> as Backend<Plan>>::Decide;
    type Settle = <Local<Plan, ManualClock> as Backend<Plan>>::Settle;

    fn decide(&self, plan: &Plan, key: &Key, demand: &Demand) -> MaybeReady<Self::Decide> {
        let Self(at, asked, local) = self;
        if asked.fetch_add(1, Ordering::Relaxed) == *at {
            return MaybeReady::ready(Err(BackendError::new(BackendErrorKind::TimedOut)));
        }
        local.decide(plan, key, demand)
    }

    fn settle(
        &self,
        plan: &Plan,
        key: &Key,
        charge: &Charge,
        actual: Cost,
    ) -> MaybeReady<Self::Settle> {
        self.2.settle(plan, key, charge, actual)
    }
}

#[tokio::test]
async fn a_request_that_has_no_verdict_is_not_charged() {
    let rules = r#"
        domain = "edge"
        descriptors = [
            { key = "spare", quota_mode = true, rate_limit = { quota = "9/hour" } },
            { key = "user", rate_limit = { quota = "9/hour" } },
            { key = "tried", shadow_mode = true, rate_limit = { quota = "9/hour" } },
        ]
    "#;
    let each = ["spare", "user", "tried"].map(|key| Descriptor::new([(key, "")]));
    // One is looked at, and all are charged.
    for at in 0..4 {
        let backend = FailsAt(at, Arc::default(), local());
        let service = QuotaService::new(rules.parse().expect("rules"), backend);
        let ask = Ask::new("edge", each.clone());
        assert!(service.ask(&ask).await.is_err(), "{at}");
        for descriptor in &each {
            assert_eq!(left(&service, descriptor.clone()).await, 9, "{at}");
        }
        assert!(service.ask(&ask).await.expect("a verdict").allowed);
    }
}

/// A backend that lets others go first, before each of its answers.
#[derive(Clone)]
struct Slow(Local<Plan, ManualClock>);

impl Backend<Plan> for Slow {
    type Decide = BoxFuture<'static, Result<Decision, BackendError>>;
    type Settle = BoxFuture<'static, Result<(), BackendError>>;

    fn decide(&self, plan: &Plan, key: &Key, demand: &Demand) -> MaybeReady<Self::Decide> {
        let (local, plan, key, demand) = (self.0.clone(), plan.clone(), key.clone(), *demand);
        let later = async move {
            tokio::task::yield_now().await;
            local.decide(&plan, &key, &demand).await
        };
        MaybeReady::pending(later.boxed())
    }

    fn settle(
        &self,
        plan: &Plan,
        key: &Key,
        charge: &Charge,
        actual: Cost,
    ) -> MaybeReady<Self::Settle> {
        let (local, plan, key, charge) = (self.0.clone(), plan.clone(), key.clone(), *charge);
        let later = async move {
            tokio::task::yield_now().await;
            local.settle(&plan, &key, &charge, actual).await
        };
        MaybeReady::pending(later.boxed())
    }
}

fn local() -> Local<Plan, ManualClock> {
    let clock = ManualClock::starting_at(Timestamp::from_secs(1_200_000_000));
    LocalBuilder::new().build_with_clock(clock)
}

const QUOTA: &str = r#"
    domain = "edge"
    descriptors = [
        { key = "spare", quota_mode = true, rate_limit = { unit = "hour", requests_per_unit = 1 } },
        { key = "user", rate_limit = { unit = "hour", requests_per_unit = 1 } },
    ]
"#;

fn spare() -> Descriptor {
    Descriptor::new([("spare", "")])
}

async fn left(service: &QuotaService, descriptor: Descriptor) -> u64 {
    let look = Ask::new("edge", [descriptor.hits(0)]);
    let verdict = service.inspect(&look).await.expect("a verdict");
    verdict.statuses[0].limited().expect("a limit").snapshot.remaining
}

#[tokio::test]
async fn a_quota_admits_no_more_at_once_than_one_after_the_other() {
    let service = QuotaService::new(QUOTA.parse().expect("rules"), Slow(local()));
    let ask = Ask::new("edge", [spare()]);
    let verdicts = join_all((0..100).map(|_| service.ask(&ask))).await;
    let admitted =
        verdicts.into_iter().filter(|verdict| verdict.as_ref().expect("a verdict").allowed);
    assert_eq!(admitted.count(), 1);
}

#[test]
fn a_quota_admits_no_more_from_many_threads() {
    let service = QuotaService::new(QUOTA.parse().expect("rules"), local());
    let admitted = Arc::new(AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let ask = Ask::new("edge", [spare()]);
                for _ in 0..100 {
                    let verdict = service.ask(&ask).now_or_never().expect("an answer at once");
                    let allowed = verdict.expect("a verdict").allowed;
                    admitted.fetch_add(usize::from(allowed), Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(admitted.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_quota_is_given_back_if_another_limit_refuses_after_all() {
    let rules = QUOTA.replace(
        "quota_mode = true, rate_limit = { unit = \"hour\", requests_per_unit = 1 }",
        "quota_mode = true, rate_limit = { unit = \"hour\", requests_per_unit = 9 }",
    );
    let service = QuotaService::new(rules.parse().expect("rules"), Slow(local()));
    let user = Descriptor::new([("user", "alice")]);
    let ask = Ask::new("edge", [spare(), user]);
    let verdicts = join_all((0..5).map(|_| service.ask(&ask))).await;
    let verdicts: Vec<_> =
        verdicts.into_iter().map(|verdict| verdict.expect("a verdict")).collect();
    assert_eq!(verdicts.iter().filter(|verdict| verdict.allowed).count(), 1);
    assert_eq!(left(&service, spare()).await, 8);
    // And of one that refuses at once nothing is taken.
    assert!(!service.ask(&ask).await.expect("a verdict").allowed);
    assert_eq!(left(&service, spare()).await, 8);
}

const TOKENS: &str = r#"
    domain = "edge"
    descriptors = [{ key = "tokens", rate_limit = { quota = "9/hour" } }]
"#;

async fn reserve_nine(service: &QuotaService) -> ReservationId {
    let ask = Ask::new("edge", [tokens()]).hits(9);
    let (_, id) = service.reserve(&ask, Duration::from_secs(60)).await.expect("a verdict");
    id.expect("a reservation")
}

fn tokens() -> Descriptor {
    Descriptor::new([("tokens", "")])
}

#[tokio::test]
async fn a_correction_outlives_who_asked_for_it() {
    let service = QuotaService::new(TOKENS.parse().expect("rules"), Slow(local()));
    let id = reserve_nine(&service).await;
    assert!(service.settle(id, |_| Some(2)).now_or_never().is_none(), "it is under way");
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert_eq!(left(&service, tokens()).await, 7);
}

/// A backend that fails to correct, once.
#[derive(Clone)]
struct FailsToSettle(BackendErrorKind, Arc<AtomicUsize>, Local<Plan, ManualClock>);

impl Backend<Plan> for FailsToSettle {
    type Decide = <Local<Plan, ManualClock> as Backend<Plan>>::Decide;
    type Settle = <Local<Plan, ManualClock> as Backend<Plan>>::Settle;

    fn decide(&self, plan: &Plan, key: &Key, demand: &Demand) -> MaybeReady<Self::Decide> {
        self.2.decide(plan, key, demand)
    }

    fn settle(
        &self,
        plan: &Plan,
        key: &Key,
        charge: &Charge,
        actual: Cost,
    ) -> MaybeReady<Self::Settle> {
        if self.1.fetch_add(1, Ordering::Relaxed) == 0 {
            return MaybeReady::ready(Err(BackendError::new(self.0)));
        }
        self.2.settle(plan, key, charge, actual)
    }
}

#[tokio::test]
async fn a_reservation_can_be_settled_again_if_it_surely_was_not() {
    let cases = [(BackendErrorKind::Unreachable, true), (BackendErrorKind::TimedOut, false)];
    for (kind, again) in cases {
        let backend = FailsToSettle(kind, Arc::default(), local());
        let service = QuotaService::new(TOKENS.parse().expect("rules"), backend);
        let id = reserve_nine(&service).await;
        let error = service.settle(id, |_| Some(2)).await.expect_err("the store failed");
        assert!(matches!(error, SettleError::Backend(_)), "{error:?}");
        assert_eq!(service.open_reservations(), usize::from(again), "{kind:?}");
        assert_eq!(service.settle(id, |_| Some(2)).await.is_ok(), again, "{kind:?}");
        assert_eq!(left(&service, tokens()).await, if again { 7 } else { 0 });
        assert_eq!(service.open_reservations(), 0);
    }
}
