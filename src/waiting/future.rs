use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tower_service::Service;

use super::{
    ask::AskOf,
    turnstile::{Shared, Verdict},
};
use crate::{
    algorithm::Algorithm,
    backend::Backend,
    decision::Snapshot,
    policy::{Answer, CostOf, KeyOf},
    queue::Acquire,
};

pin_project! {
    /// The future of [`Waiting`](super::Waiting)'s response.
    ///
    /// A request waits in a box of its own.
    #[must_use = "futures do nothing unless polled"]
    pub struct WaitingFuture<S, Req, A, B, K, C, R, W>
    where
        S: Service<Req>,
        A: Algorithm,
        B: Backend<A>,
        K: KeyOf<Req>,
    {
        #[pin]
        state: State<S, Req, A, B, K::Future>,
        turnstile: Shared<A, B, K, C, R, W>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<S, Req, A, B, F>
    where
        S: Service<Req>,
        A: Algorithm,
        B: Backend<A>,
    {
        Waiting { parked: Option<(S, Req)>, until: Pin<Box<Until<A, B, F>>> },
        Running { #[pin] response: S::Future, standing: Option<Snapshot> },
        Answered { answer: Option<Result<S::Response, S::Error>> },
    }
}

pin_project! {
    /// What a request waits for.
    #[project = UntilProjection]
    pub(super) enum Until<A, B, F>
    where
        A: Algorithm,
        B: Backend<A>,
    {
        Identified { #[pin] key: F },
        Admitted { #[pin] acquire: Acquire<A, B> },
    }
}

impl<S, Req, A, B, K, C, R, W> WaitingFuture<S, Req, A, B, K, C, R, W>
where
    S: Service<Req>,
    A: Algorithm,
    B: Backend<A>,
    K: KeyOf<Req>,
{
    pub(super) fn waiting(
        ready: S,
        request: Req,
        until: Until<A, B, K::Future>,
        turnstile: Shared<A, B, K, C, R, W>,
    ) -> Self {
        let state = State::Waiting { parked: Some((ready, request)), until: Box::pin(until) };
        Self { state, turnstile }
    }

    pub(super) const fn running(response: S::Future, turnstile: Shared<A, B, K, C, R, W>) -> Self {
        Self { state: State::Running { response, standing: None }, turnstile }
    }

    pub(super) const fn answered(
        answer: Result<S::Response, S::Error>,
        turnstile: Shared<A, B, K, C, R, W>,
    ) -> Self {
        Self { state: State::Answered { answer: Some(answer) }, turnstile }
    }
}

impl<S, Req, A, B, K, C, R, W> Future for WaitingFuture<S, Req, A, B, K, C, R, W>
where
    S: Service<Req>,
    A: Algorithm,
    B: Backend<A>,
    K: KeyOf<Req>,
    C: CostOf<Req>,
    R: Answer<Req, S::Response, S::Error>,
    W: AskOf<Req>,
{
    type Output = Result<S::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        const PARKED: &str = "a request is parked until its wait ends";
        let mut this = self.project();
        let turnstile = &**this.turnstile;
        loop {
            let next = match this.state.as_mut().project() {
                StateProjection::Waiting { parked, until } => {
                    let waited = match until.as_mut().project() {
                        // ## Identified => (Admitted | Running | Answered)
                        //
                        // The key is known. From here on it is as if it had been known in `call`.
                        UntilProjection::Identified { key } => {
                            let subject = ready!(key.poll(context));
                            let (_, request) = parked.as_ref().expect(PARKED);
                            match turnstile.judge(subject, request) {
                                Verdict::Go => Ok(None),
                                Verdict::Refuse(rejection) => Err(rejection),
                                Verdict::Wait(key, ask) => {
                                    let acquire = turnstile.queue.acquire(&key, ask);
                                    until.set(Until::Admitted { acquire });
                                    continue;
                                }
                            }
                        }
                        // ## Admitted => (Running | Answered)
                        //
                        // Its turn has come, or will not in time.
                        UntilProjection::Admitted { acquire } => {
                            turnstile.waited(ready!(acquire.poll(context)))
                        }
                    };
                    let (mut ready, request) = parked.take().expect(PARKED);
                    match waited {
                        Ok(admitted) => State::Running {
                            response: ready.call(request),
                            standing: admitted.map(|admitted| admitted.snapshot),
                        },
                        Err(rejection) => {
                            let answer = turnstile.policy.answer.refuse(&request, rejection);
                            State::Answered { answer: Some(answer) }
                        }
                    }
                }
                StateProjection::Running { response, standing } => {
                    let mut result = ready!(response.poll(context));
                    let answer = &turnstile.policy.answer;
                    if let (Ok(response), Some(standing)) = (&mut result, standing)
                        && answer.annotates()
                    {
                        let limit = turnstile.queue.limiter().limit();
                        answer.annotate(standing, limit.policies(), response);
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

impl<S, Req, A, B, K, C, R, W> fmt::Debug for WaitingFuture<S, Req, A, B, K, C, R, W>
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
        f.debug_tuple("WaitingFuture").field(&state).finish()
    }
}
