use std::time::Duration;

use proptest::prelude::*;
use tower_quota::{
    Charge, Cost, Quota,
    algorithm::{Algorithm, TokenBucket},
    time::Timestamp,
};

use crate::oracle::{Admissions, Oracle, amount, at, cases, compare, quota, starts, steps, wait};

const DAY: u64 = 86_400_000_000_000;
const SECOND: u64 = 1_000_000_000;

/// A bucket by its bound: what may be taken is what no interval that ends now forbids.
///
/// Levels are fractions with the period as the denominator.
pub(crate) struct Bucket {
    limit: i128,
    period: i128,
    burst: i128,
    /// The nanoseconds in a tick of the clock that the meter sees.
    tick: u64,
    admissions: Admissions,
}

impl Bucket {
    pub(crate) fn new(quota: Quota, burst: u64, tick: u64) -> Self {
        let (limit, period) = (i128::from(quota.limit()), quota.period().as_nanos() as i128);
        Self { limit, period, burst: i128::from(burst), tick, admissions: Vec::new() }
    }

    fn level(&self, now: u64) -> i128 {
        let mut sum = 0;
        let intervals = self.admissions.iter().rev().map(|(at, units)| {
            sum += units;
            let ticks = i128::from(now / self.tick) - i128::from(at / self.tick);
            let refilled = ticks * i128::from(self.tick) * self.limit;
            (self.burst - sum) * self.period + refilled
        });
        intervals.fold(self.burst * self.period, i128::min)
    }
}

impl Oracle for Bucket {
    fn capacity(&self) -> i128 {
        self.burst
    }

    fn room(&self, now: u64) -> i128 {
        self.level(now).div_euclid(self.period)
    }

    fn add(&mut self, now: u64, units: i128) {
        self.admissions.push((now, units));
    }

    fn give_back(&mut self, now: u64, _: u64, units: i128) {
        self.admissions.push((now, -units));
    }
}

/// Limits, periods, bursts and the ticks that the meter's documentation says they need: a tick is
/// a nanosecond, or the least power of ten of them with which burst × parts fits in 62 bits.
fn quotas() -> impl Strategy<Value = (Quota, u64, u64)> {
    let listed = prop::sample::select(vec![
        (1, 30 * DAY, 1, 1),
        (1, 30 * DAY, 1_000, 1),
        (1, 1, 1, 1),
        (3, 7, 2, 1),
        (3, SECOND, 3, 1),
        (7, SECOND + 1, 5, 1),
        (1_000_000_000, SECOND, 1_000_000_000, 1),
        (900_000_000, SECOND, 900_000_000, 1),
        (900_000_000, SECOND, 1, 1),
        (999_999_937, SECOND, 999_999_937, 1),
        (999_999_937, SECOND, 10, 1),
        (150_000_000, 60 * SECOND, 150_000_000, 1),
        (1_000_000_000, DAY, 50_000_000, 1),
        (1_000_003, 30 * DAY, 1_000_003, 1_000),
        (1_000_003, 30 * DAY, 1, 1),
        (999_999_937, 30 * DAY, 999_999_937, 1_000_000),
        (Quota::MAX_LIMIT, SECOND, Quota::MAX_LIMIT, 1_000_000),
        (Quota::MAX_LIMIT, 1, Quota::MAX_LIMIT, 1),
    ]);
    let listed =
        listed.prop_map(|(limit, period, burst, tick)| (quota(limit, period), burst, tick));
    let random = (1..1_000_000_u64, 1..1_000_000_000_000_u64, 1..1_000_000_u64);
    let random = random.prop_map(|(limit, period, burst)| (quota(limit, period), burst, 1));
    prop_oneof![listed, random]
}

