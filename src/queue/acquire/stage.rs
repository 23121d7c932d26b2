#[cfg(not(shuttle))]
use std::future::Future;
use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

#[cfg(not(shuttle))]
use tokio::time::sleep_until;
use tokio::time::{Instant, Sleep};

use crate::{
    decision::{Charge, Snapshot},
    queue::{admitted::Admitted, error::QueueError, shared::Joined},
    time::timer_now,
};

/// How far one who waits has come.
#[derive(Debug)]
pub(super) enum Stage<A> {
    /// It was not polled yet.
    New,
    /// Nobody waited when it came, so the backend was asked.
    Asked,
    /// It stands in line.
    Waiting(Joined<A>),
    /// It was admitted, and starts when its turn comes.
    Turn(Box<Turn>),
    Done,
}

/// It is boxed: what shapes its traffic makes them wait, and nobody else.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    pub(super) snapshot: Snapshot,
    pub(super) charge: Charge,
    pub(super) start: Instant,
    /// When its turn was to come, if it stood in line.
    pub(super) promised: Option<Instant>,
}

/// What comes next.
pub(super) enum Next<A> {
    Stage(Stage<A>),
    Turn(Turn),
    Admitted(Admitted),
}

pub(super) type Step<A> = Result<Next<A>, QueueError>;

/// The time since then.
pub(super) fn since(came: Instant) -> Duration {
    timer_now().saturating_duration_since(came)
}

/// Sets the one timer of a waiter, and polls it.
#[cfg(not(shuttle))]
pub(super) fn sleep(
    sleep: &mut Option<Pin<Box<Sleep>>>,
    until: Instant,
    context: &mut Context<'_>,
) -> Poll<()> {
    let sleep = sleep.get_or_insert_with(|| Box::pin(sleep_until(until)));
    if sleep.deadline() != until {
        sleep.as_mut().reset(until);
    }
    sleep.as_mut().poll(context)
}

/// In a model no time passes: whoever is woken is woken by somebody.
#[cfg(shuttle)]
pub(super) fn sleep(_: &mut Option<Pin<Box<Sleep>>>, _: Instant, _: &mut Context<'_>) -> Poll<()> {
    Poll::Pending
}
