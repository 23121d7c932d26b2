//! Names of limits, and what a limit says of itself.

use std::{borrow::Cow, fmt, ops::Deref, sync::Arc, time::Duration};

use crate::error::ConfigError;

/// The name of a limit, as it stands in `RateLimit` fields, problem bodies, metrics and logs.
///
/// Lower-case letters, digits, `_`, `-`, `.`, beginning with a letter, at most 64 characters:
/// the subset that every revision of the `RateLimit` fields can carry, so nothing in a name ever
/// needs an escape.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PolicyName(Cow<'static, str>);

impl PolicyName {
    /// The name of a limit that was not given one.
    pub const DEFAULT: Self = Self(Cow::Borrowed("default"));

    /// A name made at run time.
    ///
    /// # Errors
    ///
    /// The text is not a name as described above.
    pub fn new(name: impl Into<String>) -> Result<Self, ConfigError> {
        let name = name.into();
        if !is_name(&name) {
            return Err(ConfigError::MalformedName { name });
        }
        Ok(Self(Cow::Owned(name)))
    }

    /// A name written in the program. In a `const` a wrong one does not compile.
    ///
    /// # Panics
    ///
    /// The text is not a name as described above.
    #[track_caller]
    pub const fn from_static(name: &'static str) -> Self {
        assert!(is_name(name), "a policy name is [a-z][a-z0-9_.-]*, at most 64 characters");
        Self(Cow::Borrowed(name))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for PolicyName {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl fmt::Display for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

const fn is_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    if bytes.is_empty() || bytes.len() > 64 || !bytes[0].is_ascii_lowercase() {
        return false;
    }
    let mut at = 1;
    while at < bytes.len() {
        let byte = bytes[at];
        let allowed = byte.is_ascii_lowercase() || byte.is_ascii_digit();
        if !allowed && byte != b'_' && byte != b'-' && byte != b'.' {
            return false;
        }
        at += 1;
    }
    true
}

/// What a limit tells its callers about itself: the parts of a `RateLimit-Policy` item.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct QuotaPolicy {
    /// Its name.
    pub name: PolicyName,
    /// The most units that can be taken at once.
    pub quota: u64,
    /// The time in which the whole quota comes back.
    pub window: Duration,
    /// What is counted, where it is not requests: `content-bytes`, `tokens`.
    pub unit: Option<PolicyName>,
}

impl QuotaPolicy {
    /// A policy that counts requests.
    pub fn new(name: PolicyName, quota: u64, window: Duration) -> Self {
        Self { name, quota, window, unit: None }
    }
}

/// The policies of one limiter, in the order in which a
/// [`Snapshot`](crate::Snapshot) and a [`PolicySet`](crate::PolicySet) number them. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Policies(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    list: Box<[QuotaPolicy]>,
    /// The `RateLimit-Policy` value, written once: it is the same on every response.
    #[cfg(feature = "http")]
    field: std::sync::OnceLock<http::HeaderValue>,
}

impl Policies {
    /// The policies in `list`.
    pub fn new(list: Vec<QuotaPolicy>) -> Self {
        Self(Arc::new(Inner {
            list: list.into(),
            #[cfg(feature = "http")]
            field: std::sync::OnceLock::new(),
        }))
    }

    /// The field value kept with these policies, made by `write` at its first use.
    #[cfg(feature = "http")]
    pub(crate) fn field(
        &self,
        write: impl FnOnce(&[QuotaPolicy]) -> http::HeaderValue,
    ) -> http::HeaderValue {
        self.0.field.get_or_init(|| write(&self.0.list)).clone()
    }
}

impl Deref for Policies {
    type Target = [QuotaPolicy];

    fn deref(&self) -> &[QuotaPolicy] {
        &self.0.list
    }
}
