//! Slots that threads take, wait for, hand over and give up at the same moment.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::task::{JoinSet, yield_now};
use tower_quota::{
    Key,
    concurrency::{ConcurrencyBuilder, ConcurrencyLimiter},
};

use crate::random::Random;

const PER_KEY: u64 = 3;
const TOTAL: u64 = 5;
const KEYS: usize = 3;
const TASKS: u64 = 48;
const ROUNDS: u64 = 100;

/// What is held, as those see it who hold it: never less than they do.
#[derive(Default)]
struct Held {
    of_key: [AtomicU64; KEYS],
    total: AtomicU64,
}

impl Held {
    fn take(&self, key: usize, weight: u64) {
        let of_key = self.of_key[key].fetch_add(weight, Ordering::SeqCst) + weight;
        let total = self.total.fetch_add(weight, Ordering::SeqCst) + weight;
        assert!(of_key <= PER_KEY && total <= TOTAL, "{of_key} of a key are held, {total} of all");
    }

    fn give_back(&self, key: usize, weight: u64) {
        self.of_key[key].fetch_sub(weight, Ordering::SeqCst);
        self.total.fetch_sub(weight, Ordering::SeqCst);
    }
}

/// Takes slots again and again: some it does not wait for, some it gives up while it waits or when
/// it has just been woken.
async fn take_turns(limiter: ConcurrencyLimiter, held: Arc<Held>, mut random: Random) {
    for _ in 0..ROUNDS {
        let key = random.below(KEYS as u64) as usize;
        let weight = 1 + random.below(PER_KEY);
        let mut slot = Box::pin(limiter.acquire(&Key::from(key as u64), weight));
        match random.below(4) {
            0 => {}
            1 => {
                if futures::poll!(&mut slot).is_pending() {
                    yield_now().await;
                }
            }
            _ => {
                let slot = slot.await.expect("nothing else refuses it");
                held.take(key, weight);
                for _ in 0..random.below(3) {
                    yield_now().await;
                }
                held.give_back(key, weight);
                drop(slot);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn threads_hold_no_more_than_there_is_and_none_waits_for_ever() {
    for seed in 0..10 {
        let builder = ConcurrencyBuilder::new(PER_KEY).max_total(TOTAL);
        let limiter = builder.max_waiting(TASKS as usize).build();
        let held = Arc::<Held>::default();
        let mut tasks = JoinSet::new();
        for task in 0..TASKS {
            let random = Random(seed * TASKS + task);
            tasks.spawn(take_turns(limiter.clone(), Arc::clone(&held), random));
        }
        let all = async {
            while let Some(ended) = tasks.join_next().await {
                ended.expect("no panic")
            }
        };
        tokio::time::timeout(Duration::from_secs(60), all).await.expect("a wake-up is lost");
        assert_eq!((limiter.total_in_use(), limiter.total_waiting(), limiter.keys()), (0, 0, 0));
    }
}
