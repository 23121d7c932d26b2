//! What is kept and what is not, and what a kept answer says.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, request::Parts};
use http_body::Frame;
use http_body_util::Full;
use tower::{BoxError, ServiceExt};
use tower_quota::cache::AnswerCacheLayer;

use crate::support::{
    Asked, Body, Upstream, ask, broken, cache, frames, json, layer, parts, read, read_body, send,
    settle, status, stream, text, with,
};

/// How often a service with such answers is asked by two requests that are the same.
async fn calls(
    answer: impl Fn() -> Result<Response<Body>, BoxError> + Send + Sync + 'static,
) -> usize {
    let upstream = Upstream::new(move |_, _| answer());
    let cache = cache(&layer(), &upstream);
    for _ in 0..2 {
        if let Ok(given) = cache.clone().oneshot(json("{}")).await {
            let _ = http_body_util::BodyExt::collect(given.into_body()).await;
        }
        settle().await;
    }
    upstream.calls()
}

fn answer(fields: &[(&'static str, &'static str)]) -> Response<Body> {
    let mut response = Response::new(text("an answer"));
    for (name, value) in fields {
        response.headers_mut().append(*name, value.parse().expect("a value"));
    }
    response
}

#[tokio::test]
async fn nothing_is_kept_that_its_request_did_not_ask_for() {
    let upstream = Upstream::numbered();
    let layer = AnswerCacheLayer::new(|request: &Parts| request.uri.path() == "/v1/embeddings");
    let cache = cache(&layer, &upstream);
    for answer in ["answer 1", "answer 2"] {
        let given = ask(&cache, json("{}")).await;
        assert_eq!(status(&given), "tower-quota;fwd=bypass");
        assert_eq!(read_body(given).await, answer);
    }
}

#[tokio::test]
async fn only_whole_answers_that_succeed_are_kept() {
    assert_eq!(calls(|| Ok(answer(&[]))).await, 1);
    for status in [206, 300, 301, 400, 401, 404, 408, 409, 429, 500, 502, 503, 504] {
        let failed = move || {
            let mut response = answer(&[("cache-control", "public, max-age=60")]);
            *response.status_mut() = StatusCode::from_u16(status).expect("a status");
            Ok(response)
        };
        assert_eq!(calls(failed).await, 2, "{status}");
    }
    for status in [200, 201, 203, 204] {
        let succeeded = move || {
            let mut response = answer(&[]);
            *response.status_mut() = StatusCode::from_u16(status).expect("a status");
            Ok(response)
        };
        assert_eq!(calls(succeeded).await, 1, "{status}");
    }
    assert_eq!(calls(|| Err("the other side is gone".into())).await, 2);
    // A body that breaks off, one that is shorter or longer than was said.
    let cut = || {
        let (sender, body) = stream();
        send(&sender, "hel");
        sender.unbounded_send(broken()).expect("a reader");
        Ok(Response::new(body))
    };
    assert_eq!(calls(cut).await, 2);
    for length in ["3", "5"] {
        let other = move || {
            let mut response = Response::new(parts(&["four"]));
            response.headers_mut().insert("content-length", length.parse().expect("a value"));
            Ok(response)
        };
        assert_eq!(calls(other).await, 2, "{length}");
    }
}

const LATER: &str = "Sun, 06 Nov 1994 08:50:37 GMT";

