#[cfg(feature = "grpc")]
mod details;

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, header::CONTENT_TYPE};
use percent_encoding::{AsciiSet, CONTROLS, percent_encode};

use super::fields::text::{append, integer};
use crate::decision::RetryAfter;

/// Names the status codes of gRPC that a refusal may have.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum GrpcCode {
    /// `INVALID_ARGUMENT`, 3.
    InvalidArgument = 3,
    /// `PERMISSION_DENIED`, 7.
    PermissionDenied = 7,
    /// `RESOURCE_EXHAUSTED`, 8.
    ResourceExhausted = 8,
    /// `FAILED_PRECONDITION`, 9.
    FailedPrecondition = 9,
    /// `ABORTED`, 10.
    Aborted = 10,
    /// `INTERNAL`, 13.
    Internal = 13,
    /// `UNAVAILABLE`, 14: what clients retry without being told to.
    Unavailable = 14,
    /// `UNAUTHENTICATED`, 16.
    Unauthenticated = 16,
}

/// The dialect of gRPC that a message speaks, by its content type.
#[derive(Clone, Copy)]
pub(super) enum Dialect {
    Grpc,
    Web,
    WebProto,
    WebText,
    WebTextProto,
}

impl Dialect {
    /// `None` for a message that is not gRPC. A prefix does not make it so: what follows
    /// `application/grpc` must begin with `+` or `;`.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let content_type = headers.get(CONTENT_TYPE)?.as_bytes();
        let media_type = content_type.split(|byte| *byte == b';').next()?.trim_ascii_end();

        let (prefix, rest) = media_type.split_at_checked(b"application/grpc".len())?;
        if !prefix.eq_ignore_ascii_case(b"application/grpc") {
            return None;
        }
        let (name, format) = match rest.iter().position(|byte| *byte == b'+') {
            Some(plus) => rest.split_at(plus),
            None => (rest, &rest[rest.len()..]),
        };
        let is_proto = format.eq_ignore_ascii_case(b"+proto");
        match name {
            b"" => Some(Self::Grpc),
            name if name.eq_ignore_ascii_case(b"-web") && is_proto => Some(Self::WebProto),
            name if name.eq_ignore_ascii_case(b"-web") => Some(Self::Web),
            name if name.eq_ignore_ascii_case(b"-web-text") && is_proto => Some(Self::WebTextProto),
            name if name.eq_ignore_ascii_case(b"-web-text") => Some(Self::WebText),
            _ => None,
        }
    }

    /// The content type of an answer without a message. A static one: what the caller wrote is not
    /// sent back.
    const fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Grpc => "application/grpc",
            Self::Web => "application/grpc-web",
            Self::WebProto => "application/grpc-web+proto",
            Self::WebText => "application/grpc-web-text",
            Self::WebTextProto => "application/grpc-web-text+proto",
        })
    }
}

/// A refusal whose status stands in the header section, with nothing after it: "trailers-only".
pub(super) struct GrpcRefusal<'a> {
    pub(super) dialect: Dialect,
    pub(super) code: GrpcCode,
    pub(super) message: &'a str,
    pub(super) retry_after: Option<RetryAfter>,
    pub(super) has_pushback: bool,
    #[cfg_attr(not(feature = "grpc"), expect(dead_code, reason = "it is for the details only"))]
    pub(super) violations: Vec<Violation<'a>>,
}

/// What a caller is told of a policy that refused.
#[cfg_attr(not(feature = "grpc"), expect(dead_code, reason = "it is for the details only"))]
pub(super) struct Violation<'a> {
    pub(super) name: std::borrow::Cow<'a, str>,
    pub(super) policy: &'a crate::name::QuotaPolicy,
}

impl GrpcRefusal<'_> {
    pub(super) fn write(&self, headers: &mut HeaderMap) {
        let message = shortened(self.message);
        append(headers, &CONTENT_TYPE, self.dialect.content_type());
        append(headers, &GRPC_STATUS, HeaderValue::from(self.code as u16));

        let encoded = percent_encode(message.as_bytes(), MESSAGE_ESCAPES).to_string();
        if let Ok(value) = HeaderValue::try_from(encoded) {
            append(headers, &GRPC_MESSAGE, value);
        }

        #[cfg(feature = "grpc")]
        if let Some(value) = self.details(message) {
            append(headers, &GRPC_STATUS_DETAILS, value);
        }

        if self.has_pushback
            && let Some(value) = self.retry_after.and_then(pushback)
        {
            append(headers, &GRPC_RETRY_PUSHBACK, value);
        }
    }
}

/// Milliseconds, rounded up, in a signed 32-bit integer; a negative one says "do not retry".
fn pushback(retry_after: RetryAfter) -> Option<HeaderValue> {
    match retry_after {
        RetryAfter::After(wait) => {
            let millis = wait.as_nanos().div_ceil(Duration::from_millis(1).as_nanos());
            integer(u64::try_from(millis).unwrap_or(u64::MAX).min(MAX_PUSHBACK))
        }
        RetryAfter::Never => Some(HeaderValue::from_static("-1")),
    }
}

/// As much of `message` as fits beside the details: clients may allow 8 KiB for all headers.
fn shortened(message: &str) -> &str {
    let mut end = message.len().min(MAX_MESSAGE);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    &message[..end]
}

const MAX_MESSAGE: usize = 512;
const MAX_PUSHBACK: u64 = i32::MAX as u64;

/// What tonic escapes: more than the protocol demands.
const MESSAGE_ESCAPES: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'<')
    .add(b'>')
    .add(b'`')
    .add(b'?')
    .add(b'{')
    .add(b'}');

static GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
static GRPC_RETRY_PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");
static GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
#[cfg(feature = "grpc")]
static GRPC_STATUS_DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");
