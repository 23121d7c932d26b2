use std::time::Duration;

use tower_quota::{
    algorithm::{Portion, Share},
    backend::{Guarded, GuardedBuilder, Local, LocalBuilder, guarded::Fallback},
    testing::conformance::{self, Harness},
    time::{ManualClock, Timestamp},
};

use crate::support::{Does, Remote, UNREACHABLE};

struct Closed(ManualClock);

impl<A: Share> Harness<A> for Closed {
    type Backend = Guarded<A, Local<A, ManualClock>>;

    fn backend(&self) -> Self::Backend {
        let store = LocalBuilder::new().build_with_clock(self.0.clone());
        GuardedBuilder::new(Fallback::LocalShare(Portion::of(2).expect("two"))).build(store)
    }

    fn set_time(&self, now: Timestamp) {
        self.0.set(now);
    }
}

#[tokio::test]
async fn a_guarded_store_conforms_while_it_is_closed() {
    conformance::run(&Closed(ManualClock::new())).await;
}

/// Backends that have to be waited for, and the time that all of them are set to.
struct Waited(std::sync::Mutex<(Timestamp, Vec<ManualClock>)>);

impl<A: Share> Harness<A> for Waited {
    type Backend = Guarded<A, Remote<A>>;

    fn backend(&self) -> Self::Backend {
        let remote = Remote::new();
        remote.does(Does::AnswersAfter(Duration::from_millis(1)));
        let mut made = self.0.lock().unwrap();
        remote.clock().set(made.0);
        made.1.push(remote.clock().clone());
        GuardedBuilder::new(Fallback::Refuse).build(remote)
    }

    fn set_time(&self, now: Timestamp) {
        let mut made = self.0.lock().unwrap();
        made.0 = now;
        made.1.iter().for_each(|clock| clock.set(now));
    }
}

#[tokio::test(start_paused = true)]
async fn a_guarded_backend_that_has_to_be_waited_for_conforms() {
    conformance::run(&Waited(std::sync::Mutex::default())).await;
}

/// A backend that cannot be reached, and an instance that is alone: its share is the whole limit.
struct Failing(ManualClock);

impl<A: Share> Harness<A> for Failing {
    type Backend = Guarded<A, Remote<A>, ManualClock>;

    fn backend(&self) -> Self::Backend {
        let remote = Remote::new();
        remote.does(UNREACHABLE);
        let settings = GuardedBuilder::new(Fallback::LocalShare(Portion::WHOLE));
        settings.build_with_clock(remote, self.0.clone())
    }

    fn set_time(&self, now: Timestamp) {
        self.0.set(now);
    }
}

#[tokio::test]
async fn the_local_share_conforms_while_the_backend_fails() {
    conformance::run(&Failing(ManualClock::new())).await;
}
