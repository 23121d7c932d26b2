//! Arrivals: skewed, in bursts, with heavy-tailed costs.

use std::time::Duration;

use crate::fleet::{Call, INSTANCES};

/// A small generator: the same arrivals each time.
#[derive(Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 11) % bound
    }

    /// From `least` to `most`, half of them below twice the least: Pareto's law.
    fn heavy_tailed(&mut self, least: u64, most: u64) -> u64 {
        (least * 1_000_000 / (1 + self.below(1_000_000))).min(most)
    }
}

/// How the calls are spread over the instances.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Spread {
    Even,
    /// Nine of ten come to one instance.
    Skewed,
}

/// Bursts of one to twenty calls, so many a second on average, for that time. Prompts have sixty
/// characters or more, half of them less than twice as many.
pub(crate) fn arrivals(seed: u64, spread: Spread, rate: u64, time: Duration) -> Vec<Call> {
    let mut random = Random(seed);
    let mut calls = Vec::new();
    let mut at = Duration::ZERO;
    while at < time {
        let burst = 1 + random.below(20);
        for _ in 0..burst {
            let other = 1 + random.below(INSTANCES as u64 - 1) as usize;
            let instance = match spread {
                Spread::Even => random.below(INSTANCES as u64) as usize,
                Spread::Skewed if random.below(10) < 9 => 0,
                Spread::Skewed => other,
            };
            let characters = random.heavy_tailed(60, 4_000) as usize;
            let number = calls.len() as u64;
            calls.push(Call { at, instance, characters, number });
        }
        // The mean burst is 10.5 calls.
        at += Duration::from_micros(random.below(2 * 10_500_000 / rate));
    }
    calls
}
