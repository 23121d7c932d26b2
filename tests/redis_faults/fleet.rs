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

/// What all tasks of all instances got, asking without a pause for so long, or so often each.
async fn admitted<A, B>(
    algorithm: &A,
    backends: impl IntoIterator<Item = B>,
    keys: u64,
    until: impl Fn(u64, Instant) -> bool + Send + Copy + 'static,
) -> Vec<u64>
where
    A: Scripted,
    B: Backend<A>,
{
    let counts: Arc<Vec<AtomicU64>> = Arc::new((0..keys).map(|_| AtomicU64::new(0)).collect());
    let mut tasks = JoinSet::new();
    let begun = Instant::now();
    for backend in backends {
        let limiter = Limiter::new(algorithm.clone(), backend);
        for task in 0..TASKS as u64 {
            let (limiter, counts) = (limiter.clone(), Arc::clone(&counts));
            tasks.spawn(async move {
                let mut asked = 0;
                while until(asked, begun) {
                    let key = (asked * 7 + task) % keys;
                    let decision = limiter.decide(&Key::from(key), Cost::ONE).await;
                    match decision {
                        Ok(decision) if decision.is_allowed() => {
                            counts[key as usize].fetch_add(1, Ordering::Relaxed);
                        }
                        Ok(_) => {}
                        // What was drawn for it came when it was over: this machine is busy.
                        Err(error) => assert_eq!(error.kind(), BackendErrorKind::TimedOut),
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
    counts.iter().map(|count| count.load(Ordering::Relaxed)).collect()
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
        assert_eq!(admitted(&bucket, backends, 1, often).await, [1_000], "batches of {batch}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_keys_admit_exactly_their_limits() {
    let server = Standalone::start();
    let window = SlidingWindow::new(Quota::per_day(50));
    let backends: Vec<_> = (0..INSTANCES).map(|_| builder(&server, "many").build()).collect();
    assert_eq!(admitted(&window, backends, 50, often).await, [50; 50]);
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_admit_at_most_the_bound_and_nearly_all_of_it() {
    const RATE: u64 = 2_000;
    const BURST: u64 = 2_000;
    const TIME: Duration = Duration::from_secs(3);

    let server = Standalone::start();
    let bucket = TokenBucket::new(Quota::per_second(RATE)).burst(BURST);
    let hold = Duration::from_millis(100);
    let backends: Vec<_> =
        (0..INSTANCES).map(|_| Leased::new(builder(&server, "leased").build(), hold)).collect();
    let begun = Instant::now();
    let total: u64 =
        admitted(&bucket, backends, 1, |_, begun| begun.elapsed() < TIME).await.iter().sum();
    let bound = BURST + (begun.elapsed().as_nanos() * u128::from(RATE) / 1_000_000_000) as u64;
    assert!(total <= bound, "{total} of {bound}");
    // The price is what the hold time costs of the burst.
    let possible = BURST - RATE / 10 + RATE * 3;
    // 97 % and more where the tasks get their time, as the simulation of leases does; this machine may
    // have other work.
    assert!(total * 2 >= possible, "{total} of {possible}");
    let calls = server.calls_of("evalsha");
    assert!(calls < total / 10, "{calls} calls for {total}");
}
