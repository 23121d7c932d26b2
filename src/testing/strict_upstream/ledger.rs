//! The books of an account, kept in the plainest way that is exact: this is an oracle, so it shares
//! nothing with the algorithms that it judges.

use std::{collections::BTreeMap, time::Duration};

use super::limit::{Counted, ProviderLimit, Told};
use crate::time::{Timestamp, saturating_nanos};

/// What one limit has seen.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) limit: ProviderLimit,
    /// What the provider says that the limit is.
    pub(super) said: u64,
    pub(super) told: Told,
    /// Units in use, times the nanoseconds of the period. So a continuous limit of `amount` frees
    /// exactly `amount` of these in a nanosecond, and a new amount needs no conversion.
    used: u128,
    at: Timestamp,
    /// The most units that were in use at a time.
    pub(super) peak: u64,
    pub(super) spent: u64,
    /// Units by the second in which they were charged.
    pub(super) by_second: BTreeMap<u64, u64>,
}

impl Line {
    pub(super) fn new(limit: ProviderLimit, now: Timestamp) -> Self {
        Self {
            said: limit.amount,
            told: Told::AtOnce,
            limit,
            used: 0,
            at: now,
            peak: 0,
            spent: 0,
            by_second: BTreeMap::new(),
        }
    }

    /// Lets the time until `now` pass.
    pub(super) fn pass(&mut self, now: Timestamp) {
        if self.limit.fixed {
            if self.window(now) > self.window(self.at) {
                self.used = 0;
            }
        } else {
            let nanos = now.saturating_since(self.at).as_nanos();
            self.used = self.used.saturating_sub(nanos.saturating_mul(self.limit.amount.into()));
        }
        self.at = self.at.max(now);
    }

    pub(super) fn fits(&self, cost: u64) -> bool {
        self.used.saturating_add(self.parts(cost)) <= self.parts(self.limit.amount)
    }

    /// The time until `cost` fits, [`None`] if it never does.
    pub(super) fn wait(&self, cost: u64) -> Option<Duration> {
        if cost > self.limit.amount || self.limit.amount == 0 {
            return None;
        }
        let excess = self
            .used
            .saturating_add(self.parts(cost))
            .saturating_sub(self.parts(self.limit.amount));
        Some(if excess == 0 {
            Duration::ZERO
        } else if self.limit.fixed {
            self.until_next_window()
        } else {
            nanos(excess.div_ceil(u128::from(self.limit.amount)))
        })
    }

    /// The time until nothing is in use any more.
    pub(super) fn until_full(&self) -> Duration {
        if self.used == 0 {
            Duration::ZERO
        } else if self.limit.fixed {
            self.until_next_window()
        } else {
            nanos(self.used.div_ceil(u128::from(self.limit.amount.max(1))))
        }
    }

    pub(super) fn charge(&mut self, units: u64) {
        self.used = self.used.saturating_add(self.parts(units));
        self.peak = self.peak.max(self.used());
        self.spent += units;
        *self.by_second.entry(self.at.as_nanos() / 1_000_000_000).or_default() += units;
    }

    /// Gives back units that were charged at `charged`.
    pub(super) fn give_back(&mut self, units: u64, charged: Timestamp) {
        self.spent = self.spent.saturating_sub(units);
        if let Some(sum) = self.by_second.get_mut(&(charged.as_nanos() / 1_000_000_000)) {
            *sum = sum.saturating_sub(units);
        }
        // What an earlier window was charged is no use of this one.
        if !self.limit.fixed || self.window(charged) == self.window(self.at) {
            self.used = self.used.saturating_sub(self.parts(units));
        }
    }

    /// Units in use, rounded up.
    pub(super) fn used(&self) -> u64 {
        u64::try_from(self.used.div_ceil(self.parts(1))).unwrap_or(u64::MAX)
    }

    /// What the provider says is left.
    pub(super) fn said_remaining(&self) -> u64 {
        self.said.saturating_sub(self.used())
    }

    pub(super) fn applies_to(&self, model: &str) -> bool {
        self.limit.model.as_deref().is_none_or(|own| own == model)
    }

    fn parts(&self, units: u64) -> u128 {
        u128::from(units).saturating_mul(self.limit.period.as_nanos())
    }

    fn window(&self, instant: Timestamp) -> u64 {
        instant.as_nanos() / saturating_nanos(self.limit.period)
    }

    fn until_next_window(&self) -> Duration {
        let period = saturating_nanos(self.limit.period);
        Duration::from_nanos(period - self.at.as_nanos() % period)
    }
}

/// What a call is charged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bill {
    pub(super) input: u64,
    pub(super) output: u64,
}

impl Bill {
    pub(super) fn units(self, counted: Counted) -> u64 {
        match counted {
            Counted::Requests => 1,
            Counted::Tokens => self.input + self.output,
            Counted::InputTokens => self.input,
            Counted::OutputTokens => self.output,
        }
    }
}

fn nanos(nanos: u128) -> Duration {
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}