proptest! {
    #![proptest_config(cases(500))]

    #[test]
    fn a_token_bucket_decides_as_the_bound_on_every_interval_says(
        (quota, burst, tick) in quotas(),
        start in starts(),
        steps in steps(40),
    ) {
        let mut oracle = Bucket::new(quota, burst, tick);
        compare(&TokenBucket::new(quota).burst(burst), &mut oracle, quota, start, &steps)?;
    }

    #[test]
    fn a_bucket_within_a_period_never_lets_more_than_the_limit_pass_in_one(
        limit in 1..2_000_u64,
        burst in 1..2_000_u64,
        period in 1..100_000_u64,
        waits in prop::collection::vec(0..100_u64, 1..80),
    ) {
        let bucket = TokenBucket::within_period(quota(limit, period), burst);
        let (mut now, mut state) = (0, bucket.initial(at(0)));
        let mut taken = Vec::new();
        for wait in waits {
            now += wait * period / 100;
            let units = bucket.available(&state, at(now), Cost::ONE);
            prop_assert!(bucket.decide(&mut state, at(now), Cost::new(units)).is_allowed());
            taken.push((now, units));
            let within = taken.iter().filter(|(at, _)| at + period > now);
            prop_assert!(within.map(|(_, units)| units).sum::<u64>() <= limit);
        }
    }

    #[test]
    fn a_packed_bucket_decides_as_one_that_is_not(
        (quota, burst, tick) in quotas(),
        start in 0..1_700_000_000_000_000_000_u64,
        script in prop::collection::vec((wait(), amount()), 1..40),
    ) {
        let bucket = TokenBucket::new(quota).burst(burst);
        let origin = at(start);
        let (mut now, mut told, mut word) = (start, 0, 0);
        let mut state = bucket.initial(origin);
        for (wait, amount) in script {
            now += wait.nanos(quota, told);
            let instant = at(now);
            let room = bucket.available(&state, instant, Cost::ONE);
            let cost = Cost::new(amount.units(burst, room));
            let packs = bucket.unpack(word, origin, instant).is_some();
            prop_assert_eq!(packs, tick == 1);
            let packed = packs.then(|| bucket.decide_packed(word, origin, instant, cost)).flatten();
            let decision = bucket.decide(&mut state, instant, cost);
            let Some((next, of_word)) = packed else {
                // It is full, or cannot be used at all: then what it stood for is still known.
                prop_assert!(tick > 1 || now - start > 1_000_000_000);
                break;
            };
            prop_assert_eq!(of_word, decision);
            prop_assert_eq!(next.is_some(), decision.is_allowed() && !cost.is_zero());
            if let Some(next) = next {
                prop_assert!(next > word);
                word = next;
            }
            prop_assert!(bucket.packed_idle_at(word, origin) >= bucket.idle_at(&state).min(instant));
            told = decision.retry_after().and_then(|retry| retry.duration())
                .map_or(0, |wait| wait.as_nanos() as u64);
            let mut unpacked = bucket.unpack(word, origin, instant).expect("a word has a state");
            for cost in [0, 1, burst, burst + 1].map(Cost::new) {
                let mut state = state;
                let decision = bucket.decide(&mut state, instant, cost);
                prop_assert_eq!(decision, bucket.decide(&mut unpacked.clone(), instant, cost));
            }
            let idle = bucket.packed_idle_at(word, origin).max(instant);
            let fresh = bucket.available(&bucket.initial(idle), idle, Cost::ONE);
            prop_assert_eq!(bucket.available(&state, idle, Cost::ONE), fresh);
            bucket.take(&mut unpacked, instant, Cost::ZERO);
            prop_assert_eq!(bucket.idle_at(&unpacked), bucket.idle_at(&state).max(instant));
        }
    }

    #[test]
    fn a_bucket_of_another_quota_keeps_the_units_that_were_used(
        (old, old_burst, _) in quotas(),
        (new, new_burst, _) in quotas(),
        part in 0..=1_000_u64,
    ) {
        let now = Timestamp::from_secs(1_700_000_000);
        let bucket = TokenBucket::new(old).burst(old_burst);
        let mut state = bucket.initial(now);
        let used = (u128::from(old_burst) * u128::from(part) / 1_000) as u64;
        prop_assert!(bucket.decide(&mut state, now, Cost::new(used)).is_allowed());
        let other = TokenBucket::new(new).burst(new_burst);
        let left = other.available(&state, now, Cost::ONE);
        prop_assert_eq!(left, new_burst.saturating_sub(used));
    }

    #[test]
    fn a_fraction_of_a_token_grows_by_less_than_a_part_when_the_quota_changes(
        limit in 1..1_000_u64,
        period in 1..100_000_u64,
        wait in 0..100_000_u64,
    ) {
        let (old, new) = (quota(7, 1_009), quota(limit, period));
        let burst = 1_000_000;
        let bucket = TokenBucket::new(old).burst(burst);
        let mut state = bucket.initial(at(0));
        prop_assert!(bucket.decide(&mut state, at(0), Cost::new(burst)).is_allowed());
        let mut oracle = Bucket::new(old, burst, 1);
        oracle.add(0, i128::from(burst));
        // The level in tokens is a fraction of 1,009; in the new bucket's parts it is rounded
        // down, so it lacks less than one of them: a part is at least 1 / period of a token.
        let exact = oracle.level(wait);
        let other = TokenBucket::new(new).burst(burst);
        let mut changed = state;
        // What is taken and given back at this instant writes the state as it is then.
        bucket.take(&mut changed, at(wait), Cost::ONE);
        let charge = Charge::new(at(wait), Cost::ONE);
        bucket.refund(&mut changed, at(wait), &charge, Cost::ONE);
        let unit_at = other.decide(&mut changed.clone(), at(wait), Cost::new(burst));
        let told = unit_at.snapshot().reset_after.as_nanos() as i128;
        let missing = i128::from(burst) * 1_009 - exact;
        // told = ceil(missing parts / rate), with less than one part more than is missing.
        let least = missing * i128::from(period);
        prop_assert!(told * i128::from(limit) * 1_009 >= least);
        let most = least + 1_009 * (i128::from(limit) + i128::from(period));
        prop_assert!(told * i128::from(limit) * 1_009 < most);
    }
}

