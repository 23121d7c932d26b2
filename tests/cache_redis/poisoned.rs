//! What never comes from the server: what was not for others, and what this crate did not put there.

use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body::Frame;
use http_body_util::BodyExt;
use tokio::task::JoinSet;
use tower::{BoxError, ServiceExt};

use crate::{
    cache_support::Body,
    servers::{Flavor, Server, Standalone},
    support::{
        Asked, PATIENCE, Upstream, ask, broken, builder, cache, json, kept, layer_of, parts, read,
        send, status, stream, text, unique_name, with,
    },
};

#[tokio::test]
async fn no_tenant_has_the_answer_of_another() {
    let (server, name) = (Standalone::shared(Flavor::Redis), unique_name());
    let upstream = Upstream::numbered();
    let [one, other] = [(); 2].map(|()| cache(&layer_of(builder(server, &name)), &upstream));
    let of = |tenant| with(json("{}"), "authorization", tenant);
    assert_eq!(read(&one, of("Bearer alice")).await, "answer 1");
    kept(server, &name, 1).await;
    assert_eq!(read(&other, of("Bearer bob")).await, "answer 2");
    assert_eq!(read(&other, json("{}")).await, "answer 3");
    kept(server, &name, 3).await;
    assert_eq!(read(&other, of("Bearer alice")).await, "answer 1");
    assert_eq!(read(&one, of("Bearer bob")).await, "answer 2");
}

#[tokio::test]
async fn errors_parts_and_private_answers_are_never_there() {
    type Answer = fn() -> Result<Response<Body>, BoxError>;
    let cases: [Answer; 9] = [
        || Err("the other side is gone".into()),
        || Ok(Response::builder().status(500).body(text("an error"))?),
        || {
            Ok(Response::builder()
                .status(429)
                .header("cache-control", "max-age=60")
                .body(text(""))?)
        },
        || Ok(Response::builder().status(206).body(text("a part"))?),
        || Ok(Response::builder().header("cache-control", "private").body(text("yours"))?),
        || Ok(Response::builder().header("set-cookie", "id=1").body(text("yours"))?),
        || Ok(Response::builder().header("content-length", "9").body(parts(&["short"]))?),
        || {
            let (sender, body) = stream();
            send(&sender, "half of ");
            sender.unbounded_send(broken())?;
            Ok(Response::new(body))
        },
        || {
            let (sender, body) = stream();
            let failed = [("grpc-status".parse()?, "13".parse()?)];
            sender.unbounded_send(Ok(Frame::trailers(failed.into_iter().collect())))?;
            Ok(Response::new(body))
        },
    ];
    let server = Standalone::shared(Flavor::Redis);
    for (number, case) in cases.into_iter().enumerate() {
        let name = unique_name();
        let upstream = Upstream::new(move |_, _| case());
        let asked = cache(&layer_of(builder(server, &name)), &upstream);
        for calls in [1, 2] {
            if let Ok(given) = asked.clone().oneshot(json("{}")).await {
                assert!(!status(&given).contains("hit"), "case {number}");
                let _ = given.into_body().collect().await;
            }
            assert_eq!(upstream.calls(), calls, "case {number}");
            let keys: Vec<String> = server.ask(&["KEYS", &format!("tq:{name}:*")]);
            assert!(keys.iter().all(|key| key.ends_with(":turn")), "case {number}: {keys:?}");
        }
    }
}

/// A cache with one answer, and what stands on the server for it.
struct Kept<'s> {
    server: &'s Server,
    upstream: Upstream,
    asked: Asked,
    key: String,
    value: Vec<u8>,
}

impl<'s> Kept<'s> {
    async fn new(server: &'s Server) -> Self {
        let name = unique_name();
        let upstream = Upstream::numbered();
        let asked = cache(&layer_of(builder(server, &name)), &upstream);
        read(&asked, json("{}")).await;
        let key = kept(server, &name, 1).await.remove(0);
        let value = server.ask(&["GET", &key]);
        Self { server, upstream, asked, key, value }
    }

