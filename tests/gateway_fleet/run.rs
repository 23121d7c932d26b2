use std::{
    collections::BTreeSet,
    env,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::{
    sync::Mutex,
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use tower_quota::testing::strict_upstream::{Answers, ProviderLimit, StrictUpstream};

use crate::{
    best::{Arrived, best},
    fleet::{Fleet, configuration},
    later::{defer, judge},
    load::{ANSWERS, Call, INSTANCES, Load, TENANTS, arrivals},
    servers::Standalone,
    support::on_a_socket,
};

const TOKENS: u64 = 48_000;
const WINDOW: Duration = Duration::from_secs(6);
const KILLED_EVERY: Duration = Duration::from_secs(3);
/// What refills in a second.
const RATE: u64 = TOKENS / WINDOW.as_secs();

/// A call that was answered in whole.
#[derive(Clone, Copy, Debug)]
struct Answered {
    /// Its place among those that were asked.
    number: usize,
    tokens: u64,
    at: Duration,
}

/// What befell all calls, those too that are never answered.
#[derive(Debug, Default)]
struct Befell {
    /// With a gateway that was killed.
    deaths: AtomicUsize,
    /// By a gateway that lives.
    refusals: AtomicUsize,
}

/// What came of it, in which nothing was lost.
struct Outcome {
    /// Thousandths of what the best schedule spends.
    part: u64,
    by_tenant: [u64; TENANTS.len()],
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_that_wait_at_each_instance_have_their_shares_while_one_is_killed_every_few_seconds()
 {
    let Outcome { part, by_tenant } = run(Load::Heavy).await;
    assert!(part >= enough(), "{part} thousandths of what could be spent were");
    judge_shares(by_tenant);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "shares are judged in a long run only"]
async fn tenants_have_their_shares_though_one_waits_at_one_instance_and_others_at_all() {
    let Outcome { part, by_tenant } = run(Load::Apart).await;
    assert!(part >= enough(), "{part} thousandths of what could be spent were");
    judge_shares(by_tenant);
}

/// Whether each had of what was spent what its weight promises.
fn judge_shares(by_tenant: [u64; TENANTS.len()]) {
    if !is_judged() {
        return;
    }
    let all: u64 = by_tenant.iter().sum();
    let weights: u64 = TENANTS.iter().map(|tenant| tenant.weight).sum();
    for (tenant, tokens) in TENANTS.iter().zip(by_tenant) {
        let percent = tokens * 100 * weights / (all * tenant.weight);
        assert!((80..=120).contains(&percent), "{} has {percent} % of its share", tenant.name);
    }
}

/// Shares are not judged here: those who ask for no more than theirs have what they ask for.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "in a short run it sees no more than the other"]
async fn all_is_used_and_nothing_lost_where_one_of_eight_is_asked_most_and_one_killed_every_few_seconds()
 {
    let Outcome { part, .. } = run(Load::Skewed).await;
    assert!(part >= enough(), "{part} thousandths of what could be spent were");
}

fn time() -> Duration {
    let seconds = env::var("TOWER_QUOTA_FLEET_SECONDS").map_or(12, |seconds| {
        seconds.parse().expect("TOWER_QUOTA_FLEET_SECONDS is a whole number")
    });
    Duration::from_secs(seconds)
}

/// Whether this run is long enough, on a machine that is quiet for as long, to judge how well it goes. A
/// short one, beside other tests, is judged by what no machine may change: nothing is lost, and no answer is
/// cut without a death.
fn is_judged() -> bool {
    time() >= Duration::from_secs(60)
}

/// Thousandths. What is left unused for the jitter is left once, and is less the longer it
/// goes on: less than a hundredth of a minute.
fn enough() -> u64 {
    if is_judged() { 980 } else { 200 }
}

/// By how much later than others a call may reach the provider. A machine that runs all tests at once stalls for
/// longer than a quiet one.
fn jitter() -> Duration {
    Duration::from_millis(if is_judged() { 400 } else { 1_500 })
}

#[expect(clippy::print_stdout, reason = "how much was reached is worth a line")]
async fn run(load: Load) -> Outcome {
    static ALONE: Mutex<()> = Mutex::const_new(());
    let _alone = ALONE.lock().await;
    let time = time();
    let server = Standalone::start();
    let limits =
        [ProviderLimit::requests(10_000).per(WINDOW), ProviderLimit::tokens(TOKENS).per(WINDOW)];
    let upstream = StrictUpstream::builder()
        .account("one", ["sk-account-one"], limits)
        .answers(Answers::heavy_tailed(ANSWERS.0, ANSWERS.1, 3))
        .latency(Duration::from_millis(30), Duration::from_micros(200))
        .build();
    let text = configuration(on_a_socket(&upstream).await, TOKENS, WINDOW, jitter());
    let fleet = Arc::new(Fleet::start(INSTANCES, &server, text).await);

    let begun = Instant::now();
    let killing = tokio::spawn(kill_one_after_another(Arc::clone(&fleet), begun, time));
    let spending = tokio::spawn(spent(upstream.clone(), begun, time));
    let calls = arrivals(load, RATE, WINDOW, time);
    let befell = Arc::new(Befell::default());
    let (mut asking, mut deferring) = (JoinSet::new(), JoinSet::new());
    for (number, call) in calls.iter().copied().enumerate() {
        sleep_until(begun + call.at).await;
        if call.is_deferred {
            deferring.spawn(defer(Arc::clone(&fleet), number, call));
        } else {
            asking.spawn(ask(Arc::clone(&fleet), number, call, begun, Arc::clone(&befell)));
        }
    }
    let killed = killing.await.expect("it kills on");
    let (spent, took) = spending.await.expect("it looks");
    if matches!(load, Load::Heavy | Load::Apart) {
        // Who waits still may go.
        asking.abort_all();
    }
    let mut answered: Vec<Answered> = Vec::new();
    while let Some(ended) = asking.join_next().await {
        match ended {
            Ok(one) => answered.push(one),
            Err(error) if error.is_cancelled() => {}
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    let accepted = deferring.join_all().await;
    let numbers: BTreeSet<_> = accepted.iter().map(|one| one.number).collect();
    let deferred = calls.iter().filter(|call| call.is_deferred).count();
    assert!(deferred > 0 && numbers.len() == deferred, "each is accepted");
    let later = judge(&fleet, &accepted).await;

    let refused = upstream.record().refused.len();
    // A machine that stalls for longer than the jitter is late by more than it was asked to expect.
    let few = if is_judged() { 0 } else { calls.len() / 4 };
    assert!(refused <= few, "{refused} of {} calls are over the limit", calls.len());
    let (deaths, refusals) = (befell.deaths.load(Relaxed), befell.refusals.load(Relaxed));
    // Who is refused asks again at once, and is refused for as long as the provider's stop lasts.
    assert!(refusals == 0 || !is_judged(), "{refusals} refusals reach callers");
    assert!(deaths > 0, "calls die with the killed");
    // Who went came to its question at least.
    let came = |call: &Call| Arrived { at: call.at, tokens: call.characters as u64 / 4 };
    let mut arrived: Vec<_> = calls.iter().map(came).collect();
    for one in &answered {
        arrived[one.number].tokens = one.tokens;
    }
    for (number, tokens) in later {
        arrived[number].tokens = tokens;
    }
    let best = best(&arrived, TOKENS, WINDOW, took);
    let part = spent * 1_000 / best;
    let mut by_tenant = [0; TENANTS.len()];
    for one in answered.iter().filter(|one| one.at <= time) {
        by_tenant[calls[one.number].tenant] += one.tokens;
    }
    println!(
        "{load:?}: {} calls, {killed} gateways killed and {deaths} calls with them, {refused} refused by the \
         provider, {} answered and {deferred} later, {spent} of {best} tokens: {part} thousandths, \
         by tenant {by_tenant:?}",
        calls.len(),
        answered.len(),
    );
    Outcome { part, by_tenant }
}

/// Every few seconds until the end, and says how many.
async fn kill_one_after_another(fleet: Arc<Fleet>, begun: Instant, time: Duration) -> u32 {
    let mut killed = 0;
    while KILLED_EVERY * (killed + 1) < time {
        sleep_until(begun + KILLED_EVERY * (killed + 1)).await;
        fleet.replace(killed as usize).await;
        killed += 1;
    }
    killed
}

/// The tokens that are spent at the end, those of answers under way not included, and when that was.
async fn spent(upstream: StrictUpstream, begun: Instant, time: Duration) -> (u64, Duration) {
    sleep_until(begun + time).await;
    (upstream.record().limits[1].spent, begun.elapsed())
}

/// Asks until it is answered in whole: elsewhere, if the gateway was killed that was asked.
async fn ask(
    fleet: Arc<Fleet>,
    number: usize,
    call: Call,
    begun: Instant,
    befell: Arc<Befell>,
) -> Answered {
    let body = json!({
        "model": "gpt",
        "stream": call.is_stream,
        "stream_options": { "include_usage": true },
        "messages": [{ "role": "user", "content": "x".repeat(call.characters) }],
    });
    let body = body.to_string();
    let mut deaths = 0;
    loop {
        let instance = fleet.at(call.instance + deaths);
        let key = TENANTS[call.tenant].key;
        let request = instance.gateway.ask(key, "/v1/chat/completions", body.clone());
        let answer = async {
            let answer = request.send().await?;
            let status = answer.status();
            Ok::<_, reqwest::Error>((status, answer.text().await?))
        };
        instance.under_way.fetch_add(1, Relaxed);
        let answer = answer.await;
        instance.under_way.fetch_sub(1, Relaxed);
        match answer {
            // How many of these there may be is judged in the end.
            Ok((StatusCode::TOO_MANY_REQUESTS, _)) => {
                befell.refusals.fetch_add(1, Relaxed);
            }
            Ok((status, text)) => {
                assert_eq!(status, 200, "{text}");
                let tokens = tokens_of(&text, call.is_stream);
                return Answered { number, tokens, at: begun.elapsed() };
            }
            Err(error) => {
                assert!(instance.was_killed(), "it is lost without a death: {error:?}");
                deaths += 1;
                befell.deaths.fetch_add(1, Relaxed);
            }
        }
        // Its place has none for a moment.
        sleep(Duration::from_millis(20)).await;
    }
}

/// What an answer says it came to, if it is whole.
fn tokens_of(text: &str, is_stream: bool) -> u64 {
    let whole = if is_stream {
        let events = text.strip_suffix("data: [DONE]\n\n").expect("a stream comes to its end");
        events.trim_end().rsplit("data: ").next().expect("it has events")
    } else {
        text
    };
    let json: Value = serde_json::from_str(whole).expect("JSON");
    json["usage"]["total_tokens"].as_u64().expect("it tells its usage")
}
