use std::time::Duration;

use tokio::time::Instant;
use tower_quota::{
    Quota, Rejection, RetryAfter,
    backend::LocalBuilder,
    time::Timestamp,
    upstream::{Account, AccountBuilder, Board, Class},
};

use crate::support::{
    Answer, Paused, Provider, account, ask, ask_all, millis, profile, question, with_tokens,
};

fn stop(secs: &str) -> Answer {
    Answer::refused("slow down").header("retry-after", secs)
}

#[tokio::test(start_paused = true)]
async fn after_a_refusal_nothing_is_sent_until_the_time_is_over() {
    let account = with_tokens(1_000_000);
    let provider = Provider::new([stop("7")]);
    let client = provider.by(account.clone());
    let begun = Instant::now();
    let (status, body) = ask_all(&client, question(10)).await;
    assert_eq!(status, 429, "the caller is told what the provider said");
    assert!(body.contains("slow down"));
    assert_eq!(account.notice("").stop.expect("it holds").class, Class::Transient);

    let (one, other) = tokio::join!(ask_all(&client, question(10)), ask_all(&client, question(10)));
    assert_eq!((one.0.as_u16(), other.0.as_u16()), (200, 200));
    let asked = provider.asked();
    for later in &asked[1..] {
        let waited = later.at - begun;
        assert!((millis(7_000)..millis(7_100)).contains(&waited), "{waited:?}");
    }
    assert!(account.notice("").stop.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_second_refusal_never_shortens_a_longer_stop() {
    let account = with_tokens(1_000_000);
    // Both are under way at once.
    let provider = Provider::new([stop("60").after(millis(10)), stop("1").after(millis(20))]);
    let client = provider.by(account.clone());
    let begun = Instant::now();
    tokio::join!(ask_all(&client, question(10)), ask_all(&client, question(10)));
    ask_all(&client, question(10)).await;
    let waited = provider.asked()[2].at - begun;
    assert!(waited >= millis(60_000), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn who_cannot_wait_so_long_is_told_until_when_the_stop_holds() {
    let account = account().max_wait(millis(500)).build().expect("an account");
    let provider = Provider::new([stop("7")]);
    let client = provider.by(account);
    ask_all(&client, question(10)).await;
    let begun = Instant::now();
    let error = ask(&client, question(10)).await.expect_err("it is stopped");
    let rejection = Rejection::of(&*error).expect("it was not sent");
    assert!(matches!(rejection, Rejection::Throttled(_)), "{rejection:?}");
    let Some(RetryAfter::After(wait)) = rejection.retry_after() else { panic!("{rejection:?}") };
    assert_eq!(begun.elapsed(), Duration::ZERO, "it is told at once");
    assert!((millis(6_900)..=millis(7_000)).contains(&wait), "{wait:?}");
    assert_eq!(provider.asked().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn who_waits_when_the_stop_comes_waits_on() {
    let account = with_tokens(1_000_000);
    let provider = Provider::new([stop("3").after(millis(100))]);
    let client = provider.by(account.clone());
    let begun = Instant::now();
    let first = ask_all(&client, question(10));
    // It is not known yet what the provider bears? It is: a limit was set. So both are sent.
    let (first, second) = tokio::join!(first, async {
        tokio::time::sleep(millis(150)).await;
        ask_all(&client, question(10)).await
    });
    assert_eq!((first.0.as_u16(), second.0.as_u16()), (429, 200));
    assert!(provider.asked()[1].at - begun >= millis(3_100));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_for_good_is_told_to_all_who_come_until_somebody_resumes() {
    let account = with_tokens(1_000_000);
    let body = r#"{"error":{"type":"insufficient_quota","code":"insufficient_quota"}}"#;
    let provider = Provider::new([Answer::new(429, body)]);
    let client = provider.by(account.clone());
    ask_all(&client, question(10)).await;
    let error = ask(&client, question(10)).await.expect_err("no waiting helps");
    assert!(matches!(Rejection::of(&*error), Some(Rejection::Throttled(_))), "{error}");
    assert_eq!(provider.asked().len(), 1);

    account.resume("");
    assert_eq!(ask_all(&client, question(10)).await.0, 200);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_too_large_stops_nobody_else() {
    let account = with_tokens(1_000_000);
    let provider =
        Provider::new([Answer::refused("Request too large for m: Limit 1, Requested 9")]);
    let client = provider.by(account.clone());
    assert_eq!(ask_all(&client, question(10)).await.0, 429);
    assert!(account.notice("").stop.is_none());
    let begun = Instant::now();
    assert_eq!(ask_all(&client, question(10)).await.0, 200);
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn an_overload_is_followed_by_one_request_at_a_time_and_changes_no_limit() {
    let account = with_tokens(1_000_000);
    let overloaded = Answer::new(503, "").header("retry-after", "2");
    let slowly = || Answer::used(0).after(millis(100));
    let provider = Provider::new([overloaded, slowly(), slowly(), slowly(), slowly()]);
    let client = provider.by(account.clone());
    let limits = account.limits("");
    ask_all(&client, question(10)).await;
    let begun = Instant::now();
    let asks = (0..4).map(|_| ask_all(&client, question(10)));
    futures::future::join_all(asks).await;
    let asked = provider.asked();
    let after: Vec<_> = asked[1..].iter().map(|asked| asked.at - begun).collect();
    assert!(after[0] >= millis(2_000), "{after:?}");
    assert!(after[1] >= after[0] + millis(100), "the second waits for the first: {after:?}");
    assert!(after[3] >= after[1], "{after:?}");
    assert_eq!(account.limits("").algorithm(), limits.algorithm());
}

#[tokio::test(start_paused = true)]
async fn of_an_account_with_limits_by_model_one_model_stops_alone() {
    let account = account().per_model().build().expect("an account");
    let provider = Provider::new([stop("60")]);
    let client = provider.by(account.clone());
    ask_all(&client, crate::support::question_of("large", 10)).await;
    assert!(account.notice("large").stop.is_some());
    let begun = Instant::now();
    ask_all(&client, crate::support::question_of("small", 10)).await;
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

/// The longest that a field can say is 136 years. Nobody could be sent until somebody resumes.
#[tokio::test(start_paused = true)]
async fn a_stop_that_is_longer_than_any_may_be_is_cut_for_all() {
    for (max_stop, longest) in [
        (None, AccountBuilder::DEFAULT_MAX_STOP),
        (Some(Duration::from_secs(600)), Duration::from_secs(600)),
    ] {
        let board = Board::new();
        let account = || {
            let account = account().board(board.clone()).max_wait(Duration::from_secs(30 * 3_600));
            let account = max_stop.into_iter().fold(account, AccountBuilder::max_stop);
            account.build().expect("an account")
        };
        let provider = Provider::new([stop("4294967295")]);
        let (here, there) = (provider.by(account()), provider.by(account()));
        let begun = Instant::now();
        assert_eq!(ask_all(&here, question(10)).await.0, 429);
        let (one, other) =
            tokio::join!(ask_all(&here, question(10)), ask_all(&there, question(10)));
        assert_eq!((one.0.as_u16(), other.0.as_u16()), (200, 200));
        for later in &provider.asked()[1..] {
            let waited = later.at - begun;
            assert!((longest..longest + millis(1_000)).contains(&waited), "{waited:?}");
        }
    }
}

/// A cap of a week or a month is a stop of that length where the profile says so, unless it was set
/// how long one may be.
#[tokio::test(start_paused = true)]
async fn a_cap_of_a_week_stops_until_it_begins_anew_and_is_refused_once() {
    let start = Timestamp::from_secs(1_775_044_800);
    let body = r#"{"error":{"code":"1310","message":"Weekly/Monthly Limit Exhausted. Your limit will reset at 2026-04-08 00:00:00"}}"#;
    for (max_stop, until) in [(None, 532_800), (Some(Duration::from_secs(86_400)), 86_400)] {
        let store = LocalBuilder::new().build_with_clock(Paused::starting_at(start));
        let account = Account::builder(profile("zhipu"))
            .backend(store)
            .board(Board::starting_at(start))
            .max_wait(Duration::from_secs(30 * 86_400));
        let account = max_stop.into_iter().fold(account, AccountBuilder::max_stop);
        let account = account.build().expect("an account");
        let provider = Provider::new([Answer::new(429, body)]);
        let client = provider.by(account);
        let begun = Instant::now();
        assert_eq!(ask_all(&client, question(10)).await.0, 429);
        assert_eq!(ask_all(&client, question(10)).await.0, 200);
        let waited = provider.asked()[1].at - begun;
        let until = Duration::from_secs(until);
        assert!((until..until + millis(1_000)).contains(&waited), "{waited:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_inside_of_a_stream_stops_no_longer_than_a_stop_may_be() {
    let account = account().max_stop(Duration::from_secs(600)).build().expect("an account");
    let body = "data: {\"error\":{\"code\":\"rate_limit_exceeded\",\"message\":\"Please try again in 9000h.\"}}\n\n";
    let provider =
        Provider::new([Answer::new(200, body).header("content-type", "text/event-stream")]);
    ask_all(&provider.by(account.clone()), question(10)).await;
    let before = account.notice("").stop.expect("it holds");
    tokio::time::sleep(Duration::from_secs(599)).await;
    assert_eq!(account.notice("").stop, Some(before));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(account.notice("").stop, None);
}

/// As it is read back from a server, some moments longer by another's clock.
#[tokio::test(start_paused = true)]
async fn an_overload_that_is_heard_of_again_is_no_second_one() {
    let account = account().limit("requests", Quota::per_minute(6_000)).build().expect("a limit");
    let overloaded = Answer::new(503, "{}").header("retry-after", "1");
    let provider = Provider::new([overloaded]);
    let client = provider.by(account.clone());
    ask_all(&client, question(10)).await;
    let mut again = account.notice("").stop.expect("it is overloaded");
    assert_eq!(again.class, Class::Overloaded);
    tokio::time::sleep(millis(1_010)).await;
    ask_all(&client, question(10)).await;

    // One has gone well, so that two may be under way.
    again.until = again.until.map(|until| until.saturating_add(millis(100)));
    account.halt("", again);
    tokio::time::sleep(millis(200)).await;
    let begun = Instant::now();
    provider.then([Answer::used(0).after(millis(100)), Answer::used(0).after(millis(100))]);
    tokio::join!(ask_all(&client, question(10)), ask_all(&client, question(10)));
    assert_eq!(begun.elapsed(), millis(100), "both at a time");
}

/// Each model of DashScope has a free grant of its own.
#[tokio::test(start_paused = true)]
async fn a_grant_of_one_model_that_is_used_up_stops_that_model_alone() {
    let store = LocalBuilder::new().build_with_clock(Paused::new());
    let account = Account::builder(profile("dashscope")).backend(store).per_model();
    let account = account.build().expect("an account");
    let spent = r#"{"code":"AllocationQuota.FreeTierOnly","message":"The free tier of the model has been exhausted."}"#;
    let provider = Provider::new([Answer::new(403, spent)]);
    let client = provider.by(account.clone());
    let of = |model| crate::support::question_of(model, 10);
    assert_eq!(ask_all(&client, of("large")).await.0, 403);
    let stop = account.notice("large").stop.expect("it holds");
    assert_eq!((stop.class, stop.until), (Class::Permanent, None));
    assert_eq!(ask_all(&client, of("small")).await.0, 200);
    ask(&client, of("large")).await.expect_err("its grant is used up");
    account.resume("large");
    assert_eq!(ask_all(&client, of("large")).await.0, 200);
}

/// What refuses them is the stop. That a window of a limit may be long says nothing of when they go.
#[tokio::test(start_paused = true)]
async fn all_who_have_the_time_wait_for_the_end_of_a_stop() {
    let start = Timestamp::from_secs(1_790_000_000);
    let store = LocalBuilder::new().build_with_clock(Paused::starting_at(start));
    let account = Account::builder(profile("gemini"))
        .backend(store)
        .board(Board::starting_at(start))
        .limit("requests", Quota::per_minute(1_000))
        .limit("requests-day", Quota::per_day(1_000))
        .max_wait(Duration::from_secs(10))
        .build()
        .expect("the profile has them");
    let provider = Provider::new([Answer::new(429, "{}").header("retry-after", "5")]);
    let client = provider.by(account);
    ask_all(&client, question(10)).await;
    let begun = Instant::now();
    let all = futures::future::join_all((0..20).map(|_| ask_all(&client, question(10)))).await;
    assert!(all.iter().all(|(status, _)| *status == 200), "{all:?}");
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
}
