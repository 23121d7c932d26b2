use std::{borrow::Cow, collections::BTreeMap, time::Duration};

use super::{
    dimension::Dimension,
    observation::{Class, Observation, Report, Source, Stop},
    profile::Profile,
};
use crate::{cost::Cost, time::Timestamp};

/// How the limits of one account stand, by the answers that came and the requests that went.
///
/// It is plain state: nothing in it waits or reads a clock. Tell it of each request that
/// [is sent](Self::send) and of each [answer](Self::observe), and ask it [when](Self::admits) a
/// request fits.
///
/// # What it promises
///
/// What an answer says was so when the provider took its request in. Whatever was sent later is
/// taken off, and so is all that has no answer yet: what is [left](Self::left) is never more than
/// the provider has, as long as nobody else uses the account and requests reach it in the order in
/// which they were sent; where one overtakes another, it may be more by that other, until its
/// answer or a newer one is there. An answer to an older request changes nothing where a newer one
/// has been heard, and one that comes twice nothing the second time. A stop is never shortened.
///
/// ```
/// use http::{HeaderMap, StatusCode};
/// use tower_quota::{Cost, time::Timestamp, upstream::{Answer, Profile, Standing}};
///
/// let profile = Profile::ready("openai").expect("it is ready-made");
/// let mut standing = Standing::new(&profile);
/// let at = Timestamp::from_secs;
/// let cost = Cost::new(1).with(1, 100);
/// let first = standing.send(at(1), cost);
/// standing.send(at(2), cost);
/// standing.send(at(3), cost);
///
/// let mut headers = HeaderMap::new();
/// headers.insert("x-ratelimit-remaining-tokens", "1000".parse()?);
/// let answer =
///     Answer { status: StatusCode::OK, headers: &headers, body: b"", sent: at(1), received: at(4) };
/// standing.observe(Some(first), &profile.observe(&answer));
/// assert_eq!(standing.left("tokens", at(4)), Some(800), "the provider had not seen the other two");
/// # Ok::<(), http::header::InvalidHeaderValue>(())
/// ```
#[derive(Clone, Debug)]
pub struct Standing {
    dimensions: Vec<Dimension>,
    limits: Vec<LimitStanding>,
    /// Requests that a limit may not have heard of, in the order in which they were sent.
    sent: BTreeMap<Ticket, Sent>,
    next: u64,
    stop: Option<Stop>,
}

/// A request that was sent.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Ticket {
    sent: Timestamp,
    number: u64,
}

#[derive(Clone, Copy, Debug)]
struct Sent {
    cost: Cost,
    is_answered: bool,
}

/// How one limit stands.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct LimitStanding {
    /// Its name.
    pub name: Cow<'static, str>,
    /// What it counts.
    pub dimension: Dimension,
    /// How much there is in a window, and how that is known.
    pub limit: Option<(u64, Source)>,
    /// Its window, and how that is known.
    pub window: Option<(Duration, Source)>,
    /// It binds ordinary requests.
    pub is_binding: bool,
    refills: bool,
    told: Option<Told>,
}

/// The newest that was told of what is left.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Told {
    /// The request that it was the answer to.
    ticket: Ticket,
    received: Timestamp,
    remaining: u64,
    /// When it is full again.
    reset: Timestamp,
}

impl Standing {
    /// Nothing is known but what the profile says.
    pub fn new(profile: &Profile) -> Self {
        let limits = profile.limits().zip(profile.limit_shapes());
        let limits = limits.map(|((name, dimension, window), shape)| LimitStanding {
            name: name.to_owned().into(),
            dimension,
            limit: None,
            window: window.map(|window| (window, Source::Configured)),
            is_binding: !shape.apart,
            refills: shape.refills,
            told: None,
        });
        Self {
            dimensions: profile.dimensions().to_vec(),
            limits: limits.collect(),
            sent: BTreeMap::new(),
            next: 0,
            stop: None,
        }
    }

    /// Sets a limit by hand, until an answer tells another. There is no effect where the profile
    /// has no limit of this name.
    pub fn configure(&mut self, name: &str, limit: u64, window: Duration) {
        if let Some(standing) = self.limits.iter_mut().find(|standing| standing.name == name) {
            standing.limit = Some((limit, Source::Configured));
            standing.window = Some((window, Source::Configured));
        }
    }

    /// A request of this cost is sent.
    pub fn send(&mut self, now: Timestamp, cost: Cost) -> Ticket {
        let ticket = Ticket { sent: now, number: self.next };
        self.next = self.next.wrapping_add(1);
        self.sent.insert(ticket, Sent { cost, is_answered: false });
        ticket
    }

