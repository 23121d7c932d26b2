//! The conformance suite: backends that keep the contract pass it, and each way to break the
//! contract fails it.

#![cfg(all(feature = "local", feature = "testing"))]

mod broken;
mod map;

use std::{fmt::Debug, marker::PhantomData};

use tower_quota::{
    algorithm::{Algorithm, SlidingLog, TokenBucket},
    backend::{Backend, DynBackend, Local, LocalBuilder},
    testing::conformance::{self, Harness},
    time::{ManualClock, Timestamp},
};

/// A clock, and how to make a backend that reads it.
struct Made<M>(ManualClock, PhantomData<M>);

trait Make<A: Algorithm> {
    type Backend: Backend<A>;

    fn make(clock: ManualClock) -> Self::Backend;
}

impl<M> Made<M> {
    fn new() -> Self {
        Self(ManualClock::new(), PhantomData)
    }
}

impl<A: Algorithm, M: Make<A>> Harness<A> for Made<M> {
    type Backend = M::Backend;

    fn backend(&self) -> M::Backend {
        M::make(self.0.clone())
    }

    fn set_time(&self, now: Timestamp) {
        self.0.set(now);
    }
}

struct InThisProcess;

impl<A: Algorithm> Make<A> for InThisProcess {
    type Backend = Local<A, ManualClock>;

    fn make(clock: ManualClock) -> Self::Backend {
        LocalBuilder::new().build_with_clock(clock)
    }
}

struct WithKeysRemembered;

impl<A: Algorithm> Make<A> for WithKeysRemembered {
    type Backend = Local<A, ManualClock>;

    fn make(clock: ManualClock) -> Self::Backend {
        LocalBuilder::new().capacity(2_000).remember_keys().build_with_clock(clock)
    }
}

struct Erased<M>(PhantomData<M>);

impl<A: Algorithm, M: Make<A>> Make<A> for Erased<M> {
    type Backend = DynBackend<A>;

    fn make(clock: ManualClock) -> Self::Backend {
        DynBackend::new(M::make(clock))
    }
}

#[tokio::test]
async fn the_local_store_conforms() {
    conformance::run(&Made::<InThisProcess>::new()).await;
}

#[tokio::test]
async fn a_small_local_store_that_remembers_keys_conforms() {
    conformance::run(&Made::<WithKeysRemembered>::new()).await;
}

#[tokio::test]
async fn an_erased_backend_conforms() {
    conformance::run(&Made::<Erased<InThisProcess>>::new()).await;
    conformance::run(&Made::<Erased<map::AnswersLater>>::new()).await;
}

#[tokio::test]
async fn a_map_behind_a_lock_conforms() {
    conformance::run(&Made::<map::AnswersAtOnce>::new()).await;
}

#[tokio::test]
async fn a_backend_that_has_to_be_waited_for_conforms() {
    conformance::run(&Made::<map::AnswersLater>::new()).await;
}

/// Runs the suite for two algorithms, and gives the message it fails with.
fn failure<M: Make<TokenBucket> + Make<SlidingLog> + Send + 'static>() -> String {
    let run = || {
        let harness = Made::<M>::new();
        let bucket = TokenBucket::new(tower_quota::Quota::per_second(10)).burst(4);
        let log = SlidingLog::new(tower_quota::Quota::per_second(4));
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
            conformance::run_for(&harness, &[bucket, bucket.burst(6)]).await;
            conformance::run_for(&harness, std::slice::from_ref(&log)).await;
        });
    };
    let failed = std::thread::spawn(run).join().expect_err("the suite lets it pass");
    failed.downcast_ref::<String>().expect("a message").clone()
}

#[track_caller]
fn fails_in<M: Make<TokenBucket> + Make<SlidingLog> + Send + 'static>(
    scenario: impl Debug + AsRef<str>,
) {
    let failure = failure::<M>();
    assert!(failure.contains(scenario.as_ref()), "not in {scenario:?} but:\n{failure}");
    assert!(failure.contains("does not conform"), "{failure}");
}

#[test]
fn a_backend_that_charges_on_refusal_fails() {
    fails_in::<broken::ChargesOnRefusal>("a_limit_admits_what_it_holds");
}

#[test]
fn a_backend_whose_keys_share_a_state_fails() {
    fails_in::<broken::SharesKeys>("keys_have_nothing_in_common");
}

#[test]
fn a_backend_that_takes_long_keys_for_one_another_fails() {
    fails_in::<broken::CutsKeys>("keys_have_nothing_in_common");
}

#[test]
fn a_backend_that_takes_when_it_should_peek_fails() {
    fails_in::<broken::TakesAtAPeek>("a_peek_takes_nothing");
}

#[test]
fn a_backend_that_reads_and_then_writes_fails() {
    // Which of the two scenarios at one time sees it first is up to the threads.
    fails_in::<broken::ReadsThenWrites>("at_one_time");
}

#[test]
fn a_backend_that_admits_and_takes_nothing_fails() {
    fails_in::<broken::AdmitsForNothing>("to_be_told_less_changes_nothing");
}

#[test]
fn a_backend_that_admits_and_takes_afterwards_fails() {
    fails_in::<broken::AdmitsLate>("at_one_time");
}

#[test]
fn a_backend_that_waits_between_reading_and_writing_fails() {
    fails_in::<broken::WaitsBetween>("demands_on_one_key_at_one_time_are_in_some_order");
}

#[test]
fn a_backend_that_forgets_too_early_fails() {
    fails_in::<broken::ForgetsEarly>("an_idle_key_is_a_new_one");
}

#[test]
fn a_backend_that_forgives_debt_fails() {
    fails_in::<broken::ForgivesDebt>("what_was_used_beyond_is_owed");
}

#[test]
fn a_backend_that_keeps_what_was_not_used_fails() {
    fails_in::<broken::KeepsTheRest>("what_was_not_used_comes_back");
}

#[test]
fn a_backend_whose_clones_are_new_fails() {
    fails_in::<broken::ClonesAreNew>("clones_have_everything_in_common");
}

#[test]
fn a_backend_that_begins_anew_with_another_limit_fails() {
    fails_in::<broken::BeginsAnew>("a_changed_limit_keeps_what_was_used");
}

#[test]
fn a_backend_that_grants_all_or_nothing_fails() {
    fails_in::<broken::AllOrNothing>("as_many_are_taken_as_there_are");
}

#[test]
fn a_backend_that_charges_twice_fails() {
    fails_in::<broken::ChargesTwice>("a_limit_admits_what_it_holds");
}

#[test]
fn a_failure_says_what_was_asked_and_what_the_answer_should_have_been() {
    let failure = failure::<broken::ChargesOnRefusal>();
    for part in ["TokenBucket", "Key(alice)", "the backend says", "the algorithm says"] {
        assert!(failure.contains(part), "no {part:?} in:\n{failure}");
    }
}
