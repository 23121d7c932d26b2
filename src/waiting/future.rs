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
    turnstile::{Passed, Shared},
};
use crate::{
    algorithm::Algorithm,
    backend::Backend,
    policy::{Answer, CostOf, KeyOf, LimitOf, SameForAll},
    service::gated::Gated,
};

pin_project! {
    /// The future of [`Waiting`](super::Waiting)'s response.
    ///
    /// A request waits in a box of its own.
    #[must_use = "futures do nothing unless polled"]
    pub struct WaitingFuture<S, Req, A, B, K, C, R, W, L = SameForAll>
    where
        S: Service<Req>,
        A: Algorithm,
        B: Backend<A>,
        K: KeyOf<Req>,
        C: CostOf<Req>,
        W: AskOf<Req>,
        L: LimitOf<Req, A>,
    {
        #[pin]
        pub(super) gated: Gated<S, Req, K::Future, Shared<A, B, K, C, R, W, L>>,
        pub(super) turnstile: Shared<A, B, K, C, R, W, L>,
    }
}

impl<S, Req, A, B, K, C, R, W, L> Future for WaitingFuture<S, Req, A, B, K, C, R, W, L>
where
    S: Service<Req>,
    A: Algorithm,
    B: Backend<A>,
    K: KeyOf<Req>,
    C: CostOf<Req>,
    R: Answer<Req, S::Response, S::Error>,
    W: AskOf<Req>,
    L: LimitOf<Req, A>,
{
    type Output = Result<S::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let answer = &this.turnstile.policy.answer;
        let (response, passed) = ready!(this.gated.poll(answer, context));
        let mut response = response?;
        if let Some(Passed { admitted, limit }) = passed.flatten()
            && answer.annotates()
        {
            answer.annotate(&admitted.snapshot, limit.policies(), &mut response);
        }
        Poll::Ready(Ok(response))
    }
}

impl<S, Req, A, B, K, C, R, W, L> fmt::Debug for WaitingFuture<S, Req, A, B, K, C, R, W, L>
where
    S: Service<Req>,
    A: Algorithm,
    B: Backend<A>,
    K: KeyOf<Req>,
    C: CostOf<Req>,
    W: AskOf<Req>,
    L: LimitOf<Req, A>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WaitingFuture").field(&self.gated.stage()).finish()
    }
}
