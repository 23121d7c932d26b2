use std::{fmt, sync::Arc};

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
    service::gate::{self, Entry, Verdict},
};

/// Keeps a client inside a limit: its own, or somebody else's.
///
/// It sees each request before it is sent. What the limiter allows goes on, at its turn if the
/// algorithm is a leaky bucket; what it refuses is not sent, and fails with a
/// [`Rejection`](crate::Rejection) that can be told from an error of the network:
///
/// ```no_run
/// use reqwest_middleware::{ClientBuilder, Error, reqwest};
/// use tower_quota::{Key, Limiter, Policy, Quota, Rejection, algorithm::SlidingWindow, backend::Local};
/// use tower_quota::reqwest::RateLimitMiddleware;
///
/// # async fn example() -> Result<(), Error> {
/// let limiter = Limiter::new(SlidingWindow::new(Quota::per_minute(60)), Local::new());
/// let by_host = Policy::default()
///     .key(|request: &reqwest::Request| request.url().host_str().map(Key::from));
/// let client = ClientBuilder::new(reqwest::Client::new())
///     .with(RateLimitMiddleware::new(limiter, by_host))
///     .build();
///
/// match client.get("https://api.example.com/").send().await {
///     Ok(response) => println!("{}", response.status()),
///     Err(Error::Middleware(error)) => match error.downcast_ref::<Rejection>() {
///         Some(rejection) => println!("not sent, come back in {:?}", rejection.retry_after()),
///         None => println!("another middleware failed: {error}"),
///     },
///     Err(Error::Reqwest(error)) => println!("the network failed: {error}"),
/// }
/// # Ok(()) }
/// ```
///
/// Put it *inside* a middleware that retries: the other side counts attempts.
///
/// # Cancel safety
///
/// A request that is dropped while it waits for its turn gives it back if nobody has come after it,
/// and one that is dropped while a remote backend decides gives back what that grants.
pub struct RateLimitMiddleware<L, P> {
    limiter: L,
    policy: Arc<P>,
}

impl<L, P> RateLimitMiddleware<L, P> {
    /// Lets requests through as `limiter` decides. `policy` says whom they are counted against and
    /// what they cost; `Policy::default()` counts all requests together.
    pub fn new(limiter: L, policy: P) -> Self {
        Self { limiter, policy: Arc::new(policy) }
    }
}

#[async_trait]
impl<A, B, K, C, R, L> Middleware for RateLimitMiddleware<Limiter<A, B>, Policy<K, C, R, L>>
where
    A: Algorithm,
    B: Backend<A>,
    K: KeyOf<Request, Future: Send> + Send + Sync + 'static,
    C: CostOf<Request> + Send + Sync + 'static,
    R: Send + Sync + 'static,
    L: LimitOf<Request, A> + Send + Sync + 'static,
{
    async fn handle(
        &self,
        request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<Response> {
        let subject = self.policy.key.key_of(&request).await;
        let mut limiter = self.limiter.clone();
        let verdict = match gate::enter(&mut limiter, &self.policy, &subject, &request, false) {
            Entry::Decided(verdict) => verdict,
            Entry::Asked(asked) => {
                let (decision, ticket) = asked.await;
                ticket.judge(&self.policy, decision, false)
            }
        };
        match verdict {
            Verdict::Go(_) => {}
            Verdict::Delay(mut turn, _) => {
                tokio::time::sleep(turn.delay()).await;
                turn.take();
            }
            Verdict::Refuse(rejection) => return Err(Error::middleware(rejection)),
        }
        next.run(request, extensions).await
    }
}

impl<L: Clone, P> Clone for RateLimitMiddleware<L, P> {
    fn clone(&self) -> Self {
        Self { limiter: self.limiter.clone(), policy: Arc::clone(&self.policy) }
    }
}

impl<L: fmt::Debug, P> fmt::Debug for RateLimitMiddleware<L, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimitMiddleware")
            .field("limiter", &self.limiter)
            .finish_non_exhaustive()
    }
}
