//! Instances that wait for a window whose server gives out turns: nobody is passed for ever, nothing is
//! left unused, and no window has more than its limit. The server is a store in this process, some way off,
//! and time is paused.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{task::JoinSet, time::Instant};
use tower_quota::{
    Limiter, PolicyName, Quota,
    algorithm::{
        Ahead, Algorithm, FixedWindow, Plan, SlidingLog, SlidingWindow, TokenBucket, Window,
    },
    queue::{Ask, Queue, QueueBuilder},
};

use crate::support::{Remote, alice, millis, store};

const LIMIT: u64 = 100;
const WINDOW: Duration = millis(250);
const AHEAD: Duration = millis(500);
/// The ways of the instances to the server: some are always later than others.
const WAYS: [Duration; 4] = [millis(1), millis(2), millis(5), millis(20)];

fn quota() -> Quota {
    Quota::new(LIMIT, WINDOW).expect("a quota")
}

type Instance<W> = Queue<Ahead<W>, Remote<Ahead<W>>>;
/// When so many units started, in nanoseconds.
type Ledger = Arc<Mutex<Vec<(u64, u64)>>>;

fn instances<W: Window>(window: &Ahead<W>) -> [Instance<W>; 4] {
    let store = store();
    WAYS.map(|way| {
        let server = Remote { store: store.clone(), ..Remote::new(way) };
        QueueBuilder::new(Limiter::new(window.clone(), server)).build()
    })
}

async fn acquire<W: Window>(instance: &Instance<W>, ledger: &Ledger, cost: u64) {
    let ask = Ask::new(cost).max_wait(Duration::from_secs(30));
    let charge = instance.acquire(&alice(), ask).await.expect("its turn comes").charge;
    let start = charge.at.saturating_add(charge.delay).as_nanos();
    ledger.lock().expect("sound").push((start, cost));
}

fn flood<W: Window>(tasks: &mut JoinSet<()>, instance: &Instance<W>, ledger: &Ledger, cost: u64) {
    for _ in 0..100 {
        let (instance, ledger) = (instance.clone(), Arc::clone(ledger));
        tasks.spawn(async move {
            loop {
                acquire(&instance, &ledger, cost).await;
            }
        });
    }
}

/// No window has more starts than its limit: of those side by side, or of all there are.
fn assert_within(ledger: &Ledger, side_by_side: bool) {
    let mut starts = ledger.lock().expect("sound").clone();
    starts.sort_unstable();
    let length = WINDOW.as_nanos() as u64;
    for (first, (from, _)) in starts.iter().enumerate() {
        let is_in = |at: u64| {
            if side_by_side { at / length == from / length } else { at - from < length }
        };
        let its = starts[first..].iter().take_while(|(at, _)| is_in(*at));
        let units: u64 = its.map(|(_, units)| units).sum();
        assert!(units <= LIMIT, "{units} from {from}");
    }
}

/// One instance wants large costs, the others small ones without a pause. Of what the window lets
/// through so many hundredths are used.
async fn large_and_small_ones_have_turns<W: Window>(
    window: Ahead<W>,
    side_by_side: bool,
    hundredths: u64,
) {
    for large in [2, LIMIT / 2, LIMIT] {
        let (ledger, mut tasks) = (Ledger::default(), JoinSet::new());
        let instances = instances(&window);
        for instance in &instances[..3] {
            flood(&mut tasks, instance, &ledger, 1);
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        for _ in 0..6 {
            let came = Instant::now();
            acquire(&instances[3], &ledger, large).await;
            // What is ahead, what is left of a window for it, its own, and three calls.
            let (waited, most) =
                (came.elapsed(), AHEAD + 3 * WINDOW + 3 * (2 * WAYS[3] + millis(1)));
            assert!(waited <= most, "{window:?}: {large} units waited for {waited:?}");
        }
        let begun = ledger.lock().expect("sound").iter().map(|(_, units)| units).sum::<u64>();
        tokio::time::sleep(Duration::from_secs(10)).await;
        tasks.shutdown().await;
        let used =
            ledger.lock().expect("sound").iter().map(|(_, units)| units).sum::<u64>() - begun;
        let possible = 10 * LIMIT * 1_000 / WINDOW.as_millis() as u64;
        // One window more may have begun when the end came.
        let used = used + LIMIT;
        assert!(used * 100 >= possible * hundredths, "{window:?}: {used} of {possible}");
        assert_within(&ledger, side_by_side);
    }
}

#[tokio::test(start_paused = true)]
async fn of_fixed_windows() {
    large_and_small_ones_have_turns(FixedWindow::new(quota()).ahead(AHEAD), true, 98).await;
}

/// A unit counts for a segment longer than the period.
#[tokio::test(start_paused = true)]
async fn of_sliding_windows() {
    large_and_small_ones_have_turns(SlidingWindow::new(quota()).ahead(AHEAD), false, 89).await;
}

#[tokio::test(start_paused = true)]
async fn of_logs() {
    large_and_small_ones_have_turns(SlidingLog::new(quota()).ahead(AHEAD), false, 98).await;
}

#[tokio::test(start_paused = true)]
async fn of_plans() {
    let plan = Plan::new()
        .limit(PolicyName::from_static("log"), SlidingLog::new(quota()))
        .limit(PolicyName::from_static("bucket"), TokenBucket::new(quota()))
        .build()
        .expect("a plan");
    assert_eq!(plan.capacity().units(), LIMIT);
    large_and_small_ones_have_turns(plan.ahead(AHEAD), false, 98).await;
}
