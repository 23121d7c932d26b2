use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tower_service::Service;

use super::{gate::Settings, hold::Hold, limiter::ConcurrencyLimiter, slots::Slots};
use crate::{
    policy::{Answer, CostOf, KeyOf},
    service::gated::Gated,
};

pin_project! {
    /// The future of [`Concurrency`](super::Concurrency)'s response.
    ///
    /// A request that has to wait does so in a box of its own.
    #[must_use = "futures do nothing unless polled"]
    pub struct ConcurrencyFuture<S, Req, K, C, R, H, L = ConcurrencyLimiter>
    where
        S: Service<Req>,
        K: KeyOf<Req>,
        C: CostOf<Req>,
        L: Slots,
    {
        #[pin]
        pub(super) gated: Gated<S, Req, K::Future, Arc<Settings<K, C, R, H, L>>>,
        pub(super) settings: Arc<Settings<K, C, R, H, L>>,
    }
}

impl<S, Req, K, C, R, H, L> Future for ConcurrencyFuture<S, Req, K, C, R, H, L>
where
    S: Service<Req>,
    K: KeyOf<Req>,
    C: CostOf<Req>,
    R: Answer<Req, S::Response, S::Error>,
    H: Hold<S::Response>,
    L: Slots,
{
    type Output = Result<H::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Settings { policy, hold, .. } = &**this.settings;
        let (response, slot) = ready!(this.gated.poll(&policy.answer, context));
        // From here on the response holds the slot, or nobody does.
        Poll::Ready(response.map(|response| hold.hold(response, slot.flatten())))
    }
}

impl<S, Req, K, C, R, H, L> fmt::Debug for ConcurrencyFuture<S, Req, K, C, R, H, L>
where
    S: Service<Req>,
    K: KeyOf<Req>,
    C: CostOf<Req>,
    L: Slots,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ConcurrencyFuture").field(&self.gated.stage()).finish()
    }
}
