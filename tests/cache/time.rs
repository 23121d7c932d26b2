//! How long an answer is fresh, and what happens after.

use std::time::Duration;

use http::Response;
use tokio::time::advance;
use tower::ServiceExt;
use tower_quota::cache::{AnswerCacheLayer, Credentials, FreshFor, MemoryStore};

use crate::support::{
    Asked, Paused, Question, Upstream, ask, cache, json, layer, read, read_body, settle, status,
    text, with,
};

const SECOND: Duration = Duration::from_secs(1);

fn timed() -> AnswerCacheLayer<fn(&http::request::Parts) -> bool, Credentials, MemoryStore<Paused>>
{
    layer().store(MemoryStore::with_clock(1 << 20, 1_000, Paused::new())).ttl(10 * SECOND)
}

async fn told(cache: &Asked, question: Question) -> (String, String) {
    let given = ask(cache, question).await;
    let said = status(&given).trim_start_matches("tower-quota;").to_owned();
    (said, read_body(given).await)
}

fn pair(said: &str, answer: &str) -> (String, String) {
    (said.to_owned(), answer.to_owned())
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_fresh_for_its_time_and_says_how_old_it_is() {
    let upstream = Upstream::new(|call, _| {
        let response = Response::builder().header("age", "5");
        Ok(response.body(text(&format!("answer {call}")))?)
    });
    let cache = cache(&timed(), &upstream);
    assert_eq!(told(&cache, json("{}")).await, pair("fwd=miss;stored", "answer 1"));
    advance(9 * SECOND).await;
    let given = ask(&cache, json("{}")).await;
    assert_eq!(status(&given), "tower-quota;hit;ttl=1");
    let ages: Vec<_> = given.headers().get_all("age").iter().collect();
    assert_eq!(ages, ["14"]);
    advance(SECOND).await;
    assert_eq!(told(&cache, json("{}")).await, pair("fwd=miss;stored", "answer 2"));
}

#[tokio::test(start_paused = true)]
async fn a_request_and_a_response_can_say_for_how_long() {
    let upstream = Upstream::numbered();
    let asked = cache(&timed(), &upstream);
    let for_secs = |secs| {
        let mut question = json("{}");
        question.extensions_mut().insert(FreshFor(secs * SECOND));
        question
    };
    assert_eq!(told(&asked, for_secs(100)).await, pair("fwd=miss;stored", "answer 1"));
    advance(99 * SECOND).await;
    assert_eq!(told(&asked, json("{}")).await, pair("hit;ttl=1", "answer 1"));
    advance(SECOND).await;
    assert_eq!(told(&asked, for_secs(0)).await, pair("fwd=miss", "answer 2"));
    assert_eq!(
        told(&asked, json("{}")).await,
        pair("fwd=miss;stored", "answer 3"),
        "it was not kept"
    );

    let upstream = Upstream::new(|call, _| {
        let response = Response::builder().header("cache-control", "max-age=7").header("age", "4");
        Ok(response.body(text(&format!("answer {call}")))?)
    });
    let asked = cache(&timed(), &upstream);
    assert_eq!(told(&asked, json("{}")).await, pair("fwd=miss;stored", "answer 1"));
    advance(2 * SECOND).await;
    assert_eq!(told(&asked, json("{}")).await, pair("hit;ttl=1", "answer 1"));
    advance(SECOND).await;
    assert_eq!(told(&asked, json("{}")).await, pair("fwd=miss;stored", "answer 2"));
}

#[tokio::test(start_paused = true)]
async fn the_age_that_a_service_speaks_of_counts_from_the_request() {
    let upstream = Upstream::new(|call, _| {
        let response = Response::builder().header("cache-control", "max-age=7").header("age", "1");
        Ok(response.body(text(&format!("answer {call}")))?)
    })
    .gated();
    let cache = cache(&timed(), &upstream);
    let first = async {
        let given = ask(&cache, json("{}")).await;
        (status(&given).to_owned(), read_body(given).await)
    };
    let slow = async {
        settle().await;
        advance(4 * SECOND).await;
        upstream.gate.add_permits(1);
    };
    let ((said, _), ()) = futures::join!(first, slow);
    assert_eq!(said, "tower-quota;fwd=miss;stored");
    advance(SECOND).await;
    let given = ask(&cache, json("{}")).await;
    assert_eq!(
        (status(&given), &given.headers()["age"]),
        ("tower-quota;hit;ttl=1", &"6".parse().expect("a value"))
    );
    advance(SECOND).await;
    upstream.gate.add_permits(1);
    assert_eq!(told(&cache, json("{}")).await, pair("fwd=miss;stored", "answer 2"));
}

#[tokio::test(start_paused = true)]
async fn a_request_can_want_a_younger_answer() {
    let cache = cache(&timed(), &Upstream::numbered());
    told(&cache, json("{}")).await;
    advance(5 * SECOND).await;
    let of_age = |age| with(json("{}"), "cache-control", age);
    assert_eq!(told(&cache, of_age("max-age=5")).await, pair("hit;ttl=5", "answer 1"));
    assert_eq!(told(&cache, of_age("max-age=4")).await, pair("fwd=request;stored", "answer 2"));
    assert_eq!(told(&cache, json("{}")).await, pair("hit;ttl=10", "answer 2"));
}

#[tokio::test(start_paused = true)]
async fn the_age_that_a_request_bounds_counts_from_the_origin() {
    // Seven seconds old when it comes, and fresh for ten more.
    let upstream = Upstream::new(|call, _| {
        let response = Response::builder().header("age", "7").header("cache-control", "max-age=17");
        Ok(response.body(text(&format!("answer {call}")))?)
    });
    let cache = cache(&timed(), &upstream);
    told(&cache, json("{}")).await;
    advance(3 * SECOND).await;
    let of = |said| with(json("{}"), "cache-control", said);
    assert_eq!(told(&cache, of("max-age=10")).await, pair("hit;ttl=7", "answer 1"));
    assert_eq!(told(&cache, of("max-age=9")).await, pair("fwd=request;stored", "answer 2"));
}

/// Ten seconds fresh, twenty more too old, and what becomes of it after so many for who says so.
#[tokio::test(start_paused = true)]
async fn a_request_says_how_fresh_and_how_old_an_answer_may_be() {
    let fetched = |why| (false, why);
    for (seconds, said, expected) in [
        (6, "min-fresh=4", (true, "hit;ttl=4")),
        (6, "min-fresh=5", fetched("fwd=request;stored")),
        (6, "min-fresh=4, min-fresh=5", fetched("fwd=request;stored")),
        (6, "min-fresh=soon", fetched("fwd=request;stored")),
        (6, "max-age=5, max-stale=1", (true, "hit;ttl=4")),
        (6, "max-age=4, max-stale=1", fetched("fwd=request;stored")),
        (6, "max-age=0, max-stale", (true, "hit;ttl=4")),
        (6, "max-age=0", fetched("fwd=request;stored")),
        (6, "no-cache, max-stale", fetched("fwd=request;stored")),
        (6, "min-fresh=6, max-stale=2", (true, "hit;ttl=4")),
        (6, "min-fresh=7, max-stale=2", fetched("fwd=request;stored")),
        (15, "max-stale", (true, "hit;ttl=-5")),
        (15, "max-stale=5", (true, "hit;ttl=-5")),
        (15, "max-stale=4", fetched("fwd=stale;stored")),
        (15, "max-stale=5, max-stale=4", fetched("fwd=stale;stored")),
        (15, "max-stale=never", fetched("fwd=stale;stored")),
        (15, "min-fresh=0", (true, "hit;ttl=-5")),
        (15, "min-fresh=1", fetched("fwd=stale;stored")),
        (15, "max-age=100", fetched("fwd=stale;stored")),
        (15, "max-age=10, max-stale=5", (true, "hit;ttl=-5")),
        (31, "max-stale", fetched("fwd=miss;stored")),
    ] {
        let upstream = Upstream::numbered();
        let cache = cache(&timed().stale_while_revalidate(20 * SECOND), &upstream);
        read(&cache, json("{}")).await;
        advance(seconds * SECOND).await;
        let given = told(&cache, with(json("{}"), "cache-control", said)).await;
        let answer = if expected.0 { "answer 1" } else { "answer 2" };
        assert_eq!(given, pair(expected.1, answer), "{said} after {seconds} s");
    }
}

#[tokio::test(start_paused = true)]
async fn an_old_answer_is_given_while_one_new_one_is_fetched() {
    let upstream = Upstream::numbered().gated();
    let cache = cache(&timed().stale_while_revalidate(20 * SECOND), &upstream);
    upstream.gate.add_permits(1);
    assert_eq!(told(&cache, json("{}")).await, pair("fwd=miss;stored", "answer 1"));
    advance(15 * SECOND).await;
    for _ in 0..10 {
        assert_eq!(told(&cache, json("{}")).await, pair("hit;ttl=-5", "answer 1"));
        settle().await;
    }
    assert_eq!(upstream.calls(), 2, "one fetches for all");
    upstream.gate.add_permits(1);
    settle().await;
    assert_eq!(told(&cache, json("{}")).await, pair("hit;ttl=10", "answer 2"));

    advance(30 * SECOND).await;
    upstream.gate.add_permits(1);
    assert_eq!(
        told(&cache, json("{}")).await,
        pair("fwd=miss;stored", "answer 3"),
        "it was too old"
    );
}

#[tokio::test(start_paused = true)]
async fn an_old_answer_is_not_given_if_its_service_wants_to_be_asked() {
    for directive in ["must-revalidate", "proxy-revalidate"] {
        let upstream = Upstream::new(move |call, _| {
            let response = Response::builder().header("cache-control", directive);
            Ok(response.body(text(&format!("answer {call}")))?)
        });
        let cache = cache(&timed().stale_while_revalidate(20 * SECOND), &upstream);
        read(&cache, json("{}")).await;
        advance(15 * SECOND).await;
        assert_eq!(told(&cache, json("{}")).await, pair("fwd=miss;stored", "answer 2"));
    }
}

#[tokio::test(start_paused = true)]
async fn who_wants_only_what_is_kept_has_nothing_fetched() {
    let upstream = Upstream::numbered();
    let cache = cache(&timed().stale_while_revalidate(20 * SECOND), &upstream);
    read(&cache, json("{}")).await;
    advance(15 * SECOND).await;
    let question = with(json("{}"), "cache-control", "only-if-cached");
    assert_eq!(told(&cache, question).await, pair("hit;ttl=-5", "answer 1"));
    // What would pass by, too.
    for (name, value) in [("cache-control", "no-store"), ("range", "bytes=0-1")] {
        let question = with(json("{}"), "cache-control", "only-if-cached");
        let given = ask(&cache, with(question, name, value)).await;
        assert_eq!(given.status(), 504, "{name}: {value}");
    }
    let question = with(json("{"), "cache-control", "only-if-cached");
    assert_eq!(ask(&cache, question).await.status(), 504, "it is no JSON");
    settle().await;
    assert_eq!(upstream.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn who_names_an_age_is_not_given_an_old_answer() {
    let cache = cache(&timed().stale_while_revalidate(20 * SECOND), &Upstream::numbered());
    told(&cache, json("{}")).await;
    advance(15 * SECOND).await;
    let question = with(json("{}"), "cache-control", "max-age=100");
    assert_eq!(told(&cache, question).await, pair("fwd=stale;stored", "answer 2"));
}

#[tokio::test(start_paused = true)]
async fn an_old_answer_stays_if_no_new_one_can_be_had() {
    let upstream = Upstream::new(|call, _| {
        if call > 1 {
            return Err("the other side is gone".into());
        }
        Ok(Response::new(text("answer 1")))
    });
    let cache = cache(&timed().stale_while_revalidate(20 * SECOND), &upstream);
    read(&cache, json("{}")).await;
    advance(15 * SECOND).await;
    for call in 2..5 {
        assert_eq!(told(&cache, json("{}")).await, pair("hit;ttl=-5", "answer 1"));
        settle().await;
        assert_eq!(upstream.calls(), call);
    }
    advance(15 * SECOND).await;
    cache.clone().oneshot(json("{}")).await.expect_err("its time is over");
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_hangs_is_given_up_when_the_old_answer_is_too_old() {
    let upstream = Upstream::numbered().gated();
    let cache = cache(&timed().stale_while_revalidate(20 * SECOND), &upstream);
    upstream.gate.add_permits(1);
    read(&cache, json("{}")).await;
    advance(15 * SECOND).await;
    read(&cache, json("{}")).await;
    settle().await;
    assert_eq!(upstream.calls(), 2);
    advance(25 * SECOND).await;
    settle().await;
    upstream.gate.add_permits(1);
    assert_eq!(told(&cache, json("{}")).await, pair("fwd=miss;stored", "answer 3"));
}
