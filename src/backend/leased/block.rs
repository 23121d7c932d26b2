use super::{
    call::Call,
    terms::{Terms, least_passed, longer},
};
use crate::{
    decision::Charge,
    error::{BackendError, BackendErrorKind},
    time::saturating_nanos,
};

/// What one draw brought: parcels of equal size, released one after another, each good for the hold
/// time from its release. Those of a draw from a full bucket are released at once.
///
/// Nothing is kept for each parcel: when one is released and when it expires follows from the last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block {
    /// When the draw was sent, or just before: the earliest that it can have been made.
    sent: u64,
    /// When the answer was there, or just after.
    received: u64,
    /// Nanoseconds after the draw at which the last parcel is released.
    last: u64,
    /// Units of a parcel.
    each: u64,
    /// Parcels.
    count: u64,
    /// Units that were spent or expired, from the first parcel on.
    gone: u64,
    /// Units that expired since somebody counted them.
    expired: u64,
}

impl Block {
    /// What `charge` says was drawn by `call`, whose answer is there at `received`.
    ///
    /// # Errors
    ///
    /// It is not what was asked for, or was so long on its way that nothing of it can be spent.
    pub(super) fn drawn(
        terms: &Terms,
        call: &Call,
        received: u64,
        charge: &Charge,
    ) -> Result<Self, BackendError> {
        let each = call.demand.each.units();
        let count = charge.cost.units() / each.max(1);
        if count == 0 || count > call.demand.most {
            return Err(BackendError::new(BackendErrorKind::Malformed));
        }
        let last = saturating_nanos(charge.delay);
        let mut block = Self { sent: call.sent, received, last, each, count, gone: 0, expired: 0 };
        if block.ready(terms, received) < each && block.covers_at(terms, each).is_none() {
            return Err(BackendError::new(BackendErrorKind::TimedOut));
        }
        Ok(block)
    }

    /// `units` that came back, and expire when those expire with which they were drawn.
    pub(super) const fn returned(terms: &Terms, units: u64, expiry: u64) -> Self {
        let sent = expiry.saturating_sub(terms.life(0));
        Self { sent, received: sent, last: 0, each: 1, count: units, gone: 0, expired: 0 }
    }

    /// Whether `other` came back too, and expires with this.
    pub(super) const fn is_of_the_same(&self, other: &Self) -> bool {
        let is_returned = self.received == self.sent && self.last == 0 && self.each == 1;
        is_returned && self.sent == other.sent
    }

    pub(super) const fn add(&mut self, parcels: u64) {
        self.count += parcels;
    }

    fn forget_expired(&mut self, terms: &Terms, now: u64) {
        let passed = terms.most_passed(now.saturating_sub(self.sent));
        if let Some(expired) = passed.checked_sub(terms.hold()) {
            let gone = self.gone.max(self.until(terms, expired) * self.each);
            self.expired += gone - self.gone;
            self.gone = gone;
        }
    }

    /// The units that have expired and were not counted yet.
    pub(super) const fn take_expired(&mut self) -> u64 {
        std::mem::replace(&mut self.expired, 0)
    }

    /// The units that can be spent now, after forgetting what expired.
    pub(super) fn ready(&mut self, terms: &Terms, now: u64) -> u64 {
        self.forget_expired(terms, now);
        let passed = least_passed(now.saturating_sub(self.received));
        (self.until(terms, passed) * self.each).saturating_sub(self.gone)
    }

    /// Units that are not spent and not expired, released or not.
    pub(super) const fn left(&self) -> u64 {
        self.count * self.each - self.gone
    }

    pub(super) const fn spend(&mut self, units: u64) {
        self.gone += units;
    }

    /// When the oldest parcel that is left expires.
    pub(super) fn expiry(&self, terms: &Terms) -> u64 {
        self.sent.saturating_add(terms.life(self.offset(terms, self.gone / self.each)))
    }

    /// When so much of this block is released that it covers `cost`, if that will be while all of
    /// it is good.
    pub(super) fn covers_at(&self, terms: &Terms, cost: u64) -> Option<u64> {
        // The first parcel may be broken and expire too early: then without it.
        let first = self.gone / self.each;
        [self.gone, (first + 1) * self.each].into_iter().find_map(|gone| {
            let last = gone.checked_add(cost)?.div_ceil(self.each);
            if last > self.count {
                return None;
            }
            let released = self.offset(terms, last - 1);
            let released = self.received.saturating_add(longer(released));
            let expires = terms.life(self.offset(terms, gone / self.each));
            (released < self.sent.saturating_add(expires)).then_some(released)
        })
    }

    /// Nanoseconds after the draw at which `parcel` is released, the first being 0.
    fn offset(&self, terms: &Terms, parcel: u64) -> u64 {
        let after = (self.count - 1).saturating_sub(parcel) * self.each;
        self.last.saturating_sub(terms.drawn_from().nanos_of(after))
    }

    /// How many parcels are released until `nanos` after the draw.
    fn until(&self, terms: &Terms, nanos: u64) -> u64 {
        match self.last.checked_sub(nanos) {
            None | Some(0) => self.count,
            Some(rest) => self.count.saturating_sub(terms.drawn_from().times_in(rest, self.each)),
        }
    }
}
