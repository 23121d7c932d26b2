//! Questions and answers, whatever language they are in.

use std::time::Duration;

use ::axum::http::{HeaderMap, StatusCode, Uri};
use serde_json::Value;

use super::{
    answers::Answers,
    anthropic, gemini, openai,
    state::{Refusal, Said},
};
use crate::{decision::ceil_secs, time::Timestamp};

/// Whose language is spoken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Shape {
    OpenAi,
    Anthropic,
    Gemini,
}

/// What is asked.
#[derive(Clone, Debug)]
pub(super) struct Question {
    pub(super) model: String,
    /// Characters of the prompt.
    pub(super) characters: u64,
    pub(super) messages: u64,
    pub(super) cap: Option<u64>,
    /// What its answer depends on, instead of the number of the call.
    pub(super) seed: Option<u64>,
    pub(super) stream: bool,
    pub(super) usage_in_stream: bool,
    /// A stream is one array of JSON, not events.
    pub(super) in_array: bool,
}

impl Question {
    /// What is taken for a question that was not understood.
    pub(super) fn empty() -> Self {
        Self {
            model: String::new(),
            characters: 0,
            messages: 1,
            cap: Some(0),
            seed: None,
            stream: false,
            usage_in_stream: false,
            in_array: false,
        }
    }

    /// What a provider takes the prompt to be before it has read it. OpenAI's recorded answers
    /// follow this rule without an exception.
    pub(super) fn estimate(&self) -> u64 {
        self.characters.div_ceil(4) + self.messages + 1
    }

    /// What the prompt is.
    pub(super) fn prompt(&self) -> u64 {
        self.characters.div_ceil(4) + 3 * self.messages + 3
    }
}

/// What is answered.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    pub(super) number: u64,
    pub(super) question: Question,
    pub(super) answers: Answers,
    /// Tokens of the answer.
    pub(super) tokens: u64,
    /// Whether the answer ends because it may not be longer.
    pub(super) capped: bool,
    /// Seconds since the Unix epoch.
    pub(super) created: u64,
}

impl Reply {
    pub(super) fn new(number: u64, question: Question, answers: Answers, created: u64) -> Self {
        let length = answers.length(question.seed.unwrap_or(number));
        let cap = question.cap.unwrap_or(u64::MAX);
        let (tokens, capped) = (length.min(cap), length > cap);
        Self { number, question, answers, tokens, capped, created }
    }

    pub(super) fn word(&self, index: u64) -> &'static str {
        self.answers.word(self.number, index)
    }

    pub(super) fn text(&self) -> String {
        (0..self.tokens).map(|index| self.word(index)).collect()
    }
}

impl Shape {
    /// The language of a path.
    pub(super) fn of(path: &str) -> Self {
        match path {
            "/v1/messages" => Self::Anthropic,
            _ if path.starts_with(gemini::MODELS) => Self::Gemini,
            _ => Self::OpenAi,
        }
    }

    /// Whether a question may be sent to a path.
    pub(super) fn answers(path: &str) -> bool {
        let is_fixed = matches!(path, "/v1/chat/completions" | "/v1/messages");
        is_fixed || gemini::Method::of(path).is_some()
    }

    pub(super) fn question(self, uri: &Uri, body: &Value) -> Result<Question, &'static str> {
        match self {
            Self::OpenAi => openai::question(body),
            Self::Anthropic => anthropic::question(body),
            Self::Gemini => {
                let method = gemini::Method::of(uri.path()).ok_or("no such method")?;
                method.question(uri.query().unwrap_or_default(), body)
            }
        }
    }

    pub(super) fn headers(self, said: &[Said], now: Timestamp) -> HeaderMap {
        match self {
            Self::OpenAi => openai::headers(said),
            Self::Anthropic => anthropic::headers(said, now),
            Self::Gemini => HeaderMap::new(),
        }
    }

    pub(super) fn answer(self, reply: &Reply) -> Value {
        match self {
            Self::OpenAi => openai::answer(reply),
            Self::Anthropic => anthropic::answer(reply),
            Self::Gemini => gemini::answer(reply),
        }
    }

    /// Frame `index` of a stream, and how many tokens have been said when it is out.
    pub(super) fn frame(self, reply: &Reply, index: u64) -> Option<(String, u64)> {
        match self {
            Self::OpenAi => openai::frame(reply, index),
            Self::Anthropic => anthropic::frame(reply, index),
            Self::Gemini => gemini::frame(reply, index),
        }
    }

    pub(super) fn refusal(self, model: &str, refusal: &Refusal) -> Value {
        match self {
            Self::OpenAi => openai::refusal(model, refusal),
            Self::Anthropic => anthropic::refusal(refusal),
            Self::Gemini => gemini::refusal(model, refusal),
        }
    }

    pub(super) fn error(self, kind: ErrorKind) -> (StatusCode, Value) {
        match self {
            Self::OpenAi => openai::error(kind),
            Self::Anthropic => anthropic::error(kind),
            Self::Gemini => gemini::error(kind),
        }
    }

    /// How a wait is told in headers.
    pub(super) fn retry_after(self, wait: Duration) -> Vec<(&'static str, String)> {
        let seconds = ("retry-after", ceil_secs(wait).to_string());
        match self {
            Self::OpenAi => {
                let millis = wait.as_nanos().div_ceil(1_000_000).to_string();
                vec![seconds, ("retry-after-ms", millis)]
            }
            Self::Anthropic => vec![seconds],
            Self::Gemini => Vec::new(),
        }
    }

    /// The fields that name an answer and whose it is.
    pub(super) const fn names(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::OpenAi => Some(("x-request-id", "openai-organization")),
            Self::Anthropic => Some(("request-id", "anthropic-organization-id")),
            Self::Gemini => None,
        }
    }

    pub(super) fn models(self, names: &[String]) -> Value {
        match self {
            Self::Gemini => gemini::models(names),
            Self::OpenAi | Self::Anthropic => openai::models(names),
        }
    }
}

/// What else can go wrong.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum ErrorKind {
    Key,
    Invalid(&'static str),
    Model,
    Path,
    Overloaded,
    Broken,
    OutOfMoney,
}
