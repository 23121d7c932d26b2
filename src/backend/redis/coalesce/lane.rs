//! What of one lane is under way, and what waits: when a batch may leave.

use std::{collections::VecDeque, task::Waker};

use tokio::time::Instant;

use super::{
    batch::{Batch, Ticket},
    step::{self, Step},
};

#[derive(Clone, Copy)]
pub(super) struct Bounds {
    /// The most steps in a batch.
    pub(super) batch: usize,
    /// The most batches of a lane that are under way at a time.
    pub(super) in_flight: usize,
}

/// Where a batch has all its steps, who wants one of its own is carried still, up to so many for
/// each step there may be.
const JOBS_OF_A_STEP: usize = 8;

/// While fewer jobs than this are under way, another one does not wait for company.
pub(super) const FEW: usize = if cfg!(shuttle) { 2 } else { 8 };

/// A batch of fewer steps than [`FEW`] has company when so many want them: until then the same call
/// does for more.
const MANY: usize = if cfg!(shuttle) { 3 } else { 32 };

/// A lane exists while something of it is under way.
pub(super) struct Lane<J, R> {
    /// The seats that are taken.
    pub(super) in_flight: usize,
    /// Those of them that have not set out yet, and will surely take a batch.
    pub(super) boarding: usize,
    /// The jobs that are under way, and will surely come back.
    pub(super) under_way: usize,
    /// The jobs that have come back, and whose seat is not left yet: it takes along those who ask
    /// again.
    pub(super) back: usize,
    pub(super) waiting: VecDeque<Gathering<J, R>>,
    /// How large the last batch was: the next will be alike.
    pub(super) last: usize,
}

/// A batch that is not under way yet.
pub(super) struct Gathering<J, R> {
    pub(super) steps: Vec<Step<J>>,
    /// Those who want them.
    pub(super) jobs: usize,
    pub(super) batch: Batch<R>,
}

impl<J, R> Lane<J, R> {
    pub(super) const fn idle() -> Self {
        Self { in_flight: 0, boarding: 0, under_way: 0, back: 0, waiting: VecDeque::new(), last: 0 }
    }

    /// Adds a job to the batch that leaves last. Gives it back if it has joined another, as `joins`
    /// says of it and the one ahead.
    pub(super) fn push(
        &mut self,
        bounds: Bounds,
        job: J,
        deadline: Instant,
        ticket: &Ticket<R>,
        joins: impl FnOnce(&J, &J) -> bool,
    ) -> Option<J> {
        if let Some(Gathering { steps, jobs, batch }) = self.waiting.back_mut()
            && *jobs < bounds.batch.saturating_mul(JOBS_OF_A_STEP)
        {
            if bounds.batch > 1
                && let Some(last) = steps.last_mut()
                && joins(&job, &last.job)
            {
                last.join(deadline);
                *jobs += 1;
                batch.join(ticket);
                return Some(job);
            }
            if steps.len() < bounds.batch {
                steps.push(Step::of(job, deadline));
                *jobs += 1;
                batch.join(ticket);
                return None;
            }
        }
        let mut batch = Batch::of_about(self.last);
        batch.join(ticket);
        let steps = vec![Step::of(job, deadline)];
        self.waiting.push_back(Gathering { steps, jobs: 1, batch });
        None
    }

    /// Tells all who wait and are late what `part_late` says: what leaves before them, or with
    /// them, may come back after their time. Adds those who are to be woken.
    pub(super) fn tell_late(
        &mut self,
        woken: &mut Vec<Waker>,
        mut part_late: impl FnMut(&mut Vec<Step<J>>) -> Option<Vec<Option<R>>>,
    ) {
        for Gathering { steps, jobs, batch } in &mut self.waiting {
            if let Some(late) = part_late(steps) {
                *jobs -= late.iter().flatten().count();
                batch.tell_late(late, woken);
            }
        }
        self.waiting.retain(|it| !it.steps.is_empty());
    }

    /// Whether a batch may leave beside those of `others`.
    pub(super) fn may_leave(&self, bounds: Bounds, others: usize) -> bool {
        let Some(first) = self.waiting.front() else { return false };
        let is_full = self.waiting.len() > 1 || first.steps.len() >= bounds.batch;
        let is_large = first.steps.len() >= FEW || first.jobs >= MANY;
        others < bounds.in_flight
            && self.boarding < self.waiting.len()
            && (is_full
                || self.under_way + self.back < FEW
                || is_large && first.jobs >= self.under_way)
    }
}

impl<J, R> Gathering<J, R> {
    /// Leaves, without those who do not wait any more and without the jobs that nobody wants then.
    /// `None` if nobody waits.
    pub(super) fn leave(mut self) -> Option<Self> {
        if let Some(listens) = self.batch.leave() {
            step::retain(&mut self.steps, &listens);
        }
        (!self.steps.is_empty()).then_some(self)
    }
}
