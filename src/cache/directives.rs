//! What a request and a response say about being kept.

use std::time::Duration;

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
    header::{CACHE_CONTROL, CONTENT_RANGE, DATE, EXPIRES, PRAGMA, SET_COOKIE, VARY},
    request, response,
};

use super::{
    age::{age_of, seconds},
    found::Found,
    turn::Asking,
};

/// How long the answer to this request is fresh, in place of the layer's time: put it into the
/// request's extensions. Zero: it is not kept.
///
/// ```
/// use std::time::Duration;
/// use tower_quota::cache::FreshFor;
///
/// let mut request = http::Request::new(());
/// request.extensions_mut().insert(FreshFor(Duration::from_secs(3_600)));
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "it is a duration with a name")]
pub struct FreshFor(pub Duration);

/// What a request asks of the cache (RFC 9111, section 5.2.1).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Wish {
    /// Nothing is looked up and nothing is kept.
    pub(super) bypass: bool,
    /// The service is not to be asked.
    pub(super) only_cached: bool,
    /// Only an answer that is made from now on will do.
    pub(super) is_new_only: bool,
    /// The oldest answer that will do.
    max_age: Option<Duration>,
    /// For how long it is to be fresh still.
    min_fresh: Duration,
    /// For how long it may have been too old.
    max_stale: Option<Duration>,
}

/// What a kept answer is to a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Fit {
    /// It will do.
    Fresh,
    /// It will do if a new one is fetched.
    Stale,
    /// It is fresh, and not what the request wants.
    Unwanted,
    /// It is too old.
    TooOld,
}

impl Wish {
    pub(super) fn of(request: &request::Parts) -> Self {
        let mut wish = Self::default();
        let headers = &request.headers;
        // Those want a part of an answer, its validity, or another protocol. One look at each field
        // that is there takes less time than one for each that could be.
        let mut speaks = false;
        wish.bypass = request.method == Method::CONNECT;
        for name in headers.keys() {
            match name.as_str() {
                "cache-control" | "pragma" => speaks = true,
                name => wish.bypass |= SPECIAL.contains(&name),
            }
        }
        if !speaks {
            return wish;
        }
        if !headers.contains_key(CACHE_CONTROL) {
            let pragma = headers.get(PRAGMA);
            wish.is_new_only = pragma.is_some_and(|value| value.as_bytes() == b"no-cache");
            return wish;
        }
        let directives = directives(headers);
        wish.bypass |= directives.is_none();
        for (name, value) in directives.unwrap_or_default() {
            // Of several the strictest counts, and so it is of what cannot be read.
            let time = seconds(value.as_deref());
            match name.as_str() {
                "no-store" => wish.bypass = true,
                "no-cache" => wish.is_new_only = true,
                "only-if-cached" => wish.only_cached = true,
                "max-age" => {
                    let age = time.unwrap_or_default();
                    wish.max_age = Some(wish.max_age.map_or(age, |other| other.min(age)));
                }
                "min-fresh" => {
                    wish.min_fresh = wish.min_fresh.max(time.unwrap_or(Duration::MAX));
                }
                "max-stale" => {
                    let any = if value.is_none() { Duration::MAX } else { Duration::ZERO };
                    let late = time.unwrap_or(any);
                    wish.max_stale = Some(wish.max_stale.map_or(late, |other| other.min(late)));
                }
                _ => {}
            }
        }
        wish.is_new_only |= wish.max_age == Some(Duration::ZERO) && wish.max_stale.is_none();
        wish
    }

    /// What this answer is to the request.
    pub(super) fn fit(&self, found: &Found) -> Fit {
        let is_fresh = found.is_fresh();
        if self.asking(Duration::ZERO).is_met_by(found) {
            return Fit::Fresh;
        }
        let may_be_given = match self.max_stale {
            Some(late) => {
                let until = found.answer().fresh_for().saturating_add(late);
                found.age().saturating_add(self.min_fresh) <= until && self.is_young(found, late)
            }
            // Who says how old it may be does not want what is too old.
            None => !is_fresh && self.max_age.is_none() && self.min_fresh.is_zero(),
        };
        match (may_be_given, is_fresh) {
            (true, true) => Fit::Fresh,
            (true, false) => Fit::Stale,
            (false, true) => Fit::Unwanted,
            (false, false) => Fit::TooOld,
        }
    }

    /// The same for a store that looks for itself.
    pub(super) fn asking(&self, waited: Duration) -> Asking {
        Asking { oldest: self.max_age, min_fresh: self.min_fresh, waited }
    }

    fn is_young(&self, found: &Found, late: Duration) -> bool {
        self.max_age.is_none_or(|oldest| found.whole_age() <= oldest.saturating_add(late))
    }
}

/// To whom a response may be given.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Use {
    /// To whoever asks the same: for this long.
    Shared(Lifetime),
    /// To the one who asked: it is theirs. Others may get one of their own.
    Private,
    /// To the one who asked: it is no success. The next may fare better.
    Unsuccessful,
}

