//! What is posted, as it is kept in a server.

use std::{
    collections::BTreeMap,
    hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{
    KnownLimit, Post,
    stops::{MAX_STOPS, ToldStop},
};
use crate::{
    time::Timestamp,
    upstream::{
        dimension::Dimension,
        observation::{Class, Source, Stop},
    },
};

/// What is still to be posted, by field: of one field only the last matters, and of stops those
/// that may come to hold.
#[derive(Debug, Default)]
pub(super) struct Pending(BTreeMap<String, Post>);

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Wire {
    Stop {
        quota: Box<str>,
        class: Class,
        limit: Option<String>,
        source: Source,
        /// Not told by versions that had one stop of a quota.
        id: Option<u64>,
    },
    Limit {
        quota: Box<str>,
        name: Box<str>,
        dimension: Dimension,
        limit: u64,
        nanos: Option<u64>,
        source: Source,
        instead_of: Option<u64>,
        by: Box<str>,
    },
    Resume {
        quota: Box<str>,
    },
    /// Not told by versions whose instances tried each for itself.
    WentWell {
        quota: Box<str>,
        stop: u64,
    },
}

impl Pending {
    pub(super) fn add(&mut self, post: Post) {
        match &post {
            Post::Stop { quota, stop } => {
                let resumed = match self.0.get(&resume_field(quota)) {
                    Some(Post::Resume { at, .. }) => *at,
                    _ => Timestamp::MIN,
                };
                let is_over = stop.told <= resumed;
                if is_over || self.stops(quota).any(|(_, held)| held.covers(stop)) {
                    return;
                }
                self.forget_stops(quota, |held| stop.covers(held));
                self.bound_stops(quota);
            }
            Post::Resume { quota, at } => self.forget_stops(quota, |held| held.told <= *at),
            Post::Limit { .. } | Post::WentWell { .. } => {}
        }
        let field = field(&post);
        if self.0.get(&field).is_none_or(|held| last(held) <= last(&post)) {
            self.0.insert(field, post);
        }
    }

    /// The stops of a quota.
    fn stops(&self, quota: &str) -> impl Iterator<Item = (&String, &ToldStop)> {
        let all = self.0.iter();
        all.filter_map(move |(field, post)| match post {
            Post::Stop { quota: of, stop } if **of == *quota => Some((field, stop)),
            _ => None,
        })
    }

    /// Forgets these stops of a quota.
    fn forget_stops(&mut self, quota: &str, is_over: impl Fn(&ToldStop) -> bool) {
        let over = self.stops(quota).filter(|(_, stop)| is_over(stop));
        let over: Vec<String> = over.map(|(field, _)| field.clone()).collect();
        for field in over {
            self.0.remove(&field);
        }
    }

    /// Forgets the shortest stop of a quota that has too many.
    fn bound_stops(&mut self, quota: &str) {
        if self.stops(quota).count() >= MAX_STOPS {
            let shortest = self.stops(quota).map(|(_, stop)| stop.end()).min();
            self.forget_stops(quota, |stop| Some(stop.end()) == shortest);
        }
    }

    pub(super) fn take(&mut self) -> Self {
        std::mem::take(self)
    }

    /// Puts back what could not be posted.
    pub(super) fn put_back(&mut self, unposted: Self) {
        unposted.0.into_values().for_each(|post| self.add(post));
    }

    /// The arguments of the script.
    pub(super) fn arguments(&self, now: Timestamp) -> Vec<Vec<u8>> {
        let mut arguments = vec![KEPT.as_millis().to_string().into_bytes()];
        for (field, post) in &self.0 {
            let Ok(rest) = serde_json::to_vec(&Wire::of(post)) else { continue };
            let (order, told) = match post {
                Post::Stop { stop, .. } => (stop.stop.until, stop.told),
                Post::Limit { limit, .. } => (Some(limit.told), limit.told),
                Post::Resume { at, .. } | Post::WentWell { at, .. } => (Some(*at), *at),
            };
            let order = order.map_or_else(|| "never".to_owned(), |order| millis(now, order));
            let head = [field.clone(), order, millis(now, told)].map(String::into_bytes);
            arguments.extend(head.into_iter().chain([rest]));
        }
        arguments
    }
}

/// What a server has, its time being `then` where it is `now` here. What cannot be read is passed
/// over.
pub(super) fn read(fields: &[Vec<u8>], then: i64, now: Timestamp) -> Vec<Post> {
    let values = fields.iter().skip(1).step_by(2);
    values.filter_map(|value| read_one(value, then, now)).collect()
}

fn read_one(value: &[u8], then: i64, now: Timestamp) -> Option<Post> {
    let mut parts = std::str::from_utf8(value).ok()?.splitn(3, ' ');
    let (order, told, rest) = (parts.next()?, parts.next()?, parts.next()?);
    let here = |millis: &str| {
        let from_then = millis.parse::<i64>().ok()?.saturating_sub(then);
        let apart = Duration::from_millis(from_then.unsigned_abs());
        Some(if from_then < 0 { now.saturating_sub(apart) } else { now.saturating_add(apart) })
    };
    let told = here(told)?;
    Some(match serde_json::from_str(rest).ok()? {
        Wire::Stop { quota, class, limit, source, id } => {
            let until = if order == NEVER { None } else { Some(here(order)?) };
            let stop = Stop { class, until, limit: limit.map(Into::into), source };
            // As it stands in the server it is the same whenever it is read.
            // Nor was it told later than now: it would go on when it is ended by hand.
            let told = told.min(now);
            let id =
                id.unwrap_or_else(|| BuildHasherDefault::<DefaultHasher>::new().hash_one(value));
            Post::Stop { quota, stop: ToldStop { stop, told, id } }
        }
        Wire::Limit { quota, name, dimension, limit, nanos, source, instead_of, by } => {
            let window = nanos.map(Duration::from_nanos);
            let by = by.as_ref().into();
            let limit = KnownLimit { name, dimension, limit, window, source, instead_of, told, by };
            Post::Limit { quota, limit }
        }
        // One that is to come, as the clock went back, would end what is told until then.
        Wire::Resume { .. } | Wire::WentWell { .. } if now < told => return None,
        Wire::Resume { quota } => Post::Resume { quota, at: told },
        Wire::WentWell { quota, stop } => Post::WentWell { quota, stop, at: told },
    })
}

impl Wire {
    fn of(post: &Post) -> Self {
        match post.clone() {
            Post::Stop { quota, stop: ToldStop { stop, id, .. } } => Self::Stop {
                quota,
                class: stop.class,
                limit: stop.limit.map(Into::into),
                source: stop.source,
                id: Some(id),
            },
            Post::Limit { quota, limit } => Self::Limit {
                quota,
                name: limit.name,
                dimension: limit.dimension,
                limit: limit.limit,
                nanos: limit.window.map(crate::time::saturating_nanos),
                source: limit.source,
                instead_of: limit.instead_of,
                by: limit.by.as_ref().into(),
            },
            Post::Resume { quota, .. } => Self::Resume { quota },
            Post::WentWell { quota, stop, .. } => Self::WentWell { quota, stop },
        }
    }
}

fn field(post: &Post) -> String {
    match post {
        // Each has its own: a shorter one may hold when a longer one was ended by hand.
        Post::Stop { quota, stop } => format!("stop {quota} {:016x}", stop.id),
        Post::Limit { quota, limit } => limit_field(quota, limit),
        Post::Resume { quota, .. } => resume_field(quota),
        Post::WentWell { quota, .. } => format!("went-well {quota}"),
    }
}

/// A field for all that makes two limits one but for when they were told: of one field the later
/// stays, and what holds follows from all of them. Whatever is in the names, two of them are two
/// fields.
fn limit_field(quota: &str, limit: &KnownLimit) -> String {
    let KnownLimit { name, dimension, limit, window, source, instead_of, .. } = limit;
    let number =
        |number: Option<u128>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
    let window = number(window.map(|window| window.as_nanos()));
    let instead_of = number(instead_of.map(u128::from));
    format!(
        "limit {} {quota} {name} {source:?} {limit} {window} {instead_of} {dimension}",
        quota.len()
    )
}

/// By which of two posts of one field the later is known.
fn last(post: &Post) -> Timestamp {
    match post {
        Post::Stop { stop, .. } => stop.end(),
        Post::Limit { limit, .. } => limit.told,
        Post::Resume { at, .. } | Post::WentWell { at, .. } => *at,
    }
}

fn resume_field(quota: &str) -> String {
    format!("resume {quota}")
}

/// Milliseconds from `now` to `then`.
fn millis(now: Timestamp, then: Timestamp) -> String {
    let later = then.saturating_since(now).as_nanos().div_ceil(1_000_000);
    let earlier = now.saturating_since(then).as_millis();
    if earlier > 0 { format!("-{earlier}") } else { later.to_string() }
}

/// What the script keeps for an end that never comes.
const NEVER: &str = "9007199254740991";
/// How long a board is kept after the last that was posted, or the end of its last stop.
const KEPT: Duration = Duration::from_secs(86_400);
