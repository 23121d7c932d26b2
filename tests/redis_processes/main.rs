//! Processes that share a limit on one server: they admit all of it, and never more.
//!
//! The server lives on this machine, so its clock is the wall clock, and what it may have admitted
//! between two instants is known from outside.

#[path = "../support/servers/mod.rs"]
mod servers;
#[path = "../support/together.rs"]
mod together;

use std::{
    iter,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{task::JoinSet, time::sleep};
use tower_quota::{
    BackendErrorKind, Cost, Decision, Key, Limiter, PolicyName, Quota,
    algorithm::TokenBucket,
    backend::{
        Backend, Leased,
        redis::{RedisBuilder, Server},
    },
};

use self::{
    servers::{PATIENCE, Standalone},
    together::{BEGUN, begin_together, is_quiet, wall_clock},
};

const PROCESSES: usize = 4;
const TASKS: u64 = 16;
/// How long they ask, and then until they are refused.
const RUN: Duration = Duration::from_millis(2_500);
const HOLD: Duration = Duration::from_millis(400);
/// Who is refused asks again after so long, so that there are ten times as many requests as there
/// may be.
const MOST_WAIT: Duration = Duration::from_millis(4);

/// What is asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Case {
    HotKeyCoalesced,
    HotKeyLeased,
    ManyKeysCoalesced,
    ManyKeysLeased,
}

impl Case {
    const ALL: [Self; 4] =
        [Self::HotKeyCoalesced, Self::HotKeyLeased, Self::ManyKeysCoalesced, Self::ManyKeysLeased];

    const fn is_leased(self) -> bool {
        matches!(self, Self::HotKeyLeased | Self::ManyKeysLeased)
    }

    const fn keys(self) -> u64 {
        match self {
            Self::HotKeyCoalesced | Self::HotKeyLeased => 1,
            Self::ManyKeysCoalesced | Self::ManyKeysLeased => TASKS,
        }
    }

    /// Units a second of each key: 1,600 in all.
    const fn rate(self) -> u64 {
        1_600 / self.keys()
    }

    /// What comes in a second: what stands still for less than that loses nothing of it.
    const fn burst(self) -> u64 {
        self.rate()
    }

    fn limit(self) -> TokenBucket {
        TokenBucket::new(Quota::per_second(self.rate())).burst(self.burst())
    }

    /// What a key has between two instants, in all.
    fn bound(self, time: Duration) -> u64 {
        self.burst() + (time.as_micros() as u64 * self.rate()).div_ceil(1_000_000)
    }

    /// What it has for those who ask all the time: a lease costs some of the burst.
    fn possible(self) -> u64 {
        let price =
            if self.is_leased() { self.rate() * HOLD.as_millis() as u64 / 1_000 } else { 0 };
        self.bound(RUN) - price
    }
}

/// What a process was told.
struct Told {
    admitted: Vec<u64>,
    /// Whether they were charged, nobody knows.
    timed_out: u64,
    /// When it had its last answer.
    last: Duration,
}

fn start(case: usize, url: &str) -> Child {
    Command::new(std::env::current_exe().expect("this test"))
        .args(["an_instance_of_the_fleet", "--exact", "--ignored", "--nocapture"])
        .env("QUOTA_SERVER", url)
        .env("QUOTA_CASE", case.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a process")
}

/// Waits for a process, and reads the line in which it tells what it was told.
fn told(child: Child) -> Told {
    let output = child.wait_with_output().expect("it ends");
    let text = String::from_utf8(output.stdout).expect("text");
    let (_, line) = text.split_once("TOLD ").unwrap_or_else(|| panic!("it says {text}"));
    let numbers = line.split_whitespace().map_while(|word| word.parse().ok());
    let numbers: Vec<u64> = numbers.collect();
    let [timed_out, last, admitted @ ..] = &*numbers else { panic!("it says {line}") };
    Told {
        admitted: admitted.to_vec(),
        timed_out: *timed_out,
        last: Duration::from_millis(*last + 1),
    }
}

#[test]
fn four_processes_admit_all_of_a_limit_and_never_more() {
    for (place, case) in Case::ALL.into_iter().enumerate() {
        let server = Standalone::start();
        let fleet: Vec<_> = (0..PROCESSES).map(|_| start(place, &server.url())).collect();
        let fleet: Vec<_> = fleet.into_iter().map(told).collect();
        let from = Duration::from_millis(server.ask(&["GET", BEGUN]));

        let last = fleet.iter().map(|told| told.last).max().expect("there are some");
        let bound = case.bound(last - from);
        let sum_of = |key: usize| fleet.iter().map(|told| told.admitted[key]).sum::<u64>();
        let admitted: Vec<u64> = (0..case.keys() as usize).map(sum_of).collect();
        assert!(
            admitted.iter().all(|of_key| *of_key <= bound),
            "{case:?}: {admitted:?} of {bound}"
        );

        let all: u64 = admitted.iter().sum();
        let timed_out: u64 = fleet.iter().map(|told| told.timed_out).sum();
        let possible = case.keys() * case.possible();
        println!("{case:?}: {all} of {possible} possible, {timed_out} timed out");
        // A machine that stalls for longer than the burst lasts loses what comes in that time.
        let part = if is_quiet() { 97 } else { 5 };
        assert!((all + timed_out) * 100 >= possible * part, "{case:?}: {all} of {possible}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it is a process of the test above"]
async fn an_instance_of_the_fleet() {
    let number = |name| -> u64 {
        let said = std::env::var(name).expect("it is started by the test above");
        said.parse().expect("a number")
    };
    let case = Case::ALL[number("QUOTA_CASE") as usize];
    let url = std::env::var("QUOTA_SERVER").expect("it is started by the test above");
    let source = Server::open(url.as_str()).expect("a URL");
    let redis = RedisBuilder::new(source, PolicyName::from_static("fleet")).timeout(PATIENCE);
    let from = begin_together(&url, PROCESSES);
    let told = if case.is_leased() {
        ask(case, from, Leased::new(redis.build(), HOLD)).await
    } else {
        ask(case, from, redis.build()).await
    };
    println!("TOLD {told}");
}

/// What it was told, as a line of numbers.
async fn ask<B: Backend<TokenBucket>>(case: Case, from: Duration, backend: B) -> String {
    let limiter = Limiter::new(case.limit(), backend);
    let counters = || iter::repeat_with(AtomicU64::default).take(case.keys() as usize + 1);
    let told: Arc<Vec<AtomicU64>> = Arc::new(counters().collect());
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let (limiter, told) = (limiter.clone(), Arc::clone(&told));
        tasks.spawn(async move {
            let place = task % case.keys();
            let key = Key::from(place);
            loop {
                match limiter.decide(&key, Cost::ONE).await {
                    Ok(Decision::Allow { .. }) => {
                        told[1 + place as usize].fetch_add(1, Ordering::Relaxed);
                    }
                    // Nothing is left that came before the end.
                    Ok(_) if wall_clock() >= from + RUN => break,
                    Ok(refused) => {
                        let wait = refused.retry_after().and_then(|after| after.duration());
                        sleep(wait.unwrap_or(MOST_WAIT).min(MOST_WAIT)).await;
                    }
                    Err(error) => {
                        assert_eq!(error.kind(), BackendErrorKind::TimedOut, "{error:?}");
                        told[0].fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        });
    }
    tasks.join_all().await;
    let last = wall_clock().as_millis();
    let told: Vec<_> = told.iter().map(|count| count.load(Ordering::Relaxed).to_string()).collect();
    format!("{} {last} {}", told[0], told[1..].join(" "))
}
