//! Decisions on a Redis server: against a bare `INCR` on the same kind of connection and the
//! commands of a peer, coalesced and not, leased and local; and what instances that share a limit
//! call and admit under load. Starts its own `redis-server`. Prints Markdown.
//!
//! `cargo bench --features redis,redis-cluster,redis-sentinel --bench redis`, about a minute; for a
//! moment only: add `-- --quick`.
#![expect(clippy::print_stdout, reason = "a program that prints tables")]

#[path = "redis/limitador.rs"]
mod limitador;
#[path = "redis/load.rs"]
mod load;
#[path = "redis/run.rs"]
mod run;
#[path = "../tests/support/servers/mod.rs"]
mod servers;

use std::time::Duration;

use ::redis::AsyncCommands;
use futures::future::BoxFuture;
use tower_quota::{
    Cost, Key, Limiter, PolicyName, Quota,
    algorithm::TokenBucket,
    backend::{
        Backend, Leased, Local,
        redis::{RedisBuilder, Server, Source},
    },
};

use self::{limitador::Limitador, run::Run, servers::Standalone};

const KEYS: u64 = 10_000;

#[tokio::main]
async fn main() {
    let is_bench = std::env::args().any(|argument| argument == "--bench");
    let is_quick = !is_bench || std::env::args().any(|argument| argument == "--quick");
    let time = |full| Duration::from_millis(if is_quick { 50 } else { full });

    let server = Standalone::start();
    println!("## Decisions on one server, {KEYS} keys unless said\n");
    println!(
        "| way | tasks | thousand a second | x INCR | server CPU µs each | x INCR | calls each | p50 \
         µs | p99 µs |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|---:|---:|");
    let mut ratios = String::new();
    for tasks in [1, 64, 256] {
        ratios += &compare(&server, tasks, time(2_000)).await;
    }
    println!("\n## Leased against one call each, and against in this process\n");
    println!(
        "| tasks | x one call each | x coalesced | x in this process |\n|---:|---:|---:|---:|"
    );
    print!("{ratios}");
    load::print(&server, time(1_000)).await;
}

/// Prints a row for each way, and gives a row of how leases compare.
async fn compare(server: &Standalone, tasks: u64, time: Duration) -> String {
    let connection =
        Server::open(server.url()).expect("a URL").connection().await.expect("a connection");
    let incr = move |number| {
        let mut connection = connection.clone();
        async move {
            let _: u64 = connection.incr(number % KEYS, 1).await.expect("it counts");
        }
    };
    let incr = Run::of(server, tasks, time, incr).await;
    print_row("bare `INCR`", tasks, &incr, &incr);

    let limitador = Limitador::connect(&server.url()).await;
    let limitador = move |number| limitador.clone().decide(number % KEYS);
    print_row("limitador's commands", tasks, &Run::of(server, tasks, time, limitador).await, &incr);

    let alone = deciding(redis(server, "alone").batch(1).in_flight(1_024).build(), KEYS);
    let alone = Run::of(server, tasks, time, alone).await;
    print_row("one call each", tasks, &alone, &incr);
    let together = deciding(redis(server, "together").build(), KEYS);
    let together = Run::of(server, tasks, time, together).await;
    print_row("coalesced", tasks, &together, &incr);
    let hot = deciding(redis(server, "hot").build(), 1);
    print_row("coalesced, one key", tasks, &Run::of(server, tasks, time, hot).await, &incr);
    let hold = Duration::from_millis(200);
    let leased = deciding(Leased::new(redis(server, "leased").build(), hold), 1);
    let leased = Run::of(server, tasks, time, leased).await;
    print_row("leased, one key", tasks, &leased, &incr);
    let local = Run::of(server, tasks, time, deciding(Local::new(), 1)).await;
    print_row("in this process, one key", tasks, &local, &incr);

    let times = |other: &Run| leased.per_second() / other.per_second();
    format!("| {tasks} | {:.0} | {:.0} | {:.2} |\n", times(&alone), times(&together), times(&local))
}

fn deciding<B: Backend<TokenBucket>>(
    backend: B,
    keys: u64,
) -> impl Fn(u64) -> BoxFuture<'static, ()> + Clone + Send + 'static {
    // Nobody uses it up.
    let limit = TokenBucket::new(Quota::per_second(100_000_000)).burst(500_000_000);
    let limiter = Limiter::new(limit, backend);
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

fn print_row(way: &str, tasks: u64, run: &Run, incr: &Run) {
    println!(
        "| {way} | {tasks} | {:.1} | {:.2} | {:.2} | {:.2} | {:.3} | {:.0} | {:.0} |",
        run.per_second() / 1e3,
        run.per_second() / incr.per_second(),
        run.server_cpu(),
        run.server_cpu() / incr.server_cpu(),
        run.calls(),
        run.percentile(50),
        run.percentile(99),
    );
}
