//! Primaries that change, and slots that move.

use std::{
    num::NonZeroU16,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::future::join_all;
use redis::{Cmd, Pipeline, RedisConnectionInfo, RedisResult, Value};
use tokio::{task::JoinSet, time::Instant};
use tower_quota::{
    Cost, Key, Limiter, PolicyName, Quota,
    algorithm::TokenBucket,
    backend::{
        Backend,
        redis::{Cluster, RedisBuilder, Sentinel, Source},
    },
};

use crate::{
    servers::{self, PATIENCE},
    tally::Tally,
};

fn limiter<S: Source>(source: S) -> Limiter<TokenBucket, impl Backend<TokenBucket>> {
    let redis = RedisBuilder::new(source, PolicyName::from_static("topology"))
        .timeout(Duration::from_secs(10))
        .remember_refusals(Duration::ZERO)
        .build();
    Limiter::new(TokenBucket::new(Quota::per_day(1_000)), redis)
}

/// What is left once there is an answer.
async fn left<B: Backend<TokenBucket>>(limiter: &Limiter<TokenBucket, B>, key: &Key) -> u64 {
    let begun = Instant::now();
    loop {
        match limiter.decide(key, Cost::ONE).await {
            Ok(decision) => return decision.snapshot().remaining,
            Err(error) => {
                let waited = begun.elapsed();
                assert!(waited < PATIENCE, "{waited:?}: {error:?}");
            }
        }
    }
}

/// The slot of a key, and a node that does not have it.
fn slot_and_another_node<'c>(
    cluster: &'c servers::Cluster,
    name: &str,
) -> (u16, &'c servers::Server) {
    let slot = cluster.slot_of(name);
    let from = cluster.owner(slot).port();
    let to = cluster.nodes().iter().find(|node| node.port() != from);
    (slot, to.expect("another node"))
}

