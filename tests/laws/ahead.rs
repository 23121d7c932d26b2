//! Turns of windows: an oracle that keeps every start there ever was says when the next one is.

mod changes;

use std::time::Duration;

use proptest::prelude::*;
use tower_quota::{
    Charge, Cost, Decision, PolicyName, Quota, RetryAfter,
    algorithm::{
        Ahead, Algorithm, FixedWindow, Plan, SlidingLog, SlidingWindow, TokenBucket, Window,
    },
};

use crate::oracle::{at, cases, quota, scaled};

/// Starts and their units, in the order in which they were asked for.
type Starts = Vec<(u64, u64)>;

#[derive(Clone, Copy, Debug)]
enum Step {
    /// Thousandths of the period, and of the limit.
    Ask(u64, u64),
    /// Somebody gives its turn back: so many before the last one.
    GiveBack(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let waits = prop_oneof![4 => Just(0), 3 => 0..300_u64, 1 => 0..4_000_u64];
    let parts = prop_oneof![3 => 0..300_u64, 1 => 0..1_100_u64];
    let ask = (waits, parts).prop_map(|(wait, part)| Step::Ask(wait, part));
    prop::collection::vec(prop_oneof![6 => ask, 1 => (0..4_usize).prop_map(Step::GiveBack)], 1..80)
}

/// What is known of a window by its definition.
trait Oracle {
    /// When `units` start that come at `now`, not before the `last` turn, beside these starts.
    fn turn(&self, starts: &Starts, last: u64, now: u64, units: u64) -> u64;

    /// The most units that start in any one window.
    fn most(&self, starts: &Starts) -> u64;
}

struct Fixed {
    limit: u64,
    length: u64,
    offset: u64,
}

impl Fixed {
    const fn window(&self, at: u64) -> u64 {
        (at + self.length - self.offset) / self.length
    }
}

impl Oracle for Fixed {
    fn turn(&self, starts: &Starts, last: u64, now: u64, units: u64) -> u64 {
        let mut window = self.window(now).max(self.window(last));
        while starts.iter().filter(|(at, _)| self.window(*at) == window).map(|of| of.1).sum::<u64>()
            + units
            > self.limit
        {
            window += 1;
        }
        now.max(window * self.length + self.offset - self.length)
    }

    fn most(&self, starts: &Starts) -> u64 {
        let in_window = |window| {
            let its = starts.iter().filter(|(at, _)| self.window(*at) == window);
            its.map(|(_, units)| units).sum()
        };
        starts.iter().map(|(at, _)| in_window(self.window(*at))).max().unwrap_or(0)
    }
}

/// Windows that move, in steps of a segment or (one nanosecond) exactly.
struct Sliding {
    limit: u64,
    period: u64,
    width: u64,
    segments: u64,
}

impl Oracle for Sliding {
    fn turn(&self, starts: &Starts, last: u64, now: u64, units: u64) -> u64 {
        let present = now / self.width;
        let mut segment = present.max(if last > now { last / self.width } else { 0 });
        loop {
            let oldest = segment.saturating_sub(self.segments);
            let live = || starts.iter().filter(|(at, _)| at / self.width >= oldest);
            if live().map(|(_, units)| units).sum::<u64>() + units <= self.limit {
                return now.max(segment * self.width);
            }
            let first = live().map(|(at, _)| at / self.width).min();
            segment = first.expect("what is too much") + self.segments + 1;
        }
    }

