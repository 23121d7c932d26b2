//! The lease by itself: when a token may be spent, who is served, and what is told.

use std::time::Duration;

use tower_quota::{
    BackendError, BackendErrorKind, Charge, Cost, Decision, Demand, Quota, RetryAfter, Snapshot,
    algorithm::{Algorithm, LeaseBucket, MeterState, TokenBucket},
    backend::leased::{Call, Decided, Lease, Terms},
    time::Timestamp,
};

/// One instance, and a bucket whose clock is the true time. Milliseconds everywhere.
struct Pair {
    terms: Terms,
    bucket: MeterState,
    lease: Lease,
}

fn at(millis: u64) -> Timestamp {
    Timestamp::from_nanos(1_000_000_000_000 + millis * 1_000_000)
}

/// A thousand a second, 300 at once, held for 200 ms: a hundred are left.
fn pair() -> Pair {
    let limit = TokenBucket::new(Quota::per_second(1_000)).burst(300);
    let terms = Terms::new(&limit, Duration::from_millis(200), Duration::ZERO, 1);
    let bucket = terms.drawn_from().initial(at(0));
    Pair { terms, bucket, lease: Lease::new(terms, at(0)) }
}

impl Pair {
    fn use_up(&mut self, millis: u64, units: u64) {
        let cost = Cost::new(units);
        let decision = self.terms.drawn_from().decide(&mut self.bucket, at(millis), cost);
        assert!(decision.is_allowed());
    }

    /// Draws `units` for requests that have left, sent at `sent`, made at `made`, there at `there`.
    fn draw(&mut self, units: u64, [sent, made, there]: [u64; 3]) -> Vec<Decided> {
        let tickets: Vec<_> =
            (0..units).filter_map(|_| self.lease.ask(at(sent), 1).err()).collect();
        let call = self.lease.next_call(at(sent)).expect("somebody waits");
        tickets.into_iter().for_each(|ticket| self.lease.leave(ticket));
        self.carry(call, made, there)
    }

    fn carry(&mut self, call: Call, made: u64, there: u64) -> Vec<Decided> {
        let answer = self.terms.drawn_from().answer(&mut self.bucket, at(made), &call.demand);
        self.bring(call, there, Ok(answer))
    }

    fn bring(
        &mut self,
        call: Call,
        there: u64,
        answer: Result<Decision, BackendError>,
    ) -> Vec<Decided> {
        let mut decided = Vec::new();
        self.lease.answer(call.id, at(there), answer, &mut decided);
        decided
    }

    fn is_allowed(&mut self, millis: u64, cost: u64) -> bool {
        match self.lease.ask(at(millis), cost) {
            Ok(decision) => decision.is_allowed(),
            Err(ticket) => {
                self.lease.leave(ticket);
                false
            }
        }
    }
}

fn wait_of(decision: &Decision) -> Option<Duration> {
    decision.retry_after().and_then(RetryAfter::duration)
}

#[test]
fn a_token_is_held_from_the_sending_of_its_draw_for_a_hundredth_less_than_the_hold_time() {
    let mut pair = pair();
    pair.draw(3, [0, 100, 150]);
    assert!(pair.is_allowed(197, 1));
    assert!(!pair.is_allowed(198, 1));
}

#[test]
fn a_token_is_spent_up_to_its_last_moment_and_not_in_it() {
    let mut pair = pair();
    pair.draw(2, [0, 0, 0]);
    let Decision::Allow { charge, .. } = pair.lease.ask(at(1), 1).expect("it is held") else {
        panic!("it is not admitted")
    };
    let expiry = Timestamp::from_nanos(charge.mark);
    let before = expiry.saturating_sub(Duration::from_nanos(10));
    assert!(pair.lease.ask(before, 1).is_ok());
    pair.draw(2, [300, 300, 300]);
    let later = |nanos: u64| Timestamp::from_nanos(charge.mark + 300_000_000 + nanos);
    assert!(pair.lease.ask(later(0), 1).is_err());
}

#[test]
fn a_promised_token_is_released_when_its_time_has_passed_since_the_answer_even_by_a_fast_clock() {
    let mut pair = pair();
    pair.use_up(0, 100);
    // The bucket is empty: the four tokens come one, two, three and four milliseconds after the draw.
    pair.draw(4, [0, 0, 50]);
    assert!(!pair.is_allowed(51, 1));
    assert!(pair.is_allowed(52, 1));
    assert!(!pair.is_allowed(52, 1));
    assert!(pair.is_allowed(55, 3));
}

#[test]
fn a_promised_token_expires_when_its_time_and_the_hold_have_passed_since_the_sending() {
    let mut pair = pair();
    pair.use_up(0, 200);
    // The tokens come at 101 … 104 ms, and are good until 298, 299, 300 and 301 ms by a slow clock.
    pair.draw(4, [0, 0, 50]);
    assert!(!pair.is_allowed(300, 2));
    assert!(pair.is_allowed(300, 1));
}

