//! The form of a rules file, before it is checked.

use serde::Deserialize;

use super::fields::{DeniedBody, HeaderFields};

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct FileShape {
    /// The one domain of a file that has one.
    pub(super) domain: Option<String>,
    pub(super) descriptors: Vec<DescriptorShape>,
    pub(super) domains: Vec<DomainShape>,
    pub(super) shadow_mode: bool,
    pub(super) response_headers: HeaderFields,
    pub(super) request_headers: HeaderFields,
    pub(super) denied_body: DeniedBody,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DomainShape {
    pub(super) domain: String,
    #[serde(default)]
    pub(super) descriptors: Vec<DescriptorShape>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DescriptorShape {
    pub(super) key: String,
    pub(super) value: Option<String>,
    pub(super) rate_limit: Option<LimitShape>,
    #[serde(default)]
    pub(super) descriptors: Vec<Self>,
    #[serde(default)]
    pub(super) shadow_mode: bool,
    #[serde(default)]
    pub(super) quota_mode: bool,
    #[serde(default)]
    pub(super) detailed_metric: bool,
    #[serde(default)]
    pub(super) share_threshold: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct LimitShape {
    pub(super) unit: Option<String>,
    pub(super) requests_per_unit: Option<u64>,
    pub(super) quota: Option<String>,
    pub(super) name: Option<String>,
    pub(super) unlimited: bool,
    pub(super) replaces: Vec<NameShape>,
    pub(super) algorithm: AlgorithmShape,
    pub(super) burst: Option<u64>,
    pub(super) segments: Option<u64>,
    pub(super) max_wait_ms: Option<u64>,
    pub(super) count_refused: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NameShape {
    pub(super) name: String,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub(super) enum AlgorithmShape {
    #[default]
    FixedWindow,
    LeakyBucket,
    SlidingCounter,
    SlidingLog,
    SlidingWindow,
    TokenBucket,
}
