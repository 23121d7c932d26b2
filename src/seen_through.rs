//! A call that is seen through, whether or not anybody waits for it to the end.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tokio::runtime::Handle;

/// Undoes what a call came to that nobody waits for any more.
pub(crate) trait Undo<T>: Send + 'static {
    fn undo(self, output: T) -> impl Future<Output = ()> + Send;
}

/// A call whose output comes with what would have undone it.
///
/// Dropped on its way, the call goes on in a task of the Tokio runtime, and what it comes to is
/// undone: a server may have done by then what it was asked to, and has no other way to hear that
/// it was for nothing. Where there is no runtime, or it ends before the call does, that is lost.
///
/// A call that was never polled has not begun: it goes with whoever dropped it, and nobody is asked
/// in vain. What is to be done without anybody polling it is [`detached`](Self::detach).
///
/// It costs an allocation, because a future that was polled can be moved into a task in no other
/// way; and two words where it is kept, whatever it undoes.
#[must_use = "futures do nothing unless polled"]
pub(crate) struct SeenThrough<F: Call, U: Undo<F::Output>> {
    call: Option<Pin<Box<Undone<F, U>>>>,
    /// Whether it may have been heard of.
    polled: bool,
}

pin_project! {
    /// A call, and what undoes it.
    struct Undone<F, U> {
        #[pin]
        call: F,
        undo: Option<U>,
    }
}

/// A future that can go on in a task.
pub(crate) trait Call: Future<Output: Send> + Send + 'static {}

impl<F: Future<Output: Send> + Send + 'static> Call for F {}

impl<F: Call, U: Undo<F::Output>> SeenThrough<F, U> {
    pub(crate) fn new(call: F, undo: U) -> Self {
        let undo = Some(undo);
        Self { call: Some(Box::pin(Undone { call, undo })), polled: false }
    }

    /// Lets it go on in a task, whether it has begun or not: a correction, which is right whoever
    /// waits.
    pub(crate) fn detach(mut self) {
        self.go_on();
    }

    fn go_on(&mut self) {
        if let Some(call) = self.call.take()
            && let Ok(runtime) = Handle::try_current()
        {
            drop(runtime.spawn(async move {
                let (output, undo) = call.await;
                undo.undo(output).await;
            }));
        }
    }
}

impl<F: Call, U: Undo<F::Output>> Future for Undone<F, U> {
    type Output = (F::Output, U);

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let output = ready!(this.call.poll(context));
        let undo = this.undo.take().expect("a future is not polled after it is ready");
        Poll::Ready((output, undo))
    }
}

impl<F: Call, U: Undo<F::Output>> Future for SeenThrough<F, U> {
    type Output = (F::Output, U);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.polled = true;
        // Taken out meanwhile: a call that panics is not polled again by a task.
        let mut call = self.call.take().expect("a future is not polled after it is ready");
        let polled = call.as_mut().poll(context);
        if polled.is_pending() {
            self.call = Some(call);
        }
        polled
    }
}

impl<F: Call, U: Undo<F::Output>> Drop for SeenThrough<F, U> {
    fn drop(&mut self) {
        if self.polled {
            self.go_on();
        }
    }
}
