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
