//! Several instances wait for one limit: its server hands out their turns. The server is a store in
//! this process, some way off, and time is paused.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{task::JoinSet, time::Instant};
use tower_quota::{
    Charge, Limiter, Quota,
    algorithm::LeaseBucket,
    queue::{Ask, Queue, QueueBuilder},
    time::Timestamp,
};

use crate::support::{Remote, Store, alice, millis, store};

const RATE: u64 = 400;
const BURST: u64 = 20;
const AHEAD: Duration = Duration::from_millis(500);
/// The ways of the instances to the server: some are always later than others.
const WAYS: [Duration; 4] = [millis(1), millis(2), millis(5), millis(20)];

type Instance = Queue<LeaseBucket, Remote<LeaseBucket>>;

fn bucket() -> LeaseBucket {
    LeaseBucket::new(Quota::per_second(RATE), BURST).ahead(AHEAD)
}

fn instance(store: &Store<LeaseBucket>, way: Duration) -> Instance {
    let server = Remote { store: store.clone(), ..Remote::new(way) };
    QueueBuilder::new(Limiter::new(bucket(), server)).build()
}

/// What was admitted, by the time of the server.
#[derive(Clone, Default)]
struct Ledger(Arc<Mutex<Vec<Charge>>>);

impl Ledger {
    fn note(&self, charge: Charge) {
        self.0.lock().expect("sound").push(charge);
    }

    fn len(&self) -> usize {
        self.0.lock().expect("sound").len()
    }

    /// The starts of all, in their order, and what each cost.
    fn starts(&self) -> Vec<(Timestamp, u64)> {
        let charges = self.0.lock().expect("sound");
        let start = |charge: &Charge| charge.at.saturating_add(charge.delay);
        let mut starts: Vec<_> =
            charges.iter().map(|charge| (start(charge), charge.cost.units())).collect();
        starts.sort_unstable();
        starts
    }

    /// No interval has more than the burst and what comes back in it. The oracle counts by units of
    /// 2.5 ms.
    fn assert_within_the_limit(&self) {
        let unit = Duration::from_secs(1) / u32::try_from(RATE).expect("a small number");
        let mut full_at = Timestamp::MIN;
        for (start, units) in self.starts() {
            let used = full_at.max(start).saturating_since(start);
            let units = u32::try_from(units).expect("a small number");
            let used = used + unit * units;
            assert!(used <= unit * BURST as u32, "more than the limit starts at {start:?}");
            full_at = start.saturating_add(used);
        }
    }

    /// How many units start from `from` to `until`.
    fn units_in(&self, from: Timestamp, until: Timestamp) -> u64 {
        let starts = self.starts();
        let inside = starts.iter().filter(|(start, _)| (from..until).contains(start));
        inside.map(|(_, units)| units).sum()
    }
}

/// Keeps an instance busy with requests of `cost`, by `tasks` that ask again and again.
fn flood(tasks: &mut JoinSet<()>, instance: &Instance, ledger: &Ledger, cost: u64, count: usize) {
    for _ in 0..count {
        let (instance, ledger) = (instance.clone(), ledger.clone());
        tasks.spawn(async move {
            loop {
                let admitted = instance.acquire(&alice(), cost).await.expect("its turn comes");
                ledger.note(admitted.charge);
            }
        });
    }
}

/// The longest time from when a request is the front of its line and is refused until it starts, as
/// the documentation of the queue says it, if each other instance asks for `others` at most.
fn bound(way: Duration, cost: u64, others: &[u64]) -> Duration {
    let units = 2 * (cost + others.iter().sum::<u64>());
    // It asks three times at the most on its own account, and each time is as late as timers are.
    AHEAD + Duration::from_millis(units * 1_000 / RATE) + 3 * (2 * way + millis(1))
}

/// One of the instances wants a large cost again and again, the others small ones without a pause.
async fn a_large_one_among_small_ones(large: u64, place: usize) {
    let (store, ledger, mut tasks) = (store(), Ledger::default(), JoinSet::new());
    let instances = WAYS.map(|way| instance(&store, way));
    for (other, instance) in instances.iter().enumerate() {
        if other != place {
            flood(&mut tasks, instance, &ledger, 1, 300);
        }
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    for _ in 0..10 {
        let came = Instant::now();
        let ask = Ask::new(large).max_wait(Duration::from_secs(30));
        let admitted = instances[place].acquire(&alice(), ask).await;
        let waited = came.elapsed();
        let case = format!("{large} units, {:?} away", WAYS[place]);
        let admitted = admitted.unwrap_or_else(|error| panic!("{case}: {error}"));
        ledger.note(admitted.charge);
        let bound = bound(WAYS[place], large, &[1; WAYS.len() - 1]);
        assert!(waited <= bound, "{case}: it waited for {waited:?}, and for {bound:?} at most");
    }
    tasks.shutdown().await;
    ledger.assert_within_the_limit();
}

#[tokio::test(start_paused = true)]
async fn a_large_cost_is_not_passed_for_ever_by_small_ones_of_other_instances() {
    for place in 0..WAYS.len() {
        for large in [2, BURST] {
            a_large_one_among_small_ones(large, place).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn instances_with_large_and_small_costs_all_have_turns_and_use_up_the_limit() {
    let costs = [1, 7, BURST, 3];
    let (store, mut tasks) = (store(), JoinSet::new());
    let all = Ledger::default();
    let ledgers = WAYS.map(|_| Ledger::default());
    for ((way, cost), ledger) in WAYS.iter().zip(costs).zip(&ledgers) {
        flood(&mut tasks, &instance(&store, *way), ledger, cost, 64);
    }
    tokio::time::sleep(Duration::from_secs(20)).await;
    tasks.shutdown().await;
    let counts: Vec<_> = ledgers.iter().map(Ledger::len).collect();
    for ledger in ledgers {
        for charge in ledger.0.lock().expect("sound").iter() {
            all.note(*charge);
        }
    }
    all.assert_within_the_limit();
    let begin = all.starts()[0].0;
    let (from, until) = (Duration::from_secs(5), Duration::from_secs(15));
    let used = all.units_in(begin.saturating_add(from), begin.saturating_add(until));
    assert!(used * 100 >= 10 * RATE * 98, "{used} units of {} are used", 10 * RATE);
    // One of each goes in turn: 31 units in each round.
    let rounds = 20 * RATE as usize / 31;
    assert!(counts.iter().all(|count| *count * 2 >= rounds), "{counts:?} in {rounds} rounds");
}
