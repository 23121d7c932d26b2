use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    classify::{Classify, Outcome},
    pace::{Entry, Pace, Patience, Sent, Waiter},
    sides::Sides,
};
use crate::{
    maybe_ready::MaybeReady,
    observe::adaptive::{AdaptiveObserver, Said, SendEnd},
    policy::{Policy, Subject, Uniform},
    rejection::Rejection,
    service::gated::Gate,
    time::timer_now,
};

/// What a layer and its services share.
pub(crate) struct Settings<C, R, K> {
    pub(crate) classify: C,
    pub(crate) policy: Policy<K, Uniform, R>,
    pub(super) sides: Arc<Sides<Pace>>,
    pub(super) patience: Patience,
    pub(super) observer: Arc<AdaptiveObserver>,
}

/// A request on its way.
pub(crate) struct Attempt {
    pace: Arc<Pace>,
    sent: Sent,
    observer: Arc<AdaptiveObserver>,
}

/// The wait of a request that is held back.
pub(crate) struct Wait {
    waiter: Waiter,
    pace: Arc<Pace>,
    came: Instant,
    observer: Arc<AdaptiveObserver>,
    is_open: bool,
}

impl<Req, C, R, K> Gate<Req> for Arc<Settings<C, R, K>> {
    /// A request that is exempt teaches nothing.
    type Pass = Option<Attempt>;
    type Wait = Wait;

    fn enter(&mut self, subject: Subject, _: &Req) -> MaybeReady<Wait> {
        let key = match subject.counted(self.policy.exceptions.on_missing_key) {
            Ok(Some(key)) => key,
            Ok(None) => return MaybeReady::ready(Ok(None)),
            Err(rejection) => return MaybeReady::ready(Err(rejection)),
        };
        let (pace, observer) = (self.sides.of(&key), Arc::clone(&self.observer));
        match pace.enter(self.patience) {
            Entry::Go(sent) => {
                observer.ended(SendEnd::Sent, None);
                MaybeReady::ready(Ok(Some(Attempt { pace, sent, observer })))
            }
            Entry::Wait(waiter) => {
                observer.waits();
                let came = timer_now();
                MaybeReady::pending(Wait { waiter, pace, came, observer, is_open: true })
            }
            Entry::Refuse(throttled) => {
                observer.ended(SendEnd::Refused, None);
                MaybeReady::ready(Err(Rejection::Throttled(throttled)))
            }
        }
    }
}

impl<C, R, K> Settings<C, R, K> {
    /// Learns from the answer to a request, if it was let through.
    pub(crate) fn learn<Res, Err>(&self, attempt: Option<Attempt>, result: Result<&Res, &Err>)
    where
        C: Classify<Res, Err>,
    {
        let Some(Attempt { pace, sent, observer }) = attempt else { return };
        let outcome = self.classify.classify(result);
        let rate = pace.settle(sent, outcome);
        observer.heard(outcome.said());
        if Arc::ptr_eq(&pace, self.sides.global())
            && let Some(rate) = rate
        {
            observer.sends_at(rate.as_millionths());
        }
    }
}

impl Outcome {
    /// As it is counted.
    pub(super) const fn said(self) -> Said {
        match self {
            Self::Accepted => Said::Accepted,
            Self::Throttled(_) => Said::Throttled,
            Self::Ignored => Said::Nothing,
        }
    }
}

impl Wait {
    fn end(&mut self, end: SendEnd) {
        let waited: Duration = timer_now().saturating_duration_since(self.came);
        self.is_open = false;
        self.observer.ended(end, Some(waited));
    }
}

impl Future for Wait {
    type Output = Result<Option<Attempt>, Rejection>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match ready!(Pin::new(&mut self.waiter).poll(context)) {
            Ok(sent) => {
                self.end(SendEnd::SentAfterWait);
                let (pace, observer) = (Arc::clone(&self.pace), Arc::clone(&self.observer));
                Poll::Ready(Ok(Some(Attempt { pace, sent, observer })))
            }
            Err(throttled) => {
                self.end(SendEnd::Refused);
                Poll::Ready(Err(Rejection::Throttled(throttled)))
            }
        }
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        if self.is_open {
            self.end(SendEnd::Left);
        }
    }
}

impl<C: Clone, R: Clone, K: Clone> Clone for Settings<C, R, K> {
    fn clone(&self) -> Self {
        Self {
            classify: self.classify.clone(),
            policy: self.policy.clone(),
            sides: Arc::clone(&self.sides),
            patience: self.patience,
            observer: Arc::clone(&self.observer),
        }
    }
}
