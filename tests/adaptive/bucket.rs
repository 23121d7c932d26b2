use std::time::Duration;

use proptest::prelude::*;
use tower_quota::{
    adaptive::{AdaptiveBucket, Outcome, SendRate},
    time::Timestamp,
};

use crate::cases::cases;

const START_MILLIS: u64 = 1_000_000;

fn at(millis: u64) -> Timestamp {
    Timestamp::from_nanos((START_MILLIS + millis) * 1_000_000)
}

/// The SDKs' rule in floating point, written from its description, with the two differences that
/// the bucket documents.
#[derive(Debug)]
struct Model {
    rate: Option<f64>,
    tokens: f64,
    filled: f64,
    fell: Option<f64>,
    w_max: f64,
    k: f64,
    grows_from: f64,
    measured: f64,
    count: f64,
    step: f64,
    settled: bool,
}

impl Model {
    fn new(now: f64) -> Self {
        Self {
            rate: None,
            tokens: 0.0,
            filled: now,
            fell: None,
            w_max: 0.0,
            k: 0.0,
            grows_from: now,
            measured: 0.0,
            count: 0.0,
            step: (now * 2.0).floor() / 2.0,
            settled: false,
        }
    }

    fn fill(&mut self, now: f64) {
        let Some(rate) = self.rate else { return };
        self.tokens = (self.tokens + (now - self.filled).max(0.0) * rate).min(rate.max(1.0));
        self.filled = self.filled.max(now);
    }

    fn set_rate(&mut self, wanted: f64, now: f64) {
        self.fill(now);
        self.filled = self.filled.max(now);
        let rate = wanted.min(2.0 * self.measured).max(0.5);
        self.rate = Some(rate);
        self.tokens = self.tokens.min(rate.max(1.0));
    }

    fn settle(&mut self, sent: f64, outcome: Outcome, now: f64) {
        self.count += 1.0;
        let step = (now * 2.0).floor() / 2.0;
        if step > self.step {
            let before = if self.settled { self.measured } else { 0.0 };
            self.measured = 0.8 * self.count / (step - self.step) + 0.2 * before;
            (self.count, self.step, self.settled) = (0.0, step, true);
        } else if !self.settled {
            self.measured = self.count * 2.0;
        }
        match outcome {
            Outcome::Accepted if self.rate.is_some() => {
                self.set_rate(0.4 * (now - self.grows_from - self.k).powi(3) + self.w_max, now);
            }
            Outcome::Throttled(wait) => {
                if self.fell.is_none_or(|fell| sent - fell > 0.5 + 1e-6) {
                    self.w_max = self.rate.unwrap_or(f64::MAX).min(self.measured);
                    self.k = (self.w_max * 0.3 / 0.4).cbrt();
                    (self.grows_from, self.fell) = (now, Some(now));
                    self.set_rate(0.7 * self.w_max, now);
                }
                if let Some(wait) = wait
                    && now + wait.as_secs_f64() > self.filled
                {
                    self.fill(now + wait.as_secs_f64());
                    self.tokens = self.tokens.min(1.0);
                }
            }
            _ => {}
        }
    }
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        8 => Just(Outcome::Accepted),
        2 => Just(Outcome::Throttled(None)),
        1 => (0_u64..20_000).prop_map(|millis| {
            Outcome::Throttled(Some(Duration::from_millis(millis)))
        }),
        1 => Just(Outcome::Ignored),
    ]
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn a_bucket_follows_the_rule_of_the_sdks(
        steps in prop::collection::vec((0_u64..400, 0_u64..300, outcome()), 1..300),
    ) {
        let seconds = |millis: u64| (START_MILLIS + millis) as f64 / 1_000.0;
        let (mut bucket, mut model) = (AdaptiveBucket::new(at(0)), Model::new(seconds(0)));
        let mut now = 0;
        for (step, latency, outcome) in steps {
            now += step;
            let sent = now.saturating_sub(latency);
            bucket.settle(at(sent), outcome, at(now));
            model.settle(seconds(sent), outcome, seconds(now));
            let close = |ours: f64, theirs: f64| (ours - theirs).abs() <= 1e-4 + theirs * 1e-6;
            let measured = bucket.measured_rate().as_millionths() as f64 / 1e6;
            prop_assert!(close(measured, model.measured), "measured {measured}, {model:?}");
            let rate = bucket.rate().map(|rate| rate.as_millionths() as f64 / 1e6);
            prop_assert_eq!(rate.is_some(), model.rate.is_some());
            if let (Some(rate), Some(theirs)) = (rate, model.rate) {
                prop_assert!(close(rate, theirs), "rate {rate}, {model:?}");
                // The next token: never early by more than the rounding of the rates.
                let ready = bucket.ready_at(0, at(now)).saturating_since(Timestamp::MIN);
                let missing = (1.0 - model.tokens).max(0.0) / theirs;
                let expected = (model.filled + missing).max(seconds(now));
                prop_assert!((ready.as_secs_f64() - expected).abs() < 1e-2, "{model:?}");
            }
        }
    }

    #[test]
    fn a_bucket_never_gives_more_than_its_rate_and_a_second_of_it(
        steps in prop::collection::vec((0_u64..50, outcome()), 1..500),
    ) {
        let mut bucket = AdaptiveBucket::new(at(0));
        bucket.settle(at(0), Outcome::Throttled(None), at(600));
        let rate = |bucket: &AdaptiveBucket| {
            bucket.rate().expect("it was throttled").as_millionths() as f64 / 1e6
        };
        // What comes in a stop comes at the rate of its beginning.
        let (mut now, mut known, mut given, mut allowed) = (600, 600, 0_u64, 1e-6);
        for (step, outcome) in steps {
            now += step;
            if now > known {
                allowed += (now - known) as f64 / 1_000.0 * rate(&bucket);
                known = now;
            }
            while bucket.take(at(now)).is_ok() {
                given += 1;
            }
            prop_assert!(given as f64 <= allowed, "{given} given, {allowed} allowed");
            bucket.settle(at(now), outcome, at(now));
            if let Outcome::Throttled(Some(wait)) = outcome {
                let until = now + wait.as_millis() as u64;
                allowed += until.saturating_sub(known) as f64 / 1_000.0 * rate(&bucket);
                known = known.max(until);
            }
        }
    }
}

