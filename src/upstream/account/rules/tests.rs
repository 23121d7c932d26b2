use super::*;
use crate::algorithm::Algorithm as _;

/// One that was counted is held up for as long as it may be, and late on its way by the jitter: so
/// much longer is its window here.
#[test]
fn who_is_held_up_for_a_turn_is_still_in_the_window_of_the_provider() {
    let profile = Profile::ready("cerebras").expect("it is ready-made");
    let name = PolicyName::from_static("account");
    for (limit, window) in [("requests-day", 86_400), ("tokens-minute", 60)] {
        for millis in [0, 200, 5_000] {
            let (window, jitter) = (Duration::from_secs(window), Duration::from_millis(millis));
            let set = [SetLimit { name: limit.into(), quota: quota(100, window) }];
            let (beyond, largest) = (Cost::ZERO, Cost::ZERO);
            let terms = Terms {
                profile: &profile,
                set: &set,
                told: &[],
                before: &[],
                jitter,
                beyond,
                largest,
            };
            let rules = Rules::new(&terms).expect("limits of the profile");
            let place = rules.limits.iter().position(|placed| *placed.name == *limit);
            let place = place.expect("it was set");
            let Back::Window(held_up) = rules.limits[place].back else { panic!("it is a window") };
            assert!(held_up > Duration::from_millis(20), "{held_up:?} is no time for turns");
            let policies = rules.plan.policies(&name);
            let longer = policies.iter().find(|policy| policy.quota == 100).expect("it was set");
            assert!(longer.window >= window + jitter + held_up, "{longer:?}, {held_up:?}");
        }
    }
}

/// What is sent in a time, and a jitter before and after it, is no more than the provider has for
/// that time. A window as short as the jitter is no reason to send one at a time.
#[test]
fn what_is_late_meets_no_more_than_a_short_window_has() {
    for (limit, window, millis) in [
        (10, 1_000, 2_000),
        (10_000, 1_000, 1_500),
        (2, 1_000, 900),
        (3, 10, 60_000),
        (1, 500, 200),
    ] {
        let (window, jitter) = (Duration::from_millis(window), Duration::from_millis(millis));
        let slack = Slack { jitter, beyond: 0, largest: 0 };
        let Rule::TokenBucket(bucket) = refilling(limit, window, slack) else {
            panic!("it refills")
        };
        let quota = bucket.quota();
        let burst = u128::from(bucket.capacity().units());
        let (back, period) = (u128::from(quota.limit()), quota.period().as_nanos());
        assert!(back * window.as_nanos() <= u128::from(limit) * period, "{limit}: it is faster");
        if limit > 1 {
            let meets = burst * period + back * jitter.as_nanos();
            assert!(meets <= u128::from(limit) * period, "{limit}: more than there is is late");
            assert!(burst >= u128::from(limit) / 2, "{limit}: {burst} is next to nothing");
        } else {
            assert!(burst == 1 && quota.period() >= window + jitter, "{quota:?}");
        }
    }
}
