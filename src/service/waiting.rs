use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tokio::time::Sleep;

use super::gate::{self, Asked, Entry, Standing, Turn, Verdict};
use crate::{
    algorithm::Algorithm,
    backend::Backend,
    limiter::Limiter,
    maybe_ready::MaybeReady,
    observe::nesting::{self, Awaited},
    policy::{CostOf, KeyOf, LimitOf, Policy, Subject},
    rejection::Rejection,
};

pin_project! {
    /// A request that waits, and the service that was made ready for it.
    pub(super) struct Waiting<S, Req, A: Algorithm, B: Backend<A>, K: KeyOf<Req>, C, R, L> {
        parked: Option<(S, Req)>,
        policy: Arc<Policy<K, C, R, L>>,
        annotates: bool,
        awaited: Option<Awaited>,
        #[pin]
        until: Until<K::Future, A, B>,
    }
}

pin_project! {
    /// What a request waits for.
    #[project = UntilProjection]
    pub(super) enum Until<F: Future, A: Algorithm, B: Backend<A>> {
        /// Whom it is counted against.
        Identified { #[pin] key: MaybeReady<F>, limiter: Limiter<A, B> },
        /// The backend's decision.
        Decided { #[pin] asked: Asked<A, B> },
        /// Its turn.
        Turn { sleep: Pin<Box<Sleep>>, turn: Turn<A, B>, standing: Option<Standing> },
    }
}

/// How a wait ends: with the parked request, which goes on or does not.
pub(super) enum Waited<S, Req> {
    Go(S, Req, Option<Standing>),
    Refuse(Req, Rejection),
}

impl<S, Req, A, B, K, C, R, L> Waiting<S, Req, A, B, K, C, R, L>
where
    A: Algorithm,
    B: Backend<A>,
    K: KeyOf<Req>,
{
    pub(super) const fn new(
        ready: S,
        request: Req,
        policy: Arc<Policy<K, C, R, L>>,
        annotates: bool,
        awaited: Option<Awaited>,
        until: Until<K::Future, A, B>,
    ) -> Self {
        Self { parked: Some((ready, request)), policy, annotates, awaited, until }
    }

    /// The store that was charged for the request that goes on, if it is one of those to be looked
    /// at.
    pub(super) fn charged(self: Pin<&mut Self>) -> Option<usize> {
        let this = self.project();
        nesting::check_awaited(&this.policy.exceptions.unlooked, this.awaited.take())
    }

    pub(super) const fn policy(&self) -> &Arc<Policy<K, C, R, L>> {
        &self.policy
    }
}

impl<F: Future, A: Algorithm, B: Backend<A>> Until<F, A, B> {
    pub(super) fn turn(turn: Turn<A, B>, standing: Option<Standing>) -> Self {
        let sleep = Box::pin(tokio::time::sleep(turn.delay()));
        Self::Turn { sleep, turn, standing }
    }
}

impl<S, Req, A, B, K, C, R, L> Future for Waiting<S, Req, A, B, K, C, R, L>
where
    A: Algorithm,
    B: Backend<A>,
    K: KeyOf<Req>,
    C: CostOf<Req>,
    L: LimitOf<Req, A>,
{
    type Output = Waited<S, Req>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Waited<S, Req>> {
        const PARKED: &str = "a request is parked until its wait ends";
        let mut this = self.project();
        loop {
            let verdict = match this.until.as_mut().project() {
                // ## Identified => (Decided | Turn | end)
                //
                // The key is known. From here on it is as if it had been known in `call`.
                UntilProjection::Identified { key, limiter } => {
                    let subject = ready!(key.poll(context));
                    if !matches!(subject, Subject::Counted(_)) {
                        *this.awaited = None;
                    }
                    let (_, request) = this.parked.as_ref().expect(PARKED);
                    match gate::enter(limiter, this.policy, &subject, request, *this.annotates) {
                        Entry::Decided(verdict) => verdict,
                        Entry::Asked(asked) => {
                            this.until.set(Until::Decided { asked });
                            continue;
                        }
                    }
                }
                // ## Decided => (Turn | end)
                //
                // The backend has answered. Until here, dropping this future gives back what it
                // will grant.
                UntilProjection::Decided { asked } => {
                    let (decision, ticket) = ready!(asked.poll(context));
                    ticket.judge(this.policy, decision, *this.annotates)
                }
                // ## Turn => end
                //
                // The turn has come. Until here, dropping this future gives it back.
                UntilProjection::Turn { sleep, turn, standing } => {
                    ready!(sleep.as_mut().poll(context));
                    turn.take();
                    Verdict::Go(standing.take())
                }
            };
            match verdict {
                Verdict::Delay(turn, standing) => {
                    this.until.set(Until::turn(*turn, standing));
                    continue;
                }
                Verdict::Go(standing) => {
                    let (ready, request) = this.parked.take().expect(PARKED);
                    return Poll::Ready(Waited::Go(ready, request, standing));
                }
                // The parked service is dropped: what its readiness holds is free again.
                Verdict::Refuse(rejection) => {
                    let (_, request) = this.parked.take().expect(PARKED);
                    return Poll::Ready(Waited::Refuse(request, rejection));
                }
            }
        }
    }
}
