//! What callers are told.

use std::{future::ready, time::Duration};

use bytes::Bytes;
use http::{HeaderName, Request, Response};
use http_body_util::Full;
use tower_quota::deferred::{Bounds, Terms};

use crate::support::{Site, answering, bounded, deferring, layer, upstream};

#[tokio::test]
async fn a_request_that_prefers_it_is_accepted_and_told_where_it_stands() {
    let site = Site::new(&layer());
    let told = site.send(deferring("alice", "a body")).await;
    assert_eq!(told.status, 202);
    assert_eq!(told.header("preference-applied"), "respond-async");
    assert_eq!(told.header("cache-control"), "no-store");
    let location = told.header("location").to_owned();
    let id = location.strip_prefix("/deferred/").expect("a path");
    assert_eq!(id.len(), 22, "128 bits");
    assert_eq!(told.json()["id"], id);
    assert_eq!(told.json()["state"], "waiting");

    let told = site.ask("GET", "alice", &location).await;
    assert_eq!(told.status, 200);
    let json = told.json();
    assert_eq!(json["state"], "waiting");
    assert_eq!(json["attempts"], 0);
    assert_eq!(
        json["expires"].as_u64().expect("a time") - json["submitted"].as_u64().expect("a time"),
        24 * 60 * 60
    );
    assert_eq!(told.header("retry-after"), "1");
    let result = json["result"].as_str().expect("a path").to_owned();
    let told = site.ask("GET", "alice", &result).await;
    assert_eq!((told.status, told.header("location")), (202, location.as_str()));
}