    fn most(&self, starts: &Starts) -> u64 {
        let until = |end: u64| {
            let its = starts.iter().filter(|(at, _)| *at <= end && end - at < self.period);
            its.map(|(_, units)| units).sum()
        };
        starts.iter().map(|(at, _)| until(*at)).max().unwrap_or(0)
    }
}

fn wait_of(decision: &Decision) -> Option<u64> {
    decision.retry_after().and_then(RetryAfter::duration).map(|wait| wait.as_nanos() as u64)
}

/// Runs a trace, and holds each answer to the oracle's.
fn turns_are_those_of<W: Window>(
    window: &Ahead<W>,
    oracle: &impl Oracle,
    period: u64,
    steps: &[Step],
) -> Result<(), TestCaseError> {
    let limit = window.capacity().units();
    let ahead = window.time_ahead().as_nanos() as u64;
    let mut now = 1_700_000_000_000_000_000;
    let mut state = window.initial(at(now));
    let mut given: Vec<Charge> = Vec::new();
    let (mut starts, mut last) = (Starts::new(), 0);
    // Since something came back places may be nearer than the oracle knows.
    let mut came_back = false;
    for step in steps {
        match *step {
            Step::GiveBack(before) => {
                let Some(place) = given.len().checked_sub(before + 1) else { continue };
                let charge = given.remove(place);
                let start = charge.at.saturating_add(charge.delay).as_nanos();
                if start <= now {
                    // It has started.
                    given.insert(place, charge);
                    continue;
                }
                window.settle(&mut state, at(now), &charge, Cost::ZERO);
                let its = starts.iter().rposition(|of| *of == (start, charge.cost.units()));
                starts.remove(its.expect("it was given out"));
                came_back = true;
            }
            Step::Ask(wait, part) => {
                now += scaled(period, wait);
                let units = scaled(limit, part);
                let fresh = state.clone();
                let decision = window.decide(&mut state, at(now), Cost::new(units));
                if units > limit {
                    prop_assert_eq!(decision.retry_after(), Some(RetryAfter::Never));
                    continue;
                }
                if units == 0 {
                    continue;
                }
                let turn = oracle.turn(&starts, last, now, units);
                if let Some(wait) = wait_of(&decision) {
                    prop_assert!(turn > now + ahead, "{} is near enough at {}", turn, now);
                    prop_assert!(now + wait <= turn - ahead, "it is told a later one: {}", wait);
                    prop_assert!(came_back || now + wait == turn - ahead, "too early: {}", wait);
                    prop_assert_eq!(&fresh, &state);
                    let at_it = |nanos: u64| {
                        window.decide(&mut state.clone(), at(nanos), Cost::new(units)).is_allowed()
                    };
                    prop_assert!(
                        at_it(now + wait) && !at_it(now + wait - 1) && !at_it(now + wait / 2)
                    );
                    continue;
                }
                let charge = decision.charge().expect("it was allowed");
                let start = charge.at.saturating_add(charge.delay).as_nanos();
                prop_assert_eq!(charge.at, at(now));
                prop_assert!(start <= now + ahead.max(turn.saturating_sub(now)));
                prop_assert!(start <= turn, "{} instead of {}", start, turn);
                prop_assert!(came_back || start == turn, "{} instead of {}", start, turn);
                let before = starts.iter().map(|(at, _)| *at).max().unwrap_or(0);
                prop_assert!(start >= before, "{} passes {}", start, before);
                last = last.max(start);
                starts.push((start, units));
                given.push(charge);
                prop_assert!(oracle.most(&starts) <= limit, "{:?}", starts);
                // Without a turn it is refused until that.
                let plain = window.window();
                let left = decision.snapshot().remaining;
                prop_assert_eq!(plain.available(&state, at(now), Cost::ONE), left);
                if start > now {
                    prop_assert_eq!(left, 0);
                    let refused = plain.decide(&mut state.clone(), at(now), Cost::ONE);
                    prop_assert!(now + wait_of(&refused).expect("it is refused") >= start);
                }
            }
        }
    }
    // A store may forget it when all is over, and not before the last turn.
    let idle = window.idle_at(&state);
    prop_assert!(starts.is_empty() || idle >= at(last.max(1)) || came_back);
    let all = window.decide(&mut state, idle.max(at(now)), Cost::new(limit));
    prop_assert_eq!(all.charge().map(|charge| charge.delay), Some(Duration::ZERO));
    Ok(())
}

fn limits() -> impl Strategy<Value = (u64, u64, u64)> {
    let aheads = prop_oneof![1 => Just(0_u64), 4 => 0..4_000_u64];
    (1..40_u64, 60..1_000_000_u64, aheads)
}

proptest! {
    #![proptest_config(cases(500))]

    #[test]
    fn turns_of_fixed_windows_fill_one_after_the_other(
        (limit, length, part) in limits(), offset in 0..1_000_u64, steps in steps(),
    ) {
        let offset = scaled(length, offset);
        let window = FixedWindow::new(quota(limit, length)).offset(Duration::from_nanos(offset));
        let window = window.ahead(Duration::from_nanos(scaled(length, part)));
        turns_are_those_of(&window, &Fixed { limit, length, offset }, length, &steps)?;
    }

    #[test]
    fn no_sliding_window_has_more_starts_than_its_limit_and_no_turn_is_later_than_it_must_be(
        (limit, period, part) in limits(), segments in 1..=60_u64, steps in steps(),
    ) {
        let window = SlidingWindow::new(quota(limit, period)).segments(segments).unwrap();
        let window = window.ahead(Duration::from_nanos(scaled(period, part)));
        let oracle = Sliding { limit, period, width: period.div_ceil(segments), segments };
        turns_are_those_of(&window, &oracle, period, &steps)?;
    }

    #[test]
    fn no_period_of_a_log_has_more_starts_than_its_limit_and_no_turn_is_later_than_it_must_be(
        (limit, period, part) in limits(), steps in steps(),
    ) {
        let log = SlidingLog::new(quota(limit, period));
        let log = log.ahead(Duration::from_nanos(scaled(period, part)));
        let oracle = Sliding { limit, period, width: 1, segments: period - 1 };
        turns_are_those_of(&log, &oracle, period, &steps)?;
    }

    /// The starts are what is bounded, wherever the clock goes in between.
    #[test]
    fn a_window_of_turns_stalls_no_longer_than_they_are_ahead_and_it_takes_to_recover(
        kind in 0..3_u8, back in 0..10_000_u64, part in 0..3_000_u64, booked in 1..60_u64,
    ) {
        let (limit, period) = (10, 60_000_u64);
        let ahead = Duration::from_nanos(scaled(period, part));
        let back = scaled(period, back);
        let stalls = |wait: u64| wait <= 2 * period + period / 10 + 1 + 2 * ahead.as_nanos() as u64;
        macro_rules! stall {
            ($window:expr) => {{
                let (window, now) = ($window.ahead(ahead), 1_700_000_000_000_000_000);
                let mut state = window.initial(at(now));
                for _ in 0..booked {
                    let _ = window.decide(&mut state, at(now), Cost::ONE);
                }
                let decision = window.decide(&mut state, at(now - back), Cost::ONE);
                let turn = decision.charge().map_or(0, |charge| {
                    let turn = charge.at.saturating_add(charge.delay).as_nanos();
                    turn.saturating_sub(now - back)
                });
                let wait = wait_of(&decision).unwrap_or(turn);
                prop_assert!(stalls(wait), "{} after {} back with {:?}", wait, back, ahead);
            }};
        }
        match kind {
            0 => stall!(FixedWindow::new(quota(limit, period))),
            1 => stall!(SlidingWindow::new(quota(limit, period))),
            _ => stall!(SlidingLog::new(quota(limit, period))),
        }
    }
}

/// What starts in a plan: of each limit no more than that admits.
fn no_limit_has_more(
    starts: &Starts,
    window: &Fixed,
    sliding: &Sliding,
    log: &Sliding,
    (rate, burst): (Quota, u64),
) -> Result<(), TestCaseError> {
    prop_assert!(window.most(starts) <= window.limit);
    prop_assert!(sliding.most(starts) <= sliding.limit);
    prop_assert!(log.most(starts) <= log.limit);
    for (first, (from, _)) in starts.iter().enumerate() {
        let mut units = 0;
        for (to, its) in &starts[first..] {
            units += its;
            let time = u128::from(to - from) * u128::from(rate.limit());
            let bound = u128::from(burst) + time / rate.period().as_nanos();
            prop_assert!(u128::from(units) <= bound, "{} from {} to {}", units, from, to);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(cases(300))]

    #[test]
    fn a_plan_starts_what_all_of_its_limits_admit_at_the_latest_of_their_turns(
        limits in [1..40_u64, 1..40, 1..40, 1..40],
        lengths in [60..1_000_000_u64, 60..1_000_000, 60..1_000_000, 60..1_000_000],
        segments in 1..=20_u64,
        part in 0..3_000_u64,
        steps in steps(),
    ) {
        let [fixed, sliding, log, bucket] = [0, 1, 2, 3].map(|place| quota(limits[place], lengths[place]));
        let burst = limits[3];
        let name = |place: usize| PolicyName::new(format!("limit-{place}")).expect("a name");
        let plan = Plan::new()
            .limit(name(0), FixedWindow::new(fixed))
            .limit(name(1), SlidingWindow::new(sliding).segments(segments).unwrap())
            .limit(name(2), SlidingLog::new(log))
            .limit(name(3), TokenBucket::new(bucket).burst(burst))
            .build()
            .expect("a plan");
        let ahead = Duration::from_nanos(scaled(lengths[0], part).max(1));
        let plan = plan.ahead(ahead);
        let oracles = (
            Fixed { limit: limits[0], length: lengths[0], offset: 0 },
            Sliding { limit: limits[1], period: lengths[1], width: lengths[1].div_ceil(segments), segments },
            Sliding { limit: limits[2], period: lengths[2], width: 1, segments: lengths[2] - 1 },
        );
        let least = *limits.iter().min().expect("four");
        let mut now = 1_700_000_000_000_000_000;
        let (mut state, mut starts) = (plan.initial(at(now)), Starts::new());
        for step in steps {
            let Step::Ask(wait, part) = step else { continue };
            now += scaled(lengths[0], wait);
            let units = scaled(least, part).clamp(1, least);
            let before = state.clone();
            let decision = plan.decide(&mut state, at(now), Cost::new(units));
            if let Some(wait) = wait_of(&decision) {
                prop_assert_eq!(&before, &state);
                let at_it = |nanos: u64| {
                    plan.decide(&mut before.clone(), at(nanos), Cost::new(units)).is_allowed()
                };
                prop_assert!(wait > 0 && at_it(now + wait), "it is refused at {} + {}", now, wait);
                prop_assert!(!at_it(now + wait - 1) && !at_it(now + wait / 2));
                continue;
            }
            let delay = decision.charge().expect("it was allowed").delay;
            prop_assert!(delay <= ahead + Duration::from_nanos(1_000), "{:?} of {:?}", delay, ahead);
            let start = now + delay.as_nanos() as u64;
            prop_assert!(starts.last().is_none_or(|(last, _)| start >= *last));
            starts.push((start, units));
            no_limit_has_more(&starts, &oracles.0, &oracles.1, &oracles.2, (bucket, burst))?;
        }
        let idle = plan.idle_at(&state).max(at(now));
        let all = plan.decide(&mut state, idle, Cost::new(least));
        prop_assert_eq!(all.charge().map(|charge| charge.delay), Some(Duration::ZERO));
    }
}

#[test]
fn a_place_that_is_given_back_in_the_last_window_is_given_out_again() {
    let window = FixedWindow::new(Quota::per_second(2)).ahead(Duration::from_secs(1));
    let mut state = window.initial(at(0));
    let mut ask = || window.decide(&mut state, at(0), Cost::ONE).charge();
    let (_, _) = (ask(), ask());
    let (_, last) = (ask(), ask().expect("the second of the next window"));
    assert_eq!(ask(), None);
    window.settle(&mut state, at(0), &last, Cost::ZERO);
    let again = window.decide(&mut state, at(0), Cost::ONE).charge();
    assert_eq!(again, Some(last));
}

#[test]
fn what_is_left_of_a_window_that_was_passed_by_a_large_cost_is_nobodys() {
    let window = FixedWindow::new(Quota::per_second(10)).ahead(Duration::from_secs(1));
    let mut state = window.initial(at(0));
    let mut delay = |units| {
        window.decide(&mut state, at(0), Cost::new(units)).charge().map(|charge| charge.delay)
    };
    assert_eq!(delay(8), Some(Duration::ZERO));
    assert_eq!(delay(6), Some(Duration::from_secs(1)));
    assert_eq!(delay(2), Some(Duration::from_secs(1)), "it does not pass the six");
    assert_eq!(delay(3), None);
}

#[cfg(feature = "calendar")]
#[test]
fn of_a_calendar_the_next_window_can_be_had_and_none_behind_it() {
    use tower_quota::algorithm::Calendar;

    let days = Calendar::days("America/Los_Angeles").expect("the zone is known");
    let window = FixedWindow::calendar(1, days).ahead(Duration::from_secs(10 * 86_400));
    let now = at(1_700_000_000_000_000_000);
    let mut state = window.initial(now);
    let mut ask = || window.decide(&mut state, now, Cost::ONE);
    assert_eq!(ask().charge().map(|charge| charge.delay), Some(Duration::ZERO));
    let tomorrow = ask().charge().expect("tomorrow").delay;
    assert_eq!(wait_of(&ask()), Some(tomorrow.as_nanos() as u64), "the day after, from tomorrow");
}

#[test]
fn who_has_waited_is_given_a_turn_that_is_so_much_farther_away() {
    let window = SlidingLog::new(Quota::per_second(1));
    assert_eq!(window.ahead(Duration::ZERO).after_waiting(Duration::from_secs(1)), None);
    let second = Duration::from_secs(1);
    let after = window.ahead(second).after_waiting(second);
    assert_eq!(after, Some(window.ahead(2 * second)));
}
