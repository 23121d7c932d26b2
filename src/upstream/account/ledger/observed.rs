//! What a quota learns from an answer.

use std::sync::Arc;

use super::{
    super::{
        gate::UnderWay,
        rules::{Back, Rules},
    },
    Ledger, lock,
};
use crate::{
    algorithm::Plan,
    backend::Backend,
    cost::Cost,
    decision::{Demand, Snapshot},
    upstream::{
        board::KnownLimit,
        observation::{Class, Observation, Source, Stop},
        standing::Ticket,
    },
};

/// What an answer says of one limit.
struct Told {
    name: Box<str>,
    limit: Option<KnownLimit>,
    remaining: Option<u64>,
    /// The most that may be left, and what was sent from here since.
    ceiling: Option<(u64, u64)>,
}

impl<B: Backend<Plan>> Ledger<B> {
    /// A good answer is there: others may go.
    pub(in super::super) fn went_well(&self, under_way: UnderWay, observation: &Observation) {
        lock(&self.untold).went_well(observation.sent);
        if let Some(stop) = under_way.succeed() {
            self.board.post_went_well(&self.quota, stop, observation.sent);
        }
    }

    /// Takes in what an answer says, and tells the others what they must know. `is_tried_out`:
    /// requests were sent by trial until it came.
    pub(in super::super) fn observe(
        &self,
        ticket: Ticket,
        is_tried_out: bool,
        cost: Cost,
        snapshot: &Snapshot,
        observation: &Observation,
    ) {
        let told = self.told(Some(ticket), observation);
        if let Some(stop) = &observation.stop {
            self.stopped(stop, observation.received);
        }
        let rules = self.post_limits(&told);
        for told in &told {
            if let (Some(place), Some(remaining), Some((ceiling, after))) =
                (rules.place(&told.name), told.remaining, told.ceiling)
                && let Some(excess) = rules.excess(snapshot, place, remaining)
            {
                // Where more is missing than can have been sent since, that is missing beside it.
                let unseen = if excess / 2 > after { after } else { 0 };
                self.lower(&rules, place, ceiling.saturating_sub(unseen));
            }
        }
        if let Some(stop) = &observation.stop
            && stop.class == Class::Transient
        {
            self.infer(cost, snapshot, &rules, observation, stop);
            // What refuses has nothing left, whatever is counted here.
            for (place, placed) in rules.limits.iter().enumerate() {
                let is_it = stop.limit.as_ref().is_none_or(|name| **name == *placed.name);
                let is_told =
                    told.iter().any(|told| told.remaining.is_some() && *told.name == *placed.name);
                if is_it && !is_told && placed.back == Back::Refills && placed.limit.is_some() {
                    self.lower(&rules, place, 0);
                }
            }
        }
        if is_tried_out {
            // Somebody else may be sent now.
            self.queue.rouse(&self.key);
        }
    }

    /// Takes in what an error inside of an answer says. It is no news of what was sent before it,
    /// and comes at any time after the request: what it tells is left is as of now, and nothing
    /// follows from what was counted when the request was admitted.
    pub(in super::super) fn observe_inside(&self, observation: &Observation) {
        let told = self.told(None, observation);
        if let Some(stop) = &observation.stop {
            self.stopped(stop, observation.received);
        }
        let rules = self.post_limits(&told);
        for told in &told {
            if let (Some(place), Some(remaining)) = (rules.place(&told.name), told.remaining) {
                self.lower(&rules, place, remaining);
            }
        }
    }

