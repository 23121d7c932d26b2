//! What a request is estimated at by the profiles of those who may answer it.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread::available_parallelism,
};

use bytes::Bytes;
use http::HeaderMap;
use tokio::sync::Semaphore;

use super::{estimate::Estimate, profile::Profile, reading::media_type, tokenizer::Tokenizer};

/// The beginning of a request's body.
pub(super) struct Peeked<'b> {
    pub(super) bytes: &'b Bytes,
    /// Whether nothing is behind it.
    pub(super) is_whole: bool,
    /// The length of the whole body, as far as it is known.
    pub(super) length: u64,
    pub(super) model: Option<&'b str>,
    /// Its type is that of a file, not of a text.
    pub(super) is_file: bool,
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
                (None, Some(counter)) if peeked.is_whole => {
                    let counted = counter.count(profile, peeked).await;
                    counted.unwrap_or_else(|| guess(profile, peeked))
                }
                (None, _) => guess(profile, peeked),
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

fn guess(profile: &Profile, peeked: &Peeked<'_>) -> Estimate {
    if peeked.is_whole {
        return profile.estimate(peeked.bytes);
    }
    if peeked.is_file {
        // As of one that is short: nothing that is read in it is counted.
        return profile.estimate(b"");
    }
    profile.estimate_beginning(peeked.bytes, peeked.length)
}

/// Whether a request with these fields has a file, or a form with one.
pub(super) fn is_file(headers: &HeaderMap) -> bool {
    let kind = media_type(headers).to_ascii_lowercase();
    let kinds: [&[u8]; 5] =
        [b"multipart/", b"audio/", b"image/", b"video/", b"application/octet-stream"];
    kinds.iter().any(|beginning| kind.starts_with(beginning))
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

/// The bytes of a body that are counted where they are: less than a millisecond.
const SHORT: usize = 16 << 10;
