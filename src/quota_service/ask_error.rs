use std::{error::Error, fmt};

use super::request::{Ask, Descriptor};
use crate::error::BackendError;

/// Why the quota service has no verdict.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum AskError {
    /// The domain is empty.
    NoDomain,
    /// There is no descriptor.
    NoDescriptors,
    /// There are too many descriptors.
    TooManyDescriptors,
    /// A descriptor has no entry, or too many.
    EntryCount,
    /// The key of an entry is empty, or a text is too long.
    EntryText,
    /// As many reservations are open as there may be.
    TooManyReservations,
    /// The state could not be reached. That says nothing about the quota.
    Backend(BackendError),
}

impl From<BackendError> for AskError {
    fn from(error: BackendError) -> Self {
        Self::Backend(error)
    }
}

impl fmt::Display for AskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDomain => f.write_str("rate limit domain must not be empty"),
            Self::NoDescriptors => f.write_str("rate limit descriptor list must not be empty"),
            Self::TooManyDescriptors => {
                write!(f, "a request has at most {} descriptors", Ask::MAX_DESCRIPTORS)
            }
            Self::EntryCount => {
                write!(f, "a descriptor has from 1 to {} entries", Descriptor::MAX_ENTRIES)
            }
            Self::EntryText => write!(
                f,
                "an entry has a key, and no text of it is above {} bytes",
                Descriptor::MAX_TEXT
            ),
            Self::TooManyReservations => f.write_str("too many reservations are open"),
            Self::Backend(_) => f.write_str("the rate limit could not be checked"),
        }
    }
}

impl Error for AskError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Backend(error) => Some(error),
            _ => None,
        }
    }
}
