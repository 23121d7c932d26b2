//! A provider that is down, where another account can be asked.

use std::time::Duration;

use http::{HeaderValue, request::Parts};
use tower::{Layer as _, util::Oneshot};
use tower_quota::{
    Quota,
    backend::LocalBuilder,
    upstream::{Account, Pool, UpstreamLayer},
};

use crate::{
    distant::Distant,
    support::{
        Answer, Client, Paused, Provider, Store, account, ask, ask_all, left, millis, profile,
        question, with_tokens,
    },
};

fn key(key: &'static str) -> impl Fn(&mut Parts) + Send + Sync + 'static {
    move |parts| {
        parts.headers.insert("x-key", HeaderValue::from_static(key));
    }
}

/// The one has more left and is asked first.
fn two() -> Pool<Store> {
    Pool::new().member(with_tokens(10_000), key("one")).member(with_tokens(5_000), key("other"))
}

fn failing_over(provider: &Provider, pool: Pool<Store>) -> Client {
    UpstreamLayer::new(pool).fail_over().layer(provider.clone())
}

fn asked(provider: &Provider) -> Vec<String> {
    let key = |headers: &http::HeaderMap| headers["x-key"].to_str().expect("text").to_owned();
    provider.asked().iter().map(|asked| key(&asked.headers)).collect()
}

fn failure() -> Answer {
    Answer::new(200, "").failing()
}

#[tokio::test(start_paused = true)]
async fn another_account_is_asked_where_the_provider_of_one_fails() {
    for down in [failure(), Answer::new(500, "{}"), Answer::new(502, ""), Answer::new(401, "{}")] {
        let status = down.status;
        let provider = Provider::new([down, Answer::used(7)]);
        let client = failing_over(&provider, two());
        assert_eq!(ask_all(&client, question(10)).await.0, 200, "{status}");
        assert_eq!(asked(&provider), ["one", "other"], "{status}");
        let bodies: Vec<_> = provider.asked().into_iter().map(|asked| asked.body).collect();
        assert_eq!(bodies[0], bodies[1], "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_last_one_says_is_the_answer_where_all_fail() {
    let provider = Provider::new([Answer::new(500, "one"), Answer::new(502, "other")]);
    let client = failing_over(&provider, two());
    assert_eq!(ask_all(&client, question(10)).await.0, 502);

    let provider = Provider::new([Answer::new(500, "one"), failure()]);
    let client = failing_over(&provider, two());
    assert!(ask(&client, question(10)).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn an_error_is_the_callers_unless_told_otherwise() {
    let provider = Provider::new([failure(), Answer::new(500, "{}")]);
    let client = provider.by(two());
    assert!(ask(&client, question(10)).await.is_err());
    assert_eq!(ask_all(&client, question(10)).await.0, 500);
    assert_eq!(asked(&provider).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_a_caller_did_wrong_is_asked_of_nobody_else() {
    for status in [400, 403, 404, 413, 422] {
        let provider = Provider::new([Answer::new(status, "{}")]);
        let client = failing_over(&provider, two());
        assert_eq!(ask_all(&client, question(10)).await.0, status);
        assert_eq!(asked(&provider), ["one"]);
    }
}

#[tokio::test(start_paused = true)]
async fn an_account_that_failed_rests_and_one_request_tries_it_again() {
    let provider = Provider::new([failure()]);
    let client = failing_over(&provider, two());
    for _ in 0..3 {
        ask_all(&client, question(10)).await;
    }
    assert_eq!(asked(&provider), ["one", "other", "other", "other"]);

    tokio::time::advance(Duration::from_secs(1)).await;
    provider.then([failure().after(Duration::from_millis(100))]);
    let (tries, meanwhile) =
        tokio::join!(ask_all(&client, question(10)), ask_all(&client, question(10)));
    assert!(tries.0.is_success() && meanwhile.0.is_success());
    assert_eq!(asked(&provider)[4..], ["one", "other", "other"]);

    // Twice as long.
    tokio::time::advance(Duration::from_millis(1_900)).await;
    ask_all(&client, question(10)).await;
    assert_eq!(asked(&provider)[7..], ["other"]);
    tokio::time::advance(Duration::from_millis(100)).await;
    ask_all(&client, question(10)).await;
    assert_eq!(asked(&provider)[8..], ["one"]);
}

#[tokio::test(start_paused = true)]
async fn an_account_that_rests_is_asked_where_there_is_no_other() {
    let provider = Provider::new([failure(), failure()]);
    let client = failing_over(&provider, two());
    assert!(ask(&client, question(10)).await.is_err());
    assert_eq!(ask_all(&client, question(10)).await.0, 200);

    // Nor where the other has no room for it.
    let provider = Provider::new([failure()]);
    let client = failing_over(&provider, two());
    assert_eq!(ask_all(&client, question(10)).await.0, 200);
    assert_eq!(ask_all(&client, question(6_000)).await.0, 200);
    assert_eq!(asked(&provider), ["one", "other", "one"]);
}

#[tokio::test(start_paused = true)]
async fn what_a_failed_request_reserved_counts_at_its_account() {
    let (one, other) = (with_tokens(10_000), with_tokens(5_000));
    let pool = Pool::new().member(one.clone(), key("one")).member(other.clone(), key("other"));
    let provider = Provider::new([failure(), Answer::used(7)]);
    ask_all(&failing_over(&provider, pool), question(100)).await;
    assert_eq!((left(&one).await, left(&other).await), (9_899, 4_993));
}

/// A call a second has room at the one; the other is stopped for half a minute.
#[tokio::test(start_paused = true)]
async fn who_waits_for_an_account_that_fails_meanwhile_goes_to_another() {
    let one = account().limit("requests", Quota::per_minute(60)).build().expect("an account");
    let other = with_tokens(100_000);
    let pool = Pool::new().member(one.clone(), key("one")).member(other.clone(), key("other"));
    let fill = Provider::default().by(one);
    for _ in 0..59 {
        ask_all(&fill, question(10)).await;
    }
    let stop = Answer::refused("slow down").header("retry-after", "30");
    ask_all(&Provider::new([stop]).by(other), question(10)).await;

    // All are in the line of the one before its provider fails.
    let provider = Provider::default();
    let down = provider.clone();
    let client = UpstreamLayer::new(pool).fail_over().layer(tower::service_fn(
        move |request: http::Request<_>| {
            let is_down = request.headers()["x-key"] == "one";
            let down = down.clone();
            async move {
                if is_down {
                    down.then([failure()]);
                }
                Oneshot::new(down, request).await
            }
        },
    ));
    let asks = (0..50).map(|_| async {
        let answer = Oneshot::new(client.clone(), question(10)).await;
        assert_eq!(answer.expect("the other answers").status(), 200);
    });
    futures::future::join_all(asks).await;
    let asked = asked(&provider);
    let of = |key: &str| asked.iter().filter(|asked| *asked == key).count();
    assert_eq!(of("other"), 50);
    // At the beginning, and after one second, two, four, and so on.
    assert!(of("one") <= 6, "{} were sent to one that is down", of("one"));
}

/// Whether it rests is looked at before its limit is asked for, and again when that has answered.
#[tokio::test(start_paused = true)]
async fn one_request_tries_an_account_again_whose_limit_takes_a_while_to_answer() {
    let of = |tokens| {
        let store = LocalBuilder::new().build_with_clock(Paused::new());
        let store = Distant::deciding_at_once(store, millis(5));
        let account = Account::builder(profile("openai")).backend(store).jitter(Duration::ZERO);
        account.limit("tokens", Quota::per_hour(tokens)).build().expect("an account")
    };
    let pool = Pool::new().member(of(10_000), key("one")).member(of(5_000), key("other"));
    let provider = Provider::new([failure()]);
    let client = UpstreamLayer::new(pool).fail_over().layer(provider.clone());
    Oneshot::new(client.clone(), question(10)).await.expect("the other answers");
    tokio::time::sleep(millis(1_100)).await;

    provider.then(std::iter::repeat_with(|| Answer::used(0).after(millis(100))).take(5));
    let asks = (0..5).map(|_| Oneshot::new(client.clone(), question(10)));
    for answer in futures::future::join_all(asks).await {
        assert_eq!(answer.expect("an answer").status(), 200);
    }
    let asked = asked(&provider);
    assert_eq!(asked[2..].iter().filter(|asked| *asked == "one").count(), 1, "{asked:?}");
}
