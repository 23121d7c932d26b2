//! A meter's state in one word, which a store can change without a lock.

use super::{Meter, MeterState, SECOND, Standing};
use crate::{decision::Decision, time::Timestamp};

impl Meter {
    /// Takes `units` if they fit, on a state that is one number: the parts that will have drained
    /// since `origin` when nothing is in use any more. It only grows, so two who change it at once
    /// notice. `None` if it does not fit in a word, or the tick is not a nanosecond. There is no limit on
    /// the wait: only a token bucket's state is packed.
    #[inline(always)]
    pub(in crate::algorithm) fn decide_packed(
        &self,
        word: u64,
        origin: Timestamp,
        now: Timestamp,
        units: u64,
    ) -> Option<(u64, Result<Standing, Decision>)> {
        let drained = self.drained_since(origin, now)?;
        let before = Standing { tick: now.as_nanos(), used: word.saturating_sub(drained) };
        match self.admit(before, now, units, u64::MAX) {
            Ok(after) => {
                // What drained and what was in use then, which is the greater of the two, and what is
                // taken: fewer steps behind the clock's reading than by way of `after`.
                let taken = after.used - before.used;
                let next = if units > 0 { word.max(drained).checked_add(taken)? } else { word };
                Some((next, Ok(after)))
            }
            // What is above the capacity was refused for it.
            Err(_) if before.used > self.full() && self.has_gone_back(before.used) => None,
            Err(denied) => Some((word, Err(denied))),
        }
    }

    /// The state that such a number stands for, at `now`. What is too long ago for a word has all
    /// drained.
    pub(in crate::algorithm) fn unpack(
        &self,
        word: u64,
        origin: Timestamp,
        now: Timestamp,
    ) -> MeterState {
        let before = now < origin || self.tick != 1;
        let drained = self.drained_since(origin, now).unwrap_or(if before { 0 } else { u64::MAX });
        let used = word.saturating_sub(drained);
        let used = if self.has_gone_back(used) { self.full() } else { used };
        MeterState { at: now, used, unit: self.unit }
    }

    /// Whether the clock must have gone back by more than a second for so much to seem in use: a
    /// packed state has no debt. By less it may only be that of another thread.
    const fn has_gone_back(&self, used: u64) -> bool {
        used.saturating_sub(self.full()) > self.drain.get().saturating_mul(SECOND)
    }

    /// When such a state is as good as new.
    #[inline(always)]
    pub(in crate::algorithm) fn packed_idle_at(&self, word: u64, origin: Timestamp) -> Timestamp {
        let nanos = self.ticks_to_drain(word).saturating_mul(self.tick);
        Timestamp::from_nanos(origin.as_nanos().saturating_add(nanos))
    }

    #[inline(always)]
    fn drained_since(&self, origin: Timestamp, now: Timestamp) -> Option<u64> {
        if self.tick != 1 {
            return None;
        }
        match now.as_nanos().checked_sub(origin.as_nanos()) {
            Some(nanos) => nanos.checked_mul(self.drain.get()),
            None => before(origin, now),
        }
    }
}

/// Nothing has drained yet. Another thread's clock may be a little behind the origin, this one's may
/// not.
#[cold]
fn before(origin: Timestamp, now: Timestamp) -> Option<u64> {
    (origin.saturating_since(now).as_nanos() < u128::from(SECOND)).then_some(0)
}
