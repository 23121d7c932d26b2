//! Which header fields pass, and in which direction. All others stay where they came from.

use http::{HeaderMap, HeaderName, header};
use sfv::{Dictionary, ListEntry, Parser};
use tower_quota::queue::Priority;

/// What of a caller's fields goes to a provider. Not its key and its cookies, nothing of how it got here,
/// nothing that a provider would take for the gateway's word; no wish for compression either, since what is
/// compressed cannot be read as it passes.
pub(crate) fn to_provider(headers: &HeaderMap) -> HeaderMap {
    only(headers, &TO_PROVIDER)
}

/// What of an answer goes to the caller: not whose the account is, what its limits are and what is left of
/// them, by whatever names, and nothing that is of the provider's host or connection.
pub(crate) fn to_tenant(headers: &HeaderMap) -> HeaderMap {
    only(headers, &TO_TENANT)
}

/// Takes away what the gateway's own layers say of an answer, where a provider says it.
pub(crate) fn not_ours(headers: &mut HeaderMap) {
    for name in &OURS {
        headers.remove(name);
    }
}

/// What a caller says of how urgent a call is, by RFC 9218: `u=0` is what somebody waits for, `u=7`
/// what nobody does, and 3 says nothing. What cannot be read says nothing either.
pub(crate) fn priority(headers: &HeaderMap) -> Option<Priority> {
    let said = headers.get("priority")?.to_str().ok()?;
    let said: Dictionary = Parser::new(said).parse().ok()?;
    let Some(ListEntry::Item(urgency)) = said.get("u") else { return None };
    match urgency.bare_item.as_integer().map(i64::from)? {
        0..=2 => Some(Priority::HIGH),
        4..=7 => Some(Priority::LOW),
        _ => None,
    }
}

fn only(headers: &HeaderMap, names: &[HeaderName]) -> HeaderMap {
    let mut passed = HeaderMap::new();
    for name in names {
        for value in headers.get_all(name) {
            passed.append(name.clone(), value.clone());
        }
    }
    passed
}

pub(crate) const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

const TO_PROVIDER: [HeaderName; 6] = [
    header::ACCEPT,
    header::CONTENT_TYPE,
    header::USER_AGENT,
    HeaderName::from_static("anthropic-beta"),
    HeaderName::from_static("anthropic-version"),
    HeaderName::from_static("openai-beta"),
];

const TO_TENANT: [HeaderName; 19] = [
    header::AGE,
    header::CACHE_CONTROL,
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::DATE,
    header::LOCATION,
    header::RETRY_AFTER,
    header::VARY,
    CACHE_STATUS,
    PREFERENCE_APPLIED,
    HeaderName::from_static("openai-model"),
    HeaderName::from_static("openai-processing-ms"),
    HeaderName::from_static("openai-version"),
    HeaderName::from_static("request-id"),
    HeaderName::from_static("retry-after-ms"),
    HeaderName::from_static("x-request-id"),
    HeaderName::from_static("x-should-retry"),
];

/// A provider's `Location` would lead a caller away with its key.
const OURS: [HeaderName; 3] = [CACHE_STATUS, header::LOCATION, PREFERENCE_APPLIED];
