//! What cannot be meant is said when it is written: quotas, periods, names, plans.

use std::time::Duration;

use proptest::prelude::*;
use tower_quota::{
    ConfigError, Cost, FixedWindowLayer, Key, LeakyBucketLayer, Limiter, PolicyName, Quota,
    QuotaLayer, RetryAfter, SlidingWindowLayer, TokenBucketLayer,
    algorithm::{
        Algorithm, FixedWindow, LeakyBucket, Plan, PlanBuilder, Rule, SlidingCounter, SlidingLog,
        SlidingWindow, TokenBucket,
    },
    backend::{Local, LocalBuilder},
    policy::Uniform,
    reserve::ReserveLayer,
    time::{ManualClock, Timestamp},
};

#[path = "support/cases.rs"]
mod cases;

use cases::cases;

const NANOSECOND: Duration = Duration::from_nanos(1);

/// A limit of each kind.
fn each_kind(quota: Quota) -> [Rule; 7] {
    [
        TokenBucket::new(quota).into(),
        LeakyBucket::new(quota).into(),
        FixedWindow::new(quota).into(),
        FixedWindow::from_first_hit(quota).into(),
        SlidingWindow::new(quota).into(),
        SlidingLog::new(quota).into(),
        SlidingCounter::new(quota).into(),
    ]
}

#[test]
fn a_period_is_from_a_nanosecond_to_ten_years() {
    let longest = Quota::MAX_PERIOD;
    for period in [Duration::ZERO, longest + NANOSECOND, Duration::MAX] {
        let error = Quota::new(1, period).expect_err("out of range");
        assert_eq!(error, ConfigError::PeriodOutOfRange { period, longest });
    }
    for period in [NANOSECOND, longest] {
        assert_eq!(Quota::new(1, period).map(Quota::period), Ok(period));
    }
}

#[test]
fn a_limit_above_the_largest_is_an_error_or_lowered_where_it_cannot_be_one() {
    for limit in [Quota::MAX_LIMIT + 1, u64::MAX] {
        let error = Quota::new(limit, Duration::from_secs(1)).expect_err("out of range");
        assert_eq!(error, ConfigError::LimitOutOfRange { limit, largest: Quota::MAX_LIMIT });
        for quota in [Quota::per_second, Quota::per_minute, Quota::per_hour, Quota::per_day] {
            assert_eq!(quota(limit).limit(), Quota::MAX_LIMIT);
        }
    }
}

#[test]
fn quotas_are_read_as_they_are_written() {
    let days = |days: u64| Duration::from_secs(days * 86_400);
    for (text, limit, period) in [
        ("100/s", 100, Duration::from_secs(1)),
        ("100 / sec", 100, Duration::from_secs(1)),
        ("1_000/250ms", 1_000, Duration::from_millis(250)),
        ("60 per min", 60, Duration::from_secs(60)),
        ("60 per 5 minutes", 60, Duration::from_secs(300)),
        ("5/2h", 5, Duration::from_secs(7_200)),
        ("0/d", 0, days(1)),
        ("999_999_999_999_999 / 3_660 days", Quota::MAX_LIMIT, Quota::MAX_PERIOD),
    ] {
        assert_eq!(text.parse(), Quota::new(limit, period), "{text}");
    }
}

#[test]
fn a_text_that_is_no_quota_is_named_in_the_error() {
    for text in [
        "",
        "/",
        " per ",
        "60",
        "60/",
        "/min",
        "60/fortnight",
        "60/0",
        "sixty/min",
        "-60/min",
        "+60/min",
        "6.5/min",
        "60/1.5min",
        "60/-1 min",
        "60//min",
        "60/min/min",
        "60/min per min",
        "_/s",
        "1__/_s",
        "60/MIN",
        "60/分",
        "６０/min",
        "60/min\0",
        "18446744073709551616/s",
        "1/18446744073709551616 ms",
        "1/18446744073709551615 days",
    ] {
        let error = text.parse::<Quota>().expect_err(text);
        assert_eq!(error, ConfigError::MalformedQuota { text: text.into() });
        assert!(error.to_string().contains("100/s"), "it says what to write: {error}");
    }
    // These can be read, but not meant.
    assert!(matches!("1/0s".parse::<Quota>(), Err(ConfigError::PeriodOutOfRange { .. })));
    assert!(matches!("1/9999 days".parse::<Quota>(), Err(ConfigError::PeriodOutOfRange { .. })));
    let too_many = "1000000000000000/s".parse::<Quota>();
    assert!(matches!(too_many, Err(ConfigError::LimitOutOfRange { .. })));
}

