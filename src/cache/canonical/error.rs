use std::{error::Error, fmt};

/// A text has no canonical form as JSON.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NotCanonical {
    pub(super) at: usize,
}

impl NotCanonical {
    /// The byte at which that was seen.
    pub const fn offset(&self) -> usize {
        self.at
    }
}

impl fmt::Display for NotCanonical {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the text has no canonical form as JSON: see its byte {}", self.at)
    }
}

impl Error for NotCanonical {}
