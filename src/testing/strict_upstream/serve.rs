//! From a request to a response.

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use ::axum::{
    body::{Body, to_bytes},
    http::{
        HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header, request::Parts,
    },
};
use bytes::Bytes;
use futures::stream;
use serde_json::Value;

use super::{
    Shared,
    fault::Fault,
    ledger::Bill,
    limit::Admission,
    reply::{ErrorKind, Question, Reply, Shape},
    state::Ticket,
};

/// A call that was let in. It is settled when it goes, however it ends.
struct Call {
    shared: Arc<Shared>,
    ticket: Ticket,
    reply: Reply,
    shape: Shape,
    /// Tokens of the answer so far.
    said: u64,
    complete: bool,
}

impl Call {
    fn finish(mut self) {
        self.complete = true;
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let now = self.shared.now();
        let mut state = self.shared.state();
        state.in_flight -= 1;
        state.record.abandoned += u64::from(!self.complete);
        if self.shared.settings.admission != Admission::PromptAndCapKept {
            let used = Bill { input: self.reply.question.prompt(), output: self.said };
            state.settle(&self.ticket, used, now);
        }
    }
}

pub(super) async fn serve(
    shared: Arc<Shared>,
    request: Request<Body>,
) -> Result<Response<Body>, Infallible> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path();
    let shape = Shape::of(path);
    let Some(account) = key(&parts).and_then(|key| shared.state().account_of(key)) else {
        return Ok(invalid(&shared, shape, ErrorKind::Key));
    };
    Ok(match (&parts.method, path) {
        (&Method::GET, "/v1/models" | "/v1beta/models") => {
            json_response(StatusCode::OK, &shape.models(&shared.settings.models))
        }
        (&Method::POST, path) if Shape::answers(path) => {
            match to_bytes(body, LARGEST_QUESTION).await {
                Ok(body) => answer(shared, shape, account, &parts.uri, &body).await,
                Err(_) => invalid(&shared, shape, ErrorKind::Invalid("the body is too large")),
            }
        }
        _ => invalid(&shared, shape, ErrorKind::Path),
    })
}

async fn answer(
    shared: Arc<Shared>,
    shape: Shape,
    account: usize,
    uri: &Uri,
    body: &[u8],
) -> Response<Body> {
    let settings = &shared.settings;
    let fault = {
        let mut state = shared.state();
        let fault = state.faults.pop_front();
        state.record.faults += u64::from(fault.is_some());
        fault
    };
    match fault {
        Some(Fault::Overloaded) => return error(shape, ErrorKind::Overloaded),
        Some(Fault::Broken) => return error(shape, ErrorKind::Broken),
        Some(Fault::OutOfMoney) => return error(shape, ErrorKind::OutOfMoney),
        Some(Fault::CutAt(_) | Fault::Delay(_)) | None => {}
    }
    if shared.state().in_flight >= settings.max_in_flight {
        shared.state().record.overloaded += 1;
        return error(shape, ErrorKind::Overloaded);
    }
    let question = match serde_json::from_slice::<Value>(body) {
        Ok(body) => shape.question(uri, &body),
        Err(_) => Err("We could not parse the JSON body of your request."),
    };
    // A question that is not understood costs a request all the same.
    let (question, fault_of_caller) = match question {
        Ok(question) => (question, None),
        Err(message) => (Question::empty(), Some(ErrorKind::Invalid(message))),
    };
    let known = settings.models.is_empty() || settings.models.contains(&question.model);
    if fault_of_caller.is_none() && !known {
        return invalid(&shared, shape, ErrorKind::Model);
    }
    let output = match settings.admission {
        Admission::Prompt => 0,
        Admission::PromptAndCap | Admission::PromptAndCapKept => {
            question.cap.unwrap_or_else(|| settings.answers.longest())
        }
    };
    let bill = Bill { input: question.estimate(), output };
    let now = shared.now();
    let (admitted, said, number) = {
        let mut state = shared.state();
        let admitted = state.admit(account, &question.model, bill, now);
        let said = state.said(account, &question.model, now);
        state.calls += 1;
        if admitted.is_ok() && fault_of_caller.is_none() {
            state.in_flight += 1;
            state.record.peak_in_flight = state.record.peak_in_flight.max(state.in_flight);
        }
        (admitted, said, state.calls)
    };
    let mut response = match (admitted, fault_of_caller) {
        (Err(refusal), _) => {
            let body = shape.refusal(&question.model, &refusal);
            let mut response = json_response(StatusCode::TOO_MANY_REQUESTS, &body);
            for (name, value) in refusal.wait.map_or_else(Vec::new, |wait| shape.retry_after(wait))
            {
                insert(response.headers_mut(), name, &value);
            }
            response
        }
        (Ok(_), Some(kind)) => invalid(&shared, shape, kind),
        (Ok(ticket), None) => {
            let created = now.as_nanos() / 1_000_000_000;
            let reply = Reply::new(number, question, settings.answers, created);
            let call =
                Call { shared: shared.clone(), ticket, reply, shape, said: 0, complete: false };
            complete(call, fault).await
        }
    };
    let headers = response.headers_mut();
    headers.extend(shape.headers(&said, now));
    if let Some((id, organization)) = shape.names() {
        insert(headers, id, &format!("req_{number}"));
        insert(headers, organization, shared.state().name_of(account));
    }
    response
}

