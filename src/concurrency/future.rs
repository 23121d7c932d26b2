use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::time::Sleep;
use tower_service::Service;

use super::{
    acquire::Acquire,
    hold::Hold,
    service::{Settings, Verdict},
    slot::Slot,
};
use crate::{
    policy::{Answer, CostOf, KeyOf},
    rejection::Rejection,
};

pin_project! {
    /// The future of [`Concurrency`](super::Concurrency)'s response.
    ///
    /// A request that has to wait does so in a box of its own.
    #[must_use = "futures do nothing unless polled"]
    pub struct ConcurrencyFuture<S, Req, K, C, R, H>
    where
        S: Service<Req>,
        K: KeyOf<Req>,
    {
        #[pin]
        state: State<S, Req, K::Future>,
        settings: Arc<Settings<K, C, R, H>>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<S, Req, F>
    where
        S: Service<Req>,
    {
        Waiting { waiting: Pin<Box<Waiting<S, Req, F>>> },
        Running { #[pin] response: S::Future, slot: Option<Slot> },
        Answered { answer: Option<Result<S::Response, S::Error>> },
    }
}

pin_project! {
    struct Waiting<S, Req, F> {
        // The service that was made ready, and what it waits with.
        parked: Option<(S, Req)>,
        #[pin]
        until: Until<F>,
    }
}

pin_project! {
    /// What a request waits for.
    #[project = UntilProjection]
    pub(super) enum Until<F> {
        Identified { #[pin] key: F },
        Acquired { acquire: Acquire, sleep: Pin<Box<Sleep>> },
    }
}

impl<F> Until<F> {
    pub(super) fn acquired(acquire: Acquire, max_wait: Duration) -> Self {
        Self::Acquired { acquire, sleep: Box::pin(tokio::time::sleep(max_wait)) }
    }
}

impl<S, Req, K, C, R, H> ConcurrencyFuture<S, Req, K, C, R, H>
where
    S: Service<Req>,
    K: KeyOf<Req>,
{
    pub(super) fn waiting(
        ready: S,
        request: Req,
        until: Until<K::Future>,
        settings: Arc<Settings<K, C, R, H>>,
    ) -> Self {
        let waiting = Box::pin(Waiting { parked: Some((ready, request)), until });
        Self { state: State::Waiting { waiting }, settings }
    }

    pub(super) const fn running(
        response: S::Future,
        slot: Option<Slot>,
        settings: Arc<Settings<K, C, R, H>>,
    ) -> Self {
        Self { state: State::Running { response, slot }, settings }
    }

    pub(super) const fn answered(
        answer: Result<S::Response, S::Error>,
        settings: Arc<Settings<K, C, R, H>>,
    ) -> Self {
        Self { state: State::Answered { answer: Some(answer) }, settings }
    }
}

impl<S, Req, K, C, R, H> Future for ConcurrencyFuture<S, Req, K, C, R, H>
where
    S: Service<Req>,
    K: KeyOf<Req>,
    C: CostOf<Req>,
    R: Answer<Req, S::Response, S::Error>,
    H: Hold<S::Response>,
{
    type Output = Result<H::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        const PARKED: &str = "a request is parked until its wait ends";
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
                        Ok(slot) => State::Running { response: ready.call(request), slot },
                        Err(rejection) => {
                            let answer = this.settings.policy.answer.refuse(&request, rejection);
                            State::Answered { answer: Some(answer) }
                        }
                    }
                }
                // From here on the response holds the slot, or nobody does.
                StateProjection::Running { response, slot } => {
                    let response = ready!(response.poll(context));
                    let slot = slot.take();
                    return Poll::Ready(response.map(|res| this.settings.hold.hold(res, slot)));
                }
                StateProjection::Answered { answer } => {
                    let answer = answer.take();
                    let answer = answer.expect("a future is not polled after it is ready");
                    return Poll::Ready(answer.map(|res| this.settings.hold.hold(res, None)));
                }
            };
            this.state.set(next);
        }
    }
}

impl<S, Req, F: Future<Output = crate::policy::Subject>> Waiting<S, Req, F> {
    fn poll<K, C: CostOf<Req>, R, H>(
        self: Pin<&mut Self>,
        settings: &Settings<K, C, R, H>,
        context: &mut Context<'_>,
    ) -> Poll<Result<Option<Slot>, Rejection>> {
        let mut this = self.project();
        loop {
            match this.until.as_mut().project() {
                // ## Identified => (Acquired | end)
                //
                // The key is known. From here on it is as if it had been known in `call`.
                UntilProjection::Identified { key } => {
                    let subject = ready!(key.poll(context));
                    let parked = this.parked.as_ref();
                    let (_, request) = parked.expect("a request is parked until its wait ends");
                    let acquire = match settings.judge(subject, request) {
                        Verdict::Go(slot) => return Poll::Ready(Ok(slot)),
                        Verdict::Refuse(rejection) => return Poll::Ready(Err(rejection)),
                        Verdict::Wait(acquire) => acquire,
                    };
                    this.until.set(Until::acquired(acquire, settings.max_wait));
                }
                // ## Acquired => end
                //
                // There is a slot, or the time is up: then the place goes with this future.
                UntilProjection::Acquired { acquire, sleep } => {
                    if let Poll::Ready(taken) = Pin::new(&mut *acquire).poll(context) {
                        return Poll::Ready(taken.map(Some).map_err(Rejection::Busy));
                    }
                    ready!(sleep.as_mut().poll(context));
                    let lack = acquire.lack().expect("it waits");
                    return Poll::Ready(Err(Rejection::Busy(lack)));
                }
            }
        }
    }
}

impl<S, Req, K, C, R, H> fmt::Debug for ConcurrencyFuture<S, Req, K, C, R, H>
where
    S: Service<Req>,
    K: KeyOf<Req>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Waiting { .. } => "Waiting",
            State::Running { .. } => "Running",
            State::Answered { .. } => "Answered",
        };
        f.debug_tuple("ConcurrencyFuture").field(&state).finish()
    }
}
