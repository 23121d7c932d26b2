//! Four instances share one limit, and are asked for a part of it, all of it, and more: how often
//! the server is called for a decision, and how much of what is possible is admitted.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep},
};
use tower_quota::{
    Cost, Key, Limiter, Quota,
    algorithm::TokenBucket,
    backend::{Backend, Leased},
};

use crate::{redis, run::calls, servers::Standalone};

const INSTANCES: u32 = 4;
/// A second.
const RATE: u64 = 2_000;
const BURST: u64 = 500;
/// Of [`RATE`].
const LOADS: [f64; 4] = [0.3, 0.9, 2.0, 10.0];

#[derive(Default)]
struct Counts {
    asked: AtomicU64,
    admitted: AtomicU64,
}

/// Asked, admitted and called, until now.
type Seen = (u64, u64, u64);

impl Counts {
    fn seen(&self, server: &Standalone) -> Seen {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (count(&self.asked), count(&self.admitted), calls(server))
    }
}

/// Prints the table.
pub(crate) async fn print(server: &Standalone, time: Duration) {
    println!("\n## {INSTANCES} instances, one key of {RATE} a second with a burst of {BURST}\n");
    let heads = LOADS.map(|load| format!(" {load} × calls each | admitted |")).concat();
    println!("| way |{heads}");
    println!("|---|{}", "---:|---:|".repeat(LOADS.len()));
    let none = Duration::ZERO;
    let plain = || redis(server, "load").remember_refusals(none).build();
    print_row("plain", server, time, plain).await;
    let remembering = || redis(server, "load").build();
    print_row("remembered refusals", server, time, remembering).await;
    let leased = || Leased::new(redis(server, "load").build(), Duration::from_millis(100));
    print_row("leased, 100 ms", server, time, leased).await;
}

async fn print_row<B: Backend<TokenBucket>>(
    way: &str,
    server: &Standalone,
    time: Duration,
    backend: impl Fn() -> B,
) {
    let mut row = format!("| {way} |");
    for load in LOADS {
        let (calls, admitted) = cell(server, time, load, &backend).await;
        row += &format!(" {calls:.3} | {:.1} % |", admitted * 100.0);
    }
    println!("{row}");
}

/// The calls for each decision, and the part that was admitted of what could be: of the demand or of
/// the rate, whichever is less. Measured when the burst is used up.
async fn cell<B: Backend<TokenBucket>>(
    server: &Standalone,
    time: Duration,
    load: f64,
    backend: &impl Fn() -> B,
) -> (f64, f64) {
    server.flush_all();
    let counts = Arc::new(Counts::default());
    let mut asking = JoinSet::new();
    for instance in 0..INSTANCES {
        let limit = TokenBucket::new(Quota::per_second(RATE)).burst(BURST);
        let limiter = Limiter::new(limit, backend());
        let each = load * RATE as f64 / f64::from(INSTANCES);
        asking.spawn(ask(limiter, each, Arc::clone(&counts), instance));
    }
    sleep(time / 2).await;
    let (begun, before) = (Instant::now(), counts.seen(server));
    sleep(time).await;
    let (took, after) = (begun.elapsed().as_secs_f64(), counts.seen(server));
    asking.shutdown().await;
    let (asked, admitted) = ((after.0 - before.0) as f64, (after.1 - before.1) as f64);
    let possible = asked.min(RATE as f64 * took);
    ((after.2 - before.2) as f64 / asked.max(1.0), admitted / possible.max(1.0))
}

/// So many requests a second, each by itself, whatever becomes of the others.
async fn ask<B: Backend<TokenBucket>>(
    limiter: Limiter<TokenBucket, B>,
    rate: f64,
    counts: Arc<Counts>,
    instance: u32,
) {
    sleep(Duration::from_micros(u64::from(instance) * 250)).await;
    let mut ticks = interval(Duration::from_millis(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut requests = JoinSet::new();
    let (begun, mut sent) = (Instant::now(), 0);
    loop {
        ticks.tick().await;
        let due = (begun.elapsed().as_secs_f64() * rate) as u64;
        for _ in sent..due {
            let (limiter, counts) = (limiter.clone(), Arc::clone(&counts));
            requests.spawn(async move {
                let decision = limiter.decide(&Key::from("hot"), Cost::ONE).await;
                counts.asked.fetch_add(1, Ordering::Relaxed);
                if decision.is_ok_and(|decision| decision.is_allowed()) {
                    counts.admitted.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        sent = due;
        while requests.try_join_next().is_some() {}
    }
}
