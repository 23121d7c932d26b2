//! What stands on the server, and for how long.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, Response};
use http_body::Frame;

use crate::{
    servers::{Flavor, Standalone},
    support::{
        PATIENCE, Upstream, ask, builder, cache, frames, json, kept, layer_of, read, read_body,
        send, status, stream, text, unique_name, with,
    },
};

#[tokio::test]
async fn another_instance_gives_an_answer_as_it_came() {
    for flavor in Flavor::ALL {
        let (server, name) = (Standalone::shared(flavor), unique_name());
        let upstream = Upstream::new(|_, _| {
            let (sender, body) = stream();
            for data in ["data: 1\n\n", "", "data: 2\n\n"] {
                send(&sender, data);
            }
            let trailers = HeaderMap::from_iter([("x-usage".parse()?, "5".parse()?)]);
            sender.unbounded_send(Ok(Frame::trailers(trailers)))?;
            let response = Response::builder()
                .status(201)
                .header("content-type", "text/event-stream")
                .header("x-twice", "1")
                .header("x-twice", "\u{e9}")
                .header("x-ratelimit-remaining", "7")
                .header("age", "5");
            Ok(response.body(body)?)
        });
        let [one, other] = [(); 2].map(|()| cache(&layer_of(builder(server, &name)), &upstream));
        let given = ask(&one, json("{}")).await;
        assert_eq!(status(&given), "tower-quota;fwd=miss");
        let (first, trailers) = frames(given).await;
        kept(server, &name, 1).await;

        let given = ask(&other, json(" {} ")).await;
        assert_eq!(given.status(), 201);
        assert!(status(&given).starts_with("tower-quota;hit;ttl="), "{}", status(&given));
        assert_eq!(given.headers()["content-type"], "text/event-stream");
        let twice: Vec<_> = given.headers().get_all("x-twice").iter().collect();
        assert_eq!(twice, ["1", "\u{e9}"]);
        assert!(!given.headers().contains_key("x-ratelimit-remaining"));
        let age: u64 = given.headers()["age"].to_str().expect("text").parse().expect("a number");
        assert!((5..60).contains(&age), "{age}");
        assert_eq!(frames(given).await, (first, trailers), "in the same frames");
        assert_eq!(upstream.calls(), 1);
    }
}

#[tokio::test]
async fn the_server_forgets_an_answer_when_its_time_is_over() {
    let (server, name) = (Standalone::shared(Flavor::Redis), unique_name());
    let upstream = Upstream::numbered();
    let ttl = Duration::from_secs(100);
    let layer = layer_of(builder(server, &name)).ttl(ttl).stale_while_revalidate(ttl);
    let asked = cache(&layer, &upstream);
    assert_eq!(read(&asked, json("{}")).await, "answer 1");
    let keys = kept(server, &name, 1).await;
    let left: u64 = server.ask(&["PTTL", &keys[0]]);
    assert!((150_000..=200_000).contains(&left), "{left}");

    // By its time to live it is as old as this: 99 s, too old, and gone.
    for (left, told) in [("101500", "tower-quota;hit;ttl=1"), ("60000", "tower-quota;hit;ttl=-40")]
    {
        let _: u64 = server.ask(&["PEXPIRE", &keys[0], left]);
        let given = ask(&asked, json("{}")).await;
        let said: i64 =
            status(&given).rsplit_once('=').expect("a time").1.parse().expect("seconds");
        let expected: i64 = told.rsplit_once('=').expect("a time").1.parse().expect("seconds");
        assert!((expected - 20..=expected).contains(&said), "{said}, not {expected}");
    }
    let layer = layer_of(builder(server, &unique_name())).ttl(Duration::from_millis(50));
    let asked = cache(&layer, &upstream);
    let before = read(&asked, json("{}")).await;
    tokio::time::sleep(Duration::from_millis(60)).await;
    // What was kept late ends late.
    let is_over = async { while read(&asked, json("{}")).await == before {} };
    tokio::time::timeout(PATIENCE, is_over).await.expect("it is asked again");
}

