//! Many instances, many callers, and a backend that does whatever it likes.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::future::{BoxFuture, FutureExt};
use tokio::time::Instant;
use tower_quota::{
    BackendError, BackendErrorKind, Charge, Cost, Decision, Demand, Key, MaybeReady, Quota,
    algorithm::{Portion, TokenBucket},
    backend::{
        Backend, Guarded, GuardedBuilder,
        guarded::{BreakerState, Fallback},
    },
    time::ManualClock,
};

use crate::support::{Bucket, Does, Remote, alice, settings};

const INSTANCES: u32 = 7;
const LIMIT: u64 = 500;
const TIMEOUT: Duration = Duration::from_millis(100);

/// A remote that sees whether it is probed by more than one at a time.
#[derive(Clone)]
struct Watched {
    remote: Remote<TokenBucket>,
    state: Arc<OnceLock<Box<dyn Fn() -> BreakerState + Send + Sync>>>,
    probes: Arc<AtomicUsize>,
}

type Instance = Guarded<TokenBucket, Watched, ManualClock>;

impl Watched {
    fn instance(remote: &Remote<TokenBucket>, index: u32) -> Instance {
        let watched =
            Self { remote: remote.beside(), state: Arc::default(), probes: Arc::default() };
        let portion = Portion::of(INSTANCES).and_then(|portion| portion.index(index));
        let settings = settings(Fallback::LocalShare(portion.expect("it is one of them")));
        let guard = settings.build_with_clock(watched.clone(), ManualClock::new());
        let seen = guard.clone();
        let state: Box<dyn Fn() -> BreakerState + Send + Sync> = Box::new(move || seen.state());
        watched.state.set(state).ok().expect("it is set once");
        guard
    }
}

struct Probing(Arc<AtomicUsize>);

impl Drop for Probing {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Backend<TokenBucket> for Watched {
    type Decide = BoxFuture<'static, Result<Decision, BackendError>>;
    type Settle = BoxFuture<'static, Result<(), BackendError>>;

    fn decide(
        &self,
        algorithm: &TokenBucket,
        key: &Key,
        demand: &Demand,
    ) -> MaybeReady<Self::Decide> {
        let state = self.state.get().expect("it is set before the first call")();
        assert_ne!(state, BreakerState::Open, "it is asked while it is open");
        let probing = (state == BreakerState::HalfOpen).then(|| {
            assert_eq!(self.probes.fetch_add(1, Ordering::SeqCst), 0, "two probe at one time");
            Probing(Arc::clone(&self.probes))
        });
        match self.remote.decide(algorithm, key, demand).try_into_ready() {
            Ok(answer) => MaybeReady::ready(answer),
            Err(call) => MaybeReady::pending(call.inspect(move |_| drop(probing)).boxed()),
        }
    }

    fn settle(
        &self,
        algorithm: &TokenBucket,
        key: &Key,
        charge: &Charge,
        actual: Cost,
    ) -> MaybeReady<Self::Settle> {
        self.remote.settle(algorithm, key, charge, actual)
    }
}

/// A small generator of random numbers, so that each run is the same.
#[derive(Clone)]
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }

    fn does(&mut self) -> Does {
        let time = Duration::from_millis(self.below(250));
        match self.below(10) {
            0..3 => Does::Answers,
            3..5 => Does::AnswersAfter(time),
            5 => Does::Hangs,
            6 => Does::Fails(BackendErrorKind::StoreFull),
            7 => Does::FailsAfter(time, BackendErrorKind::Unreachable),
            _ => Does::Fails(BackendErrorKind::Unreachable),
        }
    }
}

fn limit() -> TokenBucket {
    TokenBucket::new(Quota::per_day(LIMIT))
}

/// Asks many times, goes away sometimes, and gives some of it back. How much it has taken.
async fn caller(guard: Instance, mut random: Random) -> u64 {
    let mut taken = 0;
    for _ in 0..60 {
        tokio::time::sleep(Duration::from_millis(random.below(300))).await;
        let begun = Instant::now();
        let decision = guard.decide(&limit(), &alice(), &Demand::exactly(Cost::ONE));
        let patience = Duration::from_millis(random.below(200));
        let patient = random.below(3) > 0;
        let decided = if patient {
            decision.await
        } else {
            match tokio::time::timeout(patience, decision).await {
                Ok(decided) => decided,
                Err(_) => continue,
            }
        };
        assert!(begun.elapsed() <= TIMEOUT + Duration::from_millis(1), "{:?}", begun.elapsed());
        let decided = decided.expect("the share decides where the backend does not");
        let Some(charge) = decided.charge() else { continue };
        taken += 1;
        if random.below(4) == 0 {
            let begun = Instant::now();
            let settled = guard.settle(&limit(), &alice(), &charge, Cost::ZERO).await;
            assert!(begun.elapsed() <= TIMEOUT + Duration::from_millis(1));
            // If it is not known whether it came back, it has not.
            taken -= u64::from(settled.is_ok());
        }
    }
    taken
}

