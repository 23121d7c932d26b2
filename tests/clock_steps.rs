//! A clock that goes back: what a store does that keeps packed states.

use std::time::Duration;

use tower_quota::{
    Key, Limiter, Quota, RetryAfter,
    algorithm::TokenBucket,
    backend::{Local, LocalBuilder},
    time::{Clock, ManualClock},
};

const HOUR: Duration = Duration::from_secs(3_600);

fn limiter(clock: &ManualClock) -> Limiter<TokenBucket, Local<TokenBucket, ManualClock>> {
    let bucket = TokenBucket::new(Quota::per_minute(60));
    Limiter::new(bucket, LocalBuilder::new().build_with_clock(clock.clone()))
}

#[test]
fn a_clock_that_goes_back_admits_nothing_more_and_stalls_for_one_refill_at_most() {
    for key in [Key::GLOBAL, Key::from("alice")] {
        let clock = ManualClock::new();
        let limiter = limiter(&clock);
        assert!(limiter.decide_now(&key, 30).unwrap().is_allowed());

        clock.set(clock.now().saturating_sub(HOUR));
        let refused = limiter.decide_now(&key, 60).unwrap();
        let Some(RetryAfter::After(wait)) = refused.retry_after() else {
            panic!("{key}: a full burst beside thirty that are in use: {refused:?}")
        };
        assert!(wait <= Duration::from_secs(60), "{key}: stalls for {wait:?}");

        clock.advance(wait);
        assert!(limiter.decide_now(&key, 60).unwrap().is_allowed(), "{key}");
        assert!(!limiter.decide_now(&key, 1).unwrap().is_allowed(), "{key}");
    }
}

#[test]
fn a_clock_that_jumps_on_fills_the_bucket_once() {
    for key in [Key::GLOBAL, Key::from("alice")] {
        let clock = ManualClock::new();
        let limiter = limiter(&clock);
        assert!(limiter.decide_now(&key, 60).unwrap().is_allowed());

        clock.advance(1_000 * HOUR);
        assert!(limiter.decide_now(&key, 60).unwrap().is_allowed());
        assert!(!limiter.decide_now(&key, 1).unwrap().is_allowed());
    }
}

#[test]
fn a_rate_too_fast_for_a_word_goes_on_exactly_when_the_word_is_full() {
    // 999,999,937 parts drain in a nanosecond: a word lasts nine seconds.
    let quota = Quota::per_second(999_999_937);
    for key in [Key::GLOBAL, Key::from("alice")] {
        let clock = ManualClock::new();
        let backend = LocalBuilder::new().build_with_clock(clock.clone());
        let limiter = Limiter::new(TokenBucket::new(quota), backend);
        for second in 0..40 {
            assert!(limiter.decide_now(&key, 999_999_937).unwrap().is_allowed(), "{key} {second}");
            assert!(!limiter.decide_now(&key, 1).unwrap().is_allowed(), "{key} {second}");
            clock.advance(Duration::from_secs(1));
        }
    }
}
