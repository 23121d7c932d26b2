//! The task that renews what an instance holds, and looks for those that wait.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::{StreamExt, future::join_all};
use tokio::{
    runtime::Handle,
    task::JoinHandle,
    time::{Instant, sleep, timeout, timeout_at},
};

use super::{
    Shared,
    place::{Place, Standing},
};
use crate::{
    backend::redis::slots::{SlotJob, SlotPlace, SlotServer},
    error::{BackendError, BackendErrorKind},
    time::timer_now,
};

/// Starts the keeper, who has been appointed.
pub(super) fn start(shared: &Arc<Shared>) {
    match Handle::try_current() {
        Ok(runtime) => {
            let keeper = Keeper { shared: Arc::clone(shared), listener: None, ended: false };
            runtime.spawn(keeper.keep());
        }
        Err(_) => shared.roster.dismiss(),
    }
}

struct Keeper {
    shared: Arc<Shared>,
    listener: Option<Listener>,
    ended: bool,
}

impl Keeper {
    /// As long as there are places: asks the server about those that are due, and sleeps until the
    /// next is, or until something happens.
    async fn keep(mut self) {
        let shared = Arc::clone(&self.shared);
        let (lease, turns) = (shared.settings.lease, shared.server.turns());
        let mut next_look = timer_now() + shared.settings.look_every;
        loop {
            let now = timer_now();
            let looks = next_look <= now;
            if looks {
                next_look = now + self.look_pause();
            }
            let Some(round) = shared.roster.round(now, &turns.take(), looks, lease / 3) else {
                self.ended = true;
                return;
            };
            for place in &round.ended {
                shared.lose(place);
                place.stray();
            }
            if !round.asked.is_empty() {
                join_all(round.asked.iter().map(|place| shared.renew(place))).await;
                continue;
            }
            if round.waits && self.listener.is_none() {
                self.listener = Some(Listener::start(&shared.server));
            }
            let look = round.waits.then_some(next_look);
            let next = look.map_or(round.next, |look| look.min(round.next));
            // Whether something came or the time did is the same: it looks.
            drop(timeout_at(next, turns.come()).await);
        }
    }

    fn look_pause(&self) -> Duration {
        let seldom = self.listener.as_ref().is_some_and(Listener::hears);
        self.shared.settings.look_every * if seldom { 10 } else { 1 }
    }
}

/// A runtime that ends takes the keeper with it. Another may have one then.
impl Drop for Keeper {
    fn drop(&mut self) {
        if !self.ended {
            self.shared.roster.dismiss();
        }
    }
}

impl Shared {
    /// Asks the server to go on lending what it lends to `place`, and notes what it says.
    async fn renew(&self, place: &Place) {
        let asked = timer_now();
        match self.keep_up(place, SlotJob::Keep).await {
            // Its loan ended before the answer came: somebody may have been told.
            Some(SlotPlace::Held) if place.is_lost() => self.lose(place),
            Some(SlotPlace::Held) => place.lend(asked, self.settings.lease),
            Some(SlotPlace::Gone) => match place.standing() {
                Standing::Waiting(_) => place.stray(),
                // It was forgotten there, and its loan has not ended here: it enters again, if
                // nobody has its slots, whoever waits for them.
                Standing::Held(_) => self.enter_again(place, asked).await,
                Standing::Asked | Standing::Lost => {}
            },
            Some(SlotPlace::Waiting) if place.standing() != Standing::Asked => {
                place.wait(asked, self.settings.lease);
            }
            Some(_) | None => {}
        }
    }

    async fn enter_again(&self, place: &Place, asked: Instant) {
        place.ask();
        // Whoever has left before that gave it back already; whoever leaves later sees it.
        if !self.roster.has(place.number) {
            return;
        }
        let answer = self.keep_up(place, SlotJob::Reenter).await;
        if answer.is_some() {
            place.answered();
        }
        match answer {
            Some(SlotPlace::Held) => place.lend(asked, self.settings.lease),
            Some(_) => self.lose(place),
            None => {}
        }
    }

    /// What the server says. After a failure it is asked again soon: a call that may take longer
    /// than a third of the loan is not waited for that long, or there would be no second one.
    async fn keep_up(&self, place: &Place, job: SlotJob) -> Option<SlotPlace> {
        let asked = self.ask(&place.key, job, place.weight, place.number);
        let answer = match timeout(self.settings.lease / 3, asked).await {
            Ok(answer) => answer,
            Err(_) => Err(BackendError::new(BackendErrorKind::TimedOut)),
        };
        if answer.is_err() {
            let soon = (self.settings.lease / 12).min(SOON);
            self.roster.postpone(place.number, timer_now() + soon);
        }
        self.outage.heard(None, answer.as_ref().err());
        answer.ok().map(|standing| standing.place)
    }

    /// Notes that `place` has no slots any more, and tells of it once.
    fn lose(&self, place: &Place) {
        if place.lose() {
            self.observer.lost(place.weight);
        }
    }
}

/// The longest time until a call that failed is made again.
const SOON: Duration = Duration::from_secs(1);

/// The task that hears of turns. It ends with this.
struct Listener {
    hears: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

/// After a connection could not be opened, or was lost.
const RECONNECT: Duration = Duration::from_secs(1);

impl Listener {
    fn start(server: &Arc<dyn SlotServer>) -> Self {
        let (server, hears) = (Arc::clone(server), Arc::new(AtomicBool::new(false)));
        let hearing = Arc::clone(&hears);
        let task = tokio::spawn(async move {
            loop {
                if let Some(mut turns) = server.listen().await {
                    hearing.store(true, Ordering::Relaxed);
                    while let Some(numbers) = turns.next().await {
                        server.turns().add(numbers);
                    }
                    hearing.store(false, Ordering::Relaxed);
                }
                sleep(RECONNECT).await;
            }
        });
        Self { hears, task }
    }

    fn hears(&self) -> bool {
        self.hears.load(Ordering::Relaxed)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}
