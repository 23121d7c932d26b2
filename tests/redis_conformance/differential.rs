//! The same random trace through an algorithm and through its script: the same decisions, standing
//! and waits, tick by tick, at any rate.
//!
//! The clock of these traces goes back too, limits change under way, and costs are anything from
//! nothing to more than there can be. What a script is held to is the algorithm in the form that it
//! carries out: whole microseconds.

use std::time::Duration;

use tower_quota::{
    Charge, Cost, Decision, Demand, Key, PolicyName, Quota,
    algorithm::{
        Ahead, Algorithm, Calendar, FixedWindow, LeakyBucket, LeaseBucket, Plan, Rule,
        SlidingCounter, SlidingLog, SlidingWindow, TokenBucket,
    },
    backend::{
        Backend,
        redis::{Redis, RedisBuilder, Scripted, Server},
    },
    time::{ManualClock, Timestamp},
};

use crate::servers::{Flavor, Standalone};

/// How many there are of each algorithm, unless the environment says another number
/// (`QUOTA_TRACES`). A run with 1,500 takes four minutes, and has been made.
const TRACES: u64 = 100;
const STEPS: u64 = 60;

/// SplitMix64.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    /// A number up to `most`, of any order of magnitude.
    fn any(&mut self, most: u64) -> u64 {
        let digits = self.below(u64::from(most.ilog2()) + 1);
        (self.next() & (u64::MAX >> (63 - digits))).min(most)
    }

    fn quota(&mut self) -> Quota {
        let round = [1, 1_000, 60_000, 3_600_000, 86_400_000].map(Duration::from_millis);
        let period = match self.below(3) {
            0 => Duration::from_micros(1 + self.any(30 * 86_400 * 1_000_000)),
            _ => round[self.below(5) as usize],
        };
        Quota::new(1 + self.any(Quota::MAX_LIMIT - 1), period).expect("a quota")
    }
}

/// A limit that was drawn.
trait Drawn: Scripted {
    fn draw(random: &mut Random) -> Self;

    /// Whether this may change to `next` under way. Not to a smaller limit: what was used may then
    /// be more debt than a server holds.
    fn may_become(&self, next: &Self) -> bool {
        next.capacity().units() >= self.capacity().units()
    }
}

impl Drawn for TokenBucket {
    fn draw(random: &mut Random) -> Self {
        let bucket = Self::new(random.quota());
        if random.below(2) == 0 { bucket } else { bucket.burst(1 + random.any(1_000_000_000)) }
    }
}

impl Drawn for LeakyBucket {
    fn draw(random: &mut Random) -> Self {
        let bucket = Self::new(random.quota()).depth(1 + random.any(1_000_000));
        match random.below(2) {
            0 => bucket,
            _ => bucket.max_wait(Duration::from_micros(random.any(100_000_000))),
        }
    }
}

impl Drawn for LeaseBucket {
    fn draw(random: &mut Random) -> Self {
        let ahead = Duration::from_micros(random.any(10_000_000));
        Self::new(random.quota(), 1 + random.any(1_000_000)).ahead(ahead)
    }
}

impl Drawn for FixedWindow {
    fn draw(random: &mut Random) -> Self {
        let quota = random.quota();
        match random.below(4) {
            0 => Self::new(quota),
            1 => Self::new(quota).offset(Duration::from_micros(random.any(1_000_000_000))),
            2 => Self::from_first_hit(quota),
            _ => {
                let zones = ["America/Los_Angeles", "Europe/Berlin", "Pacific/Apia"];
                let zone = zones[random.below(3) as usize];
                let calendar = if random.below(2) == 0 {
                    Calendar::days(zone)
                } else {
                    Calendar::months(zone)
                };
                Self::calendar(quota.limit(), calendar.expect("a time zone"))
            }
        }
    }

    /// How many windows of a calendar have paid off what was used under another is known where the
    /// calendar is.
    fn may_become(&self, next: &Self) -> bool {
        let follows_a_calendar = |window: &Self| format!("{window:?}").contains("Calendar");
        !follows_a_calendar(self)
            && !follows_a_calendar(next)
            && next.capacity().units() >= self.capacity().units()
    }
}

impl Drawn for SlidingWindow {
    fn draw(random: &mut Random) -> Self {
        Self::new(random.quota()).segments(1 + random.below(60)).expect("segments")
    }
}

impl Drawn for SlidingCounter {
    fn draw(random: &mut Random) -> Self {
        Self::new(random.quota())
    }
}

impl Drawn for SlidingLog {
    fn draw(random: &mut Random) -> Self {
        Self::new(random.quota()).max_entries(1 + random.below(12) as usize)
    }
}

