use std::sync::Arc;

use super::{Shared, holding::Holding, place::Standing};
use crate::{
    backend::redis::slots::{SlotJob, SlotPlace},
    concurrency::slot::Slot,
    error::BackendErrorKind,
    key::Key,
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
    if weight > shared.settings.max_per_key {
        return Err(Rejection::Busy(shared.busy(weight)));
    }
    loop {
        let attempt = match shared.outage.begin() {
            Ok(attempt) => attempt,
            Err(error) => return shared.instead(&key, weight, job, error).await,
        };
        let mut holding = Holding::begin(&shared, key.clone(), weight);
        let number = holding.place.number;
        let asked = timer_now();
        let answer = shared.ask(&key, job, weight, number).await;
        attempt.end(answer.as_ref().err());
        match answer.map(|standing| standing.place) {
            Ok(SlotPlace::Held) => {
                holding.place.lend(asked, shared.settings.lease);
                holding.keep();
                return Ok(Slot::shared(holding));
            }
            Ok(SlotPlace::Waiting) => {
                holding.place.wait();
                holding.keep();
                holding.place.served().await;
                if holding.place.standing() != Standing::Asked {
                    return Ok(Slot::shared(holding));
                }
                // The server has forgotten the line. It joins anew, at the end.
                holding.is_known = false;
            }
            Ok(SlotPlace::Full) => {
                holding.is_known = false;
                let most = shared.settings.max_waiting;
                return Err(Rejection::Busy(Busy::new(BusyScope::Queue, most, weight)));
            }
            Ok(SlotPlace::Refused | SlotPlace::Gone) => {
                holding.is_known = false;
                return Err(Rejection::Busy(shared.busy(weight)));
            }
            Err(error) => {
                // Perhaps it was done all the same: then it is given back.
                holding.is_known = error.kind() == BackendErrorKind::TimedOut;
                drop(holding);
                return shared.instead(&key, weight, job, error).await;
            }
        }
    }
}

impl Shared {
    /// A refusal for want of slots.
    pub(super) const fn busy(&self, weight: u64) -> Busy {
        Busy::new(BusyScope::Key, self.settings.max_per_key, weight)
    }
}
