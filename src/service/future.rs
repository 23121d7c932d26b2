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

type BoxAside<K, C, R, L> = Box<Aside<Policy<K, C, R, L>>>;
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
            aside: Option<BoxAside<K, C, R, L>>,
        },
        Answered { answer: Option<Result<S::Response, S::Error>> },
    }
}

/// What most responses do without.
///
/// In a box, so that the others are moved without it, and so that nothing in the future is dropped
/// by its address: whoever puts it into a box of its own would have to copy it once more, to have
/// it somewhere in case it is dropped.
pub(super) struct Aside<P> {
    /// What is to be told with the response.
    pub(super) standing: Option<Standing>,
    /// Who tells it.
    pub(super) policy: Arc<P>,
    /// The store that was charged, if the request is one of those to be looked at.
    pub(super) charged: Option<usize>,
}

impl<P> Aside<P> {
    /// `None` if there is nothing to tell and nothing to note.
    pub(super) fn of(
        standing: Option<Standing>,
        charged: Option<usize>,
        policy: &Arc<P>,
    ) -> Option<Box<Self>> {
        match (standing, charged) {
            (None, None) => None,
            (Some(standing), charged) => Some(Self::telling(standing, policy, charged)),
            (None, Some(store)) => Some(Self::noting(store, policy)),
        }
    }

    pub(super) fn telling(
        standing: Standing,
        policy: &Arc<P>,
        charged: Option<usize>,
    ) -> Box<Self> {
        Box::new(Self { standing: Some(standing), policy: Arc::clone(policy), charged })
    }

    pub(super) fn noting(charged: usize, policy: &Arc<P>) -> Box<Self> {
        Box::new(Self { standing: None, policy: Arc::clone(policy), charged: Some(charged) })
    }
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
    pub(super) const fn running(response: S::Future, aside: Option<BoxAside<K, C, R, L>>) -> Self {
        Self { state: State::Running { response, aside } }
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
                            let response = nesting::inside(charged, || ready.call(request));
                            let aside = Aside::of(standing, charged, waiting.policy());
                            State::Running { response, aside }
                        }
                        Waited::Refuse(request, rejection) => State::Answered {
                            answer: Some(waiting.policy().answer.refuse(&request, rejection)),
                        },
                    }
                }
                // Nothing is to be done with the response, which is large: it is not even held.
                StateProjection::Running { response, aside: None } => {
                    return response.poll(context);
                }
                StateProjection::Running { response, aside: Some(aside) } => {
                    let polled = nesting::inside(aside.charged, || response.poll(context));
                    let Some(Standing { snapshot, policies }) = &aside.standing else {
                        return polled;
                    };
                    let mut result = ready!(polled);
                    if let Ok(response) = &mut result {
                        aside.policy.answer.annotate(snapshot, policies, response);
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
