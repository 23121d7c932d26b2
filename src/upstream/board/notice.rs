use std::{sync::Arc, time::Duration};

use super::{Post, testimony::Testimony};
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
    /// When the stop was told.
    told: Timestamp,
    /// Stops that were told before do not hold.
    resumed: Timestamp,
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
        self.stop
            .as_ref()
            .filter(|stop| self.resumed < self.told && stop.until.is_none_or(|until| now < until))
    }

    /// When the overload was told that still is a reason to send little at this time.
    pub(super) fn overload(&self, now: Timestamp) -> Option<Timestamp> {
        let is_recent = |until: Timestamp| now < until.saturating_add(RECENT);
        let stop = self.stop.as_ref().filter(|_| self.resumed < self.told)?;
        let is_it = stop.class == Class::Overloaded && stop.until.is_none_or(is_recent);
        is_it.then_some(self.told)
    }

    /// What holds at this time.
    pub(super) fn at(mut self, now: Timestamp) -> Self {
        self.stop = self.holding(now).cloned();
        self
    }

    /// Takes in what was posted, and says whether it is new.
    pub(super) fn merge(&mut self, post: Post) -> bool {
        match post {
            Post::Stop { stop, told, .. } => {
                let end = |stop: &Stop| stop.until.unwrap_or(Timestamp::MAX);
                let held = self.stop.as_ref().filter(|_| self.resumed < self.told).map(end);
                if told <= self.resumed {
                    return false;
                }
                // By another's clock the same stop is some moments longer or shorter.
                if held.is_some_and(|held| end(&stop) <= held.saturating_add(SAME)) {
                    return false;
                }
                self.told = told;
                self.stop = Some(stop);
                true
            }
            Post::Resume { at, .. } => {
                let is_news = self.resumed < at;
                self.resumed = self.resumed.max(at);
                is_news
            }
            Post::Limit { limit, .. } => {
                let is_new = self.testimony.add(limit);
                let limits = self.testimony.limits();
                let is_like = |one: &KnownLimit, other: &KnownLimit| {
                    (&one.name, one.limit, one.window) == (&other.name, other.limit, other.window)
                };
                let before = std::mem::replace(&mut self.limits, limits);
                // That it was told again is no news, but it may be what makes another limit hold.
                is_new || before.len() != self.limits.len() || {
                    let mut both = before.iter().zip(&self.limits);
                    both.any(|(one, other)| !is_like(one, other))
                }
            }
        }
    }
}

/// Two ends of stops that are no further apart are the same.
const SAME: Duration = Duration::from_millis(20);
/// How long after its end an overload is a reason to begin slowly, for who has sent nothing
/// meanwhile.
const RECENT: Duration = Duration::from_secs(60);
