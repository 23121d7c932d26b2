//! Limits of a day, in the provider's own time: those of Gemini begin anew at midnight in
//! California.

use std::time::Duration;

use tokio::time::Instant;
use tower_quota::{
    Quota, Rejection, RetryAfter,
    backend::LocalBuilder,
    time::Timestamp,
    upstream::{Account, AccountBuilder, Board, Class},
};

use crate::support::{
    Answer, Client, Paused, Provider, Store, ask, ask_all, millis, profile, question,
};

/// Midnights before days of 2026 in California, and how long those are: both clock changes, and the
/// last day.
const DAYS: [(u64, u64); 3] = [(1_772_956_800, 23), (1_793_516_400, 25), (1_798_704_000, 24)];

const SPENT: &str = r#"{"error":{"code":429,"message":"You exceeded your current quota. Please retry in 36.4s.","status":"RESOURCE_EXHAUSTED","details":[{"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[{"quotaMetric":"generativelanguage.googleapis.com/generate_content_free_tier_requests","quotaId":"GenerateRequestsPerDayPerProjectPerModel-FreeTier","quotaValue":"20"}]},{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"36s"}]}}"#;

/// An account that is used from this time on.
fn account(start: Timestamp, of_the_day: u64) -> AccountBuilder<Store> {
    let store = LocalBuilder::new().build_with_clock(Paused::starting_at(start));
    Account::builder(profile("gemini"))
        .backend(store)
        .board(Board::starting_at(start))
        .limit("requests", Quota::per_minute(600))
        .limit("requests-day", Quota::per_day(of_the_day))
        .max_wait(Duration::from_secs(30 * 3_600))
}

/// When eight calls went that came together after ninety others.
async fn eight_after_ninety(client: &Client, provider: &Provider) -> Vec<Duration> {
    for _ in 0..90 {
        ask_all(client, question(10)).await;
    }
    let begun = Instant::now();
    futures::future::join_all((0..8).map(|_| ask_all(client, question(10)))).await;
    provider.asked()[90..].iter().map(|asked| asked.at - begun).collect()
}

#[tokio::test(start_paused = true)]
async fn after_a_refusal_for_the_day_no_call_is_sent_before_the_providers_midnight() {
    for (midnight, hours) in DAYS {
        // One hour and a half of it is over. Somebody else has used what there was.
        let start = Timestamp::from_secs(midnight + 5_400);
        let end = Duration::from_secs(hours * 3_600 - 5_400);
        let provider = Provider::new([Answer::new(429, SPENT)]);
        let account = account(start, 10_000).build().expect("the profile has them");
        let client = provider.by(account.clone());
        let begun = Instant::now();
        assert_eq!(ask_all(&client, question(10)).await.0, 429);
        let stop = account.notice("").stop.expect("it holds");
        assert_eq!(stop.class, Class::Daily);
        let next = Timestamp::from_secs(midnight + hours * 3_600);
        assert_eq!(stop.until, Some(next), "not the 36 seconds that it says");

        // They come at any time of the day, and all go when the next begins: the twenty of which it
        // tells are enough for them.
        let later = (0..15_u64).map(|number| {
            let client = client.clone();
            async move {
                tokio::time::sleep(Duration::from_secs(number * 4_800)).await;
                ask_all(&client, question(10)).await.0
            }
        });
        for status in futures::future::join_all(later).await {
            assert_eq!(status, 200);
        }
        let asked = provider.asked();
        assert_eq!(asked.len(), 16);
        let first = asked[1..].iter().map(|asked| asked.at - begun).min().expect("fifteen");
        assert!((end..end + millis(1_000)).contains(&first), "{first:?} of {hours} hours");
    }
}

#[tokio::test(start_paused = true)]
async fn who_cannot_wait_for_midnight_is_told_when_it_is_and_sends_nothing() {
    let (midnight, hours) = DAYS[1];
    let start = Timestamp::from_secs(midnight + 60);
    let provider = Provider::new([Answer::new(429, SPENT)]);
    let account = account(start, 10_000).max_wait(Duration::from_secs(60));
    let client = provider.by(account.build().expect("the profile has them"));
    ask_all(&client, question(10)).await;
    for _ in 0..100 {
        let error = ask(&client, question(10)).await.expect_err("the day is spent");
        let Some(RetryAfter::After(wait)) = Rejection::of(&*error).and_then(Rejection::retry_after)
        else {
            panic!("{error}")
        };
        let day = Duration::from_secs(hours * 3_600 - 60);
        assert!((day - millis(1_000)..=day).contains(&wait), "{wait:?}");
    }
    assert_eq!(provider.asked().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_known_of_a_day_is_kept_without_a_refusal_and_is_there_anew_at_midnight() {
    for (midnight, hours) in DAYS {
        let start = Timestamp::from_secs(midnight + 3_600);
        let provider = Provider::default();
        let client = provider.by(account(start, 20).build().expect("the profile has them"));
        let begun = Instant::now();
        let asks = (0..21).map(|_| ask_all(&client, question(10)));
        futures::future::join_all(asks).await;
        let asked = provider.asked();
        let last = asked[20].at - begun;
        assert!(asked[19].at - begun < Duration::from_secs(60), "twenty are there");
        let end = Duration::from_secs((hours - 1) * 3_600);
        assert!((end..end + millis(1_000)).contains(&last), "{last:?} of {hours} hours");
    }
}

/// Calls of which two are under way when the day is over sooner than was known are both refused.
#[tokio::test(start_paused = true)]
async fn where_little_is_left_of_a_day_calls_go_in_turns_but_none_beyond_its_end() {
    let (midnight, hours) = DAYS[1];
    let end = midnight + hours * 3_600;
    // At noon, and two seconds before the end.
    for (start, apart) in [(midnight + 43_200, 500), (end - 2, 0)] {
        let provider = Provider::default();
        let account =
            account(Timestamp::from_secs(start), 100).build().expect("the profile has them");
        let client = provider.by(account);
        let went = eight_after_ninety(&client, &provider).await;
        assert!(went[7] <= millis(2_000) || apart > 0, "none is left for the next day: {went:?}");
        for pair in went.windows(2) {
            assert!(pair[1] - pair[0] >= millis(apart), "{went:?}");
        }
    }
}

/// What is held up after it was counted comes later than that: the window here is longer by as much.
#[tokio::test(start_paused = true)]
async fn where_little_is_left_of_a_long_window_calls_go_in_turns() {
    let start = Timestamp::from_secs(1_790_000_000);
    let store = LocalBuilder::new().build_with_clock(Paused::starting_at(start));
    let account = Account::builder(profile("cerebras"))
        .backend(store)
        .board(Board::starting_at(start))
        .limit("requests-day", Quota::per_day(100))
        .build()
        .expect("the profile has it");
    let provider = Provider::default();
    let client = provider.by(account);
    let went = eight_after_ninety(&client, &provider).await;
    for pair in went.windows(2) {
        assert!(pair[1] - pair[0] >= millis(500), "{went:?}");
    }
}
