use serde::Serialize;

use super::verdict::{Status, Verdict};

/// The members of the problem (RFC 9457) that a refused request is told.
#[derive(Serialize)]
pub(super) struct OverLimit<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    title: &'static str,
    status: u16,
    #[serde(rename = "violated-policies", skip_serializing_if = "Vec::is_empty")]
    violated: Vec<&'a str>,
}

impl OverLimit<'_> {
    pub(super) const CONTENT_TYPE: &'static str = "application/problem+json";
}

impl<'a> OverLimit<'a> {
    pub(super) fn of(verdict: &'a Verdict) -> Self {
        let over = verdict.statuses.iter().filter_map(Status::limited);
        let over = over.filter(|status| status.over_limit);
        Self {
            kind: "https://iana.org/assignments/http-problem-types#quota-exceeded",
            title: "Request cannot be satisfied as assigned quota has been exceeded",
            status: 429,
            violated: over.filter_map(|status| status.limit.name()).collect(),
        }
    }
}
