//! The store in this process: its bounds, its memory, and many threads at once.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

use tower_quota::{
    BackendErrorKind, Charge, Cost, Decision, Key, Limiter, PolicyName, Quota, QuotaPolicy,
    algorithm::{
        Algorithm, FixedWindow, LeakyBucket, Plan, SlidingCounter, SlidingLog, SlidingWindow,
        TokenBucket,
    },
    backend::{Backend, Local, LocalBuilder, local::WhenFull},
    time::{Clock, ManualClock, Timestamp},
};

type Store<A> = Limiter<A, Local<A, ManualClock>>;

fn store<A: Algorithm>(algorithm: A, clock: &ManualClock, builder: LocalBuilder) -> Store<A> {
    Limiter::new(algorithm, builder.build_with_clock(clock.clone()))
}

fn admits<A: Algorithm, C: Clock>(limiter: &Limiter<A, Local<A, C>>, key: &Key) -> bool {
    limiter.decide_now(key, 1).expect("a store that evicts is never full").is_allowed()
}

#[test]
fn keys_that_have_gone_idle_cost_nothing_lasting() {
    let clock = ManualClock::new();
    let bucket = TokenBucket::new(Quota::per_minute(60));
    let limiter = store(bucket, &clock, LocalBuilder::new().capacity(300_000));
    let empty = {
        admits(&limiter, &Key::from("first"));
        limiter.backend().memory()
    };
    for key in 0..250_000_u64 {
        admits(&limiter, &Key::from(key));
    }
    let full = limiter.backend().memory();
    assert!(limiter.backend().len() > 249_000);
    assert!(full < 250_000 * 24, "{full} bytes for a quarter of a million keys");

    // Everybody goes away but one, who sees to the others in passing.
    clock.advance(Duration::from_secs(3_600));
    for _ in 0..200_000 {
        admits(&limiter, &Key::from("the last of them"));
    }
    let left = limiter.backend().memory();
    assert_eq!(limiter.backend().len(), 1);
    assert!(left < empty + 4_096, "{left} bytes are left of {full}; an empty store has {empty}");
}

/// A rate of a million parts a nanosecond, of which a word holds those of two hours and a half.
#[test]
fn a_bucket_whose_words_have_come_to_their_end_goes_on_beside_them() {
    const LIMIT: u64 = 1_000_003;
    for key in [Key::GLOBAL, Key::from("alice")] {
        let clock = ManualClock::new();
        let bucket = TokenBucket::new(Quota::per_second(LIMIT));
        let limiter = store(bucket, &clock, LocalBuilder::new());
        let admits = |cost| limiter.decide_now(&key, cost).expect("there is room").is_allowed();
        // Until just before the end in one step, across it in small ones while all is in use, far
        // beyond it. In each step 100,000.3 units come back.
        assert!(admits(LIMIT) && !admits(1));
        clock.advance(Duration::from_secs(9_222));
        assert!(admits(LIMIT) && !admits(1), "{key:?}");
        for _ in 0..20 {
            clock.advance(Duration::from_millis(100));
            assert!(!admits(100_010) && admits(100_000) && !admits(10), "{key:?}");
        }
        clock.advance(Duration::from_secs(400 * 365 * 86_400));
        assert!(admits(LIMIT) && !admits(1), "{key:?}");
    }
}

#[test]
fn hostile_keys_stay_inside_the_bound_and_displace_themselves() {
    let clock = ManualClock::new();
    let bucket = TokenBucket::new(Quota::per_hour(100));
    let limiter = store(bucket, &clock, LocalBuilder::new().capacity(10_000));
    let held_back = Key::from("held back");
    while admits(&limiter, &held_back) {}

    for key in 0..1_000_000_u64 {
        assert!(admits(&limiter, &Key::from(key)), "a new caller is let in");
    }
    let (keys, bytes) = (limiter.backend().len(), limiter.backend().memory());
    assert!(keys <= 10_000, "{keys} keys");
    assert!(bytes < 10_000 * 24 + 1_024, "{bytes} bytes");
    assert!(limiter.backend().evicted() >= 990_000 - 10_000);
    assert!(!admits(&limiter, &held_back), "a flood gives nobody a fresh quota");
}

#[test]
fn a_store_that_refuses_keeps_every_key_that_counts() {
    let clock = ManualClock::new();
    let builder = LocalBuilder::new().capacity(100).when_full(WhenFull::Refuse);
    let limiter = store(TokenBucket::new(Quota::per_minute(60)).burst(2), &clock, builder);
    let keys: Vec<Key> = (0..100_u64).map(Key::from).collect();
    assert!(keys.iter().all(|key| admits(&limiter, key)));

    let newcomer = Key::from("newcomer");
    let error = limiter.decide_now(&newcomer, 1).expect_err("every place is taken");
    assert_eq!(error.kind(), BackendErrorKind::StoreFull);
    assert!(keys.iter().all(|key| admits(&limiter, key) && !admits(&limiter, key)));
    assert_eq!(limiter.backend().evicted(), 0);

    clock.advance(Duration::from_secs(2));
    assert!(admits(&limiter, &newcomer), "the others have recovered");
}

