//! Windows of a calendar that have ended while nobody asked: a server is told of four borders, and
//! has to know how many there were before.

use std::time::Duration;

use tower_quota::{
    ConfigError, Cost, Decision, Demand, Key, PolicyName, Quota,
    algorithm::{Algorithm, Calendar, FixedWindow},
    backend::{
        Backend,
        redis::{RedisBuilder, Server},
    },
    time::{ManualClock, Timestamp},
};

use crate::{
    differential::Random,
    servers::{Flavor, Standalone},
};

const DAY: u64 = 86_400;
/// The first of December 2011. At the end of that month Samoa left out a date.
const BEGIN: u64 = 1_322_697_600;
const LIMIT: u64 = 10;

async fn each_window_pays_off_debt(name: &str, calendar: Calendar, longest: u64) {
    let clock = ManualClock::new();
    let server = Server::open(Standalone::shared(Flavor::Redis).url()).expect("a URL");
    let redis = RedisBuilder::new(server, PolicyName::new(name).expect("a name"))
        .timeout(Duration::from_secs(60))
        .remember_refusals(Duration::ZERO)
        .clock(clock.clone())
        .build();
    let limit = FixedWindow::calendar(LIMIT, calendar);
    let mut random = Random::new(longest);
    for round in 0..4_u64 {
        let key = Key::from(round);
        let mut now = BEGIN + random.below(30 * DAY);
        let at = |now| Timestamp::from_nanos(now * 1_000_000_000);
        clock.set(at(now));
        let mut state = limit.initial(at(now));
        let demand = Demand::exactly(Cost::ONE);
        let expected = limit.answer(&mut state, at(now), &demand);
        let decision = redis.decide(&limit, &key, &demand).await.expect("it answers");
        assert_eq!(decision, expected);
        let Decision::Allow { mut charge, .. } = decision else {
            panic!("nothing was used before")
        };
        let debt = Cost::new(LIMIT * 600);
        limit.settle(&mut state, at(now), &charge, debt);
        redis.settle(&limit, &key, &charge, debt).await.expect("it is settled");
        for step in 0..60 {
            now += random.below(longest);
            clock.set(at(now));
            // It writes the window anew, with what is left.
            charge.at = at(now);
            let one_more = Cost::new(2);
            limit.settle(&mut state, at(now), &charge, one_more);
            redis.settle(&limit, &key, &charge, one_more).await.expect("it is settled");
            let peek = Demand::peek(Cost::ONE);
            let expected = limit.answer(&mut state, at(now), &peek);
            let decision = redis.decide(&limit, &key, &peek).await.expect("it answers");
            assert_eq!(decision, expected, "{name}, round {round}, step {step}, at {now}");
        }
    }
}

#[tokio::test]
async fn however_many_days_and_months_have_ended_each_has_paid_off_its_part() {
    for zone in ["America/Los_Angeles", "Europe/Berlin", "Pacific/Apia", "Australia/Lord_Howe"] {
        let of = |unit: &str| format!("{unit}-of-{}", zone.replace('/', "-").to_lowercase());
        let [days, months] = [Calendar::days(zone), Calendar::months(zone)];
        each_window_pays_off_debt(&of("days"), days.expect("a zone"), 30 * DAY).await;
        each_window_pays_off_debt(&of("months"), months.expect("a zone"), 500 * DAY).await;
    }
}

/// The limit is changed from each of these to each other, some time after it was used.
#[tokio::test]
async fn what_was_used_under_another_limit_counts_in_the_windows_of_a_calendar_as_it_does_here() {
    let clock = ManualClock::new();
    let server = Server::open(Standalone::shared(Flavor::Redis).url()).expect("a URL");
    let redis = RedisBuilder::new(server, PolicyName::from_static("changed-to-a-calendar"))
        .timeout(Duration::from_secs(60))
        .remember_refusals(Duration::ZERO)
        .clock(clock.clone())
        .build();
    let of = |calendar: Result<Calendar, ConfigError>| {
        FixedWindow::calendar(LIMIT, calendar.expect("a zone"))
    };
    let quota = |secs| Quota::new(LIMIT, Duration::from_secs(secs)).expect("a quota");
    let limits = [
        of(Calendar::days("America/Los_Angeles")),
        of(Calendar::days("UTC")),
        of(Calendar::months("America/Los_Angeles")),
        FixedWindow::new(quota(60)),
        FixedWindow::new(quota(DAY)),
        FixedWindow::from_first_hit(quota(3_600)),
        FixedWindow::from_first_hit(quota(10 * DAY)),
        FixedWindow::new(quota(40 * DAY)),
    ];
    let mut random = Random::new(1);
    let pairs = limits.iter().flat_map(|old| limits.iter().map(move |new| (old, new)));
    for (number, (old, new)) in pairs.enumerate() {
        for wait in [0, 30, 3_000, 40_000, 9 * DAY] {
            let key = Key::join([&Key::from(number as u64), &Key::from(wait)]);
            let mut now = BEGIN + random.below(30 * DAY);
            let at = |now| Timestamp::from_nanos(now * 1_000_000_000);
            let mut state = old.initial(at(now));
            for (limit, cost, wait) in [(old, 9, wait), (new, 3, 7), (new, 1, 50_000), (old, 2, 0)]
            {
                clock.set(at(now));
                let demand = Demand::exactly(Cost::new(cost));
                let expected = limit.answer(&mut state, at(now), &demand);
                let decision = redis.decide(limit, &key, &demand).await.expect("it answers");
                assert_eq!(decision, expected, "{old:?} to {new:?} after {wait}: {cost} at {now}");
                now += wait;
            }
        }
    }
}

/// Samoa went from the 29th of December 2011 to the 31st.
#[test]
fn a_date_that_is_left_out_is_no_window_and_pays_off_nothing() {
    let days = FixedWindow::calendar(LIMIT, Calendar::days("Pacific/Apia").expect("a zone"));
    let at = |secs| Timestamp::from_nanos(secs * 1_000_000_000);
    // The middle of the 28th. What follows are the 29th, the 31st and the new year.
    let now = 1_325_109_600;
    let new_year = now + DAY / 2 + 2 * DAY;
    let mut state = days.initial(at(now));
    let Decision::Allow { charge, .. } = days.decide(&mut state, at(now), Cost::ONE) else {
        panic!("nothing was used before")
    };
    days.settle(&mut state, at(now), &charge, Cost::new(3 * LIMIT));
    let refused = days.decide(&mut state, at(now), Cost::new(LIMIT));
    let wait = refused.retry_after().and_then(|retry| retry.duration());
    assert_eq!(wait, Some(Duration::from_secs(new_year - now)));
    assert!(!days.decide(&mut state, at(new_year - 1), Cost::ONE).is_allowed());
    assert!(days.decide(&mut state, at(new_year), Cost::new(LIMIT)).is_allowed());
}
