//! Where in a TOML text a value stands.

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// One step down from the top of a file.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step<'a> {
    Key(&'a str),
    Index(usize),
}

impl Step<'_> {
    /// The path as people write it: `domains[0].descriptors[2].key`.
    pub(super) fn display(path: &[Self]) -> String {
        let mut told = String::new();
        for step in path {
            match step {
                Step::Key(key) => {
                    if !told.is_empty() {
                        told.push('.');
                    }
                    told.push_str(key);
                }
                Step::Index(index) => told += &format!("[{index}]"),
            }
        }
        told
    }
}

/// The line of the value at `path`, or of the last value on the way to it: that is where a missing
/// key belongs.
pub(super) fn line_of(text: &str, path: &[Step<'_>]) -> Option<usize> {
    let top = DeTable::parse(text).ok()?;
    let (first, rest) = path.split_first()?;
    let Step::Key(key) = first else { return None };
    let mut value: &Spanned<DeValue<'_>> = top.get_ref().get(*key)?;
    for step in rest {
        let next = match (value.get_ref(), step) {
            (DeValue::Table(table), Step::Key(key)) => table.get(*key),
            (DeValue::Array(array), Step::Index(index)) => array.get(*index),
            _ => None,
        };
        let Some(next) = next else { break };
        value = next;
    }
    let before = text.get(..value.span().start)?;
    Some(1 + before.matches('\n').count())
}
