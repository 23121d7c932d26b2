use std::{borrow::Cow, time::Duration};

use super::{SlidingWindow, SlidingWindowState, Standing, total};
use crate::{
    algorithm::{ahead::sealed::Book, times},
    cost::Cost,
    decision::{Charge, Decision, PolicySet, RetryAfter},
    time::Timestamp,
};

impl SlidingWindow {
    /// How it stands for one who does not start before `from`.
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

    /// The state in this window's shape.
    fn in_shape<'s>(
        &self,
        state: &'s SlidingWindowState,
        now: Timestamp,
    ) -> Cow<'s, SlidingWindowState> {
        let present = now.as_nanos() / self.width;
        if self.fits(state, present) {
            Cow::Borrowed(state)
        } else {
            Cow::Owned(self.shaped(state, now, present))
        }
    }
}

/// A turn is in the first segment, of those not before the last turn, in which it fits beside what
/// still counts there. No window that ends later has more of what is booked by then; so the bound
/// holds in each.
impl Book for SlidingWindow {
    fn starts_at(
        &self,
        state: &SlidingWindowState,
        now: Timestamp,
        cost: Cost,
    ) -> Option<Timestamp> {
        if cost.units() > self.limit {
            return None;
        }
        let state = self.in_shape(state, now);
        let turn = self.turn(&state, &self.standing(&state, now), cost.units());
        Some(turn.map_or(now, |(segment, _)| self.begins_at(segment)))
    }

    fn book(
        &self,
        state: &mut SlidingWindowState,
        now: Timestamp,
        from: Timestamp,
        cost: Cost,
        ahead: Duration,
    ) -> Decision {
        self.with_shaped(state, now, |state| {
            let mut standing =
                self.standing_from(state, now, if cost.units() == 0 { now } else { from });
            let deny = |retry_after| Decision::Deny {
                snapshot: self.snapshot(state, standing, now),
                retry_after,
                violated: PolicySet::FIRST,
            };
            let units = cost.units();
            if units > self.limit {
                return deny(RetryAfter::Never);
            }
            let turn = self.turn(state, &standing, units);
            let mut charge = Charge::new(now, cost);
            if let Some((segment, _)) = turn {
                let start = self.begins_at(segment).max(from);
                let takes_at = start.saturating_sub(ahead);
                if ahead.is_zero() || takes_at > now {
                    return deny(RetryAfter::After(takes_at.saturating_since(now)));
                }
                charge.delay = start.saturating_since(now);
            }
            if units > 0 {
                let (segment, used) = turn.unwrap_or((standing.next, standing.used));
                self.add(state, segment, units);
                state.written = if turn.is_some() { standing.present } else { segment };
                standing = Standing {
                    next: segment,
                    used: used + units,
                    is_ahead: turn.is_some(),
                    ..standing
                };
            }
            Decision::Allow { snapshot: self.snapshot(state, standing, now), charge }
        })
    }

    fn bookable(
        &self,
        state: &SlidingWindowState,
        now: Timestamp,
        each: Cost,
        ahead: Duration,
    ) -> u64 {
        let state = &self.in_shape(state, now);
        let units = each.units();
        if units > self.limit {
            return 0;
        }
        let standing = self.standing(state, now);
        let Some((segment, used)) = self.turn(state, &standing, units) else {
            return times(self.limit.checked_sub(standing.used), each);
        };
        if ahead.is_zero() || self.begins_at(segment).saturating_sub(ahead) > now {
            return 0;
        }
        times(self.limit.checked_sub(used), each)
    }
}
