//! Bodies of both sides, within bounds: of size, of time, of silence.

use std::{
    ops::Range,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::body::{Body, Bytes};
use http::{
    HeaderMap, StatusCode,
    header::{CONTENT_LENGTH, HeaderValue},
};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::time::{Instant, Sleep, sleep, timeout, timeout_at};
use tower::BoxError;

use crate::{config::Server, patient::time_for, refusal::Refusal};

/// The whole body of a question.
///
/// It has the time of a head, and as much more as what has come takes at the least rate: so who sends a
/// byte now and then is not waited for, and a large body from far away is. In all it has the longest time.
pub(crate) async fn read(
    headers: &HeaderMap,
    mut body: Body,
    server: &Server,
) -> Result<Bytes, Refusal> {
    let most = server.max_body_bytes;
    let too_large = || {
        let message = format!("The body is larger than {most} bytes.");
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "request_too_large", message)
    };
    let length = headers.get(CONTENT_LENGTH).map(HeaderValue::as_bytes);
    let length = length.and_then(|length| std::str::from_utf8(length).ok()?.parse::<usize>().ok());
    if length.is_some_and(|length| length > most) {
        discard(body).await;
        return Err(too_large());
    }
    let begun = Instant::now();
    let mut read = Vec::new();
    loop {
        let patience = server.read_timeout + time_for(read.len(), server.least_rate);
        let end = begun + patience.min(server.body_timeout);
        match timeout_at(end, body.frame()).await {
            Ok(None) => return Ok(read.into()),
            Ok(Some(Ok(frame))) => {
                let Ok(data) = frame.into_data() else { continue };
                if data.len() > most - read.len() {
                    discard(body).await;
                    return Err(too_large());
                }
                read.extend_from_slice(&data);
            }
            Ok(Some(Err(_))) => return Err(Refusal::bad("The body broke off.")),
            Err(_) => {
                let message = "The body took too long to come.";
                return Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, "timeout_error", message));
            }
        }
    }
}

/// Reads a little of what nobody wants to know: an answer that is there before its question has come is
/// lost where the connection is reset under it.
pub(crate) async fn discard(mut body: Body) {
    let read = async {
        let mut left = ENOUGH;
        while let Some(Ok(frame)) = body.frame().await {
            let length = frame.data_ref().map_or(0, Bytes::len);
            let Some(rest) = left.checked_sub(length) else { return };
            left = rest;
        }
    };
    let _ = timeout(SOON, read).await;
}

/// Whether lists and objects stand in each other more than so deep. Of what is no JSON it says anything.
pub(crate) fn is_deeper(json: &[u8], most: usize) -> bool {
    let (mut depth, mut is_text, mut is_escaped) = (0_usize, false, false);
    json.iter().any(|byte| {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = is_text,
            b'"' => is_text = !is_text,
            b'{' | b'[' if !is_text => depth += 1,
            b'}' | b']' if !is_text => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth > most
    })
}

/// The question with another `model`, and byte for byte the same besides. It is not read into a tree: that of
/// many small values takes many times the memory. `None`: it is no JSON object that has one.
pub(crate) fn renamed(question: &[u8], model: &str) -> Option<Vec<u8>> {
    let place = place_of("model", question)?;
    let model = serde_json::to_vec(model).ok()?;
    Some([&question[..place.start], &model, &question[place.end..]].concat())
}

/// Where the text stands that a JSON object has by this name.
fn place_of(name: &str, json: &[u8]) -> Option<Range<usize>> {
    let (mut at, mut depth, mut is_value, mut is_it) = (0, 0_usize, false, false);
    while let Some(byte) = json.get(at) {
        match byte {
            b'"' => {
                let text = at..at + length_of_text(&json[at..])?;
                at = text.end;
                match (depth, is_value) {
                    (1, true) if is_it => return Some(text),
                    (1, false) => {
                        let key = serde_json::from_slice::<String>(&json[text]);
                        is_it = key.is_ok_and(|key| key == name);
                    }
                    _ => {}
                }
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.checked_sub(1)?,
            b':' if depth == 1 => is_value = true,
            b',' if depth == 1 => is_value = false,
            _ => {}
        }
        at += 1;
    }
    None
}

/// From one quotation mark to the next that is not escaped, with both.
fn length_of_text(json: &[u8]) -> Option<usize> {
    let mut is_escaped = false;
    let end = json.iter().skip(1).position(|byte| {
        let is_end = *byte == b'"' && !is_escaped;
        is_escaped = *byte == b'\\' && !is_escaped;
        is_end
    });
    end.map(|end| end + 2)
}

/// A provider's body, which may pause for so long and no longer.
pub(crate) struct Lively<B> {
    body: B,
    patience: Duration,
    /// While it pauses.
    timer: Option<Pin<Box<Sleep>>>,
}

impl<B> Lively<B> {
    pub(crate) const fn new(body: B, patience: Duration) -> Self {
        Self { body, patience, timer: None }
    }
}

impl<B> http_body::Body for Lively<B>
where
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) {
            this.timer = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let timer = this.timer.get_or_insert_with(|| Box::pin(sleep(this.patience)));
        timer.as_mut().poll(context).map(|()| Some(Err("the provider has fallen silent".into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// So much of what is refused is read,
const ENOUGH: usize = 1 << 20;
/// for so long.
const SOON: Duration = Duration::from_secs(1);
