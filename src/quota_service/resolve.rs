//! From the descriptors of a request to limits and keys.

use std::sync::Arc;

use super::{
    ask_error::AskError,
    counts::Outcome,
    request::{Ask, Descriptor, Entry},
    rule::{Kind, Rule, RuleLimit},
    rules::Rules,
};
use crate::{decision::Decision, key::Key};

/// What the rules make of a descriptor.
pub(super) enum Resolved {
    Unmatched,
    Unlimited(Arc<Rule>),
    Limited(Limited),
}

/// A limit, whom it is counted against, and how much.
pub(super) struct Limited {
    pub(super) limit: RuleLimit,
    pub(super) key: Key,
    pub(super) hits: u64,
    pub(super) act: Act,
    rule: Option<Arc<Rule>>,
    /// Its path in metrics, where that is not the rule's.
    label: Option<String>,
}

/// What is done with a descriptor's hits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Act {
    /// They are taken, or the request is refused.
    Enforce,
    /// They are taken if there is room, and the request is refused if no such rule has.
    Quota,
    /// They are taken if there is room.
    Shadow,
    /// They are given back.
    Refund,
}

/// Checks what a request must keep to, whatever the rules.
pub(super) fn check(ask: &Ask) -> Result<(), AskError> {
    if ask.domain.is_empty() {
        return Err(AskError::NoDomain);
    }
    if ask.descriptors.is_empty() {
        return Err(AskError::NoDescriptors);
    }
    if ask.descriptors.len() > Ask::MAX_DESCRIPTORS {
        return Err(AskError::TooManyDescriptors);
    }
    for descriptor in &ask.descriptors {
        let entries = &descriptor.entries;
        if entries.is_empty() || entries.len() > Descriptor::MAX_ENTRIES {
            return Err(AskError::EntryCount);
        }
        let is_bad = |entry: &Entry| {
            let longest = entry.key.len().max(entry.value.len());
            entry.key.is_empty() || longest > Descriptor::MAX_TEXT
        };
        if entries.iter().any(is_bad) {
            return Err(AskError::EntryText);
        }
    }
    Ok(())
}

pub(super) fn resolve(rules: &Rules, ask: &Ask) -> Vec<Resolved> {
    let each = ask.descriptors.iter().map(|descriptor| one(rules, ask, descriptor));
    let mut resolved: Vec<_> = each.collect();
    let rules_of = resolved.iter().filter_map(Resolved::rule);
    let replaced: Vec<_> = rules_of.flat_map(|rule| rule.replaces.iter().cloned()).collect();
    for one in &mut resolved {
        if let Resolved::Limited(limited) = one
            && let Some(name) = limited.limit.name()
            && replaced.iter().any(|other| **other == *name)
        {
            *one = Resolved::Unmatched;
        }
    }
    resolved
}

fn one(rules: &Rules, ask: &Ask, descriptor: &Descriptor) -> Resolved {
    if !rules.knows(&ask.domain) {
        return Resolved::Unmatched;
    }
    let found = rules.find(&ask.domain, &descriptor.entries);
    let rule = found.as_ref().map(|found| Arc::clone(found.rule));
    let limit = match (&rule, descriptor.limit) {
        (rule, Some(given)) => {
            let name = rule.as_ref().and_then(|rule| rule.limit.as_ref()?.name());
            RuleLimit::of(given, name)
        }
        (None, None) => return Resolved::Unmatched,
        (Some(rule), None) => match &rule.limit {
            None => return Resolved::Unlimited(Arc::clone(rule)),
            Some(limit) => limit.clone(),
        },
    };
    let shared = found.map(|found| found.shared).unwrap_or_default();
    let key = key_of(&ask.domain, &descriptor.entries, &shared, limit.kind);
    let is = |mode: fn(&Rule) -> bool| rule.as_ref().is_some_and(|rule| mode(rule));
    let act = if descriptor.refund {
        Act::Refund
    } else if rules.inner.shadow || is(|rule| rule.shadow) {
        Act::Shadow
    } else if is(|rule| rule.quota) {
        Act::Quota
    } else {
        Act::Enforce
    };
    let label = is(|rule| rule.detailed).then(|| label_of(&ask.domain, &descriptor.entries));
    let hits = descriptor.hits.unwrap_or_else(|| ask.hits.max(1));
    Resolved::Limited(Limited { limit, key, hits, act, rule, label })
}

/// Each part stands with its length, so descriptors cannot be written to collide. Values may be API
/// keys, so the whole is secret: it is shown nowhere, and a server is sent its hash.
///
/// The kind of the limit is a part too: who could bring a limit of another kind along would begin
/// the count anew each time. With it the number of parts is even, so it cannot be written as an
/// entry.
fn key_of(domain: &str, entries: &[Entry], shared: &[Option<&str>], kind: Kind) -> Key {
    let mut parts = Vec::with_capacity(2 + 2 * entries.len());
    parts.push(Key::secret(domain));
    for (place, entry) in entries.iter().enumerate() {
        parts.push(Key::from(entry.key.as_str()));
        // A pattern is of another kind than a value, which may be written like it.
        parts.push(match shared.get(place).copied().flatten() {
            Some(pattern) => Key::join([&Key::from(pattern)]),
            None => Key::from(entry.value.as_str()),
        });
    }
    parts.extend(kind.key_part().map(Key::from));
    Key::join(&parts)
}

fn label_of(domain: &str, entries: &[Entry]) -> String {
    let entries = entries.iter().map(|Entry { key, value }| format!("/{key}={value}"));
    std::iter::once(domain.to_owned()).chain(entries).collect()
}

impl Resolved {
    fn rule(&self) -> Option<&Rule> {
        match self {
            Self::Unmatched => None,
            Self::Unlimited(rule) => Some(rule),
            Self::Limited(limited) => limited.rule.as_deref(),
        }
    }

    pub(super) const fn limited(&self) -> Option<&Limited> {
        match self {
            Self::Limited(limited) => Some(limited),
            Self::Unmatched | Self::Unlimited(_) => None,
        }
    }
}

impl Limited {
    /// Whether its rule is in shadow mode: nobody is told that it is over.
    pub(super) fn is_masked(&self) -> bool {
        self.rule.as_ref().is_some_and(|rule| rule.shadow)
    }

    /// The memory beside its own that nobody shares with it.
    pub(super) fn bytes(&self) -> usize {
        self.key.as_bytes().len() + self.label.as_ref().map_or(0, String::capacity)
    }

    /// Whether hits that are refused are counted all the same.
    pub(super) fn counts_refused(&self) -> bool {
        self.rule.as_ref().is_some_and(|rule| rule.count_refused)
    }

    /// Notes what was decided, in the counts of its rule.
    pub(super) fn note(&self, decision: &Decision, allowed: bool) {
        let Some(rule) = &self.rule else { return };
        let outcome = match (decision.is_allowed(), self.act) {
            // Another limit refused the request: this one says nothing of it.
            (true, _) if !allowed => return,
            (true, _) => Outcome::Admitted,
            (false, Act::Shadow) => Outcome::Shadowed,
            (false, _) => Outcome::Refused,
        };
        rule.counts
            .decided(outcome, || self.label.clone().unwrap_or_else(|| rule.path.to_string()));
    }
}