#[test]
fn a_bucket_that_is_always_drained_admits_the_burst_and_the_rate_to_the_unit() {
    for (limit, period, burst) in [
        (900_000_000, SECOND, 900_000_000),
        (999_999_937, SECOND, 5),
        (150_000_000, 60 * SECOND, 150_000_000),
        (1_000_003, 30 * DAY, 17),
        (1, 30 * DAY, 1),
        (7, 3 * SECOND + 1, 7),
    ] {
        let quota = quota(limit, period);
        let bucket = TokenBucket::new(quota).burst(burst);
        let start = 1_700_000_000 * u128::from(SECOND);
        let (mut now, mut admitted) = (start, 0_u128);
        let mut state = bucket.initial(at(now as u64));
        for _ in 0..200_000 {
            let instant = at(now as u64);
            let units = bucket.available(&state, instant, Cost::ONE);
            assert!(bucket.decide(&mut state, instant, Cost::new(units)).is_allowed());
            admitted += u128::from(units);
            let refused = bucket.decide(&mut state, instant, Cost::ONE);
            let wait = refused.retry_after().and_then(|retry| retry.duration());
            let next = now + wait.expect("one token always comes").as_nanos();
            if next > u128::from(u64::MAX) {
                break;
            }
            now = next;
        }
        let bound = u128::from(burst) + (now - start) * u128::from(limit) / u128::from(period);
        // The last jump led to a moment at which the next unit is there but not yet taken.
        admitted += u128::from(bucket.available(&state, at(now as u64), Cost::ONE));
        assert_eq!(admitted, bound, "{quota}, {burst} at once");
    }
}

#[test]
fn a_rate_that_no_tick_expresses_is_rounded_down_by_less_than_a_billionth() {
    for (limit, period) in [
        (1_999_999_973, 30 * DAY + 1),
        (2_000_000_000, 3_660 * DAY - 7),
        (1_000_000_007, 29 * DAY + 11),
    ] {
        let bucket = TokenBucket::new(quota(limit, period));
        let mut state = bucket.initial(at(0));
        let (mut now, mut admitted) = (0, 0_u128);
        while now < u64::MAX - period {
            let units = bucket.available(&state, at(now), Cost::ONE);
            assert!(bucket.decide(&mut state, at(now), Cost::new(units)).is_allowed());
            admitted += u128::from(units);
            // Never so long that the bucket runs over.
            now += period / 2 + 1;
        }
        let since = u128::from(now - period / 2 - 1);
        let exact = u128::from(limit) + since * u128::from(limit) / u128::from(period);
        // A tick is at most a second here, in which as much may not have been counted yet.
        let tick = u128::from(limit) * u128::from(SECOND) / u128::from(period) + 1;
        assert!(admitted <= exact, "{admitted} of {exact}");
        assert!(exact - admitted <= exact / 1_000_000_000 + tick, "{admitted} of {exact}");
    }
}