#[test]
fn a_closed_quota_admits_nothing_in_any_kind_and_says_that_it_never_will() {
    let now = Timestamp::from_secs(1_700_000_000);
    for rule in each_kind(Quota::CLOSED) {
        let mut state = rule.initial(now);
        assert_eq!(rule.available(&state, now, Cost::ONE), 0, "{rule:?}");
        for at in [now, Timestamp::MIN, Timestamp::MAX] {
            for cost in [1, 2, u64::MAX] {
                let decision = rule.decide(&mut state, at, Cost::new(cost));
                assert_eq!(decision.retry_after(), Some(RetryAfter::Never), "{rule:?}");
                assert_eq!(decision.snapshot().remaining, 0);
            }
        }
        // To look costs nothing, and a store may forget it.
        assert!(rule.decide(&mut state, now, Cost::ZERO).is_allowed(), "{rule:?}");
        assert!(rule.idle_at(&state) <= now, "{rule:?}");
    }
}

#[test]
fn the_largest_cost_at_the_ends_of_time_is_never_admitted_twice() {
    let quota = Quota::new(Quota::MAX_LIMIT, Quota::MAX_PERIOD).expect("both are the largest");
    for rule in each_kind(quota) {
        for now in [Timestamp::MIN, Timestamp::from_secs(1_700_000_000), Timestamp::MAX] {
            let mut state = rule.initial(now);
            let all = rule.capacity();
            assert!(rule.decide(&mut state, now, all).is_allowed(), "{rule:?} at {now:?}");
            let refused = rule.decide(&mut state, now, Cost::ONE);
            assert!(!refused.is_allowed(), "{rule:?} at {now:?}");
            let above = Cost::new(all.units() + 1);
            let never = rule.decide(&mut state, now, above).retry_after();
            assert_eq!(never, Some(RetryAfter::Never), "{rule:?}");
        }
    }
}

/// 150 million units a minute through a store, for ten hours in strides that no period divides.
#[test]
fn a_high_rate_does_not_drift() {
    let quota = Quota::per_minute(150_000_000);
    let clock = ManualClock::new();
    let limiter = Limiter::new(
        TokenBucket::new(quota).burst(1_000_000),
        LocalBuilder::new().build_with_clock(clock.clone()),
    );
    let stride = Duration::from_nanos(123_456_789);
    let key = Key::from("model");
    let mut taken = 0_u128;
    let mut take_all = || {
        let decision = limiter.take_up_to(&key, u64::MAX).try_into_ready().expect("at once");
        let charge = decision.expect("a store").charge();
        taken += u128::from(charge.map_or(0, |charge| charge.cost.units()));
    };
    take_all();
    let strides = 300_000_u128;
    for _ in 0..strides {
        clock.advance(stride);
        take_all();
    }
    let came = strides * stride.as_nanos() * 150_000_000 / Duration::from_secs(60).as_nanos();
    assert_eq!(taken, 1_000_000 + came);
}

#[test]
fn a_plan_that_cannot_be_meant_is_not_made() {
    let name = PolicyName::from_static;
    let rule = || TokenBucket::new(Quota::per_second(1));
    let error = |plan: PlanBuilder| plan.build().expect_err("a fault");

    assert_eq!(error(Plan::new()), ConfigError::PlanSize { limits: 0 });
    let too_many = (0..65).fold(Plan::new(), |plan, place| {
        plan.limit(PolicyName::new(format!("limit-{place}")).expect("a name"), rule())
    });
    assert_eq!(error(too_many), ConfigError::PlanSize { limits: 65 });
    let twice = Plan::new().limit(name("daily"), rule()).limit_on(1, name("daily"), rule());
    assert_eq!(error(twice), ConfigError::DuplicateName { name: "daily".into() });
    let nowhere = Plan::new().limit_on(Cost::DIMENSIONS, name("daily"), rule());
    assert!(matches!(error(nowhere), ConfigError::SettingOutOfRange { value: 4, .. }));
    let turns = || LeakyBucket::new(Quota::per_second(1));
    let two_turns = Plan::new().limit(name("one"), turns()).limit(name("two"), turns());
    assert!(error(two_turns).to_string().contains("leaky buckets"));
}

#[test]
fn a_plan_with_a_closed_limit_is_closed_and_says_which_one_it_is() {
    let plan = Plan::new()
        .limit(PolicyName::from_static("open"), TokenBucket::new(Quota::per_second(10)))
        .limit(PolicyName::from_static("shut"), FixedWindow::new(Quota::CLOSED))
        .build()
        .expect("a plan");
    let layer = QuotaLayer::new(plan).backend(Local::new());
    let limiter = layer.limiter();
    let decision = limiter.decide_now(&Key::GLOBAL, 1).expect("a store");
    assert_eq!(decision.retry_after(), Some(RetryAfter::Never));
    assert_eq!(decision.snapshot().policy, 1);
}