#[tokio::test]
async fn a_request_that_does_not_prefer_it_passes() {
    let layer = layer().terms(|parts| (parts.uri.path() != "/now").then(Terms::new));
    let site = Site::new(&layer);
    let without = |name: &'static str| {
        let mut request = deferring("alice", "a body");
        request.headers_mut().remove(name);
        request
    };
    let mut now = deferring("alice", "a body");
    *now.uri_mut() = "/now".parse().expect("a path");
    // Without a wish, without an owner, and not to be deferred.
    for request in [without("prefer"), without("x-api-key"), now] {
        let told = site.send(request).await;
        assert_eq!((told.status, told.text.as_str()), (200, "passed"));
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_comes_back_as_it_was() {
    let layer = layer().header(HeaderName::from_static("x-tenant"));
    let site = Site::new(&layer);
    let (service, seen) =
        answering(&[(418, &[("x-tea", "green"), ("connection", "x-hop"), ("x-hop", "1")])]);
    tokio::spawn(layer.runner(service).run());
    let mut request = deferring("alice", "a body");
    request.headers_mut().insert("x-tenant", "acme".parse().expect("a value"));
    let told = site.send(request).await;
    let id = told.json()["id"].as_str().expect("an id").to_owned();
    site.until_ended(1).await;

    let [sent] = seen.all().try_into().expect("one call");
    assert_eq!(
        (sent.method(), sent.uri().to_string().as_str()),
        (&http::Method::POST, "/v1/batch?x=1")
    );
    assert_eq!(sent.body(), "a body");
    assert_eq!(sent.headers()["content-type"], "text/plain");
    assert_eq!(sent.headers()["x-tenant"], "acme");
    assert_eq!(sent.headers()["idempotency-key"], id.as_str());
    assert!(!sent.headers().contains_key("x-api-key"), "credentials are not stored");
    assert!(!sent.headers().contains_key("prefer"), "it would be deferred again");

    assert_eq!(site.state("alice", &id).await, "done");
    for _ in 0..2 {
        let told = site.ask("GET", "alice", &format!("/deferred/{id}/result")).await;
        assert_eq!((told.status, told.text.as_str()), (418, "an answer"));
        assert_eq!(told.header("x-tea"), "green");
        assert_eq!(told.header("cache-control"), "private, no-store");
        assert!(!told.headers.contains_key("x-hop"), "it was for one connection");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_was_public_is_kept_from_caches() {
    let layer = layer();
    let site = Site::new(&layer);
    let (service, _) = answering(&[(
        200,
        &[
            ("cache-control", "public, max-age=3600"),
            ("cache-control", "immutable"),
            ("expires", "Fri, 01 Jan 2100 00:00:00 GMT"),
            ("cdn-cache-control", "max-age=3600"),
            ("surrogate-control", "max-age=3600"),
            ("etag", "\"one\""),
        ],
    )]);
    tokio::spawn(layer.runner(service).run());
    let id = site.defer("alice", "a body").await;
    site.until_ended(1).await;
    let told = site.ask("GET", "alice", &format!("/deferred/{id}/result")).await;
    let said: Vec<_> = told.headers.get_all("cache-control").iter().collect();
    assert_eq!(said, ["private, no-store"]);
    for name in ["expires", "cdn-cache-control", "surrogate-control"] {
        assert!(!told.headers.contains_key(name), "{name}");
    }
    assert_eq!(told.header("etag"), "\"one\"");
}

#[tokio::test(start_paused = true)]
async fn nobody_sees_what_belongs_to_others() {
    let layer = layer();
    let site = Site::new(&layer);
    let (service, _) = answering(&[(200, &[])]);
    let id = site.defer("alice", "secret").await;
    for round in 0..2 {
        for path in [format!("/deferred/{id}"), format!("/deferred/{id}/result")] {
            for (method, owner) in [("GET", "bob"), ("DELETE", "bob"), ("GET", "")] {
                let told = site.ask(method, owner, &path).await;
                let expected =
                    if method == "DELETE" && path.ends_with("result") { 405 } else { 404 };
                assert_eq!(told.status, expected, "{method} {path} {owner} {round}");
                assert!(!told.text.contains("secret") && !told.text.contains("an answer"));
            }
        }
        if round == 0 {
            tokio::spawn(layer.runner(service.clone()).run());
            site.until_ended(1).await;
        }
    }
    assert_eq!(site.state("alice", &id).await, "done");
}

#[tokio::test]
async fn what_is_not_known_is_not_found() {
    let site = Site::new(&layer());
    let id = site.defer("alice", "a body").await;
    let unknown = id.chars().rev().collect::<String>();
    for path in [
        format!("/deferred/{unknown}"),
        format!("/deferred/{unknown}/result"),
        "/deferred/".to_owned(),
        "/deferred/result".to_owned(),
        "/deferred/../../etc/passwd".to_owned(),
        format!("/deferred/{id}x"),
        format!("/deferred/{id}/results"),
        "/".to_owned(),
    ] {
        let told = site.ask("GET", "alice", &path).await;
        assert_eq!(told.status, 404, "{path}: {told:?}");
        assert_eq!(told.header("content-type"), "application/problem+json");
        assert_eq!(told.json()["status"], 404);
    }
    let told = site.ask("POST", "alice", &format!("/deferred/{id}")).await;
    assert_eq!((told.status, told.header("allow")), (405, "GET, HEAD, DELETE"));
    // A router may have taken the beginning away.
    assert_eq!(site.ask("GET", "alice", &format!("/{id}")).await.status, 200);
    assert_eq!(site.ask("HEAD", "alice", &format!("/{id}/result")).await.status, 202);
}

#[tokio::test]
async fn a_deleted_request_does_not_run_and_then_is_not_there() {
    let site = Site::new(&layer());
    let id = site.defer("alice", "a body").await;
    let path = format!("/deferred/{id}");
    assert_eq!(site.ask("DELETE", "alice", &path).await.status, 204);
    assert_eq!(site.state("alice", &id).await, "canceled");
    assert_eq!(site.ask("GET", "alice", &format!("{path}/result")).await.status, 410);
    assert_eq!(site.ask("DELETE", "alice", &path).await.status, 204);
    for method in ["GET", "DELETE"] {
        assert_eq!(site.ask(method, "alice", &path).await.status, 404);
    }
}

#[tokio::test]
async fn a_body_that_is_too_long_is_refused_and_not_stored() {
    let layer = layer().max_request_bytes(5);
    let site = Site::new(&layer);
    let told = site.send(deferring("alice", "123456")).await;
    assert_eq!((told.status, told.header("content-type")), (413, "application/problem+json"));
    site.defer("alice", "12345").await;
    assert_eq!(site.until_ended(0).await.total(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_too_long_is_a_failure() {
    let layer = layer().max_result_bytes(5);
    let site = Site::new(&layer);
    let (service, _) = answering(&[(200, &[])]);
    tokio::spawn(layer.runner(service).run());
    let id = site.defer("alice", "a body").await;
    site.until_ended(1).await;
    let told = site.ask("GET", "alice", &format!("/deferred/{id}")).await.json();
    assert_eq!((&told["state"], &told["failure"]), (&"failed".into(), &"too_large".into()));
    assert_eq!(site.ask("GET", "alice", &format!("/deferred/{id}/result")).await.status, 502);
}

#[tokio::test]
async fn a_store_that_is_full_says_so() {
    let site = Site::new(&bounded(Bounds::DEFAULT.total(3, 1 << 20).per_owner(2, 1 << 20)));
    for (owner, expected) in
        [("alice", 202), ("alice", 202), ("alice", 429), ("bob", 202), ("bob", 503)]
    {
        let told = site.send(deferring(owner, "a body")).await;
        assert_eq!(told.status, expected, "{told:?}");
        assert_eq!(told.headers.contains_key("retry-after"), expected != 202);
    }
}

#[tokio::test]
async fn an_idempotency_key_is_for_one_request_of_one_owner() {
    let site = Site::new(&layer());
    let with_key = |owner, body| {
        let mut request = deferring(owner, body);
        request.headers_mut().insert("idempotency-key", "once".parse().expect("a value"));
        request
    };
    let first = site.send(with_key("alice", "a body")).await;
    let again = site.send(with_key("alice", "a body")).await;
    assert_eq!((again.status, again.header("location")), (202, first.header("location")));
    // By another way, from a client of another version.
    let mut other = with_key("alice", "a body");
    other.headers_mut().insert("host", "another".parse().expect("a value"));
    other.headers_mut().insert("user-agent", "client/2".parse().expect("a value"));
    let again = site.send(other).await;
    assert_eq!((again.status, again.header("location")), (202, first.header("location")));
    assert_eq!(site.send(with_key("alice", "another")).await.status, 422);
    let bobs = site.send(with_key("bob", "a body")).await;
    assert_eq!(bobs.status, 202);
    assert_ne!(bobs.header("location"), first.header("location"));
    assert_eq!(site.until_ended(0).await.total(), 2);

    let mut twice = with_key("alice", "a body");
    twice.headers_mut().append("idempotency-key", "twice".parse().expect("a value"));
    assert_eq!(site.send(twice).await.status, 400);
    let without = site.defer("alice", "a body").await;
    assert!(!first.header("location").ends_with(&without));
}

#[tokio::test]
async fn a_request_that_expires_is_gone() {
    let layer = layer().expire_after(Duration::ZERO);
    let site = Site::new(&layer);
    let id = site.defer("alice", "a body").await;
    assert_eq!(site.state("alice", &id).await, "expired");
    let told = site.ask("GET", "alice", &format!("/deferred/{id}/result")).await;
    assert_eq!(told.status, 410);
    let layer = layer.keep(Duration::ZERO).expire_after(Duration::ZERO);
    let site = Site::new(&layer);
    let id = site.defer("alice", "a body").await;
    assert_eq!(site.ask("GET", "alice", &format!("/deferred/{id}")).await.status, 404);
}

#[tokio::test]
async fn a_body_that_breaks_off_is_not_stored() {
    let layer = layer();
    let service = tower::service_fn(|_: Request<http_body_util::StreamBody<Broken>>| async {
        Ok::<_, std::convert::Infallible>(Response::new(Full::<Bytes>::default()))
    });
    let (parts, _) = deferring("alice", "").into_parts();
    let frames = [Ok(http_body::Frame::data(Bytes::from_static(b"half"))), Err("gone")];
    let body = http_body_util::StreamBody::new(futures::stream::iter(frames));
    let service = tower::Layer::layer(&layer, service);
    let response = tower::ServiceExt::oneshot(service, Request::from_parts(parts, body)).await;
    assert_eq!(response.expect("it never fails").status(), 400);
    let (service, seen) = upstream(|_| ready(Response::new("an answer")));
    layer.runner(service).run_until(ready(())).await;
    assert_eq!(seen.all().len(), 0);
}

type Broken =
    futures::stream::Iter<std::array::IntoIter<Result<http_body::Frame<Bytes>, &'static str>, 2>>;
