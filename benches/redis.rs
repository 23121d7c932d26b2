//! Decisions on a Redis server: against a bare `INCR` on the same kind of connection, coalesced and
//! not, leased and local. Starts its own `redis-server`. Prints Markdown.
//!
//! `cargo bench --features redis,redis-cluster,redis-sentinel --bench redis`, about a minute; for a
//! moment only: add `-- --quick`.
#![expect(clippy::print_stdout, reason = "a program that prints tables")]

#[path = "../tests/support/servers/mod.rs"]
mod servers;

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use redis::AsyncCommands;
use tokio::{task::JoinSet, time::Instant};
use tower_quota::{
    Cost, Key, Limiter, PolicyName, Quota,
    algorithm::TokenBucket,
    backend::{
        Backend, Leased, Local,
        redis::{RedisBuilder, Server, Source},
    },
};

use self::servers::Standalone;

/// What a way of deciding did.
struct Run {
    decisions: u64,
    time: Duration,
    server_cpu: Duration,
    calls: u64,
    latencies: Vec<Duration>,
}

impl Run {
    fn per_second(&self) -> f64 {
        self.decisions as f64 / self.time.as_secs_f64()
    }

    fn percentile(&self, percent: usize) -> f64 {
        let place = (self.latencies.len() * percent / 100).min(self.latencies.len() - 1);
        self.latencies[place].as_secs_f64() * 1e6
    }
}

/// Has so many tasks decide without a pause, one decision of each at a time.
async fn run<F>(
    server: &Standalone,
    tasks: u64,
    time: Duration,
    decide: impl Fn(u64) -> F + Clone + Send + 'static,
) -> Run
where
    F: Future<Output = ()> + Send,
{
    server.flush_all();
    let (cpu, calls) = (server.used_cpu(), calls(server));
    let decisions = Arc::new(AtomicU64::new(0));
    let begun = Instant::now();
    let mut running = JoinSet::new();
    for task in 0..tasks {
        let (decide, decisions) = (decide.clone(), Arc::clone(&decisions));
        running.spawn(async move {
            let mut latencies = Vec::new();
            let mut count = 0_u64;
            while begun.elapsed() < time {
                let asked = Instant::now();
                decide(task.wrapping_mul(0x9e37_79b9) ^ count).await;
                latencies.push(asked.elapsed());
                count += 1;
                if count.is_multiple_of(16) {
                    tokio::task::yield_now().await;
                }
            }
            decisions.fetch_add(count, Ordering::Relaxed);
            latencies
        });
    }
    let mut latencies = Vec::new();
    while let Some(done) = running.join_next().await {
        latencies.extend(done.expect("no task fails"));
    }
    let time = begun.elapsed();
    latencies.sort_unstable();
    Run {
        decisions: decisions.load(Ordering::Relaxed),
        time,
        server_cpu: server.used_cpu().saturating_sub(cpu),
        calls: calls_since(server, calls),
        latencies,
    }
}

fn calls(server: &Standalone) -> u64 {
    server.calls_of("evalsha") + server.calls_of("incr")
}

fn calls_since(server: &Standalone, before: u64) -> u64 {
    calls(server).saturating_sub(before)
}

/// Nobody uses it up.
fn unreached() -> TokenBucket {
    TokenBucket::new(Quota::per_second(100_000_000)).burst(500_000_000)
}

fn deciding<B: Backend<TokenBucket>>(
    backend: B,
    keys: u64,
) -> impl Fn(u64) -> futures::future::BoxFuture<'static, ()> + Clone + Send + 'static {
    let limiter = Limiter::new(unreached(), backend);
    move |number| {
        let limiter = limiter.clone();
        Box::pin(async move {
            let decision = limiter.decide(&Key::from(number % keys), Cost::ONE).await;
            assert!(decision.is_ok_and(|decision| decision.is_allowed()), "nobody uses it up");
        })
    }
}

fn redis(server: &Standalone, name: &'static str) -> RedisBuilder<Server> {
    let source = Server::open(server.url()).expect("a URL");
    RedisBuilder::new(source, PolicyName::from_static(name)).timeout(Duration::from_secs(5))
}

#[tokio::main]
async fn main() {
    let is_bench = std::env::args().any(|argument| argument == "--bench");
    let is_quick = !is_bench || std::env::args().any(|argument| argument == "--quick");
    let time = Duration::from_millis(if is_quick { 100 } else { 2_000 });
    const KEYS: u64 = 10_000;

    let server = Standalone::start();
    println!("## Decisions on one server, {KEYS} keys unless said\n");
    println!(
        "| way | tasks | thousand a second | x INCR | server CPU µs each | x INCR | calls each | p50 \
         µs | p99 µs |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|---:|---:|");
    for tasks in [1, 64, 256] {
        let connection =
            Server::open(server.url()).expect("a URL").connection().await.expect("a connection");
        let incr = run(&server, tasks, time, move |number| {
            let mut connection = connection.clone();
            async move {
                let _: u64 = connection.incr(number % KEYS, 1).await.expect("it counts");
            }
        })
        .await;
        print_row("bare `INCR`", tasks, &incr, &incr);
        let alone = deciding(redis(&server, "alone").batch(1).in_flight(1_024).build(), KEYS);
        print_row("one call each", tasks, &run(&server, tasks, time, alone).await, &incr);
        let together = deciding(redis(&server, "together").build(), KEYS);
        print_row("coalesced", tasks, &run(&server, tasks, time, together).await, &incr);
        let hot = deciding(redis(&server, "hot").build(), 1);
        print_row("coalesced, one key", tasks, &run(&server, tasks, time, hot).await, &incr);
        let hold = Duration::from_millis(200);
        let leased = deciding(Leased::new(redis(&server, "leased").build(), hold), 1);
        print_row("leased, one key", tasks, &run(&server, tasks, time, leased).await, &incr);
        let local = deciding(Local::new(), 1);
        print_row(
            "in this process, one key",
            tasks,
            &run(&server, tasks, time, local).await,
            &incr,
        );
    }
}

fn print_row(way: &str, tasks: u64, run: &Run, incr: &Run) {
    let cpu = |run: &Run| run.server_cpu.as_secs_f64() * 1e6 / run.decisions.max(1) as f64;
    println!(
        "| {way} | {tasks} | {:.1} | {:.2} | {:.2} | {:.2} | {:.3} | {:.0} | {:.0} |",
        run.per_second() / 1e3,
        run.per_second() / incr.per_second(),
        cpu(run),
        cpu(run) / cpu(incr),
        run.calls as f64 / run.decisions.max(1) as f64,
        run.percentile(50),
        run.percentile(99),
    );
}
