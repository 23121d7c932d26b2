//! Full disks, and servers that are away.

use std::{
    future::ready,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use http::Response;
use tokio::sync::Semaphore;
use tower_quota::{
    PolicyName,
    backend::redis::Server,
    deferred::{Bounds, DeferredLayer, DiskStore, RedisStore, State, StoreErrorKind},
    http::header,
};

use crate::{
    servers::{Cluster, Data, Flavor, PATIENCE, Standalone},
    support::{Folder, Site, answering, deferring, upstream},
};

/// How long a server that is away is waited for: for longer than this machine stalls.
const SHORT: Duration = Duration::from_secs(6);

/// The disk is full when a file may not be longer: `ulimit -f`, in a process of its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_told_and_nothing_that_was_accepted_is_lost() {
    let folder = Folder::new();
    let file = folder.path("deferred.redb");
    let bounded = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 8000; exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().expect("this test"))
        .args(["faults::a_process_whose_disk_is_full", "--exact", "--ignored", "--nocapture"])
        .env("DEFERRED_FILE", &file)
        .stdout(Stdio::piped())
        .output()
        .expect("a process");
    let text = String::from_utf8_lossy(&bounded.stdout);
    assert!(bounded.status.success(), "{text}");
    let accepted: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("ACCEPTED ")).collect();
    assert!(accepted.len() > 3, "{text}");

    // There is room again: all that was accepted runs.
    let store = DiskStore::open(&file, Bounds::DEFAULT).expect("the file is whole");
    let layer = DeferredLayer::new(store, header("x-api-key"));
    let site = Site::new(&layer);
    let (service, _) = upstream(|_| ready(Response::new("an answer")));
    tokio::spawn(layer.runner(service).run());
    site.until_ended(accepted.len() as u64).await;
    for id in accepted {
        assert_eq!(site.state("alice", id).await, "done");
    }
}

#[tokio::test]
#[ignore = "it is a process of the test above"]
async fn a_process_whose_disk_is_full() {
    let file = std::env::var("DEFERRED_FILE").expect("it is started by the test above");
    let store = DiskStore::open(file, Bounds::DEFAULT).expect("a file");
    let site = Site::new(&DeferredLayer::new(store, header("x-api-key")));
    let body: &'static str = "x".repeat(100_000).leak();
    let mut accepted = Vec::new();
    let refused = loop {
        let told = site.send(deferring("alice", body)).await;
        if told.status != 202 {
            break told;
        }
        accepted.push(told.json()["id"].as_str().expect("an id").to_owned());
        assert!(accepted.len() < 1_000, "the disk is never full");
    };
    assert_eq!((refused.status, refused.header("content-type")), (507, "application/problem+json"));
    assert!(refused.headers.contains_key("retry-after"));
    for _ in 0..3 {
        assert_eq!(site.send(deferring("alice", body)).await.status, 507);
    }
    // What is there can be looked at all the same.
    for id in &accepted {
        assert_eq!(site.state("alice", id).await, "waiting");
        println!("ACCEPTED {id}");
    }
}

/// In a process whose disk has room again after a while.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_the_disk_has_no_room_for_is_not_asked_for_again() {
    let folder = Folder::new();
    let bounded = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -S -f 8000; exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().expect("this test"))
        .args(["faults::a_process_whose_disk_is_full_for_a_while", "--exact", "--ignored"])
        .env("DEFERRED_FILE", folder.path("deferred.redb"))
        .output()
        .expect("a process");
    let text = String::from_utf8_lossy(&bounded.stdout);
    assert!(bounded.status.success(), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "it is a process of the test above"]
