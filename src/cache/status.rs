//! What a response tells of the cache, and what of another's response it does not.

use http::{HeaderMap, HeaderName, HeaderValue, header};

/// What the cache did with a request: the member that it adds to `Cache-Status` (RFC 9211).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum CacheStatus {
    /// Answered from the store. Negative: so many seconds too old.
    Hit { ttl: i64 },
    /// It went nowhere: it wanted nothing but what is kept.
    NotCached,
    /// It went on to the service.
    Forwarded(Forward),
    /// It went on to the service, and the answer is kept by now.
    Stored(Forward),
    /// Another request like it had gone on to the service, and its answer serves both.
    Collapsed(Forward),
}

/// Why a request went on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Forward {
    /// It is none of the cache's business.
    Bypass,
    /// There was no answer.
    Miss,
    /// It wanted a newer answer than there was.
    Request,
    /// The answer was too old.
    Stale,
}

impl CacheStatus {
    pub(super) fn write(self, headers: &mut HeaderMap) {
        let member = match self {
            Self::Hit { ttl } => format!("tower-quota;hit;ttl={ttl}"),
            Self::NotCached => "tower-quota;detail=not-cached".to_owned(),
            Self::Forwarded(why) => format!("tower-quota;fwd={}", why.name()),
            Self::Stored(why) => format!("tower-quota;fwd={};stored", why.name()),
            Self::Collapsed(why) => format!("tower-quota;fwd={};collapsed", why.name()),
        };
        let value = HeaderValue::try_from(member).expect("it is ASCII");
        // The member nearest to the user is the last: caches further in have written before.
        headers.append(CACHE_STATUS, value);
    }
}

impl Forward {
    const fn name(self) -> &'static str {
        match self {
            Self::Bypass => "bypass",
            Self::Miss => "miss",
            Self::Request => "request",
            Self::Stale => "stale",
        }
    }
}

/// Takes away what is true of one response only: how the quota stood, when to come again, which
/// request it was, and what is between two ends of a connection.
pub(super) fn strip(headers: &mut HeaderMap) {
    let mut gone: Vec<_> = headers.keys().filter(|name| is_momentary(name)).cloned().collect();
    for line in headers.get_all(header::CONNECTION) {
        let names = line.to_str().unwrap_or_default().split(',');
        gone.extend(names.filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok()));
    }
    for name in gone {
        headers.remove(name);
    }
}

fn is_momentary(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.contains("ratelimit")
        || name.contains("rate-limit")
        || name.contains("retry-after")
        || MOMENTARY.contains(&name)
}

const MOMENTARY: &[&str] = &[
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-connection",
    "request-id",
    "te",
    "transfer-encoding",
    "upgrade",
    "x-request-id",
];

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
