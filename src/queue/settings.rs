use std::time::Duration;

use super::{order::Order, room::Bounds};

/// How a queue is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    pub(super) order: Order,
    pub(super) bounds: Bounds,
    pub(super) max_wait: Option<Duration>,
}
