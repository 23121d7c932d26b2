//! What a request is estimated at by the profiles of those who may answer it.

use std::sync::Arc;

use bytes::Bytes;

use super::{estimate::Estimate, profile::Profile, tokenizer::Tokenizer};

/// The beginning of a request's body.
pub(super) struct Peeked<'b> {
    pub(super) bytes: &'b Bytes,
    /// Whether nothing is behind it.
    pub(super) is_whole: bool,
    /// The length of the whole body, as far as it is known.
    pub(super) length: u64,
    pub(super) model: Option<&'b str>,
}

/// An estimate for each profile.
pub(super) struct Estimates(Vec<(Profile, Estimate)>);

impl Estimates {
    /// Estimates a request by each of these profiles. With a tokenizer a long text is counted on a thread
    /// that may block.
    pub(super) async fn of(
        profiles: impl Iterator<Item = &Profile>,
        tokenizer: Option<&Arc<dyn Tokenizer>>,
        peeked: &Peeked<'_>,
    ) -> Self {
        let mut estimates: Vec<(Profile, Estimate)> = Vec::new();
        for profile in profiles {
            let same = estimates.iter().find(|(other, _)| other.estimates_like(profile));
            let estimate = match (same, tokenizer) {
                (Some((_, estimate)), _) => *estimate,
                (None, Some(tokenizer)) if peeked.is_whole => {
                    count(profile, tokenizer, peeked).await
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
    // A text of that length: what it really is nobody can tell before it is sent.
    Estimate { input: peeked.length.div_ceil(4), ..Estimate::default() }
}

async fn count(profile: &Profile, tokenizer: &Arc<dyn Tokenizer>, peeked: &Peeked<'_>) -> Estimate {
    let model = peeked.model.unwrap_or_default();
    if peeked.bytes.len() <= SHORT {
        return profile.estimate_with(model, peeked.bytes, tokenizer);
    }
    let (of, by) = (profile.clone(), Arc::clone(tokenizer));
    let (bytes, model) = (peeked.bytes.clone(), model.to_owned());
    let counted = tokio::task::spawn_blocking(move || of.estimate_with(&model, &bytes, &by)).await;
    // A tokenizer that panics is one that does not know.
    counted.unwrap_or_else(|_| guess(profile, peeked))
}

/// The bytes of a body that are counted where they are: less than a millisecond.
const SHORT: usize = 16 << 10;
