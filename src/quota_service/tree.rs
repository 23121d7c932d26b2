//! The rules of domains, by the entries of descriptors.

use std::{collections::HashMap, sync::Arc};

use super::{
    fields::{DeniedBody, HeaderFields},
    request::Entry,
    rule::Rule,
};

/// The rules of all domains, and what holds for all of them.
#[derive(Default)]
pub(super) struct RuleSet {
    pub(super) domains: HashMap<Box<str>, Node>,
    pub(super) shadow: bool,
    pub(super) response_headers: HeaderFields,
    pub(super) request_headers: HeaderFields,
    pub(super) denied_body: DeniedBody,
}

/// What stands below an entry: its own rule, and the entries that may follow.
#[derive(Clone, Debug, Default)]
pub(super) struct Node {
    pub(super) rule: Option<Arc<Rule>>,
    /// All values share one count: that of the pattern.
    pub(super) shared_as: Option<Box<str>>,
    pub(super) next: HashMap<Box<str>, ByValue>,
}

/// The nodes of one key, by its value.
#[derive(Clone, Debug, Default)]
pub(super) struct ByValue {
    pub(super) exact: HashMap<Box<str>, Node>,
    /// Values that end in `*`, without it, in the order of the file.
    pub(super) prefixes: Vec<(Box<str>, Node)>,
    pub(super) any: Option<Box<Node>>,
}

/// The rule of a descriptor, and the entries as they are counted.
pub(super) struct Found<'a> {
    pub(super) rule: &'a Arc<Rule>,
    /// For each entry the value that stands for its own, if there is one.
    pub(super) shared: Vec<Option<&'a str>>,
}

impl Node {
    /// The rule of a descriptor with these entries: the one that stands at the last of them.
    ///
    /// For each entry the exact value goes before a prefix, and a prefix before any value; what
    /// is found is not gone back on, as in the reference service.
    pub(super) fn find(&self, entries: &[Entry]) -> Option<Found<'_>> {
        let mut node = self;
        let mut shared = Vec::with_capacity(entries.len());
        for entry in entries {
            node = node.next.get(entry.key.as_str())?.of(&entry.value)?;
            shared.push(node.shared_as.as_deref());
        }
        Some(Found { rule: node.rule.as_ref()?, shared })
    }

    /// All rules at and below it.
    pub(super) fn rules<'a>(&'a self, into: &mut Vec<&'a Arc<Rule>>) {
        into.extend(&self.rule);
        for by_value in self.next.values() {
            let prefixes = by_value.prefixes.iter().map(|(_, node)| node);
            let any = by_value.any.as_deref();
            by_value.exact.values().chain(prefixes).chain(any).for_each(|node| node.rules(into));
        }
    }
}

impl ByValue {
    fn of(&self, value: &str) -> Option<&Node> {
        let by_prefix = || {
            let fits = |(prefix, _): &&(Box<str>, Node)| value.starts_with(&**prefix);
            self.prefixes.iter().find(fits).map(|(_, node)| node)
        };
        self.exact.get(value).or_else(by_prefix).or(self.any.as_deref())
    }
}
