//! The `RateLimit` header fields, in the forms that are in use.

mod draft;
mod express;
mod partition;
mod plain;
pub(super) mod text;

use std::{borrow::Cow, sync::Arc, time::Duration};

use http::HeaderMap;

use self::plain::{InLimit, Reset};
pub use self::{express::express_name, partition::Partition};
use crate::{
    decision::{RetryAfter, Snapshot, ceil_secs},
    name::{Policies, PolicyName, QuotaPolicy},
    rejection::Denial,
};

/// Names a form of the fields that tell a caller how its quota stands.
///
/// Every form rounds times up, and none shows a number above 999,999,999,999,999. A policy whose
/// window is zero has no window: neither that nor a reset is told.
///
/// Browsers hide these fields from scripts of another origin, unless the server lists them in
/// `Access-Control-Expose-Headers`.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum FieldStyle {
    /// `RateLimit-Limit: 100, 100;w=10`, `RateLimit-Remaining: 50`, `RateLimit-Reset: 5`:
    /// IETF drafts 00 to 03.
    Draft03,
    /// `RateLimit-Policy: 100;w=10` with `RateLimit-Limit: 100`, `RateLimit-Remaining: 50` and
    /// `RateLimit-Reset: 5`: IETF drafts 04 to 06.
    Draft06,
    /// `RateLimit-Policy: 100;w=10` with `RateLimit: limit=100, remaining=50, reset=5`:
    /// IETF draft 07.
    Draft07,
    /// `RateLimit-Policy: "default";q=100;w=10` with `RateLimit: "default";r=50;t=5`:
    /// IETF drafts 08 to 11.
    Draft08,
    /// `RateLimit: "default";a=50;w=5` and `RateLimit-Partition`: the editors' copy after draft 11,
    /// which may still change.
    Next,
    /// `X-RateLimit-Limit: 100`, `X-RateLimit-Remaining: 50` and `X-RateLimit-Reset: 1735689600`,
    /// seconds since the Unix epoch: GitHub, express-rate-limit and many more.
    XRateLimit,
    /// `X-RateLimit-Limit: 100, 100;w=10;name="burst"`, `X-RateLimit-Remaining: 50` and
    /// `X-RateLimit-Reset: 5`, seconds from now: Envoy.
    XRateLimitSeconds,
}

/// Holds the forms that one answer writes: one of the IETF's, one of the older `X-RateLimit`.
///
/// [`FieldStyle::Draft08`] is the default.
///
/// ```
/// use tower_quota::http::{FieldStyle, TooManyRequests};
///
/// let both = TooManyRequests::new().fields([FieldStyle::Draft08, FieldStyle::XRateLimit]);
/// # let _ = both;
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FieldStyles {
    ietf: Option<FieldStyle>,
    legacy: Option<FieldStyle>,
}

impl FieldStyles {
    /// No fields.
    pub const NONE: Self = Self { ietf: None, legacy: None };
    /// The fields of the IETF's drafts 08 to 11.
    pub const DEFAULT: Self = Self::NONE.with(FieldStyle::Draft08);

    /// Adds `style`. It takes the place of an earlier one that would write the same fields.
    #[must_use]
    pub const fn with(mut self, style: FieldStyle) -> Self {
        match style {
            FieldStyle::Draft03
            | FieldStyle::Draft06
            | FieldStyle::Draft07
            | FieldStyle::Draft08
            | FieldStyle::Next => self.ietf = Some(style),
            FieldStyle::XRateLimit | FieldStyle::XRateLimitSeconds => self.legacy = Some(style),
        }
        self
    }
}