/// Every layer of a limit of ten, with what `$set` sets.
macro_rules! every_layer {
    ($($set:tt)*) => {{
        let (quota, bucket) = (Quota::per_day(10), TokenBucket::new(Quota::per_day(10)));
        [
            TokenBucketLayer::new(quota) $($set)*.check(),
            LeakyBucketLayer::new(quota) $($set)*.check(),
            FixedWindowLayer::new(quota) $($set)*.check(),
            SlidingWindowLayer::new(quota) $($set)*.check(),
            QuotaLayer::new(bucket) $($set)*.check(),
            ReserveLayer::new(Limiter::new(bucket, Local::new())) $($set)*.check(),
        ]
    }};
}

#[test]
fn a_cost_that_never_fits_is_found_by_every_layer_in_whatever_order_it_is_set() {
    let closure = |_: &u64| 1_u64;
    let too_large = || Err(ConfigError::CostAboveCapacity { cost: 25, capacity: 10 });
    for layers in [
        every_layer!(.cost(Uniform::new(25))),
        every_layer!(.cost(closure).largest_cost(25)),
        every_layer!(.largest_cost(25).cost(closure)),
        every_layer!(.largest_cost(5).cost(Uniform::new(25))),
        every_layer!(.cost(Uniform::new(5)).largest_cost(25)),
        every_layer!(.cost(closure).cost(Uniform::new(25))),
    ] {
        assert_eq!(layers, [(); 6].map(|()| too_large()));
    }
    for layers in [
        every_layer!(),
        every_layer!(.cost(closure)),
        every_layer!(.cost(Uniform::new(10)).largest_cost(10)),
        // A cost that was set and replaced is forgotten, what was said is not.
        every_layer!(.cost(Uniform::new(25)).cost(closure).largest_cost(10)),
    ] {
        assert_eq!(layers, [(); 6].map(|()| Ok(())));
    }
}

#[test]
fn a_limit_that_is_changed_after_its_cost_is_checked_as_it_is_in_the_end() {
    let layer = || TokenBucketLayer::new(Quota::per_day(100)).cost(Uniform::new(25));
    assert_eq!(layer().check(), Ok(()));
    let lowered = layer().burst(10).check();
    assert_eq!(lowered, Err(ConfigError::CostAboveCapacity { cost: 25, capacity: 10 }));
    assert_eq!(layer().burst(10).burst(25).check(), Ok(()));
    // In each dimension by itself.
    let tokens = layer().burst(25).largest_cost(Cost::ONE.with(1, 40)).check();
    assert_eq!(tokens, Ok(()), "nothing limits the second dimension");
    // What is closed is closed on purpose.
    assert_eq!(TokenBucketLayer::new(Quota::CLOSED).cost(Uniform::new(5)).check(), Ok(()));
}

#[test]
fn what_breaks_a_log_line_is_escaped_where_a_key_is_shown() {
    let hostile = "alice\r\nlevel=ERROR msg=\"forged\"\u{1b}[31m\u{202e}";
    let keys = [
        Key::from(hostile),
        Key::join([&Key::from(hostile), &Key::from(7)]),
        Key::new([0, 10, 13, 127, 128, 255]),
    ];
    for key in keys {
        for shown in [key.to_string(), format!("{key:?}")] {
            assert!(shown.bytes().all(|byte| (0x20..0x7F).contains(&byte)), "{shown:?}");
        }
    }
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn no_text_is_a_panic(text in ".{0,40}", parts in "[0-9_]{0,25}( per |/)[0-9_ ]{0,25}[a-z]{0,8}") {
        for text in [text, parts] {
            if let Ok(quota) = text.parse::<Quota>() {
                prop_assert_eq!(Quota::new(quota.limit(), quota.period()), Ok(quota));
            }
            if let Ok(name) = PolicyName::new(text.clone()) {
                prop_assert_eq!(name.as_str(), text);
                prop_assert!(name.as_str().is_ascii());
            }
        }
    }

    #[test]
    fn no_quota_is_a_panic_and_each_can_be_used(
        limit in prop_oneof![0..10_u64, any::<u64>()],
        period in prop_oneof![0..10_u64, any::<u64>()],
    ) {
        let Ok(quota) = Quota::new(limit, Duration::from_nanos(period)) else {
            prop_assert!(limit > Quota::MAX_LIMIT || period == 0
                || Duration::from_nanos(period) > Quota::MAX_PERIOD);
            return Ok(());
        };
        let now = Timestamp::from_secs(1_700_000_000);
        for rule in each_kind(quota) {
            let mut state = rule.initial(now);
            let decision = rule.decide(&mut state, now, Cost::ONE);
            prop_assert_eq!(decision.is_allowed(), limit > 0);
        }
    }
}
