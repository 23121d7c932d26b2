//! Limits that rise while they are used, and limits that nobody has set.

use std::time::Duration;

use tokio::time::sleep;
use tower_quota::testing::strict_upstream::{ProviderLimit, StrictUpstream, Told};

use super::{Simulation, TOKENS, WINDOW};
use crate::{
    fleet::run,
    load::{Spread, arrivals},
    paused::Paused,
};

const RISES: Duration = Duration::from_secs(60);
const TIME: Duration = Duration::from_secs(180);

/// What was used of the tokens between two times, in thousandths of so much a minute.
fn used(upstream: &StrictUpstream, from: u64, to: u64, of: u64) -> u64 {
    let start = Paused::START.as_nanos() / 1_000_000_000;
    let record = upstream.record();
    let limit = record.limits.last().expect("that of the tokens");
    let units: u64 = limit.by_second.range(start + from..start + to).map(|(_, units)| units).sum();
    units * 1_000 * 60 / ((to - from) * of)
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_rises_by_what_answers_tell_is_used_by_the_whole_fleet_without_a_refusal() {
    for (seed, spread) in [(1, Spread::Even), (2, Spread::Skewed)] {
        let simulation = Simulation::with_tokens(seed);
        let changing = simulation.upstream.clone();
        tokio::spawn(async move {
            sleep(RISES).await;
            changing.change_limit("org", 1, 2 * TOKENS, Told::AtOnce);
        });
        // One and a half times what there is in the end.
        run(&simulation.fleet, &arrivals(seed, spread, 18, TIME), TIME).await;

        assert_eq!(simulation.upstream.record().refused, [], "{spread:?}");
        for account in &simulation.fleet.accounts {
            let limits = account.notice("").limits;
            let tokens = limits.iter().find(|limit| &*limit.name == "tokens");
            assert_eq!(tokens.expect("answers tell it").limit, 2 * TOKENS, "{spread:?}");
        }
        let before = used(&simulation.upstream, 20, 60, TOKENS);
        let after = used(&simulation.upstream, 90, 180, 2 * TOKENS);
        assert!(before >= 950 && after >= 950, "{spread:?}: {before}, {after}");
    }
}

/// Nothing was set: the first answers tell what there is, and what is left of it but for what comes
/// back in a trip. Where all of it is used, that much may be refused until a refusal tells it to
/// the token.
#[tokio::test(start_paused = true)]
async fn a_limit_that_nobody_has_set_is_learned_and_used() {
    for (seed, spread) in [(3, Spread::Even), (4, Spread::Skewed)] {
        let limits = vec![
            ProviderLimit::requests(3_000).per(WINDOW),
            ProviderLimit::tokens(TOKENS).per(WINDOW),
        ];
        let simulation = Simulation::new(seed, limits, Vec::new());
        run(&simulation.fleet, &arrivals(seed, spread, 9, TIME), TIME).await;

        let refused = simulation.upstream.record().refused;
        assert!(refused.len() <= 4, "{spread:?}: {refused:?}");
        for account in &simulation.fleet.accounts {
            let limits = account.notice("").limits;
            let known = |name: &str| limits.iter().find(|limit| *limit.name == *name);
            let limit = |name| known(name).map(|limit| limit.limit);
            assert_eq!((limit("requests"), limit("tokens")), (Some(3_000), Some(TOKENS)));
        }
        let used = used(&simulation.upstream, 60, 180, TOKENS);
        assert!(used >= 950, "{spread:?}: {used}");
    }
}
