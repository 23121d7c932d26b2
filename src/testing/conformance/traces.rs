use std::time::Duration;

use super::{
    super::random::Random,
    Harness,
    trial::{Receipt, Trial},
};
use crate::{
    algorithm::Algorithm,
    cost::Cost,
    decision::{Demand, RetryAfter},
    key::Key,
};

/// How many steps a trace has.
const STEPS: usize = 600;

/// The longest that is waited for: what is used under a fast limit takes a slow one decades.
const LONGEST: Duration = Duration::from_secs(86_400);

/// Everything in any order, on a few keys.
pub(super) async fn any_trace_is_that_of_the_algorithm<A: Algorithm, H: Harness<A>>(
    trial: &mut Trial<'_, A, H>,
    next: &A,
) {
    let mut random = Random::new(20);
    let keys = [Key::from("alice"), Key::from("bob"), Key::from(3), Key::GLOBAL];
    let mut receipts: Vec<(Key, Receipt)> = Vec::new();
    let mut wait = Duration::ZERO;
    let first = trial.algorithm.clone();
    let times = trial.times();

    for _ in 0..STEPS {
        match random.below(8) {
            0 | 1 => trial.advance(*random.choose(&times)),
            2 => trial.advance(wait.saturating_sub(*random.choose(&[Duration::ZERO, H::TICK]))),
            _ => {}
        }
        if random.below(100) == 0 {
            trial.algorithm = random.choose(&[first.clone(), next.clone()]).clone();
        }
        let key = random.choose(&keys);
        let cost = cost(trial, &mut random);
        let decision = match random.below(12) {
            0 => trial.peek(key, cost).await,
            1 => trial.demand(key, Demand::up_to(random.below(5), cost)).await,
            2 if !receipts.is_empty() => {
                let (key, receipt) =
                    receipts.swap_remove(random.below(receipts.len() as u64) as usize);
                let actual = match random.below(3) {
                    0 => Cost::ZERO,
                    1 => receipt.cost().saturating_sub(Cost::ONE),
                    _ => cost,
                };
                trial.settle(&key, receipt, at_most(actual, trial.part(1).times(2))).await;
                continue;
            }
            3 => trial.admit(key, Demand::exactly(cost)).await,
            4 => trial.admit(key, Demand::up_to(random.below(5), cost)).await,
            _ => {
                let decision = trial.take(key, cost).await;
                receipts.extend(decision.receipt().map(|receipt| (key.clone(), receipt)));
                decision
            }
        };
        if let Some(RetryAfter::After(after)) = decision.retry_after() {
            wait = after.min(LONGEST);
        }
    }
}

/// Mostly one unit; also nothing, everything, more than there is, and far too much.
fn cost<A: Algorithm, H: Harness<A>>(trial: &Trial<'_, A, H>, random: &mut Random) -> Cost {
    let capacity = trial.part(1);
    let mut units = |whole: u64| match random.below(12) {
        0 => 0,
        1 => whole,
        2 => whole + 1,
        3 => u64::MAX,
        4 | 5 => whole / 2,
        6 => 3,
        7 => 2,
        _ => 1,
    };
    Cost::new(units(capacity.get(0))).with(1, units(capacity.get(1)))
}

/// A debt that is paid off before the trace is over.
fn at_most(cost: Cost, most: Cost) -> Cost {
    cost.saturating_sub(cost.saturating_sub(most))
}
