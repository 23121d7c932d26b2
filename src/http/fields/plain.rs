//! The forms without names: one number in a field, and draft 07's dictionary.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{
    Fields, Standing,
    draft::{RATELIMIT, RATELIMIT_POLICY},
    text::{FieldText, insert, integer},
};
use crate::{
    decision::ceil_secs,
    name::{PolicyName, QuotaPolicy},
    time::{Clock as _, SystemClock},
};

/// The three fields of one family.
pub(super) struct Trio {
    limit: HeaderName,
    remaining: HeaderName,
    reset: HeaderName,
}

pub(super) static STANDARD: Trio = Trio {
    limit: HeaderName::from_static("ratelimit-limit"),
    remaining: HeaderName::from_static("ratelimit-remaining"),
    reset: HeaderName::from_static("ratelimit-reset"),
};

pub(super) static LEGACY: Trio = Trio {
    limit: HeaderName::from_static("x-ratelimit-limit"),
    remaining: HeaderName::from_static("x-ratelimit-remaining"),
    reset: HeaderName::from_static("x-ratelimit-reset"),
};

/// How the policies stand behind the limit.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(super) enum InLimit {
    /// `100`
    Nothing,
    /// `100, 100;w=10`
    Policies,
    /// `100, 100;w=10;name="burst"`, as Envoy writes it.
    NamedPolicies,
}

/// How the reset is told.
#[derive(Clone, Copy)]
pub(super) enum Reset {
    /// Seconds from now.
    Seconds,
    /// Seconds since the Unix epoch.
    Epoch,
}

impl Fields {
    /// These fields hold one limit. Where several layers write them, the one with the fewest units
    /// left stands.
    pub(super) fn write_trio(
        &self,
        trio: &'static Trio,
        in_limit: InLimit,
        reset: Reset,
        standing: &Standing<'_>,
        headers: &mut HeaderMap,
    ) {
        let told = headers.get(&trio.remaining).and_then(|value| number_in(value, ""));
        if told.is_some_and(|told| told <= standing.remaining) {
            return;
        }

        let mut limit = FieldText::new();
        limit.push_integer(standing.limit);
        if in_limit != InLimit::Nothing && !self.hide_policies {
            for policy in standing.policies.iter() {
                limit.push(", ");
                push_unnamed(&mut limit, policy);
                if in_limit == InLimit::NamedPolicies && policy.name != PolicyName::DEFAULT {
                    limit.push(";name=\"");
                    limit.push(policy.name.as_str());
                    limit.push("\"");
                }
            }
        }
        limit.insert_into(headers, &trio.limit);

        let mut remaining = FieldText::new();
        remaining.push_integer(standing.remaining);
        remaining.insert_into(headers, &trio.remaining);

        headers.remove(&trio.reset);
        if let Some(seconds) = standing.reset_secs() {
            let told = match reset {
                Reset::Seconds => seconds,
                Reset::Epoch => epoch_secs_in(standing),
            };
            if let Some(value) = integer(told) {
                insert(headers, &trio.reset, value);
            }
        }
    }

    /// Draft 07: `limit=100, remaining=50, reset=5`.
    pub(super) fn write_dictionary(standing: &Standing<'_>, headers: &mut HeaderMap) {
        let told = headers.get(&RATELIMIT).and_then(|value| number_in(value, "remaining="));
        if told.is_some_and(|told| told <= standing.remaining) {
            return;
        }
        let mut text = FieldText::new();
        text.push("limit=");
        text.push_integer(standing.limit);
        text.push(", remaining=");
        text.push_integer(standing.remaining);
        if let Some(reset) = standing.reset_secs() {
            text.push(", reset=");
            text.push_integer(reset);
        }
        text.insert_into(headers, &RATELIMIT);
    }

    /// Drafts 06 and 07: `10;w=1, 50;w=60`.
    pub(super) fn write_unnamed_policies(&self, standing: &Standing<'_>, headers: &mut HeaderMap) {
        let policies = standing.policies;
        if self.hide_policies || policies.is_empty() {
            return;
        }
        let mut text = FieldText::new();
        let mut separator = "";
        for (place, policy) in policies.iter().enumerate() {
            if !is_shadowed(place, policy, policies) {
                text.push(separator);
                push_unnamed(&mut text, policy);
                separator = ", ";
            }
        }
        text.append_to(headers, &RATELIMIT_POLICY);
    }
}

fn push_unnamed(text: &mut FieldText, policy: &QuotaPolicy) {
    text.push_integer(policy.quota);
    if !policy.window.is_zero() {
        text.push(";w=");
        text.push_integer(ceil_secs(policy.window));
    }
}

/// Whether another policy allows no more in a longer time. Without names two policies are told
/// apart by their quota, so a quota may be listed once only: the longer window implies the other.
fn is_shadowed(place: usize, policy: &QuotaPolicy, policies: &[QuotaPolicy]) -> bool {
    policies.iter().enumerate().any(|(other_place, other)| {
        other.quota == policy.quota
            && (other.window > policy.window
                || other.window == policy.window && other_place < place)
    })
}

/// The digits that follow `label` in a field written earlier.
fn number_in(value: &HeaderValue, label: &str) -> Option<u64> {
    let text = value.to_str().ok()?;
    let digits = text.get(text.find(label)? + label.len()..)?.trim_start();
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    digits.get(..end)?.parse().ok()
}

/// The second since the Unix epoch in which the reset falls, rounded up.
fn epoch_secs_in(standing: &Standing<'_>) -> u64 {
    let reset_at = SystemClock.now().saturating_add(standing.reset_after);
    reset_at.as_nanos().div_ceil(1_000_000_000)
}