/// A failover forgets what the replica has not.
pub(crate) fn wait_until_its_replica_has_all(primary: &servers::Server) {
    let written: u64 = primary.info("replication")["master_repl_offset"].parse().expect("a number");
    servers::until("the replica has all", || {
        let info = primary.try_info("replication")?;
        let replica = info.get("slave0")?.split(',').find_map(|it| it.strip_prefix("offset="))?;
        (replica.parse::<u64>().ok()? >= written).then_some(())
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_dies_is_followed_by_the_one_that_sentinels_choose() {
    let sentinel = servers::Sentinel::start();
    let source =
        Sentinel::open(sentinel.urls(), "quota", &RedisConnectionInfo::default()).expect("URLs");
    let limiter = limiter(source);
    assert_eq!(left(&limiter, &Key::GLOBAL).await, 999);
    sentinel.wait_until_whole();
    let old = sentinel.master();
    let port = old.port();
    old.kill();
    // The replica had the state. A call that may have been executed is not repeated.
    assert!((990..=998).contains(&left(&limiter, &Key::GLOBAL).await));
    assert_ne!(sentinel.master().port(), port);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_planned_failover_costs_at_most_one_more_burst() {
    let sentinel = servers::Sentinel::start();
    sentinel.nobody_takes_over_unasked();
    let source =
        Sentinel::open(sentinel.urls(), "quota", &RedisConnectionInfo::default()).expect("URLs");
    let limiter = limiter(source);
    let mut tally = Tally::default();
    for _ in 0..400 {
        tally.ask(&limiter).await;
    }
    sentinel.wait_until_whole();
    let old = sentinel.master();
    sentinel.failover();
    // What the old primary admits until it is told of its demotion is lost with it.
    for _ in 0..400 {
        tally.ask(&limiter).await;
    }
    servers::until("the old primary is told", || {
        // It cuts off its clients when it is.
        let info: String = old.try_ask(&["INFO", "replication"]).ok()?;
        info.contains("role:slave").then_some(())
    });
    tally.ask_for_the_rest(&limiter).await;
    let most = 2_000;
    assert!((1_000 - tally.timed_out..=most).contains(&tally.admitted), "{tally:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_of_a_cluster_that_dies_is_followed_by_its_replica() {
    let cluster = servers::Cluster::start(3, 1);
    let limiter = limiter(Cluster::open(cluster.urls()).expect("URLs"));
    let mut tally = Tally::default();
    for _ in 0..400 {
        tally.ask(&limiter).await;
    }
    let owner = cluster.owner(cluster.slot_of("tq:topology:{g}"));
    wait_until_its_replica_has_all(owner);
    owner.kill();
    tally.ask_for_the_rest(&limiter).await;
    tally.assert_admits(1_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_a_cluster_that_stands_still_for_a_moment_is_waited_for() {
    const GIVEN_UP: Duration = Duration::from_secs(5);
    let cluster = servers::Cluster::start(3, 0);
    let limiter = limiter(Cluster::open(cluster.urls()).expect("URLs"));
    assert_eq!(left(&limiter, &Key::GLOBAL).await, 999);
    let begun = Instant::now();
    cluster.owner(cluster.slot_of("tq:topology:{g}")).client_pause(Duration::from_millis(1_500));
    let decision = limiter.decide(&Key::GLOBAL, Cost::ONE).await;
    // A machine that stalls as well holds it for longer.
    assert!(decision.is_ok() || begun.elapsed() > GIVEN_UP, "{decision:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_has_moved_is_found() {
    let cluster = servers::Cluster::start(3, 0);
    let limiter = limiter(Cluster::open(cluster.urls()).expect("URLs"));
    let key = Key::from("moving");
    assert_eq!(left(&limiter, &key).await, 999);
    let (slot, to) = slot_and_another_node(&cluster, "tq:topology:{t.moving}");
    cluster.migrate_slot(slot, to);
    assert_eq!(left(&limiter, &key).await, 998, "its state has moved too");
    assert_eq!(left(&limiter, &key).await, 997);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_is_half_way_is_decided_on_where_its_keys_are() {
    let cluster = servers::Cluster::start(3, 0);
    let limiter = limiter(Cluster::open(cluster.urls()).expect("URLs"));
    let key = Key::from("moving");
    assert_eq!(left(&limiter, &key).await, 999);
    let (slot, to) = slot_and_another_node(&cluster, "tq:topology:{t.moving}");
    let migration = cluster.begin_migration(slot, to);
    assert_eq!(left(&limiter, &key).await, 998, "the old node still has it");
    migration.move_keys();
    assert_eq!(left(&limiter, &key).await, 997, "the new node has it already");
    assert_eq!(left(&limiter, &key).await, 996);
    migration.finish();
    assert_eq!(left(&limiter, &key).await, 995);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_moves_under_load_admits_no_more() {
    let cluster = servers::Cluster::start(3, 0);
    let limiter = limiter(Cluster::open(cluster.urls()).expect("URLs"));
    assert_eq!(left(&limiter, &Key::GLOBAL).await, 999);
    let has_moved = Arc::new(AtomicBool::new(false));
    let asking = (0..8).map(|_| ask_while_it_moves(limiter.clone(), Arc::clone(&has_moved)));
    let asking: JoinSet<Tally> = asking.collect();
    // It moves when some are admitted, and while the others ask.
    let begun = Instant::now();
    while limiter.peek(&Key::GLOBAL, 900).await.is_ok_and(|decision| decision.is_allowed()) {
        assert!(begun.elapsed() < PATIENCE, "nobody asks");
    }
    let (slot, to) = slot_and_another_node(&cluster, "tq:topology:{g}");
    let from = cluster.owner(slot);
    let migration = cluster.begin_migration(slot, to);
    migration.move_keys();
    migration.finish();
    has_moved.store(true, Ordering::SeqCst);
    let tally: Tally = asking.join_all().await.into_iter().sum();
    tally.assert_admits(999);
    let sent_on = from.info("errorstats");
    let was_asked = ["errorstat_ASK", "errorstat_MOVED"].iter().any(|it| sent_on.contains_key(*it));
    assert!(was_asked, "nobody asked while it moved: {sent_on:?}");
}

/// What one is told who asks before a slot moves, while it does, and then until nothing is left. It mostly
/// looks, which charges nothing: so there is enough for as long as that takes.
async fn ask_while_it_moves<B: Backend<TokenBucket>>(
    limiter: Limiter<TokenBucket, B>,
    has_moved: Arc<AtomicBool>,
) -> Tally {
    let mut tally = Tally::default();
    for asked in 0_u64.. {
        if has_moved.load(Ordering::SeqCst) {
            break;
        }
        if asked % 8 == 0 && tally.admitted < 100 {
            tally.ask(&limiter).await;
        } else {
            let _left = limiter.peek(&Key::GLOBAL, Cost::ONE).await;
        }
    }
    tally.ask_for_the_rest(&limiter).await;
    tally
}

/// What is left of each key, when all are asked for at once: mostly in one call.
async fn all_left<B: Backend<TokenBucket>>(
    limiter: &Limiter<TokenBucket, B>,
    keys: impl IntoIterator<Item = u32>,
) -> Vec<u64> {
    let keys: Vec<_> = keys.into_iter().map(|key| Key::from(u64::from(key))).collect();
    let decisions = join_all(keys.iter().map(|key| limiter.decide(key, Cost::ONE))).await;
    let told = decisions.into_iter().map(|it| it.expect("it decides").snapshot().remaining);
    told.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_whose_keys_are_apart_is_decided_key_by_key() {
    let cluster = servers::Cluster::start(3, 0);
    let source = Cluster::open(cluster.urls()).expect("URLs");
    let redis = RedisBuilder::new(source, PolicyName::from_static("apart"))
        .tags(NonZeroU16::MIN)
        .in_flight(1)
        .timeout(PATIENCE)
        .build();
    let limiter = Limiter::new(TokenBucket::new(Quota::per_day(1_000)), redis);
    assert_eq!(all_left(&limiter, 0..8).await, [999; 8]);
    let (slot, to) = slot_and_another_node(&cluster, "tq:apart:{0}:n.0");
    let from = cluster.owner(slot);
    let migration = cluster.begin_migration(slot, to);
    // New ones go to the new node, which has not the others.
    let both = all_left(&limiter, 0..16).await;
    assert_eq!(both, [[998; 8], [999; 8]].concat());
    migration.move_keys();
    // The old node has none of them, and the new one not all.
    let both = all_left(&limiter, 0..24).await;
    assert_eq!(both, [[997; 8], [998; 8], [999; 8]].concat());
    migration.finish();
    assert_eq!(all_left(&limiter, 16..24).await, [998; 8]);
    for node in [from, to] {
        assert!(node.info("errorstats").contains_key("errorstat_TRYAGAIN"), "they were apart");
    }
}

/// A cluster on which later calls overtake earlier ones, if they may leave before those are back.
#[derive(Clone)]
struct Overtaking {
    cluster: Cluster,
    calls: Arc<AtomicUsize>,
    under_way: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

impl Source for Overtaking {
    type Connection = <Cluster as Source>::Connection;

    const HAS_SLOTS: bool = true;

    async fn connection(&self) -> RedisResult<Self::Connection> {
        let under_way = self.under_way.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(under_way, Ordering::SeqCst);
        let earlier = self.calls.fetch_add(1, Ordering::SeqCst);
        for _ in earlier..200 {
            tokio::task::yield_now().await;
        }
        self.under_way.fetch_sub(1, Ordering::SeqCst);
        self.cluster.connection().await
    }

    async fn send_to(
        &self,
        connection: &mut Self::Connection,
        slot: u16,
        command: Cmd,
    ) -> RedisResult<Value> {
        self.cluster.send_to(connection, slot, command).await
    }

    async fn send_asking(
        &self,
        connection: &mut Self::Connection,
        address: &str,
        commands: Pipeline,
    ) -> Option<RedisResult<Value>> {
        self.cluster.send_asking(connection, address, commands).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_taken_apart_keeps_the_order_of_a_key_and_the_number_of_calls() {
    let cluster = servers::Cluster::start(3, 0);
    let source = Overtaking {
        cluster: Cluster::open(cluster.urls()).expect("URLs"),
        calls: Arc::default(),
        under_way: Arc::default(),
        most: Arc::default(),
    };
    let redis = RedisBuilder::new(source.clone(), PolicyName::from_static("apart"))
        .tags(NonZeroU16::MIN)
        .in_flight(1)
        .timeout(PATIENCE)
        .build();
    let limiter = Limiter::new(TokenBucket::new(Quota::per_day(1_000)), redis);
    assert_eq!(all_left(&limiter, 0..8).await, [999; 8]);
    let (slot, to) = slot_and_another_node(&cluster, "tq:apart:{0}:n.0");
    let migration = cluster.begin_migration(slot, to);
    // Two of each key that are not the same, so that they are not put together.
    let keys: Vec<_> =
        (0..16_u64).flat_map(|key| [(Key::from(key), 1), (Key::from(key), 2)]).collect();
    let decisions = join_all(keys.iter().map(|(key, cost)| limiter.decide(key, *cost))).await;
    let left = decisions.into_iter().map(|it| it.expect("it decides").snapshot().remaining);
    let expected = [[998, 996]; 8].into_iter().chain([[999, 997]; 8]);
    assert_eq!(left.collect::<Vec<_>>(), expected.flatten().collect::<Vec<_>>());
    assert!(source.calls.load(Ordering::SeqCst) > 20, "it was taken apart");
    assert_eq!(source.most.load(Ordering::SeqCst), 1);
    migration.move_keys();
    migration.finish();
}
