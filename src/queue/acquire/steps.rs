use std::{task::Waker, time::Duration};

use tokio::time::Instant;

use super::{
    AcquireProjection,
    stage::{Next, Stage, Step, Turn, since},
};
use crate::{
    algorithm::Algorithm,
    backend::Backend,
    decision::{Decision, RetryAfter},
    error::BackendError,
    observe::queues::QueueEnd,
    queue::{
        admitted::Admitted,
        error::QueueError,
        forecast::later,
        line::Wakes,
        seat::Outcome,
        shared::{Newcomer, until},
    },
    time::timer_now,
};

impl<A: Algorithm, B: Backend<A>> AcquireProjection<'_, A, B> {
    /// Notes when it came, now that it matters: who is admitted at once is spared a look at the
    /// clock.
    pub(super) fn arrive(&mut self) -> Instant {
        let now = timer_now();
        *self.came = Some(now);
        self.ask.arrive(now, self.shared.settings.max_wait);
        now
    }

    /// What follows for one who came while nobody waited.
    pub(super) fn asked(
        &mut self,
        asked: Result<Result<Decision, BackendError>, B::Decide>,
        waker: &Waker,
    ) -> Step<A> {
        match asked {
            Ok(Ok(Decision::Allow { snapshot, charge })) if charge.delay.is_zero() => {
                self.shared.count_admitted(self.ask);
                self.shared.ended(QueueEnd::AtOnce, None);
                Ok(Next::Admitted(Admitted::at_once(snapshot, charge)))
            }
            Ok(answer) => {
                self.arrive();
                self.enter(answer, waker)
            }
            Err(decision) => {
                self.arrive();
                let asking = self.shared.see_through(self.key, self.limit.as_ref(), decision);
                self.decision.set(Some(asking));
                Ok(Next::Stage(Stage::Asked))
            }
        }
    }

    /// Takes the next step, and says how it ended if it was the last.
    pub(super) fn go(&mut self, next: Step<A>) -> Option<Result<Admitted, QueueError>> {
        match next {
            Ok(Next::Stage(stage)) => {
                *self.stage = stage;
                None
            }
            Ok(Next::Turn(turn)) if turn.start > timer_now() => {
                *self.stage = Stage::Turn(Box::new(turn));
                None
            }
            Ok(Next::Turn(turn)) => {
                *self.stage = Stage::Done;
                Some(Ok(self.finish(turn)))
            }
            Ok(Next::Admitted(admitted)) => {
                *self.stage = Stage::Done;
                Some(Ok(admitted))
            }
            Err(error) => {
                let waited = match std::mem::replace(self.stage, Stage::Done) {
                    Stage::Waiting(_) => self.came.map(since),
                    _ => None,
                };
                self.shared.ended(error.end(), waited);
                Some(Err(error))
            }
        }
    }

    /// Its turn has come.
    pub(super) fn finish(&self, turn: Turn) -> Admitted {
        let Turn { snapshot, charge, start, promised } = turn;
        let has_queued = promised.is_some();
        let since = |at: Instant| at.saturating_duration_since(self.came.unwrap_or(at));
        let (waited, promised) = (since(timer_now()), since(promised.unwrap_or(start)));
        if has_queued || !charge.delay.is_zero() {
            self.shared.ended(QueueEnd::InTurn, Some(waited));
        } else {
            self.shared.ended(QueueEnd::AtOnce, None);
        }
        Admitted { snapshot, charge, waited, promised }
    }

    /// The answer to one who was asked for while nobody waited.
    pub(super) fn enter(&self, answer: Result<Decision, BackendError>, waker: &Waker) -> Step<A> {
        let now = timer_now();
        let Ok(Decision::Deny { retry_after: RetryAfter::After(wait), snapshot, .. }) = answer
        else {
            return self.told(answer, now, None);
        };
        let mut wakes = Wakes::default();
        let newcomer = Newcomer {
            key: self.key,
            limit: self.limit.as_ref(),
            ask: self.ask,
            came: self.came.unwrap_or(now),
            waker,
        };
        let mut shard = self.shared.lines.lock(self.key);
        // Something may have come back since, when there was no line yet to be told.
        let is_stale = *self.returns != self.shared.returns();
        let refusal = Some((if is_stale { Duration::ZERO } else { wait }, snapshot));
        let joined = self.shared.join(&mut shard, newcomer, now, refusal, &mut wakes);
        drop(shard);
        wakes.wake();
        joined.map(|joined| Next::Stage(Stage::Waiting(joined)))
    }

    /// What follows from what it was told in its line, where its turn was to come when it is said.
    pub(super) fn ended(&self, outcome: Outcome, promised: Instant) -> Step<A> {
        self.shared.unqueue();
        match outcome {
            Outcome::Decided(answer, at) => self.told(answer, at, Some(promised)),
            Outcome::Displaced(retry_after, standing) => {
                let denial = self.shared.denial(self.limit.as_ref(), retry_after, standing);
                Err(QueueError::Displaced(denial))
            }
        }
    }

    /// What follows from a decision of this instant, unless it is to ask again.
    fn told(
        &self,
        answer: Result<Decision, BackendError>,
        at: Instant,
        promised: Option<Instant>,
    ) -> Step<A> {
        let own = self.limit.as_ref();
        match answer {
            Ok(Decision::Allow { snapshot, charge }) => {
                let start = later(at, charge.delay);
                if !charge.delay.is_zero() && self.ask.deadline.is_some_and(|latest| latest < start)
                {
                    self.shared.give_back(self.key, own, &charge);
                    let denial = self.shared.denial(own, until(start, timer_now()), snapshot);
                    return Err(QueueError::TooLate(denial));
                }
                if promised.is_none() {
                    self.shared.count_admitted(self.ask);
                }
                Ok(Next::Turn(Turn { snapshot, charge, start, promised }))
            }
            Ok(Decision::Deny { snapshot, retry_after: RetryAfter::Never, .. }) => {
                Err(QueueError::Never(self.shared.denial(own, RetryAfter::Never, snapshot)))
            }
            Ok(Decision::Deny { snapshot, retry_after, .. }) => {
                Err(QueueError::TooLate(self.shared.denial(own, retry_after, snapshot)))
            }
            Err(error) => Err(QueueError::Backend(error)),
        }
    }
}