    fn put(&self, value: &[u8], left: &str) {
        self.server.set(&self.key, value);
        let _: u64 = self.server.ask(&["PEXPIRE", &self.key, left]);
    }

    /// Makes sure that what stands there is a miss, once: then there is a new answer.
    async fn is_a_miss(&self, what: &str) {
        let before = self.upstream.calls();
        let given = ask(&self.asked, json("{}")).await;
        assert_eq!(status(&given), "tower-quota;fwd=miss", "{what}");
        let body = given.into_body().collect().await.expect("a whole body").to_bytes();
        assert_eq!(body, format!("answer {}", before + 1), "{what}");
        let healed = async {
            while !status(&ask(&self.asked, json("{}")).await).contains("hit") {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(2 * PATIENCE, healed).await.expect("it is kept again");
        assert!(self.upstream.calls() <= before + 2, "{what}");
    }
}

#[tokio::test]
async fn what_was_changed_on_the_server_is_a_miss() {
    let kept = Kept::new(Standalone::shared(Flavor::Redis)).await;
    kept.put(&kept.value, "50000");
    assert!(status(&ask(&kept.asked, json("{}")).await).contains("hit"), "it is as it was");
    for at in (0..kept.value.len()).step_by(7) {
        let mut value = kept.value.clone();
        value[at] ^= 0x10;
        kept.put(&value, "50000");
        kept.is_a_miss(&format!("byte {at} was changed")).await;
    }
    for length in [0, 1, 23, 24, 60, kept.value.len() - 1] {
        kept.put(&kept.value[..length], "50000");
        kept.is_a_miss(&format!("cut to {length}")).await;
    }
    kept.put(&[&kept.value[..], b"x"].concat(), "50000");
    kept.is_a_miss("one byte more").await;
    kept.put(&kept.value, "86400000");
    kept.is_a_miss("it would be younger than nothing").await;
    kept.put(&kept.value, "50000");
    let _: u64 = kept.server.ask(&["PERSIST", &kept.key]);
    kept.is_a_miss("it has no end").await;
}

#[tokio::test]
async fn what_was_not_an_answer_is_a_miss_whatever_it_is() {
    let kept = Kept::new(Standalone::shared(Flavor::Redis)).await;
    let key = &kept.key[..];
    for command in [
        &["RPUSH", key, "a"][..],
        &["SADD", key, "a"],
        &["HSET", key, "a", "b"],
        &["ZADD", key, "1", "a"],
        &["XADD", key, "*", "a", "b"],
        &["SET", key, "12"],
    ] {
        let _: u64 = kept.server.ask(&["DEL", key]);
        let _: redis::Value = kept.server.ask(command);
        let _: u64 = kept.server.ask(&["PEXPIRE", key, "50000"]);
        kept.is_a_miss(command[0]).await;
    }
}

#[tokio::test]
async fn an_answer_under_the_name_of_another_is_a_miss() {
    let server = Standalone::shared(Flavor::Redis);
    let (one, other) = (Kept::new(server).await, Kept::new(server).await);
    one.put(&other.value, "50000");
    one.is_a_miss("it was copied").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_that_find_a_damaged_answer_ask_once_all_the_same() {
    let (server, name) = (Standalone::shared(Flavor::Redis), unique_name());
    let upstream = Upstream::numbered().gated();
    let fleet = [(); 5].map(|()| cache(&layer_of(builder(server, &name)), &upstream));
    upstream.gate.add_permits(1);
    read(&fleet[0], json("{}")).await;
    let key = kept(server, &name, 1).await.remove(0);
    let mut value: Vec<u8> = server.ask(&["GET", &key]);
    value[60] ^= 1;
    server.set(&key, &value);
    let _: u64 = server.ask(&["PEXPIRE", &key, "50000"]);
    let mut tasks = JoinSet::new();
    for cache in fleet {
        tasks.spawn(async move { read(&cache, json("{}")).await });
    }
    // While they wait nobody else asks. One that comes too late to wait has the new answer as well.
    tokio::time::sleep(Duration::from_millis(300)).await;
    upstream.gate.add_permits(10);
    assert_eq!(tasks.join_all().await, ["answer 2"; 5]);
    assert_eq!(upstream.calls(), 2);
}

/// Each finds the damaged answer, or the new one, whenever it comes: before a turn, within it, or after.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_damaged_answer_is_asked_for_once_whoever_comes_when() {
    let server = Standalone::shared(Flavor::Redis);
    let (name, upstream) = (unique_name(), Upstream::numbered());
    let fleet = [(); 8].map(|()| cache(&layer_of(builder(server, &name)), &upstream));
    read(&fleet[0], json("{}")).await;
    for round in 1..=100 {
        let key = kept(server, &name, 1).await.remove(0);
        let mut value: Vec<u8> = server.ask(&["GET", &key]);
        value[60] ^= 1;
        server.set(&key, &value);
        let _: u64 = server.ask(&["PEXPIRE", &key, "50000"]);
        let mut tasks = JoinSet::new();
        for cache in fleet.clone() {
            tasks.spawn(async move { read(&cache, json("{}")).await });
        }
        let expected = format!("answer {}", round + 1);
        for answer in tasks.join_all().await {
            assert_eq!(answer, expected);
        }
        assert_eq!(upstream.calls(), round + 1);
    }
}

#[tokio::test]
async fn a_turn_that_somebody_forged_holds_nobody_up() {
    let kept = Kept::new(Standalone::shared(Flavor::Redis)).await;
    let turn = format!("{}:turn", kept.key);
    for command in [&["RPUSH", &turn[..], "a"][..], &["SET", &turn, "a token without an end"]] {
        let _: u64 = kept.server.ask(&["DEL", &turn, &kept.key]);
        let _: redis::Value = kept.server.ask(command);
        tokio::time::timeout(Duration::from_secs(15), kept.is_a_miss(command[0]))
            .await
            .expect("it does not wait for thirty seconds");
    }
}

#[tokio::test]
async fn what_is_too_large_does_not_leave_the_server() {
    let server = Standalone::start();
    let kept = Kept::new(&server).await;
    kept.put(&vec![b'x'; 64 << 20], "50000");
    let sent = || server.info("stats")["total_net_output_bytes"].parse::<u64>().expect("a number");
    let before = sent();
    kept.is_a_miss("64 MiB").await;
    assert!(sent() - before < 1 << 20, "it was sent");
}

#[tokio::test]
async fn hostile_bodies_leave_no_more_than_the_bound() {
    const BOUND: usize = 20_000;
    let server = Standalone::start();
    let name = unique_name();
    let upstream = Upstream::new(|call, _| {
        let (sender, body) = stream();
        let send = |data: Bytes| sender.unbounded_send(Ok(Frame::data(data)));
        match call % 4 {
            0 => send(vec![0; 10 << 20].into())?,
            1 => (0..100_000).try_for_each(|_| send(Bytes::new()))?,
            2 => (0..BOUND).try_for_each(|_| send(Bytes::from_static(b"x")))?,
            _ => {
                let fields = (0..1_000).map(|at| Ok((format!("x-{at}").parse()?, "x".parse()?)));
                let trailers: Result<_, BoxError> = fields.collect();
                sender.unbounded_send(Ok(Frame::trailers(trailers?)))?;
            }
        }
        Ok(Response::new(body))
    });
    let layer = layer_of(builder(&server, &name).max_answer_bytes(BOUND));
    let asked = cache(&layer, &upstream);
    for number in 0..20 {
        ask(&asked, json(&number.to_string())).await.into_body().collect().await.expect("whole");
    }
    kept(&server, &name, 0).await;
    assert_eq!(upstream.calls(), 20);
}
