use std::time::Duration;

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use crate::{
    key::Key,
    sync::{AtomicBool, Ordering},
    time::timer_now,
};

/// Slots that are asked for, waited for or held.
pub(in crate::concurrency) struct Place {
    pub(in crate::concurrency) key: Key,
    pub(in crate::concurrency) weight: u64,
    /// Its number in this instance.
    pub(super) number: u64,
    /// Whether a call that may give it slots is under way, or has ended without an answer.
    is_asked_for: AtomicBool,
    standing: watch::Sender<Standing>,
}

/// How a place stands, as far as is known here.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Standing {
    /// The server has been asked, or is to be asked again: the line has forgotten it.
    Asked,
    /// It waits in line until then, or longer if that is confirmed before: a server that is gone
    /// has no line.
    Waiting(Instant),
    /// It has its slots until then, or longer if that is confirmed before.
    Held(Instant),
    /// It had them.
    Lost,
}

impl Place {
    pub(super) fn new(key: Key, weight: u64, number: u64) -> Self {
        let standing = watch::Sender::new(Standing::Asked);
        Self { key, weight, number, is_asked_for: AtomicBool::new(true), standing }
    }

    /// A call goes out that may give it slots.
    pub(super) fn ask(&self) {
        self.is_asked_for.store(true, Ordering::SeqCst);
    }

    /// The answer to that has come.
    pub(super) fn answered(&self) {
        self.is_asked_for.store(false, Ordering::SeqCst);
    }

    pub(super) fn is_asked_for(&self) -> bool {
        self.is_asked_for.load(Ordering::SeqCst)
    }

    pub(super) fn standing(&self) -> Standing {
        *self.standing.borrow()
    }

    /// The server lends it slots, as it was asked to at `asked`.
    ///
    /// A loan that has ended is not renewed: somebody may have been told.
    pub(super) fn lend(&self, asked: Instant, lease: Duration) {
        let now = timer_now();
        self.standing.send_if_modified(|standing| {
            *standing = match *standing {
                Standing::Lost => return false,
                Standing::Held(until) if until <= now => Standing::Lost,
                // The clock of a server that is a little faster.
                _ => Standing::Held(asked + (lease - lease / 50)),
            };
            true
        });
    }

    /// It stands in line, as the server says that was asked at `asked`, if it has not got its slots
    /// meanwhile.
    pub(super) fn wait(&self, asked: Instant, lease: Duration) {
        self.standing.send_if_modified(|standing| {
            if let Standing::Asked | Standing::Waiting(_) = standing {
                *standing = Standing::Waiting(asked + lease);
            }
            // Nobody acts on this: who waits for its turn goes on waiting.
            false
        });
    }

    /// The line does not know it, or has not been heard of for too long.
    pub(super) fn stray(&self) {
        self.standing.send_if_modified(|standing| {
            let waits = matches!(standing, Standing::Waiting(_));
            if waits {
                *standing = Standing::Asked;
            }
            waits
        });
    }

    /// It has no slots any more. Whether it had until now.
    pub(super) fn lose(&self) -> bool {
        self.standing.send_if_modified(|standing| {
            let held = matches!(standing, Standing::Held(_));
            if held {
                *standing = Standing::Lost;
            }
            held
        })
    }

    pub(in crate::concurrency) fn is_lost(&self) -> bool {
        match self.standing() {
            Standing::Lost => true,
            Standing::Held(until) => until <= timer_now(),
            Standing::Asked | Standing::Waiting(_) => false,
        }
    }

    pub(super) fn is_held(&self) -> bool {
        matches!(self.standing(), Standing::Held(until) if until > timer_now())
    }

    /// Ends when it does not wait in line any longer.
    pub(super) async fn served(&self) {
        let mut standing = self.standing.subscribe();
        // The sender is here.
        let _open = standing.wait_for(|it| !matches!(it, Standing::Waiting(_))).await;
    }

    /// Ends when it has lost its slots.
    pub(in crate::concurrency) async fn lost(&self) {
        let mut standing = self.standing.subscribe();
        loop {
            let until = match *standing.borrow_and_update() {
                Standing::Lost => return,
                Standing::Held(until) => until,
                Standing::Asked | Standing::Waiting(_) => timer_now() + AN_HOUR,
            };
            let changed = std::pin::pin!(standing.changed());
            let ended = std::pin::pin!(sleep_until(until));
            futures::future::select(changed, ended).await;
            if self.is_lost() {
                return;
            }
        }
    }
}

/// Some time after which it looks again.
const AN_HOUR: Duration = Duration::from_secs(3_600);
