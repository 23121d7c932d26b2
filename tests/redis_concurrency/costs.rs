//! Four processes on slots that all keys have together. One wants all of them each time, and the others
//! one: nobody is passed for ever, and there are never more than there are.

use std::{
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::task::JoinSet;
use tower_quota::{Key, concurrency::SharedConcurrencyLimiter};

use crate::{
    fleet::{Counter, held_at_most, hold},
    servers::Standalone,
    support::{server, slots},
};

const SLOTS: u64 = 6;
const RUN: Duration = Duration::from_secs(5);
/// What each task of a process wants, and how many of them it has.
const PROCESSES: [(u64, u64); 4] = [(SLOTS, 4), (1, 12), (1, 12), (1, 12)];

fn limiter(url: &str) -> SharedConcurrencyLimiter {
    let slots = slots(server(url), SLOTS).max_total(SLOTS);
    slots.lease(Duration::from_secs(20)).build()
}

#[expect(clippy::disallowed_methods, reason = "processes have only the wall clock in common")]
fn wall_clock() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_request_is_passed_by_no_small_ones_of_other_processes() {
    let running = Standalone::start();
    let until = wall_clock() + RUN;
    let start = |(weight, tasks): (u64, u64)| -> Child {
        Command::new(std::env::current_exe().expect("this test"))
            .args(["costs::an_instance_of_the_fleet", "--exact", "--ignored", "--nocapture"])
            .env("QUOTA_SERVER", running.url())
            .env("QUOTA_UNTIL", until.as_millis().to_string())
            .env("QUOTA_WEIGHT", weight.to_string())
            .env("QUOTA_TASKS", tasks.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process")
    };
    let mut turns = Vec::new();
    for (process, (_, tasks)) in PROCESSES.map(start).into_iter().zip(PROCESSES) {
        let output = tokio::task::spawn_blocking(|| process.wait_with_output());
        let output = output.await.expect("it is waited for").expect("it ends");
        let text = String::from_utf8(output.stdout).expect("text");
        let told = text.lines().find_map(|line| line.split_once("TURNS ")).expect("it tells");
        let own: u64 = told.1.split(' ').next().and_then(|own| own.parse().ok()).expect("a count");
        turns.push(own as f64 / tasks as f64);
    }
    let mut counter = Counter::open(&[running.url()]).await;
    assert_eq!(held_at_most(&mut counter).await, SLOTS, "more than there are, or never all");
    // Whoever stands in one line has its turn as often as the others, whatever it wants.
    let mean = turns.iter().sum::<f64>() / turns.len() as f64;
    assert!(mean > 5.0, "they had no time: {turns:?}");
    assert!(turns.iter().all(|own| *own * 4.0 > mean), "one starved, turns a task: {turns:?}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "it is a process of the test above"]
async fn an_instance_of_the_fleet() {
    let of = |name: &str| -> u64 {
        std::env::var(name).expect("it is set by the test above").parse().expect("a number")
    };
    let url = std::env::var("QUOTA_SERVER").expect("it is started by the test above");
    let (until, weight) = (Duration::from_millis(of("QUOTA_UNTIL")), of("QUOTA_WEIGHT"));
    let (limiter, counter) = (limiter(&url), Counter::open(&[url]).await);
    let turns = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..of("QUOTA_TASKS") {
        let (limiter, mut counter) = (limiter.clone(), counter.clone());
        let turns = Arc::clone(&turns);
        tasks.spawn(async move {
            // A key for each process, so that only the slots of all are contended for.
            let key = Key::from(u64::from(std::process::id()));
            while wall_clock() < until {
                let slot = limiter.acquire(&key, weight).await.expect("its turn comes");
                hold(&mut counter, weight, 1).await;
                turns.fetch_add(1, Ordering::Relaxed);
                drop(slot);
            }
        });
    }
    tasks.join_all().await;
    println!("TURNS {}", turns.load(Ordering::Relaxed));
}
