//! How much of what there is a fleet uses.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tower_quota::testing::strict_upstream::{Answers, StrictUpstream};

use super::{EACH_TOKEN, FIRST_TOKEN, Simulation, TO_THE_PROVIDER, TOKENS, WINDOW, seeds};
use crate::{
    fleet::run,
    load::{Spread, arrivals},
    optimum::{asked, best_use, demands, used_without_debt},
};

const TIME: Duration = Duration::from_secs(6 * 60);
/// Calls a second: half as much again as there is.
const RATE: u64 = 9;

/// What a fleet used, in thousandths of the best use.
#[derive(Debug)]
struct Used {
    /// From the beginning to the end.
    in_all: u64,
    /// While not all that is asked for can be used.
    while_short: u64,
    refused: usize,
}

async fn used(spread: Spread, seed: u64) -> Used {
    let simulation = Simulation::with_tokens(seed);
    let calls = arrivals(seed, spread, RATE, TIME);
    let took = |answers: &Answers, number| {
        TO_THE_PROVIDER.0 + FIRST_TOKEN + EACH_TOKEN * answers.length(number) as u32
    };
    let answers = &simulation.answers;
    let demands = demands(&calls, answers, |number| took(answers, number));
    let best = |time| best_use(&demands, TOKENS, WINDOW, time);

    // It is short from when not all that was asked for could be used any more. Some time is given for
    // what is then still on its way to be used.
    let all_used = |time: &Duration| asked(&demands, *time) == best(*time);
    let short = (1..TIME.as_secs()).rev().map(Duration::from_secs).find(all_used);
    let short = short.expect("the bucket is full at first") + Duration::from_secs(30);
    let (watched, begun) = (simulation.upstream.clone(), Instant::now());
    let until_short = tokio::spawn(async move {
        sleep_until(begun + short).await;
        used_until_now(&watched)
    });
    run(&simulation.fleet, &calls, TIME).await;

    let in_all = used_until_now(&simulation.upstream);
    let while_short = in_all - until_short.await.expect("it is watched");
    Used {
        in_all: in_all * 1_000 / best(TIME),
        while_short: while_short * 1_000 / (best(TIME) - best(short)),
        refused: simulation.upstream.record().refused.len(),
    }
}

fn used_until_now(upstream: &StrictUpstream) -> u64 {
    used_without_debt(&upstream.record().limits[1])
}

#[expect(clippy::print_stdout, reason = "the figures of BENCHMARKS.md are read here")]
async fn uses_all_and_is_not_refused(spread: Spread) {
    for seed in seeds(3) {
        let used = used(spread, seed).await;
        println!("{spread:?}, seed {seed}: {used:?}");
        assert_eq!(used.refused, 0, "seed {seed}");
        assert!(used.in_all >= 990, "seed {seed}: {used:?}");
        assert!(used.while_short >= 980, "seed {seed}: {used:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_fleet_that_is_asked_evenly_uses_what_there_is_and_is_never_refused() {
    uses_all_and_is_not_refused(Spread::Even).await;
}

#[tokio::test(start_paused = true)]
async fn a_fleet_of_which_one_is_asked_most_uses_what_there_is_and_is_never_refused() {
    uses_all_and_is_not_refused(Spread::Skewed).await;
}
