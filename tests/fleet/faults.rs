use std::{sync::Arc, time::Duration};

use tower_quota::{
    Quota,
    testing::strict_upstream::{Answers, ProviderLimit, StrictUpstream, Told},
};

use crate::{
    fleet::{Fleet, Setup, run},
    load::{Spread, arrivals},
    servers::Standalone,
};

const INSTANCES: usize = 8;
const TOKENS: u64 = 60_000;
const WINDOW: Duration = Duration::from_secs(6);

async fn halved(told: Told) {
    let server = Standalone::start();
    let upstream = StrictUpstream::builder()
        .account("org", ["sk-a"], [ProviderLimit::tokens(TOKENS).per(WINDOW)])
        .answers(Answers::heavy_tailed(20, 2_000, 3))
        .latency(Duration::from_millis(30), Duration::from_micros(200))
        .build();
    let setup = Setup {
        profile: "openai",
        limits: vec![("tokens", Quota::new(TOKENS, WINDOW).expect("a window"))],
        jitter: Duration::from_millis(200),
    };
    let fleet = Arc::new(Fleet::start(&server.url(), &upstream, INSTANCES, &setup));
    let time = Duration::from_secs(10);
    let calls = arrivals(5, Spread::Skewed, INSTANCES, 60, time);
    let changed = upstream.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(5)).await;
        changed.change_limit("org", 0, TOKENS / 2, told);
    });
    run(&fleet, calls, "/v1/chat/completions", time).await;
    let record = upstream.record();
    eprintln!("{told:?} {} {:?} hammered {}", record.admitted, record.refused, record.hammered);
    eprintln!("{:?}", record.limits[0].by_second);
    eprintln!("{:?}", fleet.accounts[3].notice(""));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_told() { halved(Told::AtOnce).await }
#[tokio::test(flavor = "multi_thread")]
async fn b_refusal() { halved(Told::AtRefusal).await }
#[tokio::test(flavor = "multi_thread")]
async fn c_never() { halved(Told::Never).await }

#[tokio::test(flavor = "multi_thread")]
async fn day() {
    let server = Standalone::start();
    let upstream = StrictUpstream::builder()
        .account("org", ["sk-a"], [ProviderLimit::requests(30).per(Duration::from_secs(86_400)).fixed()])
        .latency(Duration::from_millis(30), Duration::from_micros(200))
        .build();
    let setup = Setup {
        profile: "openai",
        limits: vec![],
        jitter: Duration::from_millis(200),
    };
    let fleet = Arc::new(Fleet::start(&server.url(), &upstream, INSTANCES, &setup));
    let time = Duration::from_secs(4);
    let calls = arrivals(5, Spread::Even, INSTANCES, 60, time);
    run(&fleet, calls, "/v1/chat/completions", time).await;
    let record = upstream.record();
    eprintln!("{} {:?} hammered {}", record.admitted, record.refused, record.hammered);
    eprintln!("{:?}", fleet.accounts[3].notice(""));
}
