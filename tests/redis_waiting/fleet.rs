//! Processes that all want more of one limit than there is.

use std::{
    collections::BTreeMap,
    process::{Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::future::BoxFuture;
use tokio::task::JoinSet;
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};
use tower_quota::{
    BackendError, Charge, Cost, Decision, Demand, FixedWindowLayer, Key, LeakyBucketLayer, Limiter,
    MaybeReady, PolicyName, Quota, QuotaLayer, SlidingWindowLayer, TokenBucketLayer,
    algorithm::{LeaseBucket, Plan, SlidingLog, TokenBucket},
    backend::{
        Backend,
        redis::{Redis, Scripted, Server},
    },
    queue::Queue,
};

use crate::{
    redis,
    servers::Standalone,
    together::{BEGUN, begin_together, is_quiet, wall_clock},
};

const RATE: u64 = 400;
const BURST: u64 = 20;
const PROCESSES: usize = 4;
const TASKS: usize = 32;
/// Turns are handed out so much before they come.
const AHEAD: Duration = Duration::from_millis(500);
/// Of the limits that are windows.
const WINDOW: Duration = Duration::from_millis(250);
const RUN: Duration = Duration::from_secs(6);
/// The end of the run, in which it is looked at how much was used where that is judged.
const LOOKED_AT: Duration = Duration::from_secs(3);
/// Of a process, beside those for its turns: the script is not there at first, several calls may
/// find that.
const FIRST_CALLS: usize = 8;

/// Waits for a turn.
type Turn = Arc<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

/// A backend that notes when those may start whom the server admits: in nanoseconds, by its clock.
#[derive(Clone)]
struct Noted<A: Scripted> {
    redis: Redis<A, Server>,
    released: Arc<Mutex<Vec<u64>>>,
}

impl<A: Scripted> Backend<A> for Noted<A> {
    type Decide = BoxFuture<'static, Result<Decision, BackendError>>;
    type Settle = <Redis<A, Server> as Backend<A>>::Settle;

    fn decide(&self, algorithm: &A, key: &Key, demand: &Demand) -> MaybeReady<Self::Decide> {
        let asked = self.redis.decide(algorithm, key, demand);
        let released = Arc::clone(&self.released);
        MaybeReady::pending(Box::pin(async move {
            let decision = asked.await;
            if let Ok(Decision::Allow { charge, .. }) = &decision {
                let at = charge.at.saturating_add(charge.delay).as_nanos();
                released.lock().unwrap_or_else(PoisonError::into_inner).push(at);
            }
            decision
        }))
    }

    fn settle(
        &self,
        algorithm: &A,
        key: &Key,
        charge: &Charge,
        actual: Cost,
    ) -> MaybeReady<Self::Settle> {
        self.redis.settle(algorithm, key, charge, actual)
    }
}

/// The ways to wait for a turn.
#[derive(Clone, Copy, Debug)]
enum Door {
    Queue,
    TokenBucketLayer,
    LeakyBucketLayer,
    FixedWindowLayer,
    SlidingWindowLayer,
    SlidingLog,
    Plan,
}

impl Door {
    const ALL: [Self; 7] = [
        Self::Queue,
        Self::TokenBucketLayer,
        Self::LeakyBucketLayer,
        Self::FixedWindowLayer,
        Self::SlidingWindowLayer,
        Self::SlidingLog,
        Self::Plan,
    ];

    /// How many may start at once where it is a bucket.
    const fn burst(self) -> Option<u64> {
        match self {
            Self::Queue | Self::TokenBucketLayer => Some(BURST),
            Self::LeakyBucketLayer => Some(1),
            Self::FixedWindowLayer | Self::SlidingWindowLayer | Self::SlidingLog | Self::Plan => {
                None
            }
        }
    }

    /// How many can start in so many seconds. In a sliding window a unit counts for a segment longer
    /// than the period.
    const fn possible(self, seconds: u64) -> u64 {
        match self {
            Self::SlidingWindowLayer => seconds * RATE * 10 / 11,
            _ => seconds * RATE,
        }
    }

    fn open(self, url: &str, released: &Arc<Mutex<Vec<u64>>>) -> Turn {
        match self {
            Self::Queue => {
                let bucket = LeaseBucket::new(Quota::per_second(RATE), BURST).ahead(AHEAD);
                let queue = Queue::new(Limiter::new(bucket, noted(url, released)));
                Arc::new(move || {
                    let turn = queue.acquire(&Key::GLOBAL, 1);
                    Box::pin(async {
                        turn.await.expect("its turn comes");
                    })
                })
            }
            Self::TokenBucketLayer => {
                let layer =
                    TokenBucketLayer::new(Quota::per_second(RATE)).burst(BURST).ahead(AHEAD);
                let layer = layer.backend(noted(url, released)).wait(Duration::from_secs(60));
                through(layer.layer(service_fn(answer)))
            }
            Self::LeakyBucketLayer => {
                // For all who want one, and those whose turns have come and who do not know it yet.
                let places = 2 * (PROCESSES * TASKS) as u64;
                let layer = LeakyBucketLayer::new(Quota::per_second(RATE)).depth(places);
                through(layer.backend(noted(url, released)).layer(service_fn(answer)))
            }
            Self::FixedWindowLayer => {
                let layer = FixedWindowLayer::new(window()).ahead(AHEAD);
                let layer = layer.backend(noted(url, released)).wait(Duration::from_secs(60));
                through(layer.layer(service_fn(answer)))
            }
            Self::SlidingWindowLayer => {
                let layer = SlidingWindowLayer::new(window()).ahead(AHEAD);
                let layer = layer.backend(noted(url, released)).wait(Duration::from_secs(60));
                through(layer.layer(service_fn(answer)))
            }
            Self::SlidingLog => {
                let layer = QuotaLayer::new(SlidingLog::new(window()).ahead(AHEAD));
                let layer = layer.backend(noted(url, released)).wait(Duration::from_secs(60));
                through(layer.layer(service_fn(answer)))
            }
            Self::Plan => {
                // The log binds; what the bucket has over is gone when its turn comes.
                let plan = Plan::new()
                    .limit(PolicyName::from_static("log"), SlidingLog::new(window()))
                    .limit(PolicyName::from_static("bucket"), TokenBucket::new(window()))
                    .build()
                    .expect("a plan");
                let layer = QuotaLayer::new(plan.ahead(AHEAD));
                let layer = layer.backend(noted(url, released)).wait(Duration::from_secs(60));
                through(layer.layer(service_fn(answer)))
            }
        }
    }
}

/// The same rate in windows.
fn window() -> Quota {
    let limit = RATE * WINDOW.as_millis() as u64 / 1_000;
    Quota::new(limit, WINDOW).expect("a quota")
}

fn noted<A: Scripted>(url: &str, released: &Arc<Mutex<Vec<u64>>>) -> Noted<A> {
    Noted { redis: redis(url), released: Arc::clone(released) }
}

/// Waits with a request before a service.
fn through<S>(service: S) -> Turn
where
    S: Service<(), Response = (), Error = BoxError, Future: Send> + Clone + Send + Sync + 'static,
{
    Arc::new(move || {
        let call = service.clone().oneshot(());
        Box::pin(async { call.await.expect("its turn comes") })
    })
}

/// What is behind a layer.
async fn answer((): ()) -> Result<(), BoxError> {
    Ok(())
}

/// What an instance tells of itself, in nanoseconds of the common clock: when its requests started,
/// and when they could.
struct Told {
    started: Vec<u64>,
    released: Vec<u64>,
}

impl Told {
    fn text(&self) -> String {
        let line =
            |instants: &[u64]| instants.iter().map(|at| format!(" {at}")).collect::<String>();
        format!("STARTED{}\nRELEASED{}", line(&self.started), line(&self.released))
    }

    fn read(text: &str) -> Self {
        let mut lines: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
        for line in text.lines() {
            let (name, instants) = line.split_once(' ').unwrap_or((line, ""));
            if matches!(name, "STARTED" | "RELEASED") {
                let instants = instants.split(' ').filter(|at| !at.is_empty());
                lines.insert(name, instants.map(|at| at.parse().expect("an instant")).collect());
            }
        }
        let mut of = |name| lines.remove(name).expect("it tells");
        Self { started: of("STARTED"), released: of("RELEASED") }
    }
}

/// Lets four processes, each with many tasks, ask for some seconds, and looks at what they did.
async fn four_processes_share(door: Door) {
    let server = Standalone::start();
    let instances: Vec<_> = (0..PROCESSES)
        .map(|_| {
            Command::new(std::env::current_exe().expect("this test"))
                .args(["fleet::an_instance_of_the_fleet", "--exact", "--ignored", "--nocapture"])
                .env("QUOTA_SERVER", server.url())
                .env("QUOTA_DOOR", format!("{door:?}"))
                .stdout(Stdio::piped())
                .spawn()
                .expect("a process")
        })
        .collect();
    let mut told = Vec::new();
    for instance in instances {
        let output = tokio::task::spawn_blocking(|| instance.wait_with_output());
        let output = output.await.expect("it is waited for").expect("it ends");
        told.push(Told::read(&String::from_utf8(output.stdout).expect("text")));
    }

    let until = Duration::from_millis(server.ask(&["GET", BEGUN])) + RUN;
    // Not while they were still opening their connections, if it is judged.
    let (looked_at, part) = if is_quiet() { (LOOKED_AT, 98) } else { (RUN, 5) };
    let recent = |told: &Told| {
        let from = u64::try_from((until - looked_at).as_nanos()).expect("this century");
        told.started.iter().filter(|at| **at >= from).count() as u64
    };
    let counts: Vec<u64> = told.iter().map(recent).collect();
    let possible = door.possible(looked_at.as_secs());
    let all: u64 = counts.iter().sum();
    assert!(all * 100 >= possible * part, "{door:?}: {all} of {possible}: {counts:?}");
    let least = counts.iter().min().expect("four of them");
    // Half of its part.
    assert!(least * 800 >= possible * part, "{door:?}: one had too little: {counts:?}");

    let sorted = |of: fn(&Told) -> &Vec<u64>| {
        let mut all: Vec<u64> = told.iter().flat_map(of).copied().collect();
        all.sort_unstable();
        all
    };
    let (started, released) = (sorted(|told| &told.started), sorted(|told| &told.released));
    assert_within(door, &released);
    // Nobody starts before its turn: by the clock of the same machine, whose steps are a
    // microsecond.
    for (started, released) in started.iter().zip(&released) {
        assert!(started + 1_000 >= *released, "{door:?}: one started at {started}, not {released}");
    }

    // A call for each turn, those included that came after the end.
    let (calls, most) = (server.calls_of("evalsha"), released.len() + PROCESSES * FIRST_CALLS);
    assert!(calls <= most as u64, "{door:?}: {calls} calls for {} turns", released.len());
}

/// Whichever interval is looked at, it has no more than its bound.
fn assert_within(door: Door, released: &[u64]) {
    let Some(burst) = door.burst() else { return assert_windows_within(door, released) };
    for (first, from) in released.iter().enumerate() {
        for (last, to) in released.iter().enumerate().skip(first) {
            // What a server decides is exact to a microsecond.
            let time = u128::from(to - from + 1_000);
            let bound = u128::from(burst) + time * u128::from(RATE) / 1_000_000_000;
            let count = last - first + 1;
            assert!(count as u128 <= bound, "{door:?}: {count} of {bound} in {} ns", to - from);
        }
    }
}

/// No window has more than its limit: of those side by side, or of all there are.
fn assert_windows_within(door: Door, released: &[u64]) {
    let length = WINDOW.as_nanos() as u64;
    for (first, from) in released.iter().enumerate() {
        let is_in = |at: &u64| match door {
            Door::FixedWindowLayer => at / length == from / length,
            _ => at - from < length,
        };
        let count = released[first..].iter().take_while(|at| is_in(at)).count() as u64;
        assert!(count <= window().limit(), "{door:?}: {count} from {from}");
    }
}

/// One after the other, for each wants the whole machine.
#[tokio::test(flavor = "multi_thread")]
async fn four_processes_keep_a_shared_limit_busy_and_within_its_bound_by_whichever_door() {
    for door in Door::ALL {
        four_processes_share(door).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "it is a process of the test above"]
async fn an_instance_of_the_fleet() {
    let told = |name| std::env::var(name).expect("it is started by the test above");
    let until = begin_together(&told("QUOTA_SERVER"), PROCESSES) + RUN;
    let door = Door::ALL.into_iter().find(|door| format!("{door:?}") == told("QUOTA_DOOR"));
    let released = Arc::default();
    let turn = door.expect("one of them").open(&told("QUOTA_SERVER"), &released);
    let mut tasks = JoinSet::new();
    for _ in 0..TASKS {
        let turn = Arc::clone(&turn);
        tasks.spawn(async move {
            let mut started = Vec::new();
            while wall_clock() < until {
                turn().await;
                started.push(u64::try_from(wall_clock().as_nanos()).expect("this century"));
            }
            started
        });
    }
    let started = tasks.join_all().await.concat();
    let released = released.lock().unwrap_or_else(PoisonError::into_inner).clone();
    // What the test says of itself stands on the line before.
    println!("\n{}", Told { started, released }.text());
}
