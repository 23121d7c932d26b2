//! What was told of limits, as it was told, and what follows from it.

use std::{cmp::Reverse, sync::Arc, time::Duration};

use super::KnownLimit;
use crate::upstream::observation::Source;

/// All that was told of the limits of a quota, of each thing the last time.
///
/// Two of them are one by what is in either: of what both have, the later. So it is the same in
/// whatever order it came, however often, and through whomever. Which limit holds follows from it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Testimony(Arc<Vec<KnownLimit>>);

impl Testimony {
    /// Takes in what was told, and says whether nobody has told it before.
    pub(super) fn add(&mut self, told: KnownLimit) -> bool {
        let all = &self.0;
        match all.binary_search_by(|held| identity(held).cmp(&identity(&told))) {
            Ok(at) => {
                if is_later(&told, &all[at]) {
                    Arc::make_mut(&mut self.0)[at] = told;
                }
                false
            }
            Err(at) => {
                let all = Arc::make_mut(&mut self.0);
                all.insert(at, told.clone());
                bound(all);
                all.contains(&told)
            }
        }
    }

    /// The limits that hold, by name.
    pub(super) fn limits(&self) -> Vec<KnownLimit> {
        self.0.chunk_by(|one, other| one.name == other.name).filter_map(holding).collect()
    }
}

/// What makes two of them one, but for when it was told and to whom.
fn identity(told: &KnownLimit) -> impl Ord + '_ {
    (&*told.name, told.source, told.limit, told.window, told.instead_of, told.dimension.name())
}

fn is_later(one: &KnownLimit, other: &KnownLimit) -> bool {
    (one.told, &*one.by) > (other.told, &*other.by)
}

/// Forgets the oldest of what was told of a name that has too much, and names of which there are
/// too many.
fn bound(all: &mut Vec<KnownLimit>) {
    let longest = all.chunk_by(|one, other| one.name == other.name).find(|of| of.len() > MAX_TOLD);
    if let Some(oldest) = longest.and_then(|of| of.iter().min_by_key(|told| told.told)).cloned() {
        all.retain(|told| *told != oldest);
    }
    let last = all.chunk_by(|one, other| one.name == other.name).nth(MAX_LIMITS);
    if let Some(name) = last.map(|of| of[0].name.clone()) {
        all.retain(|told| told.name < name);
    }
}

/// The limit that follows from what was told of one name.
///
/// - What was told [by hand](Source::Configured) is known, and since when: what was told before it
///   says nothing.
/// - What was [inferred](Source::Inferred) speaks against what answers told then: if they go on
///   with that, they are believed again after ten minutes, or once they have told something else.
/// - Whether an answer tells what was so when its request came or when it went, nobody knows: of
///   those that were told with the last, or almost, the lowest holds.
fn holding(all: &[KnownLimit]) -> Option<KnownLimit> {
    let latest = |source: Source| {
        let of_it = all.iter().filter(move |told| told.source == source);
        of_it.max_by_key(|told| (told.told, Reverse(told.limit)))
    };
    let by_hand = latest(Source::Configured);
    let is_since = |told: &&KnownLimit| by_hand.is_none_or(|by_hand| by_hand.told <= told.told);
    let inferred = latest(Source::Inferred).filter(is_since).filter(|inferred| {
        // Nothing else was told since.
        !all.iter().any(|told| {
            told.source == Source::Told
                && ![Some(told.limit), None].contains(&inferred.instead_of)
                && told.limit != inferred.limit
                && inferred.told.saturating_add(DOUBT) <= told.told
        })
    });
    let is_believed = |told: &&KnownLimit| {
        inferred.is_none_or(|inferred| {
            inferred.instead_of != Some(told.limit)
                || inferred.told.saturating_add(BELIEVED) <= told.told
        })
    };
    let by_answers = all.iter().filter(|told| told.source == Source::Told);
    let by_answers = by_answers.filter(is_since).filter(is_believed);
    let standing = || by_answers.clone().chain(by_hand).chain(inferred);
    let last = standing().map(|told| told.told).max()?;
    let limit = standing()
        .filter(|told| last < told.told.saturating_add(DOUBT))
        .min_by_key(|told| (told.limit, Reverse(told.told)))?;
    // An answer that does not give the window away is no news of it.
    let window = limit.window.or_else(|| {
        let known = all.iter().filter(|told| told.window.is_some());
        known.max_by_key(|told| (told.told, told.window))?.window
    });
    Some(KnownLimit { window, ..limit.clone() })
}

/// How long an answer may be on its way.
const DOUBT: Duration = Duration::from_secs(2);
/// How long what was inferred goes before what answers go on to tell: who refused once for another
/// reason is not held to it for ever.
const BELIEVED: Duration = Duration::from_secs(600);
/// The limits that are known of one quota: a provider may name its own. Which are kept depends on
/// their names alone, as whoever hears of them in another order has to keep the same.
const MAX_LIMITS: usize = 32;
/// What is kept of one limit. What is older says nothing of what holds.
const MAX_TOLD: usize = 16;
