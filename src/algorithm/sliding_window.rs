mod turns;

use std::time::Duration;

#[cfg(feature = "redis")]
use super::window::whole_micros;
use super::{Ahead, Algorithm, Portion, Share, ahead::sealed::Book, window::after};
use crate::{
    cost::Cost,
    decision::{Charge, Decision, Snapshot},
    error::ConfigError,
    name::{PolicyName, QuotaPolicy},
    quota::Quota,
    time::Timestamp,
};

/// A window that moves with the present, in segments.
///
/// It counts in segments of a tenth of the period (unless [told otherwise](Self::segments)) and
/// looks at the present one and *all* that reach into the period before it. So it never admits
/// more than the limit in any window of a period, wherever it begins. The price is that a unit
/// counts for up to one segment longer than the period: a caller who uses everything gets at
/// least 10 / 11 of the rate.
///
/// Others count the present segment and nine older ones, and let up to twice the limit through.
///
/// When the quota changes, what was used in the period counts from that moment.
///
/// ```
/// use std::time::Duration;
/// use tower_quota::{Cost, Quota, algorithm::{Algorithm, SlidingWindow}, time::Timestamp};
///
/// let window = SlidingWindow::new(Quota::per_second(5));
/// let now = Timestamp::from_secs(1);
/// let mut state = window.initial(now);
///
/// assert!(window.decide(&mut state, now, Cost::new(5)).is_allowed());
/// let refused = window.decide(&mut state, now, Cost::ONE);
/// let wait = refused.retry_after().and_then(|retry| retry.duration());
/// assert_eq!(wait, Some(Duration::from_millis(1_100)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SlidingWindow {
    limit: u64,
    period: Duration,
    /// Segments that make up at least a period.
    segments: u64,
    /// Nanoseconds in a segment. Never zero.
    width: u64,
}

/// The use of the present segment and of those before it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SlidingWindowState {
    /// The newest segment with use, counted from the epoch.
    newest: u64,
    /// The segment that was the present one when it was written. The newest is a later one while
    /// turns are given out that are to come: nobody starts before them.
    written: u64,
    /// Nanoseconds in a segment of the window that wrote this.
    width: u64,
    /// The use of each segment, at the place of its number modulo their number.
    counts: Box<[u64]>,
}

impl SlidingWindow {
    /// The segments in a period unless told otherwise.
    pub const DEFAULT_SEGMENTS: u64 = 10;
    /// The most segments in a period.
    pub const MAX_SEGMENTS: u64 = 60;

    /// A window of the quota's period in ten segments.
    pub const fn new(quota: Quota) -> Self {
        Self::with_segments(quota.limit(), quota.period(), Self::DEFAULT_SEGMENTS)
    }

    /// The same window in so many segments: more are more exact and take 8 bytes a key each.
    ///
    /// # Errors
    ///
    /// The number is not from 1 to [`MAX_SEGMENTS`](Self::MAX_SEGMENTS).
    pub fn segments(self, segments: u64) -> Result<Self, ConfigError> {
        ConfigError::check("the number of segments", segments, (1, Self::MAX_SEGMENTS))?;
        Ok(Self::with_segments(self.limit, self.period, segments))
    }

    /// The same window, whose places can be taken so much before they are free, to be waited for.
    #[must_use]
    pub const fn ahead(self, ahead: Duration) -> Ahead<Self> {
        Ahead::new(self, ahead)
    }

    const fn with_segments(limit: u64, period: Duration, segments: u64) -> Self {
        // A quota's period is at most ten years of nanoseconds. Rounded up, so that the segments
        // cover the period.
        let width = (period.as_nanos() as u64).div_ceil(segments);
        Self { limit, period, segments, width }
    }

    /// How many counters a state has.
    const fn slots(&self) -> u64 {
        self.segments + 1
    }

    fn place(&self, segment: u64) -> usize {
        (segment % self.slots()) as usize
    }

    /// The first instant at which `segment` does not count any more.
    const fn leaves_at(&self, segment: u64) -> Timestamp {
        let segments = segment.saturating_add(self.slots());
        Timestamp::from_nanos(segments.saturating_mul(self.width))
    }

    /// Whether the state was written by a window of the same shape, and by a clock that has not
    /// gone back by more than a window since.
    fn fits(&self, state: &SlidingWindowState, present: u64) -> bool {
        state.width == self.width
            && state.counts.len() as u64 == self.slots()
            && state.written <= present.saturating_add(self.slots())
    }

