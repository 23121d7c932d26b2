//! Answers that say what cannot be so, as those of a proxy in between or of a new version may: no word of
//! theirs lets a line loose on a provider, or keeps it waiting for what never comes.

use std::time::Duration;

use axum::body::Body;
use tokio::time::Instant;
use tower::BoxError;
use tower_quota::{
    Quota,
    backend::LocalBuilder,
    time::Timestamp,
    upstream::{Account, AccountBuilder, Board},
};

use crate::support::{
    Answer, Paused, Provider, Store, account, ask, ask_all, left, millis, profile, question,
};

/// Midnight in California, of a day that has 24 hours.
const MIDNIGHT: u64 = 1_798_704_000;
const SPENT: &str = r#"{"error":{"code":429,"message":"You exceeded your current quota.","status":"RESOURCE_EXHAUSTED","details":[{"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[{"quotaMetric":"generativelanguage.googleapis.com/generate_content_free_tier_requests","quotaId":"GenerateRequestsPerDayPerProjectPerModel-FreeTier","quotaValue":"20"}]}]}}"#;
const BUSY: &str = r#"{"error":{"code":429,"message":"Slow down.","status":"RESOURCE_EXHAUSTED"}}"#;

fn gemini(start: Timestamp) -> AccountBuilder<Store> {
    let store = LocalBuilder::new().build_with_clock(Paused::starting_at(start));
    Account::builder(profile("gemini"))
        .backend(store)
        .board(Board::starting_at(start))
        .limit("requests", Quota::per_minute(6_000))
        .limit("requests-day", Quota::per_day(100_000))
        .max_wait(Duration::from_secs(30 * 3_600))
}

