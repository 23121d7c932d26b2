//! What a set of rules must keep to.

use std::{collections::hash_map::Entry as Slot, sync::Arc};

use super::{
    error::RulesError,
    limit,
    lines::Step::{self, Index, Key},
    place::Place,
    rule::Rule,
    shape::{DescriptorShape, FileShape, NameShape},
    tree::{ByValue, Node, RuleSet},
};

pub(super) fn check(text: &str, shape: &FileShape) -> Result<RuleSet, RulesError> {
    let mut inner = RuleSet {
        shadow: shape.shadow_mode,
        response_headers: shape.response_headers,
        request_headers: shape.request_headers,
        denied_body: shape.denied_body,
        ..RuleSet::default()
    };
    let mut place = Place { text, path: Vec::new() };
    if let Some(domain) = &shape.domain {
        let node = place.domain(domain, &[Key("domain")], &shape.descriptors, &[])?;
        inner.domains.insert(domain.as_str().into(), node);
    } else if !shape.descriptors.is_empty() {
        return place.wrong(&[Key("descriptors")], "say whose they are, as in `domain = \"edge\"`");
    }
    for (index, shape) in shape.domains.iter().enumerate() {
        let here = [Key("domains"), Index(index)];
        let name = [here[0], here[1], Key("domain")];
        let node = place.domain(&shape.domain, &name, &shape.descriptors, &here)?;
        match inner.domains.entry(shape.domain.as_str().into()) {
            Slot::Vacant(slot) => drop(slot.insert(node)),
            Slot::Occupied(_) => return place.wrong(&name, "name each domain once"),
        }
    }
    Ok(inner)
}

impl<'a> Place<'a> {
    fn domain(
        &mut self,
        domain: &'a str,
        name: &[Step<'a>],
        descriptors: &'a [DescriptorShape],
        here: &[Step<'a>],
    ) -> Result<Node, RulesError> {
        if domain.is_empty() {
            return self.wrong(name, "write the name of a domain");
        }
        let mut node = Node::default();
        self.at(here, |place| place.descriptors(descriptors, domain, &mut node))?;
        Ok(node)
    }

    fn descriptors(
        &mut self,
        shapes: &'a [DescriptorShape],
        path: &str,
        parent: &mut Node,
    ) -> Result<(), RulesError> {
        for (index, shape) in shapes.iter().enumerate() {
            self.at(&[Key("descriptors"), Index(index)], |place| {
                place.descriptor(shape, path, parent)
            })?;
        }
        Ok(())
    }

    fn descriptor(
        &mut self,
        shape: &'a DescriptorShape,
        above: &str,
        parent: &mut Node,
    ) -> Result<(), RulesError> {
        if shape.key.is_empty() {
            return self.wrong(&[Key("key")], "write the key of an entry");
        }
        if shape.rate_limit.is_none() && shape.descriptors.is_empty() {
            return self.wrong(&[], "give it a `rate_limit`, or `descriptors` below it");
        }
        let pattern = shape.value.as_deref().unwrap_or_default();
        let path = match &shape.value {
            Some(value) => format!("{above}/{}={value}", shape.key),
            None => format!("{above}/{}", shape.key),
        };
        let is_prefix = pattern.ends_with('*');
        if shape.share_threshold && !is_prefix {
            return self.wrong(
                &[Key("share_threshold")],
                "only values that end in `*` can share one count: write such a `value`, or leave \
                 it out",
            );
        }
        let mut node = Node {
            rule: self.rule(shape, &path)?,
            shared_as: shape.share_threshold.then(|| pattern.into()),
            ..Node::default()
        };
        self.descriptors(&shape.descriptors, &path, &mut node)?;

        let by_value = parent.next.entry(shape.key.as_str().into()).or_default();
        if by_value.put(shape.value.as_deref(), node) {
            return Ok(());
        }
        self.wrong(&[Key("key")], "another descriptor beside it has this key and value: join them")
    }

    fn rule(
        &mut self,
        shape: &'a DescriptorShape,
        path: &str,
    ) -> Result<Option<Arc<Rule>>, RulesError> {
        let Some(limit) = &shape.rate_limit else { return Ok(None) };
        if shape.quota_mode && shape.shadow_mode {
            return self.wrong(&[Key("quota_mode")], "a rule is in one of both modes: remove one");
        }
        let is_own = |(_, other): &(usize, &NameShape)| limit.name.as_ref() == Some(&other.name);
        if let Some((index, _)) = limit.replaces.iter().enumerate().find(is_own) {
            return self.wrong(
                &[Key("rate_limit"), Key("replaces"), Index(index)],
                "a rule that replaces itself limits nobody: name another, or give this one a `name` \
                 of its own",
            );
        }
        let checked = self.at(&[Key("rate_limit")], |place| limit::check(place, limit))?;
        Ok(Some(Arc::new(Rule {
            path: path.into(),
            limit: checked,
            replaces: limit.replaces.iter().map(|other| other.name.as_str().into()).collect(),
            shadow: shape.shadow_mode,
            quota: shape.quota_mode,
            detailed: shape.detailed_metric,
            count_refused: limit.count_refused,
            counts: Arc::default(),
        })))
    }
}

impl ByValue {
    /// Puts a node at its value, unless there is one already.
    fn put(&mut self, value: Option<&str>, node: Node) -> bool {
        match value {
            None if self.any.is_some() => return false,
            None => self.any = Some(Box::new(node)),
            Some(value) => match value.strip_suffix('*') {
                Some(prefix) if self.prefixes.iter().any(|(other, _)| **other == *prefix) => {
                    return false;
                }
                Some(prefix) => self.prefixes.push((prefix.into(), node)),
                None => match self.exact.entry(value.into()) {
                    Slot::Occupied(_) => return false,
                    Slot::Vacant(slot) => drop(slot.insert(node)),
                },
            },
        }
        true
    }
}
