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
    gate::{ReserveGate, Settings},
    settle::{Reservation, Settle},
};
use crate::{
    algorithm::Algorithm,
    backend::Backend,
    policy::{Answer, CostOf, KeyOf},
    service::gated::Gated,
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
        C: CostOf<Req>,
    {
        #[pin]
        pub(super) gated: Gated<S, Req, K::Future, ReserveGate<A, B, K, C, R, M>>,
        pub(super) settings: Arc<Settings<K, C, R, M>>,
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
        let this = self.project();
        let Settings { policy, settle, .. } = &**this.settings;
        let (response, permit) = ready!(this.gated.poll(&policy.answer, context));
        let response = response?;
        // From here on the response settles what was reserved.
        let reservation = permit.flatten().map(Reservation::new);
        Poll::Ready(Ok(settle.settle(response, reservation)))
    }
}

impl<S, Req, A, B, K, C, R, M> fmt::Debug for ReserveFuture<S, Req, A, B, K, C, R, M>
where
    S: Service<Req>,
    A: Algorithm,
    B: Backend<A>,
    K: KeyOf<Req>,
    C: CostOf<Req>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ReserveFuture").field(&self.gated.stage()).finish()
    }
}
