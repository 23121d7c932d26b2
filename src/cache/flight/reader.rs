use std::{
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll},
};

use http_body::SizeHint;
use parking_lot::MutexGuard;

use super::{Flight, Phase, State, wait};
use crate::cache::{
    answer::{Head, Part},
    broken::BrokenAnswer,
};

/// One who waits for the answer.
pub(in crate::cache) struct Reader {
    flight: Arc<Flight>,
    id: u64,
}

/// What becomes of a flight before there is an answer to read.
pub(in crate::cache) enum Outcome {
    /// There is an answer.
    Head(Arc<Head>),
    /// There is none: one of those who waited may ask.
    Retry,
    /// There is one, but for the leader alone: each asks for itself.
    Alone,
}

impl Reader {
    /// The reader that stands on the flight's list under `id`.
    pub(super) fn new(flight: &Arc<Flight>, id: u64) -> Self {
        Self { flight: Arc::clone(flight), id }
    }

    /// Waits for the answer's head.
    pub(in crate::cache) async fn head(&self) -> Outcome {
        poll_fn(|context| {
            let state = self.flight.state.lock();
            if let Some(head) = &state.head {
                return Poll::Ready(Outcome::Head(Arc::clone(head)));
            }
            match state.phase {
                Phase::Private => Poll::Ready(Outcome::Alone),
                Phase::Failed => Poll::Ready(Outcome::Retry),
                _ => self.wait(state, context),
            }
        })
        .await
    }

    /// The next part of the answer, none at its end.
    pub(in crate::cache) fn poll_part(
        &self,
        context: &Context<'_>,
    ) -> Poll<Option<Result<Part, BrokenAnswer>>> {
        let mut state = self.flight.state.lock();
        let first = state.first;
        let phase = state.phase.clone();
        let progress = state.readers.get(&self.id).expect(REGISTERED);
        let (next, bytes) = (progress.next, progress.bytes);
        let Some(offset) = next.checked_sub(first) else {
            return Poll::Ready(Some(Err(BrokenAnswer::BEHIND)));
        };
        if let Some(part) = state.parts.get(offset as usize).cloned() {
            let progress = state.readers.get_mut(&self.id).expect(REGISTERED);
            progress.next = next + 1;
            progress.bytes = bytes + part.len() as u64;
            let leader = if state.is_whole { None } else { state.leader.take() };
            drop(state);
            if let Some(leader) = leader {
                leader.wake();
            }
            return Poll::Ready(Some(Ok(part)));
        }
        match phase {
            Phase::Ended => Poll::Ready(None),
            Phase::Broken(error) => Poll::Ready(Some(Err(BrokenAnswer::by(error)))),
            _ => self.wait(state, context),
        }
    }

    pub(in crate::cache) fn is_at_end(&self) -> bool {
        let state = self.flight.state.lock();
        let next = state.readers.get(&self.id).expect(REGISTERED).next;
        matches!(state.phase, Phase::Ended) && next >= state.next_number()
    }

    /// What is still to come, where the service knew.
    pub(in crate::cache) fn size_hint(&self) -> SizeHint {
        let state = self.flight.state.lock();
        let read = state.readers.get(&self.id).expect(REGISTERED).bytes;
        match state.head.as_ref().and_then(|head| head.length) {
            Some(length) => SizeHint::with_exact(length.saturating_sub(read)),
            None => SizeHint::default(),
        }
    }

    fn wait<T>(&self, state: MutexGuard<'_, State>, context: &Context<'_>) -> Poll<T> {
        wait(state, context, |state| &mut state.readers.get_mut(&self.id).expect(REGISTERED).waker)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut state = self.flight.state.lock();
        let own = state.readers.remove(&self.id);
        let leader = state.leader.take();
        drop(state);
        drop(own);
        if let Some(leader) = leader {
            leader.wake();
        }
    }
}

const REGISTERED: &str = "a reader is on the list until it is dropped";
