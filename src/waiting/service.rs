use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tower_service::Service;

use super::{
    ask::AskOf,
    future::{Until, WaitingFuture},
};
use crate::{
    algorithm::Algorithm,
    backend::Backend,
    key::Key,
    observe::Outcome,
    policy::{Answer, CostOf, KeyOf, OnBackendError, OnMissingKey, Policy, Subject},
    queue::{Admitted, Ask, Queue, QueueError},
    rejection::Rejection,
};

/// The service of [`WaitingLayer`](super::WaitingLayer).
///
/// # Readiness
///
/// It is ready when the inner service is, and a request waits with the service that was made ready;
/// a clone takes its place. So a waiting request holds what readiness holds, such as a slot of
/// `ConcurrencyLimit`: put that inside only if waiting is to count. See the
/// [guide](crate::guide::layer_order).
///
/// # Clone
///
/// Clones share the queue and the limit, and so do all services that one layer and its clones make.
///
/// # Cancel safety
///
/// A response future that is dropped while it waits gives its place back, and those behind it move
/// up.
pub struct Waiting<S, A: Algorithm, B: Backend<A>, K, C, R, W> {
    inner: S,
    settings: Arc<Settings<A, B, K, C, R, W>>,
}

pub(super) struct Settings<A: Algorithm, B: Backend<A>, K, C, R, W> {
    pub(super) queue: Queue<A, B>,
    pub(super) policy: Policy<K, C, R>,
    pub(super) ask: W,
}

/// What becomes of a request.
pub(super) enum Verdict {
    /// It goes on uncounted.
    Go,
    Wait(Key, Ask),
    Refuse(Rejection),
}

impl<A: Algorithm, B: Backend<A>, K, C, R, W> Settings<A, B, K, C, R, W> {
    pub(super) fn judge<Req>(&self, subject: Subject, request: &Req) -> Verdict
    where
        C: CostOf<Req>,
        W: AskOf<Req>,
    {
        let exceptions = &self.policy.exceptions;
        let (outcome, rejection) = match (subject, exceptions.on_missing_key) {
            (Subject::Counted(key), _) => return self.wait(key, request),
            (Subject::Missing, OnMissingKey::Share) => {
                return self.wait(Key::anonymous(), request);
            }
            (Subject::Missing, OnMissingKey::Deny) => (Outcome::MissingKey, Some(Rejection::NoKey)),
            (Subject::Denied, _) => (Outcome::Denied, Some(Rejection::Denied)),
            (Subject::Missing | Subject::Exempt, _) => (Outcome::Exempt, None),
        };
        let rejection = rejection.filter(|_| !exceptions.dry_run);
        self.observe(outcome);
        rejection.map_or(Verdict::Go, Verdict::Refuse)
    }

    fn wait<Req>(&self, key: Key, request: &Req) -> Verdict
    where
        C: CostOf<Req>,
        W: AskOf<Req>,
    {
        let cost = self.policy.cost.cost_of(request);
        let ask = self.ask.ask_of(request, cost);
        let is_dry = self.policy.exceptions.dry_run;
        Verdict::Wait(key, if is_dry { ask.max_wait(Duration::ZERO) } else { ask })
    }

    /// How a wait ended: `None` goes on uncounted.
    pub(super) fn waited(
        &self,
        waited: Result<Admitted, QueueError>,
    ) -> Result<Option<Admitted>, Rejection> {
        let on_error = self.policy.exceptions.on_backend_error;
        let (outcome, result) = match waited {
            Ok(admitted) => (Outcome::Allowed, Ok(Some(admitted))),
            Err(QueueError::Backend(_)) if on_error == OnBackendError::Allow => {
                (Outcome::Errored, Ok(None))
            }
            Err(QueueError::Backend(error)) => (Outcome::Errored, Err(Rejection::Backend(error))),
            Err(_) if self.policy.exceptions.dry_run => (Outcome::DryRunRefused, Ok(None)),
            Err(error) => (Outcome::Refused, Err(error.into())),
        };
        self.observe(outcome);
        result
    }

    fn observe(&self, outcome: Outcome) {
        let limit = self.queue.limiter().limit();
        self.policy.exceptions.observer.decided(limit.name(), outcome);
    }
}

impl<S, A: Algorithm, B: Backend<A>, K, C, R, W> Waiting<S, A, B, K, C, R, W> {
    pub(super) const fn new(inner: S, settings: Arc<Settings<A, B, K, C, R, W>>) -> Self {
        Self { inner, settings }
    }

    /// The inner service.
    pub const fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The inner service, to change.
    pub const fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The inner service alone.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, Req, A, B, K, C, R, W> Service<Req> for Waiting<S, A, B, K, C, R, W>
where
    S: Service<Req> + Clone,
    A: Algorithm,
    B: Backend<A>,
    K: KeyOf<Req>,
    C: CostOf<Req>,
    R: Answer<Req, S::Response, S::Error>,
    W: AskOf<Req>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = WaitingFuture<S, Req, A, B, K, C, R, W>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let settings = Arc::clone(&self.settings);
        let until = match settings.policy.key.key_of(&request).try_into_ready() {
            Err(key) => Until::Identified { key },
            Ok(subject) => match settings.judge(subject, &request) {
                Verdict::Go => {
                    return WaitingFuture::running(self.inner.call(request), settings);
                }
                Verdict::Refuse(rejection) => {
                    let answer = settings.policy.answer.refuse(&request, rejection);
                    return WaitingFuture::answered(answer, settings);
                }
                Verdict::Wait(key, ask) => {
                    Until::Admitted { acquire: settings.queue.acquire(&key, ask) }
                }
            },
        };
        // The service that was made ready is the one that is called.
        let clone = self.inner.clone();
        let ready = std::mem::replace(&mut self.inner, clone);
        WaitingFuture::waiting(ready, request, until, settings)
    }
}

impl<S: Clone, A: Algorithm, B: Backend<A>, K, C, R, W> Clone for Waiting<S, A, B, K, C, R, W> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), settings: Arc::clone(&self.settings) }
    }
}

impl<S, A, B, K, C, R, W> fmt::Debug for Waiting<S, A, B, K, C, R, W>
where
    S: fmt::Debug,
    A: Algorithm,
    B: Backend<A>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiting")
            .field("inner", &self.inner)
            .field("queue", &self.settings.queue)
            .finish_non_exhaustive()
    }
}
