use std::time::Duration;

use tokio::time::Instant;

use super::lines::Lines;
use crate::{
    limiter::Charges, name::PolicyName, observe::queues::QueueEnd, queue::error::QueueError,
    time::timer_now,
};

/// One who comes, until it is told how that ended. Dropped before, it has left.
///
/// It is counted at the limit that held it up last. Who is let through at once was held up by none,
/// and is counted at none.
pub(super) struct Visit<'q> {
    lines: &'q Lines,
    came: Instant,
    held_up_by: Option<PolicyName>,
    /// Whether it has had a seat.
    waits: bool,
    is_open: bool,
}

impl<'q> Visit<'q> {
    pub(super) const fn new(lines: &'q Lines, came: Instant) -> Self {
        Self { lines, came, held_up_by: None, waits: false, is_open: true }
    }

    /// This limit has refused it, or others wait for it.
    pub(super) fn held_up_by(&mut self, limit: &PolicyName) {
        self.held_up_by = Some(limit.clone());
    }

    /// It has a seat in the line of that.
    pub(super) const fn waits(&mut self) {
        self.waits = true;
    }

    pub(super) fn end(mut self, result: &Result<Charges, QueueError>) {
        self.is_open = false;
        self.note(match result {
            Ok(_) => QueueEnd::InTurn,
            Err(error) => error.end(),
        });
    }

    fn note(&self, end: QueueEnd) {
        if let Some(limit) = &self.held_up_by {
            let waited = self.waits.then(|| self.waited());
            self.lines.observer(limit).ended(limit, end, waited);
        }
    }

    fn waited(&self) -> Duration {
        timer_now().saturating_duration_since(self.came)
    }
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        if self.is_open && self.waits {
            self.note(QueueEnd::Left);
        }
    }
}
