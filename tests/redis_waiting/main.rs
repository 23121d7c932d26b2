//! Instances that wait for one limit on a server: it hands out their turns.

#[path = "../support/servers/mod.rs"]
mod servers;
#[path = "../support/together.rs"]
mod together;

mod again;
mod costs;
mod fleet;

use std::time::Duration;

use tokio::time::Instant;
use tower_quota::{
    Key, Limiter, PolicyName, Quota,
    algorithm::LeaseBucket,
    backend::redis::{Redis, RedisBuilder, Scripted, Server},
    queue::{Ask, Queue, QueueBuilder, QueueError},
};

use self::servers::{PATIENCE, Standalone};

type Turns = Queue<LeaseBucket, Redis<LeaseBucket, Server>>;

fn redis<A: Scripted>(url: &str) -> Redis<A, Server> {
    RedisBuilder::new(Server::open(url).expect("a URL"), PolicyName::from_static("turns"))
        .timeout(PATIENCE)
        .build()
}

fn turns(url: &str, bucket: LeaseBucket) -> Turns {
    QueueBuilder::new(Limiter::new(bucket, redis(url))).build()
}

#[tokio::test]
async fn a_turn_that_is_given_up_goes_back_to_the_server() {
    let server = Standalone::start();
    let turns = turns(
        &server.url(),
        LeaseBucket::new(Quota::per_day(60), 1).ahead(Duration::from_secs(43_200)),
    );
    turns.acquire(&Key::GLOBAL, 1).await.expect("there is one");
    let standing = async || {
        let standing = turns.limiter().peek(&Key::GLOBAL, 0).await.expect("it answers");
        standing.snapshot().remaining
    };
    let left = standing().await;
    // Its turn is in 24 minutes; it is given up before.
    let second = tokio::time::timeout(Duration::from_millis(200), turns.acquire(&Key::GLOBAL, 1));
    second.await.expect_err("it is not its turn");
    let begun = Instant::now();
    while standing().await < left {
        assert!(begun.elapsed() < PATIENCE, "it does not come back");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_turn_beyond_the_deadline_is_refused_at_once_and_not_taken() {
    let server = Standalone::start();
    let turns = turns(
        &server.url(),
        LeaseBucket::new(Quota::per_hour(1), 1).ahead(Duration::from_secs(36_000)),
    );
    turns.acquire(&Key::GLOBAL, 1).await.expect("there is one");
    for _ in 0..3 {
        let ask = Ask::new(1).max_wait(Duration::from_secs(5));
        let refused = turns.acquire(&Key::GLOBAL, ask).await.expect_err("it would be an hour");
        let QueueError::TooLate(denial) = refused else { panic!("{refused}") };
        let wait = denial.retry_after.duration().expect("a time");
        let hour = Duration::from_secs(3_600);
        assert!(wait > hour * 9 / 10 && wait <= hour, "{wait:?}");
        let begun = Instant::now();
        // What was taken for it comes back behind its back.
        while turns.limiter().peek(&Key::GLOBAL, 0).await.expect("it answers").snapshot().remaining
            < 10
        {
            assert!(begun.elapsed() < PATIENCE, "it does not come back");
            tokio::task::yield_now().await;
        }
    }
}
