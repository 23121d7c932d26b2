use std::{error::Error, fmt};

/// A text that is not a profile, and what to write instead.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum ProfileError {
    /// It is not TOML, or has a key or a value that profiles do not have.
    Malformed(Box<toml::de::Error>),
    /// A key has a value that cannot be meant.
    Meaningless {
        /// The key, from the top.
        key: String,
        /// What is wrong, and what to write.
        remedy: &'static str,
    },
}

impl fmt::Display for ProfileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(error) => {
                write!(f, "the text is not a profile: correct this key or value: {error}")
            }
            Self::Meaningless { key, remedy } => write!(f, "`{key}` in a profile: {remedy}"),
        }
    }
}

impl Error for ProfileError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Malformed(error) => Some(error),
            Self::Meaningless { .. } => None,
        }
    }
}
