use std::{
    pin::pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use tokio::time::Instant;
use tower_quota::{
    Cost, Demand, Key, Limiter,
    algorithm::Algorithm,
    backend::{
        Backend as _,
        tracked::{Calls, Tracked},
    },
    limiter::OnDrop,
    testing::conformance::{self, Harness},
    time::{ManualClock, Timestamp},
};

use crate::support::{Does, Remote, alice, limit};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn corrections_that_nobody_waits_for_can_be_waited_for_at_the_end() {
    let (remote, calls) = (Remote::new(), Calls::new());
    let limiter = Limiter::new(limit(), Tracked::new(remote.clone(), &calls));
    let other = Limiter::new(limit(), Tracked::new(Remote::new(), &calls));
    remote.does(Does::AnswersAfter(SECOND));
    let permit = limiter.reserve(&alice(), 4).await.expect("there is enough");
    // What answers at once is never on its way.
    drop(other.reserve(&alice(), 1).await.expect("there is enough"));
    assert_eq!(calls.under_way(), 0);

    drop(permit.on_drop(OnDrop::GiveBack));
    assert_eq!(calls.under_way(), 1);
    let begun = Instant::now();
    let same = calls.clone();
    tokio::join!(calls.ended(), same.ended());
    assert_eq!(begun.elapsed(), SECOND);
    assert_eq!((calls.under_way(), remote.settled()), (0, 1));
    calls.ended().await;
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_is_on_its_way_no_longer() {
    let (remote, calls) = (Remote::new(), Calls::new());
    remote.does(Does::Hangs);
    let backend = Tracked::new(remote, &calls);
    let call = backend.decide(&limit(), &Key::GLOBAL, &Demand::exactly(Cost::ONE));
    assert_eq!(calls.under_way(), 1);
    let ended = tokio::spawn({
        let calls = calls.clone();
        async move { calls.ended().await }
    });
    tokio::task::yield_now().await;
    drop(call);
    ended.await.expect("it does not panic");
}

#[test]
fn who_does_not_wait_to_the_end_leaves_nothing_behind() {
    struct Counts;
    impl Wake for Counts {
        fn wake(self: Arc<Self>) {}
    }
    let (remote, calls) = (Remote::new(), Calls::new());
    remote.does(Does::Hangs);
    let backend = Tracked::new(remote, &calls);
    let _call = backend.decide(&limit(), &Key::GLOBAL, &Demand::exactly(Cost::ONE));
    let waker = Arc::new(Counts);
    for _ in 0..3 {
        let waking = Waker::from(Arc::clone(&waker));
        let ended = pin!(calls.ended());
        assert_eq!(ended.poll(&mut Context::from_waker(&waking)), Poll::Pending);
    }
    assert_eq!(Arc::strong_count(&waker), 1);
}

#[test]
fn a_call_that_is_admitted_is_counted_while_it_is_on_its_way() {
    let (remote, calls) = (Remote::new(), Calls::new());
    let backend = Tracked::new(remote.clone(), &calls);
    let admit = || backend.admit(&limit(), &Key::GLOBAL, &Demand::exactly(Cost::ONE));
    assert!(admit().is_ok());
    remote.does(Does::Hangs);
    let call = admit().expect_err("it is on its way");
    assert_eq!(calls.under_way(), 1);
    drop(call);
    assert_eq!(calls.under_way(), 0);
}

struct Both(Mutex<(Timestamp, Vec<ManualClock>)>);

impl<A: Algorithm> Harness<A> for Both {
    type Backend = Tracked<Remote<A>>;

    fn backend(&self) -> Self::Backend {
        let remote = Remote::new();
        remote.does(Does::AnswersAfter(Duration::from_millis(1)));
        let mut made = self.0.lock().unwrap();
        remote.clock().set(made.0);
        made.1.push(remote.clock().clone());
        Tracked::new(remote, &Calls::new())
    }

    fn set_time(&self, now: Timestamp) {
        let mut made = self.0.lock().unwrap();
        made.0 = now;
        made.1.iter().for_each(|clock| clock.set(now));
    }
}

#[tokio::test(start_paused = true)]
async fn a_tracked_backend_conforms() {
    conformance::run(&Both(Mutex::default())).await;
}
