use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tower_service::Service;

use super::{
    classify::Classify,
    pace::{Sent, Waiter},
    service::Settings,
};
use crate::{policy::Answer, rejection::Rejection};

pin_project! {
    /// The future of [`Adaptive`](super::Adaptive)'s response.
    #[must_use = "futures do nothing unless polled"]
    pub struct AdaptiveFuture<S, Req, C, R>
    where
        S: Service<Req>,
    {
        #[pin]
        state: State<S, Req, C, R>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<S, Req, C, R>
    where
        S: Service<Req>,
    {
        Waiting { waiting: Box<Waiting<S, Req, C, R>> },
        Running { #[pin] response: S::Future, sent: Sent, settings: Arc<Settings<C, R>> },
        Answered { answer: Option<Result<S::Response, S::Error>> },
    }
}

struct Waiting<S, Req, C, R> {
    waiter: Waiter,
    /// The service that was made ready, and what it waits with.
    parked: Option<(S, Req)>,
    settings: Arc<Settings<C, R>>,
}

impl<S: Service<Req>, Req, C, R> AdaptiveFuture<S, Req, C, R> {
    pub(super) fn waiting(
        waiter: Waiter,
        ready: S,
        request: Req,
        settings: Arc<Settings<C, R>>,
    ) -> Self {
        let waiting = Waiting { waiter, parked: Some((ready, request)), settings };
        Self { state: State::Waiting { waiting: Box::new(waiting) } }
    }

    pub(super) const fn running(
        response: S::Future,
        sent: Sent,
        settings: Arc<Settings<C, R>>,
    ) -> Self {
        Self { state: State::Running { response, sent, settings } }
    }

    pub(super) const fn answered(answer: Result<S::Response, S::Error>) -> Self {
        Self { state: State::Answered { answer: Some(answer) } }
    }
}

impl<S, Req, C, R> Future for AdaptiveFuture<S, Req, C, R>
where
    S: Service<Req>,
    C: Classify<S::Response, S::Error>,
    R: Answer<Req, S::Response, S::Error>,
{
    type Output = Result<S::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let next = match this.state.as_mut().project() {
                // ## Waiting => (Running | Answered)
                //
                // The request goes on with the service that was made ready for it, or not at all.
                StateProjection::Waiting { waiting } => {
                    let turn = ready!(Pin::new(&mut waiting.waiter).poll(context));
                    let parked = waiting.parked.take();
                    let (mut ready, request) = parked.expect("it is parked until its wait ends");
                    match turn {
                        Ok(sent) => State::Running {
                            response: ready.call(request),
                            sent,
                            settings: Arc::clone(&waiting.settings),
                        },
                        Err(throttled) => {
                            let rejection = Rejection::Throttled(throttled);
                            let answer = waiting.settings.answer.refuse(&request, rejection);
                            State::Answered { answer: Some(answer) }
                        }
                    }
                }
                StateProjection::Running { response, sent, settings } => {
                    let result = ready!(response.poll(context));
                    settings.pace.settle(*sent, settings.classify.classify(result.as_ref()));
                    return Poll::Ready(result);
                }
                StateProjection::Answered { answer } => {
                    let answer = answer.take();
                    return Poll::Ready(answer.expect("a future is not polled after it is ready"));
                }
            };
            this.state.set(next);
        }
    }
}

impl<S: Service<Req>, Req, C, R> fmt::Debug for AdaptiveFuture<S, Req, C, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Waiting { .. } => "Waiting",
            State::Running { .. } => "Running",
            State::Answered { .. } => "Answered",
        };
        f.debug_tuple("AdaptiveFuture").field(&state).finish()
    }
}
