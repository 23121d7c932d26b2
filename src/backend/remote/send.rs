//! How requests come to a quota server.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt as _};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};

use crate::error::{BackendError, BackendErrorKind};

pub(super) type Answer = Result<Response<Bytes>, BackendError>;
pub(super) type Body = Result<Bytes, BackendError>;
pub(super) type Sender = Arc<dyn Fn(Request<Bytes>) -> BoxFuture<'static, Answer> + Sync + Send>;

/// More than any answer of a quota server.
const MOST_READ: usize = 64 * 1024;

/// Over plain HTTP, on connections that are kept.
pub(super) fn by_hyper() -> Sender {
    let mut connector = HttpConnector::new();
    // A request is one small packet, and somebody waits for it.
    connector.set_nodelay(true);
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build(connector);
    Arc::new(move |request| {
        let client = client.clone();
        async move {
            let sent = client.request(request.map(Full::new)).await;
            let response = sent.map_err(|error| {
                // What was sent may have been executed.
                let kind = if error.is_connect() {
                    BackendErrorKind::Unreachable
                } else {
                    BackendErrorKind::TimedOut
                };
                BackendError::new(kind).with_source(error)
            })?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, MOST_READ).collect().await.map_err(|error| {
                BackendError::new(BackendErrorKind::TimedOut).with_source(error)
            })?;
            Ok(Response::from_parts(parts, body.to_bytes()))
        }
        .boxed()
    })
}

/// The body of an answer that means success.
pub(super) fn accepted(response: Response<Bytes>) -> Body {
    let status = response.status();
    if status.is_success() {
        return Ok(response.into_body());
    }
    let kind = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => BackendErrorKind::Unauthorized,
        // The server's own store failed, or somebody between gave up: perhaps it was executed.
        status if status.is_server_error() => BackendErrorKind::TimedOut,
        _ => BackendErrorKind::Rejected,
    };
    Err(BackendError::new(kind).with_source(format!("the quota server answered {status}")))
}