#[tokio::test]
async fn a_response_says_whether_it_is_kept() {
    for (fields, expected) in [
        (&[("cache-control", "no-store")][..], 2),
        (&[("cache-control", "max-age=60, Private")], 2),
        (&[("cache-control", "private=\"x, y\"")], 2),
        (&[("cache-control", "max-age=60"), ("cache-control", "no-cache")], 2),
        (&[("set-cookie", "session=1")], 2),
        (&[("vary", "*")], 2),
        (&[("vary", "accept, origin")], 2),
        (&[("cache-control", "max-age=0")], 2),
        (&[("cache-control", "max-age=60, s-maxage=0")], 2),
        (&[("cache-control", "max-age=nonsense")], 2),
        (&[("cache-control", "max-age=60"), ("age", "60")], 2),
        (&[("content-range", "bytes 0-1/9")], 2),
        (&[("grpc-status", "8")], 2),
        (&[("grpc-status", "0")], 1),
        (&[("vary", "Accept, accept-encoding, Authorization")], 1),
        (&[("cache-control", "public, max-age=60")], 1),
        (&[("cache-control", "ext=\"no-store, private\"")], 1),
        (&[("cache-control", "max-age=99999999999999999999999")], 1),
        (&[("cache-control", "max-age=60, max-age=0")], 2),
        (&[("cache-control", "max-age=0, max-age=60")], 2),
        (&[("cache-control", r#"x="\"", no-store"#)], 2),
        (&[("cache-control", r#"x="\\", no-store"#)], 2),
        (&[("cache-control", r#"x="\", no-store""#)], 1),
        (&[("cache-control", r#"x=", max-age=60"#)], 2),
        (&[("expires", "0")], 2),
        (&[("expires", "0"), ("cache-control", "max-age=60")], 1),
        (&[("expires", LATER), ("date", LATER)], 2),
        (&[("expires", LATER), ("date", "Sun, 06 Nov 1994 08:49:37 GMT")], 1),
    ] {
        assert_eq!(calls(move || Ok(answer(fields))).await, expected, "{fields:?}");
    }
}

#[tokio::test]
async fn a_grpc_error_in_the_trailers_is_not_kept() {
    for (code, expected) in [("0", 1), ("8", 2)] {
        let with_trailers = move || {
            let (sender, body) = stream();
            send(&sender, "hello");
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", code.parse().expect("a value"));
            sender.unbounded_send(Ok(Frame::trailers(trailers))).expect("a reader");
            Ok(Response::new(body))
        };
        assert_eq!(calls(with_trailers).await, expected, "{code}");
    }
}

#[tokio::test]
async fn a_stream_of_events_is_kept_if_it_is_whole_and_tells_of_no_error() {
    for (data, expected) in [
        (&["data: 1\n\n"][..], 1),
        (&["data: 1\n", "\n"], 1),
        (&["data: 1\r\n\r", "\n"], 1),
        (&["data: 1\r\r"], 1),
        (&["event: errors\ndata: 1\n\n"], 1),
        (&["data: event: error\n\n"], 1),
        (&["data: 1\n\n", "data: 2\n"], 2),
        (&["data: 1\n\nda"], 2),
        (&["data: 1\r\n"], 2),
        (&[], 2),
        (&["data: 1\n\nevent: error\ndata: {}\n\n"], 2),
        (&["data: 1\n\neve", "nt:err", "or\r\ndata: {}\r\n\r\n"], 2),
        (&["\u{feff}event: error\n\n"], 2),
    ] {
        let events = move || {
            let response = Response::builder().header("content-type", "Text/Event-Stream; a=b");
            Ok(response.body(parts(data))?)
        };
        assert_eq!(calls(events).await, expected, "{data:?}");
    }
    for (kind, encoding) in
        [("application/grpc-web+proto", "identity"), ("text/event-stream", "gzip")]
    {
        let unreadable = move || {
            let response = Response::builder().header("content-type", kind);
            Ok(response.header("content-encoding", encoding).body(parts(&["data: 1\n\n"]))?)
        };
        assert_eq!(calls(unreadable).await, 2, "{kind}");
    }
}

#[tokio::test]
async fn only_those_answers_are_kept_that_are_wanted() {
    let upstream = Upstream::numbered();
    let layer = layer().keep_if(|answer| answer.data().flatten().eq(b"answer 2"));
    let cache = cache(&layer, &upstream);
    for answer in ["answer 1", "answer 2", "answer 2"] {
        assert_eq!(read(&cache, json("{}")).await, answer);
    }
}

#[tokio::test]
async fn a_request_says_whether_it_is_looked_up_and_kept() {
    let upstream = Upstream::numbered();
    let cache = cache(&layer(), &upstream);
    let ask = async |directives| {
        let given = ask(&cache, with(json("{}"), "cache-control", directives)).await;
        let said = status(&given).trim_start_matches("tower-quota;").to_owned();
        (said, read_body(given).await)
    };
    let told = |said: &str, answer: &str| (said.to_owned(), answer.to_owned());
    assert_eq!(ask("no-store").await, told("fwd=bypass", "answer 1"));
    assert_eq!(ask("only-if-cached").await, told("detail=not-cached", ""));
    assert_eq!(
        ask("max-age=5").await,
        told("fwd=miss;stored", "answer 2"),
        "no-store kept nothing"
    );
    assert_eq!(ask("max-age=5").await, told("hit;ttl=59", "answer 2"));
    assert_eq!(ask("No-Cache").await, told("fwd=request;stored", "answer 3"));
    assert_eq!(ask("only-if-cached").await, told("hit;ttl=59", "answer 3"), "it took its place");
    assert_eq!(ask("max-age=0").await, told("fwd=request;stored", "answer 4"));
    assert_eq!(ask("max-age=x").await, told("fwd=request;stored", "answer 5"));
    assert_eq!(ask("max-age=60, no-store").await, told("fwd=bypass", "answer 6"));
    assert_eq!(ask("something=else").await, told("hit;ttl=59", "answer 5"));
}

#[tokio::test]
async fn parts_conditions_and_upgrades_pass_by() {
    let upstream = Upstream::numbered();
    let cache = cache(&layer(), &upstream);
    for name in
        ["range", "if-none-match", "if-modified-since", "if-match", "upgrade", "last-event-id"]
    {
        let given = ask(&cache, with(json("{}"), name, "x")).await;
        assert_eq!(status(&given), "tower-quota;fwd=bypass", "{name}");
    }
}

#[tokio::test]
async fn a_stream_is_replayed_in_its_frames_with_its_trailers() {
    let upstream = Upstream::new(|_, _| {
        let (sender, body) = stream();
        for data in ["data: {\"a\":", "1}\n\n", "", "data: [DONE]\n\n"] {
            send(&sender, data);
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("x-checksum", "1".parse().expect("a value"));
        sender.unbounded_send(Ok(Frame::trailers(trailers))).expect("a reader");
        let response = Response::builder().header("content-type", "text/event-stream");
        Ok(response.body(body)?)
    });
    let cache = cache(&layer(), &upstream);
    let first = ask(&cache, json("{}")).await;
    let first = (first.headers()["content-type"].clone(), frames(first).await);
    assert_eq!(first.1.0.len(), 4);
    let second = ask(&cache, json("{}")).await;
    assert!(status(&second).starts_with("tower-quota;hit"));
    assert_eq!(http_body::Body::size_hint(second.body()).exact(), None, "it is a stream still");
    assert_eq!((second.headers()["content-type"].clone(), frames(second).await), first);
    assert_eq!(upstream.calls(), 1);
}

#[tokio::test]
async fn a_body_of_known_length_has_it_when_it_is_replayed() {
    let cache = cache(&layer(), &Upstream::numbered());
    for _ in 0..2 {
        let given = ask(&cache, json("{}")).await;
        assert_eq!(http_body::Body::size_hint(given.body()).exact(), Some(8));
        assert_eq!(read_body(given).await, "answer 1");
    }
}

#[tokio::test]
async fn what_is_true_of_one_response_only_is_not_told_again() {
    let momentary = [
        ("ratelimit", "\"default\";r=5;t=1"),
        ("ratelimit-policy", "\"default\";q=5;w=1"),
        ("x-ratelimit-remaining", "5"),
        ("x-ratelimit-reset-tokens", "6m"),
        ("anthropic-ratelimit-requests-limit", "50"),
        ("retry-after", "3"),
        ("retry-after-ms", "3"),
        ("x-request-id", "abc"),
        ("connection", "x-hop"),
        ("x-hop", "1"),
    ];
    let upstream = Upstream::new(move |_, _| {
        let mut response = answer(&momentary);
        response.headers_mut().insert("x-model", "m".parse()?);
        response.headers_mut().insert("cache-status", "OriginCache; hit; ttl=1100".parse()?);
        Ok(response)
    });
    let cache = cache(&layer(), &upstream);
    let first = ask(&cache, json("{}")).await;
    for (name, value) in momentary {
        assert_eq!(first.headers()[name], value, "it is told to the one whose it is");
    }
    assert!(first.headers().get("age").is_none());
    read_body(first).await;
    let second = ask(&cache, json("{}")).await;
    for (name, _) in momentary {
        assert_eq!(second.headers().get(name), None, "{name}");
    }
    assert_eq!(second.headers()["x-model"], "m");
    assert_eq!(second.headers()["age"], "0");
    let statuses: Vec<_> = second.headers().get_all("cache-status").iter().collect();
    assert_eq!(statuses, ["OriginCache; hit; ttl=1100", "tower-quota;hit;ttl=59"]);
}

#[tokio::test]
async fn a_head_request_has_an_answer_of_its_own() {
    let upstream = Upstream::new(|_, _| {
        let response = Response::builder().header("content-length", "4096");
        Ok(response.body(parts(&[]))?)
    });
    let layer = AnswerCacheLayer::new(|request: &Parts| request.method == Method::HEAD);
    let cache = cache(&layer, &upstream);
    let head = || Request::head("/").body(Full::<Bytes>::default()).expect("a request");
    read(&cache, head()).await;
    let given = ask(&cache, head()).await;
    assert!(status(&given).starts_with("tower-quota;hit"));
    assert_eq!(given.headers()["content-length"], "4096");
}

#[tokio::test]
async fn the_one_that_asks_has_the_extensions_of_its_response() {
    let upstream = Upstream::new(|_, _| {
        let mut response = answer(&[]);
        response.extensions_mut().insert(Arc::new(7_u8));
        Ok(response)
    });
    let cache: Asked = cache(&layer(), &upstream);
    let first = ask(&cache, json("{}")).await;
    assert_eq!(first.extensions().get::<Arc<u8>>().map(|seven| **seven), Some(7));
}
