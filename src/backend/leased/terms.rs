use std::time::Duration;

use crate::{
    algorithm::{Algorithm, LeaseBucket, TokenBucket},
    quota::Quota,
    time::saturating_nanos,
};

/// What a limit becomes when it is leased: how much of its burst is left, and how long a token that
/// was drawn may be held.
///
/// All instances of a limit must have the same terms, or it is as strict as the worst of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Terms {
    limit: TokenBucket,
    /// Nanoseconds.
    hold: u64,
    /// Nanoseconds by which a token expires earlier, for what clocks and meters round.
    guard: u64,
    leased: bool,
    /// What tokens are drawn from: the burst without the price, and the hold time ahead.
    drawn_from: LeaseBucket,
    /// What is decided by at once: the same without what is ahead.
    decided_by: LeaseBucket,
}

/// The clocks of an instance and of the server may run at rates that differ by so many percent.
pub(super) const DRIFT_PERCENT: u64 = 1;

/// What a server's clock rounds: Redis tells microseconds.
const SERVER_ROUNDS: u64 = 2_000;

impl Terms {
    /// The terms of `limit` if its tokens are held for `hold` and what they admit takes up to
    /// `jitter` more to have its effect. Requests cost up to `largest_cost`.
    ///
    /// The burst becomes `burst - rate × (hold + jitter)`, rounded down. If that is less than the
    /// largest cost, or the hold time too short to be measured, the limit is not leased.
    pub fn new(limit: &TokenBucket, hold: Duration, jitter: Duration, largest_cost: u64) -> Self {
        let (quota, capacity) = (limit.quota(), limit.capacity().units());
        let price = price(quota, hold, jitter);
        let burst = capacity.saturating_sub(price);
        let drawn_from = LeaseBucket::new(quota, burst).ahead(hold);
        let hold = saturating_nanos(hold);
        let guard = SERVER_ROUNDS.saturating_add(drawn_from.tick().saturating_mul(2));
        // A hold of eight guards is the shortest that is worth a call.
        let leased = burst >= largest_cost.max(1) && quota.limit() > 0 && hold / 8 > guard;
        let burst = if leased { burst } else { capacity };
        let decided_by = LeaseBucket::new(quota, burst);
        Self { limit: *limit, hold, guard, leased, drawn_from, decided_by }
    }

    /// Whether tokens are drawn in blocks. If not, each request is decided by the backend, and the
    /// limit keeps all of its burst.
    pub const fn is_leased(&self) -> bool {
        self.leased
    }

    /// The most that one request can cost: the burst that is left.
    pub const fn burst(&self) -> u64 {
        self.decided_by.burst()
    }

    /// The limit that was leased.
    pub const fn limit(&self) -> &TokenBucket {
        &self.limit
    }

    /// What blocks are drawn from.
    pub const fn drawn_from(&self) -> &LeaseBucket {
        &self.drawn_from
    }

    /// What is asked where nothing is held: for one decision, a peek, or a limit that is not
    /// leased.
    pub const fn decided_by(&self) -> &LeaseBucket {
        &self.decided_by
    }

    /// Nanoseconds for which a token may be held.
    pub(super) const fn hold(&self) -> u64 {
        self.hold
    }

    /// Nanoseconds after which the answer to a draw is not worth waiting for.
    pub(super) fn patience(&self) -> u64 {
        longer(self.hold).saturating_mul(2).max(LEAST_PATIENCE)
    }

    /// The nanoseconds after the sending at which a token that is released `offset` after the draw
    /// expires, by a clock that may be slow.
    pub(super) const fn life(&self, offset: u64) -> u64 {
        shorter(offset.saturating_add(self.hold)).saturating_sub(self.guard)
    }

    /// The most nanoseconds that have passed for the server while `nanos` passed here.
    pub(super) const fn most_passed(&self, nanos: u64) -> u64 {
        let nanos = nanos.saturating_add(self.guard).saturating_add(1);
        nanos.saturating_add(nanos.div_ceil(100 - DRIFT_PERCENT) * DRIFT_PERCENT).saturating_add(1)
    }
}

/// An answer is waited for at least so long, in nanoseconds.
const LEAST_PATIENCE: u64 = 1_000_000_000;

/// `nanos` of another clock, by a clock that may be slow: as few as it can show.
pub(super) const fn shorter(nanos: u64) -> u64 {
    nanos - nanos.div_ceil(100) * DRIFT_PERCENT
}

/// `nanos` of another clock, by a clock that may be fast: as many as it can show.
pub(super) const fn longer(nanos: u64) -> u64 {
    nanos.saturating_add(nanos.div_ceil(100) * DRIFT_PERCENT)
}

/// The nanoseconds of another clock that have passed at least while `nanos` passed here.
pub(super) const fn least_passed(nanos: u64) -> u64 {
    nanos - nanos.div_ceil(100 + DRIFT_PERCENT) * DRIFT_PERCENT
}

/// `rate × (hold + jitter)`, rounded up.
fn price(quota: Quota, hold: Duration, jitter: Duration) -> u64 {
    let time = u128::from(saturating_nanos(hold.saturating_add(jitter)));
    let price = (time * u128::from(quota.limit())).div_ceil(quota.period_nanos().into());
    u64::try_from(price).unwrap_or(u64::MAX)
}
