use std::time::Duration;

use axum::http::StatusCode;
use tower_quota::{
    Quota,
    testing::strict_upstream::{Answers, Fault, ProviderLimit, StrictUpstream, Told},
    upstream::{Class, Dimension, KnownLimit},
};

use crate::{
    fleet::{Fleet, INSTANCES, OnRedis, Setup, is_judged, jitter, run, until},
    load::{Spread, arrivals},
    network::{Exchange, Network},
    servers::Standalone,
};

/// Of calls as they are here two or three a second have room, so that they go a fifth of a second
/// apart when little is left. A refusal is known to all in some milliseconds.
const TOKENS: u64 = 10_000;
const WINDOW: Duration = Duration::from_secs(10);
/// All that there was is used by then: it was asked for four times over.
const FALLS: Duration = Duration::from_secs(9);
const TIME: Duration = Duration::from_secs(25);
/// How long after the first refusal is known to one instance another may start a call: as long as a message
/// takes. It is less than the wait that is told: in it, a fleet that does not know would send dozens.
const NEWS: Duration = Duration::from_millis(500);
/// On a machine that runs all tests at once, whose stalls come between the decision on a call and its start.
const LATE_NEWS: Duration = Duration::from_secs(5);

/// So many calls have room in half a second, twice over: in turns, no more go in it.
const IN_THE_NEWS: usize = 3;
/// So many may be on their way before a refusal is known that nothing announces: two of the largest
/// bursts.
const MOST_REFUSED: usize = 40;

/// What was refused had left before the first refusal was known, and that was not much.
fn adapted(network: &Network) -> bool {
    let exchanges = network.exchanges();
    let is_refused = |exchange: &&Exchange| exchange.status == StatusCode::TOO_MANY_REQUESTS;
    let refused: Vec<_> = exchanges.iter().filter(is_refused).collect();
    let news = if is_judged() { NEWS } else { LATE_NEWS };
    let Some(known) = refused.first().map(|first| first.answered + news) else { return true };
    refused.len() <= MOST_REFUSED && refused.iter().all(|refused| refused.sent < known)
}

/// How many are refused when a limit falls: one, and those that go until it is known. That takes
/// longest on a machine that runs all tests at once and stalls for seconds, in which three have room each. Exactly,
/// the simulated fleet says it.
fn most_refused() -> usize {
    if is_judged() { 1 } else { 1 + 4 * IN_THE_NEWS }
}

