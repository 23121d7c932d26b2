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
    gate::Standing,
    waiting::{Waited, Waiting},
};
use crate::{
    algorithm::Algorithm,
    backend::Backend,
    observe::nesting,
    policy::{Answer, CostOf, KeyOf, LimitOf, Policy},
};

pin_project! {
    /// The future of [`RateLimit`](super::RateLimit)'s response.
    ///
    /// It is hardly larger than the inner service's, which runs in it. A request that has to wait
    /// does so in a box of its own.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, Req, A, B, K, C, R, L>
    where
        S: Service<Req>,
        A: Algorithm,
        B: Backend<A>,
        K: KeyOf<Req>,
    {
        #[pin]
        state: State<S, Req, A, B, K, C, R, L>,
    }
}

type BoxWaiting<S, Req, A, B, K, C, R, L> = Pin<Box<Waiting<S, Req, A, B, K, C, R, L>>>;

pin_project! {
    #[project = StateProjection]
    enum State<S, Req, A, B, K, C, R, L>
    where
        S: Service<Req>,
        A: Algorithm,
        B: Backend<A>,
        K: KeyOf<Req>,
    {
        Waiting { waiting: BoxWaiting<S, Req, A, B, K, C, R, L> },
        Running {
            #[pin]
            response: S::Future,
            annotation: Option<Annotation<Policy<K, C, R, L>>>,
            charged: Option<usize>,
        },
        Answered { answer: Option<Result<S::Response, S::Error>> },
    }
}

/// What is to be told with a response, and by whom.
pub(super) struct Annotation<P> {
    pub(super) standing: Standing,
    pub(super) policy: Arc<P>,
}

impl<S, Req, A, B, K, C, R, L> ResponseFuture<S, Req, A, B, K, C, R, L>
where
    S: Service<Req>,
    A: Algorithm,
    B: Backend<A>,
    K: KeyOf<Req>,
{
    pub(super) fn waiting(waiting: Waiting<S, Req, A, B, K, C, R, L>) -> Self {
        Self { state: State::Waiting { waiting: Box::pin(waiting) } }
    }

    #[inline(always)]
    pub(super) const fn running(
        response: S::Future,
        annotation: Option<Annotation<Policy<K, C, R, L>>>,
        charged: Option<usize>,
    ) -> Self {
        Self { state: State::Running { response, annotation, charged } }
    }

    pub(super) const fn answered(answer: Result<S::Response, S::Error>) -> Self {
        Self { state: State::Answered { answer: Some(answer) } }
    }
}

impl<S, Req, A, B, K, C, R, L> Future for ResponseFuture<S, Req, A, B, K, C, R, L>
where
    S: Service<Req>,
    A: Algorithm,
    B: Backend<A>,
    K: KeyOf<Req>,
    C: CostOf<Req>,
    R: Answer<Req, S::Response, S::Error>,
    L: LimitOf<Req, A>,
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
                    match ready!(waiting.as_mut().poll(context)) {
                        Waited::Go(mut ready, request, standing) => {
                            let charged = waiting.as_mut().charged();
                            let response = match charged {
                                None => ready.call(request),
                                Some(store) => nesting::inside(store, || ready.call(request)),
                            };
                            let policy = waiting.policy();
                            let annotation = standing.map(|standing| Annotation {
                                standing,
                                policy: Arc::clone(policy),
                            });
                            State::Running { response, annotation, charged }
                        }
                        Waited::Refuse(request, rejection) => State::Answered {
                            answer: Some(waiting.policy().answer.refuse(&request, rejection)),
                        },
                    }
                }
                // Nothing is to be done with the response, which is large: it is not even held.
                StateProjection::Running { response, annotation: None, charged: None } => {
                    return response.poll(context);
                }
                StateProjection::Running { response, annotation, charged } => {
                    let polled = match *charged {
                        None => response.poll(context),
                        Some(store) => nesting::inside(store, || response.poll(context)),
                    };
                    let Some(Annotation { standing, policy }) = annotation else {
                        return polled;
                    };
                    let mut result = ready!(polled);
                    if let Ok(response) = &mut result {
                        policy.answer.annotate(&standing.snapshot, &standing.policies, response);
                    }
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

impl<S, Req, A, B, K, C, R, L> fmt::Debug for ResponseFuture<S, Req, A, B, K, C, R, L>
where
    S: Service<Req>,
    A: Algorithm,
    B: Backend<A>,
    K: KeyOf<Req>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Waiting { .. } => "Waiting",
            State::Running { .. } => "Running",
            State::Answered { .. } => "Answered",
        };
        f.debug_tuple("ResponseFuture").field(&state).finish()
    }
}
