//! The suite that every [`DeferredStore`] has to pass.
//!
//! It checks each part of the contract by itself, and then a long row of random calls, whose
//! answers have to be those of the store in memory, call by call.
//!
//! ```
//! use tower_quota::deferred::{Bounds, DiskStore};
//! use tower_quota::testing::deferred::{self, Harness};
//! use tower_quota::time::{ManualClock, Timestamp};
//!
//! struct InMemory(ManualClock);
//!
//! impl Harness for InMemory {
//!     type Store = DiskStore;
//!
//!     fn store(&self, bounds: Bounds) -> DiskStore {
//!         DiskStore::in_memory(bounds, self.0.clone()).expect("a thread")
//!     }
//!
//!     fn set_time(&self, now: Timestamp) {
//!         self.0.set(now);
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! deferred::run(&InMemory(ManualClock::new())).await;
//! # }
//! ```

mod bounds;
mod ends;
mod order;
mod traces;
mod trial;
mod turns;

use std::future::Future;

use self::trial::Trial;
use crate::{
    deferred::{Bounds, DeferredStore},
    time::Timestamp,
};

/// Makes a store for the suite, and owns its time.
pub trait Harness {
    /// The store that is checked.
    type Store: DeferredStore;

    /// A store that has no requests yet, and none in common with any other that this makes.
    fn store(&self, bounds: Bounds) -> Self::Store;

    /// The same store, opened anew: by another process, or after a crash. Without one it is not
    /// checked that what was accepted is durable.
    fn reopen(&self, store: Self::Store, bounds: Bounds) -> impl Future<Output = Self::Store> {
        let _ = bounds;
        async { store }
    }

    /// Sets the time of all stores that this made, in whole microseconds. It never goes back.
    fn set_time(&self, now: Timestamp);
}

/// Checks a store. Nothing sleeps.
///
/// # Panics
///
/// The store does not conform. The message says in which scenario.
pub async fn run<H: Harness>(harness: &H) {
    // One time for all, because it must not go back.
    let mut now = Timestamp::from_secs(1_000_000_000);
    macro_rules! check {
        ($($file:ident :: $scenario:ident)+) => {$(
            let mut trial = Trial::begin(harness, stringify!($scenario), now);
            $file::$scenario(&mut trial).await;
            now = trial.end();
        )+};
    }
    check! {
        order::a_request_is_taken_as_it_was_submitted
        order::requests_of_one_owner_are_taken_in_the_order_of_their_coming
        order::a_head_start_is_so_much_time_and_no_more
        order::owners_take_turns_by_their_weights
        order::new_owners_do_not_pass_for_ever
        order::what_is_delayed_is_not_taken_before
        turns::what_was_taken_is_nobody_elses
        turns::a_lease_that_ends_gives_the_request_back
        turns::a_lease_that_is_over_is_its_takers_until_another_takes_it
        turns::a_lease_that_is_renewed_goes_on
        turns::the_last_attempt_that_is_lost_has_failed
        turns::a_retry_waits_and_keeps_its_place
        turns::a_refusal_is_no_attempt_and_holds_its_owner_back
        turns::what_is_settled_twice_is_settled_once
        ends::an_answer_is_kept_as_it_is
        ends::a_failure_has_its_last_answer
        ends::nobody_sees_what_belongs_to_others
        ends::what_is_canceled_does_not_run
        ends::what_is_canceled_while_it_runs_cannot_be_settled
        ends::what_has_not_begun_in_time_expires
        ends::what_has_ended_is_forgotten_in_time
        bounds::an_owner_has_no_more_than_its_part
        bounds::nothing_more_runs_while_answers_take_all_room
        bounds::all_have_no_more_than_there_is
        bounds::a_key_is_for_one_request
        bounds::counts_are_of_all_states
        bounds::what_travels_with_a_request_counts_after_its_end_too
        bounds::what_was_accepted_is_there_after_a_restart
        traces::any_trace_is_that_of_the_store_in_memory
    }
    let _ = now;
}
