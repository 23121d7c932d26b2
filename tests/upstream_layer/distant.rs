//! A store that is away.

use std::time::Duration;

use futures::future::BoxFuture;
use tower_quota::{
    BackendError, Charge, Cost, Decision, Demand, Key, MaybeReady, algorithm::Plan,
    backend::Backend,
};

use crate::support::{Store, millis};

/// A store that decides at once and is heard of later, as a server is.
#[derive(Clone)]
pub(crate) struct Distant(pub(crate) Store);

const WAY: Duration = millis(5);

impl Backend<Plan> for Distant {
    type Decide = BoxFuture<'static, Result<Decision, BackendError>>;
    type Settle = BoxFuture<'static, Result<(), BackendError>>;

    fn decide(&self, plan: &Plan, key: &Key, demand: &Demand) -> MaybeReady<Self::Decide> {
        let decision = self.0.decide_now(plan, key, demand);
        MaybeReady::pending(Box::pin(async {
            tokio::time::sleep(WAY).await;
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
        let (store, plan) = (self.0.clone(), plan.clone());
        let (key, charge) = (key.clone(), *charge);
        MaybeReady::pending(Box::pin(async move {
            tokio::time::sleep(WAY).await;
            store.settle(&plan, &key, &charge, actual).await
        }))
    }
}
