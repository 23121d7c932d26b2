//! However requests end, the limit holds what an independent ledger says.

use std::time::Duration;

use tower_quota::{
    Key, Limiter, PolicyName, Quota,
    algorithm::{FixedWindow, TokenBucket},
    backend::{
        Backend,
        redis::{Redis, RedisBuilder, Scripted, Server},
    },
    limiter::{OnDrop, Permit},
    time::{ManualClock, Timestamp},
};

use crate::{
    servers::{Flavor, Standalone},
    store,
};

const KEY: Key = Key::GLOBAL;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// What is left of a limit, by its definition.
trait Ledger {
    fn left(&self, now: u64) -> i64;
    /// `units` more (or fewer) of what was charged at `charged` are used at `now`.
    fn add(&mut self, now: u64, charged: u64, units: i64);
}

/// A hundred in each window of a minute; debt is paid off by a hundred for each that ends.
#[derive(Default)]
struct Windows {
    window: u64,
    used: i64,
}

impl Windows {
    fn at(&self, now: u64) -> i64 {
        self.used.saturating_sub(100 * (now / 60 - self.window) as i64).max(0)
    }
}

impl Ledger for Windows {
    fn left(&self, now: u64) -> i64 {
        100 - self.at(now)
    }

    fn add(&mut self, now: u64, charged: u64, units: i64) {
        self.used = self.at(now);
        self.window = now / 60;
        if units > 0 || charged / 60 == self.window {
            self.used = (self.used + units).max(0);
        }
    }
}

/// A hundred at most, and ten come back each second.
#[derive(Default)]
struct Tokens {
    second: u64,
    used: i64,
}

impl Tokens {
    fn at(&self, now: u64) -> i64 {
        (self.used - 10 * (now - self.second) as i64).max(0)
    }
}

impl Ledger for Tokens {
    fn left(&self, now: u64) -> i64 {
        100 - self.at(now)
    }

    fn add(&mut self, now: u64, _: u64, units: i64) {
        self.used = (self.at(now) + units).max(0);
        self.second = now;
    }
}

/// Requests that begin and end in any order, in any way, at any time.
async fn agrees<A: Scripted, B: Backend<A>>(
    limiter: Limiter<A, B>,
    clock: &ManualClock,
    mut ledger: impl Ledger,
    seed: u64,
) {
    let mut random = Random(seed);
    let mut now = 6_000_000;
    let mut open: Vec<(Permit<A, B>, u64)> = Vec::new();
    for step in 0..400 {
        now += [0, 0, 0, 1, 3, 20][random.below(6) as usize];
        clock.set(Timestamp::from_secs(now));
        if random.below(2) == 0 || open.is_empty() {
            let cost = random.below(60);
            let room = ledger.left(now);
            let fits = room >= 0 && cost as i64 <= room;
            match limiter.reserve(&KEY, cost).await {
                Ok(permit) => {
                    assert!(fits, "step {step}: {cost} of {room}");
                    ledger.add(now, now, cost as i64);
                    open.push((permit, now));
                }
                Err(_) => assert!(!fits, "step {step}: {cost} of {room}"),
            }
        } else {
            let (permit, charged) = open.swap_remove(random.below(open.len() as u64) as usize);
            let reserved = permit.charge().cost.units() as i64;
            match random.below(6) {
                // It finished, and used less or more.
                0 | 1 => {
                    let actual = random.below(130) as i64;
                    permit.settle(actual as u64).await.expect("it is settled");
                    if actual != reserved {
                        ledger.add(now, charged, actual - reserved);
                    }
                }
                // It failed before anything was used.
                2 => {
                    permit.give_back().await.expect("it is settled");
                    if reserved > 0 {
                        ledger.add(now, charged, -reserved);
                    }
                }
                // The client went away, and nobody said what was used.
                3 | 4 => drop(permit),
                _ => permit.on_drop(OnDrop::GiveBack).keep(),
            }
        }
        let standing = limiter.peek(&KEY, 0).await.expect("it answers").snapshot();
        assert_eq!(standing.remaining as i64, ledger.left(now).max(0), "step {step}");
    }
}

fn windows() -> FixedWindow {
    FixedWindow::new(Quota::per_minute(100))
}

fn tokens() -> TokenBucket {
    TokenBucket::new(Quota::per_second(10)).burst(100)
}

#[tokio::test]
async fn any_mix_of_ends_leaves_the_ledger_of_this_process_right() {
    for seed in 0..20 {
        let clock = ManualClock::new();
        agrees(store(windows(), &clock), &clock, Windows::default(), seed).await;
        let clock = ManualClock::new();
        agrees(store(tokens(), &clock), &clock, Tokens::default(), seed).await;
    }
}

pub(crate) fn on_server<A: Scripted>(
    algorithm: A,
    name: &str,
    clock: &ManualClock,
) -> Limiter<A, Redis<A, Server>> {
    let server = Standalone::shared(Flavor::Redis);
    let name = PolicyName::new(name).expect("a name");
    let redis = RedisBuilder::new(Server::open(server.url()).expect("a URL"), name)
        .timeout(Duration::from_secs(60))
        .remember_refusals(Duration::ZERO)
        .clock(clock.clone())
        .build();
    Limiter::new(algorithm, redis)
}

#[tokio::test(flavor = "multi_thread")]
async fn any_mix_of_ends_leaves_the_ledger_of_a_server_right() {
    for seed in 0..4 {
        let clock = ManualClock::new();
        let limiter = on_server(windows(), &format!("windows-{seed}"), &clock);
        agrees(limiter, &clock, Windows::default(), seed).await;
        let clock = ManualClock::new();
        let limiter = on_server(tokens(), &format!("tokens-{seed}"), &clock);
        agrees(limiter, &clock, Tokens::default(), seed).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permit_of_a_server_that_is_dropped_comes_back_by_itself() {
    let clock = ManualClock::new();
    let limiter = on_server(TokenBucket::new(Quota::per_day(100)), "dropped", &clock);
    let permit = limiter.reserve(&KEY, 40).await.expect("there is room");
    drop(permit.on_drop(OnDrop::GiveBack));
    let begun = tokio::time::Instant::now();
    loop {
        let left = limiter.peek(&KEY, 0).await.expect("it answers").snapshot().remaining;
        if left == 100 {
            break;
        }
        assert_eq!(left, 60);
        assert!(begun.elapsed() < Duration::from_secs(60), "it does not come back");
        tokio::task::yield_now().await;
    }
}
