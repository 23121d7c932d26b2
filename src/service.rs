//! The one service that all layers make.

mod future;
pub(crate) mod gate;
pub(crate) mod gated;
mod turn;
mod waiting;

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use tower_service::Service;

pub use self::future::ResponseFuture;
use self::{
    future::Aside,
    gate::{Entry, Verdict},
    waiting::{Until, Waiting},
};
use crate::{
    algorithm::Algorithm,
    backend::Backend,
    limiter::Limiter,
    observe::nesting,
    policy::{Answer, CostOf, KeyOf, LimitOf, Policy, Subject},
};

/// Lets requests through to the inner service as a limiter decides.
///
/// Its response and its error are the inner service's own: a service that cannot fail still
/// cannot.
///
/// # Readiness
///
/// It is ready when the inner service is. Whom a request is counted against and what it costs is
/// known only when it comes, so nothing can be decided before. Back-pressure passes through as it
/// is; a request that would be refused waits for it too.
///
/// Where the answer is there at once, the inner service is called at once. Where it has to be
/// waited for (a remote backend, an asynchronous key, a turn in a leaky bucket), the service that
/// was made ready waits with the request, and a clone takes its place: whatever readiness holds, a
/// permit of a `ConcurrencyLimit` or a place in a `Buffer`, is held while waiting and given back
/// with a refusal.
///
/// # Clone
///
/// Clones share one budget, and so do all services that one layer and its clones make.
///
/// # Cancel safety
///
/// A response future that is dropped while it waits for its turn gives the turn back if nobody
/// has come after it. One that is dropped while a remote backend decides is given back too, by a
/// task of the Tokio runtime that sees the decision through: it counts only if that runtime ends
/// before. Once the inner service has been called, what was charged stays charged.
///
/// # Panics
///
/// Called without having been made ready, it calls an inner service that was not made ready either,
/// which may panic, as tower's own layers do. What was charged by then stays charged, and all else
/// works on.
pub struct RateLimit<S, L, P> {
    inner: S,
    limiter: L,
    policy: Arc<P>,
}

impl<S, L, P> RateLimit<S, L, P> {
    /// Lets requests through to `inner` as `limiter` decides. Layers are the usual way.
    pub fn new(inner: S, limiter: L, policy: P) -> Self {
        Self { inner, limiter, policy: Arc::new(policy) }
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

    /// What decides: a handle by which the limit can be changed and watched while it works.
    pub const fn limiter(&self) -> &L {
        &self.limiter
    }
}

impl<S, Req, A, B, K, C, R, L> Service<Req> for RateLimit<S, Limiter<A, B>, Policy<K, C, R, L>>
where
    S: Service<Req> + Clone,
    A: Algorithm,
    B: Backend<A>,
    K: KeyOf<Req>,
    C: CostOf<Req>,
    R: Answer<Req, S::Response, S::Error>,
    L: LimitOf<Req, A>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S, Req, A, B, K, C, R, L>;

    #[inline]
    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    // Not inlined: the request, which is large, then stays where the caller has it.
    #[inline(never)]
    fn call(&mut self, request: Req) -> Self::Future {
        let annotates = self.policy.answer.annotates();
        let key = self.policy.key.key_of(&request);
        // What is there already is looked at where it is: to move it costs more than to use it.
        let Some(subject) = key.as_ready() else {
            let limiter = self.limiter.clone();
            return self.wait(request, annotates, Until::Identified { key, limiter });
        };
        let entry = gate::enter(&mut self.limiter, &self.policy, subject, &request, annotates);
        let aside = match entry {
            // The usual way. What is not there is not moved either, which would cost as much: no
            // standing, and nothing beside the response.
            Entry::Decided(Verdict::Go(None)) => match self.charged(subject) {
                None => return ResponseFuture::running(self.inner.call(request), None),
                Some(store) => Aside::noting(store, &self.policy),
            },
            Entry::Decided(Verdict::Go(Some(standing))) => {
                Aside::telling(standing, &self.policy, self.charged(subject))
            }
            Entry::Decided(Verdict::Refuse(rejection)) => {
                // What its readiness holds is free again: who was refused may not call again.
                self.inner = self.inner.clone();
                let answer = self.policy.answer.refuse(&request, rejection);
                return ResponseFuture::answered(answer);
            }
            Entry::Decided(Verdict::Delay(turn, standing)) => {
                return self.wait(request, annotates, Until::turn(*turn, standing));
            }
            Entry::Asked(asked) => return self.wait(request, annotates, Until::Decided { asked }),
        };
        let response = nesting::inside(aside.charged, || self.inner.call(request));
        ResponseFuture::running(response, Some(aside))
    }
}

impl<S, A, B, K, C, R, L> RateLimit<S, Limiter<A, B>, Policy<K, C, R, L>>
where
    A: Algorithm,
    B: Backend<A>,
{
    /// The store that a request is charged to, if it is one of those to be looked at.
    #[inline]
    fn charged(&self, subject: &Subject) -> Option<usize> {
        let (unlooked, limiter) = (&self.policy.exceptions.unlooked, &self.limiter);
        nesting::check(unlooked, limiter.known_limit().name(), || {
            // Who is exempt is charged to none.
            let Subject::Counted(_) = subject else { return None };
            limiter.backend().state_id()
        })
    }

    /// Lets a request wait with the service that was made ready: a clone of that, which may not be
    /// ready, takes its place.
    #[cold]
    fn wait<Req>(
        &mut self,
        request: Req,
        annotates: bool,
        until: Until<K::Future, A, B>,
    ) -> ResponseFuture<S, Req, A, B, K, C, R, L>
    where
        S: Service<Req> + Clone,
        K: KeyOf<Req>,
    {
        let clone = self.inner.clone();
        let ready = std::mem::replace(&mut self.inner, clone);
        let awaited = nesting::awaited(
            &self.policy.exceptions.unlooked,
            self.limiter.known_limit().name(),
            || self.limiter.backend().state_id(),
        );
        let policy = Arc::clone(&self.policy);
        ResponseFuture::waiting(Waiting::new(ready, request, policy, annotates, awaited, until))
    }
}

impl<S: Clone, L: Clone, P> Clone for RateLimit<S, L, P> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            limiter: self.limiter.clone(),
            policy: Arc::clone(&self.policy),
        }
    }
}

impl<S: fmt::Debug, L: fmt::Debug, P> fmt::Debug for RateLimit<S, L, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimit")
            .field("inner", &self.inner)
            .field("limiter", &self.limiter)
            .finish_non_exhaustive()
    }
}
