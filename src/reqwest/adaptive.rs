use std::{fmt, sync::Arc};

use async_trait::async_trait;
use http::Extensions;
use reqwest_middleware::{
    Error, Middleware, Next, Result,
    reqwest::{Request, Response},
};

use crate::{
    adaptive::{AdaptiveLayer, Classify, ClientThrottleLayer, Outcome, gate, throttle},
    http::StatusClassifier,
    policy::{Fail, Global, KeyOf},
    service::gated::Gate,
};

/// A status and its fields say it, as for any HTTP client.
impl Classify<Response, Error> for StatusClassifier {
    fn classify(&self, result: std::result::Result<&Response, &Error>) -> Outcome {
        self.outcome(result.ok().map(|response| (response.status(), response.headers())))
    }
}

macro_rules! middleware {
    ($(#[$doc:meta])* $middleware:ident, $layer:ident, $settings:ty) => {
        $(#[$doc])*
        pub struct $middleware<C = StatusClassifier, K = Global> {
            settings: Arc<$settings>,
        }

        impl<C, K> $middleware<C, K> {
            /// Does what `layer` does, and learns together with its services.
            pub fn of(layer: $layer<C, Fail, K>) -> Self {
                Self { settings: Arc::new(layer.into_settings()) }
            }
        }

        /// Learns from statuses, of one side that all requests go to.
        impl Default for $middleware {
            fn default() -> Self {
                Self::of($layer::new(StatusClassifier::new()))
            }
        }

        #[async_trait]
        impl<C, K> Middleware for $middleware<C, K>
        where
            C: Classify<Response, Error> + Send + Sync + 'static,
            K: KeyOf<Request, Future: Send> + Send + Sync + 'static,
        {
            async fn handle(
                &self,
                request: Request,
                extensions: &mut Extensions,
                next: Next<'_>,
            ) -> Result<Response> {
                let subject = self.settings.policy.key.key_of(&request).await;
                let mut settings = Arc::clone(&self.settings);
                let attempt = settings.enter(subject, &request).await.map_err(Error::middleware)?;
                let result = next.run(request, extensions).await;
                self.settings.learn(attempt, result.as_ref());
                result
            }
        }

        impl<C, K> Clone for $middleware<C, K> {
            fn clone(&self) -> Self {
                Self { settings: Arc::clone(&self.settings) }
            }
        }

        impl<C, K> fmt::Debug for $middleware<C, K> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($middleware)).finish_non_exhaustive()
            }
        }
    };
}

middleware! {
    /// Sends at the rate that the other side takes, and lets requests wait for their turns: what an
    /// [`AdaptiveLayer`] does.
    ///
    /// A request that would wait too long is not sent, and fails with
    /// [`Rejection::Throttled`](crate::Rejection::Throttled). Put it *inside* a middleware that
    /// retries, so that each attempt is counted and waits.
    ///
    /// ```no_run
    /// use reqwest_middleware::{ClientBuilder, reqwest};
    /// use tower_quota::{Key, adaptive::AdaptiveLayer, http::StatusClassifier};
    /// use tower_quota::reqwest::AdaptiveMiddleware;
    ///
    /// let by_host = AdaptiveLayer::new(StatusClassifier::new())
    ///     .key(|request: &reqwest::Request| request.url().host_str().map(Key::from));
    /// let client = ClientBuilder::new(reqwest::Client::new())
    ///     .with(AdaptiveMiddleware::of(by_host.clone()))
    ///     .build();
    /// # let _ = client;
    /// // Later: how fast it goes.
    /// println!("{:?}", by_host.rate_of(&Key::from("api.example.com")));
    /// ```
    ///
    /// # Cancel safety
    ///
    /// A request that is dropped while it waits gives up its place, and those behind it move up.
    AdaptiveMiddleware, AdaptiveLayer, gate::Settings<C, Fail, K>
}

middleware! {
    /// Refuses a share of the requests at once while the other side refuses too many: what a
    /// [`ClientThrottleLayer`] does.
    ///
    /// A request that is refused is not sent, and fails with
    /// [`Rejection::Throttled`](crate::Rejection::Throttled). Put it *inside* a middleware that
    /// retries: the other side counts attempts.
    ///
    /// ```no_run
    /// use reqwest_middleware::{ClientBuilder, reqwest};
    /// use tower_quota::reqwest::ClientThrottleMiddleware;
    ///
    /// let client = ClientBuilder::new(reqwest::Client::new())
    ///     .with(ClientThrottleMiddleware::default())
    ///     .build();
    /// # let _ = client;
    /// ```
    ///
    /// # Cancel safety
    ///
    /// A request that is dropped is counted as
    /// [`on_drop`](ClientThrottleLayer::on_drop) says.
    ClientThrottleMiddleware, ClientThrottleLayer, throttle::Settings<C, Fail, K>
}