    /// An answer has come: to the request of a ticket, or to one that somebody else has sent.
    ///
    /// Call it when the header fields are there, not at the end of the body.
    pub fn observe(&mut self, ticket: Option<Ticket>, observation: &Observation) {
        if let Some(sent) = ticket.and_then(|ticket| self.sent.get_mut(&ticket)) {
            sent.is_answered = true;
        }
        let ticket = ticket.unwrap_or(Ticket { sent: observation.sent, number: u64::MAX });
        for report in &observation.reports {
            self.report(ticket, observation.received, report);
        }
        if let Some(stop) = &observation.stop {
            self.halt(stop);
        }
        self.forget();
    }

    /// No answer will come: an error, a time-out. It counts until a newer answer tells better.
    pub fn answered(&mut self, ticket: Option<Ticket>) {
        if let Some(sent) = ticket.and_then(|ticket| self.sent.get_mut(&ticket)) {
            sent.is_answered = true;
        }
        self.forget();
    }

    /// Stops until then, unless a longer stop holds already. [`Class::NeverAdmissible`] stops one
    /// request, not the others.
    pub fn halt(&mut self, stop: &Stop) {
        if stop.class == Class::NeverAdmissible {
            return;
        }
        let end = |stop: &Stop| stop.until.unwrap_or(Timestamp::MAX);
        if self.stop.as_ref().is_none_or(|held| end(held) < end(stop)) {
            self.stop = Some(stop.clone());
        }
    }

    /// Ends a stop by hand, as after a bill was paid.
    pub fn resume(&mut self) {
        self.stop = None;
    }

    /// The stop that holds at this time.
    pub fn stop(&self, now: Timestamp) -> Option<&Stop> {
        self.stop.as_ref().filter(|stop| stop.until.is_none_or(|until| now < until))
    }

    /// The limits, with what is known of them.
    pub fn limits(&self) -> &[LimitStanding] {
        &self.limits
    }

    /// How much of a limit is left for what is still to be sent. `None`: nothing is known.
    pub fn left(&self, name: &str, now: Timestamp) -> Option<u64> {
        let standing = self.limits.iter().find(|standing| standing.name == name)?;
        self.left_of(standing, now)
    }

    /// The most that can be left of a limit by what the answer to this request reports: what it
    /// told, and what has come back since the request was sent. Beside it, what was sent from here
    /// after it, if it is the newest that has an answer.
    ///
    /// It is an upper bound, unlike what is [left](Self::left): the provider may have taken the
    /// request in as soon as it was sent or just now, and what was sent after it before it or not
    /// yet. So it holds for old answers too: one that was overtaken on its way may tell of less
    /// than a newer one.
    pub(super) fn ceiling(
        &self,
        standing: &LimitStanding,
        ticket: Ticket,
        report: &Report,
        now: Timestamp,
    ) -> Option<(u64, u64)> {
        let remaining = report.remaining?.saturating_sub(report.slack);
        let back = match (standing.limit, standing.window) {
            (Some((limit, _)), Some((window, _))) if standing.refills => {
                let elapsed = now.saturating_since(ticket.sent).as_nanos();
                u128::from(limit) * elapsed / window.as_nanos().max(1)
            }
            (_, window) => {
                let window = window.map_or(ASSUMED_WINDOW, |(window, _)| window);
                let reset = report.reset.unwrap_or_else(|| ticket.sent.saturating_add(window));
                if reset <= now {
                    return None;
                }
                0
            }
        };
        let back = u64::try_from(back).unwrap_or(u64::MAX);
        let is_newest = standing.told.is_some_and(|told| told.ticket == ticket);
        let after = self.sent.iter().filter(|(of, _)| is_newest && ticket < **of);
        let after = after.map(|(_, sent)| self.units(standing, sent.cost));
        Some((remaining.saturating_add(back), after.fold(0, u64::saturating_add)))
    }

    /// When a request of this cost fits by all that is known: `now` if it does. It is the latest of
    /// the resets of those limits that have too little left for it. `None`: when is not known, or
    /// never.
    pub fn admits(&self, cost: Cost, now: Timestamp) -> Option<Timestamp> {
        let mut at = match self.stop(now) {
            Some(stop) => stop.until?,
            None => now,
        };
        for standing in self.limits.iter().filter(|standing| standing.is_binding) {
            let needed = self.units(standing, cost);
            if needed == 0 || self.left_of(standing, now).is_none_or(|left| needed <= left) {
                continue;
            }
            if standing.limit.is_some_and(|(limit, _)| limit < needed) {
                return None;
            }
            at = at.max(self.refilled(standing, needed, now)?);
        }
        Some(at)
    }

