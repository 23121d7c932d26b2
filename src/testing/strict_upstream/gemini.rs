//! Gemini's language.

use std::time::Duration;

use ::axum::http::StatusCode;
use serde_json::{Value, json};

use super::{
    limit::Counted,
    openai::characters,
    reply::{ErrorKind, Question, Reply},
    state::Refusal,
};

/// What a path asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Method<'a> {
    model: &'a str,
    stream: bool,
}

impl<'a> Method<'a> {
    /// `models/m:generateContent`, or the same as a stream.
    pub(super) fn of(path: &'a str) -> Option<Self> {
        let (model, method) = path.strip_prefix(MODELS)?.strip_prefix('/')?.split_once(':')?;
        let stream = match method {
            "generateContent" => false,
            "streamGenerateContent" => true,
            _ => return None,
        };
        Some(Self { model, stream })
    }

    pub(super) fn question(self, query: &str, body: &Value) -> Result<Question, &'static str> {
        let contents = body["contents"].as_array().filter(|contents| !contents.is_empty());
        let contents =
            contents.ok_or("* GenerateContentRequest.contents: contents is not specified")?;
        let settings = &body["generationConfig"];
        let said: u64 = contents.iter().map(|content| characters(&content["parts"])).sum();
        Ok(Question {
            model: self.model.to_owned(),
            characters: said + characters(&body["systemInstruction"]["parts"]),
            messages: contents.len() as u64,
            cap: settings["maxOutputTokens"].as_u64(),
            seed: settings["seed"].as_u64(),
            stream: self.stream,
            usage_in_stream: true,
            in_array: !query.split('&').any(|pair| pair == "alt=sse"),
        })
    }
}

pub(super) fn models(names: &[String]) -> Value {
    let models = names.iter().map(|name| {
        json!({
            "name": format!("models/{name}"),
            "version": "001",
            "supportedGenerationMethods": ["generateContent", "countTokens"],
        })
    });
    json!({ "models": models.collect::<Vec<_>>() })
}

pub(super) fn answer(reply: &Reply) -> Value {
    part(reply, &reply.text(), reply.tokens)
}

/// Each has what was used so far. Lines of events end as on the web, and nothing says that it is
/// done; what is not asked for as events is an array.
pub(super) fn frame(reply: &Reply, index: u64) -> Option<(String, u64)> {
    // One that says nothing is told by a frame all the same.
    let count = reply.tokens.max(1);
    if index >= count {
        let is_open = reply.question.in_array && index == count;
        return is_open.then(|| ("]".to_owned(), reply.tokens));
    }
    let said = (index + 1).min(reply.tokens);
    let text = if index < reply.tokens { reply.word(index) } else { "" };
    let part = part(reply, text, said);
    let frame = match (reply.question.in_array, index) {
        (false, _) => format!("data: {part}\r\n\r\n"),
        (true, 0) => format!("[{part}\n"),
        (true, _) => format!(",\r\n{part}\n"),
    };
    Some((frame, said))
}

fn part(reply: &Reply, text: &str, said: u64) -> Value {
    let prompt = reply.question.prompt();
    let mut candidate =
        json!({ "content": { "parts": [{ "text": text }], "role": "model" }, "index": 0 });
    if said == reply.tokens {
        candidate["finishReason"] = if reply.capped { "MAX_TOKENS" } else { "STOP" }.into();
    }
    json!({
        "candidates": [candidate],
        "usageMetadata": {
            "promptTokenCount": prompt,
            "candidatesTokenCount": said,
            "totalTokenCount": prompt + said,
            "promptTokensDetails": [{ "modality": "TEXT", "tokenCount": prompt }],
        },
        "modelVersion": reply.question.model,
        "responseId": format!("resp-{}", reply.number),
    })
}

/// No field says how the limits stand: a refusal names the one that it is for. Of a day that is
/// spent it says to come back in some seconds, as the real one does.
pub(super) fn refusal(model: &str, refusal: &Refusal) -> Value {
    let is_daily = refusal.period >= Duration::from_secs(86_400);
    let per = if is_daily { "PerDay" } else { "PerMinute" };
    let (metric, id) = match refusal.counted {
        Counted::Requests => ("requests", format!("GenerateRequests{per}PerProjectPerModel")),
        _ => ("input_token_count", format!("GenerateContentInputTokensPerModel{per}")),
    };
    let mut violation = json!({
        "quotaMetric": format!("{METRICS}_{metric}"),
        "quotaId": format!("{id}-FreeTier"),
        "quotaDimensions": { "location": "global", "model": model },
    });
    if let Some(limit) = refusal.limit {
        violation["quotaValue"] = limit.to_string().into();
    }
    let failure = "type.googleapis.com/google.rpc.QuotaFailure";
    let mut details = vec![json!({ "@type": failure, "violations": [violation] })];
    let mut message = String::from(
        "You exceeded your current quota, please check your plan and billing details.",
    );
    if let Some(wait) = refusal.wait {
        let wait = if is_daily { wait.min(OF_A_DAY) } else { wait };
        message.push_str(&format!(
            " Please retry in {}.{:09}s.",
            wait.as_secs(),
            wait.subsec_nanos()
        ));
        details.push(json!({
            "@type": "type.googleapis.com/google.rpc.RetryInfo",
            "retryDelay": format!("{}s", wait.as_secs()),
        }));
    }
    let mut body = body(429, "RESOURCE_EXHAUSTED", &message);
    body["error"]["details"] = details.into();
    body
}

pub(super) fn error(kind: ErrorKind) -> (StatusCode, Value) {
    let (status, name, message, reason) = match kind {
        ErrorKind::Key => (
            400,
            "INVALID_ARGUMENT",
            "API key not valid. Please pass a valid API key.",
            Some("API_KEY_INVALID"),
        ),
        ErrorKind::Invalid(message) => (400, "INVALID_ARGUMENT", message, None),
        ErrorKind::Model => {
            (404, "NOT_FOUND", "The model is not found for API version v1beta.", None)
        }
        ErrorKind::Path => (404, "NOT_FOUND", "Not Found", None),
        ErrorKind::Overloaded => {
            (503, "UNAVAILABLE", "The model is overloaded. Please try again later.", None)
        }
        ErrorKind::Broken => (500, "INTERNAL", "An internal error has occurred.", None),
        ErrorKind::OutOfMoney => (
            403,
            "PERMISSION_DENIED",
            "This API method requires billing to be enabled.",
            Some("BILLING_DISABLED"),
        ),
    };
    let mut body = body(status, name, message);
    if let Some(reason) = reason {
        body["error"]["details"] = json!([{
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": reason,
            "domain": "googleapis.com",
        }]);
    }
    (StatusCode::from_u16(status).expect("all of them are three digits"), body)
}

fn body(code: u16, status: &str, message: &str) -> Value {
    json!({ "error": { "code": code, "message": message, "status": status } })
}

pub(super) const MODELS: &str = "/v1beta/models";
/// How the names of what is counted begin.
const METRICS: &str = "generativelanguage.googleapis.com/generate_content_free_tier";
/// What is told to wait for a day.
const OF_A_DAY: Duration = Duration::new(36, 429_760_048);
