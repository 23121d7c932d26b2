//! Decisions on a Redis server: against a bare `INCR` on the same kind of connection and the
//! commands of a peer, coalesced and not, leased and local; and what instances that share a limit
//! call and admit under load. Starts its own `redis-server`. Prints Markdown.
//!
//! `cargo bench --features redis,redis-cluster,redis-sentinel --bench redis`, about two minutes; for
//! a moment only: add `-- --quick`.
#![expect(clippy::print_stdout, reason = "a program that prints tables")]

#[path = "redis/limitador.rs"]
mod limitador;
#[path = "redis/load.rs"]
mod load;
#[path = "redis/run.rs"]
mod run;
#[path = "../tests/support/servers/mod.rs"]
mod servers;

use std::{future::Future, sync::Arc, time::Duration};

use ::redis::AsyncCommands;
use futures::future::BoxFuture;
use tower_quota::{
    Cost, Key, Limiter, PolicyName, Quota,
    algorithm::TokenBucket,
    backend::{
        Backend, GuardedBuilder, Leased, Local,
        guarded::Fallback,
        redis::{RedisBuilder, Server, Source},
    },
};

use self::{
    limitador::Limitador,
    run::{Rounds, Run},
    servers::Standalone,
};

const KEYS: u64 = 10_000;
const ROUNDS: u32 = 5;
const TIMEOUT: Duration = Duration::from_secs(60);

#[tokio::main]
async fn main() {
    let is_bench = std::env::args().any(|argument| argument == "--bench");
    let is_quick = !is_bench || std::env::args().any(|argument| argument == "--quick");
    let time = |full| Duration::from_millis(if is_quick { 100 } else { full });

    let server = Standalone::start();
    println!("## Decisions on one server, {KEYS} keys unless said\n");
    println!(
        "| way | tasks | thousand a second | x INCR | server CPU µs each | x INCR | calls each | p50 \
         µs | p99 µs |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|---:|---:|");
    let (mut shared, mut leased) = (String::new(), String::new());
    for tasks in [1, 64, 256, 1_024] {
        let rows = compare(&server, tasks, time(4_000)).await;
        shared += &rows.shared;
        leased += &rows.leased;
    }
    println!("\n## Coalesced against one call each\n");
    println!("| tasks | rate × | server CPU × | rate × on one key | server CPU × |");
    println!("|---:|---:|---:|---:|---:|");
    print!("{shared}");
    println!("\n## Leased against one call each, and against in this process\n");
    println!(
        "| tasks | x one call each | x coalesced | x in this process |\n|---:|---:|---:|---:|"
    );
    print!("{leased}");
    load::print(&server, time(1_000)).await;
}

/// How calls that are shared, and leases, compare to others.
struct Rows {
    shared: String,
    leased: String,
}

/// Runs all ways in turn, round after round, and prints the medians: what disturbs a round disturbs
/// all of it.
async fn compare(server: &Standalone, tasks: u64, time: Duration) -> Rows {
    let connection =
        Server::open(server.url()).expect("a URL").connection().await.expect("a connection");
    let incr = deciding_by(move |number| {
        let mut connection = connection.clone();
        async move {
            let _: u64 = connection.incr(number % KEYS, 1).await.expect("it counts");
        }
    });
    let limitador = Limitador::connect(&server.url()).await;
    let limitador = deciding_by(move |number| limitador.clone().decide(number % KEYS));
    let alone = redis(server, "alone").batch(1).in_flight(1_024).build();
    let leased = Leased::new(redis(server, "leased").build(), Duration::from_millis(200));
    // Both wait for so long: as by default, where it is shorter.
    let guarded = GuardedBuilder::new(Fallback::Refuse).timeout(TIMEOUT);
    let guarded = guarded.build::<TokenBucket, _>(redis(server, "guarded").build());
    let ways: [(&str, Deciding); 8] = [
        ("bare `INCR`", incr),
        ("limitador's commands", limitador),
        ("one call each", deciding(alone, KEYS)),
        ("coalesced", deciding(redis(server, "together").build(), KEYS)),
        ("coalesced, one key", deciding(redis(server, "hot").build(), 1)),
        ("coalesced, one key, guarded", deciding(guarded, 1)),
        ("leased, one key", deciding(leased, 1)),
        ("in this process, one key", deciding(Local::new(), 1)),
    ];
    let mut rounds = ways.each_ref().map(|_| Rounds::default());
    for _ in 0..ROUNDS {
        for ((_, decide), rounds) in ways.iter().zip(&mut rounds) {
            rounds.push(Run::of(server, tasks, time / ROUNDS, Arc::clone(decide)).await);
        }
    }
    for ((way, _), rounds_of) in ways.iter().zip(&rounds) {
        print_row(way, tasks, rounds_of, &rounds[0]);
    }
    let [_, _, alone, together, hot, _, leased, local] = &rounds;
    let times = |other| leased.ratio(other, Run::per_second);
    let leased = format!(
        "| {tasks} | {:.0} | {:.0} | {:.2} |\n",
        times(alone),
        times(together),
        times(local)
    );
    let rate = |way: &Rounds| way.ratio(alone, Run::per_second);
    let cpu = |way: &Rounds| way.ratio(alone, Run::server_cpu);
    let shared = format!(
        "| {tasks} | {:.2} | {:.2} | {:.1} | {:.2} |\n",
        rate(together),
        cpu(together),
        rate(hot),
        cpu(hot)
    );
    Rows { shared, leased }
}

type Deciding = Arc<dyn Fn(u64) -> BoxFuture<'static, ()> + Send + Sync>;

fn deciding_by<F>(decide: impl Fn(u64) -> F + Send + Sync + 'static) -> Deciding
where
    F: Future<Output = ()> + Send + 'static,
{
    Arc::new(move |number| Box::pin(decide(number)))
}

fn deciding<B: Backend<TokenBucket>>(backend: B, keys: u64) -> Deciding {
    // Nobody uses it up.
    let limit = TokenBucket::new(Quota::per_second(100_000_000)).burst(500_000_000);
    let limiter = Limiter::new(limit, backend);
    deciding_by(move |number| {
        let limiter = limiter.clone();
        async move {
            let decision = limiter.decide(&Key::from(number % keys), Cost::ONE).await;
            assert!(decision.is_ok_and(|decision| decision.is_allowed()), "nobody uses it up");
        }
    })
}

fn redis(server: &Standalone, name: &'static str) -> RedisBuilder<Server> {
    let source = Server::open(server.url()).expect("a URL");
    RedisBuilder::new(source, PolicyName::from_static(name)).timeout(TIMEOUT)
}

fn print_row(way: &str, tasks: u64, rounds: &Rounds, incr: &Rounds) {
    println!(
        "| {way} | {tasks} | {:.1} | {:.2} | {:.2} | {:.2} | {:.3} | {:.0} | {:.0} |",
        rounds.median(Run::per_second) / 1e3,
        rounds.ratio(incr, Run::per_second),
        rounds.median(Run::server_cpu),
        rounds.ratio(incr, Run::server_cpu),
        rounds.median(Run::calls),
        rounds.median(|run| run.percentile(50)),
        rounds.median(|run| run.percentile(99)),
    );
}
