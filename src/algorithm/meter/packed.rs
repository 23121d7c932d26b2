//! A meter's state in one word, which a store can change without a lock.

use std::{hint::select_unpredictable, num::NonZeroU64};

use super::{Meter, MeterState, SECOND, Standing};
use crate::{
    decision::{Decision, Snapshot},
    time::Timestamp,
};

/// No word is as great, so that of two the later is told by the sign of their difference.
const WORDS_END: u64 = 1 << 63;

impl Meter {
    /// Whether a state can be packed: a tick is then a nanosecond.
    pub(in crate::algorithm) const fn packs(&self) -> bool {
        self.tick == 1
    }

    /// Takes `units` if they fit, on a state that is one number: the parts that will have drained
    /// since `origin` when nothing is in use any more. It only grows, so two who change it at once
    /// notice. `None` if it does not fit in 63 bits. There is no limit on the wait: only a token
    /// bucket's state is packed.
    #[inline(always)]
    pub(in crate::algorithm) fn decide_packed(
        &self,
        word: u64,
        origin: Timestamp,
        now: Timestamp,
        units: u64,
    ) -> Option<(Option<u64>, Result<Snapshot, Decision>)> {
        if word >= WORDS_END {
            return None;
        }
        // What is known of such a meter need not be worked out.
        let meter = Self { tick: 1, most: u64::MAX, ..*self };
        let drained = meter.drained_since(origin, now)?;
        // The later of the two. Which it is changes from one decision to the next where they come
        // at about the rate: a processor that guessed it would often be wrong. (The maximum as such
        // would be made a branch where a caller decides in a loop.)
        let is_in_use = drained.wrapping_sub(word).cast_signed() < 0;
        let since = select_unpredictable(is_in_use, word, drained);
        let before = Standing { tick: now.as_nanos(), used: since - drained };
        let need = meter.parts(units);
        let room = meter.full.checked_sub(need);
        if let Some(room) = room
            && before.used <= room
        {
            let next = since + need;
            if next >= WORDS_END {
                return None;
            }
            let after = Standing { used: before.used + need, ..before };
            return Some(((units > 0).then_some(next), Ok(meter.snapshot(after, now))));
        }
        if before.used > meter.full && meter.has_gone_back(before.used) {
            return None;
        }
        Some((None, Err(meter.refused(before, now, room))))
    }

    /// The state that such a number stands for, at `now`. What is too long ago for a word has all
    /// drained.
    pub(in crate::algorithm) fn unpack(
        &self,
        word: u64,
        origin: Timestamp,
        now: Timestamp,
    ) -> MeterState {
        let nanos = now.as_nanos().saturating_sub(origin.as_nanos());
        let used = word.saturating_sub(nanos.saturating_mul(self.drain.get()));
        let used = if self.has_gone_back(used) { self.full } else { used };
        MeterState { at: now, used, unit: self.unit }
    }

    /// Whether the clock must have gone back by more than a second for so much to seem in use: a
    /// packed state has no debt. By less it may only be that of another thread.
    const fn has_gone_back(&self, used: u64) -> bool {
        used.saturating_sub(self.full) > self.drain.get().saturating_mul(SECOND)
    }

    /// When such a state is as good as new.
    #[inline(always)]
    pub(in crate::algorithm) fn packed_idle_at(&self, word: u64, origin: Timestamp) -> Timestamp {
        let nanos = self.ticks_to_drain(word).saturating_mul(self.tick);
        Timestamp::from_nanos(origin.as_nanos().saturating_add(nanos))
    }

    /// What drained, if a word holds as much. A meter holds half of that at the most, so that no
    /// sum of the two overflows.
    #[inline(always)]
    fn drained_since(&self, origin: Timestamp, now: Timestamp) -> Option<u64> {
        let nanos = now.as_nanos().wrapping_sub(origin.as_nanos()).cast_signed();
        if nanos < 0 {
            return before(origin, now);
        }
        // The common rates drain one part a nanosecond. A foreseen branch is not waited for, as a
        // product is.
        if self.drain == NonZeroU64::MIN {
            return Some(nanos.cast_unsigned());
        }
        let drained = nanos.checked_mul(self.drain.get().cast_signed())?;
        Some(drained.cast_unsigned())
    }
}

/// Nothing has drained yet. Another thread's clock may be a little behind the origin, this one's
/// may not. Three centuries after it there are no words any more.
#[cold]
fn before(origin: Timestamp, now: Timestamp) -> Option<u64> {
    let behind = origin.as_nanos().checked_sub(now.as_nanos())?;
    (behind < SECOND).then_some(0)
}