    /// The segments of `state` that count in segment `present`, oldest first, with their use.
    fn live<'s>(
        &'s self,
        state: &'s SlidingWindowState,
        present: u64,
    ) -> impl DoubleEndedIterator<Item = (u64, u64)> + 's {
        let oldest = present.max(state.newest).saturating_sub(self.segments);
        (oldest..=state.newest).map(|segment| (segment, state.counts[self.place(segment)]))
    }

    /// The use of a state that does not [fit](Self::fits), in this window's shape.
    fn shaped(
        &self,
        state: &SlidingWindowState,
        now: Timestamp,
        present: u64,
    ) -> SlidingWindowState {
        let mut shaped = self.initial(now);
        if state.is_ahead() {
            // Nobody starts before the last turn: what counts, counts from the first segment that
            // does not begin before it. If the clock went back for good, those who have turns wait
            // no less for it.
            let is_of_time = state.is_of_time(now, self.width.saturating_mul(self.slots()));
            shaped.newest = if is_of_time {
                present.max(self.begins_with(state.newest, state.width))
            } else {
                let ahead = self.begins_with(state.newest - state.written, state.width);
                present.saturating_add(ahead).saturating_add(1)
            };
        }
        let oldest =
            now.as_nanos().saturating_sub(self.width.saturating_mul(self.segments)) / state.width;
        let older = state.counts.len() as u64;
        let first = oldest.max(state.newest.saturating_sub(older - 1));
        let used = (first..=state.newest).map(|segment| state.counts[(segment % older) as usize]);
        shaped.counts[self.place(shaped.newest)] = used.fold(0, u64::saturating_add);
        shaped
    }

    fn standing(&self, state: &SlidingWindowState, now: Timestamp) -> Standing {
        let present = now.as_nanos() / self.width;
        // A clock that went back waits at the newest segment, if there is any use to wait for. So
        // does everybody if that is the segment of a turn to come.
        let used = total(self.live(state, present));
        let is_ahead = state.is_ahead() && state.newest > present;
        let next = if used > 0 || is_ahead { present.max(state.newest) } else { present };
        Standing { present, next, used, is_ahead }
    }

    /// The same for one who does not start before `from`.
    fn standing_from(
        &self,
        state: &SlidingWindowState,
        now: Timestamp,
        from: Timestamp,
    ) -> Standing {
        let mut standing = self.standing(state, now);
        let first = from.as_nanos() / self.width;
        if from > now {
            standing.is_ahead = true;
            if first > standing.next {
                standing.next = first;
                standing.used = total(self.live(state, first));
            }
        }
        standing
    }

    /// The segment in which `units`, at most the limit, find room that have none at once, and what
    /// is in use there. `None` if they have.
    fn turn(
        &self,
        state: &SlidingWindowState,
        standing: &Standing,
        units: u64,
    ) -> Option<(u64, u64)> {
        let mut used = standing.used;
        let mut excess = used.saturating_sub(self.limit - units);
        if excess == 0 {
            // Who takes nothing does not wait for a turn of others.
            return (standing.is_ahead && units > 0).then_some((standing.next, used));
        }
        let mut live = self.live(state, standing.next);
        let enough = live.find(|(_, its)| {
            excess = excess.saturating_sub(*its);
            used = used.saturating_sub(*its);
            excess == 0
        });
        Some(
            enough
                .map_or((u64::MAX, 0), |(segment, _)| (segment.saturating_add(self.slots()), used)),
        )
    }

    /// The first of these segments that does not begin before one of such a width.
    const fn begins_with(&self, segment: u64, width: u64) -> u64 {
        segment.saturating_mul(width).div_ceil(self.width)
    }

    /// When a segment begins.
    const fn begins_at(&self, segment: u64) -> Timestamp {
        Timestamp::from_nanos(segment.saturating_mul(self.width))
    }

    fn snapshot(&self, state: &SlidingWindowState, standing: Standing, now: Timestamp) -> Snapshot {
        let newest = self.live(state, standing.next).rev().find(|(_, used)| *used > 0);
        let reset_at = newest.map_or(now, |(segment, _)| self.leaves_at(segment));
        let reset_at =
            if standing.is_ahead { reset_at.max(self.begins_at(standing.next)) } else { reset_at };
        let left = self.limit.saturating_sub(standing.used);
        let remaining = if standing.is_ahead { 0 } else { left };
        Snapshot::new(self.limit, remaining, reset_at.saturating_since(now))
    }

    /// Adds to a segment, which is then the newest.
    fn add(&self, state: &mut SlidingWindowState, segment: u64, units: u64) {
        let stale = segment.saturating_sub(state.newest).min(self.slots());
        for stale in 0..stale {
            state.counts[self.place(segment - stale)] = 0;
        }
        state.newest = segment;
        let count = &mut state.counts[self.place(segment)];
        *count = count.saturating_add(units);
    }

    /// Brings the state into this window's shape, and runs `then` on it.
    fn with_shaped<T>(
        &self,
        state: &mut SlidingWindowState,
        now: Timestamp,
        then: impl FnOnce(&mut SlidingWindowState) -> T,
    ) -> T {
        let present = now.as_nanos() / self.width;
        if !self.fits(state, present) {
            *state = self.shaped(state, now, present);
        }
        then(state)
    }
}

