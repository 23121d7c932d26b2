//! A call on its way: who makes it, for which model, and what it is known to cost.

use std::{
    sync::{Arc, Mutex, atomic::Ordering::Relaxed},
    time::Duration,
};

use tokio::time::Instant;
use tower_quota::{Cost, queue::Ask, upstream::Estimate};

use crate::{
    live::Route,
    numbers::{Tally, WaitingNow, lock},
    tenants::Tenant,
};

/// It travels in the extensions of the request.
#[derive(Clone, Debug)]
pub(crate) struct Call(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    tenant: Arc<Tenant>,
    route: Arc<Route>,
    estimate: Estimate,
    begun: Instant,
    all: Arc<Tally>,
    /// Nothing once it was sent.
    waiting: Mutex<Option<WaitingNow>>,
}

impl Call {
    pub(crate) fn new(
        tenant: Arc<Tenant>,
        route: Arc<Route>,
        estimate: Estimate,
        all: Arc<Tally>,
    ) -> Self {
        let waiting = Mutex::default();
        let begun = Instant::now();
        Self(Arc::new(Inner { tenant, route, estimate, begun, all, waiting }))
    }

    pub(crate) fn tenant(&self) -> &Arc<Tenant> {
        &self.0.tenant
    }

    pub(crate) fn route(&self) -> &Arc<Route> {
        &self.0.route
    }

    /// It came to so many tokens.
    pub(crate) fn spent(&self, tokens: u64) {
        for tally in [&self.0.all, &self.0.tenant.tally] {
            tally.tokens.fetch_add(tokens, Relaxed);
        }
    }

    pub(crate) fn estimate(&self) -> Estimate {
        self.0.estimate
    }

    /// What is reserved for it in its tenant's plan: a request, and tokens.
    pub(crate) fn reserve(&self) -> Cost {
        let Estimate { input, output_cap, .. } = self.0.estimate;
        let output = output_cap.map_or(USUAL_OUTPUT, |cap| cap.min(MOST_RESERVED));
        Cost::new(1).with(1, input.saturating_add(output))
    }

    /// How it asks for its turn at an account.
    pub(crate) fn ask(&self, cost: Cost) -> Ask {
        let plan = &self.0.tenant.plan;
        Ask::new(cost)
            .flow(self.0.tenant.key.clone())
            .weight(plan.weight)
            .priority(plan.priority)
            .max_wait(plan.max_wait)
    }

    /// It has passed the tenant's plan, and waits for an account.
    pub(crate) fn waits(&self) {
        let tallies = [Arc::clone(&self.0.all), Arc::clone(&self.0.tenant.tally)];
        *lock(&self.0.waiting) = Some(WaitingNow::new(tallies));
    }

    /// It is sent. The second time, to another account, its wait was counted already.
    pub(crate) fn sent(&self) {
        if lock(&self.0.waiting).take().is_some() {
            let wait = self.0.begun.elapsed();
            // A call that went through at once has waited for nothing but this process.
            let wait = if wait < NOTICEABLE { Duration::ZERO } else { wait };
            self.0.all.waited(wait);
            self.0.tenant.tally.waited(wait);
        }
    }

    /// It does not wait any more, however it ended.
    pub(crate) fn ended(&self) {
        drop(lock(&self.0.waiting).take());
    }
}

/// The tokens that an answer is taken to have whose caller does not bound it.
const USUAL_OUTPUT: u64 = 256;
/// A bound far above what answers have is not what they will have.
const MOST_RESERVED: u64 = 4_096;
const NOTICEABLE: Duration = Duration::from_millis(5);