#[test]
fn a_refusal_and_a_peek_leave_no_key_behind() {
    let clock = ManualClock::new();
    let limiter = store(TokenBucket::new(Quota::per_minute(60)), &clock, LocalBuilder::new());
    let _ = limiter.decide_now(&Key::from("asks too much"), 61);
    drop(limiter.peek(&Key::from("only looks"), 1).try_into_ready());
    assert!(limiter.backend().is_empty());
}

#[test]
fn the_busiest_keys_come_first_and_secrets_are_not_shown() {
    let clock = ManualClock::new();
    let builder = LocalBuilder::new().remember_keys();
    let limiter = store(FixedWindow::new(Quota::per_minute(60)), &clock, builder);
    for (key, requests) in
        [(Key::from("some"), 20), (Key::secret("sk-1"), 50), (Key::from("few"), 3)]
    {
        (0..requests).for_each(|_| assert!(admits(&limiter, &key)));
    }
    let busiest = limiter.busiest(2);
    let shown: Vec<(String, u64)> = busiest
        .iter()
        .map(|usage| (format!("{:?}", usage.key), usage.snapshot.remaining))
        .collect();
    assert_eq!(shown, [("Some(Key(secret))".into(), 10), ("Some(Key(some))".into(), 40)]);

    clock.advance(Duration::from_secs(120));
    assert!(limiter.busiest(2).is_empty(), "who has recovered is not busy");
}

/// Asks from so many threads at once, and counts what was let through.
fn at_once<A: Algorithm>(limiter: &Limiter<A, Local<A>>, keys: &[Key], each: u64) -> u64 {
    let admitted = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for turn in 0..each {
                    let key = &keys[turn as usize % keys.len()];
                    admitted.fetch_add(u64::from(admits(limiter, key)), Ordering::Relaxed);
                }
            });
        }
    });
    admitted.into_inner()
}

#[test]
fn many_threads_never_pass_the_bound_on_one_key_or_on_many() {
    fn check<A: Algorithm>(algorithm: A) {
        for keys in
            [vec![Key::GLOBAL], vec![Key::from("hot")], (0..100_u64).map(Key::from).collect()]
        {
            let limiter = Limiter::new(algorithm.clone(), Local::new());
            let admitted = at_once(&limiter, &keys, 20_000);
            assert_eq!(admitted, 100 * keys.len() as u64, "{algorithm:?}, {} keys", keys.len());
        }
    }
    // Nothing comes back within a test.
    let quota = Quota::new(100, Duration::from_secs(3_000 * 86_400)).expect("a quota");
    check(TokenBucket::new(quota));
    check(LeakyBucket::new(quota));
    check(FixedWindow::new(quota));
    check(FixedWindow::from_first_hit(quota));
    check(SlidingWindow::new(quota));
    check(SlidingLog::new(quota));
    check(SlidingCounter::new(quota));
    let name = PolicyName::from_static;
    let plan = Plan::new()
        .limit(name("burst"), TokenBucket::new(quota).burst(120))
        .limit(name("queue"), LeakyBucket::new(quota).depth(110))
        .limit(name("window"), SlidingWindow::new(quota));
    check(plan.build().expect("a plan"));
}

#[test]
fn what_was_used_stays_used_when_the_limit_changes_while_threads_decide() {
    let ten_years = Quota::MAX_PERIOD;
    let quota = |limit| Quota::new(limit, ten_years).expect("a quota");
    for key in [Key::GLOBAL, Key::from("hot")] {
        let limiter = Limiter::new(TokenBucket::new(quota(1_000)), Local::new());
        let admitted = AtomicU64::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        admitted.fetch_add(u64::from(admits(&limiter, &key)), Ordering::Relaxed);
                    }
                });
            }
            scope.spawn(|| limiter.set_algorithm(TokenBucket::new(quota(3_000))));
        });
        while admits(&limiter, &key) {
            admitted.fetch_add(1, Ordering::Relaxed);
        }
        assert_eq!(admitted.into_inner(), 3_000, "{key}");
    }
}