async fn a_process_whose_disk_is_full_for_a_while() {
    let file = std::env::var("DEFERRED_FILE").expect("it is started by the test above");
    let store = DiskStore::open(file, Bounds::DEFAULT).expect("a file");
    let layer = DeferredLayer::new(store, header("x-api-key"));
    let site = Site::new(&layer);
    let gate = Arc::new(Semaphore::new(0));
    let answer: &'static str = "x".repeat(2_000_000).leak();
    let (service, seen) = {
        let gate = Arc::clone(&gate);
        upstream(move |_| {
            let gate = Arc::clone(&gate);
            async move {
                let _open = gate.acquire().await.expect("it is never closed");
                Response::new(answer)
            }
        })
    };
    tokio::spawn(layer.runner(service).run());
    for _ in 0..4 {
        site.defer("alice", "a body").await;
    }
    while seen.len() < 4 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let body: &'static str = "x".repeat(100_000).leak();
    while site.send(deferring("alice", body)).await.status == 202 {}
    gate.add_permits(1_000);
    // Long enough for some tries in vain.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let done = site.until_ended(0).await.of(State::Done);
    assert!(done < 4, "there is no room for four answers");
    let lifted = Command::new("prlimit")
        .args(["--fsize=unlimited", "--pid", &std::process::id().to_string()])
        .status();
    assert!(lifted.expect("util-linux").success());
    let all = site.until_ended(0).await.total();
    site.until_ended(all).await;
    assert_eq!(seen.len() as u64, all, "each was called once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_away_is_told_and_comes_back_with_all() {
    let durable = ["--appendonly", "yes", "--appendfsync", "always"];
    let server = Standalone::start_with(Flavor::Redis, &durable);
    let name = PolicyName::from_static("away");
    let source = Server::open(server.url()).expect("a URL");
    let store = RedisStore::new(source, name, Bounds::DEFAULT).timeout(SHORT);
    let layer = DeferredLayer::new(store, header("x-api-key"));
    let site = Site::new(&layer);
    let (service, seen) = answering(&[(200, &[])]);
    let id = site.defer("alice", "a body").await;

    server.kill();
    let told = site.send(deferring("alice", "another")).await;
    assert_eq!((told.status, told.header("content-type")), (503, "application/problem+json"));
    let told = site.ask("GET", "alice", &format!("/deferred/{id}")).await;
    assert_eq!(told.status, 503);
    // A runner does not mind.
    tokio::spawn(layer.runner(service).run());
    server.restart(Data::Lost);
    let counts = loop {
        if let Ok(counts) = tower_quota::deferred::DeferredStore::counts(&site.store).await
            && counts.of(State::Done) == 1
        {
            break counts;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert_eq!((counts.total(), seen.len()), (1, 1));
    assert_eq!(site.state("alice", &id).await, "done");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_goes_on_waiting_while_the_server_is_away() {
    let durable = ["--appendonly", "yes", "--appendfsync", "always"];
    let server = Standalone::start_with(Flavor::Redis, &durable);
    let name = PolicyName::from_static("away");
    let source = Server::open(server.url()).expect("a URL");
    let store = RedisStore::new(source, name, Bounds::DEFAULT).timeout(SHORT);
    let layer = DeferredLayer::new(store, header("x-api-key")).max_wait(Duration::from_secs(600));
    let site = Site::new(&layer);
    let gate = Arc::new(Semaphore::new(0));
    let opened = Arc::clone(&gate);
    let (service, seen) = upstream(move |_| {
        let gate = Arc::clone(&opened);
        async move {
            let _open = gate.acquire().await.expect("it is never closed");
            Response::new("an answer")
        }
    });
    tokio::spawn(layer.runner(service).run());
    let mut request = deferring("alice", "a body");
    request.headers_mut().insert("prefer", "respond-async, wait=600".parse().expect("a value"));
    let away = async {
        while seen.len() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        server.kill();
        // It looks some times in vain.
        tokio::time::sleep(2 * SHORT).await;
        server.restart(Data::Lost);
        gate.add_permits(1);
    };
    let (told, ()) = tokio::join!(site.send(request), away);
    assert_eq!((told.status, told.text.as_str()), (200, "an answer"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_memory_is_told_and_keeps_what_it_has() {
    let server = Standalone::start_with(Flavor::Redis, &["--maxmemory-policy", "noeviction"]);
    let name = PolicyName::from_static("memory");
    let source = Server::open(server.url()).expect("a URL");
    let store = RedisStore::new(source, name, Bounds::DEFAULT).timeout(PATIENCE);
    let layer = DeferredLayer::new(store, header("x-api-key"));
    let site = Site::new(&layer);
    let id = site.defer("alice", "a body").await;
    let _: String = server.ask(&["CONFIG", "SET", "maxmemory", "1"]);
    assert_eq!(site.send(deferring("alice", "another")).await.status, 507);
    assert_eq!(site.state("alice", &id).await, "waiting");
    // It takes longer than a lease.
    let (service, seen) = upstream(|_| async {
        tokio::time::sleep(Duration::from_secs(13)).await;
        Response::new("an answer")
    });
    tokio::spawn(layer.runner(service).lease(Duration::from_secs(10)).run());
    site.until_ended(1).await;
    assert_eq!((site.state("alice", &id).await.as_str(), seen.len()), ("done", 1));
    assert_eq!(site.send(deferring("alice", "another")).await.status, 507);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_is_being_moved_is_away_and_comes_back_with_all() {
    let cluster = Cluster::start(2, 0);
    let name = PolicyName::from_static("moved");
    let source = tower_quota::backend::redis::Cluster::open(cluster.urls()).expect("URLs");
    let store = RedisStore::new(source, name, Bounds::DEFAULT).timeout(SHORT);
    let layer = DeferredLayer::new(store, header("x-api-key"));
    let site = Site::new(&layer);
    let id = site.defer("alice", "a body").await;

    let slot = cluster.slot_of("tq:{moved}:");
    let owner = cluster.owner(slot).port();
    let to = cluster.nodes().iter().find(|node| node.port() != owner).expect("another");
    let migration = cluster.begin_migration(slot, to);
    // Before its keys are moved, and after.
    for _ in 0..2 {
        assert_eq!(site.send(deferring("alice", "another")).await.status, 503);
        let told = site.ask("GET", "alice", &format!("/deferred/{id}")).await;
        assert_eq!(told.status, 503, "it is not unknown");
        migration.move_keys();
    }
    migration.finish();
    cluster.wait_until_whole();
    let (service, seen) = answering(&[(200, &[])]);
    tokio::spawn(layer.runner(service).run());
    while site.ask("GET", "alice", &format!("/deferred/{id}")).await.status != 200 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let counts = site.until_ended(1).await;
    assert_eq!((counts.total(), counts.of(State::Done), seen.len()), (1, 1, 1));
    assert_eq!(site.state("alice", &id).await, "done");
}

#[tokio::test]
async fn a_file_is_open_once_at_a_time() {
    let folder = Folder::new();
    let file = folder.path("deferred.redb");
    let store = DiskStore::open(&file, Bounds::DEFAULT).expect("a file");
    let error = DiskStore::open(&file, Bounds::DEFAULT).expect_err("it is open");
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);
    store.close().await.expect("it is open");
    DiskStore::open(&file, Bounds::DEFAULT).expect("it is free");
    let error = DiskStore::open(folder.path("no/such/folder"), Bounds::DEFAULT);
    assert_eq!(error.expect_err("there is none").kind(), StoreErrorKind::Unavailable);
    std::fs::write(folder.path("text"), "not a database").expect("it can be written");
    DiskStore::open(folder.path("text"), Bounds::DEFAULT).expect_err("it is something else");
}
