//! A provider that costs next to nothing: it answers at once, and tells limits that nobody reaches.

use std::{convert::Infallible, net::SocketAddr, sync::mpsc, thread};

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use http_body_util::{BodyExt as _, Either, Full, StreamBody};
use hyper::{
    Request, Response,
    body::{Body, Frame, Incoming},
    header::{CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, runtime};
use tower::BoxError;

/// Starts it on a thread of its own, where it runs until the process ends.
pub(crate) fn start() -> SocketAddr {
    let (started, address) = mpsc::channel();
    thread::spawn(move || {
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime starts").block_on(async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a port");
            started.send(listener.local_addr().expect("it is bound")).expect("it is waited for");
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                stream.set_nodelay(true).expect("it is a socket");
                let connection = http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service_fn(answer));
                tokio::spawn(connection);
            }
        });
    });
    address.recv().expect("it listens")
}

async fn answer(
    request: Request<Incoming>,
) -> Result<Response<impl Body<Data = Bytes, Error = BoxError>>, hyper::Error> {
    let question = request.into_body().collect().await?.to_bytes();
    let is_stream = question.windows(STREAM.len()).any(|part| part == STREAM);
    let body = if is_stream {
        // Each event is sent before the next is there, as by a model that thinks.
        let events = stream::iter(EVENTS.iter().copied()).then(|event| async move {
            tokio::task::yield_now().await;
            Ok::<_, Infallible>(Frame::data(Bytes::from_static(event)))
        });
        Either::Left(StreamBody::new(events))
    } else {
        Either::Right(Full::new(Bytes::from_static(PLAIN)))
    };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    let kind = if is_stream { "text/event-stream" } else { "application/json" };
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    for (name, value) in LIMITS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    Ok(response)
}

const STREAM: &[u8] = br#""stream":true"#;
const PLAIN: &[u8] = br#"{"id":"chatcmpl-1","object":"chat.completion","created":1700000000,"model":"gpt","choices":[{"index":0,"message":{"role":"assistant","content":"The bucket drains slowly, and what waits comes in turn.","refusal":null},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":64,"completion_tokens":16,"total_tokens":80}}"#;
const LIMITS: [(&str, &str); 6] = [
    ("x-ratelimit-limit-requests", "1000000000"),
    ("x-ratelimit-limit-tokens", "1000000000000"),
    ("x-ratelimit-remaining-requests", "999999999"),
    ("x-ratelimit-remaining-tokens", "999999999999"),
    ("x-ratelimit-reset-requests", "0s"),
    ("x-ratelimit-reset-tokens", "0s"),
];
/// Sixteen events and those that open and close a stream.
const EVENTS: [&[u8]; 19] = {
    const CHUNK: &[u8] = b"data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":\"gpt\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"in turn \"},\"finish_reason\":null}]}\n\n";
    let mut events = [CHUNK; 19];
    events[17] = b"data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":\"gpt\",\"choices\":[],\"usage\":{\"prompt_tokens\":64,\"completion_tokens\":16,\"total_tokens\":80}}\n\n";
    events[18] = b"data: [DONE]\n\n";
    events
};
