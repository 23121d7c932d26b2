use std::time::Duration;

use http_body_util::BodyExt as _;
use tokio::time::Instant;
use tower_quota::{
    ConfigError, Quota, Rejection, RetryAfter,
    algorithm::Algorithm as _,
    backend::LocalBuilder,
    time::Timestamp,
    upstream::{Account, Board, Dimension, KnownLimit, Source},
};

use crate::support::{
    Answer, Client, Paused, Provider, Store, account, ask, ask_all, left, millis, profile,
    question, with_tokens,
};

fn told(limit: &str, remaining: &str) -> Answer {
    Answer::used(0)
        .header("x-ratelimit-limit-tokens", limit)
        .header("x-ratelimit-remaining-tokens", remaining)
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_until_its_limit_has_room_for_it() {
    let account = account().limit("tokens", Quota::per_minute(6_001)).build().expect("an account");
    let answers = std::array::from_fn::<_, 3, _>(|_| Answer::new(400, "{}"));
    let client = Provider::new(answers).by(account);
    let begun = Instant::now();
    ask_all(&client, question(3_000)).await;
    ask_all(&client, question(2_900)).await;
    assert_eq!(begun.elapsed(), Duration::ZERO);
    // A hundred tokens a second come back.
    ask_all(&client, question(1_100)).await;
    let waited = begun.elapsed();
    assert!((millis(9_900)..millis(10_200)).contains(&waited), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_request_larger_than_the_limit_is_refused_at_once() {
    let client = Provider::default().by(with_tokens(1_000));
    let error = ask(&client, question(2_000)).await.expect_err("it never fits");
    let rejection = Rejection::of(&*error).expect("it was not sent");
    assert_eq!(rejection.retry_after(), Some(RetryAfter::Never));
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_an_answer_tells_is_in_force_for_all_clones() {
    let account = with_tokens(100_000);
    let client = Provider::new([told("5001", "4900")]).by(account.clone());
    ask_all(&client, question(10)).await;
    let notice = account.clone().notice("");
    let known = &notice.limits[0];
    assert_eq!((&*known.name, known.limit, known.source), ("tokens", 5_001, Source::Told));
    ask(&client, question(6_000)).await.expect_err("the limit has fallen");
}

/// One of ten thousand that is back in less than a millisecond could be of ten thousand a second: calls
/// would go too fast by that, where they are of six.
#[tokio::test(start_paused = true)]
async fn no_window_is_inferred_from_a_time_that_is_cut_to_nothing() {
    let quota = Quota::new(10_000, Duration::from_secs(6)).expect("a quota");
    let account = account().limit("requests", quota).build().expect("an account");
    let answer = Answer::used(0)
        .header("x-ratelimit-limit-requests", "10000")
        .header("x-ratelimit-remaining-requests", "9999")
        .header("x-ratelimit-reset-requests", "0ms");
    let client = Provider::new([answer]).by(account.clone());
    ask_all(&client, question(10)).await;
    let known = &account.notice("").limits[0];
    assert_eq!((&*known.name, known.limit, known.source), ("requests", 10_000, Source::Told));
    assert_eq!(known.window, None, "so the one that was set stays");
}

#[tokio::test(start_paused = true)]
async fn limits_that_are_adopted_are_in_force_and_what_was_used_stays_used() {
    let account = with_tokens(1_000);
    let client = Provider::new([Answer::used(600)]).by(account.clone());
    // As much as is reserved for it: beyond that, room would be left for the next.
    ask_all(&client, question(599)).await;
    assert_eq!(left(&account).await, 400);
    account.adopt(&with_tokens(700));
    assert_eq!(left(&account).await, 100);
    ask(&client, question(300)).await.expect_err("the limit has fallen");
    account.adopt(&with_tokens(2_000));
    assert_eq!(left(&account).await, 1_400);
    ask(&client, question(1_300)).await.expect("the limit has risen");
}

#[tokio::test(start_paused = true)]
async fn what_answers_have_told_goes_before_what_is_adopted() {
    let account = with_tokens(100_000);
    let client = Provider::new([told("5001", "4900")]).by(account.clone());
    ask_all(&client, question(10)).await;
    account.adopt(&with_tokens(100_000));
    assert_eq!(account.notice("").limits[0].limit, 5_001);
    ask(&client, question(6_000)).await.expect_err("the provider has said so");
}

#[tokio::test(start_paused = true)]
async fn who_waits_is_looked_at_anew_when_limits_are_adopted() {
    let of = |limit| {
        let account = account().limit("tokens", Quota::per_minute(limit));
        account.max_wait(Duration::from_secs(60)).build().expect("an account")
    };
    let account = of(6_001);
    let answers = std::array::from_fn::<_, 2, _>(|_| Answer::new(400, "{}"));
    let client = Provider::new(answers).by(account.clone());
    ask_all(&client, question(6_000)).await;
    let begun = Instant::now();
    let change = async {
        tokio::time::sleep(millis(1_000)).await;
        assert_eq!(account.waiting(""), 1);
        account.adopt(&of(60_001));
    };
    tokio::join!(ask_all(&client, question(3_000)), change);
    let waited = begun.elapsed();
    assert!((millis(1_000)..millis(1_100)).contains(&waited), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn what_the_provider_says_is_left_lowers_what_is_counted_here_and_never_raises_it() {
    let account = with_tokens(100_000);
    let client =
        Provider::new([told("100001", "700"), told("100001", "90000")]).by(account.clone());
    ask_all(&client, question(10)).await;
    // What was reserved for the first comes back to it.
    let lowered = left(&account).await;
    assert!((700..=720).contains(&lowered), "{lowered}");
    ask_all(&client, question(10)).await;
    let after = left(&account).await;
    assert!(after <= lowered + 1, "{after}");
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_was_told_by_hand_is_in_force() {
    let account = with_tokens(100_000);
    let client = Provider::default().by(account.clone());
    account.tell("", KnownLimit::new("tokens", Dimension::Tokens, 500)).expect("it is counted");
    ask(&client, question(600)).await.expect_err("it never fits");
}

#[tokio::test(start_paused = true)]
async fn where_nothing_is_known_one_request_is_sent_and_then_one_more_for_each_answer() {
    let account = account().build().expect("an account");
    let slowly = || Answer::used(0).after(millis(100));
    let provider = Provider::new([slowly(), slowly(), slowly(), slowly(), slowly(), slowly()]);
    let client = provider.by(account);
    let begun = Instant::now();
    futures::future::join_all((0..6).map(|_| ask_all(&client, question(10)))).await;
    let at: Vec<_> = provider.asked().iter().map(|asked| (asked.at - begun).as_millis()).collect();
    let in_first = at.iter().filter(|at| **at < 100).count();
    let in_second = at.iter().filter(|at| (100..200).contains(*at)).count();
    assert_eq!((in_first, in_second), (1, 2), "{at:?}");
}

#[test]
fn a_limit_that_the_profile_does_not_have_is_an_error() {
    let error = account().limit("tokns", Quota::per_hour(1)).build().expect_err("a slip");
    assert!(error.to_string().contains("tokns"), "{error}");
}

fn known(limit: u64, source: Source, told: u64) -> KnownLimit {
    let mut known = KnownLimit::new("tokens", Dimension::Tokens, limit);
    (known.source, known.told) = (source, Timestamp::from_secs(told));
    known
}

#[test]
fn what_was_inferred_is_believed_for_some_minutes_and_then_what_answers_go_on_to_tell() {
    let board = Board::new();
    let limit = || board.notice("").limits[0].limit;
    board.post_limit("", known(10_000, Source::Told, 100));
    let mut inferred = known(4_000, Source::Inferred, 200);
    inferred.instead_of = Some(10_000);
    board.post_limit("", inferred.clone());
    board.post_limit("", known(10_000, Source::Told, 500));
    assert_eq!(limit(), 4_000, "a refusal spoke against it");
    board.post_limit("", known(10_000, Source::Told, 900));
    assert_eq!(limit(), 10_000, "nothing has spoken against it for ten minutes");
    board.post_limit("", inferred);
    assert_eq!(limit(), 10_000, "what comes late changes nothing");
}

#[test]
fn what_was_told_by_hand_goes_before_what_was_inferred_and_what_was_on_its_way() {
    let board = Board::new();
    let limit = || board.notice("").limits[0].limit;
    board.post_limit("", known(10_000, Source::Told, 100));
    let mut inferred = known(4_000, Source::Inferred, 200);
    inferred.instead_of = Some(10_000);
    board.post_limit("", inferred);
    board.post_limit("", known(10_000, Source::Configured, 201));
    assert_eq!(limit(), 10_000);
    board.post_limit("", known(5_000, Source::Told, 200));
    assert_eq!(limit(), 10_000, "that was sent before");
    board.post_limit("", known(5_000, Source::Told, 210));
    assert_eq!(limit(), 5_000, "the provider says so since");
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_is_raised_by_hand_just_after_an_answer_is_in_force() {
    let account = with_tokens(100_000);
    let client = Provider::new([told("5001", "4900")]).by(account.clone());
    ask_all(&client, question(10)).await;
    tokio::time::sleep(millis(500)).await;
    account.tell("", KnownLimit::new("tokens", Dimension::Tokens, 9_000)).expect("it is counted");
    let known = &account.notice("").limits[0];
    assert_eq!((known.limit, known.source), (9_000, Source::Configured));
}

/// An account at a provider that names its limits, and has a store with others.
fn naming(store: Store, told: &[&'static str]) -> Client {
    let account = Account::builder(profile("ietf")).backend(store).jitter(Duration::ZERO);
    let account = account.max_wait(millis(500)).build().expect("an account");
    let answers = told.iter().map(|told| Answer::used(0).header("ratelimit-policy", told));
    Provider::new(answers).by(account)
}

fn store() -> Store {
    LocalBuilder::new().build_with_clock(Paused::new())
}

/// Names as some providers have them, which are none of ours.
const Z: &str = r#""Fixed Z";q=5;w=3600"#;
const A_AND_Z: &str = r#""Fixed A";q=900;w=3600, "Fixed Z";q=5;w=3600"#;

/// By their names, its place is before the other's.
#[tokio::test(start_paused = true)]
async fn a_limit_that_is_named_later_takes_over_nothing_of_another() {
    let client = naming(store(), &[Z, Z, Z, A_AND_Z, A_AND_Z, A_AND_Z]);
    // Nothing is known of it when the first is sent.
    for _ in 0..6 {
        ask(&client, question(10)).await.expect("there is room");
    }
    ask(&client, question(10)).await.expect_err("five were sent");
}

#[tokio::test(start_paused = true)]
async fn instances_that_were_told_of_other_limits_count_one_by_its_name() {
    let store = store();
    let one = naming(store.clone(), &[Z; 9]);
    let other = naming(store, &[A_AND_Z; 9]);
    for client in [&one, &one, &one, &other, &other, &other, &one] {
        ask(client, question(10)).await.expect("there is room");
    }
    ask(&one, question(10)).await.expect_err("five were sent");
    ask(&other, question(10)).await.expect_err("five were sent");
}

/// Of a provider whose windows move: what is used of one does not come back at once.
fn windowed(store: Store, requests: Option<u64>) -> Account<Store> {
    let account = Account::builder(profile("mistral")).backend(store).jitter(Duration::ZERO);
    let quota = requests.map(Quota::per_minute);
    let account =
        quota.into_iter().fold(account, |account, quota| account.limit("requests", quota));
    account.build().expect("an account")
}

async fn ask_times(account: &Account<Store>, times: usize) {
    let client = Provider::default().by(account.clone());
    for _ in 0..times {
        ask_all(&client, question(10)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_used_of_a_window_stays_used_however_large_its_limit_becomes() {
    let account = windowed(store(), Some(900));
    ask_times(&account, 5).await;
    for (limit, used) in [(1_500, 5), (900, 6), (100_000, 7)] {
        account.adopt(&windowed(store(), Some(limit)));
        assert_eq!(left(&account).await, limit - used);
        ask_times(&account, 1).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_used_of_a_window_before_its_limit_was_known_is_used_of_it() {
    let account = windowed(store(), None);
    ask_times(&account, 5).await;
    account.adopt(&windowed(store(), Some(10)));
    assert_eq!(left(&account).await, 5);
}

/// The limit of each has a state of another kind.
#[tokio::test(start_paused = true)]
async fn instances_that_know_a_limit_otherwise_or_not_at_all_forget_nothing_of_it() {
    let store = store();
    let of = |requests| windowed(store.clone(), requests);
    let (small, large, none) = (of(Some(900)), of(Some(1_500)), of(None));
    for (account, times) in [(&small, 3), (&large, 2), (&none, 4), (&small, 1)] {
        ask_times(account, times).await;
    }
    assert_eq!((left(&small).await, left(&large).await), (890, 1_490));
}

/// To it, what the others used of their bucket is idle at once.
#[tokio::test(start_paused = true)]
async fn an_instance_without_a_limit_empties_no_bucket_of_those_who_know_it() {
    let store = store();
    let of = |limit: Option<Quota>| {
        let account = Account::builder(profile("openai")).backend(store.clone());
        let account = account.jitter(Duration::ZERO);
        let account =
            limit.into_iter().fold(account, |account, quota| account.limit("tokens", quota));
        account.build().expect("an account")
    };
    let (knowing, none) = (of(Some(Quota::per_hour(1_001))), of(None));
    let answers = std::array::from_fn::<_, 1, _>(|_| Answer::used(600));
    ask_all(&Provider::new(answers).by(knowing.clone()), question(599)).await;
    assert_eq!(left(&knowing).await, 400);
    tokio::time::sleep(millis(1)).await;
    ask_times(&none, 3).await;
    assert_eq!(left(&knowing).await, 400);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_never_fits_takes_no_room_from_answers() {
    let account = with_tokens(10_000);
    let capacity = || account.limits("").algorithm().capacity().get(1);
    let client = Provider::new([Answer::used(600)]).by(account.clone());
    ask_all(&client, question(10)).await;
    let with_room = capacity();
    assert!(with_room < 9_900, "{with_room}");
    ask(&client, question(20_000)).await.expect_err("it never fits");
    assert_eq!(capacity(), with_room);
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    ask(&client, question(9_900)).await.expect("it fits without the room");
    assert!(capacity() >= 9_900);
}

#[tokio::test(start_paused = true)]
async fn an_account_that_knows_no_limit_any_more_sends_one_request_at_a_time() {
    let known = account().limit("tokens", Quota::per_hour(100_001)).build().expect("an account");
    let slowly = || Answer::used(0).after(millis(100));
    let provider = Provider::new([slowly(), slowly(), slowly()]);
    let client = provider.by(known.clone());
    known.adopt(&account().build().expect("an account"));
    let begun = Instant::now();
    futures::future::join_all((0..3).map(|_| ask_all(&client, question(10)))).await;
    let at = provider.asked().into_iter().map(|asked| asked.at - begun);
    assert_eq!(at.filter(|at| *at < millis(100)).count(), 1);
}

/// Nothing would be sent any more, and so nothing heard.
#[tokio::test(start_paused = true)]
async fn a_limit_of_nothing_that_is_told_ends_no_account() {
    let account = with_tokens(100_000);
    let client = Provider::new([told("0", "0")]).by(account.clone());
    ask_all(&client, question(10)).await;
    let answer = ask(&client, question(10)).await;
    answer.expect("it was answered well, whatever its fields say");

    let refused = r#"{"error":{"code":429,"message":"Quota exceeded, limit: 0","status":"RESOURCE_EXHAUSTED","details":[{"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[{"quotaId":"GenerateRequestsPerMinutePerProjectPerModel-FreeTier","quotaValue":"0"}]},{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"36s"}]}}"#;
    let account = Account::builder(profile("gemini")).backend(store()).build();
    let client = Provider::new([Answer::new(429, refused)]).by(account.expect("an account"));
    let begun = Instant::now();
    ask_all(&client, question(10)).await;
    ask(&client, question(10)).await.expect("the stop is over");
    assert!((millis(36_000)..millis(36_500)).contains(&begun.elapsed()));
}

/// One that has asked for nothing since then has a call under way all the same, whose settlement counts for
/// all.
#[tokio::test(start_paused = true)]
async fn when_a_limit_has_fallen_nobody_settles_by_the_old_one() {
    let (store, board) = (LocalBuilder::new().build_with_clock(Paused::new()), Board::new());
    let instance = || {
        let account = Account::builder(profile("openai")).backend(store.clone());
        let account = account.board(board.clone()).jitter(Duration::ZERO);
        account.limit("tokens", Quota::per_minute(60_000)).build().expect("the profile has it")
    };
    let (one, other) = (instance(), instance());
    let late = futures::stream::once(async {
        tokio::time::sleep(Duration::from_secs(10)).await;
        Ok::<_, std::convert::Infallible>(r#"{"usage":{"prompt_tokens":10,"completion_tokens":1}}"#)
    });
    let late = Answer::new(200, axum::body::Body::from_stream(late));
    let provider = Provider::new([Answer::used(50_000), late]);
    ask_all(&provider.by(one.clone()), question(10)).await;
    let answer = ask(&provider.by(other.clone()), question(10)).await.expect("an answer");
    one.tell("", KnownLimit::new("tokens", Dimension::Tokens, 6_000)).expect("it is counted");
    answer.into_body().collect().await.expect("a whole body");

    // Of some 50,000 a thousand comes back in ten seconds; by the old limit it would be ten thousand.
    let debt = one.standing("").await.expect("it answers").reset_after;
    assert!(debt >= Duration::from_secs(485), "{debt:?}");
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_nothing_counts_cannot_be_told() {
    let account = account().build().expect("an account");
    let told = |quota, name, dimension| account.tell(quota, KnownLimit::new(name, dimension, 5));
    let error = told("", "output", Dimension::OutputTokens).expect_err("it counts them together");
    assert!(matches!(&error, ConfigError::LimitNotCounted { .. }), "{error}");
    let error = told("", "own", Dimension::Concurrency).expect_err("no such limit of the profile");
    assert!(matches!(&error, ConfigError::LimitNotCounted { .. }), "{error}");
    let error = told("m", "tokens", Dimension::Tokens).expect_err("there is one quota for all");
    assert!(error.to_string().contains(".per_model()"), "{error}");
    assert_eq!(account.notice("").limits, []);
    told("", "own", Dimension::Tokens).expect("as the provider calls it");
    assert_eq!(account.notice("").limits.len(), 1);
}
