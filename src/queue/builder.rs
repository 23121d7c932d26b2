use std::time::Duration;

use super::{Queue, order::Order, shared::Shared};
use crate::{algorithm::Algorithm, backend::Backend, limiter::Limiter};

/// The settings of a [`Queue`].
#[derive(Debug)]
#[must_use = "a queue is made by `build`"]
pub struct QueueBuilder<A: Algorithm, B> {
    limiter: Limiter<A, B>,
    settings: Settings,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    pub(super) order: Order,
    pub(super) max_waiters: usize,
    pub(super) max_units: u64,
    pub(super) max_wait: Option<Duration>,
}

impl<A: Algorithm, B: Backend<A>> QueueBuilder<A, B> {
    /// The waiters of a key unless told otherwise.
    pub const DEFAULT_MAX_WAITERS: usize = 1_024;

    /// A queue before `limiter`: first in, first out, for 1,024 waiters of each key.
    pub const fn new(limiter: Limiter<A, B>) -> Self {
        let settings = Settings {
            order: Order::Fifo,
            max_waiters: Self::DEFAULT_MAX_WAITERS,
            max_units: u64::MAX,
            max_wait: None,
        };
        Self { limiter, settings }
    }

    /// In which order the waiters of a key are admitted.
    pub fn order(self, order: Order) -> Self {
        self.with(|settings| settings.order = order)
    }

    /// How many may wait for one key. Zero: nobody waits.
    pub fn max_waiters(self, max_waiters: usize) -> Self {
        self.with(|settings| settings.max_waiters = max_waiters)
    }

    /// How many units may be waited for by one key. A cost of several dimensions counts by the
    /// largest of its numbers. Without a bound by default.
    pub fn max_units(self, max_units: u64) -> Self {
        self.with(|settings| settings.max_units = max_units)
    }

    /// How long anybody may wait. Without a bound by default: a bound is wise, for who waits longer
    /// than its caller does waits for nothing.
    pub fn max_wait(self, max_wait: Duration) -> Self {
        self.with(|settings| settings.max_wait = Some(max_wait))
    }

    /// The queue.
    pub fn build(self) -> Queue<A, B> {
        Queue::of(Shared::new(self.limiter, self.settings))
    }

    fn with(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(&mut self.settings);
        self
    }
}
