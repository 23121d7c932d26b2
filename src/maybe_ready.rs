//! An output that may be here already.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;
use tokio::runtime::Handle;

use crate::seen_through::{SeenThrough, Undo};

pin_project! {
    /// Either an output, or the future of one.
    ///
    /// It is what lets one interface serve a store in this process, which answers at once, and a
    /// server elsewhere, which does not: a caller that asks
    /// [`try_into_ready`](Self::try_into_ready) pays nothing for the possibility of waiting. It is
    /// a future itself, so it can simply be awaited.
    #[must_use = "futures do nothing unless polled"]
    pub struct MaybeReady<F: Future> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[project = StateProjection]
    #[project_replace = StateReplaced]
    enum State<F: Future> {
        Ready { output: F::Output },
        Pending { #[pin] future: F },
        Taken,
    }
}

impl<F: Future> MaybeReady<F> {
    /// An output that is here.
    #[inline(always)]
    pub const fn ready(output: F::Output) -> Self {
        Self { state: State::Ready { output } }
    }

    /// An output that is still to come.
    pub const fn pending(future: F) -> Self {
        Self { state: State::Pending { future } }
    }

    /// The output, if it is here and was not taken.
    #[inline(always)]
    pub const fn as_ready(&self) -> Option<&F::Output> {
        match &self.state {
            State::Ready { output } => Some(output),
            State::Pending { .. } | State::Taken => None,
        }
    }

    /// The output if it is here, otherwise the future of it.
    ///
    /// # Panics
    ///
    /// The output was taken already, by polling.
    #[inline(always)]
    pub fn try_into_ready(self) -> Result<F::Output, F> {
        match self.state {
            State::Ready { output } => Ok(output),
            State::Pending { future } => Err(future),
            State::Taken => taken(),
        }
    }
}

impl<F> MaybeReady<F>
where
    F: Future<Output: Send> + Send + 'static,
{
    /// The output, with what would have undone it if nobody had waited: see [`SeenThrough`]. To be
    /// awaited at once, since nothing is seen through before this is polled.
    pub(crate) async fn seen_through<U: Undo<F::Output>>(self, undo: U) -> (F::Output, U) {
        match self.try_into_ready() {
            Ok(output) => (output, undo),
            Err(future) => SeenThrough::new(future, undo).await,
        }
    }

    /// Lets what is still to come go on by itself, where nobody can wait for it. Without a Tokio
    /// runtime it does not.
    pub(crate) fn detach(self) {
        if let Err(future) = self.try_into_ready()
            && let Ok(runtime) = Handle::try_current()
        {
            drop(runtime.spawn(future));
        }
    }
}

impl<F: Future> Future for MaybeReady<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let mut state = self.project().state;
        if let StateProjection::Pending { future } = state.as_mut().project() {
            return future.poll(context);
        }
        match state.project_replace(State::Taken) {
            StateReplaced::Ready { output } => Poll::Ready(output),
            _ => taken(),
        }
    }
}

/// Out of line: to say it takes more code than all the rest.
#[cold]
fn taken() -> ! {
    panic!("a future is not polled after it is ready, nor its output taken twice");
}

impl<F: Future> fmt::Debug for MaybeReady<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Ready { .. } => "Ready",
            State::Pending { .. } => "Pending",
            State::Taken => "Taken",
        };
        f.debug_tuple("MaybeReady").field(&state).finish()
    }
}
