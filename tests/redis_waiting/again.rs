//! Instances that wait for a limit that gives out no turns: each asks again, with its head alone.

use std::time::Duration;

use tokio::{sync::mpsc, task::JoinSet};
use tower_quota::{
    Key, Limiter, Quota,
    algorithm::SlidingCounter,
    queue::{Queue, QueueBuilder},
};

use super::{redis, servers::Standalone};

const INSTANCES: usize = 4;
const WAITERS: usize = 8;

/// Which of them is served at a turn is luck; within each the first comes first, and for a turn
/// there is no more than a call of each.
#[tokio::test]
async fn waiters_for_a_sliding_counter_keep_their_order_and_no_more_ask_than_there_are_instances() {
    let server = Standalone::start();
    let limit =
        SlidingCounter::new(Quota::new(8, Duration::from_millis(400)).expect("it makes sense"));
    let (tells, mut served) = mpsc::unbounded_channel();
    let mut tasks = JoinSet::new();
    for instance in 0..INSTANCES {
        let queue: Queue<SlidingCounter, _> =
            QueueBuilder::new(Limiter::new(limit, redis(&server.url()))).build();
        for waiter in 0..WAITERS {
            let (queue, tells) = (queue.clone(), tells.clone());
            // One thread polls them, in the order in which they were started.
            tasks.spawn(async move {
                queue.acquire(&Key::GLOBAL, 1).await.expect("its turn comes");
                tells.send((instance, waiter)).expect("somebody hears");
            });
        }
    }
    tasks.join_all().await;
    drop(tells);
    let mut orders = vec![Vec::new(); INSTANCES];
    while let Some((instance, waiter)) = served.recv().await {
        orders[instance].push(waiter);
    }
    for (instance, order) in orders.iter().enumerate() {
        let comers: Vec<usize> = (0..WAITERS).collect();
        assert_eq!(*order, comers, "instance {instance}");
    }
    // Some of those who came while nobody waited asked at once. A timer that is late or a clock that
    // is moved costs a call more: twice as many are allowed.
    let (calls, turns) = (server.calls_of("evalsha"), INSTANCES * WAITERS);
    let most = 2 * turns * INSTANCES;
    assert!(calls <= most as u64, "{calls} calls for {turns} turns");
}
