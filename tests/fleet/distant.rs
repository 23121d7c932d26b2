//! A ledger that is as far away as a server, in a time that is paused.

use std::time::Duration;

use futures::future::BoxFuture;
use tokio::time::{Instant, sleep};
use tower_quota::{
    BackendError, Charge, Cost, Decision, Demand, Key, MaybeReady,
    algorithm::Plan,
    backend::{Backend, Local, LocalBuilder},
    time::{Clock, Timestamp},
};

/// Tokio's time.
#[derive(Clone, Debug)]
pub(crate) struct Paused(Instant);

impl Paused {
    pub(crate) const START: Timestamp = Timestamp::from_secs(1_790_000_000);

    pub(crate) fn new() -> Self {
        Self(Instant::now())
    }
}

impl Clock for Paused {
    fn now(&self) -> Timestamp {
        Self::START.saturating_add(self.0.elapsed())
    }
}

/// The same algorithms as everywhere, behind a way that takes time. Like a server's, it does not show
/// its states.
#[derive(Clone, Debug)]
pub(crate) struct Distant {
    ledger: Local<Plan, Paused>,
    /// In one direction.
    way: Duration,
}

impl Distant {
    pub(crate) fn new(way: Duration) -> Self {
        Self { ledger: LocalBuilder::new().build_with_clock(Paused::new()), way }
    }
}

impl Backend<Plan> for Distant {
    type Decide = BoxFuture<'static, Result<Decision, BackendError>>;
    type Settle = BoxFuture<'static, Result<(), BackendError>>;

    fn decide(&self, plan: &Plan, key: &Key, demand: &Demand) -> MaybeReady<Self::Decide> {
        let (Self { ledger, way }, plan, key, demand) =
            (self.clone(), plan.clone(), key.clone(), *demand);
        MaybeReady::pending(Box::pin(async move {
            sleep(way).await;
            let decision = ledger.decide(&plan, &key, &demand).await;
            sleep(way).await;
            decision
        }))
    }

    fn settle(
        &self,
        plan: &Plan,
        key: &Key,
        charge: &Charge,
        actual: Cost,
    ) -> MaybeReady<Self::Settle> {
        let (Self { ledger, way }, plan, key, charge) =
            (self.clone(), plan.clone(), key.clone(), *charge);
        MaybeReady::pending(Box::pin(async move {
            sleep(way).await;
            let settled = ledger.settle(&plan, &key, &charge, actual).await;
            sleep(way).await;
            settled
        }))
    }
}