/// How long an answer is fresh.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Lifetime {
    /// By the layer: from when it is whole.
    ttl: Duration,
    /// By the response: from when it was asked for, less what it was old by then.
    given: Option<Duration>,
    /// Whether it may be given after that.
    pub(super) may_be_stale: bool,
}

impl Lifetime {
    /// What is left of it `delay` after it was asked for.
    pub(super) fn after(self, delay: Duration) -> Duration {
        self.given.map_or(self.ttl, |given| self.ttl.min(given.saturating_sub(delay)))
    }
}

impl Use {
    /// `varies_in_key` says whether the key tells requests apart by a header.
    pub(super) fn of(
        response: &response::Parts,
        ttl: Duration,
        varies_in_key: impl Fn(&HeaderName) -> bool,
    ) -> Self {
        let headers = &response.headers;
        if !response.status.is_success()
            || response.status == StatusCode::PARTIAL_CONTENT
            || headers.contains_key(CONTENT_RANGE)
            || !is_grpc_success(headers)
        {
            return Self::Unsuccessful;
        }
        if headers.contains_key(SET_COOKIE) || !are_met(headers, varies_in_key) {
            return Self::Private;
        }
        let Some(directives) = directives(headers) else { return Self::Private };
        let (mut max_age, mut shared_max_age) = (None, None);
        let mut may_be_stale = true;
        for (name, value) in directives {
            let place = match name.as_str() {
                "no-store" | "private" | "no-cache" => return Self::Private,
                "max-age" => &mut max_age,
                "s-maxage" => &mut shared_max_age,
                "must-revalidate" | "proxy-revalidate" => {
                    may_be_stale = false;
                    continue;
                }
                _ => continue,
            };
            let age = seconds(value.as_deref()).unwrap_or_default();
            // Of several the shortest.
            *place = Some(place.map_or(age, |other: Duration| other.min(age)));
        }
        let given = shared_max_age.or(max_age).or_else(|| until_expiry(headers));
        let given = given.map(|age| age.saturating_sub(age_of(headers)));
        Self::Shared(Lifetime { ttl, given, may_be_stale })
    }
}

/// A gRPC call can fail with status 200, and say so in the head or the trailers.
pub(super) fn is_grpc_success(headers: &HeaderMap) -> bool {
    headers.get("grpc-status").is_none_or(|status| status.as_bytes() == b"0")
}

/// Whether the key tells apart what the response varies by.
fn are_met(headers: &HeaderMap, varies_in_key: impl Fn(&HeaderName) -> bool) -> bool {
    headers.get_all(VARY).iter().all(|line| {
        // What cannot be read may be anything.
        line.to_str().is_ok_and(|line| {
            line.split(',').map(str::trim).filter(|name| !name.is_empty()).all(|name| {
                HeaderName::from_bytes(name.as_bytes())
                    .is_ok_and(|name| name != "*" && varies_in_key(&name))
            })
        })
    })
}

/// A directive: its name in lower case, and its value.
type Directive = (String, Option<String>);

/// The directives of `Cache-Control`; `None` if a quotation mark is not closed: what follows it may
/// be anything.
fn directives(headers: &HeaderMap) -> Option<Vec<Directive>> {
    let mut directives = Vec::new();
    for line in headers.get_all(CACHE_CONTROL) {
        let line = String::from_utf8_lossy(line.as_bytes());
        directives.extend(split_unquoted(&line)?.into_iter().map(|directive| {
            match directive.split_once('=') {
                Some((name, value)) => (
                    name.trim().to_ascii_lowercase(),
                    Some(value.trim().trim_matches('"').to_owned()),
                ),
                None => (directive.trim().to_ascii_lowercase(), None),
            }
        }));
    }
    Some(directives)
}

/// Splits at the commas that stand in no quoted string; `None` if one has no end.
fn split_unquoted(line: &str) -> Option<Vec<&str>> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    let pieces = line
        .split(|character| {
            // In quotes, what follows a backslash is meant as it is.
            let is_meant = std::mem::take(&mut is_escaped);
            is_escaped = is_quoted && !is_meant && character == '\\';
            is_quoted ^= character == '"' && !is_meant;
            character == ',' && !is_quoted
        })
        .collect();
    (!is_quoted).then_some(pieces)
}

/// How long a response without `max-age` is fresh by its `Expires`.
fn until_expiry(headers: &HeaderMap) -> Option<Duration> {
    let date = |value: &HeaderValue| httpdate::parse_http_date(value.to_str().ok()?).ok();
    let expires = date(headers.get(EXPIRES)?);
    let made = headers.get(DATE).and_then(date);
    // What is no date is over (RFC 9111, section 5.3), and one alone says nothing without a clock.
    let left = expires.zip(made).and_then(|(expires, made)| expires.duration_since(made).ok());
    Some(left.unwrap_or_default())
}

const SPECIAL: [&str; 8] = [
    "range",
    "if-range",
    "if-match",
    "if-none-match",
    "if-modified-since",
    "if-unmodified-since",
    "upgrade",
    // The rest of a stream of events.
    "last-event-id",
];