/// The limit is halved while all of it is used, and the provider says so in this way.
async fn is_halved(told: Told, spread: Spread) {
    let server = Standalone::start();
    let upstream = StrictUpstream::builder()
        .account("org", ["sk-a"], [ProviderLimit::tokens(TOKENS).per(WINDOW)])
        .answers(Answers::heavy_tailed(200, 500, 3))
        .latency(Duration::from_millis(30), Duration::from_micros(200))
        .build();
    let setup = Setup {
        limits: vec![("tokens", Quota::new(TOKENS, WINDOW).expect("a window"))],
        jitter: jitter(),
    };
    let network = Network::none(&upstream);
    let fleet = Fleet::start(&server.url(), &network, &setup);
    let is_told = matches!(told, Told::AtOnce);
    let changing = upstream.clone();
    let changed = tokio::spawn(async move {
        tokio::time::sleep(FALLS).await;
        changing.change_limit("org", 0, TOKENS / 2, told);
        changing.record().admitted
    });
    run(&fleet, &arrivals(5, spread, 10, TIME), TIME).await;

    let before = changed.await.expect("it is changed");
    let record = upstream.record();
    // Of those before, how a machine keeps time decides.
    let refused: Vec<_> = record.refused.iter().filter(|refused| refused.limit < TOKENS).collect();
    assert!(is_told || !refused.is_empty(), "nothing else says that it was halved");
    assert!(refused.len() <= most_refused(), "{refused:?}");
    assert!(record.admitted > before, "the fleet goes on under the new limit");
    for account in &fleet.accounts {
        let is_it = |limit: &KnownLimit| &*limit.name == "tokens" && limit.limit <= TOKENS * 2 / 3;
        until(|| account.notice("").limits.iter().any(is_it)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_halved_limit_that_each_answer_tells_costs_few_refusals() {
    tokio::join!(is_halved(Told::AtOnce, Spread::Even), is_halved(Told::AtOnce, Spread::Skewed));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_halved_limit_that_a_refusal_tells_costs_few_refusals() {
    tokio::join!(
        is_halved(Told::AtRefusal, Spread::Even),
        is_halved(Told::AtRefusal, Spread::Skewed)
    );
}

/// Answers go on telling the old limit: the new one follows from the wait.
#[tokio::test(flavor = "multi_thread")]
async fn a_halved_limit_that_nothing_tells_costs_few_refusals() {
    tokio::join!(is_halved(Told::Never, Spread::Even), is_halved(Told::Never, Spread::Skewed));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_refusal_for_the_day_nothing_is_sent() {
    let server = Standalone::start();
    let day = Duration::from_secs(86_400);
    let upstream = StrictUpstream::builder()
        .account("org", ["sk-a"], [ProviderLimit::requests(1_000).per(day).fixed()])
        .latency(Duration::from_millis(20), Duration::from_micros(200))
        .build();
    let setup = Setup {
        limits: vec![("requests-day", Quota::per_day(1_000))],
        jitter: Duration::from_millis(100),
    };
    let network = Network::none(&upstream);
    let fleet = Fleet::start(&server.url(), &network, &setup);
    let time = Duration::from_secs(3);
    let changing = upstream.clone();
    tokio::spawn(async move {
        tokio::time::sleep(time / 3).await;
        changing.change_limit("org", 0, 10, Told::AtRefusal);
    });
    let calls = arrivals(5, Spread::Even, 60, time);
    let refused = async {
        // A machine that stalls sends late.
        until(|| !upstream.record().refused.is_empty()).await;
        tokio::time::sleep(time).await;
    };
    tokio::select! {
        // Those who find no room wait for it for longer than this takes.
        _ = run(&fleet, &calls, Duration::from_secs(120)) => panic!("{:?}", upstream.record()),
        () = refused => {}
    }

    assert!(adapted(&network), "{:?}", upstream.record().refused);
    stop_for_the_day(&fleet).await;
}

/// Waits until all know that it is over for the day.
async fn stop_for_the_day(fleet: &Fleet<OnRedis>) {
    for account in &fleet.accounts {
        until(|| account.notice("").stop.is_some()).await;
        let stop = account.notice("").stop.expect("it holds until midnight");
        assert_eq!(stop.class, Class::Daily);
    }
}

/// Others have used some of it, which no answer says: what is left by all that is known is little
/// then, and goes in turns.
#[tokio::test(flavor = "multi_thread")]
async fn a_day_that_is_over_too_soon_costs_one_refusal_and_one_call_more_at_most() {
    let server = Standalone::start();
    let day = Duration::from_secs(86_400);
    let upstream = StrictUpstream::builder()
        .account("org", ["sk-a"], [ProviderLimit::requests(100).per(day).fixed()])
        .latency(Duration::from_millis(20), Duration::from_micros(200))
        .build();
    upstream.change_limit("org", 0, 95, Told::AtRefusal);
    let setup = Setup {
        limits: vec![("requests-day", Quota::per_day(100))],
        jitter: Duration::from_millis(100),
    };
    let fleet = Fleet::start(&server.url(), &Network::none(&upstream), &setup);
    let calls = arrivals(5, Spread::Even, 60, Duration::from_secs(3));
    tokio::select! {
        // Those who find no room wait for it for longer than this takes.
        _ = run(&fleet, &calls, Duration::from_secs(120)) => panic!("{:?}", upstream.record()),
        () = async {
            tokio::time::sleep(calls[calls.len() - 1].at).await;
            until(|| !upstream.record().refused.is_empty()).await;
            // Whoever does not know of it goes in this time.
            tokio::time::sleep(2 * NEWS).await;
        } => {}
    }

    let record = upstream.record();
    assert_eq!(record.admitted, 95);
    let most = if is_judged() { 2 } else { most_refused() };
    assert!((1..=most).contains(&record.refused.len()), "{:?}", record.refused);
    stop_for_the_day(&fleet).await;
}

/// No limit was set: the first answers tell them, and nothing is risked before.
#[tokio::test(flavor = "multi_thread")]
async fn limits_that_nobody_set_are_learned_without_a_refusal() {
    let server = Standalone::start();
    let upstream = StrictUpstream::builder()
        .account("org", ["sk-a"], [ProviderLimit::requests(30).per(Duration::from_secs(60))])
        .latency(Duration::from_millis(20), Duration::from_micros(200))
        .build();
    let setup = Setup { limits: Vec::new(), jitter: jitter() };
    let fleet = Fleet::start(&server.url(), &Network::none(&upstream), &setup);
    let calls = arrivals(5, Spread::Even, 60, Duration::from_secs(3));
    let asked = async {
        // Those who find no room wait for it for longer than this takes.
        run(&fleet, &calls, Duration::from_secs(120)).await;
    };
    let used = async {
        tokio::time::sleep(calls[calls.len() - 1].at).await;
        until(|| upstream.record().admitted >= 26).await;
    };
    tokio::select! {
        () = asked => panic!("what was left was not used: {}", upstream.record().admitted),
        () = used => {}
    }
    assert_eq!(upstream.record().refused, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_starts_later_knows_of_a_stop() {
    let server = Standalone::start();
    let upstream = StrictUpstream::builder()
        .account("org", ["sk-a"], [ProviderLimit::requests(1_000)])
        .build();
    let setup = Setup {
        limits: vec![("requests", Quota::per_minute(1_000))],
        jitter: Duration::from_millis(100),
    };
    let first = Fleet::start(&server.url(), &Network::none(&upstream), &setup);
    upstream.inject(Fault::OutOfMoney);
    let call = arrivals(5, Spread::Even, 1, Duration::from_millis(1))[0];
    first.answered(call).await;
    // When another knows of it, the server has it.
    let witness = &first.accounts[(call.instance + 1) % INSTANCES];
    witness
        .tell("", KnownLimit::new("requests", Dimension::Requests, 1_000))
        .expect("it is counted");
    until(|| witness.notice("").stop.is_some()).await;

    let later = Fleet::start(&server.url(), &Network::none(&upstream), &setup);
    later.answered(call).await;
    assert_eq!(upstream.record().admitted, 0, "nothing more was sent");
    let stop = later.accounts[call.instance].notice("").stop;
    assert_eq!(stop.expect("it knows").class, Class::Permanent);

    later.accounts[0].resume("");
    until(|| first.accounts[call.instance].notice("").stop.is_none()).await;
    first.answered(call).await;
    assert_eq!(upstream.record().admitted, 1, "the bill is paid");
}
