//! A fleet in a time of its own: the same instances and the same algorithms, over a ledger that is as far
//! away as a server, before a provider that is further away and takes as long as a model does. What
//! it does depends on its seed only, so what it must reach can be said exactly.

mod changes;
mod overload;
mod refusals;
mod use_of_quota;

use std::time::Duration;

use tokio::time::sleep;
use tower_quota::{
    Quota,
    backend::LocalBuilder,
    testing::strict_upstream::{Answers, ProviderLimit, StrictUpstream},
    upstream::{AccountBuilder, Board},
};

use crate::{
    distant::Distant,
    fleet::{Fleet, Setup},
    network::Network,
    paused::Paused,
};

/// One way to the ledger: a server in the same region.
const TO_THE_LEDGER: Duration = Duration::from_millis(1);
/// One way to the provider. The fleet allows for its default.
const TO_THE_PROVIDER: (Duration, Duration) =
    (Duration::from_millis(10), Duration::from_millis(150));
const FIRST_TOKEN: Duration = Duration::from_millis(300);
const EACH_TOKEN: Duration = Duration::from_millis(10);
/// The longest answer is a hundredth of a minute's quota, and takes six seconds.
const LONGEST: u64 = 600;
const TOKENS: u64 = 60_000;
const WINDOW: Duration = Duration::from_secs(60);
/// How long a board's news takes to the other instances, at the most.
const NEWS: Duration = Duration::from_millis(5);

struct Simulation {
    upstream: StrictUpstream,
    network: Network,
    fleet: Fleet<Distant<Paused>>,
    answers: Answers,
}

impl Simulation {
    /// A fleet that knows these limits.
    fn new(seed: u64, limits: Vec<ProviderLimit>, known: Vec<(&'static str, Quota)>) -> Self {
        let answers = Answers::heavy_tailed(20, LONGEST, seed);
        Self::far_from(seed, limits, known, TO_THE_PROVIDER, answers)
    }

    /// One that is so far from its provider, and is answered so.
    fn far_from(
        seed: u64,
        limits: Vec<ProviderLimit>,
        known: Vec<(&'static str, Quota)>,
        way: (Duration, Duration),
        answers: Answers,
    ) -> Self {
        let upstream = StrictUpstream::builder()
            .account("org", ["sk-a"], limits)
            .answers(answers)
            .latency(FIRST_TOKEN, EACH_TOKEN)
            .starting_at(Paused::START)
            .build();
        let setup = Setup { limits: known, jitter: AccountBuilder::DEFAULT_JITTER };
        let network = Network::new(&upstream, seed, way);
        let ledger = LocalBuilder::new().build_with_clock(Paused::new());
        let ledger = Distant::new(ledger, TO_THE_LEDGER);
        let mut boards = Vec::new();
        let fleet = Fleet::of(&network, &setup, || {
            boards.push(Board::starting_at(Paused::START));
            (ledger.clone(), boards[boards.len() - 1].clone())
        });
        tokio::spawn(spread_the_news(boards, network.clone()));
        Self { upstream, network, fleet, answers }
    }

    /// Six calls a second have room, as many as are on their way at a time.
    fn with_tokens(seed: u64) -> Self {
        Self::of_tokens(seed, TO_THE_PROVIDER, Answers::heavy_tailed(20, LONGEST, seed))
    }

    fn of_tokens(seed: u64, way: (Duration, Duration), answers: Answers) -> Self {
        let limits = vec![
            ProviderLimit::requests(3_000).per(WINDOW),
            ProviderLimit::tokens(TOKENS).per(WINDOW),
        ];
        let known = [("requests", 3_000), ("tokens", TOKENS)];
        let known = known.map(|(name, limit)| (name, Quota::new(limit, WINDOW).expect("a window")));
        Self::far_from(seed, limits, known.to_vec(), way, answers)
    }
}

/// Each instance has a board of its own, and what is on one is soon on all: as over a server.
async fn spread_the_news(boards: Vec<Board>, network: Network) {
    let (mut known, mut answered) = (Vec::new(), [0; 2]);
    loop {
        sleep(NEWS).await;
        // A board learns nothing but from answers: those that have come since it was looked at the last time but
        // one. To read all boards two hundred times a second would be half the time that a simulation takes.
        let so_far = network.answered();
        let is_quiet = answered == [so_far; 2];
        answered = [answered[1], so_far];
        if is_quiet {
            continue;
        }
        // When a stop was told is no news: it is told anew with each post.
        let notices = boards.iter().map(|board| board.notice(""));
        let notices: Vec<_> = notices.map(|notice| (notice.stop, notice.limits)).collect();
        if notices == known {
            continue;
        }
        for (stop, limits) in &notices {
            for board in &boards {
                stop.iter().for_each(|stop| board.post_stop("", stop.clone()));
                limits.iter().for_each(|limit| board.post_limit("", limit.clone()));
            }
        }
        known = notices;
    }
}

/// Some, or as many as there is time for.
fn seeds(some: u64) -> std::ops::RangeInclusive<u64> {
    let more = std::env::var("FLEET_SEEDS").ok().and_then(|seeds| seeds.parse().ok());
    1..=more.unwrap_or(some)
}
