mod turns;

use std::{collections::VecDeque, time::Duration};

#[cfg(feature = "redis")]
use super::window::whole_micros;
use super::{Ahead, Algorithm, Portion, Share, ahead::sealed::Book};
#[cfg(feature = "redis")]
use crate::time::saturating_nanos;
use crate::{
    cost::Cost,
    decision::{Charge, Decision, Snapshot},
    name::{PolicyName, QuotaPolicy},
    quota::Quota,
    time::Timestamp,
};

/// A window that moves with the present, exactly.
///
/// It remembers each admission with its cost, and admits what fits beside those of the last
/// period: never more than the limit in any window of a period, and never one fewer. The window
/// is half open: what came exactly one period ago has left it.
///
/// The memory is one entry of 16 bytes for each admission in a period, not for each unit. It is
/// bounded by [`max_entries`](Self::max_entries): with so many admissions in the period the next
/// one is refused until the oldest leaves.
///
/// When the quota changes, the admissions are counted in the new period.
///
/// ```
/// use std::time::Duration;
/// use tower_quota::{Cost, Quota, algorithm::{Algorithm, SlidingLog}, time::Timestamp};
///
/// let log = SlidingLog::new(Quota::per_second(2));
/// let now = Timestamp::from_secs(1);
/// let mut state = log.initial(now);
/// assert!(log.decide(&mut state, now, Cost::ONE).is_allowed());
///
/// let later = now.saturating_add(Duration::from_millis(300));
/// assert!(log.decide(&mut state, later, Cost::ONE).is_allowed());
/// let refused = log.decide(&mut state, later, Cost::ONE);
/// let wait = refused.retry_after().and_then(|retry| retry.duration());
/// assert_eq!(wait, Some(Duration::from_millis(700)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SlidingLog {
    limit: u64,
    period: Duration,
    max_entries: usize,
}

/// The admissions of a period.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct SlidingLogState {
    /// Instants and units, oldest first.
    entries: VecDeque<(Timestamp, u64)>,
    /// The units of all entries.
    sum: u64,
    /// The last turn that was given out before it came, and when that was: nobody starts before
    /// it. Both are the beginning of time where there is none.
    turn: Timestamp,
    given_at: Timestamp,
}

impl SlidingLog {
    /// The admissions remembered unless told otherwise.
    pub const DEFAULT_ENTRIES: usize = 4_096;

    /// A window of the quota's period.
    pub const fn new(quota: Quota) -> Self {
        Self { limit: quota.limit(), period: quota.period(), max_entries: Self::DEFAULT_ENTRIES }
    }

    /// Admits at most so many requests in a period, whatever they cost; at least one.
    #[must_use]
    pub const fn max_entries(self, max_entries: usize) -> Self {
        Self { max_entries: if max_entries == 0 { 1 } else { max_entries }, ..self }
    }

    /// The same log, whose places can be taken so much before they are free, to be waited for.
    #[must_use]
    pub const fn ahead(self, ahead: Duration) -> Ahead<Self> {
        Ahead::new(self, ahead)
    }

    fn standing(&self, state: &SlidingLogState, now: Timestamp) -> Standing {
        // Entries are in order: a clock that went back waits at the newest, and everybody at a
        // turn that is to come.
        let newest = state.entries.back().map_or(now, |(at, _)| *at);
        let is_ahead = state.turn > now;
        self.standing_at(state, now.max(newest).max(state.turn), is_ahead)
    }

    /// What counts at `next`, which is not before the newest entry.
    fn standing_at(&self, state: &SlidingLogState, next: Timestamp, is_ahead: bool) -> Standing {
        let expired =
            state.entries.partition_point(|(at, _)| next.saturating_since(*at) >= self.period);
        let left = state.entries.range(..expired).fold(0_u64, |sum, (_, used)| sum + used);
        let full = state.entries.len() - expired >= self.max_entries;
        Standing { next, expired, used: state.sum - left, full, is_ahead }
    }

    /// Whether a clock has written it that has since gone back by more than a period.
    fn is_ahead_of(&self, state: &SlidingLogState, now: Timestamp) -> bool {
        let written = match state.entries.back() {
            _ if state.turn > now => state.given_at,
            Some((newest, _)) => *newest,
            None => now,
        };
        written.saturating_since(now) > self.period
    }

    /// Sets right what such a clock has written: its entries would count until it comes there
    /// again. Those who have turns wait no less for them.
    fn set_right(&self, state: &mut SlidingLogState, now: Timestamp) {
        if !self.is_ahead_of(state, now) {
            return;
        }
        let none = (now, Timestamp::MIN, Timestamp::MIN);
        let (at, turn, given_at) = if state.turn > now {
            let turn = now.saturating_add(state.turn.saturating_since(state.given_at));
            if turn > now { (turn, turn, now) } else { none }
        } else {
            none
        };
        state.entries.clear();
        state.entries.push_back((at, state.sum));
        (state.turn, state.given_at) = (turn, given_at);
    }

    /// Forgets what has left the window, when something is added: until then another limit, with a
    /// longer period, may come and count it.
    fn forget(state: &mut SlidingLogState, standing: &mut Standing) {
        state.entries.drain(..standing.expired);
        state.sum = standing.used;
        standing.expired = 0;
    }

    fn leaves_at(&self, at: Timestamp) -> Timestamp {
        at.saturating_add(self.period)
    }

