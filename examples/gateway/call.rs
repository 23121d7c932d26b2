//! A call on its way: who makes it, for which model, and what it is known to cost.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::Instant;
use tower_quota::{
    Cost,
    queue::{Ask, Priority},
    upstream::Estimate,
};

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
    priority: Priority,
    begun: Instant,
    all: Arc<Tally>,
    /// It asks how many tokens a question has, and spends none.
    counts_only: AtomicBool,
    /// Nobody holds a connection for it.
    takes_its_time: AtomicBool,
    /// Nothing once it was sent.
    waiting: Mutex<Option<WaitingNow>>,
}

impl Call {
    pub(crate) fn new(
        tenant: Arc<Tenant>,
        route: Arc<Route>,
        estimate: Estimate,
        priority: Priority,
        all: Arc<Tally>,
    ) -> Self {
        for tally in [&all, &tenant.tally] {
            tally.under_way.fetch_add(1, Relaxed);
        }
        Self(Arc::new(Inner {
            tenant,
            route,
            estimate,
            priority,
            begun: Instant::now(),
            all,
            counts_only: AtomicBool::new(false),
            takes_its_time: AtomicBool::new(false),
            waiting: Mutex::default(),
        }))
    }

    pub(crate) fn tenant(&self) -> &Arc<Tenant> {
        &self.0.tenant
    }

    pub(crate) fn route(&self) -> &Arc<Route> {
        &self.0.route
    }

    /// It asks how many tokens a question has: that has a limit of its own at the provider, and takes
    /// nothing of the account.
    pub(crate) fn counting_only(self) -> Self {
        self.0.counts_only.store(true, Relaxed);
        self
    }

    pub(crate) fn counts_only(&self) -> bool {
        self.0.counts_only.load(Relaxed)
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
        if self.counts_only() {
            return Cost::new(1);
        }
        let Estimate { input, output_cap, .. } = self.0.estimate;
        let output = output_cap.map_or(USUAL_OUTPUT, |cap| cap.min(MOST_RESERVED));
        Cost::new(1).with(1, input.saturating_add(output))
    }

    /// How it asks for its turn at an account.
    pub(crate) fn ask(&self, cost: Cost) -> Ask {
        let plan = &self.0.tenant.plan;
        let (priority, max_wait) = match self.0.takes_its_time.load(Relaxed) {
            true => (Priority::LOW, NOBODY_WAITS),
            false => (self.0.priority, plan.max_wait),
        };
        Ask::new(cost)
            .flow(self.0.tenant.key.clone())
            .weight(plan.weight)
            .priority(priority)
            .max_wait(max_wait)
    }

    /// It was deferred: those whose callers wait for the answer go first.
    pub(crate) fn takes_its_time(&self) {
        self.0.takes_its_time.store(true, Relaxed);
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

impl Drop for Inner {
    fn drop(&mut self) {
        for tally in [&self.all, &self.tenant.tally] {
            tally.under_way.fetch_sub(1, Relaxed);
        }
    }
}

/// The tokens that an answer is taken to have whose caller does not bound it.
const USUAL_OUTPUT: u64 = 256;
/// A bound far above what answers have is not what they will have.
const MOST_RESERVED: u64 = 4_096;
/// Longer than any account lets a call wait.
const NOBODY_WAITS: Duration = Duration::from_secs(86_400);
const NOTICEABLE: Duration = Duration::from_millis(5);
