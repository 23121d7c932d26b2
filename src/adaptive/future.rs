use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tower_service::Service;

use super::{classify::Classify, gate::Settings};
use crate::{
    policy::{Answer, Global, KeyOf},
    service::gated::Gated,
};

pin_project! {
    /// The future of [`Adaptive`](super::Adaptive)'s response.
    ///
    /// A request that has to wait does so in a box of its own.
    #[must_use = "futures do nothing unless polled"]
    pub struct AdaptiveFuture<S, Req, C, R, K = Global>
    where
        S: Service<Req>,
        K: KeyOf<Req>,
    {
        #[pin]
        pub(super) gated: Gated<S, Req, K::Future, Arc<Settings<C, R, K>>>,
        pub(super) settings: Arc<Settings<C, R, K>>,
    }
}

impl<S, Req, C, R, K> Future for AdaptiveFuture<S, Req, C, R, K>
where
    S: Service<Req>,
    C: Classify<S::Response, S::Error>,
    R: Answer<Req, S::Response, S::Error>,
    K: KeyOf<Req>,
{
    type Output = Result<S::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let answer = &this.settings.policy.answer;
        let (result, attempt) = ready!(this.gated.poll(answer, context));
        this.settings.learn(attempt.flatten(), result.as_ref());
        Poll::Ready(result)
    }
}

impl<S: Service<Req>, Req, C, R, K: KeyOf<Req>> fmt::Debug for AdaptiveFuture<S, Req, C, R, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AdaptiveFuture").field(&self.gated.stage()).finish()
    }
}
