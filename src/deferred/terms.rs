use std::{num::NonZeroU32, time::Duration};

use crate::queue::Priority;

/// On which terms a request is deferred: what the layer's [`terms`](super::DeferredLayer::terms)
/// says of it.
#[derive(Clone, Debug)]
#[must_use = "terms do nothing until they are returned"]
pub struct Terms {
    pub(super) priority: Priority,
    pub(super) weight: NonZeroU32,
    pub(super) delay: Duration,
    pub(super) expire_after: Option<Duration>,
    pub(super) label: String,
}

impl Terms {
    /// Normal priority, the weight of one, as soon as it can be, as long as the layer's
    /// [expiry](super::DeferredLayer::expire_after) allows.
    pub const fn new() -> Self {
        Self {
            priority: Priority::NORMAL,
            weight: NonZeroU32::MIN,
            delay: Duration::ZERO,
            expire_after: None,
            label: String::new(),
        }
    }

    /// How far ahead of its time it is among the requests of its owner. Nobody starves: after the
    /// difference of two head starts the lower one is ahead of every newcomer.
    pub fn priority(self, priority: Priority) -> Self {
        Self { priority, ..self }
    }

    /// The share of its owner, beside the others'. The latest request says it.
    pub fn weight(self, weight: NonZeroU32) -> Self {
        Self { weight, ..self }
    }

    /// Begins no sooner than after this time.
    pub fn delay(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }

    /// Is given up if it has not begun after this time, in place of the layer's expiry.
    pub fn expire_after(self, time: Duration) -> Self {
        Self { expire_after: Some(time), ..self }
    }

    /// A text that travels with the request: the name of a tenant, the address of a webhook. The
    /// service finds it in the [`Deferral`](super::Deferral) extension of the request. It is stored
    /// as it is, so it must not be a secret.
    pub fn label(self, label: impl Into<String>) -> Self {
        Self { label: label.into(), ..self }
    }
}

impl Default for Terms {
    fn default() -> Self {
        Self::new()
    }
}
