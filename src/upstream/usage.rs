use super::{
    dimension::Dimension,
    number::floored,
    profile::{Profile, UsageShape},
    scan::Value,
};
use crate::cost::Cost;

/// What a call used, as its answer says. What it does not say is `None`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Usage {
    /// Tokens of the input, those from a cache too.
    pub input: Option<u64>,
    /// Of these, tokens that were read from a cache.
    pub cache_read: Option<u64>,
    /// Of these, tokens that were written to a cache.
    pub cache_write: Option<u64>,
    /// Tokens of the output, thoughts too.
    pub output: Option<u64>,
}

/// The numbers of an answer as they stand there. Where one comes several times, the largest counts:
/// providers repeat and add up, and an older number must not take back a newer one.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Told {
    numbers: [Option<u64>; UsageTarget::NUMBERS],
    deltas: u64,
}

/// What the paths of usage lead to, as the scanner numbers it.
pub(super) struct UsageTarget;

impl UsageTarget {
    const INPUT: usize = 0;
    const OUTPUT: usize = 1;
    const TOTAL: usize = 2;
    const CACHE_READ: usize = 3;
    const CACHE_WRITE: usize = 4;
    const THOUGHTS: usize = 5;
    const NUMBERS: usize = 6;
    const DELTA: usize = 6;
    const END: usize = 7;

    /// Whether a target is one of these.
    pub(super) const fn has(target: usize) -> bool {
        target < Self::END
    }

    /// The paths of a profile.
    pub(super) fn paths(shape: &UsageShape) -> impl Iterator<Item = (&str, usize)> {
        let lists = [
            (&shape.input, Self::INPUT),
            (&shape.output, Self::OUTPUT),
            (&shape.total, Self::TOTAL),
            (&shape.cache_read, Self::CACHE_READ),
            (&shape.cache_write, Self::CACHE_WRITE),
            (&shape.thoughts, Self::THOUGHTS),
            (&shape.deltas, Self::DELTA),
        ];
        lists
            .into_iter()
            .flat_map(|(paths, target)| paths.iter().map(move |path| (path.as_str(), target)))
    }
}

impl Told {
    pub(super) fn take(&mut self, target: usize, value: Value<'_>) {
        match (self.numbers.get_mut(target), value) {
            (Some(number), Value::Number(text)) => *number = (*number).max(floored(text)),
            (None, Value::Text { characters: 1.., .. }) => {
                self.deltas = self.deltas.saturating_add(1);
            }
            _ => {}
        }
    }

    /// What it comes to. Of an answer that broke off, each text that was put out is a token at
    /// least.
    pub(super) fn usage(&self, shape: &UsageShape, is_whole: bool) -> Usage {
        let [input, output, total, cache_read, cache_write, thoughts] = self.numbers;
        let beside = |is_beside: bool, part: Option<u64>| part.filter(|_| is_beside);
        let sum =
            |parts: &[Option<u64>]| parts.iter().copied().flatten().reduce(u64::saturating_add);
        let cached_beside = shape.cached_outside;
        let input =
            sum(&[input, beside(cached_beside, cache_read), beside(cached_beside, cache_write)]);
        let mut output = sum(&[output, beside(shape.thoughts_outside, thoughts)]);
        if let (None, Some(input), Some(total)) = (output, input, total) {
            output = Some(total.saturating_sub(input));
        }
        if !is_whole && self.deltas > 0 {
            output = output.max(Some(self.deltas));
        }
        Usage {
            input: input.or_else(|| total.filter(|_| output.is_none())),
            cache_read,
            cache_write,
            output,
        }
    }
}

impl Usage {
    /// Whether the answer says anything of it.
    pub const fn is_known(&self) -> bool {
        self.input.is_some() || self.output.is_some()
    }
}

impl Profile {
    /// What a usage costs by the weights of the provider, rounded up. A call is one request.
    ///
    /// ```
    /// use tower_quota::{Cost, upstream::{Profile, UsageReading}};
    ///
    /// // Anthropic does not count input that it has in its cache.
    /// let profile = Profile::ready("anthropic").expect("it is ready-made");
    /// let mut reading = UsageReading::json(&profile);
    /// reading.data(br#"{"usage": {"input_tokens": 50, "cache_read_input_tokens": 200000,
    ///     "output_tokens": 7}}"#);
    /// assert_eq!(profile.cost(&reading.usage()), Cost::new(1).with(1, 50).with(2, 7));
    /// # use tower_quota::reserve::Reading;
    /// ```
    pub fn cost(&self, usage: &Usage) -> Cost {
        let weights = self.weights();
        let input = usage.input.unwrap_or(0);
        let read = usage.cache_read.unwrap_or(0).min(input);
        let write = usage.cache_write.unwrap_or(0).min(input - read);
        let input = [
            (input - read - write, weights.input),
            (read, weights.cache_read),
            (write, weights.cache_write),
        ];
        let output = [(usage.output.unwrap_or(0), weights.output)];
        self.cost_of(|dimension| match dimension {
            Dimension::Requests | Dimension::Concurrency => 1,
            Dimension::InputTokens => weighted(input),
            Dimension::OutputTokens => weighted(output),
            Dimension::Tokens => weighted(input.into_iter().chain(output)),
            _ => 0,
        })
    }
}

/// Tokens by their weights in percent, rounded up together.
fn weighted(parts: impl IntoIterator<Item = (u64, u32)>) -> u64 {
    let parts = parts.into_iter().map(|(tokens, weight)| u128::from(tokens) * u128::from(weight));
    u64::try_from(parts.sum::<u128>().div_ceil(100)).unwrap_or(u64::MAX)
}
