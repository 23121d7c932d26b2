use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{Shared, holding::Holding, place::Standing};
use crate::{
    backend::redis::slots::{SlotJob, SlotLimits, SlotPlace},
    concurrency::slot::Slot,
    error::BackendErrorKind,
    key::Key,
    observe::slots::SlotEnd,
    rejection::{Busy, BusyScope, Rejection},
    time::timer_now,
};

/// Asks the server for slots, and waits for them if it is to.
pub(super) async fn acquire(
    shared: Arc<Shared>,
    key: Key,
    weight: u64,
    job: SlotJob,
) -> Result<Slot, Rejection> {
    let mut request = Request { shared: &shared, since: None, is_open: true };
    let SlotLimits { per_key, total, .. } = shared.settings.limits;
    if weight > per_key {
        return Err(request.refused(shared.busy(SlotPlace::Refused, weight)));
    }
    if total.is_some_and(|total| weight > total) {
        return Err(request.refused(shared.busy(SlotPlace::RefusedByAll, weight)));
    }
    loop {
        let attempt = match shared.outage.begin() {
            Ok(attempt) => attempt,
            Err(error) => {
                request.is_open = false;
                return shared.instead(&key, weight, job, error, request.waited()).await;
            }
        };
        let mut holding = Holding::begin(&shared, key.clone(), weight);
        let number = holding.place.number;
        let asked = timer_now();
        let answer = shared.ask(&key, job, weight, number).await;
        attempt.end(answer.as_ref().err());
        if answer.is_ok() {
            holding.place.answered();
        }
        match answer.map(|standing| standing.place) {
            Ok(SlotPlace::Held) => {
                holding.place.lend(asked, shared.settings.lease);
                holding.keep();
                return Ok(request.served(holding));
            }
            Ok(SlotPlace::Waiting) => {
                request.wait();
                holding.place.wait(asked, shared.settings.lease);
                holding.keep();
                holding.place.served().await;
                if holding.place.standing() != Standing::Asked {
                    return Ok(request.served(holding));
                }
                // The server has forgotten the line, or is gone. It joins anew, at the end, if that
                // answers. What it was perhaps lent by then is given back.
            }
            Ok(refused) => {
                holding.is_known = false;
                return Err(request.refused(shared.busy(refused, weight)));
            }
            Err(error) => {
                // Perhaps it was done all the same: then it is given back.
                holding.is_known = error.kind() == BackendErrorKind::TimedOut;
                drop(holding);
                request.is_open = false;
                return shared.instead(&key, weight, job, error, request.waited()).await;
            }
        }
    }
}

/// One who wants slots, until it is told how that ended. Dropped before, it has left.
struct Request<'s> {
    shared: &'s Shared,
    /// Since when it waits in line.
    since: Option<Instant>,
    is_open: bool,
}

impl Request<'_> {
    fn wait(&mut self) {
        if self.since.is_none() {
            self.since = Some(timer_now());
            self.shared.observer.waits();
        }
    }

    fn waited(&self) -> Option<Duration> {
        self.since.map(|since| timer_now().saturating_duration_since(since))
    }

    fn served(mut self, mut holding: Holding) -> Slot {
        holding.held();
        let waited = self.waited();
        self.end(if waited.is_some() { SlotEnd::AfterWait } else { SlotEnd::AtOnce });
        Slot::shared(holding)
    }

    fn refused(mut self, busy: Busy) -> Rejection {
        self.end(SlotEnd::Refused);
        Rejection::Busy(busy)
    }

    fn end(&mut self, end: SlotEnd) {
        self.is_open = false;
        self.shared.observer.ended(end, self.waited());
    }
}

impl Drop for Request<'_> {
    fn drop(&mut self) {
        // One that has not waited may not have been polled: it says nothing.
        if self.is_open && self.since.is_some() {
            self.end(SlotEnd::Left);
        }
    }
}

impl Shared {
    /// A refusal, by how the server says that one stands who has no slots.
    pub(super) fn busy(&self, place: SlotPlace, weight: u64) -> Busy {
        let SlotLimits { per_key, total, waiting_per_key, total_waiting } = self.settings.limits;
        let (scope, most) = match place {
            SlotPlace::RefusedByAll => (BusyScope::Total, total.unwrap_or(per_key)),
            SlotPlace::Full => (BusyScope::Queue, waiting_per_key),
            SlotPlace::FullOfAll => (BusyScope::Queue, total_waiting),
            _ => (BusyScope::Key, per_key),
        };
        Busy::new(scope, most, weight)
    }
}