#[derive(Clone, Copy)]
struct Standing {
    present: u64,
    /// The segment in which the next one is admitted at the earliest.
    next: u64,
    /// What is in use there.
    used: u64,
    /// Whether that is still to come, because turns in it were given out.
    is_ahead: bool,
}

impl SlidingWindowState {
    /// Whether a turn was given out before it came.
    const fn is_ahead(&self) -> bool {
        self.newest > self.written
    }

    /// Whether the clock that wrote it was not ahead of `now` by more than so many nanoseconds.
    const fn is_of_time(&self, now: Timestamp, nanos: u64) -> bool {
        self.written.saturating_mul(self.width) <= now.as_nanos().saturating_add(nanos)
    }
}

fn total(segments: impl Iterator<Item = (u64, u64)>) -> u64 {
    segments.fold(0, |sum, (_, used)| sum.saturating_add(used))
}

impl SlidingWindow {
    /// The same window for who leaves so much of it.
    pub(super) const fn leaving(&self, left: u64) -> Self {
        Self { limit: self.limit.saturating_sub(left), ..*self }
    }
}

#[cfg(feature = "redis")]
impl SlidingWindow {
    /// The same window in segments of whole microseconds, as a server carries it out.
    pub(crate) const fn in_micros(&self) -> Self {
        Self { width: whole_micros(self.width), ..*self }
    }

    pub(crate) const fn numbers(&self) -> [u64; 3] {
        [self.limit, self.width, self.segments]
    }
}

#[cfg(feature = "redis")]
impl SlidingWindowState {
    /// The state of such segments; `None` if there are none.
    pub(crate) fn of(newest: u64, written: u64, width: u64, counts: Box<[u64]>) -> Option<Self> {
        (width > 0 && !counts.is_empty()).then_some(Self { newest, written, width, counts })
    }
}

#[cfg(feature = "remote")]
impl SlidingWindow {
    /// What it is made of: the limit, the period and the segments.
    pub(super) const fn form(&self) -> (u64, Duration, u64) {
        (self.limit, self.period, self.segments)
    }
}

impl Algorithm for SlidingWindow {
    type State = SlidingWindowState;

    fn initial(&self, now: Timestamp) -> SlidingWindowState {
        let present = now.as_nanos() / self.width;
        SlidingWindowState {
            newest: present,
            written: present,
            width: self.width,
            counts: vec![0; self.slots() as usize].into(),
        }
    }

    fn decide(&self, state: &mut SlidingWindowState, now: Timestamp, cost: Cost) -> Decision {
        self.book(state, now, now, cost, Duration::ZERO)
    }

    fn available(&self, state: &SlidingWindowState, now: Timestamp, each: Cost) -> u64 {
        self.bookable(state, now, each, Duration::ZERO)
    }

    fn take(&self, state: &mut SlidingWindowState, now: Timestamp, cost: Cost) {
        if cost.units() == 0 {
            return;
        }
        self.with_shaped(state, now, |state| {
            let standing = self.standing(state, now);
            self.add(state, standing.next, cost.units());
            state.written = if standing.is_ahead { standing.present } else { standing.next };
        });
    }

    /// Units come back to the segment that was charged; when it has left the window, nowhere.
    fn refund(&self, state: &mut SlidingWindowState, now: Timestamp, charge: &Charge, cost: Cost) {
        if cost.units() == 0 {
            return;
        }
        self.with_shaped(state, now, |state| {
            let present = self.standing(state, now).next;
            let charged = charge.at.as_nanos() / self.width;
            let oldest = present.saturating_sub(self.segments);
            if charged >= oldest
                && charged <= state.newest
                && charged.saturating_add(self.slots()) > state.newest
            {
                let count = &mut state.counts[self.place(charged)];
                *count = count.saturating_sub(cost.units());
            }
        });
    }

    fn idle_at(&self, state: &SlidingWindowState) -> Timestamp {
        let slots = state.counts.len() as u64;
        let segments = (0..slots).filter_map(|age| state.newest.checked_sub(age));
        let newest =
            segments.into_iter().find(|segment| state.counts[(segment % slots) as usize] > 0);
        let leaves = newest.map_or(Timestamp::MIN, |segment| {
            // Its end by the window that wrote it, and then the period of this one.
            let end = Timestamp::from_nanos(segment.saturating_add(1).saturating_mul(state.width));
            after(end, self.segments.saturating_mul(self.width))
        });
        if !state.is_ahead() {
            return leaves;
        }
        // Nobody starts before the last turn, whether it was given back or not: what is older is
        // not known any more.
        leaves.max(self.leaves_at(self.begins_with(state.newest, state.width)))
    }

    fn policies(&self, name: &PolicyName) -> Vec<QuotaPolicy> {
        vec![QuotaPolicy::new(name.clone(), self.limit, self.period)]
    }

    fn capacity(&self) -> Cost {
        Cost::new(self.limit)
    }
}

impl Share for SlidingWindow {
    fn share(&self, portion: Portion) -> Self {
        Self { limit: portion.units(self.limit), ..*self }
    }
}
