use std::time::Duration;

use tower_quota::{
    Quota,
    testing::strict_upstream::{Answers, ProviderLimit, StrictUpstream},
};

use crate::{
    fleet::{Fleet, Setup, run},
    load::{Spread, arrivals},
    servers::Standalone,
};

const TOKENS: u64 = 60_000;
const WINDOW: Duration = Duration::from_secs(6);
const TIME: Duration = Duration::from_secs(12);

/// Half as much again is asked for as there is. What the best possible schedule would use is no more
/// than a full bucket and what refills, so the part of that is a lower bound of the true one.
async fn is_used_and_not_exceeded(spread: Spread, seed: u64) {
    let server = Standalone::start();
    let limits =
        [ProviderLimit::requests(3_000).per(WINDOW), ProviderLimit::tokens(TOKENS).per(WINDOW)];
    let upstream = StrictUpstream::builder()
        .account("org", ["sk-a"], limits)
        .answers(Answers::heavy_tailed(10, 600, seed))
        .latency(Duration::from_millis(30), Duration::from_micros(200))
        .build();
    let setup = Setup {
        limits: vec![
            ("requests", Quota::new(3_000, WINDOW).expect("a window")),
            ("tokens", Quota::new(TOKENS, WINDOW).expect("a window")),
        ],
        // The default is half of it: a machine that runs all tests at once stalls for longer.
        jitter: Duration::from_millis(400),
    };
    let fleet = Fleet::start(&server.url(), &upstream, &setup);
    let took = run(&fleet, arrivals(seed, spread, 160, TIME), TIME).await;

    let record = upstream.record();
    assert_eq!(record.refused, []);
    let tokens = &record.limits[1];
    let refilled = u128::from(TOKENS) * took.as_nanos() / WINDOW.as_nanos();
    let best = u128::from(TOKENS) + refilled;
    let part = u128::from(tokens.spent) * 1_000 / best;
    // On an idle machine it is above 980. A static split between the instances reaches 600 where one
    // is asked most.
    assert!(part >= 850, "{part} thousandths of what could be used were: {tokens:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_is_used_and_nothing_refused_where_all_instances_are_asked_alike() {
    is_used_and_not_exceeded(Spread::Even, 7).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_is_used_and_nothing_refused_where_one_instance_gets_nine_tenths() {
    is_used_and_not_exceeded(Spread::Skewed, 11).await;
}
