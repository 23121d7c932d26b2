//! Tasks that take a turn after the other, and a table of how many they get.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::future::BoxFuture;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::Extent;

/// A way to take a turn: who takes it is told its number.
pub(crate) type Way = Arc<dyn Fn(u64) -> BoxFuture<'static, ()> + Send + Sync>;

pub(crate) fn way<F>(turn: impl Fn(u64) -> F + Send + Sync + 'static) -> Way
where
    F: Future<Output = ()> + Send + 'static,
{
    Arc::new(move |task| Box::pin(turn(task)))
}

/// Runs all ways in turn, round by round, and prints the medians: the first is what the others are
/// compared with.
pub(crate) async fn compare(extent: Extent, tasks: u64, ways: &[(&str, Way)]) {
    println!("| way | thousand turns a second | × the first | least of a task / mean |");
    println!("|---|---:|---:|---:|");
    let mut rounds = vec![Vec::new(); ways.len()];
    for _ in 0..extent.rounds {
        for ((_, way), rounds) in ways.iter().zip(&mut rounds) {
            rounds.push(run(way, tasks, extent.time).await);
        }
    }
    for ((name, _), own) in ways.iter().zip(&rounds) {
        let rate = median(own.iter().map(|run| run.0));
        let ratio = median(own.iter().zip(&rounds[0]).map(|(own, first)| own.0 / first.0));
        let least = median(own.iter().map(|run| run.1));
        println!("| {name} | {:.1} | {ratio:.2} | {least:.2} |", rate / 1e3);
    }
    println!();
}

/// Turns a second, and the least of a task as a part of the mean.
async fn run(way: &Way, tasks: u64, time: Duration) -> (f64, f64) {
    let counts: Vec<Arc<AtomicU64>> = (0..tasks).map(|_| Arc::default()).collect();
    let mut running = JoinSet::new();
    for (task, count) in (0..).zip(&counts) {
        let (way, count) = (Arc::clone(way), Arc::clone(count));
        running.spawn(async move {
            loop {
                way(task).await;
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let read = || counts.iter().map(|count| count.load(Ordering::Relaxed)).collect::<Vec<_>>();
    sleep(time / 5).await;
    let (begun, before) = (Instant::now(), read());
    sleep(time).await;
    let (took, after) = (begun.elapsed().as_secs_f64(), read());
    running.shutdown().await;
    let turns: Vec<f64> =
        after.iter().zip(&before).map(|(after, before)| (after - before) as f64).collect();
    let all: f64 = turns.iter().sum();
    let least = turns.iter().copied().fold(f64::MAX, f64::min);
    (all / took, least * tasks as f64 / all.max(1.0))
}

fn median(numbers: impl Iterator<Item = f64>) -> f64 {
    let mut numbers: Vec<f64> = numbers.collect();
    numbers.sort_unstable_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(f64::NAN)
}
