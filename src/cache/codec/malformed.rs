use std::{error::Error, fmt};

/// Bytes that are not the answer that they should be.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum MalformedAnswer {
    /// They are no answer at all.
    Foreign,
    /// Another version of this crate wrote them.
    Version,
    /// They are packed in a way that this build does not know: see the feature `cache-compression`.
    Form,
    /// Their checksum is wrong.
    Damaged,
    /// The answer in them is larger than allowed.
    TooLarge,
    /// Their checksum is right, and what they say is not.
    Content,
}

impl fmt::Display for MalformedAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Foreign => "these bytes are no answer",
            Self::Version => "the answer is of another version",
            Self::Form => "the answer is packed in a way that is not known",
            Self::Damaged => "the answer is damaged",
            Self::TooLarge => "the answer is too large",
            Self::Content => "the answer is malformed",
        })
    }
}

impl Error for MalformedAnswer {}
