//! A ledger that is as far away as a server, in a time that is paused.

use std::time::Duration;

use futures::future::BoxFuture;
use tokio::time::sleep;
use tower_quota::{
    BackendError, Charge, Cost, Decision, Demand, Key, MaybeReady,
    algorithm::Plan,
    backend::{Backend, Local},
    time::Clock,
};

/// The same algorithms as everywhere, behind ways that take time. Like a server's, it does not show its
/// states.
#[derive(Clone, Debug)]
pub(crate) struct Distant<C: Clock> {
    ledger: Local<Plan, C>,
    decisions: Ways,
    settlements: Ways,
}

/// How long it takes to get there, and back.
#[derive(Clone, Copy, Debug)]
struct Ways {
    there: Duration,
    back: Duration,
}

impl<C: Clock> Distant<C> {
    /// It is as far there as it is back.
    #[allow(dead_code, reason = "not every test is about whole fleets")]
    pub(crate) fn new(ledger: Local<Plan, C>, way: Duration) -> Self {
        let ways = Ways { there: way, back: way };
        Self { ledger, decisions: ways, settlements: ways }
    }

    /// It decides when it is asked, and is heard later; and settles later.
    #[allow(dead_code, reason = "not every test is about single calls")]
    pub(crate) fn deciding_at_once(ledger: Local<Plan, C>, way: Duration) -> Self {
        let decisions = Ways { there: Duration::ZERO, back: way };
        let settlements = Ways { there: way, back: Duration::ZERO };
        Self { ledger, decisions, settlements }
    }
}

impl<C: Clock> Backend<Plan> for Distant<C> {
    type Decide = BoxFuture<'static, Result<Decision, BackendError>>;
    type Settle = BoxFuture<'static, Result<(), BackendError>>;

    fn decide(&self, plan: &Plan, key: &Key, demand: &Demand) -> MaybeReady<Self::Decide> {
        let Ways { there, back } = self.decisions;
        if there.is_zero() {
            let decision = self.ledger.decide_now(plan, key, demand);
            return MaybeReady::pending(Box::pin(async move {
                sleep(back).await;
                decision
            }));
        }
        let (ledger, plan, key, demand) = (self.ledger.clone(), plan.clone(), key.clone(), *demand);
        MaybeReady::pending(Box::pin(async move {
            sleep(there).await;
            let decision = ledger.decide_now(&plan, &key, &demand);
            sleep(back).await;
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
        let Ways { there, back } = self.settlements;
        let (ledger, plan, key, charge) = (self.ledger.clone(), plan.clone(), key.clone(), *charge);
        MaybeReady::pending(Box::pin(async move {
            sleep(there).await;
            let settled = ledger.settle(&plan, &key, &charge, actual).await;
            if !back.is_zero() {
                sleep(back).await;
            }
            settled
        }))
    }
}
