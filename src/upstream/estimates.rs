//! What a request is estimated at by the profiles of those who may answer it.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread::available_parallelism,
};

use bytes::Bytes;
use tokio::{sync::Semaphore, task::yield_now};

use super::{
    estimate::{Estimate, Estimating},
    profile::Profile,
    tokenizer::Tokenizer,
};

/// The beginning of a request's body.
pub(super) struct Peeked<'b> {
    pub(super) bytes: &'b Bytes,
    /// Whether nothing is behind it.
    pub(super) is_whole: bool,
    /// Whether it is no longer than what is to be read.
    pub(super) is_short: bool,
    /// The length of the whole body, if that is known.
    pub(super) length: Option<u64>,
    pub(super) model: Option<&'b str>,
}

/// A tokenizer, and how many long texts it counts at a time.
#[derive(Clone)]
pub(super) struct Counter {
    tokenizer: Arc<dyn Tokenizer>,
    /// As many as there are processors: more would be no faster, and whoever sends long texts would
    /// take all of Tokio's threads for work that blocks.
    permits: Arc<Semaphore>,
}

impl Counter {
    pub(super) fn new(tokenizer: impl Tokenizer + 'static) -> Self {
        let processors = available_parallelism().map_or(1, usize::from);
        let permits = Arc::new(Semaphore::new(processors));
        Self { tokenizer: Arc::new(tokenizer), permits }
    }
}

/// An estimate for each profile.
pub(super) struct Estimates(Vec<(Profile, Estimate)>);

impl Estimates {
    /// Estimates a request by each of these profiles. With a tokenizer a long text is counted on a
    /// thread that may block, as long as not too many are.
    pub(super) async fn of(
        profiles: impl Iterator<Item = &Profile>,
        counter: Option<&Counter>,
        peeked: &Peeked<'_>,
    ) -> Self {
        let mut estimates: Vec<(Profile, Estimate)> = Vec::new();
        for profile in profiles {
            let same = estimates.iter().find(|(other, _)| other.estimates_like(profile));
            let estimate = match (same, counter) {
                (Some((_, estimate)), _) => *estimate,
                (None, Some(counter)) if peeked.is_short => {
                    match counter.count(profile, peeked).await {
                        Some(counted) => counted,
                        None => read(profile, peeked).await,
                    }
                }
                (None, _) => read(profile, peeked).await,
            };
            estimates.push((profile.clone(), estimate));
        }
        Self(estimates)
    }

    pub(super) fn by(&self, profile: &Profile) -> Estimate {
        let own = self.0.iter().find(|(other, _)| other.is_same(profile));
        own.map_or_else(Estimate::default, |(_, estimate)| *estimate)
    }
}

/// Reads what is here. Of what is behind it nobody can tell more than how long it is; where not
/// even that is known, it is taken to be as long as what is here.
async fn read(profile: &Profile, peeked: &Peeked<'_>) -> Estimate {
    let mut estimating = Estimating::new(profile);
    for (index, part) in peeked.bytes.chunks(AT_ONCE).enumerate() {
        if index > 0 {
            // So that others have their turn.
            yield_now().await;
        }
        estimating.data(part);
    }
    if peeked.is_whole {
        return estimating.whole();
    }
    let seen = peeked.bytes.len() as u64;
    estimating.with_rest(peeked.length.map_or(seen, |length| length.saturating_sub(seen)))
}

impl Counter {
    /// `None`: nobody could count it now, or the tokenizer panicked, which is one that does not
    /// know.
    async fn count(&self, profile: &Profile, peeked: &Peeked<'_>) -> Option<Estimate> {
        let model = peeked.model.unwrap_or_default();
        if peeked.bytes.len() <= SHORT {
            return count(profile, model, peeked.bytes, &*self.tokenizer);
        }
        // Held until it is counted, whether anybody still waits for that or not.
        let permit = Arc::clone(&self.permits).try_acquire_owned().ok()?;
        let (profile, tokenizer) = (profile.clone(), Arc::clone(&self.tokenizer));
        let (bytes, model) = (peeked.bytes.clone(), model.to_owned());
        let counting = tokio::task::spawn_blocking(move || {
            let counted = count(&profile, &model, &bytes, &*tokenizer);
            drop(permit);
            counted
        });
        counting.await.ok().flatten()
    }
}

fn count(
    profile: &Profile,
    model: &str,
    request: &[u8],
    tokenizer: &dyn Tokenizer,
) -> Option<Estimate> {
    // What of ours it may leave halfway is thrown away; of its own it must be ready to be asked
    // again, as by other threads while one panics.
    catch_unwind(AssertUnwindSafe(|| profile.estimate_with(model, request, tokenizer))).ok()
}

/// The bytes of a body that are read in one go: some milliseconds at most.
const AT_ONCE: usize = 1 << 20;
/// The bytes of a body that are counted where they are: less than a millisecond.
const SHORT: usize = 16 << 10;