#[test]
fn a_bucket_survives_every_cost_at_every_instant() {
    let wide = [Quota::MAX_LIMIT, 999_999_937, 3, 1, 0];
    let long = [1, SECOND, 30 * DAY + 1, Quota::MAX_PERIOD.as_nanos() as u64];
    for limit in wide {
        for period in long {
            let bucket = TokenBucket::new(quota(limit, period));
            for instants in [[0, u64::MAX, 0], [u64::MAX, 0, u64::MAX], [1, 2, u64::MAX - 1]] {
                let mut state = bucket.initial(at(instants[0]));
                for nanos in instants {
                    for units in [0, 1, limit, limit + 1, u64::MAX] {
                        let _ = bucket.decide(&mut state, at(nanos), Cost::new(units));
                        bucket.take(&mut state, at(nanos), Cost::new(units));
                        let _ = bucket.idle_at(&state);
                        for word in [0, units] {
                            let _ =
                                bucket.decide_packed(word, at(instants[1]), at(nanos), Cost::ONE);
                            let _ = bucket.unpack(word, at(instants[1]), at(nanos));
                            let _ = bucket.packed_idle_at(word, at(nanos));
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn a_word_can_be_told_however_much_time_has_passed() {
    let bucket = TokenBucket::new(Quota::per_second(999_999_937));
    let origin = Timestamp::from_secs(1);
    let packed = bucket.decide_packed(0, origin, origin, Cost::new(1_000));
    let word = packed.and_then(|(next, _)| next).expect("a new word");
    // So much drains in 19 seconds that its parts are more than a word holds.
    for secs in [18, 19, 20, 1_000_000_000] {
        let now = origin.saturating_add(Duration::from_secs(secs));
        let unpacked = bucket.unpack(word, origin, now).expect("all of it has drained");
        assert_eq!(bucket.available(&unpacked, now, Cost::ONE), 999_999_937);
    }
}

/// The last instant of a word and those around it: what comes next is not packed, and the state that
/// it is kept in says the same.
#[test]
fn words_end_at_two_to_the_63_and_what_is_used_then_stays_used() {
    const END: u64 = 1 << 63;
    // Three centuries of a common rate, and hours of one that has a million parts a nanosecond.
    for (limit, drain, full) in [(10, 1, SECOND), (1_000_003, 1_000_003, 1_000_003 * SECOND)] {
        let bucket = TokenBucket::new(Quota::per_second(limit));
        let origin = at(SECOND);
        for before_end in [0, 1, full / drain / 2, full / drain, 2 * full / drain] {
            let now = at(SECOND + (END - 1) / drain - before_end);
            // Full, in use, and used up.
            let drained = (now.as_nanos() - SECOND) * drain;
            for word in [0, drained, drained + full / 2, drained + full].map(|w| w.min(END - 1)) {
                let state = bucket.unpack(word, origin, now).expect("a state");
                for units in [0, 1, limit / 2, limit, limit + 1] {
                    let cost = Cost::new(units);
                    let mut apart = state;
                    let expected = bucket.decide(&mut apart, now, cost);
                    match bucket.decide_packed(word, origin, now, cost) {
                        None => assert!(drained + full >= END, "{word} {units}"),
                        Some((next, decision)) => {
                            assert_eq!(decision, expected, "{word} {units}");
                            let next = next.unwrap_or(word);
                            assert!(next < END);
                            assert_eq!(bucket.unpack(next, origin, now), Some(apart));
                        }
                    }
                }
            }
            let after = now.saturating_add(Duration::from_nanos(before_end + 1));
            assert_eq!(bucket.decide_packed(drained, origin, after, Cost::ONE), None);
        }
    }
}

#[test]
fn the_last_word_is_none() {
    let periods = [1, SECOND, 30 * DAY];
    for (limit, period) in [1, 1_000, 1_000_000].into_iter().zip(periods) {
        let bucket = TokenBucket::new(quota(limit, period));
        for nanos in [0, 1, SECOND, u64::MAX / 2, u64::MAX] {
            for units in [0, 1, limit, u64::MAX] {
                let packed = bucket.decide_packed(u64::MAX, at(0), at(nanos), Cost::new(units));
                assert_eq!(packed, None, "{units} of {limit} after {nanos}");
            }
        }
    }
}
