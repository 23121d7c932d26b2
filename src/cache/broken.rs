use std::{error::Error, fmt, sync::Arc};

/// An answer broke off while it was read. What came of it is not kept.
#[derive(Clone, Debug)]
pub struct BrokenAnswer {
    why: Why,
}

#[derive(Clone, Debug)]
enum Why {
    Abandoned,
    Behind,
    Service(Arc<dyn Error + Send + Sync>),
}

impl BrokenAnswer {
    pub(super) const ABANDONED: Self = Self { why: Why::Abandoned };
    pub(super) const BEHIND: Self = Self { why: Why::Behind };

    pub(super) const fn by(error: Arc<dyn Error + Send + Sync>) -> Self {
        Self { why: Why::Service(error) }
    }

    /// Whether this reader was too slow: an answer that is larger than the bound is kept no longer
    /// than the fastest of its readers takes.
    pub const fn is_behind(&self) -> bool {
        matches!(self.why, Why::Behind)
    }
}

impl fmt::Display for BrokenAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.why {
            Why::Abandoned => "the answer broke off: the task that read it has ended",
            Why::Behind => {
                "the answer is larger than the cache keeps, and this reader was too far behind"
            }
            Why::Service(_) => "the answer broke off",
        })
    }
}

impl Error for BrokenAnswer {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.why {
            Why::Service(error) => Some(&**error),
            Why::Abandoned | Why::Behind => None,
        }
    }
}
