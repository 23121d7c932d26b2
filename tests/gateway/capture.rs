use std::{
    future::IntoFuture as _,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::Request,
    response::Response,
};
use http::{HeaderMap, StatusCode};
use tokio::net::TcpListener;

/// A provider that keeps what it is sent, and answers what it is told to.
#[derive(Clone, Default)]
pub(crate) struct Capture(Arc<Mutex<Vec<Sent>>>);

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Capture {
    /// Answers all alike.
    pub(crate) async fn start(
        status: StatusCode,
        fields: &[(&'static str, &'static str)],
        body: &'static str,
    ) -> (Self, SocketAddr) {
        let (capture, fields) = (Self::default(), fields.to_vec());
        let kept = capture.clone();
        let app = Router::new().fallback(move |request: Request| async move {
            let (parts, question) = request.into_parts();
            let question = to_bytes(question, usize::MAX).await.expect("a whole body");
            let sent = Sent {
                target: parts.uri.to_string(),
                headers: parts.headers,
                body: String::from_utf8_lossy(&question).into_owned(),
            };
            kept.0.lock().unwrap_or_else(PoisonError::into_inner).push(sent);
            let mut answer = Response::new(Body::from(body));
            *answer.status_mut() = status;
            for (name, value) in fields {
                answer.headers_mut().append(name, value.parse().expect("a value"));
            }
            answer
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        tokio::spawn(axum::serve(listener, app).into_future());
        (capture, address)
    }

    pub(crate) fn sent(&self) -> Vec<Sent> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
