//! The suite that every [`Backend`] has to pass.
//!
//! The algorithms are pure functions, so they are the oracle: the same trace goes through the
//! backend and through the function, and each answer must be the same, instant by instant. Beside
//! that the suite checks what only a backend can get wrong: that decisions on one key are atomic,
//! that keys do not share a state, that clones do, and that a decision that is given up is charged
//! once at most.
//!
//! Where a limit changes two things are left to the backend: whether the time since a key's state
//! was last written, which it may be whenever it is looked at, counts by the old limit or the new
//! one, and whether it still has a state that was idle under the old one.
//!
//! A [`Harness`] makes the backend and sets its time. This is all of it for the store in this
//! process:
//!
//! ```
//! # #[cfg(feature = "local")] mod example {
//! use tower_quota::algorithm::Algorithm;
//! use tower_quota::backend::{Local, LocalBuilder};
//! use tower_quota::testing::conformance::{self, Harness};
//! use tower_quota::time::{ManualClock, Timestamp};
//!
//! struct InThisProcess(ManualClock);
//!
//! impl<A: Algorithm> Harness<A> for InThisProcess {
//!     type Backend = Local<A, ManualClock>;
//!
//!     fn backend(&self) -> Self::Backend {
//!         LocalBuilder::new().build_with_clock(self.0.clone())
//!     }
//!
//!     fn set_time(&self, now: Timestamp) {
//!         self.0.set(now);
//!     }
//! }
//!
//! # pub
//! async fn local_conforms() {
//!     conformance::run(&InThisProcess(ManualClock::new())).await;
//! }
//! # }
//! # #[cfg(feature = "local")]
//! # tokio::runtime::Builder::new_current_thread().build().map(|runtime| {
//! #     runtime.block_on(example::local_conforms());
//! # }).expect("a runtime");
//! ```
//!
//! A backend that knows some algorithms only implements `Harness` for those, and is given to
//! [`run_for`] with each of them.

mod concurrency;
mod limits;
mod scenarios;
mod traces;
mod trial;

use std::time::Duration;

use self::trial::Trial;
use crate::{
    algorithm::{
        Algorithm, FixedWindow, LeakyBucket, Plan, SlidingCounter, SlidingLog, SlidingWindow,
        TokenBucket,
    },
    backend::Backend,
    time::Timestamp,
};

/// Makes a backend for the suite, and owns its time.
pub trait Harness<A: Algorithm> {
    /// The backend that is checked.
    type Backend: Backend<A>;

    /// The smallest step of the backend's clock. The suite's instants are multiples of it, and
    /// times in answers may be rounded up to one.
    const TICK: Duration = Duration::from_nanos(1);

    /// A backend that has no states yet. It shares them with its clones, and with no other that
    /// this makes.
    fn backend(&self) -> Self::Backend;

    /// Sets the time of all backends that this made. It never goes back.
    fn set_time(&self, now: Timestamp);
}

/// Checks a backend under every algorithm of this crate.
///
/// Decisions are asked for from other threads too; pending ones are awaited on this task. Nothing
/// sleeps.
///
/// # Panics
///
/// The backend does not conform. The message says in which scenario, what was asked last, and what
/// it should have answered.
pub async fn run<H>(harness: &H)
where
    H: Harness<TokenBucket>
        + Harness<LeakyBucket>
        + Harness<FixedWindow>
        + Harness<SlidingWindow>
        + Harness<SlidingLog>
        + Harness<SlidingCounter>
        + Harness<Plan>,
{
    run_for(harness, &limits::token_buckets()).await;
    run_for(harness, &limits::leaky_buckets()).await;
    run_for(harness, &limits::fixed_windows()).await;
    run_for(harness, &limits::sliding_windows()).await;
    run_for(harness, &limits::sliding_logs()).await;
    run_for(harness, &limits::sliding_counters()).await;
    run_for(harness, &limits::plans()).await;
}

/// Checks a backend under these limits of one algorithm. Each of them is also changed to the next
/// while it is in use.
///
/// # Panics
///
/// As [`run`].
pub async fn run_for<A: Algorithm, H: Harness<A>>(harness: &H, limits: &[A]) {
    // One time for all, because it must not go back.
    let mut now = Timestamp::from_secs(1_000_000_000);
    for (place, limit) in limits.iter().enumerate() {
        let next = &limits[(place + 1) % limits.len()];
        macro_rules! check {
            ($($file:ident :: $scenario:ident)+) => {$(
                let name = stringify!($scenario);
                let mut trial = Trial::begin(harness, name, limit.clone(), now);
                $file::$scenario(&mut trial, next).await;
                now = trial.end();
            )+};
        }
        check! {
            scenarios::a_limit_admits_what_it_holds
            scenarios::keys_have_nothing_in_common
            scenarios::clones_have_everything_in_common
            scenarios::a_peek_takes_nothing
            scenarios::as_many_are_taken_as_there_are
            scenarios::what_is_left_is_lowered_and_never_raised
            scenarios::to_be_told_less_changes_nothing
            scenarios::a_refusal_changes_nothing
            scenarios::an_idle_key_is_a_new_one
            scenarios::what_was_not_used_comes_back
            scenarios::what_was_used_beyond_is_owed
            scenarios::a_changed_limit_keeps_what_was_used
            scenarios::a_decision_that_is_dropped_is_charged_once_at_most
            concurrency::demands_on_one_key_at_one_time_are_in_some_order
            concurrency::demands_on_many_keys_at_one_time_do_not_meet
            traces::any_trace_is_that_of_the_algorithm
        }
    }
}
