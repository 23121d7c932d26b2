use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tower_service::Service;

use super::{ask::AskOf, turnstile::Shared};
use crate::{
    algorithm::Algorithm,
    backend::Backend,
    policy::{Answer, CostOf, KeyOf},
    service::gated::Gated,
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
        C: CostOf<Req>,
        W: AskOf<Req>,
    {
        #[pin]
        pub(super) gated: Gated<S, Req, K::Future, Shared<A, B, K, C, R, W>>,
        pub(super) turnstile: Shared<A, B, K, C, R, W>,
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
        let this = self.project();
        let answer = &this.turnstile.policy.answer;
        let (mut response, admitted) = ready!(this.gated.poll(answer, context))?;
        if let Some(admitted) = admitted.flatten()
            && answer.annotates()
        {
            let limit = this.turnstile.queue.limiter().limit();
            answer.annotate(&admitted.snapshot, limit.policies(), &mut response);
        }
        Poll::Ready(Ok(response))
    }
}

impl<S, Req, A, B, K, C, R, W> fmt::Debug for WaitingFuture<S, Req, A, B, K, C, R, W>
where
    S: Service<Req>,
    A: Algorithm,
    B: Backend<A>,
    K: KeyOf<Req>,
    C: CostOf<Req>,
    W: AskOf<Req>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WaitingFuture").field(&self.gated.stage()).finish()
    }
}
