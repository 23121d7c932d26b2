use super::super::{
    estimate::Estimate,
    learned::Learned,
    profile::{Profile, Settles},
    usage::Usage,
};
use crate::cost::Cost;

/// What calls come to beside what they were estimated at, and so what the next is expected to cost.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Expected {
    input: Learned,
    output: Learned,
    /// The most by which a call went beyond what was reserved, of those that were not long ago.
    beyond: Cost,
    /// What calls came to of late, times [`MANY`].
    usual: Option<Cost>,
}

impl Expected {
    /// What to reserve: never less than the provider takes at admission. What was learned of other
    /// calls makes no request larger than the limits ever are (`capacity`), or it would be refused
    /// for good though it fits, and nothing would be sent any more from which to learn otherwise.
    pub(super) fn cost(&self, profile: &Profile, estimate: &Estimate, capacity: Cost) -> Cost {
        let reserved = profile.reserved(estimate);
        if profile.usage().settles == Settles::Reserved {
            return reserved;
        }
        let output = self.output.apply(USUAL_OUTPUT);
        let usage = Usage {
            input: Some(self.input.apply(estimate.input)),
            output: Some(estimate.output_cap.map_or(output, |cap| cap.min(output))),
            ..Usage::default()
        };
        let learned = profile.cost(&usage);
        by_dimension(reserved, |dimension, reserved| {
            learned.get(dimension).min(capacity.get(dimension)).max(reserved)
        })
    }

    /// Learns what a call came to, and how far that goes beyond what was reserved. How far is
    /// forgotten by and by, as other calls do not go so far.
    pub(super) fn settled(&mut self, reserved: Cost, actual: Cost) {
        self.beyond = by_dimension(self.beyond, |dimension, held| {
            let beyond = actual.get(dimension).saturating_sub(reserved.get(dimension));
            beyond.max(held - held / FORGOTTEN)
        });
        let usual = self
            .usual
            .unwrap_or_else(|| by_dimension(actual, |_, actual| actual.saturating_mul(MANY)));
        self.usual = Some(by_dimension(usual, |dimension, held| {
            (held - held / MANY).saturating_add(actual.get(dimension))
        }));
    }

    /// What calls came to of late, on average.
    pub(super) fn usual(&self) -> Option<Cost> {
        self.usual.map(|usual| by_dimension(usual, |_, sum| sum / MANY))
    }

    /// How far a call may go beyond what is reserved, as far as is known.
    pub(super) const fn beyond(&self) -> Cost {
        self.beyond
    }

    /// Learns what a call came to.
    pub(super) fn learn(&mut self, estimate: &Estimate, usage: &Usage) {
        if let Some(input) = usage.input {
            self.input.settle(estimate.input, input);
        }
        if let Some(output) = usage.output {
            self.output.settle(USUAL_OUTPUT, output);
        }
    }
}

/// A cost in which each number is made of that of another.
fn by_dimension(cost: Cost, number: impl Fn(usize, u64) -> u64) -> Cost {
    (0..Cost::DIMENSIONS)
        .fold(cost, |cost, dimension| cost.with(dimension, number(dimension, cost.get(dimension))))
}

/// Each call makes so small a part of what others have gone beyond forgotten.
const FORGOTTEN: u64 = 256;
/// The average is that of about so many calls.
const MANY: u64 = 64;
/// The tokens that an answer has before any was seen.
const USUAL_OUTPUT: u64 = 256;
