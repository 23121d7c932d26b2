//! A provider that is overloaded for a moment.

use std::time::Duration;

use axum::http::StatusCode;
use tokio::time::sleep;
use tower_quota::{
    Quota,
    testing::strict_upstream::{Fault, ProviderLimit},
};

use super::{NEWS, Simulation, TO_THE_LEDGER};
use crate::{
    fleet::{INSTANCES, run},
    load::{Spread, arrivals},
    network::Exchange,
};

const RATE: u64 = 12;
const FAILS: Duration = Duration::from_secs(20);
const TIME: Duration = Duration::from_secs(60);

/// One instance is told, and each has a line by the end of the stop: were only that one slow, the
/// lines of the others would come down at once on a provider that is hardly well again.
#[tokio::test(start_paused = true)]
async fn after_an_overload_that_one_instance_is_told_each_begins_with_one_call() {
    for seed in 1..=2 {
        let limits = vec![ProviderLimit::requests(3_000).per(super::WINDOW)];
        let known = vec![("requests", Quota::per_minute(3_000))];
        let simulation = Simulation::new(seed, limits, known);
        let before = simulation.fleet.accounts[0].limits("");
        let failing = simulation.upstream.clone();
        tokio::spawn(async move {
            sleep(FAILS).await;
            failing.inject(Fault::Overloaded);
        });
        let calls = arrivals(seed, Spread::Even, RATE, TIME);
        run(&simulation.fleet, &calls, TIME).await;

        let exchanges = simulation.network.exchanges();
        let failed = exchanges.iter().find(is_overloaded);
        let known = failed.expect("one was injected").answered + NEWS + TO_THE_LEDGER;
        let mut after: Vec<_> =
            exchanges.iter().filter(|exchange| known <= exchange.sent).collect();
        after.sort_by_key(|exchange| exchange.sent);
        let first = after.iter().map(|exchange| exchange.answered).min().expect("it goes on");
        let at_once = after.iter().filter(|exchange| exchange.sent < first).count();
        let came = calls.iter().filter(|call| (FAILS..FAILS + STOP).contains(&call.at)).count();
        assert!(came > 3 * INSTANCES, "there are lines: {came}");
        assert!(at_once <= INSTANCES, "seed {seed}: {at_once} were sent before the first answer");
        // It gets up to speed again, and the limit is as it was.
        assert!(after.len() as u64 * 10 >= RATE * 30 * 8, "seed {seed}: {} were sent", after.len());
        for account in &simulation.fleet.accounts {
            assert_eq!(account.limits("").algorithm(), before.algorithm());
        }
    }
}

fn is_overloaded(exchange: &&Exchange) -> bool {
    exchange.status == StatusCode::SERVICE_UNAVAILABLE
}

/// What an overload is waited for that does not say how long.
const STOP: Duration = Duration::from_secs(5);
