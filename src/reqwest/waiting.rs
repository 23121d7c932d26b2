use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use http::Extensions;
use reqwest_middleware::{
    Error, Middleware, Next, Result,
    reqwest::{Request, Response},
};

use crate::{
    algorithm::Algorithm,
    backend::Backend,
    limiter::Limiter,
    policy::{CostOf, KeyOf, LimitOf, Policy},
    queue::{Queue, QueueBuilder},
    service::gated::Gate,
    waiting::{AskOf, Turnstile, UpToMaxWait},
};

/// Lets a client's requests wait their turn.
///
/// A request that the limit does not admit yet joins the line of its key, and is sent when its turn
/// comes. One whose turn comes too late is not sent, and fails at once with a
/// [`Rejection`](crate::Rejection) that says when it would have come; it can be told from an error
/// of the network as with [`RateLimitMiddleware`](super::RateLimitMiddleware).
///
/// ```no_run
/// use std::time::Duration;
/// use reqwest_middleware::{ClientBuilder, reqwest};
/// use tower_quota::{Cost, Key, Limiter, Policy, Quota, algorithm::TokenBucket, backend::Local};
/// use tower_quota::{queue::{Ask, QueueBuilder}, reqwest::WaitingMiddleware};
///
/// // Each host has a limit of its own, and a request has the time of its time-out.
/// let limiter = Limiter::new(TokenBucket::new(Quota::per_second(5)), Local::new());
/// let by_host = Policy::default()
///     .key(|request: &reqwest::Request| request.url().host_str().map(Key::from));
/// let waiting = WaitingMiddleware::of(QueueBuilder::new(limiter).build(), by_host)
///     .ask(|request: &reqwest::Request, cost: Cost| {
///         Ask::new(cost).max_wait(request.timeout().copied().unwrap_or(Duration::from_secs(30)))
///     });
/// let client = ClientBuilder::new(reqwest::Client::new()).with(waiting).build();
/// # let _ = client;
/// ```
///
/// # Cancel safety
///
/// A request that is dropped while it waits gives its place back, and those behind it move up.
pub struct WaitingMiddleware<A: Algorithm, B: Backend<A>, P = Policy, W = UpToMaxWait> {
    turnstile: Arc<Turnstile<A, B, P, W>>,
}

impl<A: Algorithm, B: Backend<A>> WaitingMiddleware<A, B> {
    /// Lets all requests wait in one line, each at most so long.
    pub fn new(limiter: Limiter<A, B>, max_wait: Duration) -> Self {
        Self::of(QueueBuilder::new(limiter).max_wait(max_wait).build(), Policy::default())
    }
}

impl<A: Algorithm, B: Backend<A>, P> WaitingMiddleware<A, B, P> {
    /// Lets requests wait in `queue`; `policy` says in whose line and at what cost.
    pub fn of(queue: Queue<A, B>, policy: P) -> Self {
        Self { turnstile: Arc::new(Turnstile { queue, policy, ask: UpToMaxWait }) }
    }

    /// Asks as `ask` says: with a deadline, a priority, on the account of a tenant. By default
    /// every request waits as long as the queue lets it.
    pub fn ask<W>(self, ask: W) -> WaitingMiddleware<A, B, P, W>
    where
        P: Clone,
    {
        let Turnstile { queue, policy, .. } = &*self.turnstile;
        let turnstile = Turnstile { queue: queue.clone(), policy: policy.clone(), ask };
        WaitingMiddleware { turnstile: Arc::new(turnstile) }
    }
}

#[async_trait]
impl<A, B, K, C, R, W, L> Middleware for WaitingMiddleware<A, B, Policy<K, C, R, L>, W>
where
    A: Algorithm,
    B: Backend<A>,
    K: KeyOf<Request, Future: Send> + Send + Sync + 'static,
    C: CostOf<Request> + Send + Sync + 'static,
    R: Send + Sync + 'static,
    W: AskOf<Request> + Send + Sync + 'static,
    L: LimitOf<Request, A> + Send + Sync + 'static,
{
    async fn handle(
        &self,
        request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<Response> {
        let subject = self.turnstile.policy.key.key_of(&request).await;
        let mut turnstile = Arc::clone(&self.turnstile);
        turnstile.enter(subject, &request).await.map_err(Error::middleware)?;
        next.run(request, extensions).await
    }
}

impl<A: Algorithm, B: Backend<A>, P, W> Clone for WaitingMiddleware<A, B, P, W> {
    fn clone(&self) -> Self {
        Self { turnstile: Arc::clone(&self.turnstile) }
    }
}

impl<A: Algorithm, B: Backend<A>, P, W> fmt::Debug for WaitingMiddleware<A, B, P, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitingMiddleware")
            .field("queue", &self.turnstile.queue)
            .finish_non_exhaustive()
    }
}
