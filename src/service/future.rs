use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tokio::time::Sleep;
use tower_service::Service;

use super::{
    gate::{self, Entry, Standing, Ticket, Verdict},
    turn::Turn,
};
use crate::{
    algorithm::Algorithm,
    backend::Backend,
    limiter::Limiter,
    observe::nesting,
    policy::{Answer, CostOf, KeyOf, LimitOf, Policy},
};

pin_project! {
    /// The future of [`RateLimit`](super::RateLimit)'s response.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, Req, A, B, K, C, R, L>
    where
        S: Service<Req>,
        A: Algorithm,
        B: Backend<A>,
        K: KeyOf<Req>,
    {
        #[pin]
        state: State<S, Req, A, B, K>,
        // Absent where the response is passed on as it is.
        policy: Option<Arc<Policy<K, C, R, L>>>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<S, Req, A, B, K>
    where
        S: Service<Req>,
        A: Algorithm,
        B: Backend<A>,
        K: KeyOf<Req>,
    {
        Identifying { #[pin] key: K::Future, parked: Parked<S, Req>, limiter: Limiter<A, B> },
        Deciding { #[pin] decision: B::Decide, ticket: Option<Ticket<A, B>>, parked: Parked<S, Req> },
        Delaying {
            sleep: Pin<Box<Sleep>>,
            turn: Turn<A, B>,
            standing: Option<Standing>,
            parked: Parked<S, Req>,
        },
        Running { #[pin] response: S::Future, standing: Option<Standing>, charged: Option<usize> },
        Answered { answer: Option<Result<S::Response, S::Error>> },
    }
}

/// A service that was made ready, and the request that waits with it.
pub(super) struct Parked<S, Req>(Option<(S, Req)>);

impl<S, Req> Parked<S, Req> {
    pub(super) const fn new(ready: S, request: Req) -> Self {
        Self(Some((ready, request)))
    }

    fn request(&self) -> &Req {
        let (_, request) = self.0.as_ref().expect("a request is parked until it goes on");
        request
    }

    fn take(&mut self) -> Self {
        Self(self.0.take())
    }
}

impl<S: Service<Req>, Req> Parked<S, Req> {
    fn call(&mut self, charged: Option<usize>) -> S::Future {
        let (mut ready, request) = self.0.take().expect("a request is parked until it goes on");
        nesting::inside(charged, || ready.call(request))
    }
}

impl<S, Req, A, B, K, C, R, L> ResponseFuture<S, Req, A, B, K, C, R, L>
where
    S: Service<Req>,
    A: Algorithm,
    B: Backend<A>,
    K: KeyOf<Req>,
{
    pub(super) const fn identifying(
        key: K::Future,
        parked: Parked<S, Req>,
        limiter: Limiter<A, B>,
        policy: Arc<Policy<K, C, R, L>>,
    ) -> Self {
        Self { state: State::Identifying { key, parked, limiter }, policy: Some(policy) }
    }

    pub(super) const fn deciding(
        decision: B::Decide,
        ticket: Ticket<A, B>,
        parked: Parked<S, Req>,
        policy: Arc<Policy<K, C, R, L>>,
    ) -> Self {
        let ticket = Some(ticket);
        Self { state: State::Deciding { decision, ticket, parked }, policy: Some(policy) }
    }

    pub(super) fn delaying(
        turn: Turn<A, B>,
        standing: Option<Standing>,
        parked: Parked<S, Req>,
        policy: Arc<Policy<K, C, R, L>>,
    ) -> Self {
        Self { state: State::delaying(turn, standing, parked), policy: Some(policy) }
    }

    #[inline]
    pub(super) const fn running(
        response: S::Future,
        standing: Option<Standing>,
        charged: Option<usize>,
        policy: Option<Arc<Policy<K, C, R, L>>>,
    ) -> Self {
        Self { state: State::Running { response, standing, charged }, policy }
    }

    pub(super) const fn answered(answer: Result<S::Response, S::Error>) -> Self {
        Self { state: State::Answered { answer: Some(answer) }, policy: None }
    }
}

impl<S, Req, A, B, K> State<S, Req, A, B, K>
where
    S: Service<Req>,
    A: Algorithm,
    B: Backend<A>,
    K: KeyOf<Req>,
{
    fn delaying(turn: Turn<A, B>, standing: Option<Standing>, parked: Parked<S, Req>) -> Self {
        let sleep = Box::pin(tokio::time::sleep(turn.delay()));
        Self::Delaying { sleep, turn, standing, parked }
    }

    /// The state that follows a verdict on the parked request.
    fn after<C, R, L>(
        verdict: Verdict<A, B>,
        mut parked: Parked<S, Req>,
        policy: &Policy<K, C, R, L>,
    ) -> Self
    where
        R: Answer<Req, S::Response, S::Error>,
    {
        match verdict {
            Verdict::Go(standing) => {
                Self::Running { response: parked.call(None), standing, charged: None }
            }
            Verdict::Delay(turn, standing) => Self::delaying(turn, standing, parked),
            // The parked service is dropped: what its readiness holds is free again.
            Verdict::Refuse(rejection) => {
                Self::Answered { answer: Some(policy.answer.refuse(parked.request(), rejection)) }
            }
        }
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

    #[inline]
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        const KEPT: &str = "the policy is kept while there is something to decide";
        let mut this = self.project();
        loop {
            let next = match this.state.as_mut().project() {
                // ## Identifying => (Deciding | Delaying | Running | Answered)
                //
                // The key is known. From here on it is as if it had been known in `call`.
                StateProjection::Identifying { key, parked, limiter } => {
                    let subject = ready!(key.poll(context));
                    let policy = this.policy.as_deref().expect(KEPT);
                    match gate::enter(limiter, policy, subject, parked.request(), R::ANNOTATES) {
                        Entry::Decided(verdict) => State::after(verdict, parked.take(), policy),
                        Entry::Asked(decision, ticket) => {
                            let ticket = Some(ticket);
                            State::Deciding { decision, ticket, parked: parked.take() }
                        }
                    }
                }
                // ## Deciding => (Delaying | Running | Answered)
                //
                // The backend has answered.
                StateProjection::Deciding { decision, ticket, parked } => {
                    let decision = ready!(decision.poll(context));
                    let policy = this.policy.as_deref().expect(KEPT);
                    let ticket = ticket.take().expect("a backend answers once");
                    let verdict = ticket.judge(policy, decision, R::ANNOTATES);
                    State::after(verdict, parked.take(), policy)
                }
                // ## Delaying => Running
                //
                // The turn has come. Until here, dropping this future gives it back.
                StateProjection::Delaying { sleep, turn, standing, parked } => {
                    ready!(sleep.as_mut().poll(context));
                    turn.take();
                    let standing = standing.take();
                    State::Running { response: parked.call(None), standing, charged: None }
                }
                StateProjection::Running { response, standing, charged } => {
                    let mut result = ready!(nesting::inside(*charged, || response.poll(context)));
                    if let (Ok(response), Some(standing), Some(policy)) =
                        (&mut result, standing, this.policy)
                    {
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
            State::Identifying { .. } => "Identifying",
            State::Deciding { .. } => "Deciding",
            State::Delaying { .. } => "Delaying",
            State::Running { .. } => "Running",
            State::Answered { .. } => "Answered",
        };
        f.debug_tuple("ResponseFuture").field(&state).finish()
    }
}
