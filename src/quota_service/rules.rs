use std::{collections::HashMap, fmt, str::FromStr, sync::Arc};

use super::{
    check,
    counts::RuleCounts,
    error::RulesError,
    request::Entry,
    rule::Rule,
    shape::FileShape,
    tree::{Found, RuleSet},
};
use crate::observe;

/// The rules of a quota service: which descriptors have which limit.
///
/// They are TOML text, in the terms of Envoy's reference service; the
/// [guide](crate::guide::quota_service) lists every key.
///
/// ```
/// use tower_quota::quota_service::Rules;
///
/// let rules: Rules = r#"
///     [[domains]]
///     domain = "edge"
///
///     [[domains.descriptors]]
///     key = "plan"
///     value = "free"
///     [[domains.descriptors.descriptors]]
///     key = "user"
///     rate_limit = { unit = "minute", requests_per_unit = 60 }
/// "#.parse()?;
/// assert_eq!(rules.domains().collect::<Vec<_>>(), ["edge"]);
///
/// let error = "[[domains]]\ndomain = \"\"".parse::<Rules>().unwrap_err();
/// assert_eq!(error.to_string(), "line 2: `domains[0].domain`: write the name of a domain");
/// # Ok::<(), tower_quota::quota_service::RulesError>(())
/// ```
///
/// # Clone
///
/// Clones share one set of rules.
#[derive(Clone, Default)]
pub struct Rules {
    pub(super) inner: Arc<RuleSet>,
}

impl Rules {
    /// The names of the domains, in no order.
    pub fn domains(&self) -> impl Iterator<Item = &str> {
        self.inner.domains.keys().map(|domain| &**domain)
    }

    /// How often each rule has decided, in the order of their paths.
    pub fn counts(&self) -> Vec<RuleCounts> {
        let mut counts: Vec<_> =
            self.all().into_iter().map(|rule| rule.counts.read(&rule.path)).collect();
        counts.sort_unstable_by(|one, other| one.rule.cmp(&other.rule));
        counts
    }

    /// Lets the counts go on where those of `before` stand, rule by rule.
    pub(super) fn go_on_from(&self, before: &Self) {
        if Arc::ptr_eq(&self.inner, &before.inner) {
            return;
        }
        let before: HashMap<_, _> =
            before.all().into_iter().map(|rule| (&*rule.path, rule)).collect();
        for rule in self.all() {
            let Some(before) = before.get(&*rule.path) else { continue };
            rule.counts.go_on_from(&before.counts);
            if let (Some(limit), Some(before)) = (&rule.limit, &before.limit)
                && limit.kind != before.kind
            {
                observe::rules::begins_anew(&rule.path);
            }
        }
    }

    pub(super) fn knows(&self, domain: &str) -> bool {
        self.inner.domains.contains_key(domain)
    }

    pub(super) fn find(&self, domain: &str, entries: &[Entry]) -> Option<Found<'_>> {
        self.inner.domains.get(domain)?.find(entries)
    }

    pub(super) fn all(&self) -> Vec<&Arc<Rule>> {
        let mut rules = Vec::new();
        self.inner.domains.values().for_each(|node| node.rules(&mut rules));
        rules
    }
}

impl FromStr for Rules {
    type Err = RulesError;

    fn from_str(text: &str) -> Result<Self, RulesError> {
        let shape: FileShape =
            toml::from_str(text).map_err(|error| RulesError::Malformed(Box::new(error)))?;
        let inner = check::check(text, &shape)?;
        Ok(Self { inner: Arc::new(inner) })
    }
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rules").field("rules", &self.all()).finish_non_exhaustive()
    }
}
