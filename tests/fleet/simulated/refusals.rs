//! A limit that falls, and what it costs. Calls that have left cannot be called back; but nobody
//! starts another when the first refusal is known.

use std::time::Duration;

use axum::http::StatusCode;
use tokio::time::sleep;
use tower_quota::{
    Quota,
    testing::strict_upstream::{Answers, ProviderLimit, Told},
    time::Timestamp,
    upstream::Class,
};

use super::{LONGEST, NEWS, Simulation, TO_THE_LEDGER, TO_THE_PROVIDER, TOKENS, WINDOW, seeds};
use crate::{
    fleet::{Call, run},
    load::{Spread, arrivals},
    network::Exchange,
    optimum::{asked, demands},
    paused::Paused,
};

/// The bucket is empty when the limit falls: twice as much is asked for as there is.
const RATE: u64 = 12;
const FALLS: Duration = Duration::from_secs(65);
/// What is in use then is more than the new limit, for a minute.
const GOES_ON: u64 = 135;
const TIME: Duration = Duration::from_secs(195);
/// No two that go in turns are further apart, however large they are.
const MOST_APART: Duration = Duration::from_millis(500);

/// What happened when the limit fell.
#[derive(Debug)]
struct Fallen {
    refused: Vec<Exchange>,
    /// The calls among them that were started when all knew of the first refusal.
    in_vain: usize,
    /// The calls that were started in the time that was told to wait.
    in_the_wait: usize,
}

async fn falls(
    simulation: &Simulation,
    way: Duration,
    amount: u64,
    told: Told,
    calls: &[Call],
) -> Fallen {
    let changing = simulation.upstream.clone();
    let index = changing.record().limits.len() - 1;
    tokio::spawn(async move {
        sleep(FALLS).await;
        changing.change_limit("org", index, amount, told);
    });
    run(&simulation.fleet, calls, TIME).await;

    let exchanges = simulation.network.exchanges();
    let is_refused = |exchange: &&Exchange| exchange.status == StatusCode::TOO_MANY_REQUESTS;
    let refused: Vec<Exchange> = exchanges.iter().filter(is_refused).copied().collect();
    let first = refused.first().expect("the limit has fallen").answered;
    let known = first + NEWS + TO_THE_LEDGER;
    let wait = simulation.upstream.record().refused[0].wait.expect("it is a matter of time");
    // It began when the provider refused, which was a way before it was known.
    let over = first + wait.saturating_sub(way);
    let in_the_wait = exchanges.iter().filter(|exchange| (known..over).contains(&exchange.sent));
    Fallen {
        in_vain: refused.iter().filter(|exchange| known <= exchange.sent).count(),
        in_the_wait: in_the_wait.count(),
        refused,
    }
}

/// What is asked of a fleet, and how far away the provider is.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Calls of which six a second have room, and ways there and back of up to three tenths of a
    /// second.
    Small,
    /// The same, and a tenth of a second there and back.
    Near,
    /// As it is with most: calls of which one a second has room, and a tenth of a second there and
    /// back.
    Large,
}

impl Kind {
    fn simulation(self, seed: u64) -> Simulation {
        match self {
            Self::Small | Self::Near => {
                Simulation::of_tokens(seed, self.way(), Answers::heavy_tailed(20, LONGEST, seed))
            }
            Self::Large => {
                Simulation::of_tokens(seed, self.way(), Answers::heavy_tailed(300, 2_000, seed))
            }
        }
    }

    const fn way(self) -> (Duration, Duration) {
        match self {
            Self::Small => TO_THE_PROVIDER,
            Self::Near | Self::Large => (Duration::from_millis(10), Duration::from_millis(50)),
        }
    }

    /// Twice as many as have room.
    const fn rate(self) -> u64 {
        match self {
            Self::Small | Self::Near => RATE,
            Self::Large => 2,
        }
    }

    /// The most calls that are refused: the first, and those that go until all know of it. That is the longest
    /// way there and back, and the news of it; and of two that go in turns, the second goes three quarters of
    /// the time later in which there is room for one. See `guide::upstream`.
    fn most_refused(self, usual: u64) -> usize {
        let known = 2 * self.way().1 + NEWS + TO_THE_LEDGER;
        let room_for_one = WINDOW * u32::try_from(usual).expect("small") / TOKENS as u32;
        let apart = (room_for_one * 3 / 4).min(MOST_APART);
        1 + (known.as_micros() / apart.as_micros()) as usize
    }
}

