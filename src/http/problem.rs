use std::borrow::Cow;

use http::{HeaderValue, StatusCode};
use serde::ser::{Serialize, SerializeMap, Serializer};

use super::cause::Cause;

/// Names the form in which a refusal explains itself.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum BodyFormat {
    /// `application/problem+json` (RFC 9457) with the IETF's types for rate limits, and the names
    /// of the violated policies.
    #[default]
    Problem,
    /// `application/problem+json` without a type of its own, `about:blank`.
    GenericProblem,
    /// `text/plain`, one sentence.
    PlainText,
}

impl BodyFormat {
    pub(super) const fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Problem | Self::GenericProblem => "application/problem+json",
            Self::PlainText => "text/plain; charset=utf-8",
        })
    }

    pub(super) fn text_of(self, problem: Problem<'_>) -> String {
        match self {
            Self::Problem => problem.into_json(),
            Self::GenericProblem => problem.generic().into_json(),
            Self::PlainText => problem.detail.unwrap_or_else(|| problem.title()).into(),
        }
    }
}

/// The members of a problem body.
pub(super) struct Problem<'a> {
    kind: Kind,
    status: StatusCode,
    detail: Option<&'a str>,
    violated: Vec<Cow<'a, str>>,
}

/// The `type` of a problem and its fixed title: draft-ietf-httpapi-ratelimit-headers-11, section 5.
#[derive(Clone, Copy)]
enum Kind {
    QuotaExceeded,
    TemporaryReducedCapacity,
    Blank,
}

impl<'a> Problem<'a> {
    pub(super) fn new(
        cause: Cause,
        status: StatusCode,
        detail: Option<&'a str>,
        violated: Vec<Cow<'a, str>>,
    ) -> Self {
        // The caller's own quota is 429, a want of capacity 503: the types follow that split.
        let kind = match cause {
            Cause::OverLimit | Cause::Backend | Cause::Busy | Cause::Throttled
                if status == StatusCode::SERVICE_UNAVAILABLE =>
            {
                Kind::TemporaryReducedCapacity
            }
            Cause::OverLimit => Kind::QuotaExceeded,
            Cause::Backend | Cause::Busy | Cause::Denied | Cause::NoKey | Cause::Throttled => {
                Kind::Blank
            }
        };
        Self { kind, status, detail, violated }
    }

    fn generic(self) -> Self {
        Self { kind: Kind::Blank, violated: Vec::new(), ..self }
    }

    fn title(&self) -> &'static str {
        match self.kind {
            Kind::QuotaExceeded => {
                "Request cannot be satisfied as assigned quota has been exceeded"
            }
            Kind::TemporaryReducedCapacity => {
                "Request cannot be satisfied due to temporary server capacity constraints"
            }
            Kind::Blank => self.status.canonical_reason().unwrap_or("Request refused"),
        }
    }

    fn into_json(self) -> String {
        // Text and numbers always serialize.
        serde_json::to_string(&self).unwrap_or_default()
    }
}

impl Serialize for Problem<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut members = serializer.serialize_map(None)?;
        members.serialize_entry("type", self.kind.uri())?;
        members.serialize_entry("title", self.title())?;
        members.serialize_entry("status", &self.status.as_u16())?;
        if let Some(detail) = self.detail {
            members.serialize_entry("detail", detail)?;
        }
        if !self.violated.is_empty() {
            members.serialize_entry("violated-policies", &self.violated)?;
        }
        members.end()
    }
}

impl Kind {
    const fn uri(self) -> &'static str {
        match self {
            Self::QuotaExceeded => "https://iana.org/assignments/http-problem-types#quota-exceeded",
            Self::TemporaryReducedCapacity => {
                "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity"
            }
            Self::Blank => "about:blank",
        }
    }
}
