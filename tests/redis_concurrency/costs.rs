//! Four processes on slots that all keys have together. One wants all of them each time, and the others
//! one: nobody is passed for ever, and there are never more than there are.

use std::{
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::task::JoinSet;
use tower_quota::{Key, concurrency::SharedConcurrencyLimiter};

use crate::{
    fleet::{BEGUN, Counter, OVER, held_at_most, hold},
    servers::{PATIENCE, Standalone},
    support::{server, slots},
    together::begin_together,
};

const SLOTS: u64 = 6;
/// Each task has so many turns at the least, if none starves.
const TURNS: u64 = 10;

/// What each task of a process wants, and how many of them it has.
const PROCESSES: [(u64, u64); 4] = [(SLOTS, 4), (1, 12), (1, 12), (1, 12)];

fn limiter(url: &str) -> SharedConcurrencyLimiter {
    let slots = slots(server(url), SLOTS).max_total(SLOTS);
    slots.build()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_request_is_passed_by_no_small_ones_of_other_processes() {
    let running = Standalone::start();
    let start = |(weight, tasks): (u64, u64)| -> Child {
        Command::new(std::env::current_exe().expect("this test"))
            .args(["costs::an_instance_of_the_fleet", "--exact", "--ignored", "--nocapture"])
            .env("QUOTA_SERVER", running.url())
            .env("QUOTA_WEIGHT", weight.to_string())
            .env("QUOTA_TASKS", tasks.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process")
    };
    let processes = PROCESSES.map(start);
    let mut counter = Counter::open(&[running.url()]).await;
    let has_had_some = async {
        for (process, (weight, tasks)) in processes.iter().zip(PROCESSES) {
            let process = process.id().to_string();
            let enough = i64::try_from(weight * tasks * TURNS).expect("a few");
            while counter.ask::<Option<i64>>(&["HGET", BEGUN, &process]).await < Some(enough) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    };
    let nobody_starves = tokio::time::timeout(PATIENCE, has_had_some).await.is_ok();
    let _set: String = counter.ask(&["SET", OVER, "1"]).await;
    let mut turns = Vec::new();
    for (process, (_, tasks)) in processes.into_iter().zip(PROCESSES) {
        let output = tokio::task::spawn_blocking(|| process.wait_with_output());
        let output = output.await.expect("it is waited for").expect("it ends");
        let text = String::from_utf8(output.stdout).expect("text");
        let told = text.lines().find_map(|line| line.split_once("TURNS ")).expect("it tells");
        let own: u64 = told.1.split(' ').next().and_then(|own| own.parse().ok()).expect("a count");
        turns.push(own as f64 / tasks as f64);
    }
    assert_eq!(held_at_most(&mut counter).await, SLOTS, "more than there are, or never all");
    assert!(nobody_starves, "turns a task: {turns:?}");
    // Whoever stands in one line has its turn as often as the others, whatever it wants.
    let mean = turns.iter().sum::<f64>() / turns.len() as f64;
    assert!(turns.iter().all(|own| *own * 4.0 > mean), "one starved, turns a task: {turns:?}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "it is a process of the test above"]
async fn an_instance_of_the_fleet() {
    let of = |name: &str| -> u64 {
        std::env::var(name).expect("it is set by the test above").parse().expect("a number")
    };
    let url = std::env::var("QUOTA_SERVER").expect("it is started by the test above");
    let (limiter, weight) = (limiter(&url), of("QUOTA_WEIGHT"));
    let counter = Counter::open(std::slice::from_ref(&url)).await;
    let is_over = counter.is_over();
    begin_together(&url, PROCESSES.len());
    let turns = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..of("QUOTA_TASKS") {
        let (limiter, mut counter) = (limiter.clone(), counter.clone());
        let (turns, is_over) = (Arc::clone(&turns), Arc::clone(&is_over));
        tasks.spawn(async move {
            // A key for each process, so that only the slots of all are contended for.
            let key = Key::from(u64::from(std::process::id()));
            while !is_over.load(Ordering::Relaxed) {
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
