use std::{borrow::Cow, error::Error, fmt};

use super::lines::{Step, line_of};

/// A text that is not a set of rules, and what to write instead.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum RulesError {
    /// It is not TOML, or has a key or a value that rules do not have.
    Malformed(Box<toml::de::Error>),
    /// A key has a value that cannot be meant.
    Meaningless {
        /// The line of the value.
        line: Option<usize>,
        /// The key, from the top.
        key: String,
        /// What is wrong, and what to write.
        remedy: Cow<'static, str>,
    },
}

impl RulesError {
    pub(super) fn at(text: &str, path: &[Step<'_>], remedy: impl Into<Cow<'static, str>>) -> Self {
        let key = Step::display(path);
        Self::Meaningless { line: line_of(text, path), key, remedy: remedy.into() }
    }
}

impl fmt::Display for RulesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(error) => {
                write!(f, "the text is not a set of rules: correct this key or value: {error}")
            }
            Self::Meaningless { line: Some(line), key, remedy } => {
                write!(f, "line {line}: `{key}`: {remedy}")
            }
            Self::Meaningless { line: None, key, remedy } => write!(f, "`{key}`: {remedy}"),
        }
    }
}

impl Error for RulesError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Malformed(error) => Some(error),
            Self::Meaningless { .. } => None,
        }
    }
}
