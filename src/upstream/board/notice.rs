use std::{sync::Arc, time::Duration};

use super::{
    Post,
    stops::{Stops, ToldStop},
    testimony::Testimony,
};
use crate::{
    time::Timestamp,
    upstream::{
        dimension::Dimension,
        observation::{Class, Source, Stop},
    },
};

/// What is known of a quota.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Notice {
    /// Until when nothing is to be sent, and why.
    pub stop: Option<Stop>,
    /// The limits that answers have told, by name.
    pub limits: Vec<KnownLimit>,
    /// What those follow from.
    testimony: Testimony,
    /// What the stop follows from.
    stops: Stops,
    /// The last time that something went well after a stop, and after which.
    went_well: Option<(Timestamp, u64)>,
}

/// The stop that was the last, whether it still holds or not.
#[derive(Clone, Copy, Debug)]
pub(in crate::upstream) struct LastStop<'n> {
    pub(in crate::upstream) stop: &'n Stop,
    pub(in crate::upstream) told: Timestamp,
    /// The same for all who have heard of it.
    pub(in crate::upstream) id: u64,
    /// When something was sent that went well after it, if that was told.
    pub(in crate::upstream) went_well: Option<Timestamp>,
}

/// What a post was to a notice.
#[derive(Clone, Copy, Debug)]
pub(super) struct News {
    /// Others may not know it.
    pub(super) is_new: bool,
    /// Who uses the quota may have to do otherwise.
    pub(super) is_change: bool,
}

/// A limit as an answer has told it.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct KnownLimit {
    /// Its name: of the profile, or of the provider's policy.
    pub name: Box<str>,
    /// What it counts.
    pub dimension: Dimension,
    /// How much there is in a window.
    pub limit: u64,
    /// Its window; `None` if nobody has told it.
    pub window: Option<Duration>,
    /// How it is known. [`Inferred`](Source::Inferred): by a refusal that what answers tell does
    /// not explain.
    pub source: Source,
    /// What answers tell instead, where it was inferred. If they go on with that, they are believed
    /// again after ten minutes.
    pub instead_of: Option<u64>,
    /// When the request was sent whose answer told it.
    pub told: Timestamp,
    /// Which instance was told.
    pub by: Arc<str>,
}

impl KnownLimit {
    /// A limit that this process was told.
    pub fn new(name: impl Into<Box<str>>, dimension: Dimension, limit: u64) -> Self {
        Self {
            name: name.into(),
            dimension,
            limit,
            window: None,
            source: Source::Told,
            instead_of: None,
            told: Timestamp::MIN,
            by: format!("process {}", std::process::id()).into(),
        }
    }
}

impl Notice {
    /// The stop that holds at this time.
    pub(super) fn holding(&self, now: Timestamp) -> Option<&Stop> {
        self.stop.as_ref().filter(|stop| stop.until.is_none_or(|until| now < until))
    }

    /// When the overload was told that still is a reason to send little at this time.
    pub(super) fn overload(&self, now: Timestamp) -> Option<Timestamp> {
        let is_recent = |until: Timestamp| now < until.saturating_add(RECENT);
        let ToldStop { stop, told, .. } = self.stops.longest()?;
        let is_it = stop.class == Class::Overloaded && stop.until.is_none_or(is_recent);
        is_it.then_some(*told)
    }

    /// The last stop, whether it still holds or not.
    pub(in crate::upstream) fn last_stop(&self) -> Option<LastStop<'_>> {
        self.stops.longest().map(|ToldStop { stop, told, id }| {
            let went_well = self.went_well.filter(|(_, after)| after == id).map(|(at, _)| at);
            LastStop { stop, told: *told, id: *id, went_well }
        })
    }

    /// What holds at this time.
    pub(super) fn at(mut self, now: Timestamp) -> Self {
        self.stop = self.holding(now).cloned();
        self
    }

    /// Takes in what was posted.
    pub(super) fn merge(&mut self, post: Post) -> News {
        match post {
            Post::Stop { stop, .. } => {
                let is_new = self.stops.add(stop);
                self.follow_stops(is_new)
            }
            Post::Resume { at, .. } => {
                let is_new = self.stops.resume(at);
                self.follow_stops(is_new)
            }
            Post::WentWell { stop, at, .. } => {
                // By another's clock it is some moments off: of one stop that is no news.
                let is_new = self.went_well.is_none_or(|(held, after)| after != stop && held <= at);
                if is_new {
                    self.went_well = Some((at, stop));
                }
                News { is_new, is_change: is_new }
            }
            Post::Limit { limit, .. } => {
                let is_new = self.testimony.add(limit);
                let limits = self.testimony.limits();
                let is_like = |one: &KnownLimit, other: &KnownLimit| {
                    (&one.name, one.limit, one.window) == (&other.name, other.limit, other.window)
                };
                let before = std::mem::replace(&mut self.limits, limits);
                // That it was told again is no news, but it may be what makes another limit hold.
                let is_new = is_new || before.len() != self.limits.len() || {
                    let mut both = before.iter().zip(&self.limits);
                    both.any(|(one, other)| !is_like(one, other))
                };
                News { is_new, is_change: is_new }
            }
        }
    }

    /// Lets the longest stop hold.
    fn follow_stops(&mut self, is_new: bool) -> News {
        let longest = self.stops.longest().map(|told| &told.stop);
        let end = |stop: &Stop| stop.until.unwrap_or(Timestamp::MAX);
        let is_change = match (&self.stop, longest) {
            (Some(held), Some(longest)) => {
                let (held, longest) = (end(held), end(longest));
                held.saturating_since(longest).max(longest.saturating_since(held)) > SAME
            }
            (held, longest) => held.is_some() || longest.is_some(),
        };
        if is_new {
            self.stop = longest.cloned();
        }
        News { is_new, is_change }
    }
}

/// Nobody is woken for an end that is no further away from the one before.
const SAME: Duration = Duration::from_millis(20);
/// How long after its end an overload is a reason to begin slowly, for who has sent nothing
/// meanwhile.
const RECENT: Duration = Duration::from_secs(60);
