use axum::body::Body;
use futures::FutureExt as _;
use http::Request;
use tokio_test::{assert_pending, task::spawn};
use tower_quota::Quota;

use crate::support::{
    Answer, Provider, account, ask, ask_all, left, millis, question, with_tokens,
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
