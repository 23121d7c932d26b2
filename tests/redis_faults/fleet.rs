//! Several instances, each with its own connection, on one quota.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{task::JoinSet, time::Instant};
use tower_quota::{
    BackendErrorKind, Cost, Key, Limiter, PolicyName, Quota,
    algorithm::{SlidingWindow, TokenBucket},
    backend::{
        Backend, Leased,
        redis::{RedisBuilder, Scripted, Server},
    },
};

use crate::servers::Standalone;

const INSTANCES: usize = 4;
const TASKS: usize = 16;

fn builder(server: &Standalone, name: &'static str) -> RedisBuilder<Server> {
    let source = Server::open(server.url()).expect("a URL");
    RedisBuilder::new(source, PolicyName::from_static(name)).timeout(Duration::from_secs(5))
}

/// What was told of a key.
#[derive(Debug, Default)]
struct Told {
    admitted: AtomicU64,
    /// Whether they were charged, nobody knows.
    timed_out: AtomicU64,
}

impl Told {
    fn admitted(&self) -> u64 {
        self.admitted.load(Ordering::Relaxed)
    }

    /// Asserts that all of `limit` was admitted, but for what timed out, and nothing more.
    #[track_caller]
    fn assert_admits(&self, limit: u64) {
        let least = limit.saturating_sub(self.timed_out.load(Ordering::Relaxed));
        assert!((least..=limit).contains(&self.admitted()), "{limit}: {self:?}");
    }
}

/// What all tasks of all instances are told of each key, asking without a pause for so long, or so
/// often each.
async fn ask<A, B>(
    algorithm: &A,
    backends: impl IntoIterator<Item = B>,
    keys: u64,
    until: impl Fn(u64, Instant) -> bool + Send + Copy + 'static,
) -> Arc<Vec<Told>>
where
    A: Scripted,
    B: Backend<A>,
{
    let told: Arc<Vec<Told>> = Arc::new((0..keys).map(|_| Told::default()).collect());
    let mut tasks = JoinSet::new();
    let begun = Instant::now();
    for backend in backends {
        let limiter = Limiter::new(algorithm.clone(), backend);
        for task in 0..TASKS as u64 {
            let (limiter, told) = (limiter.clone(), Arc::clone(&told));
            tasks.spawn(async move {
                let mut asked = 0;
                while until(asked, begun) {
                    let key = (asked * 7 + task) % keys;
                    let of_key = &told[key as usize];
                    match limiter.decide(&Key::from(key), Cost::ONE).await {
                        Ok(decision) if decision.is_allowed() => {
                            of_key.admitted.fetch_add(1, Ordering::Relaxed);
                        }
                        Ok(_) => {}
                        // Its call, or what was drawn for it, came when it was over: this machine is busy.
                        Err(error) => {
                            assert_eq!(error.kind(), BackendErrorKind::TimedOut);
                            of_key.timed_out.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                    asked += 1;
                    // A remembered refusal is ready at once, and would keep the thread.
                    tokio::task::yield_now().await;
                }
            });
        }
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("no task fails");
    }
    told
}

/// So often that all instances together ask for more than there is.
fn often(asked: u64, _: Instant) -> bool {
    asked < 100
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hot_key_admits_exactly_its_limit() {
    let server = Standalone::start();
    let bucket = TokenBucket::new(Quota::per_day(1_000));
    for batch in [1, 64] {
        server.flush_all();
        let backends: Vec<_> =
            (0..INSTANCES).map(|_| builder(&server, "hot").batch(batch).build()).collect();
        ask(&bucket, backends, 1, often).await[0].assert_admits(1_000);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_keys_admit_exactly_their_limits() {
    let server = Standalone::start();
    let window = SlidingWindow::new(Quota::per_day(50));
    let backends: Vec<_> = (0..INSTANCES).map(|_| builder(&server, "many").build()).collect();
    let told = ask(&window, backends, 50, often).await;
    told.iter().for_each(|of_key| of_key.assert_admits(50));
}

/// How much of the bound is lost depends on the time that tasks get, and is the simulation's business.
#[tokio::test(flavor = "multi_thread")]
async fn leases_draw_at_most_the_bound_and_admit_all_of_it_that_they_do_not_lose() {
    const RATE: u64 = 2_000;
    const BURST: u64 = 2_000;
    const TIME: Duration = Duration::from_secs(3);

    let server = Standalone::start();
    let bucket = TokenBucket::new(Quota::per_second(RATE)).burst(BURST);
    let hold = Duration::from_millis(100);
    let backends: Vec<_> =
        (0..INSTANCES).map(|_| Leased::new(builder(&server, "leased").build(), hold)).collect();
    let begun = Instant::now();
    let told = ask(&bucket, backends.clone(), 1, |_, begun| begun.elapsed() < TIME).await;
    let bound = BURST + (begun.elapsed().as_nanos() * u128::from(RATE) / 1_000_000_000) as u64;
    let calls = server.calls_of("evalsha");
    let (mut drawn, mut lost) = (0, 0);
    for backend in backends {
        drawn += backend.counts().drawn;
        // What is held is dropped with the limit.
        let other = Limiter::new(bucket.burst(BURST / 2), backend);
        let _any = other.decide(&Key::from(0_u64), Cost::ONE).await;
        lost += other.backend().counts().lost;
    }
    assert!(drawn <= bound, "{drawn} of {bound}");
    assert_eq!(told[0].admitted(), drawn - lost, "{drawn} were drawn, {lost} lost");
    assert!(told[0].admitted() > 0, "nothing was admitted: {drawn} were drawn");
    assert!(calls < drawn / 10, "{calls} calls draw {drawn}");
}