/// A time in which turns are given out, up to some periods: mostly within a few of them.
fn ahead(random: &mut Random, period: Duration) -> Duration {
    match random.below(4) {
        0 => Duration::from_micros(random.any(10_000_000)),
        1 => Duration::ZERO,
        _ => {
            let micros = u64::try_from(period.as_micros()).unwrap_or(u64::MAX);
            Duration::from_micros(random.any(micros.saturating_mul(4).clamp(1, 1 << 45)))
        }
    }
}

/// The period that a window tells.
fn period_of(window: &impl Algorithm) -> Duration {
    window.policies(&PolicyName::from_static("window"))[0].window
}

macro_rules! drawn_ahead {
    ($($window:ident)+) => {$(
        impl Drawn for Ahead<$window> {
            fn draw(random: &mut Random) -> Self {
                let window = $window::draw(random);
                let ahead = ahead(random, period_of(&window));
                window.ahead(ahead)
            }

            /// To a smaller one if neither can have much debt.
            fn may_become(&self, next: &Self) -> bool {
                let (window, next) = (self.window(), next.window());
                let may_shrink = window.capacity().units() <= 10_000;
                window.may_become(next) || (may_shrink && next.may_become(window))
            }
        }
    )+};
}

drawn_ahead! { FixedWindow SlidingWindow SlidingLog }

impl Drawn for Ahead<Plan> {
    fn may_become(&self, _: &Self) -> bool {
        false
    }

    fn draw(random: &mut Random) -> Self {
        let plan = Plan::draw(random);
        let ahead = ahead(random, period_of(&plan));
        plan.ahead(ahead)
    }
}

impl Drawn for Plan {
    /// What is left of its other limits when it changes is not said.
    fn may_become(&self, _: &Self) -> bool {
        false
    }

    fn draw(random: &mut Random) -> Self {
        const NAMES: [PolicyName; 3] = [
            PolicyName::from_static("one"),
            PolicyName::from_static("two"),
            PolicyName::from_static("three"),
        ];
        let limits = NAMES.into_iter().take(1 + random.below(3) as usize);
        let plan = limits.enumerate().fold(Self::new(), |plan, (place, name)| {
            let rule = match random.below(6) {
                0 if place == 0 => Rule::from(LeakyBucket::draw(random)),
                1 => FixedWindow::draw(random).into(),
                2 => SlidingWindow::draw(random).into(),
                3 => SlidingCounter::draw(random).into(),
                4 => SlidingLog::draw(random).into(),
                _ => TokenBucket::draw(random).into(),
            };
            plan.limit_on(random.below(2) as usize, name, rule)
        });
        plan.build().expect("a plan")
    }
}

/// One trace: what is asked, of the algorithm and of the server.
struct Trace<A: Scripted> {
    random: Random,
    clock: ManualClock,
    redis: Redis<A, Server>,
    limit: A,
    /// None while nothing was written: a server has no state then.
    state: Option<A::State>,
    now: u64,
    charges: Vec<Charge>,
}

impl<A: Drawn> Trace<A> {
    fn begin(server: &Standalone, seed: u64) -> Self {
        let kind = std::any::type_name::<A>();
        let turns = if kind.contains("Ahead") { "turns-" } else { "" };
        let kind = kind.trim_end_matches('>').rsplit(':').next().expect("a name");
        let name = format!("d{turns}{kind}-{seed}");
        let clock = ManualClock::new();
        let redis = RedisBuilder::new(
            Server::open(server.url()).expect("a URL"),
            PolicyName::new(name.to_lowercase()).expect("a name"),
        )
        .timeout(Duration::from_secs(60))
        .remember_refusals(Duration::ZERO)
        .clock(clock.clone())
        .build();
        let mut random = Random::new(seed);
        let limit = A::draw(&mut random).on_server();
        let now = 1_000_000_000_000_000;
        Self { random, clock, redis, limit, state: None, now, charges: Vec::new() }
    }

    fn cost(&mut self) -> Cost {
        let capacity = self.limit.capacity();
        let mut one = |dimension| {
            let most = capacity.get(dimension).min(1 << 52);
            match self.random.below(8) {
                0 => 0,
                1 => most,
                2 => most.saturating_add(1),
                3 => u64::MAX,
                4 => 1,
                _ => self.random.any(most / 2 + 1),
            }
        };
        Cost::new(one(0)).with(1, one(1))
    }

    /// What was used of what was taken: some of it, or a little more. (The largest debt is smaller
    /// on a server, which has a test of its own.)
    fn actual(&mut self, taken: Cost) -> Cost {
        let capacity = self.limit.capacity();
        let mut one = |dimension| match self.random.below(3) {
            0 => 0,
            1 => self.random.any(taken.get(dimension).max(1)),
            _ => {
                let more = self.random.any(capacity.get(dimension).min(1 << 52) / 16 + 1);
                taken.get(dimension).saturating_add(more)
            }
        };
        Cost::new(one(0)).with(1, one(1))
    }

