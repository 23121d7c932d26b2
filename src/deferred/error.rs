use std::{error::Error, fmt, sync::Arc};

use crate::error::BackendError;

/// A store of deferred requests could not do what was asked.
#[derive(Clone, Debug)]
pub struct StoreError {
    kind: StoreErrorKind,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

/// Why a store could not do it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum StoreErrorKind {
    /// The owner has as many requests or bytes as one may have.
    OwnerFull,
    /// The store has as many requests or bytes as it may have.
    Full,
    /// The disk or the server has no room left.
    NoSpace,
    /// The store is away, or gave no answer in time. What was asked may have been done.
    Unavailable,
    /// What is stored cannot be read.
    Malformed,
}

impl StoreErrorKind {
    /// Its name in metrics and events: `owner_full`, `full`, `no_space`, `unavailable`,
    /// `malformed`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::OwnerFull => "owner_full",
            Self::Full => "full",
            Self::NoSpace => "no_space",
            Self::Unavailable => "unavailable",
            Self::Malformed => "malformed",
        }
    }

    /// Whether a bound that was set is reached: then the store does what it should.
    pub(super) const fn is_bound(self) -> bool {
        matches!(self, Self::OwnerFull | Self::Full)
    }
}

impl StoreError {
    /// An error of this kind.
    pub const fn new(kind: StoreErrorKind) -> Self {
        Self { kind, source: None }
    }

    /// The same error with what caused it.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(Arc::from(source.into()));
        self
    }

    /// Why it could not be done.
    pub const fn kind(&self) -> StoreErrorKind {
        self.kind
    }
}

impl From<BackendError> for StoreError {
    fn from(error: BackendError) -> Self {
        use crate::error::BackendErrorKind;

        let kind = match error.kind() {
            BackendErrorKind::StoreFull => StoreErrorKind::NoSpace,
            BackendErrorKind::Malformed => StoreErrorKind::Malformed,
            _ => StoreErrorKind::Unavailable,
        };
        Self::new(kind).with_source(error)
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            StoreErrorKind::OwnerFull => "the caller has too many deferred requests",
            StoreErrorKind::Full => "too many requests are deferred",
            StoreErrorKind::NoSpace => "there is no room left to store the request",
            StoreErrorKind::Unavailable => "the store of deferred requests cannot be reached",
            StoreErrorKind::Malformed => "the store of deferred requests cannot be read",
        })
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}
