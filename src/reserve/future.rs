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
    service::{Asked, Settings, Verdict},
    settle::{Reservation, Settle},
};
use crate::{
    algorithm::Algorithm,
    backend::Backend,
    limiter::{Limiter, Permit},
    policy::{Answer, CostOf, KeyOf, Subject},
    rejection::Rejection,
};

pin_project! {
    /// The future of [`Reserve`](super::Reserve)'s response.
    ///
    /// A request that has to wait does so in a box of its own.
    #[must_use = "futures do nothing unless polled"]
    pub struct ReserveFuture<S, Req, A, B, K, C, R, M>
    where
        S: Service<Req>,
        A: Algorithm,
        B: Backend<A>,
        K: KeyOf<Req>,
    {
        #[pin]
        state: State<S, Req, A, B, K::Future>,
        settings: Arc<Settings<K, C, R, M>>,
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
        Waiting { waiting: Pin<Box<Waiting<S, Req, A, B, F>>> },
        Running { #[pin] response: S::Future, permit: Option<Permit<A, B>> },
        Answered { answer: Option<Result<S::Response, S::Error>> },
    }
}

pin_project! {
    struct Waiting<S, Req, A, B, F>
    where
        A: Algorithm,
        B: Backend<A>,
    {
        // The service that was made ready, and what it waits with.
        parked: Option<(S, Req)>,
        #[pin]
        until: Until<A, B, F>,
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
        Identified { #[pin] key: F, limiter: Limiter<A, B> },
        Decided { #[pin] decide: B::Decide, asked: Option<Asked<A, B>> },
        Turn { sleep: Pin<Box<Sleep>>, permit: Option<Permit<A, B>> },
    }
}

impl<A: Algorithm, B: Backend<A>, F> Until<A, B, F> {
    pub(super) fn turn(permit: Permit<A, B>) -> Self {
        let sleep = Box::pin(tokio::time::sleep(permit.delay()));
        Self::Turn { sleep, permit: Some(permit) }
    }
}

impl<S, Req, A, B, K, C, R, M> ReserveFuture<S, Req, A, B, K, C, R, M>
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
        settings: Arc<Settings<K, C, R, M>>,
    ) -> Self {
        let waiting = Box::pin(Waiting { parked: Some((ready, request)), until });
        Self { state: State::Waiting { waiting }, settings }
    }

    pub(super) const fn running(
        response: S::Future,
        permit: Option<Permit<A, B>>,
        settings: Arc<Settings<K, C, R, M>>,
    ) -> Self {
        Self { state: State::Running { response, permit }, settings }
    }

    pub(super) const fn answered(
        answer: Result<S::Response, S::Error>,
        settings: Arc<Settings<K, C, R, M>>,
    ) -> Self {
        Self { state: State::Answered { answer: Some(answer) }, settings }
    }
}

impl<S, Req, A, B, K, C, R, M> Future for ReserveFuture<S, Req, A, B, K, C, R, M>
where
    S: Service<Req>,
    A: Algorithm,
    B: Backend<A>,
    K: KeyOf<Req>,
    C: CostOf<Req>,
    R: Answer<Req, S::Response, S::Error>,
    M: Settle<S::Response>,
{
    type Output = Result<M::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let next = match this.state.as_mut().project() {
                // ## Waiting => (Running | Answered)
                //
                // The request goes on with the service that was made ready for it, or not at all.
                StateProjection::Waiting { waiting } => {
                    let waited = ready!(waiting.as_mut().poll(this.settings, context));
                    let (mut ready, request) =
                        waiting.as_mut().project().parked.take().expect(PARKED);
                    match waited {
                        Ok(permit) => State::Running { response: ready.call(request), permit },
                        Err(rejection) => {
                            let answer = this.settings.policy.answer.refuse(&request, rejection);
                            State::Answered { answer: Some(answer) }
                        }
                    }
                }
                // From here on the response settles what was reserved. Dropped here, or with an
                // error, it comes to what the permit was told.
                StateProjection::Running { response, permit } => {
                    let response = ready!(response.poll(context));
                    let permit = permit.take();
                    return Poll::Ready(response.map(|response| {
                        this.settings.settle.settle(response, permit.map(Reservation::new))
                    }));
                }
                StateProjection::Answered { answer } => {
                    let answer = answer.take();
                    let answer = answer.expect("a future is not polled after it is ready");
                    return Poll::Ready(
                        answer.map(|response| this.settings.settle.settle(response, None)),
                    );
                }
            };
            this.state.set(next);
        }
    }
}

const PARKED: &str = "a request is parked until its wait ends";

impl<S, Req, A, B, F> Waiting<S, Req, A, B, F>
where
    A: Algorithm,
    B: Backend<A>,
    F: Future<Output = Subject>,
{
    fn poll<K, C: CostOf<Req>, R, M>(
        self: Pin<&mut Self>,
        settings: &Settings<K, C, R, M>,
        context: &mut Context<'_>,
    ) -> Poll<Result<Option<Permit<A, B>>, Rejection>> {
        let mut this = self.project();
        loop {
            let verdict = match this.until.as_mut().project() {
                // ## Identified => (Decided | Turn | end)
                //
                // The key is known. From here on it is as if it had been known in `call`.
                UntilProjection::Identified { key, limiter } => {
                    let subject = ready!(key.poll(context));
                    let (_, request) = this.parked.as_ref().expect(PARKED);
                    settings.judge(limiter, subject, request)
                }
                // ## Decided => (Turn | end)
                //
                // The backend has answered.
                UntilProjection::Decided { decide, asked } => {
                    let decision = ready!(decide.poll(context));
                    settings.decided(asked.take().expect("a backend answers once"), decision)
                }
                // ## Turn => end
                //
                // The turn has come.
                UntilProjection::Turn { sleep, permit } => {
                    ready!(sleep.as_mut().poll(context));
                    return Poll::Ready(Ok(permit.take()));
                }
            };
            match verdict {
                Verdict::Go(Some(permit)) if !permit.delay().is_zero() => {
                    this.until.set(Until::turn(permit));
                }
                Verdict::Go(permit) => return Poll::Ready(Ok(permit)),
                Verdict::Ask(decide, asked) => {
                    this.until.set(Until::Decided { decide, asked: Some(asked) });
                }
                Verdict::Refuse(rejection) => return Poll::Ready(Err(rejection)),
            }
        }
    }
}

impl<S, Req, A, B, K, C, R, M> fmt::Debug for ReserveFuture<S, Req, A, B, K, C, R, M>
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
        f.debug_tuple("ReserveFuture").field(&state).finish()
    }
}
