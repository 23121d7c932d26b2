//! What was used of a plan's limits is known by their names, on a server too: instances differ in the
//! limits that they know, and in which order they were told of them.

use std::time::Duration;

use redis::AsyncCommands as _;
use tower_quota::{
    Cost, Demand, Key, PolicyName, Quota,
    algorithm::{Algorithm, FixedWindow, Plan, SlidingLog, TokenBucket},
    backend::{
        Backend,
        redis::{Redis, RedisBuilder, Server},
    },
    time::{ManualClock, Timestamp},
};

use crate::{
    differential::Random,
    servers::{Flavor, Standalone, patient},
};

/// Some of four limits in some order. Two are of one kind, and one is now of this kind and then of that.
fn drawn(random: &mut Random) -> Plan {
    let quota = Quota::new(1_000, Duration::from_secs(1_000)).expect("a quota");
    let mut places: Vec<usize> = (0..4).collect();
    for place in 0..3 {
        places.swap(place, place + random.below(4 - place as u64) as usize);
    }
    let count = 1 + random.below(4) as usize;
    let plan = places[..count].iter().fold(Plan::new(), |plan, place| {
        // Eight letters fill a number, nine do not fit.
        let name = PolicyName::from_static(["a", "of-eight", "of-nine-9", "d.4"][*place]);
        match place {
            3 => plan.limit_on(3, name, SlidingLog::new(quota).max_entries(10)),
            1 if random.below(3) == 0 => plan.limit_on(1, name, FixedWindow::new(quota)),
            _ => plan.limit_on(*place, name, TokenBucket::new(quota)),
        }
    });
    plan.build().expect("a plan")
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_that_come_and_go_and_change_places_keep_what_was_used_of_them() {
    let server = Standalone::shared(Flavor::Redis);
    let key = Key::from("alice");
    for seed in 0..50 {
        let mut random = Random::new(seed);
        let clock = ManualClock::new();
        let name = PolicyName::new(format!("by-name-{seed}")).expect("a name");
        let redis = RedisBuilder::new(Server::open(server.url()).expect("a URL"), name)
            .timeout(Duration::from_secs(60))
            .remember_refusals(Duration::ZERO)
            .clock(clock.clone())
            .build::<Plan>();
        let mut now = 1_000_000_000_000;
        let mut state = None;
        for _ in 0..60 {
            now += random.below(20) * 1_000_000;
            clock.set(Timestamp::from_nanos(now * 1_000));
            let at = Timestamp::from_nanos(now * 1_000);
            let plan = drawn(&mut random);
            let cost = Cost::ZERO.with(random.below(4) as usize, random.below(400));
            let demand = match random.below(4) {
                0 => Demand::lower_to(random.below(2) as usize, random.below(1_000)),
                _ => Demand::exactly(cost),
            };
            let state = state.get_or_insert_with(|| plan.initial(at));
            let expected = plan.answer(state, at, &demand);
            let decision = redis.decide(&plan, &key, &demand).await.expect("it is decided");
            assert_eq!(decision, expected, "trace {seed}: {demand:?} under {plan:?}");
        }
    }
}

/// It would grow with each name that a provider invents.
#[tokio::test(flavor = "multi_thread")]
async fn a_plans_state_has_no_more_parts_than_a_plan() {
    let server = Standalone::shared(Flavor::Redis);
    let source = Server::open(server.url()).expect("a URL");
    let name = PolicyName::from_static("by-name-many");
    let redis = RedisBuilder::new(source, name).timeout(Duration::from_secs(60));
    let redis: Redis<Plan, Server> = redis.build();
    let mut sizes = Vec::new();
    let client = redis::Client::open(server.url()).expect("a URL");
    let mut connection = client
        .get_multiplexed_async_connection_with_config(&patient())
        .await
        .expect("a connection");
    for number in 0..200 {
        let name = PolicyName::new(format!("limit-{number:03}")).expect("a name");
        let plan = Plan::new().limit(name, TokenBucket::new(Quota::per_day(10))).build();
        let demand = Demand::exactly(Cost::ONE);
        let key = Key::from("alice");
        let decision = redis.decide(&plan.expect("a plan"), &key, &demand).await;
        assert!(decision.expect("it is decided").is_allowed());
        let size: usize = connection.strlen("tq:by-name-many:{t.alice}").await.expect("a number");
        sizes.push(size);
    }
    assert_eq!(sizes[Plan::MAX_LIMITS - 1], sizes[199]);
    assert!(sizes[10] < sizes[20]);
}

/// A key lived for as long as what is in it took to drain when it was written. When the limit had fallen since,
/// what was used was forgotten in the middle of the debt.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_used_is_kept_until_it_has_drained_at_the_rate_to_which_a_limit_has_fallen() {
    let server = Standalone::shared(Flavor::Redis);
    let client = redis::Client::open(server.url()).expect("a URL");
    let mut connection = client
        .get_multiplexed_async_connection_with_config(&patient())
        .await
        .expect("a connection");
    let name = PolicyName::from_static("by-name-fallen");
    let source = Server::open(server.url()).expect("a URL");
    let redis = RedisBuilder::new(source, name).timeout(Duration::from_secs(60));
    let redis: Redis<Plan, Server> = redis.build();
    let of = |limit| {
        let bucket = TokenBucket::new(Quota::per_minute(limit)).burst(limit);
        Plan::new().limit(PolicyName::from_static("requests"), bucket).build().expect("a plan")
    };
    let key = Key::from("alice");
    let take = |limit, units| {
        let (plan, demand) = (of(limit), Demand::exactly(Cost::new(units)));
        redis.decide(&plan, &key, &demand)
    };
    assert!(take(600, 600).await.expect("it is decided").is_allowed());
    // A minute by then, and a hundred minutes now, less what came back while this machine stalled.
    assert!(!take(6, 1).await.expect("it is decided").is_allowed());
    let left: u64 = connection.pttl("tq:by-name-fallen:{t.alice}").await.expect("a number");
    assert!((3_000_000..7_000_000).contains(&left), "{left}");
}
