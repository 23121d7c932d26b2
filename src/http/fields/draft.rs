//! The lists of named items: drafts 08 to 11 and the editors' copy after them.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{
    Fields, Standing,
    text::{FieldText, append},
};
use crate::{decision::ceil_secs, name::QuotaPolicy};

pub(super) static RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
pub(super) static RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
static RATELIMIT_PARTITION: HeaderName = HeaderName::from_static("ratelimit-partition");

/// The parameters that say what is left, and for how long.
pub(super) struct Parameters {
    remaining: &'static str,
    reset: &'static str,
}

/// `"default";r=50;t=30`
pub(super) const DRAFT_08: Parameters = Parameters { remaining: ";r=", reset: ";t=" };
/// `"default";a=50;w=30`
pub(super) const NEXT: Parameters = Parameters { remaining: ";a=", reset: ";w=" };

impl Fields {
    pub(super) fn write_standing_item(
        &self,
        parameters: &Parameters,
        standing: &Standing<'_>,
        headers: &mut HeaderMap,
    ) {
        let mut text = FieldText::new();
        self.push_name(&mut text, standing.policy());
        text.push(parameters.remaining);
        text.push_integer(standing.remaining);
        if let Some(reset) = standing.reset_secs() {
            text.push(parameters.reset);
            text.push_integer(reset);
        }
        text.push(self.partition_key());
        text.append_to(headers, &RATELIMIT);
    }

    pub(super) fn write_policy_items(&self, standing: &Standing<'_>, headers: &mut HeaderMap) {
        if self.hide_policies || standing.policies.is_empty() {
            return;
        }
        // The text is kept with the policies, which may be shared with another layer's answer:
        // only the text that every answer would write may be kept there.
        let value = if self.partition.is_none() && !self.express_names {
            standing.policies.field(|list| self.policy_items(list))
        } else {
            self.policy_items(standing.policies)
        };
        append(headers, &RATELIMIT_POLICY, value);
    }

    fn policy_items(&self, list: &[QuotaPolicy]) -> HeaderValue {
        let mut text = FieldText::new();
        for (place, policy) in list.iter().enumerate() {
            if place > 0 {
                text.push(", ");
            }
            self.push_name(&mut text, Some(policy));
            text.push(";q=");
            text.push_integer(policy.quota);
            if let Some(unit) = policy.unit.as_ref().filter(|unit| unit.as_str() != "requests") {
                text.push(";qu=\"");
                text.push(unit.as_str());
                text.push("\"");
            }
            if !policy.window.is_zero() {
                text.push(";w=");
                text.push_integer(ceil_secs(policy.window));
            }
            text.push(self.partition_key());
        }
        // Names are made of what a field may hold.
        text.value().unwrap_or_else(|| HeaderValue::from_static(""))
    }

    pub(super) fn write_partition_items(&self, standing: &Standing<'_>, headers: &mut HeaderMap) {
        let Some(partition) = self.partition.as_ref().filter(|p| !p.dimensions().is_empty()) else {
            return;
        };
        let mut text = FieldText::new();
        for (place, policy) in standing.policies.iter().enumerate() {
            if place > 0 {
                text.push(", ");
            }
            self.push_name(&mut text, Some(policy));
            text.push(partition.dimensions());
        }
        if !standing.policies.is_empty() {
            text.append_to(headers, &RATELIMIT_PARTITION);
        }
    }

    fn partition_key(&self) -> &str {
        self.partition.as_ref().map_or("", |partition| partition.key())
    }

    fn push_name(&self, text: &mut FieldText, policy: Option<&QuotaPolicy>) {
        text.push("\"");
        text.push(&self.name_of(policy));
        text.push("\"");
    }
}
