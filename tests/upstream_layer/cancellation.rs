use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::body::Body;
use futures::FutureExt as _;
use http::Request;
use tokio_test::{assert_pending, task::spawn};
use tower::{Layer as _, ServiceExt as _, limit::ConcurrencyLimit};
use tower_quota::{
    Quota,
    backend::LocalBuilder,
    upstream::{Account, Pool, UpstreamLayer},
};

use crate::{
    distant::Distant,
    support::{
        Answer, Paused, Provider, account, ask, ask_all, left, millis, profile, question,
        with_tokens,
    },
};

#[tokio::test(start_paused = true)]
async fn a_request_that_is_dropped_while_its_body_is_read_costs_nothing() {
    let account = with_tokens(1_000);
    let provider = Provider::new([Answer::new(400, "{}")]);
    let client = provider.by(account.clone());
    ask_all(&client, question(100)).await;
    let body = Body::from_stream(futures::stream::pending::<Result<&str, std::io::Error>>());
    let mut asking = spawn(ask(&client, Request::new(body)));
    assert_pending!(asking.poll());
    drop(asking);
    assert_eq!(left(&account).await, 1_000 - 101);
    assert_eq!(provider.asked().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_dropped_while_it_waits_gives_its_place_back() {
    let account = account().limit("tokens", Quota::per_minute(601)).build().expect("an account");
    let provider = Provider::new([Answer::new(400, "{}")]);
    let client = provider.by(account.clone());
    ask_all(&client, question(590)).await;
    let mut first = spawn(ask(&client, question(500)));
    assert_pending!(first.poll());
    let mut second = spawn(ask(&client, question(20)));
    assert_pending!(second.poll());
    assert_eq!(account.waiting(""), 2);
    drop(first);
    assert_eq!(account.waiting(""), 1);
    assert!(second.is_woken(), "it is its turn to look");
    tokio::time::sleep(millis(2_500)).await;
    second.await.expect("an answer");
}

/// Where little is left requests go one after the other, half a second apart at the most.
#[tokio::test(start_paused = true)]
async fn a_request_that_is_dropped_before_its_turn_comes_gives_back_what_was_taken_for_it() {
    let account = with_tokens(1_000);
    let provider = Provider::new([Answer::new(400, "{}"), Answer::new(400, "{}")]);
    let client = provider.by(account.clone());
    ask_all(&client, question(899)).await;
    let mut second = spawn(ask(&client, question(49)));
    assert_pending!(second.poll());
    assert_eq!((left(&account).await, provider.asked().len()), (50, 1));
    drop(second);
    assert_eq!(left(&account).await, 100);
    let begun = tokio::time::Instant::now();
    ask_all(&client, question(29)).await;
    let waited = begun.elapsed();
    assert!(
        (millis(900)..=millis(1_001)).contains(&waited),
        "the turn before it stays: {waited:?}"
    );
    assert_eq!(provider.asked().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_dropped_after_it_was_sent_counts_as_reserved() {
    let account = with_tokens(1_000);
    let provider = Provider::new([Answer::used(0).after(millis(50))]);
    let client = provider.by(account.clone());
    let mut asking = spawn(ask(&client, question(100)));
    assert_pending!(asking.poll());
    assert_pending!(asking.poll());
    assert_eq!(provider.asked().len(), 1);
    drop(asking);
    assert_eq!(left(&account).await, 1_000 - 101);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_dropped_while_it_is_tried_out_lets_the_next_go() {
    let account = account().build().expect("an account");
    let provider = Provider::new([Answer::used(0).after(millis(60_000))]);
    let client = provider.by(account);
    let mut first = spawn(ask(&client, question(10)));
    assert_pending!(first.poll());
    let second = ask(&client, question(10));
    tokio::pin!(second);
    assert!(second.as_mut().now_or_never().is_none(), "one at a time");
    drop(first);
    let answer = tokio::time::timeout(millis(10), second).await;
    answer.expect("it is told at once").expect("an answer");
}

/// A caller that hung up inside the round trip cost the account what was reserved for it.
#[tokio::test(start_paused = true)]
async fn a_request_that_is_dropped_while_it_is_decided_on_gives_back_what_it_is_granted() {
    let store = LocalBuilder::new().build_with_clock(Paused::new());
    let store = Distant::deciding_at_once(store, millis(5));
    let account = Account::builder(profile("openai")).backend(store).jitter(Duration::ZERO);
    let account = account.limit("tokens", Quota::per_hour(1_001)).build().expect("an account");
    let provider = Provider::new([Answer::new(400, "{}")]);
    let client = UpstreamLayer::new(account.clone()).layer(provider.clone());
    client.clone().oneshot(question(100)).await.expect("an answer");
    let left = async || account.standing("").await.expect("it answers").remaining;
    let asking = client.oneshot(question(100));
    assert!(tokio::time::timeout(millis(2), asking).await.is_err(), "it is not decided yet");
    assert_eq!(left().await, 1_000 - 2 * 101, "it was taken");
    tokio::time::sleep(millis(20)).await;
    assert_eq!((left().await, provider.asked().len()), (1_000 - 101, 1));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_dropped_before_it_is_sent_on_costs_the_next_account_nothing() {
    let (one, other) = (with_tokens(1_000), with_tokens(900));
    let pool = Pool::new().member(one, |_| {}).member(other.clone(), |_| {});
    let provider = Provider::new([
        Answer::refused("Rate limit reached").header("retry-after", "60").after(millis(10)),
        Answer::used(0).after(millis(60_000)),
    ]);
    // One at a time, and the next is there already when the first is over.
    let layer = UpstreamLayer::new(pool);
    let client = layer.layer(ConcurrencyLimit::new(provider.clone(), 1));
    let mut first = spawn(client.clone().oneshot(question(100)));
    assert_pending!(first.poll());
    let mut second = spawn(client.clone().oneshot(question(100)));
    assert_pending!(second.poll());
    tokio::time::sleep(millis(10)).await;
    assert_pending!(first.poll(), "it may not be sent before the second is answered");
    assert_pending!(second.poll());
    assert_eq!((left(&other).await, provider.asked().len()), (900 - 2 * 101, 2));
    drop(first);
    assert_eq!(left(&other).await, 900 - 101, "the first was not sent");
}

/// Nobody waits for the rest of what it says, but all must know of it.
#[tokio::test(start_paused = true)]
async fn a_refusal_is_told_though_its_caller_goes_away_before_its_body_has_come() {
    let account = with_tokens(10_000);
    let endless = futures::stream::pending::<Result<&str, std::io::Error>>();
    let refused = Answer::new(429, Body::from_stream(endless)).header("retry-after", "60");
    let client = Provider::new([refused]).by(account.clone());
    let asked = tokio::time::timeout(millis(100), ask(&client, question(10))).await;
    assert!(asked.is_err(), "its body is waited for");
    let stop = account.notice("").stop.expect("it holds");
    let begun = tokio::time::Instant::now();
    ask_all(&client, question(10)).await;
    let waited = begun.elapsed();
    assert!((millis(59_800)..millis(60_100)).contains(&waited), "{waited:?} of {stop:?}");
}

/// A body whose length is told and of which nothing comes.
struct Stalled;

impl http_body::Body for Stalled {
    type Data = bytes::Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<bytes::Bytes>, Self::Error>>> {
        Poll::Pending
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(100)
    }
}

/// Of this provider it may be a refusal.
#[tokio::test(start_paused = true)]
async fn an_answer_whose_caller_goes_away_before_it_is_read_is_no_good_one() {
    let store = LocalBuilder::new().build_with_clock(Paused::new());
    let account = Account::builder(profile("openrouter")).backend(store).build();
    let stalled = Answer::new(200, Body::new(Stalled)).header("content-type", "application/json");
    let later = || Answer::used(0).after(millis(1_000));
    let provider = Provider::new([stalled, later(), later()]);
    let client = provider.by(account.expect("an account"));
    let asked = tokio::time::timeout(millis(100), ask(&client, question(10))).await;
    assert!(asked.is_err(), "its body is waited for");
    futures::future::join_all((0..2).map(|_| ask_all(&client, question(10)))).await;
    let asked = provider.asked();
    let pause = asked[2].at - asked[1].at;
    assert!(pause >= millis(1_000), "what it bears is not known: {pause:?}");
}
