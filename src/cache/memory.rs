use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use moka::{Expiry, sync::Cache};

use super::{
    answer::Answer,
    found::Found,
    key::AnswerKey,
    store::{AnswerStore, StoreSize},
};
use crate::{
    error::BackendError,
    time::{Clock, MonotonicClock, Timestamp},
};

/// Keeps answers in this process, bounded in bytes and in number.
///
/// Where there is no room, those that are asked for least give way (TinyLFU): a client that asks a
/// thousand things once does not push out what all ask for. An answer weighs what it takes in
/// memory, and at least its share of the room, `max_bytes / max_entries`: so both bounds hold after
/// each answer that is kept.
///
/// # Clone
///
/// Clones keep the same answers.
pub struct MemoryStore<C = MonotonicClock> {
    answers: Cache<AnswerKey, Kept>,
    clock: C,
}

#[derive(Clone)]
struct Kept {
    answer: Arc<Answer>,
    at: Timestamp,
    keep: Duration,
}

impl MemoryStore {
    /// Keeps at most `max_bytes` of answers, and at most 10,000 of them.
    pub fn new(max_bytes: u64) -> Self {
        Self::with_clock(max_bytes, MAX_ENTRIES, MonotonicClock::new())
    }

    /// Keeps at most `max_bytes` of answers, and at most `max_entries` of them.
    pub fn bounded(max_bytes: u64, max_entries: u64) -> Self {
        Self::with_clock(max_bytes, max_entries, MonotonicClock::new())
    }
}

impl<C: Clock> MemoryStore<C> {
    /// The same with a clock of your own, by which answers grow old.
    pub fn with_clock(max_bytes: u64, max_entries: u64, clock: C) -> Self {
        let least = u32::try_from(max_bytes.div_ceil(max_entries.max(1))).unwrap_or(u32::MAX);
        let answers = Cache::builder()
            .max_capacity(if max_entries == 0 { 0 } else { max_bytes })
            .weigher(move |_, kept: &Kept| {
                u32::try_from(kept.answer.weight()).unwrap_or(u32::MAX).max(least)
            })
            .expire_after(UntilKept)
            .build();
        Self { answers, clock }
    }

    /// How many answers are kept.
    pub fn len(&self) -> u64 {
        self.answers.run_pending_tasks();
        self.answers.entry_count()
    }

    /// Whether no answer is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What the answers weigh together, each at least its share: never more than the bound.
    pub fn weight(&self) -> u64 {
        self.answers.run_pending_tasks();
        self.answers.weighted_size()
    }

    /// Forgets all answers.
    pub fn clear(&self) {
        self.answers.invalidate_all();
    }
}

impl<C: Clock> AnswerStore for MemoryStore<C> {
    async fn get(&self, key: &AnswerKey) -> Result<Option<Found>, BackendError> {
        let Some(Kept { answer, at, keep }) = self.answers.get(key) else { return Ok(None) };
        let age = self.clock.now().saturating_since(at);
        if age >= keep {
            // By this clock it is over, whatever the cache's own says.
            self.answers.invalidate(key);
            return Ok(None);
        }
        Ok(Some(Found::new(answer, age)))
    }

    async fn put(
        &self,
        key: &AnswerKey,
        answer: Answer,
        keep: Duration,
    ) -> Result<(), BackendError> {
        let kept = Kept { answer: Arc::new(answer), at: self.clock.now(), keep };
        self.answers.insert(*key, kept);
        // Otherwise the cache makes room some answers later.
        self.answers.run_pending_tasks();
        Ok(())
    }

    fn size(&self) -> Option<StoreSize> {
        Some(StoreSize::new(self.answers.entry_count(), self.answers.weighted_size()))
    }
}

impl<C: Clone> Clone for MemoryStore<C> {
    fn clone(&self) -> Self {
        Self { answers: self.answers.clone(), clock: self.clock.clone() }
    }
}

impl<C> fmt::Debug for MemoryStore<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore")
            .field("entries", &self.answers.entry_count())
            .field("weight", &self.answers.weighted_size())
            .finish_non_exhaustive()
    }
}

/// Frees the memory of answers that are over, whether or not anybody asks for them.
struct UntilKept;

impl Expiry<AnswerKey, Kept> for UntilKept {
    fn expire_after_create(&self, _: &AnswerKey, kept: &Kept, _: Instant) -> Option<Duration> {
        Some(kept.keep)
    }

    fn expire_after_update(
        &self,
        _: &AnswerKey,
        kept: &Kept,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(kept.keep)
    }
}

const MAX_ENTRIES: u64 = 10_000;
