//! What the best possible schedule of some arrivals uses, found without this crate.

use std::time::Duration;

use tower_quota::testing::strict_upstream::{Answers, LimitRecord};

use crate::fleet::Call;

/// What a call comes to, and when at the earliest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Demand {
    pub(crate) at: Duration,
    pub(crate) tokens: u64,
}

/// The most that anybody can have used of a bucket at `time`, who knows all arrivals before, and owes
/// nothing: `min over s of A(s) + burst + rate × (time - s)`, and `A(time)`, where `A` is what was asked
/// for until then. The bucket holds `limit`, and so much comes back in a `window`. The calls can be cut
/// into tokens, so that it is an upper bound of what whole calls use.
pub(crate) fn best_use(demands: &[Demand], limit: u64, window: Duration, time: Duration) -> u64 {
    let mut sorted: Vec<Demand> =
        demands.iter().copied().filter(|demand| demand.at <= time).collect();
    sorted.sort_by_key(|demand| demand.at);
    let back = |since: Duration| u128::from(limit) * (time - since).as_nanos() / window.as_nanos();
    let (mut asked, mut best) = (0_u128, u128::MAX);
    for demand in &sorted {
        // Just before it comes, which is when the sum is least.
        best = best.min(asked + u128::from(limit) + back(demand.at));
        asked += u128::from(demand.tokens);
    }
    u64::try_from(best.min(asked)).expect("it is not more than was asked for")
}

/// What was asked for until then.
pub(crate) fn asked(demands: &[Demand], time: Duration) -> u64 {
    demands.iter().filter(|demand| demand.at <= time).map(|demand| demand.tokens).sum()
}

/// What calls come to: a prompt is counted when it comes, at the earliest, and an answer when it is there,
/// which `took` says of the number of a call.
pub(crate) fn demands(
    calls: &[Call],
    answers: &Answers,
    took: impl Fn(u64) -> Duration,
) -> Vec<Demand> {
    let demands = calls.iter().flat_map(|call| {
        // As the provider's tokenizer has it: a message has three tokens more, and so has a request.
        let prompt = call.characters.div_ceil(4) as u64 + 6;
        let done = call.at + took(call.number);
        let output = answers.length(call.number);
        [Demand { at: call.at, tokens: prompt }, Demand { at: done, tokens: output }]
    });
    demands.collect()
}

/// What was used, but for what is owed: the best use owes nothing either.
pub(crate) fn used_without_debt(limit: &LimitRecord) -> u64 {
    limit.spent - limit.used.saturating_sub(limit.limit)
}

#[test]
fn the_best_use_is_that_of_a_bucket_that_is_never_idle() {
    let at = Duration::from_secs;
    let demand = |secs, tokens| Demand { at: at(secs), tokens };
    let best = |demands: &[Demand], secs| best_use(demands, 60, at(60), at(secs));
    assert_eq!(best(&[], 10), 0);
    assert_eq!(best(&[demand(0, 50)], 10), 50, "all of it");
    assert_eq!(best(&[demand(0, 100)], 10), 70, "the bucket and what came back");
    assert_eq!(best(&[demand(0, 100)], 100), 100);
    // It was full until the tenth second: what would have come back is lost.
    assert_eq!(best(&[demand(10, 1_000)], 20), 70);
    assert_eq!(best(&[demand(0, 1_000), demand(15, 5)], 20), 80);
    assert_eq!(best(&[demand(0, 60), demand(100, 1_000)], 110), 130);
}
