//! Slots of this process.

use std::sync::Arc;

use tokio::{sync::Semaphore, task::yield_now};
use tower_quota::{
    Key,
    concurrency::{ConcurrencyBuilder, ConcurrencyLimiter},
};

use crate::{
    Extent,
    turns::{Way, compare, way},
};

const TASKS: u64 = 64;

pub(crate) async fn print(extent: Extent) {
    for (title, tasks, slots) in [
        ("one task, a slot is free", 1, 8),
        ("64 tasks, as many slots", TASKS, TASKS),
        ("64 tasks before 8 slots", TASKS, 8),
    ] {
        println!("## In this process: {title}\n");
        let total = |per_key| ConcurrencyBuilder::new(per_key).max_total(slots).build();
        compare(
            extent,
            tasks,
            &[
                ("tokio's semaphore", semaphore(slots)),
                ("slots of one key", limiter(ConcurrencyLimiter::new(slots), 1)),
                ("slots of all, one for each of 64 keys", limiter(total(1), TASKS)),
            ],
        )
        .await;
    }
}

fn semaphore(slots: u64) -> Way {
    let slots = Arc::new(Semaphore::new(slots as usize));
    way(move |_| {
        let slots = Arc::clone(&slots);
        async move {
            let _slot = slots.acquire().await.expect("it stays open");
            yield_now().await;
        }
    })
}

fn limiter(limiter: ConcurrencyLimiter, keys: u64) -> Way {
    way(move |task| {
        let limiter = limiter.clone();
        async move {
            let _slot = limiter.acquire(&Key::from(task % keys), 1).await.expect("its turn comes");
            yield_now().await;
        }
    })
}
