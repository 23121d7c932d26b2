//! Instances in one process, each with a layer and a connection of its own.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::Response;
use http_body::Frame;
use http_body_util::BodyExt;
use tokio::task::JoinSet;

use crate::{
    servers::{Flavor, Standalone},
    support::{
        Asked, Given, PATIENCE, Upstream, ask, builder, cache, frames, json, kept, layer_of, parts,
        read, read_body, send, status, stream, text, unique_name, with,
    },
};

/// So many caches of a service, on one server.
fn fleet(upstream: &Upstream, count: usize, lease: Duration) -> Vec<Asked> {
    let (server, name) = (Standalone::shared(Flavor::Redis), unique_name());
    (0..count).map(|_| cache(&layer_of(builder(server, &name).lease(lease)), upstream)).collect()
}

fn spawn(fleet: &[Asked], count: usize) -> JoinSet<Given> {
    let mut tasks = JoinSet::new();
    for number in 0..count {
        let cache = fleet[number % fleet.len()].clone();
        tasks.spawn(async move { ask(&cache, json(r#"{"q":"hi"}"#)).await });
    }
    tasks
}

/// Waits until the service has been called so often.
async fn called(upstream: &Upstream, times: usize) {
    let until = async {
        while upstream.calls() < times {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(2 * PATIENCE, until).await.expect("it is called");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fifty_that_ask_the_same_at_once_are_one_call_of_one_instance_and_of_three() {
    for instances in [1, 3] {
        for _ in 0..5 {
            let upstream = Upstream::new(|call, _| {
                Ok(Response::new(text(&format!("answer {call} ").repeat(1_000))))
            });
            let fleet = fleet(&upstream, instances, PATIENCE);
            let given = spawn(&fleet, 50).join_all().await;
            for given in given {
                assert_eq!(read_body(given).await, "answer 1 ".repeat(1_000));
            }
            assert_eq!(upstream.calls(), 1, "{instances} instances");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fifty_that_ask_for_one_stream_have_it_whole_and_in_its_frames() {
    for instances in [1, 3] {
        let upstream = Upstream::new(|call, _| {
            let (sender, body) = stream();
            tokio::spawn(async move {
                send(&sender, if call == 1 { "data: 1\n\n" } else { "data: another\n\n" });
                for event in ["data: 2\n\n", "data: 3\n\n", "data: [DONE]\n\n"] {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    send(&sender, event);
                }
            });
            Ok(Response::builder().header("content-type", "text/event-stream").body(body)?)
        });
        let fleet = fleet(&upstream, instances, PATIENCE);
        for given in spawn(&fleet, 50).join_all().await {
            assert_eq!(given.headers()["content-type"], "text/event-stream");
            let (data, _) = frames(given).await;
            assert_eq!(data, ["data: 1\n\n", "data: 2\n\n", "data: 3\n\n", "data: [DONE]\n\n"]);
        }
        assert_eq!(upstream.calls(), 1, "{instances} instances");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_turn_is_renewed_for_as_long_as_the_answer_comes() {
    let upstream = Upstream::numbered().gated();
    // Longer than a machine stalls.
    let lease = Duration::from_secs(8);
    let fleet = fleet(&upstream, 2, lease);
    let tasks = spawn(&fleet, 2);
    called(&upstream, 1).await;
    tokio::time::sleep(2 * lease).await;
    assert_eq!(upstream.calls(), 1, "the other one waits still");
    upstream.gate.add_permits(2);
    for given in tasks.join_all().await {
        assert_eq!(read_body(given).await, "answer 1");
    }
    assert_eq!(upstream.calls(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_lets_another_instance_ask_long_before_the_lease_is_over() {
    let upstream = Upstream::new(|call, _| match call {
        1 => Err("it fails".into()),
        2 => Ok(Response::builder().status(503).body(text("later"))?),
        // It breaks off.
        3 => {
            let (sender, body) = stream();
            send(&sender, "half");
            sender.unbounded_send(crate::support::broken()).expect("a reader");
            Ok(Response::new(body))
        }
        _ => Ok(Response::new(text("a whole answer"))),
    })
    .gated();
    let fleet = fleet(&upstream, 4, Duration::from_secs(3_600));
    let mut tasks = JoinSet::new();
    for cache in fleet.clone() {
        tasks.spawn(async move {
            let given = tower::ServiceExt::oneshot(cache, json("{}")).await.ok()?;
            Some(given.into_body().collect().await.ok()?.to_bytes())
        });
    }
    called(&upstream, 1).await;
    upstream.gate.add_permits(10);
    let mut answers = tokio::time::timeout(2 * PATIENCE, tasks.join_all()).await.expect("soon");
    answers.sort_unstable();
    let whole = Some("a whole answer".into());
    assert_eq!(answers, [None, None, whole, Some("later".into())]);
    assert_eq!(upstream.calls(), 4);
    assert_eq!(read(&fleet[0], json("{}")).await, "a whole answer");
}

/// None of them is met by what another is given: they must not queue up behind each other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wishes_that_no_answer_meets_wait_for_one_call_and_then_ask_together() {
    for (wish, age) in [("min-fresh=1000000", "0"), ("max-age=5", "10")] {
        let answer = move || Response::builder().header("age", age).body(text("an answer"));
        let upstream = Upstream::new(move |_, _| Ok(answer()?)).gated();
        let fleet = fleet(&upstream, 4, Duration::from_secs(3_600));
        let mut tasks = JoinSet::new();
        for cache in fleet {
            let question = with(json("{}"), "cache-control", wish);
            tasks.spawn(async move { read(&cache, question).await });
        }
        called(&upstream, 1).await;
        // Time for the others to wait: should one be late it asks after them, and all the same.
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(upstream.calls(), 1, "{wish}");
        upstream.gate.add_permits(1);
        called(&upstream, 4).await;
        upstream.gate.add_permits(3);
        assert_eq!(tasks.join_all().await, ["an answer"; 4], "{wish}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_goes_frees_the_turn_at_once() {
    let upstream = Upstream::numbered().gated();
    let fleet = fleet(&upstream, 2, Duration::from_secs(3_600));
    let first = spawn(&fleet[..1], 1);
    called(&upstream, 1).await;
    let second = spawn(&fleet[1..], 1);
    drop(first);
    called(&upstream, 2).await;
    upstream.gate.add_permits(1);
    let given = tokio::time::timeout(2 * PATIENCE, second.join_all()).await.expect("soon");
    for given in given {
        assert_eq!(read_body(given).await, "answer 2");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_answer_that_is_private_lets_all_of_the_others_ask_at_once() {
    let upstream = Upstream::new(|_, _| {
        let response = Response::builder().header("cache-control", "private");
        Ok(response.body(text("an answer"))?)
    })
    .gated();
    let fleet = fleet(&upstream, 5, Duration::from_secs(3_600));
    let tasks = spawn(&fleet, 5);
    called(&upstream, 1).await;
    upstream.gate.add_permits(1);
    // None of them has its answer yet.
    called(&upstream, 5).await;
    upstream.gate.add_permits(4);
    tasks.join_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nobody_elsewhere_waits_for_the_end_of_an_answer_that_is_too_large() {
    let open = Arc::new(Mutex::new(Vec::new()));
    let upstream = Upstream::new({
        let open = Arc::clone(&open);
        move |_, _| {
            let (sender, body) = stream();
            sender.unbounded_send(Ok(Frame::data(vec![b'x'; 2 << 20].into())))?;
            // It has no end yet.
            open.lock().expect("sound").push(sender);
            Ok(Response::new(body))
        }
    });
    let fleet = fleet(&upstream, 5, Duration::from_secs(3_600));
    let given = spawn(&fleet, 5).join_all();
    let given = tokio::time::timeout(2 * PATIENCE, given).await.expect("soon");
    assert_eq!((given.len(), upstream.calls()), (5, 5));
    assert_eq!(open.lock().expect("sound").len(), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_waits_for_longer_than_is_set() {
    let upstream = Upstream::numbered().gated();
    let (server, name) = (Standalone::shared(Flavor::Redis), unique_name());
    let wait = Duration::from_millis(300);
    let of = |wait| cache(&layer_of(builder(server, &name).wait(wait)), &upstream);
    let (first, second, hasty) = (of(wait), of(wait), of(Duration::ZERO));
    let first = spawn(&[first], 1);
    called(&upstream, 1).await;
    let begun = tokio::time::Instant::now();
    let second = spawn(&[second], 1);
    called(&upstream, 2).await;
    assert!(begun.elapsed() >= wait);
    let hasty = spawn(&[hasty], 1);
    called(&upstream, 3).await;
    upstream.gate.add_permits(3);
    for tasks in [first, second, hasty] {
        tasks.join_all().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_answer_is_given_by_all_instances_while_one_fetches_a_new_one() {
    let (server, name) = (Standalone::shared(Flavor::Redis), unique_name());
    let upstream = Upstream::numbered().gated();
    let fleet: Vec<_> = (0..3)
        .map(|_| {
            let layer = layer_of(builder(server, &name).lease(PATIENCE))
                .ttl(Duration::from_secs(3_600))
                .stale_while_revalidate(Duration::from_secs(3_600));
            cache(&layer, &upstream)
        })
        .collect();
    upstream.gate.add_permits(1);
    assert_eq!(read(&fleet[0], json("{}")).await, "answer 1");
    let key = kept(server, &name, 1).await.remove(0);
    // So it is as old as this: an hour and a half.
    let _: u64 = server.ask(&["PEXPIRE", &key, "1800000"]);
    for number in 0..30 {
        let given = ask(&fleet[number % 3], json("{}")).await;
        assert!(status(&given).starts_with("tower-quota;hit;ttl=-18"), "{}", status(&given));
        assert_eq!(read_body(given).await, "answer 1");
    }
    called(&upstream, 2).await;
    let age = with(json("{}"), "cache-control", "max-age=0");
    upstream.gate.add_permits(2);
    let renewed = async {
        while read(&fleet[1], json("{}")).await != "answer 2" {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(2 * PATIENCE, renewed).await.expect("it is renewed");
    assert_eq!(upstream.calls(), 2, "once for all");
    assert_eq!(read(&fleet[2], age).await, "answer 3", "who wants a new one has a new one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_instances_ask_the_server_little_while_they_wait() {
    let server = Standalone::start();
    let name = unique_name();
    let upstream = Upstream::new(|_, _| Ok(Response::new(parts(&["an ", "answer"])))).gated();
    // Nobody stops waiting, however slow this machine is.
    let hour = Duration::from_secs(3_600);
    let store = || builder(&server, &name).lease(hour).wait(hour);
    let fleet: Vec<_> = (0..3).map(|_| cache(&layer_of(store()), &upstream)).collect();
    let asked = Arc::new(AtomicUsize::new(0));
    let mut tasks = spawn(&fleet, 300);
    called(&upstream, 1).await;
    // Some look when they come, others find that somebody waits here already. When all have come, two instances wait.
    let few = async {
        loop {
            let before = server.calls_of("evalsha");
            tokio::time::sleep(Duration::from_secs(2)).await;
            if server.calls_of("evalsha") - before < 120 {
                return;
            }
        }
    };
    tokio::time::timeout(2 * PATIENCE, few).await.expect("there are few calls in two seconds");
    upstream.gate.add_permits(300);
    while let Some(given) = tasks.join_next().await {
        assert_eq!(read_body(given.expect("no panic")).await, "an answer");
        asked.fetch_add(1, Ordering::Relaxed);
    }
    assert_eq!((asked.load(Ordering::Relaxed), upstream.calls()), (300, 1));
}