#[test]
fn a_refusal_says_when_the_next_token_of_this_instance_comes() {
    let mut pair = pair();
    pair.use_up(0, 150);
    pair.draw(4, [0, 0, 0]);
    for cost in [1, 2, 4] {
        let refused = pair.lease.ask(at(10), cost).expect("it is known");
        let wait = wait_of(&refused).expect("it comes");
        let then = at(10).saturating_add(wait);
        let before = then.saturating_sub(Duration::from_nanos(1));
        assert!(!pair.lease.ask(before, cost).expect("it is known").is_allowed());
        assert!(pair.lease.peek(then, cost).is_some_and(|decision| decision.is_allowed()));
    }
}

#[test]
fn nobody_is_refused_by_ignorance() {
    let mut pair = pair();
    assert!(pair.lease.ask(at(0), 1).is_err());
    pair.lease.next_call(at(0)).expect("somebody waits");
    assert!(pair.lease.ask(at(1), 1).is_err());
    assert_eq!(pair.lease.next_call(at(1)), None);
}

#[test]
fn those_who_wait_are_served_in_turn_and_small_ones_do_not_pass_a_large_one() {
    let mut pair = pair();
    pair.use_up(0, 80);
    let large = pair.lease.ask(at(0), 15).unwrap_err();
    let small: Vec<_> = (0..10).map(|_| pair.lease.ask(at(0), 1).unwrap_err()).collect();
    let call = pair.lease.next_call(at(0)).expect("they wait");
    assert_eq!(call.demand.each, Cost::new(15));
    let decided = pair.carry(call, 0, 1);
    assert_eq!(decided[0].0, large);
    assert!(decided[0].1.as_ref().is_ok_and(Decision::is_allowed));
    let call = pair.lease.next_call(at(1)).expect("the others wait");
    let decided = pair.carry(call, 1, 2);
    let told: Vec<_> = decided.iter().map(|(ticket, _)| *ticket).collect();
    assert_eq!(told, small[..told.len()]);
}

#[test]
fn a_large_cost_has_exactly_its_cost_drawn_and_a_promise_of_all_of_it() {
    let mut pair = pair();
    pair.use_up(0, 90);
    pair.lease.ask(at(0), 40).unwrap_err();
    let call = pair.lease.next_call(at(0)).expect("it waits");
    assert_eq!(call.demand, Demand::up_to(1, Cost::new(40)));
    let decided = pair.carry(call, 0, 0);
    // Ten are there and thirty come in thirty milliseconds, a hundredth more by a fast clock.
    let wait = decided[0].1.as_ref().ok().and_then(wait_of).expect("it comes");
    assert!((30_300..30_310).contains(&wait.as_micros()), "{wait:?}");
    assert!(pair.is_allowed(31, 40));
}

#[test]
fn a_cost_above_what_is_left_of_the_burst_is_refused_for_ever() {
    let refused = pair().lease.ask(at(0), 101).expect("it is known");
    assert_eq!(refused.retry_after(), Some(RetryAfter::Never));
}

#[test]
fn an_empty_bucket_is_remembered_and_refuses_any_cost_for_its_own_time() {
    let mut pair = pair();
    pair.use_up(0, 300);
    pair.lease.ask(at(0), 1).unwrap_err();
    let call = pair.lease.next_call(at(0)).expect("it waits");
    let decided = pair.carry(call, 0, 0);
    // 300 are in use: one fits when 201 have come.
    let wait = decided[0].1.as_ref().ok().and_then(wait_of);
    assert_eq!(wait, Some(Duration::from_millis(201)));
    let refused = pair.lease.ask(at(0), 50).expect("it is remembered");
    assert_eq!(wait_of(&refused), Some(Duration::from_millis(250)));
}

#[test]
fn an_answer_that_comes_when_its_tokens_have_expired_fails_those_who_wait() {
    let mut pair = pair();
    let first = pair.lease.ask(at(0), 1).unwrap_err();
    let call = pair.lease.next_call(at(0)).expect("it waits");
    let decided = pair.carry(call, 0, 199);
    assert_eq!(decided.len(), 1);
    assert_eq!(decided[0].0, first);
    let error = decided[0].1.as_ref().unwrap_err();
    assert_eq!(error.kind(), BackendErrorKind::TimedOut);
}