/// Sixty calls that come in six seconds, before a provider that refuses thirty times so. How many it had
/// refused after ten.
async fn refused_in_ten_seconds(refusal: impl Fn() -> Answer) -> usize {
    let provider = Provider::new((0..30).map(|_| refusal().after(millis(50))));
    let account = gemini(Timestamp::from_secs(MIDNIGHT + 5_400)).build().expect("limits");
    let client = provider.by(account);
    let all = (0..60).map(|number| {
        let client = client.clone();
        async move {
            tokio::time::sleep(millis(100) * number).await;
            ask_all(&client, question(10)).await
        }
    });
    let begun = Instant::now();
    futures::future::join_all(all).await;
    let asked = provider.asked();
    assert_eq!(asked.len(), 60, "all are answered");
    asked[..30].iter().filter(|asked| asked.at - begun < Duration::from_secs(10)).count()
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_says_to_wait_for_nothing_is_one_that_does_not_say_how_long() {
    let wait = |value: &'static str| move || Answer::new(429, BUSY).header("retry-after", value);
    let nothing = refused_in_ten_seconds(|| Answer::new(429, BUSY)).await;
    assert!(nothing <= 4, "after one, two, and four seconds: {nothing}");
    for value in ["0", "0.0", "Thu, 01 Jan 1970 00:00:00 GMT", "Wed, 21 Oct 2015 07:28:00 GMT"] {
        assert_eq!(refused_in_ten_seconds(wait(value)).await, nothing, "{value}");
    }
}

/// The body says what it is about, and until when. Nobody is sent meanwhile.
#[tokio::test(start_paused = true)]
async fn while_the_body_of_a_refusal_comes_by_and_by_nobody_is_sent() {
    let never = Body::from_stream(futures::stream::pending::<Result<bytes::Bytes, BoxError>>());
    let provider = Provider::new([Answer::new(429, never)]);
    let account = gemini(Timestamp::from_secs(MIDNIGHT + 5_400)).build().expect("limits");
    let client = provider.by(account);
    let all = (0..40).map(|number| {
        let client = client.clone();
        async move {
            tokio::time::sleep(millis(25) * number).await;
            // That of the first is not read: it never ends.
            ask(&client, question(10)).await.expect("an answer").status()
        }
    });
    let begun = Instant::now();
    futures::future::join_all(all).await;
    let asked = provider.asked();
    let is_late = |at: Duration| millis(100) < at && at < millis(1_000);
    let late: Vec<_> =
        asked.iter().map(|asked| asked.at - begun).filter(|at| is_late(*at)).collect();
    assert_eq!(late, [], "sent into a refusal");
    assert_eq!(asked.len(), 40, "all are sent in the end");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_the_day_before_does_not_cost_the_next_one() {
    // It went before midnight, and was refused behind it.
    let start = Timestamp::from_secs(MIDNIGHT - 1);
    let provider = Provider::new([Answer::new(429, SPENT).after(millis(2_500))]);
    let client = provider.by(gemini(start).build().expect("limits"));
    ask_all(&client, question(10)).await;
    let begun = Instant::now();
    assert_eq!(ask_all(&client, question(10)).await.0, 200);
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_provider_whose_midnight_is_some_moments_later_does_not_cost_the_day() {
    let start = Timestamp::from_secs(MIDNIGHT);
    let provider = Provider::new([Answer::new(429, SPENT)]);
    let client = provider.by(gemini(start).build().expect("limits"));
    ask_all(&client, question(10)).await;
    let begun = Instant::now();
    assert_eq!(ask_all(&client, question(10)).await.0, 200);
    assert!(begun.elapsed() < Duration::from_secs(120), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_tells_of_more_use_than_can_be_stops_nobody_for_longer_than_some_windows() {
    for used in [u64::MAX, 10_000_000_000_000, 100_000_000] {
        let provider = Provider::new([Answer::used(used)]);
        let account = account().limit("tokens", Quota::per_minute(60_000));
        let account = account.max_wait(Duration::from_secs(3_600)).build().expect("limits");
        let client = provider.by(account);
        ask_all(&client, question(10)).await;
        let begun = Instant::now();
        assert_eq!(ask_all(&client, question(10)).await.0, 200, "{used}");
        assert!(begun.elapsed() <= Duration::from_secs(961), "{used}: {:?}", begun.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_limit_below_what_was_just_answered_well_is_none() {
    for told in ["1", "9"] {
        let answer = Answer::used(0).header("x-ratelimit-limit-tokens", told);
        let provider = Provider::new([answer.header("x-ratelimit-remaining-tokens", told)]);
        let account = account().limit("tokens", Quota::per_minute(60_000));
        let account = account.build().expect("limits");
        let client = provider.by(account.clone());
        ask_all(&client, question(1_000)).await;
        assert_eq!(ask_all(&client, question(1_000)).await.0, 200, "{told}");
    }
}

#[tokio::test(start_paused = true)]
async fn more_that_is_left_than_there_is_makes_no_room() {
    let answer = Answer::used(1_000).header("x-ratelimit-limit-tokens", "60000");
    let answer = answer.header("x-ratelimit-remaining-tokens", "18446744073709551615");
    let provider = Provider::new([answer]);
    let account = account().limit("tokens", Quota::per_hour(60_001)).build().expect("limits");
    ask_all(&provider.by(account.clone()), question(10)).await;
    assert!(left(&account).await <= 59_000, "{}", left(&account).await);
}

/// The head says it, and the body takes its time.
#[tokio::test(start_paused = true)]
async fn after_a_refusal_that_says_how_long_all_go_however_slow_its_body_is() {
    let slowly = async {
        tokio::time::sleep(millis(300)).await;
        Ok::<_, BoxError>(bytes::Bytes::from_static(BUSY.as_bytes()))
    };
    let body = Body::from_stream(futures::stream::once(slowly));
    let refusal = Answer::new(429, body).header("retry-after", "2");
    let good = (0..20).map(|_| Answer::used(0).after(millis(500)));
    let provider = Provider::new([refusal].into_iter().chain(good));
    let account = gemini(Timestamp::from_secs(MIDNIGHT + 5_400)).build().expect("limits");
    let client = provider.by(account);
    assert_eq!(ask(&client, question(10)).await.expect("an answer").status(), 429);
    let begun = Instant::now();
    futures::future::join_all((0..20).map(|_| ask_all(&client, question(10)))).await;
    let asked = provider.asked();
    let first = asked[1].at - begun;
    assert!(millis(1_500) < first && first < millis(2_500), "{first:?}");
    assert!(asked[20].at - asked[1].at < millis(1_000), "{:?}", asked[20].at - asked[1].at);
}
