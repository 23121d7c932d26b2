//! Two gateways on one Redis under a load of all sorts: what they keep of it.

use std::{fs, sync::Arc, time::Duration};

use serde_json::Value;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use tower_quota::testing::strict_upstream::{Answers, ProviderLimit, StrictUpstream};

use crate::{
    configuration,
    load::{self, Tally},
    servers::Standalone,
    support::{Gateway, on_a_socket},
};

/// How long it goes on.
#[derive(Clone, Copy)]
pub(crate) struct Extent {
    load: Duration,
    callers: usize,
    /// So long nothing is asked, before and after: whatever is idle is closed in it, the callers' own
    /// connections after 90 seconds.
    rest: Duration,
}

impl Extent {
    pub(crate) const QUICK: Self =
        Self { load: Duration::from_secs(1), callers: 8, rest: Duration::ZERO };

    pub(crate) const fn minutes(minutes: u64) -> Self {
        let (load, rest) = (Duration::from_secs(60 * minutes), Duration::from_secs(100));
        Self { load, callers: 64, rest }
    }
}

/// What a process has at a time.
#[derive(Clone, Copy, Debug)]
struct Holdings {
    resident_kb: u64,
    files: usize,
    tasks: u64,
    under_way: u64,
    waiting: u64,
}

impl Holdings {
    async fn of(gateway: &Gateway) -> Self {
        let status = gateway.status().await;
        let number = |value: &Value| value.as_u64().expect("a number");
        let accounts = status["accounts"].as_array().expect("a list");
        let waiting: u64 = accounts.iter().map(|account| number(&account["waiting"])).sum();
        let of_process = format!("/proc/{}", gateway.pid());
        let memory = fs::read_to_string(format!("{of_process}/status")).expect("it runs on Linux");
        let resident = memory.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let resident = resident.and_then(|line| line.trim().strip_suffix(" kB"));
        Self {
            resident_kb: resident.and_then(|size| size.parse().ok()).expect("a size"),
            files: fs::read_dir(format!("{of_process}/fd")).expect("it is ours").count(),
            tasks: number(&status["instance"]["tasks"]),
            under_way: number(&status["totals"]["under_way"]),
            waiting: waiting + number(&status["totals"]["waiting"]),
        }
    }
}

/// Loads them, prints what they have meanwhile, and panics if they keep any of it.
pub(crate) async fn run(extent: Extent) {
    let redis = Standalone::start();
    let upstream = StrictUpstream::builder()
        .account("one", ["sk-account-one"], [ProviderLimit::requests(2_000).per(WINDOW)])
        .answers(Answers::heavy_tailed(5, 200, 9))
        .latency(Duration::from_millis(5), Duration::from_micros(100))
        .build();
    let limit = format!("2_000 per {}s", WINDOW.as_secs());
    let text = configuration(on_a_socket(&upstream).await, MORE)
        .replace("1_000_000_000 per minute", &limit);
    let url = redis.url();
    let mut fleet = Vec::new();
    for _ in 0..2 {
        fleet.push(Gateway::start_with(&text, &[("REDIS_URL", &url)]).await);
    }
    let fleet: Arc<[Gateway]> = fleet.into();

    println!("\n## A long load\n");
    println!(
        "| minute | calls so far | resident MB | open files | tasks | under way | waiting | keys on \
         the server |\n|---:|---:|---:|---:|---:|---:|---:|---:|"
    );
    // Whatever is made once is made by this.
    load(&fleet, extent, extent.load.min(Duration::from_secs(10)), &mut Vec::new(), &redis).await;
    let before = at_rest(&fleet, extent).await;
    let mut seen = Vec::new();
    let tally = load(&fleet, extent, extent.load, &mut seen, &redis).await;
    let after = at_rest(&fleet, extent).await;
    let keys: u64 = redis.ask(&["DBSIZE"]);
    println!("\nBefore: {before:?}\n\nAfter: {after:?}, {keys} keys on the server\n\n{tally:?}");

    assert!(tally.answered.into_inner() > 0, "it was a load");
    for (before, after) in before.iter().zip(&after) {
        assert_eq!((after.under_way, after.waiting), (0, 0), "calls are kept");
        if !extent.rest.is_zero() {
            assert!(after.tasks <= before.tasks, "tasks are kept");
            assert!(after.files <= before.files, "open files are kept");
        }
    }
    is_flat(&seen);
}

/// Memory in the last quarter is what it was in the second.
fn is_flat(seen: &[Holdings]) {
    let quarter = seen.len() / 4;
    let most = |part: &[Holdings]| part.iter().map(|seen| seen.resident_kb).max();
    let (Some(early), Some(late)) = (most(&seen[quarter..2 * quarter]), most(&seen[3 * quarter..]))
    else {
        return;
    };
    assert!(late <= early + early / 10 + 4_096, "memory grows: {early} kB, then {late} kB");
}

/// Has callers ask for so long.
async fn load(
    fleet: &Arc<[Gateway]>,
    extent: Extent,
    time: Duration,
    seen: &mut Vec<Holdings>,
    redis: &Standalone,
) -> Tally {
    let begun = Instant::now();
    let tally = Arc::new(Tally::default());
    let mut callers = JoinSet::new();
    for caller in 0..extent.callers {
        callers.spawn(load::ask(
            Arc::clone(fleet),
            caller as u64,
            begun + time,
            Arc::clone(&tally),
        ));
    }
    let looks = LOOKS.min(u32::try_from(time.as_secs()).unwrap_or(LOOKS).max(1));
    for look in 1..=looks {
        sleep_until(begun + time * look / looks).await;
        let now = Holdings::of(&fleet[0]).await;
        seen.push(now);
        let keys: u64 = redis.ask(&["DBSIZE"]);
        println!(
            "| {:.1} | {} | {:.1} | {} | {} | {} | {} | {keys} |",
            begun.elapsed().as_secs_f64() / 60.0,
            tally.calls(),
            now.resident_kb as f64 / 1_024.0,
            now.files,
            now.tasks,
            now.under_way,
            now.waiting,
        );
    }
    callers.join_all().await;
    Arc::into_inner(tally).expect("nobody asks any more")
}

/// What they have when nobody has asked for a while.
async fn at_rest(fleet: &[Gateway], extent: Extent) -> Vec<Holdings> {
    sleep(extent.rest).await;
    let mut all = Vec::new();
    for gateway in fleet {
        let begun = Instant::now();
        loop {
            let now = Holdings::of(gateway).await;
            // Deferred calls may still be run.
            if now.under_way == 0 || begun.elapsed() > PATIENCE {
                all.push(now);
                break;
            }
            sleep(Duration::from_millis(50)).await;
        }
    }
    all
}

/// Answers are remembered, and calls deferred, both for a moment only.
const MORE: &str = r#"
[state]
redis_env = "REDIS_URL"
instances = 2

[cache]
ttl = "2s"
max_bytes = 1000000

[deferred]
expire_after = "1m"
keep = "10s"
"#;
const WINDOW: Duration = Duration::from_secs(10);
const LOOKS: u32 = 20;
const PATIENCE: Duration = Duration::from_secs(60);