    /// What an answer says of limits, beside what was known of them.
    fn told(&self, ticket: Option<Ticket>, observation: &Observation) -> Vec<Told> {
        let mut standing = lock(&self.standing);
        standing.observe(ticket, observation);
        // By a limit of nothing nobody would be sent any more, and nothing heard that tells
        // another: whoever means it says so to each request.
        let told = observation.reports.iter().filter(|report| report.limit != Some(0));
        let reports = told.filter_map(|report| {
            let known = standing.limits().iter().find(|known| known.name == report.name);
            let known = known.filter(|known| known.is_binding)?;
            let limit = known.limit.filter(|(_, source)| *source == Source::Told);
            let limit = report.limit.and(limit).map(|(limit, _)| KnownLimit {
                window: known.window.map(|(window, _)| window),
                told: observation.sent,
                ..KnownLimit::new(&*known.name, known.dimension, limit)
            });
            let ceiling =
                ticket.and_then(|ticket| standing.ceiling(known, ticket, report, self.board.now()));
            let (name, remaining) = ((*known.name).into(), report.remaining);
            Some(Told { name, limit, remaining, ceiling })
        });
        reports.collect()
    }

    /// Tells the others what limits are, and follows it.
    fn post_limits(&self, told: &[Told]) -> Arc<Rules> {
        told.iter().filter_map(|told| told.limit.as_ref()).for_each(|limit| self.post_limit(limit));
        self.follow();
        self.rules()
    }

    fn post_limit(&self, limit: &KnownLimit) {
        let notice = self.board.notice(&self.quota);
        let held = notice.limits.iter().find(|held| held.name == limit.name);
        // An answer that does not give the window away is no news of it.
        let window = limit.window.or_else(|| held.and_then(|held| held.window));
        if held.is_none_or(|held| (held.limit, held.window) != (limit.limit, window)) {
            self.board.post_limit(&self.quota, KnownLimit { window, ..limit.clone() });
        }
    }

    /// Lowers the limit that has this place in these rules. Nobody waits for it.
    fn lower(&self, rules: &Rules, place: usize, left: u64) {
        let demand = Demand::lower_to(place, left);
        // By the plan that the place is of: the limiter's may be another by now.
        self.limiter().backend().decide(&rules.plan, &self.key, &demand).detach();
    }

    /// Infers a limit that is lower than all that was told of it, as nothing else explains the
    /// refusal: in a bucket that refills, the missing part is what refills in the wait. A tenth is
    /// taken off for what is counted here and not there.
    fn infer(
        &self,
        cost: Cost,
        snapshot: &Snapshot,
        rules: &Rules,
        observation: &Observation,
        stop: &Stop,
    ) {
        let place = snapshot.policy;
        let Some(placed) = rules.limits.get(place).filter(|placed| placed.back == Back::Refills)
        else {
            return;
        };
        let (Some(limit), Some(until), Source::Told) = (placed.limit, stop.until, stop.source)
        else {
            return;
        };
        let is_it = stop.limit.as_ref().is_none_or(|name| **name == *placed.name);
        let told = observation.reports.iter().find(|report| *report.name == *placed.name);
        let is_explained = told.is_some_and(|told| {
            told.limit.is_some_and(|told| told != limit)
                || told.remaining.is_some_and(|left| left < cost.get(placed.dimension))
        });
        if !is_it || is_explained {
            return;
        }
        let used = u128::from(snapshot.limit.saturating_sub(snapshot.remaining));
        if used * 2 < u128::from(limit) {
            // It is somebody else who uses the account.
            return;
        }
        let window = placed.window.as_nanos();
        let wait = until.saturating_since(observation.received).as_nanos();
        let inferred = used * window / (window + wait).max(1) * 9 / 10;
        let inferred = u64::try_from(inferred).unwrap_or(u64::MAX).max(1);
        if inferred < limit {
            let dimension = self.profile.dimensions().get(placed.dimension);
            let Some(dimension) = dimension else { return };
            let held = self.board.notice(&self.quota);
            let held = held.limits.iter().find(|held| held.name == placed.name);
            let told = held.and_then(|held| held.instead_of).unwrap_or(limit);
            self.board.post_limit(
                &self.quota,
                KnownLimit {
                    window: Some(placed.window),
                    source: Source::Inferred,
                    instead_of: Some(told),
                    told: observation.sent,
                    ..KnownLimit::new(&*placed.name, *dimension, inferred)
                },
            );
            self.follow();
        }
    }
}
