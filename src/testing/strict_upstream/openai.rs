//! OpenAI's language.

use std::{fmt::Write as _, time::Duration};

use ::axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::{Value, json};

use super::{
    limit::Counted,
    reply::{ErrorKind, Question, Reply},
    state::{Refusal, Said},
    text::go_duration,
};

pub(super) fn question(body: &Value) -> Result<Question, &'static str> {
    let model = body["model"].as_str().ok_or("you must provide a model parameter")?;
    let messages = body["messages"].as_array().ok_or("'messages' must be an array")?;
    if messages.is_empty() {
        return Err("'messages' must not be empty");
    }
    Ok(Question {
        model: model.to_owned(),
        characters: messages.iter().map(|message| characters(&message["content"])).sum(),
        messages: messages.len() as u64,
        cap: body["max_completion_tokens"].as_u64().or_else(|| body["max_tokens"].as_u64()),
        seed: body["seed"].as_u64(),
        stream: body["stream"].as_bool().unwrap_or(false),
        usage_in_stream: body["stream_options"]["include_usage"].as_bool().unwrap_or(false),
        in_array: false,
    })
}

/// The characters of a message's text: a string, or the strings of its parts.
pub(super) fn characters(content: &Value) -> u64 {
    match content {
        Value::String(text) => text.chars().count() as u64,
        Value::Array(parts) => parts.iter().map(|part| characters(&part["text"])).sum(),
        _ => 0,
    }
}

/// The first limit of each kind is the one that is told.
pub(super) fn headers(said: &[Said]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (counted, name) in [(Counted::Requests, "requests"), (Counted::Tokens, "tokens")] {
        let Some(said) = said.iter().find(|said| said.counted == counted) else { continue };
        for (part, value) in [
            ("limit", said.limit.to_string()),
            ("remaining", said.remaining.to_string()),
            ("reset", go_duration(said.full_in)),
        ] {
            let name = HeaderName::try_from(format!("x-ratelimit-{part}-{name}"));
            if let (Ok(name), Ok(value)) = (name, HeaderValue::try_from(value)) {
                headers.insert(name, value);
            }
        }
    }
    headers
}

pub(super) fn models(names: &[String]) -> Value {
    let models = names
        .iter()
        .map(|id| json!({ "id": id, "object": "model", "created": 0, "owned_by": "strict" }));
    json!({ "object": "list", "data": models.collect::<Vec<_>>() })
}

pub(super) fn answer(reply: &Reply) -> Value {
    json!({
        "id": format!("chatcmpl-{}", reply.number),
        "object": "chat.completion",
        "created": reply.created,
        "model": reply.question.model,
        "choices": [{
            "index": 0,
            "message": {
                "role": "assistant", "content": reply.text(), "refusal": null, "annotations": [],
            },
            "logprobs": null,
            "finish_reason": finish_reason(reply),
        }],
        "usage": usage(reply),
        "service_tier": "default",
    })
}

pub(super) fn frame(reply: &Reply, index: u64) -> Option<(String, u64)> {
    let tokens = reply.tokens;
    let chunk = if index == 0 {
        chunk(reply, &json!({ "role": "assistant", "content": "" }), &Value::Null)
    } else if index <= tokens {
        chunk(reply, &json!({ "content": reply.word(index - 1) }), &Value::Null)
    } else if index == tokens + 1 {
        chunk(reply, &json!({}), &finish_reason(reply).into())
    } else if index == tokens + 2 && reply.question.usage_in_stream {
        let mut last = chunk(reply, &json!({}), &Value::Null);
        last["choices"] = json!([]);
        last["usage"] = usage(reply);
        last
    } else {
        let done = tokens + 2 + u64::from(reply.question.usage_in_stream);
        return (index == done).then(|| (String::from("data: [DONE]\n\n"), tokens));
    };
    Some((format!("data: {chunk}\n\n"), index.min(tokens)))
}

