//! A provider that clients tell what is to go wrong next.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use axum::{
    Router,
    body::Body,
    extract::Path,
    http::{Request, StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse as _, Response},
    routing::post,
};
use tokio::net::TcpListener;
use tower::ServiceExt as _;
use tower_quota::testing::strict_upstream::{Fault, StrictUpstream};

use crate::support::PATIENCE;

/// Serves it with `POST /next/{fault}` beside it.
pub(crate) async fn on_a_socket(upstream: &StrictUpstream) -> SocketAddr {
    let breaks = Arc::new(AtomicBool::new(false));
    let (told, provider, calls) = (upstream.clone(), upstream.router(), Arc::clone(&breaks));
    let app = Router::new()
        .route(
            "/next/{fault}",
            post(move |Path(fault): Path<String>| async move {
                match &*fault {
                    "slow" => told.inject(Fault::Delay(PATIENCE)),
                    "broken" => told.inject(Fault::Broken),
                    "overloaded" => told.inject(Fault::Overloaded),
                    "cut" => told.inject(Fault::CutAt(300)),
                    "error-in-stream" => breaks.store(true, SeqCst),
                    _ => return StatusCode::NOT_FOUND,
                }
                StatusCode::OK
            }),
        )
        // The limits of these are apart.
        .route("/v1/messages/count_tokens", post(|| async { COUNTED.into_response() }))
        .route("/v1/responses/input_tokens", post(|| async { COUNTED.into_response() }))
        .fallback(move |request: Request<Body>| async move {
            if calls.swap(false, SeqCst) {
                let is_anthropic = request.uri().path() == "/v1/messages";
                let events = if is_anthropic { ANTHROPIC } else { OPENAI };
                return ([(CONTENT_TYPE, "text/event-stream")], events).into_response();
            }
            let answered: Response = provider.oneshot(request).await.expect("it is infallible");
            answered
        });
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

const COUNTED: &str = r#"{"input_tokens":7}"#;
/// How each provider tells in a stream that it cannot go on.
const OPENAI: &str = r#"data: {"id":"1","object":"chat.completion.chunk","created":1,"model":"gpt","choices":[{"index":0,"delta":{"role":"assistant","content":"Hel"},"finish_reason":null}]}

data: {"error":{"message":"The server had a bad day.","type":"server_error","param":null,"code":null}}

"#;
const ANTHROPIC: &str = r#"event: message_start
data: {"type":"message_start","message":{"id":"1","type":"message","role":"assistant","content":[],"model":"claude","stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":8,"output_tokens":1}}}

event: content_block_start
data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hel"}}

event: error
data: {"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}

"#;
