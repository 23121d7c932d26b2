use std::num::NonZeroU32;

use tokio::time::Instant;

use super::*;
use crate::{
    algorithm::{Plan, SlidingWindow},
    backend::LocalBuilder,
    cost::Cost,
    key::Key,
    name::PolicyName,
    queue::{
        Ask,
        shares::{Heard, Shares},
    },
    quota::Quota,
    time::TimerClock,
};

/// There is room for it all the time: what it leaves is told as missing for an hour.
#[tokio::test(start_paused = true)]
async fn who_leaves_room_for_one_that_waits_elsewhere_goes_on_when_that_does_not_come() {
    let (shares, gold, key) = (Arc::new(Shares::default()), Key::from("gold"), Key::from("all"));
    shares.admitted(&gold, NonZeroU32::MIN, 10);
    let report = shares.report().expect("there is something to tell");
    let heard = Heard { frame: report.frame, time: 0, behind: Some((0, 5)), starts: vec![None] };
    shares.heard(&report, &heard, Instant::now());

    let window = SlidingWindow::new(Quota::per_hour(10));
    let plan = Plan::new().limit(PolicyName::from_static("hour"), window).build();
    let backend = LocalBuilder::new().build_with_clock(TimerClock::new());
    let limiter = Limiter::new(plan.expect("one limit"), backend);
    let queue = QueueBuilder::new(limiter.clone()).order(Order::Fair);
    let queue = queue.sharing(Some(shares)).build();
    let begun = Instant::now();
    assert!(limiter.decide(&key, Cost::new(5)).await.expect("it is local").is_allowed());
    queue.acquire(&key, Ask::new(1).flow(gold)).await.expect("there is room");
    let waited = begun.elapsed();
    let few = Duration::from_millis(400)..Duration::from_secs(3);
    assert!(few.contains(&waited), "{waited:?}");
}
