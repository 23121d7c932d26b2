//! Anthropic's language.

use ::axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::{Value, json};

use super::{
    limit::Counted,
    openai::characters,
    reply::{ErrorKind, Question, Reply},
    state::{Refusal, Said},
    text::rfc3339,
};
use crate::time::Timestamp;

pub(super) fn question(body: &Value) -> Result<Question, &'static str> {
    let model = body["model"].as_str().ok_or("model: Field required")?;
    let messages = body["messages"].as_array().ok_or("messages: Field required")?;
    let cap = body["max_tokens"].as_u64().ok_or("max_tokens: Field required")?;
    if messages.is_empty() {
        return Err("messages: at least one message is required");
    }
    let said: u64 = messages.iter().map(|message| characters(&message["content"])).sum();
    Ok(Question {
        model: model.to_owned(),
        characters: said + characters(&body["system"]),
        messages: messages.len() as u64,
        cap: Some(cap),
        seed: None,
        stream: body["stream"].as_bool().unwrap_or(false),
        usage_in_stream: true,
        in_array: false,
    })
}

pub(super) fn headers(said: &[Said], now: Timestamp) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (counted, name) in [
        (Counted::Requests, "requests"),
        (Counted::Tokens, "tokens"),
        (Counted::InputTokens, "input-tokens"),
        (Counted::OutputTokens, "output-tokens"),
    ] {
        let Some(said) = said.iter().find(|said| said.counted == counted) else { continue };
        // Tokens left are told in thousands, to the nearest.
        let remaining = match counted {
            Counted::Requests => said.remaining,
            _ => (said.remaining + 500) / 1000 * 1000,
        };
        for (part, value) in [
            ("limit", said.limit.to_string()),
            ("remaining", remaining.to_string()),
            ("reset", rfc3339(now.saturating_add(said.full_in))),
        ] {
            let name = HeaderName::try_from(format!("anthropic-ratelimit-{name}-{part}"));
            if let (Ok(name), Ok(value)) = (name, HeaderValue::try_from(value)) {
                headers.insert(name, value);
            }
        }
    }
    headers
}

pub(super) fn answer(reply: &Reply) -> Value {
    let mut message = message(reply, reply.tokens);
    message["content"] = json!([{ "type": "text", "text": reply.text() }]);
    message["stop_reason"] = stop_reason(reply).into();
    message
}

pub(super) fn frame(reply: &Reply, index: u64) -> Option<(String, u64)> {
    let tokens = reply.tokens;
    let data = match index {
        0 => json!({ "type": "message_start", "message": message(reply, tokens.min(1)) }),
        1 => json!({
            "type": "content_block_start", "index": 0,
            "content_block": { "type": "text", "text": "" },
        }),
        2 => json!({ "type": "ping" }),
        _ if index < tokens + 3 => json!({
            "type": "content_block_delta", "index": 0,
            "delta": { "type": "text_delta", "text": reply.word(index - 3) },
        }),
        _ if index == tokens + 3 => json!({ "type": "content_block_stop", "index": 0 }),
        // Cumulative: it includes what the start said.
        _ if index == tokens + 4 => json!({
            "type": "message_delta",
            "delta": { "stop_reason": stop_reason(reply), "stop_sequence": null },
            "usage": { "output_tokens": tokens },
        }),
        _ if index == tokens + 5 => json!({ "type": "message_stop" }),
        _ => return None,
    };
    let name = data["type"].as_str().unwrap_or_default();
    let said = index.saturating_sub(2).min(tokens);
    Some((format!("event: {name}\ndata: {data}\n\n"), said))
}

fn message(reply: &Reply, output: u64) -> Value {
    json!({
        "id": format!("msg_{}", reply.number),
        "type": "message",
        "role": "assistant",
        "model": reply.question.model,
        "content": [],
        "stop_reason": null,
        "stop_sequence": null,
        "usage": {
            "input_tokens": reply.question.prompt(),
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": output,
            "service_tier": "standard",
        },
    })
}

fn stop_reason(reply: &Reply) -> &'static str {
    if reply.capped { "max_tokens" } else { "end_turn" }
}

pub(super) fn refusal(refusal: &Refusal) -> Value {
    let kind = match refusal.counted {
        Counted::Requests => "requests",
        Counted::Tokens => "tokens",
        Counted::InputTokens => "input tokens",
        Counted::OutputTokens => "output tokens",
    };
    let per = match refusal.period.as_secs() {
        86_400 => "day",
        3_600 => "hour",
        1 => "second",
        _ => "minute",
    };
    let limit = refusal.limit.map_or_else(String::new, |limit| format!("{limit} "));
    let message = format!(
        "This request would exceed your organization's rate limit of {limit}{kind} per {per}."
    );
    body("rate_limit_error", &message)
}

pub(super) fn error(kind: ErrorKind) -> (StatusCode, Value) {
    let (status, r#type, message) = match kind {
        ErrorKind::Key => (401, "authentication_error", "invalid x-api-key"),
        ErrorKind::Invalid(message) => (400, "invalid_request_error", message),
        ErrorKind::Model => (404, "not_found_error", "model not found"),
        ErrorKind::Path => (404, "not_found_error", "Not Found"),
        ErrorKind::Overloaded => (529, "overloaded_error", "Overloaded"),
        ErrorKind::Broken => (500, "api_error", "Internal server error"),
        ErrorKind::OutOfMoney => (
            400,
            "invalid_request_error",
            "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing \
             to upgrade or purchase credits.",
        ),
    };
    let status = StatusCode::from_u16(status).expect("all of them are three digits");
    (status, body(r#type, message))
}

fn body(r#type: &str, message: &str) -> Value {
    json!({ "type": "error", "error": { "type": r#type, "message": message } })
}
