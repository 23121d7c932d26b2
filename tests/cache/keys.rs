//! Which requests are the same question: a table of those that nearly are.

use bytes::Bytes;
use http::{Request, header::HeaderName};
use http_body_util::Full;
use tower_quota::{Key, policy::Subject};

use crate::support::{Question, Upstream, ask, cache, json, layer, read, status, with};

/// Whether the second is answered with the answer to the first.
async fn are_the_same(one: Question, other: Question) -> bool {
    let upstream = Upstream::numbered();
    let cache = cache(&layer(), &upstream);
    assert_eq!(read(&cache, one).await, "answer 1");
    read(&cache, other).await == "answer 1"
}

#[tokio::test]
async fn bodies_in_json_are_the_same_if_they_mean_the_same() {
    let table = [
        (r#"{"a":1,"b":2}"#, r#"{ "b": 2, "a": 1 }"#, true),
        (r#"{"n":1}"#, r#"{"n":1.0}"#, true),
        (r#"{"n":1}"#, r#"{"n":1e0}"#, true),
        (r#"{"n":0}"#, r#"{"n":-0}"#, true),
        (r#"{"n":0.1}"#, r#"{"n":0.10}"#, true),
        (r#"{"t":"a"}"#, r#"{"t":"\u0061"}"#, true),
        (r#"{"n":9007199254740992}"#, r#"{"n":9007199254740993}"#, false),
        (r#"{"n":0.1}"#, r#"{"n":0.1000000000000000055}"#, false),
        (r#"{"n":1}"#, r#"{"n":"1"}"#, false),
        (r#"{"n":1}"#, r#"{"n":10}"#, false),
        (r#"{"n":true}"#, r#"{"n":1}"#, false),
        (r#"{"a":null}"#, "{}", false),
        (r#"{"a":[1,2]}"#, r#"{"a":[2,1]}"#, false),
        (r#"{"a":[]}"#, r#"{"a":{}}"#, false),
        (r#"{"a":"bc"}"#, r#"{"ab":"c"}"#, false),
        ("{\"t\":\"\u{e9}\"}", "{\"t\":\"e\u{301}\"}", false),
        (r#"{"t":"a"}"#, r#"{"t":"A"}"#, false),
        (r#"{"t":"a"}"#, r#"{"t":"a "}"#, false),
        // A text, and the same text as the only part of several.
        (r#"{"content":"hi"}"#, r#"{"content":[{"type":"text","text":"hi"}]}"#, false),
        (r#"{"q":"hi","stream":true}"#, r#"{"q":"hi","stream":false}"#, false),
        (r#"{"q":"hi"}"#, r#"{"q":"hi","seed":1}"#, false),
    ];
    for (one, other, expected) in table {
        assert_eq!(are_the_same(json(one), json(other)).await, expected, "{one} and {other}");
        assert_eq!(are_the_same(json(other), json(one)).await, expected, "{other} and {one}");
    }
}

#[tokio::test]
async fn bodies_in_json_that_are_not_canonical_pass_by() {
    for body in [r#"{"a":1,"a":1}"#, r#"{"a":"#, "", r#"{"t":"\ud800"}"#] {
        let upstream = Upstream::new(|call, request| {
            let body = String::from_utf8_lossy(request.body()).into_owned();
            Ok(http::Response::new(crate::support::text(&format!("{call} {body}"))))
        });
        let cache = cache(&layer(), &upstream);
        let given = ask(&cache, json(body)).await;
        assert_eq!(status(&given), "tower-quota;fwd=bypass", "{body}");
        assert_eq!(read(&cache, json(body)).await, format!("2 {body}"), "it passed as it is");
    }
}

#[tokio::test]
async fn everything_else_that_is_chosen_tells_questions_apart() {
    let post = |uri: &str, kind: &str, body: &'static str| {
        Request::post(uri).header("content-type", kind).body(Full::from(body)).expect("a request")
    };
    let plain = || post("/a?x=1", "text/plain", r#"{"a":1}"#);
    assert!(are_the_same(plain(), plain()).await);
    for other in [
        post("/a?x=2", "text/plain", r#"{"a":1}"#),
        post("/a", "text/plain", r#"{"a":1}"#),
        post("/a/?x=1", "text/plain", r#"{"a":1}"#),
        post("http://b.example/a?x=1", "text/plain", r#"{"a":1}"#),
        post("/a?x=1", "text/html", r#"{"a":1}"#),
        post("/a?x=1", "application/json", r#"{"a":1}"#),
        post("/a?x=1", "text/plain", r#"{"a":1 }"#),
        with(plain(), "content-type", "text/plain"),
        with(plain(), "content-encoding", "gzip"),
        with(plain(), "host", "b.example"),
        with(plain(), "accept", "text/event-stream"),
        with(plain(), "accept-language", "de"),
        with(with(plain(), "accept", "a"), "accept", "b"),
    ] {
        let shown = format!("{other:?}");
        assert!(!are_the_same(plain(), other).await, "{shown}");
    }
    assert!(
        !are_the_same(
            with(plain(), "accept", "a, b"),
            with(with(plain(), "accept", "a"), "accept", "b")
        )
        .await
    );
    // What does not change the answer is not looked at.
    assert!(are_the_same(plain(), with(plain(), "x-trace", "1")).await);
    assert!(
        are_the_same(
            post("/", "application/json", "1"),
            post("/", "Application/JSON; charset=utf-8", "1.0")
        )
        .await
    );
    assert!(
        are_the_same(
            post("/", "application/vnd.api+json", "1"),
            post("/", "application/vnd.api+json", " 1")
        )
        .await
    );
}

#[tokio::test]
async fn the_type_of_a_body_in_json_tells_questions_apart() {
    let of = |kind: &str| {
        Request::post("/").header("content-type", kind).body(Full::from("{}")).expect("a request")
    };
    for (one, other, expected) in [
        ("application/vnd.acme.v1+json", "application/vnd.acme.v2+json", false),
        ("application/merge-patch+json", "application/json-patch+json", false),
        ("application/json", "application/vnd.acme+json", false),
        ("application/json; version=1", "application/json; version=2", false),
        ("application/json; version=1", "application/json", false),
        ("application/json; a=\"; charset=utf-8\"", "application/json; a=\"\"", false),
        ("application/json; charset=utf-8", "application/json;", true),
        ("Application/JSON;version=1", "application/json; charset=UTF-8; version=1", true),
    ] {
        assert_eq!(are_the_same(of(one), of(other)).await, expected, "{one} and {other}");
    }
}

#[tokio::test]
async fn hosts_do_not_tell_questions_apart_where_that_is_said() {
    let upstream = Upstream::numbered();
    let of = |target: &str, host: &str| {
        let question = Request::post(target).body(Full::from("a")).expect("a request");
        with(question, "host", host)
    };
    let any = cache(&layer().any_host(), &upstream);
    assert_eq!(read(&any, of("/a?x=1", "one")).await, "answer 1");
    assert_eq!(read(&any, of("/a?x=1", "two:8080")).await, "answer 1");
    assert_eq!(read(&any, of("http://three/a?x=1", "three")).await, "answer 1");
    assert_eq!(read(&any, of("/a?x=2", "one")).await, "answer 2", "the rest of the target does");
}

#[tokio::test]
async fn methods_tell_questions_apart() {
    let upstream = Upstream::numbered();
    let layer = tower_quota::cache::AnswerCacheLayer::new(|_: &http::request::Parts| true);
    let cache = cache(&layer, &upstream);
    let query = |method: &str, body: &'static str| {
        Request::builder().method(method).uri("/").body(Full::from(body)).expect("a request")
    };
    assert_eq!(read(&cache, query("QUERY", "a")).await, "answer 1");
    assert_eq!(read(&cache, query("QUERY", "b")).await, "answer 2");
    assert_eq!(read(&cache, query("POST", "a")).await, "answer 3");
    assert_eq!(read(&cache, query("GET", "")).await, "answer 4");
    assert_eq!(read(&cache, query("HEAD", "")).await, "answer 5");
    assert_eq!(read(&cache, query("QUERY", "a")).await, "answer 1");
}

#[tokio::test]
async fn a_header_and_a_member_count_as_they_are_told_to() {
    let upstream = Upstream::numbered();
    let layer = layer().header(HeaderName::from_static("x-version")).ignore_member("us\"er");
    let cache = cache(&layer, &upstream);
    let ask = async |version: &str, body: &str| {
        read(&cache, with(json(body), "x-version", version)).await
    };
    assert_eq!(ask("1", r#"{"q":1,"us\"er":"a"}"#).await, "answer 1");
    assert_eq!(ask("1", r#"{"us\u0022er":"b","q":1}"#).await, "answer 1");
    assert_eq!(ask("1", r#"{"q":1}"#).await, "answer 1");
    assert_eq!(ask("2", r#"{"q":1}"#).await, "answer 2");
    assert_eq!(ask("1", r#"{"q":1,"in":{"us\"er":"a"}}"#).await, "answer 3");
    assert_eq!(ask("1", r#"{"q":1,"in":{"us\"er":"b"}}"#).await, "answer 4");
    assert_eq!(ask("1", r#"{"q":1,"us\"er":1,"us\"er":2}"#).await, "answer 5");
    assert_eq!(ask("1", r#"{"q":1,"us\"er":1,"us\"er":2}"#).await, "answer 6");
}

#[tokio::test]
async fn a_tenant_never_has_the_answer_of_another_unless_it_is_shared() {
    let question = || json(r#"{"q":"hi"}"#);
    let credentials = [
        "authorization",
        "proxy-authorization",
        "cookie",
        "x-api-key",
        "api-key",
        "x-goog-api-key",
    ];
    let upstream = Upstream::numbered();
    let apart = cache(&layer(), &upstream);
    let mut given = vec![read(&apart, question()).await];
    for name in credentials {
        for value in ["alice", "bob"] {
            given.push(read(&apart, with(question(), name, value)).await);
        }
    }
    let two = with(with(question(), "cookie", "alice"), "cookie", "bob");
    given.push(read(&apart, two).await);
    assert_eq!(given.len(), upstream.calls(), "{given:?}");
    assert_eq!(read(&apart, with(question(), "cookie", "bob")).await, given[6]);

    let upstream = Upstream::numbered();
    let shared = cache(&layer().shared(), &upstream);
    assert_eq!(read(&shared, with(question(), "x-api-key", "alice")).await, "answer 1");
    assert_eq!(read(&shared, with(question(), "x-api-key", "bob")).await, "answer 1");
}

#[tokio::test]
async fn a_key_says_who_is_one_tenant_and_who_passes_by() {
    let upstream = Upstream::numbered();
    let layer = layer().key(|request: &Request<Full<Bytes>>| {
        match request.headers().get("x-tenant").map(|tenant| tenant.as_bytes()) {
            Some(b"staff") => Subject::Exempt,
            Some(b"enemy") => Subject::Denied,
            tenant => tenant.map(Key::new).into(),
        }
    });
    let cache = cache(&layer, &upstream);
    let of = |tenant| with(with(json("1"), "x-tenant", tenant), "x-api-key", "its own");
    assert_eq!(read(&cache, of("a")).await, "answer 1");
    assert_eq!(read(&cache, of("b")).await, "answer 2");
    assert_eq!(read(&cache, with(json("1"), "x-tenant", "a")).await, "answer 1");
    for (tenant, answers) in [("staff", [3, 4]), ("enemy", [5, 6])] {
        for answer in answers {
            assert_eq!(read(&cache, of(tenant)).await, format!("answer {answer}"));
        }
    }
    assert_eq!(status(&ask(&cache, json("1")).await), "tower-quota;fwd=bypass", "it has no key");
}

#[tokio::test]
async fn different_questions_do_not_wait_for_each_other() {
    let upstream = Upstream::numbered();
    let cache = cache(&layer(), &upstream);
    let asked: Vec<_> =
        (0..50).map(|number| read(&cache, json(&format!("{{\"q\":{number}}}")))).collect();
    let mut given = futures::future::join_all(asked).await;
    given.sort_unstable();
    given.dedup();
    assert_eq!((given.len(), upstream.calls()), (50, 50));
}
