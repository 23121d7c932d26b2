//! A home of your own for the states: here a map behind a mutex. Every algorithm runs in it.
//!
//! ```sh
//! cargo run --example custom_backend
//! ```
//!
//! `tower_quota::testing::conformance` checks whether a backend keeps the contract of `Backend`.

#![expect(clippy::print_stdout, reason = "an example talks to its reader")]

use std::{
    collections::HashMap,
    error::Error,
    future::Ready,
    sync::{Arc, Mutex, PoisonError},
};

use tower_quota::{
    BackendError, Charge, Cost, Decision, Demand, Key, Limiter, MaybeReady, Quota,
    algorithm::{Algorithm, FixedWindow, TokenBucket},
    backend::Backend,
    time::{Clock, SystemClock, Timestamp},
};

/// A clone is a handle: it shares the states.
struct InMap<A: Algorithm>(Arc<Mutex<HashMap<Key, A::State>>>);

impl<A: Algorithm> InMap<A> {
    /// Runs `change` on the state of `key`, under the lock: that makes it atomic. What is idle is
    /// as good as new, and is forgotten; with many keys, not at each decision.
    fn with<T>(&self, a: &A, key: &Key, change: impl FnOnce(&mut A::State, Timestamp) -> T) -> T {
        let mut states = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = SystemClock.now();
        states.retain(|_, state| a.idle_at(state) > now);
        change(states.entry(key.clone()).or_insert_with(|| a.initial(now)), now)
    }
}

impl<A: Algorithm> Backend<A> for InMap<A> {
    // A server elsewhere would have a future of its own here, and answer `MaybeReady::pending`.
    type Decide = Ready<Result<Decision, BackendError>>;
    type Settle = Ready<Result<(), BackendError>>;

    fn decide(&self, a: &A, key: &Key, demand: &Demand) -> MaybeReady<Self::Decide> {
        MaybeReady::ready(Ok(self.with(a, key, |state, now| a.answer(state, now, demand))))
    }

    fn settle(&self, a: &A, key: &Key, charge: &Charge, actual: Cost) -> MaybeReady<Self::Settle> {
        self.with(a, key, |state, now| a.settle(state, now, charge, actual));
        MaybeReady::ready(Ok(()))
    }
}

impl<A: Algorithm> Clone for InMap<A> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let per_hour = Quota::per_hour(3);
    assert_eq!(admitted("token bucket", TokenBucket::new(per_hour)).await?, 3);
    assert_eq!(admitted("fixed window", FixedWindow::from_first_hit(per_hour)).await?, 3);
    Ok(())
}

async fn admitted<A: Algorithm>(name: &str, algorithm: A) -> Result<usize, BackendError> {
    let limiter = Limiter::new(algorithm, InMap(Arc::default()));
    let mut admitted = 0;
    for _ in 0..4 {
        let decision = limiter.decide(&Key::from("alice"), 1).await?;
        let (verdict, left) = (decision.is_allowed(), decision.snapshot().remaining);
        println!("{name}: {}, {left} left", if verdict { "admitted" } else { "refused" });
        admitted += usize::from(verdict);
    }
    Ok(admitted)
}