    /// The units that fit; `None` if there is debt.
    fn room(&self, standing: &Standing) -> Option<u64> {
        let room = self.limit.checked_sub(standing.used)?;
        Some(if standing.full { 0 } else { room })
    }

    fn snapshot(&self, state: &SlidingLogState, standing: &Standing, now: Timestamp) -> Snapshot {
        let newest = state.entries.back().filter(|_| standing.used > 0);
        let reset_at = newest.map_or(now, |(at, _)| self.leaves_at(*at));
        let reset_at = if standing.is_ahead { reset_at.max(state.turn) } else { reset_at };
        let remaining = self.room(standing).filter(|_| !standing.is_ahead).unwrap_or(0);
        Snapshot::new(self.limit, remaining, reset_at.saturating_since(now))
    }

    fn add(state: &mut SlidingLogState, at: Timestamp, units: u64) {
        // So many units that the sum would overflow are as good as the most there can be.
        let units = units.min(u64::MAX - state.sum);
        if units == 0 {
            return;
        }
        state.sum += units;
        match state.entries.back_mut() {
            Some((newest, used)) if *newest == at => *used += units,
            _ => state.entries.push_back((at, units)),
        }
    }
}

#[cfg(feature = "redis")]
impl SlidingLog {
    /// The same log over a period of whole microseconds, as a server carries it out.
    pub(crate) fn in_micros(&self) -> Self {
        Self { period: Duration::from_nanos(whole_micros(saturating_nanos(self.period))), ..*self }
    }

    pub(crate) fn numbers(&self) -> [u64; 3] {
        [self.limit, saturating_nanos(self.period), self.max_entries as u64]
    }
}

#[cfg(feature = "redis")]
impl SlidingLogState {
    /// The log of these admissions, oldest first, with the last turn and when it was given out.
    pub(crate) fn of(
        admissions: impl Iterator<Item = (Timestamp, u64)>,
        [turn, given_at]: [Timestamp; 2],
    ) -> Self {
        let mut state = Self { turn, given_at, ..Self::default() };
        admissions.for_each(|(at, units)| SlidingLog::add(&mut state, at, units));
        state
    }

    pub(crate) fn entries(&self) -> usize {
        self.entries.len()
    }
}

struct Standing {
    /// When the next one is admitted at the earliest: now, or at the newest entry's instant if
    /// that is later.
    next: Timestamp,
    /// How many entries have left the window then.
    expired: usize,
    used: u64,
    /// Whether there is no place for another entry.
    full: bool,
    /// Whether that is still to come, because turns were given out.
    is_ahead: bool,
}

#[cfg(feature = "remote")]
impl SlidingLog {
    /// What it is made of: the limit, the period and the most entries.
    pub(super) const fn form(&self) -> (u64, Duration, usize) {
        (self.limit, self.period, self.max_entries)
    }
}

impl Algorithm for SlidingLog {
    type State = SlidingLogState;

    fn initial(&self, _: Timestamp) -> SlidingLogState {
        SlidingLogState::default()
    }

    fn decide(&self, state: &mut SlidingLogState, now: Timestamp, cost: Cost) -> Decision {
        self.book(state, now, now, cost, Duration::ZERO)
    }

    fn available(&self, state: &SlidingLogState, now: Timestamp, each: Cost) -> u64 {
        self.bookable(state, now, each, Duration::ZERO)
    }

    fn take(&self, state: &mut SlidingLogState, now: Timestamp, cost: Cost) {
        if cost.units() == 0 {
            return;
        }
        self.set_right(state, now);
        let mut standing = self.standing(state, now);
        Self::forget(state, &mut standing);
        if standing.full {
            // Use that cannot be refused joins the newest entry, and leaves with it.
            standing.next = state.entries.back().map_or(standing.next, |(at, _)| *at);
        }
        if !standing.is_ahead {
            (state.turn, state.given_at) = (Timestamp::MIN, Timestamp::MIN);
        }
        Self::add(state, standing.next, cost.units());
    }

    /// Units come back to the admission that took them; when it has left the window, nowhere.
    fn refund(&self, state: &mut SlidingLogState, _: Timestamp, charge: &Charge, cost: Cost) {
        let Ok(place) = state.entries.binary_search_by_key(&charge.at, |(at, _)| *at) else {
            return;
        };
        let used = &mut state.entries[place].1;
        let back = cost.units().min(*used);
        *used -= back;
        state.sum -= back;
        if *used == 0 {
            state.entries.remove(place);
        }
    }

    fn idle_at(&self, state: &SlidingLogState) -> Timestamp {
        let newest = state.entries.back().map_or(Timestamp::MIN, |(at, _)| self.leaves_at(*at));
        newest.max(state.turn)
    }

    fn policies(&self, name: &PolicyName) -> Vec<QuotaPolicy> {
        vec![QuotaPolicy::new(name.clone(), self.limit, self.period)]
    }

    fn capacity(&self) -> Cost {
        Cost::new(self.limit)
    }
}

impl Share for SlidingLog {
    /// The entries are a limit too, on requests of any cost: they are divided as well.
    fn share(&self, portion: Portion) -> Self {
        let entries = portion.units(self.max_entries as u64);
        let limit = if entries == 0 { 0 } else { portion.units(self.limit) };
        Self { limit, ..*self }.max_entries(usize::try_from(entries).unwrap_or(usize::MAX))
    }
}