#[tokio::test]
async fn neither_tenant_nor_question_stands_on_the_server() {
    let server = Standalone::start();
    let name = unique_name();
    let upstream = Upstream::new(|_, _| Ok(Response::new(text("a public answer"))));
    let asked = cache(&layer_of(builder(&server, &name).hash_key("our secret")), &upstream);
    let question = || with(json(r#"{"q":"a private question"}"#), "x-api-key", "sk-tenant");
    let monitor = server.monitor();
    assert_eq!(read(&asked, question()).await, "a public answer");
    kept(&server, &name, 1).await;
    ask(&asked, question()).await;
    let sent = monitor.lines().join("\n");
    assert!(sent.contains("a public answer"), "answers are in clear: {sent}");
    for secret in ["private question", "sk-tenant", "our secret", "/v1/chat"] {
        assert!(!sent.contains(secret), "{secret} in {sent}");
    }
}

#[tokio::test]
async fn caches_with_other_names_or_secrets_share_nothing() {
    let (server, name) = (Standalone::shared(Flavor::Redis), unique_name());
    let upstream = Upstream::numbered();
    let caches = [
        builder(server, &name),
        builder(server, &unique_name()),
        builder(server, &name).prefix(unique_name()),
        builder(server, &name).hash_key("one secret"),
        builder(server, &name).hash_key("another secret"),
    ]
    .map(|builder| cache(&layer_of(builder), &upstream));
    for (number, cache) in caches.iter().enumerate() {
        assert_eq!(read(cache, json("{}")).await, format!("answer {}", number + 1));
    }
    kept(server, &name, 3).await;
}

#[tokio::test]
async fn packed_answers_are_smaller_and_read_by_all() {
    let (server, name) = (Standalone::shared(Flavor::Redis), unique_name());
    let upstream = Upstream::new(|_, request| {
        Ok(Response::new(text(&format!("{:?}", request.body()).repeat(2_000))))
    });
    let plain = cache(&layer_of(builder(server, &name)), &upstream);
    let packed = cache(&layer_of(builder(server, &name).packed()), &upstream);
    let plain_answer = read(&plain, json("1")).await;
    let keys = kept(server, &name, 1).await;
    let plain_size: usize = server.ask(&["STRLEN", &keys[0]]);
    let packed_answer = read(&packed, json("2")).await;
    let both = kept(server, &name, 2).await;
    let other = both.iter().find(|key| **key != keys[0]).expect("another");
    let packed_size: usize = server.ask(&["STRLEN", other]);
    assert!(packed_size * 20 < plain_size, "{packed_size} of {plain_size}");
    assert_eq!(read(&packed, json("1")).await, plain_answer);
    assert_eq!(read(&plain, json("2")).await, packed_answer);
    assert_eq!(upstream.calls(), 2);
}

#[tokio::test]
async fn an_answer_with_a_sensitive_field_does_not_reach_the_server() {
    let (server, name) = (Standalone::shared(Flavor::Redis), unique_name());
    let upstream = Upstream::new(|_, _| {
        let mut response = Response::new(text("an answer"));
        let mut token = HeaderValue::from_static("a token");
        token.set_sensitive(true);
        response.headers_mut().insert("x-token", token);
        Ok(response)
    });
    let asked = cache(&layer_of(builder(server, &name)), &upstream);
    assert_eq!(read(&asked, json("{}")).await, "an answer");
    kept(server, &name, 0).await;
    assert_eq!(upstream.calls(), 1);
}

#[tokio::test]
async fn an_answer_can_be_fresh_for_ever() {
    let (server, name) = (Standalone::shared(Flavor::Redis), unique_name());
    let layer = layer_of(builder(server, &name)).ttl(Duration::MAX);
    let asked = cache(&layer.stale_while_revalidate(Duration::MAX), &Upstream::numbered());
    assert_eq!(read(&asked, json("{}")).await, "answer 1");
    kept(server, &name, 1).await;
    assert_eq!(read(&asked, json("{}")).await, "answer 1");
}

#[tokio::test]
async fn an_answer_that_is_larger_than_the_bound_is_given_and_not_kept() {
    let (server, name) = (Standalone::shared(Flavor::Redis), unique_name());
    let upstream = Upstream::new(|_, _| Ok(Response::new(text(&"x".repeat(10_000)))));
    let asked = cache(&layer_of(builder(server, &name).max_answer_bytes(10_000)), &upstream);
    for calls in [1, 2] {
        let given = ask(&asked, json("{}")).await;
        assert_eq!(read_body(given).await.len(), 10_000);
        assert_eq!(upstream.calls(), calls);
        // The one that asked is told before the turn is given back.
        kept(server, &name, 0).await;
    }
}
