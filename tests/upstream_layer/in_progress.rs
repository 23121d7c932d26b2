//! Limits on requests in progress, and limits that are not those of ordinary requests.

use std::time::Duration;

use http_body_util::BodyExt as _;
use tokio::time::{Instant, timeout};
use tower_quota::{
    ConfigError, Quota,
    backend::LocalBuilder,
    upstream::{Account, AccountBuilder},
};

use crate::support::{Answer, Paused, Provider, Store, ask, ask_all, millis, profile, question};

fn deepseek(most: u64) -> AccountBuilder<Store> {
    let store = LocalBuilder::new().build_with_clock(Paused::new());
    let account = Account::builder(profile("deepseek")).backend(store);
    account.limit("concurrency", Quota::per_second(most))
}

#[tokio::test(start_paused = true)]
async fn a_request_is_in_progress_until_its_answer_has_ended() {
    let provider = Provider::default();
    let client = provider.by(deepseek(2).build().expect("the profile has it"));
    let first = ask(&client, question(10)).await.expect("an answer");
    let second = ask(&client, question(10)).await.expect("an answer");
    let third = tokio::spawn({
        let client = client.clone();
        async move { ask_all(&client, question(10)).await }
    });
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(provider.asked().len(), 2, "the bodies of two are still open");

    let begun = Instant::now();
    drop(first);
    assert_eq!(third.await.expect("no panic").0, 200);
    assert_eq!(begun.elapsed(), Duration::ZERO, "it went as soon as there was room");
    drop(second);
}

#[tokio::test(start_paused = true)]
async fn never_are_more_in_progress_than_the_limit_and_all_come_to_their_turn() {
    let answers = (0..20).map(|number| match number % 3 {
        0 => Answer::new(500, "").after(millis(100)),
        1 => Answer::used(7).after(millis(100)).failing(),
        _ => Answer::used(7).after(millis(100)),
    });
    let provider = Provider::new(answers);
    let account = deepseek(4).build().expect("the profile has it");
    let client = provider.by(account.clone());
    let begun = Instant::now();
    let asks = (0..20).map(|_| async {
        if let Ok(answer) = ask(&client, question(10)).await {
            drop(answer.into_body().collect().await);
        }
    });
    futures::future::join_all(asks).await;
    // Five rounds of four, whether they end well or not.
    assert_eq!(begun.elapsed(), millis(500));
    let asked = provider.asked();
    for (index, later) in asked.iter().enumerate().skip(4) {
        assert!(later.at - asked[index - 4].at >= millis(100), "five at a time");
    }
    assert_eq!(account.waiting(""), 0);
}

#[tokio::test(start_paused = true)]
async fn a_larger_limit_that_is_adopted_lets_those_go_who_wait() {
    let provider = Provider::default();
    let account = deepseek(1).build().expect("the profile has it");
    let client = provider.by(account.clone());
    let first = ask(&client, question(10)).await.expect("an answer");
    let mut second = std::pin::pin!(ask(&client, question(10)));
    assert!(timeout(millis(1_000), second.as_mut()).await.is_err(), "it waits");
    account.adopt(&deepseek(2).build().expect("the profile has it"));
    let begun = Instant::now();
    second.await.expect("an answer");
    assert!(begun.elapsed() < millis(1), "{:?}", begun.elapsed());
    drop(first);
}

/// When two requests went that were asked for at once.
async fn two_at_once(provider: &Provider, client: &crate::support::Client) -> [Duration; 2] {
    let (before, begun) = (provider.asked().len(), Instant::now());
    provider.then([Answer::used(0).after(millis(100)), Answer::used(0).after(millis(100))]);
    tokio::join!(ask_all(client, question(10)), ask_all(client, question(10)));
    let asked = provider.asked();
    [asked[before].at - begun, asked[before + 1].at - begun]
}

#[tokio::test(start_paused = true)]
async fn where_the_only_limit_is_adopted_or_is_no_more_it_is_tried_out_or_trusted_at_once() {
    let of = |most| deepseek(most).build().expect("the profile has it");
    let unlimited = || {
        let store = LocalBuilder::new().build_with_clock(Paused::new());
        Account::builder(profile("deepseek")).backend(store).build().expect("an account")
    };
    let (known, unknown) = (of(500), unlimited());
    let provider = Provider::default();
    let client = provider.by(known.clone());
    assert_eq!(two_at_once(&provider, &client).await, [millis(0), millis(0)]);
    known.adopt(&unlimited());
    let [first, second] = two_at_once(&provider, &client).await;
    assert_eq!(first, millis(0));
    assert!(second >= millis(100), "nothing is known any more, and it went after {second:?}");

    let client = provider.by(unknown.clone());
    unknown.adopt(&of(500));
    assert_eq!(two_at_once(&provider, &client).await, [millis(0), millis(0)]);
}

#[test]
fn a_limit_that_nothing_would_count_is_no_limit_to_set() {
    let name = "priority-input-tokens";
    let account = Account::builder(profile("anthropic")).limit(name, Quota::per_minute(10_000));
    let error = account.build().expect_err("it does not bind ordinary requests");
    assert_eq!(error, ConfigError::LimitApart { name: name.into() });
    assert!(error.to_string().contains("without `apart`"), "{error}");
}