#[test]
fn a_token_that_was_promised_is_there_then_and_not_before() {
    let mut bucket = AdaptiveBucket::new(at(0));
    for tenth in 0..20 {
        bucket.settle(at(tenth * 100), Outcome::Accepted, at(tenth * 100));
    }
    bucket.settle(at(2_000), Outcome::Throttled(None), at(2_000));
    for _ in 0..100 {
        let Err(ready_at) = bucket.take(at(2_000)) else { continue };
        let just_before = ready_at.saturating_sub(Duration::from_nanos(1));
        assert_eq!(bucket.take(just_before), Err(ready_at));
        assert_eq!(bucket.take(ready_at), Ok(()));
        return;
    }
    panic!("there are no tokens without end");
}

#[test]
fn a_burst_of_refusals_lowers_the_rate_once() {
    let mut bucket = AdaptiveBucket::new(at(0));
    for hundredth in 0..200 {
        bucket.settle(at(hundredth * 10), Outcome::Accepted, at(hundredth * 10));
    }
    for millis in 0..50 {
        bucket.settle(at(1_990), Outcome::Throttled(None), at(2_010 + millis));
    }
    let once = bucket.rate().expect("it was throttled");
    assert!(once > SendRate::per_second(60), "{once}");
    bucket.settle(at(2_510), Outcome::Throttled(None), at(2_520));
    assert_eq!(bucket.rate(), Some(once));
    bucket.settle(at(2_511), Outcome::Throttled(None), at(2_530));
    let twice = bucket.rate().expect("it was throttled");
    assert!(twice < SendRate::from_millionths(once.as_millionths() * 8 / 10), "{once}, {twice}");
}

#[test]
fn a_shorter_stop_does_not_shorten_a_longer_one() {
    let mut bucket = AdaptiveBucket::new(at(0));
    let wait = |secs| Outcome::Throttled(Some(Duration::from_secs(secs)));
    bucket.settle(at(0), wait(60), at(1_000));
    bucket.settle(at(500), wait(1), at(1_100));
    bucket.settle(at(1_050), wait(0), at(1_200));
    bucket.settle(at(1_050), Outcome::Accepted, at(1_300));
    assert_eq!(bucket.take(at(60_999)), Err(at(61_000)));
    assert_eq!(bucket.take(at(61_000)), Ok(()));
    assert!(bucket.take(at(61_000)).is_err(), "a stop ends with one token, not with a burst");
    bucket.settle(at(61_000), wait(120), at(61_500));
    assert_eq!(bucket.ready_at(0, at(61_500)), at(181_500));
}

#[test]
fn times_at_the_end_of_the_world_overflow_nothing() {
    let mut bucket = AdaptiveBucket::new(Timestamp::MIN);
    let forever = Outcome::Throttled(Some(Duration::MAX));
    bucket.settle(Timestamp::MIN, Outcome::Throttled(None), Timestamp::MAX);
    bucket.settle(Timestamp::MAX, Outcome::Accepted, Timestamp::MIN);
    bucket.settle(Timestamp::MAX, forever, Timestamp::MAX);
    assert_eq!(bucket.ready_at(u64::MAX, Timestamp::MIN), Timestamp::MAX);
    assert!(bucket.take(Timestamp::MIN).is_err());
}