    fn with_state<T>(&mut self, now: Timestamp, run: impl FnOnce(&A, &mut A::State) -> T) -> T {
        let fresh = self.limit.initial(now);
        let written = self.state.take();
        let was_written = written.is_some();
        let mut state = written.unwrap_or_else(|| fresh.clone());
        let result = run(&self.limit, &mut state);
        self.state = (was_written || state != fresh).then_some(state);
        result
    }

    fn demand(&mut self) -> Demand {
        let cost = self.cost();
        match self.random.below(6) {
            0 => Demand::peek(cost),
            1 => Demand::up_to(self.random.any(1_000), cost),
            2 => Demand::lower_to(self.random.below(3) as usize, cost.units()),
            _ => Demand::exactly(cost),
        }
    }

    /// Moves the clock: by any time up to some periods, to the very instant of an earlier answer,
    /// or back.
    fn tick(&mut self, retry: Option<Duration>) {
        let by = match (self.random.below(8), retry) {
            (0, _) => return,
            (1, Some(retry)) => u64::try_from(retry.as_micros()).unwrap_or(0).min(1 << 50),
            (2, Some(retry)) => {
                u64::try_from(retry.as_micros()).unwrap_or(0).min(1 << 50).saturating_sub(1)
            }
            (3, _) => {
                let back = self.random.any(10_000_000);
                self.now = self.now.saturating_sub(back);
                return;
            }
            (4, _) => self.random.any(5_000_000_000),
            _ => self.random.any(2_000_000),
        };
        // Not to the end of time: a double holds 285 years.
        self.now = (self.now + by).min(4_000_000_000_000_000);
    }

    async fn step(&mut self, seed: u64) -> Option<Duration> {
        self.clock.set(Timestamp::from_nanos(self.now * 1_000));
        let now = Timestamp::from_nanos(self.now * 1_000);
        let key = Key::from("alice");
        if self.random.below(20) == 0 {
            let next = A::draw(&mut self.random).on_server();
            if self.limit.may_become(&next) {
                self.limit = next;
            }
        }
        if self.random.below(5) == 0 && !self.charges.is_empty() {
            let place = self.random.below(self.charges.len() as u64) as usize;
            let charge = self.charges.swap_remove(place);
            let actual = self.actual(charge.cost);
            self.with_state(now, |limit, state| limit.settle(state, now, &charge, actual));
            self.redis.settle(&self.limit, &key, &charge, actual).await.expect("it is settled");
            return None;
        }
        let demand = self.demand();
        let expected = self.with_state(now, |limit, state| limit.answer(state, now, &demand));
        let decision = self.redis.decide(&self.limit, &key, &demand).await;
        assert_eq!(
            decision.as_ref().ok(),
            Some(&expected),
            "trace {seed}: {decision:?}\nto {demand:?}\nunder {:?}",
            self.limit
        );
        if let Decision::Allow { charge, .. } = expected
            && demand.mode != tower_quota::DemandMode::Peek
        {
            self.charges.push(charge);
        }
        expected.retry_after().and_then(|retry| retry.duration())
    }
}

async fn differs_nowhere<A: Drawn>() {
    let server = Standalone::shared(Flavor::Redis);
    let traces = match std::env::var("QUOTA_TRACES") {
        Ok(number) => number.parse().expect("QUOTA_TRACES is a number"),
        Err(_) => TRACES,
    };
    for seed in 0..traces {
        let mut trace = Trace::<A>::begin(server, seed);
        let mut retry = None;
        for _ in 0..STEPS {
            trace.tick(retry);
            retry = trace.step(seed).await;
        }
    }
}

macro_rules! differ_nowhere {
    ($($name:ident: $algorithm:ty;)+) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            differs_nowhere::<$algorithm>().await;
        }
    )+};
}

differ_nowhere! {
    token_buckets_and_their_script_differ_nowhere: TokenBucket;
    leaky_buckets_and_their_script_differ_nowhere: LeakyBucket;
    lease_buckets_and_their_script_differ_nowhere: LeaseBucket;
    fixed_windows_and_their_script_differ_nowhere: FixedWindow;
    sliding_windows_and_their_script_differ_nowhere: SlidingWindow;
    sliding_counters_and_their_script_differ_nowhere: SlidingCounter;
    sliding_logs_and_their_script_differ_nowhere: SlidingLog;
    turns_of_fixed_windows_and_their_script_differ_nowhere: Ahead<FixedWindow>;
    turns_of_sliding_windows_and_their_script_differ_nowhere: Ahead<SlidingWindow>;
    turns_of_sliding_logs_and_their_script_differ_nowhere: Ahead<SlidingLog>;
    plans_and_their_script_differ_nowhere: Plan;
    turns_of_plans_and_their_script_differ_nowhere: Ahead<Plan>;
}