async fn halved(kind: Kind, told: Told, spread: Spread, seed: u64) {
    let simulation = kind.simulation(seed);
    let calls = arrivals(seed, spread, kind.rate(), TIME);
    let Fallen { refused, in_vain, in_the_wait } =
        falls(&simulation, kind.way().1, TOKENS / 2, told, &calls).await;
    let case = format!("{kind:?}, {told:?}, {spread:?}, seed {seed}: {refused:?}");
    assert_eq!((in_vain, in_the_wait), (0, 0), "{case}");
    // Calls as they were on average before it fell.
    let before = demands(&calls, &simulation.answers, |_| Duration::ZERO);
    let count = calls.iter().filter(|call| call.at < FALLS).count() as u64;
    let most = kind.most_refused(asked(&before, FALLS) / count);
    assert!(refused.len() <= most, "more than {most}: {case}");
    for account in &simulation.fleet.accounts {
        let notice = account.notice("");
        let known = notice.limits.iter().find(|limit| &*limit.name == "tokens");
        let limit = known.expect("answers tell it").limit;
        assert!(limit <= TOKENS * 2 / 3, "an instance believes in {limit}: {case}");
    }
    let record = simulation.upstream.record();
    let goes_on = Paused::START.as_nanos() / 1_000_000_000 + GOES_ON;
    let used: u64 = record.limits[1].by_second.range(goes_on..).map(|(_, units)| units).sum();
    let there_was = TOKENS / 2 * (TIME.as_secs() - GOES_ON) / 60;
    assert!(used * 100 >= there_was * 75, "{used} of {there_was} were used then: {case}");
}

async fn halved_in_all_ways(told: Told) {
    for seed in seeds(2) {
        halved(Kind::Small, told, Spread::Even, seed).await;
        halved(Kind::Small, told, Spread::Skewed, seed).await;
    }
    // With these arrivals little is left when the limit falls. A burst into a bucket that has room
    // is another case: all of it is under way at once.
    for kind in [Kind::Near, Kind::Large] {
        halved(kind, told, Spread::Even, 1).await;
        halved(kind, told, Spread::Skewed, 1).await;
    }
}

#[tokio::test(start_paused = true)]
async fn when_a_limit_is_halved_and_answers_tell_it_no_call_starts_after_the_first_refusal() {
    halved_in_all_ways(Told::AtOnce).await;
}

#[tokio::test(start_paused = true)]
async fn when_a_limit_is_halved_and_refusals_tell_it_no_call_starts_after_the_first_refusal() {
    halved_in_all_ways(Told::AtRefusal).await;
}

#[tokio::test(start_paused = true)]
async fn when_a_limit_is_halved_and_nothing_tells_it_no_call_starts_after_the_first_refusal() {
    halved_in_all_ways(Told::Never).await;
}

/// Those that are under way are refused too: none is sent after them until midnight.
#[tokio::test(start_paused = true)]
async fn after_a_refusal_for_the_day_no_call_starts() {
    for seed in 1..=2 {
        let day = Duration::from_secs(86_400);
        let limits = vec![ProviderLimit::requests(10_000).per(day).fixed()];
        let known = vec![("requests-day", Quota::per_day(10_000))];
        let simulation = Simulation::new(seed, limits, known);
        let calls = arrivals(seed, Spread::Skewed, 5, TIME);
        let Fallen { refused, in_vain, in_the_wait } =
            falls(&simulation, TO_THE_PROVIDER.1, 10, Told::AtRefusal, &calls).await;
        assert_eq!((in_vain, in_the_wait), (0, 0), "seed {seed}: {refused:?}");
        // Those of one burst were under way with the first.
        assert!(refused.len() <= LARGEST_BURST, "seed {seed}: {refused:?}");
        let midnight = Timestamp::from_secs((Paused::START.as_nanos() / DAY_NANOS + 1) * 86_400);
        for account in &simulation.fleet.accounts {
            let stop = account.notice("").stop.expect("it holds until midnight");
            assert_eq!(stop.class, Class::Daily);
            // Whole seconds are told, from when the answer left.
            let late = stop.until.expect("it ends").saturating_since(midnight);
            let early = midnight.saturating_since(stop.until.expect("it ends"));
            assert!(early.is_zero() && late < Duration::from_secs(2), "{late:?} after midnight");
        }
    }
}

/// The calls of a moment: see `arrivals`.
const LARGEST_BURST: usize = 20;
const DAY_NANOS: u64 = 86_400_000_000_000;

/// Somebody else uses the account too, so that its day is over sooner than is known here: what is
/// left of it by all that is known is little then, and goes in turns.
#[tokio::test(start_paused = true)]
async fn a_day_that_is_over_too_soon_costs_one_refusal_and_one_call_more_at_most() {
    for (seed, spread) in [(1, Spread::Even), (2, Spread::Skewed)] {
        let day = Duration::from_secs(86_400);
        let limits = vec![ProviderLimit::requests(400).per(day).fixed()];
        let known = vec![("requests-day", Quota::per_day(400))];
        let simulation = Simulation::new(seed, limits, known);
        let calls = arrivals(seed, spread, 5, TIME);
        let Fallen { refused, in_vain, in_the_wait } =
            falls(&simulation, TO_THE_PROVIDER.1, 380, Told::AtRefusal, &calls).await;
        assert_eq!((in_vain, in_the_wait), (0, 0), "seed {seed}: {refused:?}");
        assert!(refused.len() <= 2, "seed {seed}: {refused:?}");
    }
}