#[tokio::test(start_paused = true)]
async fn whatever_the_backend_does_nothing_hangs_and_one_probes_and_the_bound_holds() {
    let mut seen = (0, 0, 0);
    for seed in 1..=20_u64 {
        let remote = Remote::new();
        let guards: Vec<_> =
            (0..INSTANCES).map(|index| Watched::instance(&remote, index)).collect();
        let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let mut callers = Vec::new();
        for guard in &guards {
            let mut own = Random(random.below(u64::MAX) | 1);
            let mut mood = (own.does(), 0);
            guard.backend().remote.chooses(move || {
                // It stays with what it does for a while, so that failures come in a row.
                if mood.1 == 0 {
                    mood = (own.does(), own.below(12) + 1);
                }
                mood.1 -= 1;
                mood.0
            });
            for _ in 0..6 {
                let random = Random(random.below(u64::MAX) | 1);
                callers.push(tokio::spawn(caller(guard.clone(), random)));
            }
        }
        let mut taken = 0;
        for caller in callers {
            taken += caller.await.expect("no caller panics");
        }
        assert!(taken <= 2 * LIMIT, "{taken} were admitted");
        seen.0 += guards.iter().map(|guard| guard.counts().probes).sum::<u64>();
        seen.1 += guards.iter().map(|guard| guard.counts().timed_out).sum::<u64>();
        seen.2 = seen.2.max(taken);

        // No probe was lost: all of them come back when the backend does.
        for guard in &guards {
            guard.backend().remote.does(Does::Answers);
        }
        tokio::time::sleep(Duration::from_secs(9)).await;
        for guard in &guards {
            let _ = guard.decide(&limit(), &alice(), &Demand::peek(Cost::ONE)).await;
            assert_eq!(guard.state(), BreakerState::Closed);
            assert_eq!(guard.backend().remote.pending(), 0);
        }
    }
    // That was worth it.
    assert!(seen.0 > 300 && seen.1 > 300 && seen.2 > LIMIT, "{seen:?}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_comes_back_is_probed_by_few_at_a_time() {
    let remote = Remote::new();
    let guards: Vec<_> =
        (0..200).map(|index| Watched::instance(&remote, index % INSTANCES)).collect();
    for guard in &guards {
        guard.backend().remote.does(Does::Fails(BackendErrorKind::Unreachable));
        for _ in 0..3 {
            let _ = guard.decide(&limit(), &alice(), &Demand::exactly(Cost::ONE)).await;
        }
        guard.backend().remote.does(Does::Answers);
    }
    // All of them lost it at one instant, and each has a caller every millisecond.
    let mut most = 0;
    for _ in 0..1_000 {
        tokio::time::advance(Duration::from_millis(1)).await;
        let mut closed = 0;
        for guard in &guards {
            let was = guard.state();
            let _ = guard.decide(&limit(), &alice(), &Demand::exactly(Cost::ONE)).await;
            closed += u64::from(was != guard.state());
        }
        most = most.max(closed);
    }
    assert!(guards.iter().all(|guard| guard.state() == BreakerState::Closed));
    // Spread over half a second that is one in 2.5 ms.
    assert!(most < 12, "{most} of them came back in one millisecond");
}

#[test]
fn of_threads_that_come_when_a_probe_is_due_one_gets_it() {
    let tick = Duration::from_millis(1);
    for _ in 0..200 {
        let remote = Remote::new();
        let settings = GuardedBuilder::new(Fallback::Refuse).failures(1).back_off(tick, tick);
        // A probe is given up after two time-outs, which a busy machine might take.
        let settings = settings.timeout(Duration::from_secs(60));
        let guard: Bucket = settings.build_with_clock(remote.clone(), ManualClock::new());
        let decide = || guard.decide(&limit(), &alice(), &Demand::exactly(Cost::ONE));
        remote.does(Does::Fails(BackendErrorKind::Unreachable));
        assert!(decide().try_into_ready().is_ok_and(|decided| decided.is_err()));
        remote.does(Does::Hangs);
        let come = || {
            let mut probes = Vec::new();
            while guard.counts().probes == 0 {
                for _ in 0..100 {
                    probes.extend(decide().try_into_ready().err());
                }
            }
            probes
        };
        // What they got is kept until all have come.
        let probes: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(come)).collect();
            threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
        });
        assert_eq!((probes.len(), guard.state()), (1, BreakerState::HalfOpen));
    }
}
