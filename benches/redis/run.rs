//! Tasks that decide without a pause, and what that took.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{task::JoinSet, time::Instant};

use crate::servers::Standalone;

/// What a way of deciding did.
pub(crate) struct Run {
    decisions: u64,
    time: Duration,
    server_cpu: Duration,
    calls: u64,
    latencies: Vec<Duration>,
}

impl Run {
    /// Has so many tasks decide without a pause, one decision of each at a time.
    pub(crate) async fn of<F>(
        server: &Standalone,
        tasks: u64,
        time: Duration,
        decide: Arc<dyn Fn(u64) -> F + Send + Sync>,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        server.flush_all();
        let (cpu, calls_before) = (server.used_cpu(), calls(server));
        let decisions = Arc::new(AtomicU64::new(0));
        let begun = Instant::now();
        let mut running = JoinSet::new();
        for task in 0..tasks {
            let (decide, decisions) = (Arc::clone(&decide), Arc::clone(&decisions));
            running.spawn(async move {
                let mut latencies = Vec::new();
                let mut count = 0_u64;
                while begun.elapsed() < time {
                    let asked = Instant::now();
                    let has_waited = wait(decide(task.wrapping_mul(0x9e37_79b9) ^ count)).await;
                    latencies.push(asked.elapsed());
                    count += 1;
                    // Whoever has waited has let others run.
                    if !has_waited && count.is_multiple_of(16) {
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
        Self {
            decisions: decisions.load(Ordering::Relaxed),
            time,
            server_cpu: server.used_cpu().saturating_sub(cpu),
            calls: calls(server).saturating_sub(calls_before),
            latencies,
        }
    }

    pub(crate) fn per_second(&self) -> f64 {
        self.decisions as f64 / self.time.as_secs_f64()
    }

    /// Microseconds of the server's processor for each decision.
    pub(crate) fn server_cpu(&self) -> f64 {
        self.server_cpu.as_secs_f64() * 1e6 / self.decisions.max(1) as f64
    }

    /// Calls to the server for each decision.
    pub(crate) fn calls(&self) -> f64 {
        self.calls as f64 / self.decisions.max(1) as f64
    }

    /// Microseconds.
    pub(crate) fn percentile(&self, percent: usize) -> f64 {
        let place = self.latencies.len() * percent / 100;
        let latency = self.latencies.get(place).or_else(|| self.latencies.last());
        // On a busy machine a moment may be too short for any.
        latency.map_or(f64::NAN, |latency| latency.as_secs_f64() * 1e6)
    }
}

/// Waits for what is to come, and says whether that was necessary.
async fn wait(coming: impl Future<Output = ()>) -> bool {
    let mut coming = pin!(coming);
    let mut has_waited = false;
    poll_fn(|context| {
        let polled = coming.as_mut().poll(context);
        has_waited |= polled.is_pending();
        polled
    })
    .await;
    has_waited
}

/// The same way of deciding, round after round.
#[derive(Default)]
pub(crate) struct Rounds(Vec<Run>);

impl Rounds {
    pub(crate) fn push(&mut self, run: Run) {
        self.0.push(run);
    }

    pub(crate) fn median(&self, of: impl Fn(&Run) -> f64) -> f64 {
        middle(self.0.iter().map(of).collect())
    }

    /// The median of the ratios, each taken within a round.
    pub(crate) fn ratio(&self, to: &Self, of: impl Fn(&Run) -> f64) -> f64 {
        middle(self.0.iter().zip(&to.0).map(|(run, other)| of(run) / of(other)).collect())
    }
}

fn middle(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_unstable_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

/// What clients have called until now.
pub(crate) fn calls(server: &Standalone) -> u64 {
    server.calls_of("evalsha") + server.calls_of("incr")
}