/// Answers a call that was let in.
async fn complete(mut call: Call, fault: Option<Fault>) -> Response<Body> {
    let settings = &call.shared.settings;
    if let Some(Fault::Delay(delay)) = fault {
        tokio::time::sleep(delay).await;
    }
    pause(settings.first_token).await;
    let cut = match fault {
        Some(Fault::CutAt(bytes)) => Some(bytes),
        _ => None,
    };
    if call.reply.question.stream {
        return stream_response(call, cut);
    }
    let tokens = call.reply.tokens;
    // Who leaves early is charged all the same: the model does not notice.
    call.said = tokens;
    let tokens = u32::try_from(tokens).unwrap_or(u32::MAX);
    pause(call.shared.settings.each_token.saturating_mul(tokens)).await;
    let body = call.shape.answer(&call.reply);
    match cut {
        None => {
            call.finish();
            json_response(StatusCode::OK, &body)
        }
        Some(bytes) => {
            let mut body = Bytes::from(body.to_string());
            body.truncate(bytes);
            let cut = stream::iter([Ok(body), Err(connection_lost())]);
            typed(StatusCode::OK, "application/json", Body::from_stream(cut))
        }
    }
}

fn stream_response(call: Call, cut: Option<usize>) -> Response<Body> {
    let kind = match call.reply.question.in_array {
        true => "application/json; charset=UTF-8",
        false => "text/event-stream; charset=utf-8",
    };
    let start = (Some(call), 0, 0);
    let frames = stream::unfold(start, move |(call, index, sent)| async move {
        let mut call = call?;
        let Some((frame, said)) = call.shape.frame(&call.reply, index) else {
            call.finish();
            return None;
        };
        if said > call.said {
            pause(call.shared.settings.each_token).await;
        }
        let left = cut.map_or(usize::MAX, |cut| cut.saturating_sub(sent));
        if left == 0 {
            return Some((Err(connection_lost()), (None, index, sent)));
        }
        call.said = said;
        let mut frame = Bytes::from(frame);
        frame.truncate(left);
        let sent = sent + frame.len();
        Some((Ok(frame), (Some(call), index + 1, sent)))
    });
    typed(StatusCode::OK, kind, Body::from_stream(frames))
}

/// The key of an account, from where any of the languages has it.
fn key(parts: &Parts) -> Option<&str> {
    let field = |name| parts.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let mut query = parts.uri.query().into_iter().flat_map(|query| query.split('&'));
    field("authorization")
        .and_then(|value| value.strip_prefix("Bearer "))
        .or_else(|| field("x-api-key"))
        .or_else(|| field("x-goog-api-key"))
        .or_else(|| query.find_map(|pair| pair.strip_prefix("key=")))
}

fn invalid(shared: &Shared, shape: Shape, kind: ErrorKind) -> Response<Body> {
    shared.state().record.invalid += 1;
    error(shape, kind)
}

fn error(shape: Shape, kind: ErrorKind) -> Response<Body> {
    let (status, body) = shape.error(kind);
    json_response(status, &body)
}

fn json_response(status: StatusCode, body: &Value) -> Response<Body> {
    typed(status, "application/json", Body::from(body.to_string()))
}

fn typed(status: StatusCode, content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn insert(headers: &mut HeaderMap, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

async fn pause(duration: Duration) {
    if !duration.is_zero() {
        tokio::time::sleep(duration).await;
    }
}

fn connection_lost() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "cut on demand")
}

const LARGEST_QUESTION: usize = 8 << 20;
