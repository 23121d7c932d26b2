//! Streams of models, one event to a chunk as they mostly come, and a client that answers with one.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::{Request, Response, header::CONTENT_TYPE};
use http_body::{Body, Frame};
use tower::{Layer as _, Service, ServiceExt as _};
use tower_quota::{
    http::PeekedBody,
    upstream::{Account, Profile, UpstreamBody, UpstreamLayer},
};

/// How a provider streams: its profile, the type of the body, and its events.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Form {
    pub(crate) profile: &'static str,
    kind: &'static str,
    delta: fn() -> Vec<u8>,
    last: fn() -> Vec<u8>,
}

pub(crate) const FORMS: [Form; 4] = [
    Form {
        profile: "openai",
        kind: "text/event-stream",
        delta: || {
            b"data: {\"id\":\"chatcmpl-0123456789abcdef\",\"object\":\"chat.completion.chunk\",\"created\":1790000000,\"model\":\"gpt-x\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" a word\"},\"finish_reason\":null}],\"usage\":null,\"obfuscation\":\"aB3x\"}\n\n".to_vec()
        },
        last: || {
            b"data: {\"choices\":[],\"usage\":{\"prompt_tokens\":12,\"completion_tokens\":998,\"total_tokens\":1010}}\n\n".to_vec()
        },
    },
    Form {
        profile: "anthropic",
        kind: "text/event-stream",
        delta: || {
            b"event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\" a word\"}}\n\n".to_vec()
        },
        last: || {
            b"event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"input_tokens\":12,\"output_tokens\":998}}\n\n".to_vec()
        },
    },
    Form {
        profile: "gemini",
        kind: "text/event-stream",
        delta: || {
            b"data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\" a word\"}],\"role\":\"model\"},\"index\":0}],\"usageMetadata\":{\"promptTokenCount\":12,\"candidatesTokenCount\":20,\"totalTokenCount\":32},\"modelVersion\":\"gemini-x\",\"responseId\":\"0123456789abcdef\"}\n\n".to_vec()
        },
        last: || {
            b"data: {\"candidates\":[],\"usageMetadata\":{\"promptTokenCount\":12,\"candidatesTokenCount\":998,\"totalTokenCount\":1010}}\n\n".to_vec()
        },
    },
    Form {
        profile: "bedrock",
        kind: "application/vnd.amazon.eventstream",
        delta: || {
            frame(
                "contentBlockDelta",
                r#"{"contentBlockIndex":0,"delta":{"text":" a word"},"p":"abcdefghij"}"#,
            )
        },
        last: || {
            frame(
                "metadata",
                r#"{"metrics":{"latencyMs":10},"usage":{"inputTokens":12,"outputTokens":998,"totalTokens":1010}}"#,
            )
        },
    },
];

/// A frame of AWS's binary event stream, without its checksums.
fn frame(event: &str, payload: &str) -> Vec<u8> {
    let mut head = Vec::new();
    let fields =
        [(":event-type", event), (":content-type", "application/json"), (":message-type", "event")];
    for (name, value) in fields {
        head.push(u8::try_from(name.len()).expect("a short name"));
        head.extend_from_slice(name.as_bytes());
        head.push(7);
        head.extend_from_slice(&u16::try_from(value.len()).expect("a short value").to_be_bytes());
        head.extend_from_slice(value.as_bytes());
    }
    let word = |length: usize| u32::try_from(length).expect("a short frame").to_be_bytes();
    let total = 12 + head.len() + payload.len() + 4;
    let parts =
        [&word(total)[..], &word(head.len())[..], &[0; 4], &head, payload.as_bytes(), &[0; 4]];
    parts.concat()
}

/// A stream that is there already.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    chunks: Arc<[Bytes]>,
    next: usize,
}

impl Stream {
    /// So many chunks, of which the last tells what was used.
    pub(crate) fn of(form: &Form, chunks: usize) -> Self {
        let (delta, last) = (Bytes::from((form.delta)()), Bytes::from((form.last)()));
        let deltas = std::iter::repeat_n(delta, chunks.saturating_sub(1));
        Self { chunks: deltas.chain([last]).collect(), next: 0 }
    }
}

impl Body for Stream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let chunk = self.chunks.get(self.next).cloned();
        self.next += 1;
        Poll::Ready(chunk.map(|chunk| Ok(Frame::data(chunk))))
    }
}

type Question = http_body_util::Full<Bytes>;

/// A client that answers with a stream at once.
#[derive(Clone, Debug)]
struct Provider(Stream, &'static str);

impl Service<Request<PeekedBody<Question>>> for Provider {
    type Response = Response<Stream>;
    type Error = tower::BoxError;
    type Future = Ready<Result<Response<Stream>, tower::BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), tower::BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<PeekedBody<Question>>) -> Self::Future {
        let response = Response::builder().header(CONTENT_TYPE, self.1).body(self.0.clone());
        ready(response.map_err(Into::into))
    }
}

/// Makes bodies that are watched as they pass.
pub(crate) struct Watched {
    layer: UpstreamLayer,
    provider: Provider,
    runtime: tokio::runtime::Runtime,
}

impl Watched {
    pub(crate) fn new(form: &Form, stream: &Stream) -> Self {
        let profile = Profile::ready(form.profile).expect("it is ready-made");
        let account = Account::builder(profile).build().expect("an account");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        Self {
            layer: UpstreamLayer::new(account),
            provider: Provider(stream.clone(), form.kind),
            runtime: runtime.expect("a runtime without threads"),
        }
    }

    pub(crate) fn body(&self) -> UpstreamBody<Stream> {
        let client = self.layer.layer(self.provider.clone());
        let request = Request::new(Question::new(Bytes::from_static(b"{}")));
        self.runtime.block_on(client.oneshot(request)).expect("an answer").into_body()
    }
}

/// The next chunk of a body that is never pending.
pub(crate) fn next<B>(body: &mut B) -> Option<Bytes>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Debug,
{
    let mut context = Context::from_waker(Waker::noop());
    match Pin::new(body).poll_frame(&mut context) {
        Poll::Ready(Some(frame)) => frame.expect("no error").into_data().ok(),
        Poll::Ready(None) => None,
        Poll::Pending => unreachable!("all of it is there"),
    }
}
