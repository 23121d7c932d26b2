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
}

impl Expected {
    /// What to reserve: never less than the provider takes at admission.
    pub(super) fn cost(&self, profile: &Profile, estimate: &Estimate) -> Cost {
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
        larger(reserved, profile.cost(&usage))
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

/// The larger number in each dimension.
fn larger(one: Cost, other: Cost) -> Cost {
    (0..Cost::DIMENSIONS).fold(one, |cost, dimension| {
        cost.with(dimension, cost.get(dimension).max(other.get(dimension)))
    })
}

/// The tokens that an answer has before any was seen.
const USUAL_OUTPUT: u64 = 256;