#[test]
fn an_excess_counts_though_the_charge_was_forgotten() {
    let clock = ManualClock::new();
    let limiter = store(TokenBucket::new(Quota::per_minute(60)), &clock, LocalBuilder::new());
    let key = Key::from("alice");
    let charge = limiter.decide_now(&key, 10).expect("room").charge().expect("it was allowed");
    clock.advance(Duration::from_secs(3_600));

    let settled = limiter.settle(&key, &charge, 100).try_into_ready();
    assert!(settled.is_ok_and(|settled| settled.is_ok()));
    assert!(!admits(&limiter, &key), "ninety more were used than sixty that there were");
    clock.advance(Duration::from_secs(30));
    assert!(!limiter.decide_now(&key, Cost::ONE).expect("room").is_allowed());
    clock.advance(Duration::from_secs(1));
    assert!(admits(&limiter, &key));
}

#[test]
fn a_state_that_is_looked_at_decides_as_the_store_does_and_makes_no_entry() {
    let clock = ManualClock::new();
    let bucket = TokenBucket::new(Quota::per_second(10));
    let limiter = store(bucket, &clock, LocalBuilder::new());
    for key in [Key::GLOBAL, Key::from("alice")] {
        let looked_at = || limiter.backend().state_of(&bucket, &key).expect("it is at hand");
        assert_eq!(looked_at(), (bucket.initial(clock.now()), clock.now()));
        assert!(limiter.backend().is_empty());
        for cost in [3, 4, 5, 3, 1] {
            // Once the state is packed, and once it is not.
            for settled in [false, true] {
                let (mut state, now) = looked_at();
                let foreseen = bucket.decide(&mut state, now, Cost::new(cost));
                let decision = limiter.decide_now(&key, cost).expect("a store that evicts");
                assert_eq!(foreseen, decision);
                if let (true, Some(charge)) = (settled, decision.charge()) {
                    let done = limiter.settle(&key, &charge, charge.cost.units() + 1);
                    done.try_into_ready().expect("at once").expect("settled");
                }
            }
            clock.advance(Duration::from_millis(130));
        }
    }
}

/// An algorithm of somebody's own. Its words count what was taken from a bucket, up to two.
#[derive(Clone, Debug, PartialEq)]
struct Counted {
    bucket: TokenBucket,
    packs: bool,
}

/// A word that no store keeps.
const NO_WORD: u64 = u64::MAX;

impl Algorithm for Counted {
    type State = <TokenBucket as Algorithm>::State;

    fn initial(&self, now: Timestamp) -> Self::State {
        self.bucket.initial(now)
    }

    fn decide(&self, state: &mut Self::State, now: Timestamp, cost: Cost) -> Decision {
        self.bucket.decide(state, now, cost)
    }

    fn available(&self, state: &Self::State, now: Timestamp, each: Cost) -> u64 {
        self.bucket.available(state, now, each)
    }

    fn take(&self, state: &mut Self::State, now: Timestamp, cost: Cost) {
        self.bucket.take(state, now, cost);
    }

    fn refund(&self, state: &mut Self::State, now: Timestamp, charge: &Charge, cost: Cost) {
        self.bucket.refund(state, now, charge, cost);
    }

    fn idle_at(&self, state: &Self::State) -> Timestamp {
        self.bucket.idle_at(state)
    }

    fn policies(&self, name: &PolicyName) -> Vec<QuotaPolicy> {
        self.bucket.policies(name)
    }

    fn capacity(&self) -> Cost {
        self.bucket.capacity()
    }

    fn decide_packed(
        &self,
        word: u64,
        origin: Timestamp,
        now: Timestamp,
        cost: Cost,
    ) -> Option<(Option<u64>, Decision)> {
        assert!(self.packs, "asked about {word}, though nothing is packed");
        assert!(word <= 2, "{word} is no word");
        let mut state = self.unpack(word, origin, now)?;
        let next = if word < 2 { word + 1 } else { NO_WORD };
        Some((Some(next), self.decide(&mut state, now, cost)))
    }

    fn unpack(&self, word: u64, _: Timestamp, now: Timestamp) -> Option<Self::State> {
        self.packs.then(|| {
            assert!(word <= 2, "{word} is no word");
            let mut state = self.initial(now);
            self.take(&mut state, now, Cost::new(word));
            state
        })
    }
}

#[test]
fn an_algorithm_of_somebodys_own_is_never_asked_about_a_word_that_is_none() {
    for packs in [true, false] {
        let bucket = TokenBucket::new(Quota::per_day(5));
        for key in [Key::GLOBAL, Key::from("some")] {
            let clock = ManualClock::new();
            let limiter = store(Counted { bucket, packs }, &clock, LocalBuilder::new());
            let admitted = (0..9).filter(|_| admits(&limiter, &key)).count();
            assert_eq!(admitted, 5, "packs: {packs}, {key:?}");
            let left = limiter.peek(&key, 0).try_into_ready().expect("a local store");
            assert_eq!(left.expect("it answers").snapshot().remaining, 0);
        }
    }
}
