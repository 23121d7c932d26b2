//! Who asks what, when and where: the same each time.

use std::time::Duration;

use crate::support::SECRETS;

/// Tenants and their weights. The last asks for far more than its share.
pub(crate) const TENANTS: [Tenant; 3] = [
    Tenant { name: "gold", key: SECRETS[2], weight: 3 },
    Tenant { name: "silver", key: SECRETS[3], weight: 1 },
    Tenant { name: "greedy", key: SECRETS[4], weight: 1 },
];

#[derive(Clone, Copy, Debug)]
pub(crate) struct Tenant {
    pub(crate) name: &'static str,
    pub(crate) key: &'static str,
    pub(crate) weight: u64,
}

/// A call, as it is asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    pub(crate) at: Duration,
    pub(crate) tenant: usize,
    /// The instance that is asked first.
    pub(crate) instance: usize,
    pub(crate) characters: usize,
    pub(crate) is_stream: bool,
    /// Nobody waits for its answer now.
    pub(crate) is_deferred: bool,
}

/// What is asked for, and how it comes to instances.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Load {
    /// To all alike, and so much that calls of each tenant wait at each instance.
    Heavy,
    /// A little more than there is, and four of ten calls come to the first instance.
    Skewed,
    /// As much as with a heavy load, and nine of ten calls of the tenant that has most come to one instance.
    Apart,
}

impl Load {
    /// By how many seconds of its share a tenant asks for more than there is: at once, and until the end.
    fn excess(self, tenant: usize, time: Duration) -> (u64, u64) {
        let is_greedy = tenant == TENANTS.len() - 1;
        match (self, is_greedy) {
            (Self::Heavy | Self::Apart, false) => (8, (time.as_secs() * 3 / 5).min(20)),
            (Self::Heavy | Self::Apart, true) => (8, (time.as_secs() * 2).min(30)),
            (Self::Skewed, false) => (3, 2),
            (Self::Skewed, true) => (3, 12),
        }
    }
}

/// Calls that ask for more than a full bucket at once, and then for more than refills, in bursts.
pub(crate) fn arrivals(load: Load, rate: u64, window: Duration, time: Duration) -> Vec<Call> {
    let mut random = Random(SEED);
    let weights: u64 = TENANTS.iter().map(|tenant| tenant.weight).sum();
    let mut calls = Vec::new();
    for (tenant, Tenant { weight, .. }) in TENANTS.iter().enumerate() {
        let (backlog, beyond) = load.excess(tenant, time);
        // Thousandths of a call a second.
        let share = rate * 1_000 * weight / weights / MEAN_TOKENS;
        for _ in 0..share * (window.as_secs() + backlog) / 1_000 {
            let at = Duration::from_micros(random.below(1_000_000));
            calls.push(call(&mut random, load, at, tenant));
        }
        let mut at = Duration::from_secs(1);
        while at < time {
            for _ in 0..1 + random.below(8) {
                calls.push(call(&mut random, load, at, tenant));
            }
            // The mean burst is 4.5 calls.
            let pause = 4_500_000_000 * time.as_secs() / (share * (time.as_secs() + beyond));
            at += Duration::from_micros(random.below(2 * pause));
        }
    }
    calls.sort_by_key(|call| call.at);
    calls
}

fn call(random: &mut Random, load: Load, at: Duration, tenant: usize) -> Call {
    let instance = match (load, random.below(10)) {
        (Load::Skewed, 0..4) => 0,
        (Load::Apart, 0..9) if tenant == 0 => 0,
        _ => random.below(INSTANCES as u64) as usize,
    };
    let characters = random.heavy_tailed(4 * LEAST_PROMPT, 4 * MOST_PROMPT) as usize;
    let (is_stream, is_deferred) = (random.below(2) == 0, random.below(100) < DEFERRED);
    Call { at, tenant, instance, characters, is_stream, is_deferred }
}

/// Xorshift.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 11) % bound
    }

    /// From `least` to `most`, half of them below twice the least: Pareto's law.
    fn heavy_tailed(&mut self, least: u64, most: u64) -> u64 {
        (least * 1_000_000 / (1 + self.below(1_000_000))).min(most)
    }
}

pub(crate) const INSTANCES: usize = 8;
const SEED: u64 = 23;
const LEAST_PROMPT: u64 = 250;
const MOST_PROMPT: u64 = 1_500;
/// The answers' lengths: from so many tokens to so many, with a heavy tail too.
pub(crate) const ANSWERS: (u64, u64) = (10, 200);
/// A Pareto law with exponent one that is cut has the mean `least * (1 + ln(most / least))`.
const MEAN_TOKENS: u64 = 740;
/// So many of a hundred calls are answered later.
const DEFERRED: u64 = 3;
