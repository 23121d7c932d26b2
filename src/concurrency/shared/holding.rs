use std::{sync::Arc, time::Duration};

use tokio::{runtime::Handle, time::sleep};

use super::{Shared, keeper, place::Place, roster::Notice};
use crate::{backend::redis::slots::SlotJob, concurrency::slot::Loan, key::Key, time::timer_now};

/// A place of this instance. Dropped, it is given back.
pub(super) struct Holding {
    shared: Arc<Shared>,
    pub(super) place: Arc<Place>,
    /// Whether the server may know of it.
    pub(super) is_known: bool,
    /// Whether it is told of that it has slots.
    is_told: bool,
}

/// After a call that failed, a place is given back again so much later; and one whose call may be
/// under way, so much after that has ended.
const PAUSE: Duration = Duration::from_millis(100);

impl Holding {
    pub(super) fn begin(shared: &Arc<Shared>, key: Key, weight: u64) -> Self {
        let due = timer_now() + shared.settings.lease / 3;
        let place = shared.roster.enter(key, weight, due);
        Self { shared: Arc::clone(shared), place, is_known: true, is_told: false }
    }

    /// It has its slots.
    pub(super) fn held(&mut self) {
        self.is_told = true;
        self.shared.observer.held(self.place.weight);
    }

    /// From here on somebody has to renew it.
    pub(super) fn keep(&self) {
        match self.shared.roster.notice(&self.place) {
            Notice::Appoint => keeper::start(&self.shared),
            Notice::Rouse => self.shared.server.turns().rouse(),
            Notice::InTime => {}
        }
    }
}

impl Loan for Holding {
    fn place(&self) -> &Place {
        &self.place
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        if self.is_told {
            self.shared.observer.released(self.place.weight);
        }
        if self.shared.roster.leave(self.place.number) {
            // The keeper has nothing more to do.
            self.shared.server.turns().rouse();
        }
        if !self.is_known {
            return;
        }
        // Without a runtime it is free when its time is over.
        let Ok(runtime) = Handle::try_current() else { return };
        let (shared, place) = (Arc::clone(&self.shared), Arc::clone(&self.place));
        runtime.spawn(async move {
            let was_asked_for = place.is_asked_for();
            shared.free(&place).await;
            if was_asked_for {
                // Calls can overtake each other, on the connections of a pool or when one is
                // repeated.
                sleep(shared.settings.timeout + PAUSE).await;
                shared.free(&place).await;
            }
        });
    }
}

impl Shared {
    /// Gives back what the server may have lent to a place, for as long as it may be lent.
    async fn free(&self, place: &Place) {
        let until = timer_now() + self.settings.lease;
        let Place { key, weight, number, .. } = place;
        while self.ask(key, SlotJob::Free, *weight, *number).await.is_err() && timer_now() < until {
            sleep(PAUSE).await;
        }
    }
}