impl Default for FieldStyles {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl From<FieldStyle> for FieldStyles {
    fn from(style: FieldStyle) -> Self {
        Self::NONE.with(style)
    }
}

impl<const N: usize> From<[FieldStyle; N]> for FieldStyles {
    fn from(styles: [FieldStyle; N]) -> Self {
        styles.into_iter().fold(Self::NONE, Self::with)
    }
}

/// What an answer writes into the fields.
#[derive(Clone, Debug)]
pub(super) struct Fields {
    pub(super) styles: FieldStyles,
    pub(super) partition: Option<Arc<Partition>>,
    pub(super) express_names: bool,
    pub(super) hide_policies: bool,
    pub(super) on_redirects: bool,
}

impl Fields {
    pub(super) const DEFAULT: Self = Self {
        styles: FieldStyles::DEFAULT,
        partition: None,
        express_names: false,
        hide_policies: false,
        on_redirects: false,
    };

    pub(super) fn write(&self, standing: &Standing<'_>, headers: &mut HeaderMap) {
        use FieldStyle as Style;

        for style in [self.styles.ietf, self.styles.legacy].into_iter().flatten() {
            match style {
                Style::Draft03 => {
                    let in_limit = InLimit::Policies;
                    self.write_trio(&plain::STANDARD, in_limit, Reset::Seconds, standing, headers);
                }
                Style::Draft06 => {
                    let in_limit = InLimit::Nothing;
                    self.write_trio(&plain::STANDARD, in_limit, Reset::Seconds, standing, headers);
                    self.write_unnamed_policies(standing, headers);
                }
                Style::Draft07 => {
                    Self::write_dictionary(standing, headers);
                    self.write_unnamed_policies(standing, headers);
                }
                Style::Draft08 => {
                    self.write_standing_item(&draft::DRAFT_08, standing, headers);
                    self.write_policy_items(standing, headers);
                }
                Style::Next => {
                    self.write_standing_item(&draft::NEXT, standing, headers);
                    self.write_policy_items(standing, headers);
                    self.write_partition_items(standing, headers);
                }
                Style::XRateLimit => {
                    let in_limit = InLimit::Nothing;
                    self.write_trio(&plain::LEGACY, in_limit, Reset::Epoch, standing, headers);
                }
                Style::XRateLimitSeconds => {
                    let in_limit = InLimit::NamedPolicies;
                    self.write_trio(&plain::LEGACY, in_limit, Reset::Seconds, standing, headers);
                }
            }
        }
    }

    /// The name under which callers know `policy`.
    pub(super) fn name_of<'a>(&self, policy: Option<&'a QuotaPolicy>) -> Cow<'a, str> {
        match policy {
            Some(policy) if self.express_names && policy.name == PolicyName::DEFAULT => {
                Cow::Owned(express_name(policy.quota, policy.window))
            }
            Some(policy) => Cow::Borrowed(policy.name.as_str()),
            None => Cow::Borrowed("default"),
        }
    }
}

/// How the quota stands, as it is told to the caller.
#[derive(Clone, Copy)]
pub(super) struct Standing<'a> {
    limit: u64,
    remaining: u64,
    reset_after: Duration,
    policy: usize,
    policies: &'a Policies,
}

impl<'a> Standing<'a> {
    pub(super) const fn new(snapshot: &Snapshot, policies: &'a Policies) -> Self {
        let Snapshot { limit, remaining, reset_after, policy } = *snapshot;
        Self { limit, remaining, reset_after, policy, policies }
    }

    /// The standing beside a `Retry-After`. Drafts 03 to 09 want both to name one moment, drafts 10
    /// and 11 want the reset not to be the later one: the same moment satisfies all.
    pub(super) fn of_denial(denial: &'a Denial) -> Self {
        let mut standing = Self::new(&denial.snapshot, &denial.policies);
        if let RetryAfter::After(wait) = denial.retry_after {
            standing.reset_after = wait;
        }
        standing
    }

    fn policy(&self) -> Option<&'a QuotaPolicy> {
        self.policies.get(self.policy)
    }

    fn reset_secs(&self) -> Option<u64> {
        let has_window = self.policy().is_none_or(|policy| !policy.window.is_zero());
        has_window.then(|| ceil_secs(self.reset_after))
    }
}
