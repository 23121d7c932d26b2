//! A key lives until what it counts has come back, by the server's own time: not shorter, since a
//! key that is gone is a full quota, and not much longer, since it takes memory.

use std::time::Duration;

use tokio::time::Instant;
use tower_quota::{
    Charge, Cost, Key, Limiter, PolicyName, Quota,
    algorithm::{
        Calendar, FixedWindow, LeakyBucket, LeaseBucket, Plan, SlidingCounter, SlidingLog,
        SlidingWindow, TokenBucket,
    },
    backend::redis::{Redis, RedisBuilder, Scripted, Server},
};

use super::servers::{Flavor, Standalone};

struct Lived<'a, A: Scripted> {
    server: &'a Standalone,
    limiter: Limiter<A, Redis<A, Server>>,
    /// How much later than full it may end: what is rounded, and windows that are there as a whole.
    most_after: Duration,
    name: &'static str,
}

const KEY: Key = Key::GLOBAL;

impl<A: Scripted> Lived<'_, A> {
    async fn take(&self, units: u64) -> Charge {
        let decision = self.limiter.decide(&KEY, units).await.expect("it decides");
        decision.charge().unwrap_or_else(|| panic!("{}: {units} are there", self.name))
    }

    async fn settle(&self, charge: &Charge, actual: u64) {
        self.limiter.settle(&KEY, charge, actual).await.expect("it is settled");
    }

    /// Asserts that the key lives as long as it counts.
    async fn is_right(&self, after: &str) {
        let asked = Instant::now();
        let standing = self.limiter.peek(&KEY, Cost::ZERO).await.expect("it answers");
        let full_in = standing.snapshot().reset_after;
        let names: Vec<String> = self.server.ask(&["KEYS", "*"]);
        let [name] = &*names else { panic!("{}, {after}: one key and not {names:?}", self.name) };
        let left: i64 = self.server.ask(&["PTTL", name]);
        let left = Duration::from_millis(u64::try_from(left).expect("it has an end"));
        let elapsed = asked.elapsed();
        let told = format!("{}, {after}: full in {full_in:?}, gone in {left:?}", self.name);
        assert!(full_in > Duration::from_secs(60), "{told}: this says something");
        assert!(left + elapsed >= full_in, "{told}");
        assert!(left <= full_in + self.most_after, "{told}");
    }
}

fn lived<'a, A: Scripted>(
    server: &'a Standalone,
    name: &'static str,
    most_after: Duration,
    algorithm: A,
) -> Lived<'a, A> {
    server.flush_all();
    let source = Server::open(server.url()).expect("a URL");
    let redis = RedisBuilder::new(source, PolicyName::from_static("lives"))
        .remember_refusals(Duration::ZERO)
        .timeout(Duration::from_secs(60))
        .build();
    Lived { server, limiter: Limiter::new(algorithm, redis), most_after, name }
}

/// A limit of a hundred, a slow one, whose turns are given out for as long as two windows.
async fn lives_with_turns<A: Scripted>(lived: Lived<'_, A>) {
    lived.take(60).await;
    lived.is_right("what was taken").await;
    let next = lived.take(60).await;
    assert!(!next.delay.is_zero(), "{}", lived.name);
    lived.is_right("a turn to come").await;
    let last = lived.take(60).await;
    assert!(last.delay > next.delay, "{}", lived.name);
    lived.is_right("another turn").await;
    lived.settle(&last, 0).await;
    lived.is_right("the last turn, given back").await;
    lived.settle(&next, 10).await;
    lived.is_right("a turn, most of it given back").await;
    lived.take(90).await;
    lived.is_right("a turn that was taken again").await;
}

/// A limit of a hundred, a slow one.
async fn lives<A: Scripted>(
    server: &Standalone,
    name: &'static str,
    most_after: Duration,
    algorithm: A,
) {
    let lived = lived(server, name, most_after, algorithm);
    let first = lived.take(20).await;
    lived.is_right("what was taken").await;
    lived.settle(&first, 12).await;
    lived.is_right("what was given back").await;
    let second = lived.take(30).await;
    lived.is_right("what was taken again").await;
    lived.settle(&second, 700).await;
    lived.is_right("debt").await;
    lived.settle(&first, 11).await;
    lived.is_right("a little less debt").await;
    let refused = lived.limiter.decide(&KEY, 90).await.expect("it decides");
    assert!(!refused.is_allowed(), "{name}");
    lived.is_right("a refusal").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_any_algorithm_lives_until_it_is_full() {
    const ROUNDED: Duration = Duration::from_secs(3);
    const HOUR: Duration = Duration::from_secs(3_603);

    let quota = Quota::per_hour(100);
    for flavor in Flavor::ALL {
        let server = Standalone::start_with(flavor, &[]);
        lives(&server, "token", ROUNDED, TokenBucket::new(quota)).await;
        lives(&server, "leaky", ROUNDED, LeakyBucket::new(quota).depth(100)).await;
        let ahead = LeaseBucket::new(quota, 100).ahead(Duration::from_secs(30));
        lives(&server, "lease", ROUNDED, ahead).await;
        lives(&server, "from the first", HOUR, FixedWindow::from_first_hit(quota)).await;
        lives(&server, "sliding", HOUR, SlidingWindow::new(quota)).await;
        lives(&server, "counter", HOUR, SlidingCounter::new(quota)).await;
        lives(&server, "log", HOUR, SlidingLog::new(quota)).await;
        // Long ones: an hour of the clock may be over in a moment.
        let month = Duration::from_secs(31 * 86_400);
        let aligned = Quota::new(100, month).expect("a quota");
        lives(&server, "aligned", month + ROUNDED, FixedWindow::new(aligned)).await;
        let months = FixedWindow::calendar(100, Calendar::months("UTC").expect("a time zone"));
        lives(&server, "calendar", month + ROUNDED, months).await;
        let plan = Plan::new()
            .limit(PolicyName::from_static("hour"), TokenBucket::new(quota))
            .limit(PolicyName::from_static("many"), TokenBucket::new(Quota::per_minute(1_000)));
        lives(&server, "plan", ROUNDED, plan.build().expect("a plan")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_with_turns_to_come_lives_until_the_last_of_them_counts_no_more() {
    const HOUR: Duration = Duration::from_secs(3_603);

    let (quota, ahead) = (Quota::per_hour(100), Duration::from_secs(3 * 3_600));
    let month = Duration::from_secs(31 * 86_400);
    let aligned = FixedWindow::new(Quota::new(100, month).expect("a quota"));
    for flavor in Flavor::ALL {
        let server = Standalone::start_with(flavor, &[]);
        let from_first = FixedWindow::from_first_hit(quota).ahead(ahead);
        lives_with_turns(lived(&server, "from the first", HOUR, from_first)).await;
        let aligned = aligned.clone().ahead(3 * month);
        lives_with_turns(lived(&server, "aligned", month + HOUR, aligned)).await;
        let sliding = SlidingWindow::new(quota).ahead(ahead);
        lives_with_turns(lived(&server, "sliding", 2 * HOUR, sliding)).await;
        lives_with_turns(lived(&server, "log", HOUR, SlidingLog::new(quota).ahead(ahead))).await;
    }
}