#[test]
fn a_call_that_is_not_answered_is_given_up_and_what_it_brings_later_is_lost() {
    let mut pair = pair();
    let ticket = pair.lease.ask(at(0), 1).unwrap_err();
    let first = pair.lease.next_call(at(0)).expect("it waits");
    assert_eq!(pair.lease.next_call(at(999)), None);
    let second = pair.lease.next_call(at(1_000)).expect("it still waits");
    assert_ne!(first.id, second.id);
    assert!(pair.carry(first, 0, 1_001).is_empty());
    assert!(!pair.lease.is_unattended());
    assert_eq!(pair.carry(second, 1_001, 1_002)[0].0, ticket);
}

#[test]
fn a_failure_is_told_to_all_who_wait() {
    let mut pair = pair();
    let tickets: Vec<_> = (0..3).map(|_| pair.lease.ask(at(0), 1).unwrap_err()).collect();
    let call = pair.lease.next_call(at(0)).expect("they wait");
    let error = BackendError::new(BackendErrorKind::Unreachable);
    let decided = pair.bring(call, 1, Err(error));
    assert_eq!(decided.iter().map(|(ticket, _)| *ticket).collect::<Vec<_>>(), tickets);
    assert!(decided.iter().all(|(_, answer)| answer.is_err()));
}

#[test]
fn an_answer_that_grants_what_was_not_asked_for_is_malformed() {
    for granted in [0, 7] {
        let mut pair = pair();
        pair.lease.ask(at(0), 2).unwrap_err();
        let call = pair.lease.next_call(at(0)).expect("it waits");
        let answer = Decision::Allow {
            snapshot: Snapshot::new(100, 100, Duration::ZERO),
            charge: Charge::new(at(0), Cost::new(granted)),
        };
        let decided = pair.bring(call, 0, Ok(answer));
        let error = decided[0].1.as_ref().unwrap_err();
        assert_eq!(error.kind(), BackendErrorKind::Malformed);
        assert!(!pair.is_allowed(0, 1));
    }
}

#[test]
fn what_comes_back_is_spent_until_it_expires_and_never_after() {
    let mut pair = pair();
    pair.draw(3, [0, 0, 0]);
    let decision = pair.lease.ask(at(0), 3).expect("it is held");
    let charge = decision.charge().expect("it is admitted");
    pair.lease.give_back(at(10), &charge, 2);
    assert!(pair.is_allowed(100, 1));
    assert!(!pair.is_allowed(199, 1));
    pair.lease.give_back(at(199), &charge, 1);
    assert!(!pair.is_allowed(199, 1));
}

#[test]
fn a_limit_that_is_too_small_keeps_its_burst_and_is_not_leased() {
    let hold = Duration::from_millis(200);
    let terms = |burst, cost| {
        let limit = TokenBucket::new(Quota::per_second(1_000)).burst(burst);
        Terms::new(&limit, hold, Duration::from_millis(10), cost)
    };
    assert!(!terms(210, 1).is_leased());
    assert_eq!(*terms(210, 1).decided_by(), LeaseBucket::new(Quota::per_second(1_000), 210));
    assert!(terms(211, 1).is_leased());
    assert_eq!(terms(211, 1).burst(), 1);
    assert!(!terms(214, 5).is_leased());
    assert!(terms(215, 5).is_leased());
    let closed = Terms::new(&TokenBucket::new(Quota::CLOSED), hold, Duration::ZERO, 1);
    assert!(!closed.is_leased());
    let limit = TokenBucket::new(Quota::per_second(10));
    assert!(!Terms::new(&limit, Duration::ZERO, Duration::ZERO, 1).is_leased());
}

#[test]
fn a_small_request_does_not_take_what_a_large_one_waits_for() {
    let mut pair = pair();
    pair.draw(3, [0, 0, 0]);
    pair.lease.ask(at(1), 15).expect_err("three are held");
    pair.lease.ask(at(1), 1).expect_err("the large one was first");
}

#[test]
fn what_many_give_back_is_kept_together() {
    let mut pair = pair();
    pair.draw(40, [0, 0, 0]);
    let spent: Vec<_> = (0..25).map(|_| pair.lease.ask(at(1), 1).expect("it is held")).collect();
    for decision in spent {
        pair.lease.give_back(at(2), &decision.charge().expect("it is admitted"), 1);
    }
    assert!(pair.is_allowed(3, 25));
}

#[test]
fn a_network_as_slow_as_the_hold_time_fails_requests_and_does_not_draw_for_ever() {
    let mut pair = pair();
    pair.use_up(0, 250);
    pair.lease.ask(at(0), 1).unwrap_err();
    let call = pair.lease.next_call(at(0)).expect("it waits");
    // The token comes after 151 ms and is good until 347 ms, but is not here before 348.
    let decided = pair.carry(call, 0, 196);
    assert_eq!(decided[0].1.as_ref().unwrap_err().kind(), BackendErrorKind::TimedOut);
    assert_eq!(pair.lease.next_call(at(196)), None);
}
