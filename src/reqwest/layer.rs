use std::{
    error::Error as StdError,
    fmt,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::{Context, Poll},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::{Either, select};
use http::Extensions;
use http_body::Body as HttpBody;
use reqwest_middleware::{
    Error, Middleware, Next, Result,
    reqwest::{self, Body, Request, Response, ResponseBuilderExt, Url},
};
use tokio::sync::{mpsc, oneshot};
use tower_layer::Layer;
use tower_service::Service;

use crate::rejection::Rejection;

/// What a layer does, for a client of `reqwest-middleware`.
///
/// It is how a client reserves what a request may cost and settles it by the response, with a
/// [`ReserveLayer`](crate::reserve::ReserveLayer), and how it stays inside the limits of an
/// [account](crate::upstream) that answers tell. Any layer will do that takes requests and
/// responses of HTTP; it sees `http::Request<reqwest::Body>` and `http::Response<reqwest::Body>`.
///
/// ```no_run
/// use http::{Request, Response};
/// use reqwest_middleware::{ClientBuilder, reqwest::{Body, Client}};
/// use tower_quota::{Limiter, Quota, algorithm::TokenBucket, backend::Local};
/// use tower_quota::{reqwest::LayerMiddleware, reserve::{FromResponse, ReserveLayer}};
///
/// let tokens = Limiter::new(TokenBucket::new(Quota::per_minute(100_000)), Local::new());
/// let reserving = ReserveLayer::new(tokens)
///     .cost(|_: &Request<Body>| 4_000) // the most that one answer can cost
///     .settle(FromResponse(|response: &Response<Body>| {
///         response.headers().get("x-tokens-used")?.to_str().ok()?.parse::<u64>().ok()
///     }));
/// let client = ClientBuilder::new(Client::new()).with(LayerMiddleware::new(reserving)).build();
/// # let _ = client;
/// ```
///
/// A request that the layer refuses is not sent, and fails with a [`Rejection`] that can be told
/// from an error of the network as with [`RateLimitMiddleware`](super::RateLimitMiddleware); unless
/// the layer answers it otherwise. What is inside may be asked several times for one request, one
/// after the other, as by an account that hands a request on to the next. Put it *inside* a
/// middleware that retries: the other side counts attempts.
///
/// The layer makes a service for each request, so what it limits by must be shared by its services,
/// as it is by those of this crate.
///
/// # Cancel safety
///
/// That of the layer: a request that is dropped drops the layer's future.
#[derive(Clone, Copy, Debug)]
pub struct LayerMiddleware<L> {
    layer: L,
}

impl<L> LayerMiddleware<L> {
    /// Does what `layer` does.
    pub const fn new(layer: L) -> Self {
        Self { layer }
    }
}

#[async_trait]
impl<L, B> Middleware for LayerMiddleware<L>
where
    L: Layer<Onward> + Send + Sync + 'static,
    L::Service: Service<http::Request<Body>, Response = http::Response<B>> + Send,
    <L::Service as Service<http::Request<Body>>>::Error: Into<BoxError> + Send,
    <L::Service as Service<http::Request<Body>>>::Future: Send,
    B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + Sync + 'static,
{
    async fn handle(
        &self,
        request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<Response> {
        let url = request.url().clone();
        let request = http::Request::<Body>::try_from(request)?;
        let (calls, mut called) = mpsc::unbounded_channel();
        let mut service = self.layer.layer(Onward { calls });
        poll_fn(|context| service.poll_ready(context)).await.map_err(failed)?;
        let mut answering = pin!(service.call(request));
        // What is called by the layer's service is sent from here, where the rest of the client is.
        // The service goes on meanwhile: it may give up.
        let answer = loop {
            let Call { request, mut reply } =
                match select(answering.as_mut(), pin!(called.recv())).await {
                    Either::Left((answer, _)) => break answer,
                    Either::Right((None, _)) => break answering.await,
                    Either::Right((Some(call), _)) => call,
                };
            if reply.is_closed() {
                // It was given up before it was begun.
                continue;
            }
            let sent = next.clone().run(request, extensions);
            let sending = async {
                // Not longer than somebody waits for it: what comes next does not wait for what was
                // given up.
                let response = match select(pin!(reply.closed()), sent).await {
                    Either::Left(_) => None,
                    Either::Right((response, _)) => Some(response),
                };
                if let Some(response) = response {
                    drop(reply.send(response));
                }
            };
            if let Either::Left((answer, _)) = select(answering.as_mut(), pin!(sending)).await {
                break answer;
            }
        };
        let (mut parts, body) = answer.map_err(failed)?.into_parts();
        let mut of_its_own = address(url);
        of_its_own.extend(std::mem::take(&mut parts.extensions));
        parts.extensions = of_its_own;
        Ok(http::Response::from_parts(parts, Body::wrap(body)).into())
    }
}

/// The rest of the client, as the service that a [`LayerMiddleware`]'s layer stands before.
#[derive(Clone)]
pub struct Onward {
    calls: mpsc::UnboundedSender<Call>,
}

/// A request, and whom to tell of its response.
struct Call {
    request: Request,
    reply: oneshot::Sender<Result<Response>>,
}

impl<B: Into<Body>> Service<http::Request<B>> for Onward {
    type Response = http::Response<Body>;
    type Error = BoxError;
    type Future = OnwardFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::result::Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> OnwardFuture {
        let (reply, answer) = oneshot::channel();
        let called = Request::try_from(request).map_err(BoxError::from).and_then(|request| {
            self.calls.send(Call { request, reply }).map_err(|_| BoxError::from(GONE))
        });
        OnwardFuture(Box::pin(async move {
            called?;
            let response = answer.await.map_err(|_| GONE)??;
            let url = response.url().clone();
            let mut response = http::Response::from(response);
            // The way through `http::Response` forgets it.
            response.extensions_mut().extend(address(url));
            Ok(response)
        }))
    }
}

/// The future of a response of [`Onward`].
#[must_use = "futures do nothing unless polled"]
pub struct OnwardFuture(Pin<Box<dyn Future<Output = Answer> + Send>>);

type Answer = std::result::Result<http::Response<Body>, BoxError>;

impl Future for OnwardFuture {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Answer> {
        self.0.as_mut().poll(context)
    }
}

impl fmt::Debug for Onward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Onward").finish_non_exhaustive()
    }
}

impl fmt::Debug for OnwardFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnwardFuture").finish_non_exhaustive()
    }
}

type BoxError = Box<dyn StdError + Send + Sync>;

/// The middleware's future was dropped, and with it the request.
const GONE: &str = "the request that this was for is gone";

/// An error of the layer, as those of the client are told.
fn failed(error: impl Into<BoxError>) -> Error {
    let error = match error.into().downcast::<Error>() {
        Ok(error) => return *error,
        Err(error) => error,
    };
    let error = match error.downcast::<reqwest::Error>() {
        Ok(error) => return Error::Reqwest(*error),
        Err(error) => error,
    };
    match error.downcast::<Rejection>() {
        Ok(rejection) => Error::middleware(*rejection),
        Err(error) => Error::middleware(Failed(error)),
    }
}

/// An error of a layer, of whatever kind.
#[derive(Debug)]
struct Failed(BoxError);

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl StdError for Failed {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source()
    }
}

/// What tells a response of its address.
fn address(url: Url) -> Extensions {
    let address = http::Response::builder().url(url).body(());
    address.map(|response| response.into_parts().0.extensions).unwrap_or_default()
}
