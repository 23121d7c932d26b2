//! What has to be asked for before it can be told: what is left of plans, and what is deferred.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use futures::future::{join, join_all};
use tokio::time::MissedTickBehavior;
use tower_quota::{
    Cost,
    backend::Backend as _,
    decision::{Demand, Snapshot},
    deferred::Counts,
};

use crate::{live::Gateway, numbers::lock, tenants::Tenant};

/// As it was at the last look.
#[derive(Debug, Default)]
pub(crate) struct Lookout {
    /// What is left of each limit, by the tenant.
    plans: Mutex<HashMap<String, Vec<(&'static str, Snapshot)>>>,
    deferred: Mutex<Option<Counts>>,
    /// Where the next look begins among the tenants.
    next: AtomicUsize,
}

impl Lookout {
    /// Looks each second, for ever.
    pub(crate) async fn run(gateway: Arc<Gateway>) {
        let mut second = tokio::time::interval(Duration::from_secs(1));
        second.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            second.tick().await;
            join(gateway.lookout.look(&gateway), gateway.home.store.try_again()).await;
        }
    }

    /// Looks once, and takes nothing.
    pub(crate) async fn look(&self, gateway: &Gateway) {
        let live = gateway.live();
        let mut tenants: Vec<_> = live.tenants.values().collect();
        tenants.sort_by(|one, other| one.name.cmp(&other.name));
        // So many each second: a thousand tenants must not be a load on the server, whoever looks.
        let first = match tenants.len() {
            0 => 0,
            all => self.next.fetch_add(AT_ONCE, Relaxed) % all,
        };
        tenants.rotate_left(first);
        tenants.truncate(AT_ONCE);
        let plans = tenants.into_iter().map(|tenant| left(gateway, tenant));
        let (plans, deferred) = join(join_all(plans), gateway.later.counts()).await;
        *lock(&self.deferred) = deferred;
        let mut known = lock(&self.plans);
        let names: HashSet<_> = live.tenants.values().map(|tenant| &tenant.name).collect();
        known.retain(|name, _| names.contains(name));
        known.extend(plans);
    }

    pub(crate) fn left(&self, tenant: &str) -> Vec<(&'static str, Snapshot)> {
        lock(&self.plans).get(tenant).cloned().unwrap_or_default()
    }

    /// Nothing, where the store does not answer.
    pub(crate) fn deferred(&self) -> Option<Counts> {
        *lock(&self.deferred)
    }
}

async fn left(gateway: &Gateway, tenant: &Tenant) -> (String, Vec<(&'static str, Snapshot)>) {
    let looks = tenant.plan.limits.iter().map(|(name, limit)| async move {
        let decision = gateway.used.decide(limit, &tenant.key, &Demand::peek(Cost::ZERO)).await;
        Some((*name, decision.ok()?.snapshot()))
    });
    let left = join_all(looks).await.into_iter().flatten().collect();
    (tenant.name.clone(), left)
}

/// Tenants that are looked at in a second.
const AT_ONCE: usize = 32;
