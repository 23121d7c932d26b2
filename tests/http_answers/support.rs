use std::{convert::Infallible, time::Duration};

use http::{HeaderMap, Request, Response};
use sfv::FieldType as _;
use tower_quota::{
    Denial, Policies, PolicyName, PolicySet, QuotaPolicy, Rejection, RetryAfter, Snapshot,
    http::TooManyRequests, policy::Answer,
};

pub(crate) const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

pub(crate) fn policy(name: &'static str, quota: u64, window_secs: u64) -> QuotaPolicy {
    QuotaPolicy::new(PolicyName::from_static(name), quota, secs(window_secs))
}

pub(crate) fn standing(limit: u64, remaining: u64, reset_secs: u64) -> Snapshot {
    Snapshot::new(limit, remaining, secs(reset_secs))
}

/// The headers of a 200 that was annotated.
pub(crate) fn annotated(
    answer: &TooManyRequests,
    snapshot: Snapshot,
    list: &[QuotaPolicy],
) -> HeaderMap {
    let mut response = Response::new(String::new());
    annotate(answer, snapshot, list, &mut response);
    response.into_parts().0.headers
}

pub(crate) fn annotate<B>(
    answer: &impl Answer<Request<()>, Response<B>, Infallible>,
    snapshot: Snapshot,
    list: &[QuotaPolicy],
    response: &mut Response<B>,
) {
    answer.annotate(&snapshot, &Policies::new(list.to_vec()), response);
}

/// Exhausted, the policies at `violated` refusing.
pub(crate) fn over_limit(
    retry_after: RetryAfter,
    list: &[QuotaPolicy],
    violated: &[usize],
) -> Rejection {
    let policy = violated.first().copied().unwrap_or(0);
    let mut snapshot = Snapshot::new(list.get(policy).map_or(0, |p| p.quota), 0, secs(3_600));
    snapshot.policy = policy;
    let violated = violated.iter().fold(PolicySet::EMPTY, |set, place| set.with(*place));
    Rejection::OverLimit(Denial::new(retry_after, snapshot, violated, Policies::new(list.to_vec())))
}

/// The everyday refusal: `default`, 100 a minute, come back in `wait`.
pub(crate) fn exhausted(wait: Duration) -> Rejection {
    over_limit(RetryAfter::After(wait), &[policy("default", 100, 60)], &[0])
}

pub(crate) fn refused<Req, B>(
    answer: &impl Answer<Request<Req>, Response<B>, Infallible>,
    request: &Request<Req>,
    rejection: Rejection,
) -> Response<B> {
    let Ok(response) = answer.refuse(request, rejection);
    response
}

/// A refusal of `GET /`.
pub(crate) fn refused_get(answer: &TooManyRequests, rejection: Rejection) -> Response<String> {
    refused(answer, &Request::new(()), rejection)
}

#[track_caller]
pub(crate) fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    let mut values = headers.get_all(name).iter();
    let value = values.next().unwrap_or_else(|| panic!("no `{name}` in {headers:?}"));
    assert!(values.next().is_none(), "more than one `{name}` in {headers:?}");
    value.to_str().unwrap()
}

/// Whether a strict parser of structured fields reads `name` as a list.
#[track_caller]
pub(crate) fn assert_is_list(headers: &HeaderMap, name: &str) {
    let lines: Vec<_> = headers.get_all(name).iter().map(|v| v.to_str().unwrap()).collect();
    assert!(!lines.is_empty(), "no `{name}`");
    let joined = lines.join(", ");
    let list: sfv::List =
        sfv::Parser::new(&joined).parse().unwrap_or_else(|e| panic!("{joined}: {e}"));
    assert_eq!(list.serialize().as_deref(), Some(joined.as_str()), "not canonical");
}
