//! Leases of a server that fails: what was drawn is spent until it expires, then callers are told,
//! and no more is admitted than by the server itself.

use std::time::Duration;

use redis::RedisConnectionInfo;
use tokio::time::{Instant, sleep};
use tower_quota::{
    Limiter, PolicyName, Quota,
    algorithm::{LeaseBucket, TokenBucket},
    backend::{
        Leased,
        redis::{Redis, RedisBuilder, Sentinel, Server, Source},
    },
};

use super::{
    TIMEOUT,
    servers::{self, Data, PATIENCE, Standalone},
    tally::Tally,
    topology::wait_until_its_replica_has_all,
};

const BURST: u64 = 1_000;
const HOLD: Duration = Duration::from_millis(200);

type OfInstance<S> = Limiter<TokenBucket, Leased<Redis<LeaseBucket, S>>>;

/// Two instances, each of which holds something of its own.
struct Fleet<S: Source> {
    instances: [OfInstance<S>; 2],
    tally: Tally,
}

impl<S: Source> Fleet<S> {
    /// Of a limit that does not come back before the test is over: a lease costs nothing of its
    /// burst.
    fn of(source: impl Fn() -> S) -> Self {
        let bucket = TokenBucket::new(Quota::per_day(BURST));
        let instances = [(); 2].map(|()| {
            let redis = RedisBuilder::new(source(), PolicyName::from_static("leased"))
                .timeout(TIMEOUT)
                .build();
            Limiter::new(bucket, Leased::new(redis, HOLD))
        });
        Self { instances, tally: Tally::default() }
    }

    /// Asks each instance once. Nobody is told late.
    async fn ask(&mut self) {
        for instance in &self.instances {
            let begun = Instant::now();
            self.tally.ask(instance).await;
            assert!(begun.elapsed() < PATIENCE / 2, "nobody hangs: {:?}", begun.elapsed());
        }
    }

    async fn begin(&mut self) {
        for _ in 0..100 {
            self.ask().await;
        }
        assert!(self.tally.admitted + self.failed() > 100, "{:?}", self.tally);
    }

    async fn ask_for_the_rest(&mut self) {
        for instance in &self.instances {
            self.tally.ask_for_the_rest(instance).await;
        }
    }

    fn failed(&self) -> u64 {
        self.tally.timed_out + self.tally.unreachable
    }

    fn drawn(&self) -> u64 {
        self.instances.iter().map(|instance| instance.backend().counts().drawn).sum()
    }

    /// What was drawn is an upper bound of what was admitted, and has `bursts` for its own.
    fn assert_admits(&self, bursts: u64) {
        let drawn = self.drawn();
        let told = format!("{:?}, {drawn} were drawn", self.tally);
        assert!(self.tally.admitted <= drawn, "{told}");
        // What a bucket of a day gets back in this time, for each burst.
        assert!(drawn <= bursts * (BURST + 1), "{told}");
    }
}

fn standalone(server: &Standalone) -> Fleet<Server> {
    let url = server.url();
    Fleet::of(|| Server::open(url.as_str()).expect("a URL"))
}

/// Asks until what was drawn is spent or has expired, and callers are told of it.
async fn until_they_are_told(fleet: &mut Fleet<Server>) {
    let (begun, before) = (Instant::now(), fleet.failed());
    while fleet.failed() < before + 2 {
        fleet.ask().await;
        assert!(begun.elapsed() < PATIENCE, "nobody is told: {:?}", fleet.tally);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_of_a_server_that_restarts_with_its_data_admit_no_more() {
    let server = Standalone::start();
    let mut fleet = standalone(&server);
    fleet.begin().await;
    server.restart(Data::Kept);
    fleet.ask_for_the_rest().await;
    fleet.assert_admits(1);
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_of_a_server_that_loses_its_data_cost_one_more_burst() {
    let server = Standalone::start();
    let mut fleet = standalone(&server);
    fleet.begin().await;
    server.kill();
    until_they_are_told(&mut fleet).await;
    fleet.assert_admits(1);
    server.restart(Data::Lost);
    fleet.ask_for_the_rest().await;
    fleet.assert_admits(2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flush_of_all_keys_costs_leases_one_more_burst_and_no_error() {
    let server = Standalone::start();
    let mut fleet = standalone(&server);
    fleet.begin().await;
    server.flush_all();
    fleet.ask_for_the_rest().await;
    fleet.assert_admits(2);
    assert_eq!(fleet.tally.unreachable, 0, "{:?}", fleet.tally);
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_of_a_server_that_pauses_its_clients_admit_no_more() {
    let server = Standalone::start();
    let mut fleet = standalone(&server);
    fleet.begin().await;
    server.client_pause(Duration::from_secs(10));
    until_they_are_told(&mut fleet).await;
    fleet.ask_for_the_rest().await;
    fleet.assert_admits(1);
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_of_a_primary_that_dies_go_on_at_the_one_that_sentinels_choose() {
    let trio = servers::Sentinel::start();
    let urls = trio.urls();
    let open = || Sentinel::open(urls.clone(), "quota", &RedisConnectionInfo::default());
    let mut fleet = Fleet::of(|| open().expect("URLs"));
    fleet.begin().await;
    trio.wait_until_whole();
    let old = trio.master();
    let port = old.port();
    old.kill();
    fleet.ask_for_the_rest().await;
    assert_ne!(trio.master().port(), port);
    // What the replica did not have yet when it took over is a burst at the most.
    fleet.assert_admits(2);
}

/// The replica takes over while the old primary still lives, and gives out what the replica gives out too
/// until it is told: so much is admitted twice, and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn a_planned_failover_admits_again_what_the_old_primary_gives_out_after_it_and_no_more() {
    let trio = servers::Sentinel::start();
    trio.nobody_takes_over_unasked();
    let open = || Sentinel::open(trio.urls(), "quota", &RedisConnectionInfo::default());
    let mut fleet = Fleet::of(|| open().expect("URLs"));
    fleet.begin().await;
    trio.wait_until_whole();
    let old = trio.master();
    wait_until_its_replica_has_all(old);
    let before = fleet.drawn();
    trio.failover();
    let is_told = || {
        // It cuts off its clients when it is.
        let info: Option<String> = old.try_ask(&["INFO", "replication"]).ok();
        info.is_some_and(|info| info.contains("role:slave"))
    };
    let begun = Instant::now();
    while !is_told() {
        fleet.ask().await;
        // Not at full speed: something is to be left for the new one.
        sleep(Duration::from_millis(2)).await;
        assert!(begun.elapsed() < Duration::from_secs(60), "the old primary is not told");
    }
    let twice = fleet.drawn() - before;
    fleet.ask_for_the_rest().await;
    let (admitted, drawn) = (fleet.tally.admitted, fleet.drawn());
    let told = format!(
        "{admitted} admitted of {BURST}, {} above it; {drawn} drawn, {twice} of them while there were \
         two primaries: {:?}",
        admitted.saturating_sub(BURST),
        fleet.tally
    );
    println!("{told}");
    assert!(admitted <= drawn, "{told}");
    // And what a bucket of a day gets back in this time, at each of the two.
    assert!(drawn <= BURST + twice + 2, "{told}");
}
