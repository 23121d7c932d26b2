//! What callers were told, counted.

use std::iter::Sum;

use tokio::{task::JoinSet, time::Instant};
use tower_quota::{BackendErrorKind, Cost, Key, Limiter, algorithm::TokenBucket, backend::Backend};

use super::servers::PATIENCE;

/// How many were told what.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) admitted: u64,
    pub(crate) refused: u64,
    /// Whether they were charged, nobody knows.
    pub(crate) timed_out: u64,
    /// They were not charged.
    pub(crate) unreachable: u64,
}

impl Tally {
    /// Asks once.
    pub(crate) async fn ask<B: Backend<TokenBucket>>(&mut self, limiter: &Limiter<TokenBucket, B>) {
        match limiter.decide(&Key::GLOBAL, Cost::ONE).await {
            Ok(decision) if decision.is_allowed() => self.admitted += 1,
            Ok(_) => self.refused += 1,
            Err(error) => match error.kind() {
                BackendErrorKind::TimedOut => self.timed_out += 1,
                BackendErrorKind::Unreachable => self.unreachable += 1,
                _ => panic!("{error:?}"),
            },
        }
    }

    /// Asks until the server refuses: nothing is left then.
    pub(crate) async fn ask_for_the_rest<B: Backend<TokenBucket>>(
        &mut self,
        limiter: &Limiter<TokenBucket, B>,
    ) {
        let (begun, refused) = (Instant::now(), self.refused);
        while self.refused == refused {
            self.ask(limiter).await;
            assert!(begun.elapsed() < PATIENCE, "it does not come back: {self:?}");
        }
    }

    /// What so many tasks are told that ask until nothing is left, all together.
    pub(crate) async fn of_tasks<B: Backend<TokenBucket>>(
        limiter: &Limiter<TokenBucket, B>,
        tasks: usize,
    ) -> Self {
        let asking = (0..tasks).map(|_| {
            let limiter = limiter.clone();
            async move {
                let mut tally = Self::default();
                tally.ask_for_the_rest(&limiter).await;
                tally
            }
        });
        asking.collect::<JoinSet<_>>().join_all().await.into_iter().sum()
    }

    /// Asserts that all of `limit` was admitted, but for what timed out, and nothing more.
    #[track_caller]
    pub(crate) fn assert_admits(&self, limit: u64) {
        let least = limit.saturating_sub(self.timed_out);
        assert!((least..=limit).contains(&self.admitted), "{limit}: {self:?}");
    }
}

impl Sum for Tally {
    fn sum<I: Iterator<Item = Self>>(tallies: I) -> Self {
        tallies.fold(Self::default(), |sum, one| Self {
            admitted: sum.admitted + one.admitted,
            refused: sum.refused + one.refused,
            timed_out: sum.timed_out + one.timed_out,
            unreachable: sum.unreachable + one.unreachable,
        })
    }
}

/// Waits until the server does not answer any more. Peeks charge nothing.
pub(crate) async fn until_it_hangs<B: Backend<TokenBucket>>(limiter: &Limiter<TokenBucket, B>) {
    let begun = Instant::now();
    while limiter.peek(&Key::GLOBAL, Cost::ONE).await.is_ok() {
        assert!(begun.elapsed() < PATIENCE, "it goes on answering");
    }
}
