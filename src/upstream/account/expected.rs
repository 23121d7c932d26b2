use super::super::{
    estimate::{Estimate, Unseen},
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
    /// The most tokens that a mebibyte of what nobody had seen came to, of late.
    unseen: u64,
    /// The most by which a call went beyond what was reserved, of those that were not long ago.
    beyond: Cost,
    /// What calls came to of late, times [`MANY`].
    usual: Option<Cost>,
}

impl Expected {
    /// What to reserve: never less than the provider takes at admission. Neither what was learned
    /// of other calls nor a guess makes a request larger than the limits ever are (`capacity`), or
    /// it would be refused for good though it fits, and nothing would be sent any more from which
    /// to learn otherwise.
    pub(super) fn cost(&self, profile: &Profile, estimate: &Estimate, capacity: Cost) -> Cost {
        let seen = estimate.seen();
        let rest = self.rest(estimate.unseen);
        let with_rest = |input: u64| input.saturating_add(rest);
        let whole = Estimate { input: with_rest(seen.input), ..seen };
        let (least, mut expected) = (profile.reserved(&seen), profile.reserved(&whole));
        if profile.usage().settles != Settles::Reserved {
            let output = self.output.apply(USUAL_OUTPUT);
            let usage = Usage {
                input: Some(with_rest(self.input.apply(seen.input))),
                output: Some(seen.output_cap.map_or(output, |cap| cap.min(output))),
                ..Usage::default()
            };
            let learned = profile.cost(&usage);
            expected =
                by_dimension(expected, |dimension, reserved| learned.get(dimension).max(reserved));
        }
        by_dimension(least, |dimension, least| {
            expected.get(dimension).min(capacity.get(dimension)).max(least)
        })
    }

    /// What the part of a request comes to that nobody has seen.
    fn rest(&self, Unseen { bytes, tokens }: Unseen) -> u64 {
        let learned = u128::from(self.unseen) * u128::from(bytes) / MEBIBYTE;
        tokens.max(u64::try_from(learned).unwrap_or(u64::MAX))
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
        match (usage.input, estimate.unseen.bytes) {
            (Some(input), 0) => self.input.settle(estimate.input, input),
            // It says nothing of requests of which all was seen.
            (Some(input), bytes) => {
                let rest = u128::from(input.saturating_sub(estimate.seen().input));
                // What was seen may have been more than it was taken for: of a short rest that is
                // no sign.
                let rest = rest * MEBIBYTE / u128::from(bytes.max(SHORT));
                let rest = u64::try_from(rest.min(DENSE)).unwrap_or(u64::MAX);
                // One that is dense beyond compare would have all the next ones wait for all of a
                // limit, whatever they are.
                let rest = rest.min(self.unseen.max(SPARSE).saturating_mul(RISES));
                self.unseen = rest.max(self.unseen - self.unseen / FADED);
            }
            (None, _) => {}
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
const MEBIBYTE: u128 = 1 << 20;
/// A mebibyte of texts in any language has no more tokens.
const DENSE: u128 = MEBIBYTE / 2;
const SHORT: u64 = 1 << 16;
/// What a mebibyte is taken for of which nothing is known.
const SPARSE: u64 = 4_096;
/// One long request makes so many times as much of what the next ones are taken for, at the most.
const RISES: u64 = 4;
/// Each long request makes so small a part of what others came to forgotten.
const FADED: u64 = 4;
/// The tokens that an answer has before any was seen.
const USUAL_OUTPUT: u64 = 256;
