//! A server that is away, hangs, or does not permit: a miss, and soon.

use std::time::Duration;

use redis::RedisConnectionInfo;
use tokio::time::Instant;
use tower_quota::{
    BackendErrorKind,
    backend::{
        guarded::BreakerState,
        redis::{Cluster, Sentinel, Source},
    },
    cache::redis::RedisStoreBuilder,
};

use crate::{
    servers::{self, Flavor, Proxy, Standalone},
    support::{
        PATIENCE, Upstream, ask, cache, json, kept, layer, read, server_of, status, unique_name,
    },
};

#[tokio::test]
async fn without_a_server_all_is_a_miss_and_soon_nobody_asks_it() {
    let proxy = Proxy::start("127.0.0.1:1".parse().expect("an address"));
    proxy.refuse();
    let timeout = Duration::from_millis(100);
    let store = RedisStoreBuilder::new(server_of(&proxy.url()), unique_name()).timeout(timeout);
    let store = store.build();
    let upstream = Upstream::numbered();
    let asked = cache(&layer().store(store.clone()), &upstream);
    for call in 1..=10 {
        assert_eq!(read(&asked, json(&call.to_string())).await, format!("answer {call}"));
    }
    // It is tried again after half a second, which may be over: then it opens again.
    let is_open = async {
        while store.state() != BreakerState::Open
            || store.check().await.expect_err("there is none").kind()
                != BackendErrorKind::CircuitOpen
        {
            read(&asked, json("{}")).await;
        }
    };
    tokio::time::timeout(PATIENCE, is_open).await.expect("it is not asked");
}

#[tokio::test]
async fn a_server_that_hangs_costs_a_few_requests_its_time_out_and_comes_back() {
    let server = Standalone::start();
    let proxy = Proxy::start(server.addr());
    let timeout = Duration::from_millis(500);
    let store = RedisStoreBuilder::new(server_of(&proxy.url()), unique_name()).timeout(timeout);
    let store = store.build();
    let upstream = Upstream::numbered();
    let asked = cache(&layer().store(store.clone()), &upstream);
    proxy.hold();
    let begun = Instant::now();
    for call in 1..=100 {
        assert_eq!(read(&asked, json(&call.to_string())).await, format!("answer {call}"));
    }
    // Five calls and their time-outs, and a probe now and then; without a breaker a hundred seconds.
    assert!(begun.elapsed() < Duration::from_secs(50), "{:?}", begun.elapsed());
    proxy.pass();
    let back = async {
        while !status(&ask(&asked, json("{}")).await).contains("hit") {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), back).await.expect("it is asked again");
    assert_eq!(store.state(), BreakerState::Closed);
}

#[tokio::test]
async fn a_reply_that_is_lost_leaves_no_turn_behind() {
    let server = Standalone::start();
    let proxy = Proxy::start(server.addr());
    let name = unique_name();
    let hour = Duration::from_secs(3_600);
    let store = RedisStoreBuilder::new(server_of(&proxy.url()), name.clone());
    let store = store.timeout(PATIENCE).lease(hour).wait(hour).build();
    let upstream = Upstream::numbered();
    let asked = cache(&layer().store(store), &upstream);
    assert_eq!(read(&asked, json("1")).await, "answer 1");
    kept(&server, &name, 1).await;
    // The second call for it takes the turn: nobody hears that it did.
    proxy.cut_reply_to(&hour.as_millis().to_string());
    let _ = read(&asked, json("2")).await;
    assert!(proxy.has_cut_reply());
    // It does not wait for an hour: the turn is given back.
    kept(&server, &name, 2).await;
}

/// The line of the page.
fn rules() -> String {
    let page = include_str!("../../src/cache/redis.rs");
    let line =
        page.lines().find_map(|line| line.split_once("ACL SETUSER answers ")).expect("a line");
    line.1.to_owned()
}

