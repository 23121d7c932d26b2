//! Between the messages and the service's own terms.

use std::collections::BTreeMap;

use http::HeaderMap;

use super::proto;
use crate::{
    decision::ceil_secs,
    quota_service::{
        Ask, Descriptor, Entry, LimitOverride, LimitStatus, RuleLimit, Status, Unit, Verdict,
        fields::DeniedBody, problem::OverLimit,
    },
};

/// What is asked, or why it cannot be meant.
pub(super) fn ask(request: proto::RateLimitRequest) -> Result<Ask, &'static str> {
    let proto::RateLimitRequest { domain, descriptors, hits_addend } = request;
    let descriptors = descriptors.into_iter().map(descriptor).collect::<Result<Vec<_>, _>>()?;
    Ok(Ask::new(domain, descriptors).hits(u64::from(hits_addend)))
}

fn descriptor(descriptor: proto::RateLimitDescriptor) -> Result<Descriptor, &'static str> {
    let proto::RateLimitDescriptor { entries, limit, hits_addend, is_negative_hits } = descriptor;
    let entries = entries.into_iter().map(|proto::Entry { key, value }| Entry { key, value });
    Ok(Descriptor {
        entries: entries.collect(),
        hits: hits_addend.map(|hits| hits.value),
        refund: is_negative_hits,
        limit: limit.map(limit_override).transpose()?,
    })
}

fn limit_override(limit: proto::RateLimitOverride) -> Result<LimitOverride, &'static str> {
    let unit = match proto::Unit::try_from(limit.unit) {
        Ok(proto::Unit::Second) => Unit::Second,
        Ok(proto::Unit::Minute) => Unit::Minute,
        Ok(proto::Unit::Hour) => Unit::Hour,
        Ok(proto::Unit::Day) => Unit::Day,
        Ok(proto::Unit::Month) => Unit::Month,
        Ok(proto::Unit::Year) => Unit::Year,
        Ok(proto::Unit::Unknown | proto::Unit::Week) | Err(_) => {
            return Err("the unit of a limit override is none of SECOND to YEAR");
        }
    };
    Ok(LimitOverride { requests_per_unit: u64::from(limit.requests_per_unit), unit })
}

pub(super) fn response(verdict: &Verdict) -> proto::RateLimitResponse {
    let mut response_headers = headers(&verdict.response_headers);
    let mut raw_body = Vec::new();
    if !verdict.allowed && verdict.denied_body == DeniedBody::Problem {
        // Text and numbers always serialize.
        raw_body = serde_json::to_vec(&OverLimit::of(verdict)).unwrap_or_default();
        let value = OverLimit::CONTENT_TYPE.to_owned();
        response_headers.push(proto::HeaderValue { key: "content-type".to_owned(), value });
    }
    proto::RateLimitResponse {
        overall_code: code(!verdict.allowed),
        statuses: verdict.statuses.iter().map(status).collect(),
        response_headers_to_add: response_headers,
        request_headers_to_add: headers(&verdict.request_headers),
        raw_body,
        dynamic_metadata: refusal(verdict),
    }
}

/// Which limit refuses, by its name in the rules, and in how many seconds it would not: for the
/// access log. Of several the one that takes longest. Nothing of descriptors is in it.
fn refusal(verdict: &Verdict) -> Option<proto::Struct> {
    if verdict.allowed {
        return None;
    }
    let limited = verdict.statuses.iter().filter_map(Status::limited);
    let over = limited.filter(|status| status.over_limit);
    let longest = over.max_by_key(|status| status.retry_after)?;
    let value = |kind| proto::Value { kind: Some(kind) };
    let secs = u32::try_from(ceil_secs(longest.wait())).unwrap_or(u32::MAX);
    let mut fields = BTreeMap::new();
    let number = proto::ValueKind::Number(secs.into());
    fields.insert("retry_after_seconds".to_owned(), value(number));
    if let Some(name) = longest.limit.name() {
        fields.insert("limit".to_owned(), value(proto::ValueKind::Text(name.to_owned())));
    }
    Some(proto::Struct { fields })
}

fn status(status: &Status) -> proto::DescriptorStatus {
    let plain = proto::DescriptorStatus { code: code(false), ..Default::default() };
    match status {
        Status::Unmatched => plain,
        Status::Unlimited => proto::DescriptorStatus { limit_remaining: u32::MAX, ..plain },
        Status::Limited(limit) => limited(limit),
    }
}

fn limited(status: &LimitStatus) -> proto::DescriptorStatus {
    // Envoy cuts off what is not a whole second. Who is over has to wait for some time, so it is
    // never none.
    let secs = ceil_secs(status.wait());
    proto::DescriptorStatus {
        code: code(status.over_limit),
        current_limit: Some(current_limit(&status.limit)),
        limit_remaining: saturating(status.told_remaining()),
        duration_until_reset: Some(proto::Duration {
            seconds: i64::try_from(secs).unwrap_or(i64::MAX),
            nanos: 0,
        }),
    }
}

fn current_limit(limit: &RuleLimit) -> proto::RateLimit {
    let unit = match limit.unit() {
        Some(Unit::Second) => proto::Unit::Second,
        Some(Unit::Minute) => proto::Unit::Minute,
        Some(Unit::Hour) => proto::Unit::Hour,
        Some(Unit::Day) => proto::Unit::Day,
        Some(Unit::Week) => proto::Unit::Week,
        Some(Unit::Month) => proto::Unit::Month,
        Some(Unit::Year) => proto::Unit::Year,
        None => proto::Unit::Unknown,
    };
    proto::RateLimit {
        requests_per_unit: saturating(limit.requests_per_unit()),
        unit: unit.into(),
        name: limit.name().unwrap_or_default().into(),
    }
}

const fn code(over_limit: bool) -> i32 {
    if over_limit { proto::Code::OverLimit as i32 } else { proto::Code::Ok as i32 }
}

fn headers(headers: &HeaderMap) -> Vec<proto::HeaderValue> {
    let each = headers.iter().filter_map(|(name, value)| {
        // All that the fields are made of is text.
        let value = value.to_str().ok()?.to_owned();
        Some(proto::HeaderValue { key: name.as_str().to_owned(), value })
    });
    each.collect()
}

fn saturating(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
