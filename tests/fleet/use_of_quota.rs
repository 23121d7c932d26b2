use std::{sync::Arc, time::Duration};

use tower_quota::{
    Quota,
    testing::strict_upstream::{Answers, ProviderLimit, StrictUpstream},
    time::Timestamp,
};

use crate::{
    fleet::{Fleet, Setup, run},
    load::{Spread, arrivals},
    servers::Standalone,
};

const INSTANCES: usize = 8;
const TOKENS: u64 = 60_000;
const WINDOW: Duration = Duration::from_secs(6);
const TIME: Duration = Duration::from_secs(9);

async fn busy(spread: Spread, seed: u64) {
    let server = Standalone::start();
    let upstream = StrictUpstream::builder()
        .account("org", ["sk-a"], [
            ProviderLimit::requests(3_000).per(WINDOW),
            ProviderLimit::tokens(TOKENS).per(WINDOW),
        ])
        .answers(Answers::heavy_tailed(20, 2_000, seed))
        .latency(Duration::from_millis(30), Duration::from_micros(200))
        .build();
    let setup = Setup {
        profile: "openai",
        limits: vec![
            ("requests", Quota::new(3_000, WINDOW).expect("a window")),
            ("tokens", Quota::new(TOKENS, WINDOW).expect("a window")),
        ],
        jitter: Duration::from_millis(200),
    };
    let fleet = Arc::new(Fleet::start(&server.url(), &upstream, INSTANCES, &setup));
    let calls = arrivals(seed, spread, INSTANCES, 60, TIME);
    let begun = now();
    run(&fleet, calls, "/v1/chat/completions", TIME).await;
    let ended = now();

    let record = upstream.record();
    eprintln!("{spread:?}: admitted {} refused {:?} abandoned {}", record.admitted, record.refused, record.abandoned);
    let tokens = &record.limits[1];
    let of = |from: u64, to: u64| -> u64 { tokens.by_second.range(from..to).map(|(_, units)| units).sum() };
    let (begin, end) = (begun.as_nanos() / 1_000_000_000, ended.as_nanos() / 1_000_000_000);
    eprintln!("{:?}", tokens.by_second);
    let steady = of(begin + 3, end);
    let possible = TOKENS * (end - begin - 3) / WINDOW.as_secs();
    eprintln!("steady {steady} of {possible}: {}", steady * 1000 / possible);
    let total: u64 = tokens.by_second.values().sum();
    let best = TOKENS + TOKENS * (ended.saturating_since(begun)).as_millis() as u64 / WINDOW.as_millis() as u64;
    eprintln!("all {total} of {best}: {} used at end {}", total * 1000 / best, tokens.used);
}

fn now() -> Timestamp {
    use tower_quota::time::{Clock, SystemClock};
    SystemClock.now()
}

#[tokio::test(flavor = "multi_thread")]
async fn even() { busy(Spread::Even, 7).await }
#[tokio::test(flavor = "multi_thread")]
async fn skewed() { busy(Spread::Skewed, 11).await }
