//! Processes that ask for costs of different sizes.

use std::{
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::task::JoinSet;
use tower_quota::{Key, Quota, algorithm::LeaseBucket};

use crate::{
    servers::Standalone,
    together::{begin_together, is_quiet, wall_clock},
    turns,
};

const RATE: u64 = 400;
const BURST: u64 = 20;
const PROCESSES: usize = 4;
/// Of each process: so many that its line never ends, though each may wait for as long as
/// [`AHEAD`].
const TASKS: usize = 256;
/// Turns are handed out so much before they come.
const AHEAD: Duration = Duration::from_millis(500);
const RUN: Duration = Duration::from_secs(6);
/// The end of the run, in which it is looked at how much was used where that is judged.
const LOOKED_AT: Duration = Duration::from_secs(3);

/// The end of the run that is looked at.
fn looked_at() -> Duration {
    if is_quiet() { LOOKED_AT } else { RUN }
}

/// What a process was admitted, in units: in all of the run, and in the end of it.
#[derive(Clone, Copy, Debug)]
struct Admitted {
    all: u64,
    recent: u64,
}

/// Processes with more tasks each than the limit can serve ask for six seconds, those of each for
/// its cost. The limit is kept, and used up.
async fn processes_that_ask_for(server: &Standalone, costs: [u64; PROCESSES]) -> Vec<Admitted> {
    let start = |cost: u64| {
        Command::new(std::env::current_exe().expect("this test"))
            .args(["costs::an_instance_of_the_fleet", "--exact", "--ignored", "--nocapture"])
            .env("QUOTA_SERVER", server.url())
            .env("QUOTA_COST", cost.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process")
    };
    // All are started before one is waited for.
    let instances: Vec<_> = costs.into_iter().map(start).collect();
    let mut admitted = Vec::new();
    for instance in instances {
        let output = tokio::task::spawn_blocking(|| instance.wait_with_output());
        let output = output.await.expect("it is waited for").expect("it ends");
        let text = String::from_utf8(output.stdout).expect("text");
        let told = text.lines().find_map(|line| line.split_once("ADMITTED ")).expect("it tells");
        let (all, recent) = told.1.split_once(' ').expect("two counts");
        let count = |text: &str| text.trim().parse().expect("a count");
        admitted.push(Admitted { all: count(all), recent: count(recent) });
    }
    let all: u64 = admitted.iter().map(|admitted| admitted.all).sum();
    let bound = BURST + (RUN.as_millis() as u64 * RATE).div_ceil(1_000);
    assert!(all <= bound, "{all} of at most {bound}: {admitted:?}");

    let recent: u64 = admitted.iter().map(|admitted| admitted.recent).sum();
    // One more may have begun to be used up when the end came.
    let (possible, largest) = (looked_at().as_secs() * RATE, costs.into_iter().max().unwrap_or(0));
    let (used, part) = (recent + largest - 1, if is_quiet() { 98 } else { 5 });
    assert!(used * 100 >= possible * part, "{recent} of {possible}: {admitted:?}");
    admitted
}

/// Three that ask for one unit each could use the limit up alone. Before they left turns to whoever
/// had waited for longer they nearly did: the fourth had a turn where they had forty.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_cost_is_not_passed_for_ever_by_small_ones_of_other_processes() {
    let server = Standalone::start();
    let admitted = processes_that_ask_for(&server, [1, 1, 1, BURST]).await;
    let [.., large] = admitted[..] else { panic!("four of them") };
    let small = admitted.iter().map(|admitted| admitted.recent).min().expect("four of them");
    if is_quiet() {
        let possible = looked_at().as_secs() * RATE;
        assert!(small * 20 >= possible, "one had less than a fifth of its part: {admitted:?}");
    }
    // One process may stall where others go on.
    let (turns, times) = (large.recent / BURST, if is_quiet() { 4 } else { 20 });
    assert!(turns * times >= small, "it had {turns} turns, where others had {small} at least");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "it is a process of the test above"]
async fn an_instance_of_the_fleet() {
    let setting = |name| std::env::var(name).expect("it is started by the test above");
    let number = |name| setting(name).parse::<u64>().expect("a number");
    let (url, cost) = (setting("QUOTA_SERVER"), number("QUOTA_COST"));
    let bucket = LeaseBucket::new(Quota::per_second(RATE), BURST).ahead(AHEAD);
    let turns = turns(&url, bucket);
    let until = begin_together(&url, PROCESSES) + RUN;
    let (all, recent) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut tasks = JoinSet::new();
    for _ in 0..TASKS {
        let (turns, all, recent) = (turns.clone(), Arc::clone(&all), Arc::clone(&recent));
        tasks.spawn(async move {
            loop {
                turns.acquire(&Key::GLOBAL, cost).await.expect("its turn comes");
                let now = wall_clock();
                if now >= until {
                    return;
                }
                all.fetch_add(cost, Ordering::Relaxed);
                let is_recent = now + looked_at() >= until;
                recent.fetch_add(if is_recent { cost } else { 0 }, Ordering::Relaxed);
            }
        });
    }
    tokio::time::sleep(until.saturating_sub(wall_clock())).await;
    tasks.abort_all();
    while let Some(ended) = tasks.join_next().await {
        assert!(!ended.is_err_and(|error| error.is_panic()), "one was not given its turn");
    }
    println!("ADMITTED {} {}", all.load(Ordering::Relaxed), recent.load(Ordering::Relaxed));
}