fn chunk(reply: &Reply, delta: &Value, finish_reason: &Value) -> Value {
    let mut chunk = json!({
        "id": format!("chatcmpl-{}", reply.number),
        "object": "chat.completion.chunk",
        "created": reply.created,
        "model": reply.question.model,
        "choices": [{ "index": 0, "delta": delta, "finish_reason": finish_reason }],
    });
    if reply.question.usage_in_stream {
        chunk["usage"] = Value::Null;
    }
    chunk
}

fn finish_reason(reply: &Reply) -> &'static str {
    if reply.capped { "length" } else { "stop" }
}

fn usage(reply: &Reply) -> Value {
    let prompt = reply.question.prompt();
    json!({
        "prompt_tokens": prompt,
        "completion_tokens": reply.tokens,
        "total_tokens": prompt + reply.tokens,
        "prompt_tokens_details": { "cached_tokens": 0, "audio_tokens": 0 },
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    })
}

pub(super) fn refusal(model: &str, refusal: &Refusal) -> Value {
    let Refusal { account, used, requested, .. } = refusal;
    let (kind, letter) = match refusal.counted {
        Counted::Requests => ("requests", 'R'),
        _ => ("tokens", 'T'),
    };
    let (per, unit) = match refusal.period.as_secs() {
        86_400 => ("day", 'D'),
        3_600 => ("hour", 'H'),
        1 => ("sec", 'S'),
        _ => ("min", 'M'),
    };
    let mut message = match (refusal.wait, refusal.limit) {
        (Some(_), _) => format!("Rate limit reached for {model}"),
        (None, _) => format!("Request too large for {model}"),
    };
    let _ = write!(message, " in organization {account} on {kind} per {per} ({letter}P{unit})");
    match (refusal.limit, refusal.wait) {
        (Some(limit), Some(_)) => {
            let _ = write!(message, ": Limit {limit}, Used {used}, Requested {requested}.");
        }
        (Some(limit), None) => {
            let _ = write!(message, ": Limit {limit}, Requested {requested}.");
        }
        (None, _) => message.push('.'),
    }
    if let Some(wait) = refusal.wait {
        // Whole milliseconds, rounded up: who comes then is let in.
        let wait = Duration::from_nanos(
            u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX).saturating_add(999_999),
        );
        let _ = write!(message, " Please try again in {}.", go_duration(wait));
    }
    body(&message, kind, None, Some("rate_limit_exceeded"))
}

pub(super) fn error(kind: ErrorKind) -> (StatusCode, Value) {
    let (status, message, r#type, code) = match kind {
        ErrorKind::Key => (
            StatusCode::UNAUTHORIZED,
            "Incorrect API key provided.",
            "invalid_request_error",
            Some("invalid_api_key"),
        ),
        ErrorKind::Invalid(message) => {
            (StatusCode::BAD_REQUEST, message, "invalid_request_error", None)
        }
        ErrorKind::Model => (
            StatusCode::NOT_FOUND,
            "The model does not exist or you do not have access to it.",
            "invalid_request_error",
            Some("model_not_found"),
        ),
        ErrorKind::Path => (StatusCode::NOT_FOUND, "Invalid URL", "invalid_request_error", None),
        ErrorKind::Overloaded => (
            StatusCode::SERVICE_UNAVAILABLE,
            "The engine is currently overloaded, please try again later.",
            "server_error",
            None,
        ),
        ErrorKind::Broken => (
            StatusCode::INTERNAL_SERVER_ERROR,
            "The server had an error while processing your request.",
            "server_error",
            None,
        ),
        ErrorKind::OutOfMoney => (
            StatusCode::TOO_MANY_REQUESTS,
            "You exceeded your current quota, please check your plan and billing details.",
            "insufficient_quota",
            Some("insufficient_quota"),
        ),
    };
    (status, body(message, r#type, None, code))
}

fn body(message: &str, r#type: &str, param: Option<&str>, code: Option<&str>) -> Value {
    json!({ "error": { "message": message, "type": r#type, "param": param, "code": code } })
}
