use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::Sleep;

use super::{acquire::Acquire, limiter::ConcurrencyLimiter, slot::Slot};
use crate::{
    maybe_ready::MaybeReady,
    policy::{CostOf, Policy, Subject},
    rejection::Rejection,
    service::gated::Gate,
};

#[derive(Clone)]
pub(super) struct Settings<K, C, R, H> {
    pub(super) limiter: ConcurrencyLimiter,
    pub(super) policy: Policy<K, C, R>,
    pub(super) hold: H,
    pub(super) max_wait: Duration,
}

/// The wait for a slot. An exempt request has none.
pub(super) struct Wait {
    acquire: Acquire,
    sleep: Pin<Box<Sleep>>,
}

impl<Req, K, C, R, H> Gate<Req> for Arc<Settings<K, C, R, H>>
where
    C: CostOf<Req>,
{
    type Pass = Option<Slot>;
    type Wait = Wait;

    fn enter(&mut self, subject: Subject, request: &Req) -> MaybeReady<Wait> {
        let Settings { limiter, policy, max_wait, .. } = &**self;
        let key = match subject.counted(policy.exceptions.on_missing_key) {
            Ok(Some(key)) => key,
            Ok(None) => return MaybeReady::ready(Ok(None)),
            Err(rejection) => return MaybeReady::ready(Err(rejection)),
        };
        let weight = policy.cost.cost_of(request).units();
        let taken = if max_wait.is_zero() {
            limiter.try_acquire(&key, weight)
        } else {
            let mut acquire = limiter.acquire(&key, weight);
            match acquire.take_ready() {
                Some(taken) => taken,
                None => {
                    let sleep = Box::pin(tokio::time::sleep(*max_wait));
                    return MaybeReady::pending(Wait { acquire, sleep });
                }
            }
        };
        MaybeReady::ready(taken.map(Some).map_err(Rejection::Busy))
    }
}

impl Future for Wait {
    type Output = Result<Option<Slot>, Rejection>;

    /// There is a slot, or the time is up: then the place goes with this future.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(taken) = Pin::new(&mut self.acquire).poll(context) {
            return Poll::Ready(taken.map(Some).map_err(Rejection::Busy));
        }
        ready!(self.sleep.as_mut().poll(context));
        let lack = self.acquire.lack().expect("it waits");
        Poll::Ready(Err(Rejection::Busy(lack)))
    }
}
