//! A cache of answers: whom it served, what it kept and what not, and its store's failures.

#[cfg(feature = "metrics")]
use std::sync::{Arc, OnceLock};

#[cfg(feature = "metrics")]
use metrics::{Counter, Gauge};

use crate::{error::BackendError, name::PolicyName};

/// What a cache did with a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Served {
    Hit,
    Stale,
    Collapsed,
    Miss,
    NotCached,
    Bypass,
}

/// What became of an answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Fate {
    Stored,
    Broken,
    Declined,
    NotFresh,
    Private,
    StoreFailed,
    TooLarge,
    Unsuccessful,
}

/// What was asked of a store.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum StoreCall {
    Get,
    Put,
    Claim,
}

#[cfg(any(feature = "metrics", feature = "tracing"))]
impl Served {
    const fn name(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Stale => "stale",
            Self::Collapsed => "collapsed",
            Self::Miss => "miss",
            Self::NotCached => "not_cached",
            Self::Bypass => "bypass",
        }
    }
}

#[cfg(any(feature = "metrics", feature = "tracing"))]
impl Fate {
    const fn name(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Broken => "broken",
            Self::Declined => "declined",
            Self::NotFresh => "not_fresh",
            Self::Private => "private",
            Self::StoreFailed => "store_failed",
            Self::TooLarge => "too_large",
            Self::Unsuccessful => "unsuccessful",
        }
    }
}

#[cfg(any(feature = "metrics", feature = "tracing"))]
impl StoreCall {
    const fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Put => "put",
            Self::Claim => "claim",
        }
    }
}

/// Watches one cache.
#[derive(Clone, Debug)]
pub(crate) struct Answers {
    /// The cache's name, for labels.
    cache: PolicyName,
    #[cfg(feature = "metrics")]
    handles: Arc<OnceLock<Handles>>,
}

impl Answers {
    pub(crate) fn new(cache: PolicyName) -> Self {
        Self {
            cache,
            #[cfg(feature = "metrics")]
            handles: Arc::default(),
        }
    }

    /// Notes how a request was served.
    pub(crate) fn served(&self, how: Served) {
        let _ = (how, &self.cache);
        #[cfg(feature = "metrics")]
        of(&self.handles().served, how).increment(1);
        #[cfg(feature = "tracing")]
        tracing::trace!(target: "tower_quota", cache = %self.cache, result = how.name(), "request passed the answer cache");
    }

    /// Notes what became of an answer.
    pub(crate) fn answered(&self, fate: Fate) {
        let _ = fate;
        #[cfg(feature = "metrics")]
        of(&self.handles().answers, fate).increment(1);
        #[cfg(feature = "tracing")]
        match fate {
            Fate::Stored => {
                tracing::trace!(target: "tower_quota", cache = %self.cache, "answer stored");
            }
            _ => {
                tracing::debug!(target: "tower_quota", cache = %self.cache, reason = fate.name(), "answer not stored");
            }
        }
    }

    /// Notes that the store could not do something. The request goes on as if it had nothing.
    pub(crate) fn store_failed(&self, call: StoreCall, error: &BackendError) {
        let _ = (call, error);
        #[cfg(feature = "metrics")]
        metrics::counter!(
            "tower_quota_cache_store_errors_total",
            "cache" => self.cache.to_string(),
            "call" => call.name(),
            "reason" => error.kind().name()
        )
        .increment(1);
        #[cfg(feature = "tracing")]
        tracing::debug!(
            target: "tower_quota", cache = %self.cache, call = call.name(),
            reason = error.kind().name(), cause = super::error_chain(error), "answer store failed"
        );
    }

    /// Notes how much the store holds.
    pub(crate) fn holds(&self, entries: u64, bytes: u64) {
        let _ = (entries, bytes);
        #[cfg(feature = "metrics")]
        {
            let handles = self.handles();
            // A gauge is a double: exact up to 2^53.
            handles.entries.set(entries as f64);
            handles.bytes.set(bytes as f64);
        }
    }

    #[cfg(feature = "metrics")]
    fn handles(&self) -> &Handles {
        self.handles.get_or_init(|| Handles::new(&self.cache))
    }
}

/// Metrics with their labels, registered at the first request.
#[cfg(feature = "metrics")]
struct Handles {
    served: [(Served, Counter); 6],
    answers: [(Fate, Counter); 8],
    entries: Gauge,
    bytes: Gauge,
}

#[cfg(feature = "metrics")]
impl Handles {
    #[cold]
    fn new(cache: &PolicyName) -> Self {
        let cache = cache.to_string();
        let requests = |how: Served| {
            let counter = metrics::counter!(
                "tower_quota_cache_requests_total",
                "cache" => cache.clone(),
                "result" => how.name()
            );
            (how, counter)
        };
        let answers = |fate: Fate| {
            let counter = metrics::counter!(
                "tower_quota_cache_answers_total",
                "cache" => cache.clone(),
                "result" => fate.name()
            );
            (fate, counter)
        };
        Self {
            served: [
                Served::Hit,
                Served::Stale,
                Served::Collapsed,
                Served::Miss,
                Served::NotCached,
                Served::Bypass,
            ]
            .map(requests),
            answers: [
                Fate::Stored,
                Fate::Broken,
                Fate::Declined,
                Fate::NotFresh,
                Fate::Private,
                Fate::StoreFailed,
                Fate::TooLarge,
                Fate::Unsuccessful,
            ]
            .map(answers),
            entries: metrics::gauge!("tower_quota_cache_entries", "cache" => cache.clone()),
            bytes: metrics::gauge!("tower_quota_cache_bytes", "cache" => cache.clone()),
        }
    }
}

#[cfg(feature = "metrics")]
impl std::fmt::Debug for Handles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Handles")
    }
}

/// The counter of one of a few.
#[cfg(feature = "metrics")]
fn of<K: PartialEq>(counters: &[(K, Counter)], key: K) -> &Counter {
    let place = counters.iter().position(|(known, _)| *known == key);
    &counters[place.expect("each has a counter")].1
}
