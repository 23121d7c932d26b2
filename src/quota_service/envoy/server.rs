use std::{
    convert::Infallible,
    fmt, mem,
    task::{Context, Poll},
    time::Duration,
};

use futures::future::{BoxFuture, FutureExt as _};
use http_body::Body;
use tonic::{Request, Response, Status, body, server};
use tonic_prost::ProstCodec;
use tower_service::Service;

use super::{
    convert,
    proto::{RateLimitRequest, RateLimitResponse},
    timely::Timely,
};
use crate::{
    algorithm::Plan,
    backend::DynBackend,
    quota_service::{AskError, BearerTokens, QuotaService, verdict::Taken},
};

/// The gRPC service `envoy.service.ratelimit.v3.RateLimitService`. See the [module](super).
///
/// # Clone
///
/// A clone asks the same [`QuotaService`].
#[derive(Clone, Debug)]
pub struct RateLimitServer {
    service: QuotaService,
    tokens: Option<BearerTokens>,
    max_message: usize,
    read_timeout: Duration,
}

impl RateLimitServer {
    /// The largest message that is read unless told otherwise: 64 KiB.
    pub const DEFAULT_MAX_MESSAGE: usize = 64 * 1024;
    /// How long a message may take to arrive unless told otherwise.
    pub const DEFAULT_READ_TIMEOUT: Duration = Duration::from_secs(5);

    /// Answers by `service`.
    pub const fn new(service: QuotaService) -> Self {
        Self {
            service,
            tokens: None,
            max_message: Self::DEFAULT_MAX_MESSAGE,
            read_timeout: Self::DEFAULT_READ_TIMEOUT,
        }
    }

    /// Answers only who has one of these tokens: others are `UNAUTHENTICATED`. In Envoy it is an
    /// `authorization` among the `initial_metadata` of its `grpc_service`.
    #[must_use]
    pub fn tokens(self, tokens: BearerTokens) -> Self {
        Self { tokens: Some(tokens), ..self }
    }

    /// Reads messages of so many bytes at the most.
    #[must_use]
    pub fn max_message(self, bytes: usize) -> Self {
        Self { max_message: bytes, ..self }
    }

    /// Reads a message for so long at the most: one that comes too slowly is `DEADLINE_EXCEEDED`.
    #[must_use]
    pub fn read_timeout(self, timeout: Duration) -> Self {
        Self { read_timeout: timeout, ..self }
    }
}

/// The one method.
pub(super) const PATH: &str = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";

impl server::NamedService for RateLimitServer {
    const NAME: &'static str = "envoy.service.ratelimit.v3.RateLimitService";
}

impl<B> Service<http::Request<B>> for RateLimitServer
where
    B: Body + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send + 'static,
{
    type Response = http::Response<body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        if request.uri().path() != PATH {
            let status = Status::unimplemented("the service has one method, ShouldRateLimit");
            return futures::future::ok(status.into_http()).boxed();
        }
        if self.tokens.as_ref().is_some_and(|tokens| !tokens.permit(request.headers())) {
            let status = Status::unauthenticated("a valid bearer token is needed");
            return futures::future::ok(status.into_http()).boxed();
        }
        let (max_message, read_timeout) = (self.max_message, self.read_timeout);
        let request = request.map(|body| Timely::new(body, read_timeout));
        let method = ShouldRateLimit(self.service.clone());
        async move {
            let grpc = server::Grpc::new(ProstCodec::default());
            let mut grpc = grpc.max_decoding_message_size(max_message);
            Ok(grpc.unary(method, request).await)
        }
        .boxed()
    }
}

struct ShouldRateLimit(QuotaService);

impl server::UnaryService<RateLimitRequest> for ShouldRateLimit {
    type Response = RateLimitResponse;
    type Future = BoxFuture<'static, Result<Response<RateLimitResponse>, Status>>;

    fn call(&mut self, request: Request<RateLimitRequest>) -> Self::Future {
        let service = self.0.clone();
        async move {
            let ask = convert::ask(request.into_inner()).map_err(Status::invalid_argument)?;
            let mut verdict = service.ask(&ask).await.map_err(refusal)?;
            let delay = verdict.delay();
            if !delay.is_zero() {
                let backend = service.backend().clone();
                let turn = Turn { backend, taken: mem::take(&mut verdict.taken) };
                tokio::time::sleep(delay).await;
                turn.has_come();
            }
            Ok(Response::new(convert::response(&verdict)))
        }
        .boxed()
    }
}

/// A turn that is waited for. It is given back when its caller goes.
struct Turn {
    backend: DynBackend<Plan>,
    taken: Taken,
}

impl Turn {
    fn has_come(mut self) {
        self.taken = Taken::default();
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        mem::take(&mut self.taken).abandon(&self.backend);
    }
}

fn refusal(error: AskError) -> Status {
    match &error {
        // Not UNKNOWN, as the overall code: Envoy's failure mode must decide on it.
        AskError::Backend(_) => Status::unavailable(error.to_string()),
        _ => Status::invalid_argument(error.to_string()),
    }
}

impl fmt::Debug for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turn").field("taken", &self.taken).finish_non_exhaustive()
    }
}