    fn report(&mut self, ticket: Ticket, received: Timestamp, report: &Report) {
        let known = self.limits.iter().position(|standing| standing.name == report.name);
        let index = match known {
            Some(index) => index,
            None if self.limits.len() < MAX_LIMITS => {
                self.limits.push(LimitStanding {
                    name: report.name.clone(),
                    dimension: report.dimension,
                    limit: None,
                    window: None,
                    is_binding: report.is_binding,
                    refills: false,
                    told: None,
                });
                self.limits.len() - 1
            }
            None => return,
        };
        let standing = &mut self.limits[index];
        if standing.told.is_some_and(|told| ticket < told.ticket) {
            return;
        }
        if let Some(limit) = report.limit {
            standing.limit = Some((limit, Source::Told));
        }
        // One that was inferred stays when the next answer does not give it away.
        if let Some((window, source)) = report.window
            && standing.window.is_none_or(|(_, held)| held <= source)
        {
            standing.window = Some((window, source));
        }
        let Some(remaining) = report.remaining else { return };
        let remaining = remaining.saturating_sub(report.slack);
        let tied = standing.told.filter(|told| told.ticket == ticket);
        let remaining = tied.map_or(remaining, |told| told.remaining.min(remaining));
        let window = standing.window.map_or(ASSUMED_WINDOW, |(window, _)| window);
        let reset = report.reset.unwrap_or_else(|| received.saturating_add(window));
        standing.told = Some(Told { ticket, received, remaining, reset });
    }

    /// What was told, and what has come back since, without whatever has no answer and whatever was
    /// sent after the request of the newest answer.
    fn left_of(&self, standing: &LimitStanding, now: Timestamp) -> Option<u64> {
        let told = standing.told?;
        let limit = standing.limit.map(|(limit, _)| limit);
        let window = standing.window.map(|(window, _)| window);
        let is_reset = told.reset <= now;
        let base = match (is_reset, limit, window) {
            (true, ..) => limit?,
            (false, Some(limit), Some(window)) if standing.refills => {
                let elapsed = now.saturating_since(told.received).as_nanos();
                let back = u128::from(limit) * elapsed / window.as_nanos().max(1);
                let back = u64::try_from(back).unwrap_or(u64::MAX);
                told.remaining.saturating_add(back).min(limit.max(told.remaining))
            }
            _ => told.remaining,
        };
        // A window later, what was sent has come back whatever the provider's rule is.
        let is_back = |sent: Timestamp| {
            is_reset && window.is_some_and(|window| sent.saturating_add(window) <= now)
        };
        let open = self.sent.iter().filter(|(ticket, sent)| {
            !sent.is_answered || (told.ticket < **ticket && !is_back(ticket.sent))
        });
        let open = open.map(|(_, sent)| self.units(standing, sent.cost));
        Some(base.saturating_sub(open.fold(0, u64::saturating_add)))
    }

    /// When so much is there, if nothing more is sent.
    fn refilled(&self, standing: &LimitStanding, needed: u64, now: Timestamp) -> Option<Timestamp> {
        let told = standing.told?;
        let window = standing.window.map_or(ASSUMED_WINDOW, |(window, _)| window);
        let full = if now < told.reset { told.reset } else { now.saturating_add(window) };
        match (standing.limit, standing.window) {
            (Some((limit, _)), Some((window, _))) if standing.refills && limit > 0 => {
                let missing = needed - self.left_of(standing, now)?.min(needed);
                let nanos = window.as_nanos().saturating_mul(u128::from(missing));
                let wait = nanos.div_ceil(u128::from(limit));
                let wait = Duration::from_nanos(u64::try_from(wait).unwrap_or(u64::MAX));
                Some(now.saturating_add(wait))
            }
            _ => Some(full),
        }
    }

    fn units(&self, standing: &LimitStanding, cost: Cost) -> u64 {
        let index = self.dimensions.iter().position(|dimension| *dimension == standing.dimension);
        index.map_or(0, |index| cost.get(index))
    }

    /// Forgets what was answered and is in every limit's newest answer. Where answers tell nothing,
    /// the oldest requests are kept as one.
    fn forget(&mut self) {
        let told = self.limits.iter().filter_map(|standing| standing.told);
        if let Some(oldest) = told.map(|told| told.ticket).min() {
            self.sent.retain(|ticket, sent| !sent.is_answered || oldest < *ticket);
        }
        let answered = self.sent.iter().filter(|(_, sent)| sent.is_answered);
        let answered: Vec<Ticket> = answered.map(|(ticket, _)| *ticket).collect();
        if answered.len() <= MAX_ANSWERED {
            return;
        }
        let (oldest, _) = answered.split_at(MAX_ANSWERED / 2);
        let mut sum = Cost::ZERO;
        for ticket in oldest {
            if let Some(sent) = self.sent.remove(ticket) {
                sum = (0..Cost::DIMENSIONS).fold(sum, |sum, index| {
                    sum.with(index, sum.get(index).saturating_add(sent.cost.get(index)))
                });
            }
        }
        if let Some(last) = oldest.last() {
            self.sent.insert(*last, Sent { cost: sum, is_answered: true });
        }
    }
}

/// The limits that are followed: a provider may name its own.
const MAX_LIMITS: usize = 32;
/// The answered requests that are kept apart.
const MAX_ANSWERED: usize = 1_024;
/// The window of a limit of which nobody says it.
const ASSUMED_WINDOW: Duration = Duration::from_secs(60);
