use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use pin_project_lite::pin_project;

use super::{slot::Slot, slots::Slots};
use crate::{
    maybe_ready::MaybeReady,
    policy::{CostOf, Policy, Subject},
    rejection::Rejection,
    service::gated::Gate,
};

#[derive(Clone)]
pub(super) struct Settings<K, C, R, H, L> {
    pub(super) limiter: L,
    pub(super) policy: Policy<K, C, R>,
    pub(super) hold: H,
    pub(super) max_wait: Duration,
}

pin_project! {
    /// The wait for a slot. An exempt request has none.
    pub(super) struct Wait<W> {
        #[pin]
        wait: W,
    }
}

impl<Req, K, C, R, H, L> Gate<Req> for Arc<Settings<K, C, R, H, L>>
where
    C: CostOf<Req>,
    L: Slots,
{
    type Pass = Option<Slot>;
    type Wait = Wait<L::Wait>;

    fn enter(&mut self, subject: Subject, request: &Req) -> MaybeReady<Self::Wait> {
        let Settings { limiter, policy, max_wait, .. } = &**self;
        let key = match subject.counted(policy.exceptions.on_missing_key) {
            Ok(Some(key)) => key,
            Ok(None) => return MaybeReady::ready(Ok(None)),
            Err(rejection) => return MaybeReady::ready(Err(rejection)),
        };
        let weight = policy.cost.cost_of(request).units();
        match limiter.take_within(&key, weight, Some(*max_wait)).try_into_ready() {
            Ok(taken) => MaybeReady::ready(taken.map(Some)),
            Err(wait) => MaybeReady::pending(Wait { wait }),
        }
    }
}

impl<W: Future<Output = Result<Slot, Rejection>>> Future for Wait<W> {
    type Output = Result<Option<Slot>, Rejection>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().wait.poll(context).map_ok(Some)
    }
}