#[tokio::test]
async fn the_privileges_of_the_page_are_enough_and_the_least() {
    for flavor in Flavor::ALL {
        let server = Standalone::start_with(flavor, &[]);
        let name = tower_quota::PolicyName::from_static("answers");
        let store = || {
            let source = server_of(&server.url_of("answers", "PASSWORD"));
            RedisStoreBuilder::new(source, name.clone()).timeout(PATIENCE).build()
        };
        server.acl_set_user("answers", &rules());
        store().check().await.expect("they are enough");
        let upstream = Upstream::numbered();
        let asked = cache(&layer().store(store()), &upstream);
        assert_eq!(read(&asked, json("{}")).await, "answer 1");
        kept(&server, &name, 2).await;
        assert!(status(&ask(&asked, json("{}")).await).contains("hit"));

        let line = rules();
        for command in line.split(' ').filter(|rule| rule.starts_with('+')) {
            server.script_flush();
            let others: Vec<_> = line.split(' ').filter(|rule| *rule != command).collect();
            server.acl_set_user("answers", &format!("reset {}", others.join(" ")));
            let error = store().check().await.expect_err(command);
            assert_eq!(error.kind(), BackendErrorKind::Unauthorized, "{command}: {error:?}");
            server.flush_all();
        }
    }
}

#[tokio::test]
async fn a_cluster_and_a_primary_of_sentinels_keep_answers_as_well() {
    async fn keeps(source: impl Source) {
        let upstream = Upstream::numbered();
        let store = RedisStoreBuilder::new(source, unique_name()).timeout(PATIENCE).build();
        store.check().await.expect("it can");
        let asked = cache(&layer().store(store), &upstream);
        for number in 0..20 {
            read(&asked, json(&number.to_string())).await;
        }
        for number in 0..20 {
            let hit = async {
                while !status(&ask(&asked, json(&number.to_string())).await).contains("hit") {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            };
            tokio::time::timeout(2 * PATIENCE, hit).await.expect("it is kept");
        }
        assert_eq!(upstream.calls(), 20);
    }
    let cluster = servers::Cluster::shared(Flavor::Redis);
    keeps(Cluster::open(cluster.urls()).expect("URLs")).await;
    let trio = servers::Sentinel::shared(Flavor::Redis);
    let source = Sentinel::open(trio.urls(), "quota", &RedisConnectionInfo::default());
    keeps(source.expect("URLs")).await;
}

#[tokio::test]
async fn while_a_slot_moves_its_answers_are_found_and_no_request_fails() {
    let cluster = servers::Cluster::start(2, 0);
    let (name, upstream) = (unique_name(), Upstream::numbered());
    let asked_within = |time| {
        let source = Cluster::open(cluster.urls()).expect("URLs");
        let store = RedisStoreBuilder::new(source, name.clone()).timeout(time).build();
        cache(&layer().store(store), &upstream)
    };
    let asked = asked_within(PATIENCE);
    let is_hit = async |asked| status(&ask(asked, json("1")).await).contains("hit");
    read(&asked, json("1")).await;
    let all = || cluster.nodes().iter().flat_map(|node| node.ask::<Vec<String>>(&["KEYS", "tq:*"]));
    while !is_hit(&asked).await || all().count() > 1 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let key = all().next().expect("the answer");
    let slot = cluster.slot_of(&key);
    let other = || {
        let owner = cluster.owner(slot).port();
        cluster.nodes().iter().find(|node| node.port() != owner).expect("another")
    };

    let migration = cluster.begin_migration(slot, other());
    // Before its key is moved, and after.
    for _ in 0..2 {
        for _ in 0..5 {
            assert!(is_hit(&asked).await);
        }
        migration.move_keys();
    }
    migration.finish();
    cluster.wait_until_whole();
    assert!(is_hit(&asked).await);
    assert_eq!(upstream.calls(), 1);

    // A turn cannot be taken where one key is here and the other there. One asks all the same.
    let _: u64 = cluster.owner(slot).ask(&["DEL", &key]);
    let migration = cluster.begin_migration(slot, other());
    let impatient = asked_within(Duration::from_millis(500));
    let fifty = (0..50).map(|_| read(&impatient, json("1")));
    let answers = futures::future::join_all(fifty).await;
    assert!(answers.iter().all(|answer| answer == "answer 2"), "{answers:?}");
    assert_eq!(upstream.calls(), 2);
    migration.move_keys();
    migration.finish();
    cluster.wait_until_whole();
    assert!(is_hit(&asked).await, "it was kept where the slot went");
}
