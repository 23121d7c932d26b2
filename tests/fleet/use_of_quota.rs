//! How much of what there is a real fleet uses, over a real server in real time.

use std::time::Duration;

use tokio::time::Instant;

use tower_quota::{
    Quota,
    testing::strict_upstream::{Answers, ProviderLimit, StrictUpstream},
};

use crate::{
    fleet::{Fleet, Setup, is_judged, jitter, run},
    load::{Spread, arrivals},
    network::Network,
    optimum::{best_use, demands, used_without_debt},
    servers::Standalone,
};

/// What there is in a second.
const REQUESTS: u64 = 500;
const TOKENS: u64 = 2_500;
const FIRST_TOKEN: Duration = Duration::from_millis(30);
const EACH_TOKEN: Duration = Duration::from_micros(200);
/// Calls a second: more than twice as much is asked for as there is.
const RATE: u64 = 50;

/// How long it is watched, and in what windows the quota is.
#[derive(Clone, Copy)]
struct Scale {
    time: Duration,
    window: Duration,
    jitter: Duration,
}

impl Scale {
    /// Where figures are read, a quota of a minute, as those of providers are. Else all of it in a tenth of
    /// the time.
    fn new() -> Self {
        let longer = std::env::var("FLEET_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
        // What is steady begins behind the first window.
        let [time, window] = match longer {
            Some(seconds) => [u64::max(seconds, 120), 60].map(Duration::from_secs),
            None => [12, 6].map(Duration::from_secs),
        };
        Self { time, window, jitter: jitter() }
    }
}

#[expect(clippy::print_stdout, reason = "the figures of BENCHMARKS.md are read here")]
async fn is_used_and_not_exceeded(spread: Spread, seed: u64) {
    let server = Standalone::start();
    let Scale { time, window, jitter } = Scale::new();
    let [requests, tokens] = [REQUESTS, TOKENS].map(|units| units * window.as_secs());
    let limits =
        [ProviderLimit::requests(requests).per(window), ProviderLimit::tokens(tokens).per(window)];
    let answers = Answers::heavy_tailed(10, 300, seed);
    let upstream = StrictUpstream::builder()
        .account("org", ["sk-a"], limits)
        .answers(answers)
        .latency(FIRST_TOKEN, EACH_TOKEN)
        .build();
    let setup = Setup {
        limits: vec![
            ("requests", Quota::new(requests, window).expect("a window")),
            ("tokens", Quota::new(tokens, window).expect("a window")),
        ],
        jitter,
    };
    let fleet = Fleet::start(&server.url(), &Network::none(&upstream), &setup);
    let (watched, begun) = (upstream.clone(), Instant::now());
    let settled = tokio::spawn(async move {
        tokio::time::sleep(window).await;
        (used_without_debt(&watched.record().limits[1]), begun.elapsed())
    });
    let (came, took) = run(&fleet, &arrivals(seed, spread, RATE, time), time).await;

    let record = upstream.record();
    let (most, refused) = (if is_judged() { 0 } else { came.len() / 10 }, record.refused.len());
    assert!(refused <= most, "{refused} of {} are refused: {:?}", came.len(), record.refused);
    let takes = |number| FIRST_TOKEN + EACH_TOKEN * answers.length(number) as u32;
    let demands = demands(&came, &answers, takes);
    let best = best_use(&demands, tokens, window, took);
    let part = used_without_debt(&record.limits[1]) * 1_000 / best;
    let (first, then) = settled.await.expect("it is watched");
    let back = u128::from(tokens) * (took - then).as_millis() / window.as_millis();
    let steady = u128::from(used_without_debt(&record.limits[1]) - first) * 1_000 / back;
    // What is missing by design, once: what is left for jitter, and for answers beyond what is
    // reserved.
    let left = TOKENS * jitter.as_millis() as u64 / 1_000 + tokens / 32;
    println!(
        "{spread:?}: {part} thousandths of the best use in {took:?}, up to {} left once by design; \
         {steady} thousandths of what came back behind the first window",
        left * 1_000 / best
    );
    // What is missing at the end of so short a time is what was left for jitter, once, and what a
    // machine that is busy does not get done before it ends: on an idle one less than 25 thousandths. A
    // static split between the instances reaches 600 where one is asked most. What a fleet reaches
    // where nothing is busy, the simulated one says exactly.
    let least = if is_judged() { 850 } else { 50 };
    assert!(part >= least, "{part} thousandths of the best use: {:?}", record.limits[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_is_used_and_nothing_refused_where_all_instances_are_asked_alike() {
    is_used_and_not_exceeded(Spread::Even, 7).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_is_used_and_nothing_refused_where_one_instance_gets_nine_tenths() {
    is_used_and_not_exceeded(Spread::Skewed, 11).await;
}
