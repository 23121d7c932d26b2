use std::{future, sync::Arc};

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{
    adaptive::{
        classify::{Classify, Outcome},
        random::Random,
        sides::Sides,
        window::AcceptWindow,
    },
    maybe_ready::MaybeReady,
    observe::adaptive::{AdaptiveObserver, SendEnd},
    policy::{Policy, Subject, Uniform},
    rejection::{Rejection, Throttled},
    service::gated::Gate,
    time::{Timestamp, timer_now},
};

/// What a layer and its services share.
pub(crate) struct Settings<C, R, K> {
    pub(crate) classify: C,
    pub(crate) policy: Policy<K, Uniform, R>,
    pub(super) sides: Arc<Sides<Throttle>>,
    pub(super) dropped: Outcome,
    pub(super) observer: Arc<AdaptiveObserver>,
}

/// What is known of one side.
#[derive(Debug)]
pub(crate) struct Throttle {
    began: Instant,
    state: Mutex<(AcceptWindow, Random)>,
}

/// A request on its way. Dropped before its answer is there, it is counted as was set.
pub(crate) struct Attempt {
    side: Option<Arc<Throttle>>,
    dropped: Outcome,
    observer: Arc<AdaptiveObserver>,
}

impl Throttle {
    pub(super) fn new(window: AcceptWindow, random: Random) -> Self {
        Self { began: timer_now(), state: Mutex::new((window, random)) }
    }

    pub(super) fn requests(&self) -> u64 {
        self.state.lock().0.requests(self.now())
    }

    pub(super) fn accepts(&self) -> u64 {
        self.state.lock().0.accepts(self.now())
    }

    fn now(&self) -> Timestamp {
        Timestamp::MIN.saturating_add(timer_now().saturating_duration_since(self.began))
    }

    /// Whether a request is sent, and the share of those that are not.
    fn admits(&self) -> (bool, u32) {
        let now = self.now();
        let (window, random) = &mut *self.state.lock();
        let share = window.refused_millionths(now);
        (window.admit(random.draw(), now), share)
    }

    fn settle(&self, outcome: Outcome) {
        let accepted = match outcome {
            Outcome::Accepted => true,
            Outcome::Throttled(_) => false,
            Outcome::Ignored => return,
        };
        self.state.lock().0.record(accepted, self.now());
    }
}

impl<Req, C, R, K> Gate<Req> for Arc<Settings<C, R, K>> {
    /// A request that is exempt teaches nothing.
    type Pass = Option<Attempt>;
    /// Nobody waits.
    type Wait = future::Pending<Result<Option<Attempt>, Rejection>>;

    fn enter(&mut self, subject: Subject, _: &Req) -> MaybeReady<Self::Wait> {
        let key = match subject.counted(self.policy.exceptions.on_missing_key) {
            Ok(Some(key)) => key,
            Ok(None) => return MaybeReady::ready(Ok(None)),
            Err(rejection) => return MaybeReady::ready(Err(rejection)),
        };
        let (side, observer) = (self.sides.of(&key), Arc::clone(&self.observer));
        let (admitted, share) = side.admits();
        if Arc::ptr_eq(&side, self.sides.global()) {
            observer.refuses(share);
        }
        if !admitted {
            observer.ended(SendEnd::Refused, None);
            return MaybeReady::ready(Err(Rejection::Throttled(Throttled::new(None))));
        }
        observer.ended(SendEnd::Sent, None);
        let attempt = Attempt { side: Some(side), dropped: self.dropped, observer };
        MaybeReady::ready(Ok(Some(attempt)))
    }
}

impl<C, R, K> Settings<C, R, K> {
    /// Learns from the answer to a request, if it was let through.
    pub(crate) fn learn<Res, Err>(&self, attempt: Option<Attempt>, result: Result<&Res, &Err>)
    where
        C: Classify<Res, Err>,
    {
        if let Some(attempt) = attempt {
            attempt.end(self.classify.classify(result));
        }
    }
}

impl Attempt {
    fn end(mut self, outcome: Outcome) {
        self.settle(outcome);
    }

    fn settle(&mut self, outcome: Outcome) {
        if let Some(side) = self.side.take() {
            side.settle(outcome);
            self.observer.heard(outcome.said());
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.settle(self.dropped);
    }
}

impl<C: Clone, R: Clone, K: Clone> Clone for Settings<C, R, K> {
    fn clone(&self) -> Self {
        Self {
            classify: self.classify.clone(),
            policy: self.policy.clone(),
            sides: Arc::clone(&self.sides),
            dropped: self.dropped,
            observer: Arc::clone(&self.observer),
        }
    }
}
