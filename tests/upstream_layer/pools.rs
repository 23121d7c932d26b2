use http::{HeaderValue, request::Parts};
use std::time::Duration;

use tokio::time::Instant;
use tower::{Layer as _, ServiceExt as _};
use tower_quota::{
    Quota, Rejection,
    backend::LocalBuilder,
    upstream::{Account, Pool, Profile, UpstreamLayer},
};

use crate::{
    distant::Distant,
    support::{
        Answer, Paused, Provider, Store, account, ask, ask_all, left, millis, profile, question,
        with_tokens,
    },
};

fn key(key: &'static str) -> impl Fn(&mut Parts) + Send + Sync + 'static {
    move |parts| {
        parts.headers.insert("x-key", HeaderValue::from_static(key));
    }
}

fn keys(provider: &Provider) -> Vec<String> {
    let asked = provider.asked();
    let key = |headers: &http::HeaderMap| headers["x-key"].to_str().expect("text").to_owned();
    asked.iter().map(|asked| key(&asked.headers)).collect()
}

fn two() -> (Account<Store>, Account<Store>, Pool<Store>) {
    let (one, other) = (with_tokens(10_000), with_tokens(10_000));
    let pool = Pool::new().member(one.clone(), key("one")).member(other.clone(), key("other"));
    (one, other, pool)
}

#[tokio::test(start_paused = true)]
async fn the_keys_of_an_account_take_turns_and_share_its_quota() {
    let account = with_tokens(10_000);
    let pool = Pool::new().member(account.clone(), key("a")).member(account.clone(), key("b"));
    let provider = Provider::default();
    let client = provider.by(pool);
    for _ in 0..4 {
        ask_all(&client, question(10)).await;
    }
    assert_eq!(keys(&provider), ["a", "b", "a", "b"]);
}

/// Its body is dropped unread, which is no cut.
#[tokio::test(start_paused = true)]
async fn a_refusal_with_a_success_counts_as_one_where_another_is_asked_in_its_place() {
    let house: Profile = r#"
        name = "house"
        like = "openai"
        [[refusal]]
        status = [200]
        path = "error.code"
        is = "busy"
        class = "overloaded"
        [usage]
        output = ["usage.completion_tokens"]
        counts-on-failure = "nothing"
    "#
    .parse()
    .expect("a profile");
    let of = || {
        let store = LocalBuilder::new().build_with_clock(Paused::new());
        let account = Account::builder(house.clone()).backend(store).jitter(Duration::ZERO);
        let quota = Quota::per_hour(10_001);
        account.limit("requests", quota).limit("tokens", quota).build().expect("an account")
    };
    let (one, other) = (of(), of());
    let pool = Pool::new().member(one.clone(), key("one")).member(other.clone(), key("other"));
    let refusal = Answer::new(200, r#"{"error":{"code":"busy"}}"#);
    let provider = Provider::new([refusal.header("content-type", "application/json")]);
    assert_eq!(ask_all(&provider.by(pool), question(100)).await.0, 200);
    assert_eq!(keys(&provider), ["one", "other"]);
    assert_eq!(left(&one).await, 10_000);
}

#[tokio::test(start_paused = true)]
async fn a_request_goes_to_the_account_that_has_most_left() {
    let (_, _, pool) = two();
    let provider = Provider::new([Answer::new(400, "{}"), Answer::new(400, "{}")]);
    let client = provider.by(pool);
    ask_all(&client, question(5_000)).await;
    ask_all(&client, question(100)).await;
    assert_eq!(keys(&provider), ["one", "other"]);
}

#[tokio::test(start_paused = true)]
async fn where_one_has_not_enough_left_another_is_asked_at_once() {
    let (_, _, pool) = two();
    let provider = Provider::new([Answer::new(400, "{}"), Answer::new(400, "{}")]);
    let client = provider.by(pool);
    let begun = Instant::now();
    ask_all(&client, question(9_000)).await;
    ask_all(&client, question(9_000)).await;
    assert_eq!(keys(&provider), ["one", "other"]);
    assert!(begun.elapsed().is_zero());
}

#[tokio::test(start_paused = true)]
async fn a_refused_request_is_sent_again_as_it_was_by_another_account() {
    let (one, other, pool) = two();
    let refused = Answer::refused("slow down").header("retry-after", "60");
    let provider = Provider::new([refused, Answer::used(3)]);
    let client = provider.by(pool);
    let (status, _) = ask_all(&client, question(10)).await;
    assert_eq!(status, 200);
    assert_eq!(keys(&provider), ["one", "other"]);
    let asked = provider.asked();
    assert_eq!(asked[0].body, asked[1].body);
    assert!(one.notice("").stop.is_some() && other.notice("").stop.is_none());

    // The one that is stopped is not asked again.
    ask_all(&client, question(10)).await;
    assert_eq!(keys(&provider), ["one", "other", "other"]);
}

#[tokio::test(start_paused = true)]
async fn another_key_of_the_account_that_refused_is_not_tried() {
    let account = with_tokens(10_000);
    let pool = Pool::new().member(account.clone(), key("a")).member(account, key("b"));
    let provider = Provider::new([Answer::refused("slow down").header("retry-after", "60")]);
    let client = provider.by(pool);
    let (status, _) = ask_all(&client, question(10)).await;
    assert_eq!(status, 429);
    assert_eq!(provider.asked().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn where_all_refuse_the_last_refusal_is_the_answer() {
    let (_, _, pool) = two();
    let refused = |text| Answer::refused(text).header("retry-after", "60");
    let provider = Provider::new([refused("first"), refused("second")]);
    let client = provider.by(pool);
    let (status, body) = ask_all(&client, question(10)).await;
    assert_eq!(status, 429);
    assert!(body.contains("second"), "{body}");
}

#[tokio::test(start_paused = true)]
async fn an_empty_pool_refuses() {
    let client = Provider::default().by(Pool::new());
    let error = ask(&client, question(10)).await.expect_err("nobody can send it");
    assert!(Rejection::of(&*error).is_some());
}

#[tokio::test(start_paused = true)]
async fn where_no_other_account_can_send_it_the_refusal_is_the_answer() {
    let (_, other, pool) = two();
    let no_money = r#"{"error":{"type":"insufficient_quota","code":"insufficient_quota"}}"#;
    let broke = Provider::new([Answer::new(429, no_money)]).by(other);
    ask_all(&broke, question(10)).await;

    let refused = Answer::refused("slow down").header("retry-after", "60");
    let provider = Provider::new([refused]);
    let (status, body) = ask_all(&provider.by(pool), question(10)).await;
    assert_eq!(status, 429);
    assert!(body.contains("slow down"), "{body}");
    assert_eq!(keys(&provider), ["one"]);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_two_accounts_are_asked_for_waits_no_longer_than_one_that_one_is() {
    // Both have a longest wait of a minute.
    let (one, other, pool) = two();
    for (account, secs) in [(one, "40"), (other, "90")] {
        let refused = Answer::refused("slow down").header("retry-after", secs);
        ask_all(&Provider::new([refused]).by(account), question(10)).await;
    }
    let refused = Answer::refused("again").header("retry-after", "600");
    let provider = Provider::new([refused]);
    let begun = Instant::now();
    let (status, body) = ask_all(&provider.by(pool), question(10)).await;
    assert_eq!((status.as_u16(), body.contains("again")), (429, true), "{body}");
    assert_eq!(begun.elapsed().as_secs(), 40, "the other is not waited for");
}

/// A request that would go on to another account has as long for its turn as one that would not.
#[tokio::test(start_paused = true)]
async fn where_little_is_left_of_all_accounts_their_calls_go_in_turns() {
    let of = || account().limit("requests", Quota::per_minute(100)).build().expect("an account");
    let pool = Pool::new().member(of(), key("one")).member(of(), key("other"));
    let provider = Provider::default();
    let client = provider.by(pool);
    for _ in 0..180 {
        ask_all(&client, question(10)).await;
    }
    let begun = Instant::now();
    futures::future::join_all((0..10).map(|_| ask_all(&client, question(10)))).await;
    let asked = provider.asked();
    for name in ["one", "other"] {
        let of_it = asked[180..].iter().filter(|asked| asked.headers["x-key"] == name);
        let went: Vec<_> = of_it.map(|asked| asked.at - begun).collect();
        assert!(went.len() > 1, "both are asked");
        for pair in went.windows(2) {
            // There is room for one each six tenths of a second.
            assert!(pair[1] - pair[0] >= Duration::from_millis(449), "{name}: {went:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_has_no_time_left_for_a_turn_goes_at_once() {
    let account = account().limit("requests", Quota::per_minute(100)).max_wait(Duration::ZERO);
    let provider = Provider::default();
    let client = provider.by(account.build().expect("an account"));
    for _ in 0..90 {
        ask_all(&client, question(10)).await;
    }
    let begun = Instant::now();
    futures::future::join_all((0..5).map(|_| ask_all(&client, question(10)))).await;
    assert_eq!(provider.asked().len(), 95);
    assert!(begun.elapsed().is_zero());
}

#[tokio::test(start_paused = true)]
async fn the_keys_of_an_account_take_turns_whoever_is_asked_between() {
    let refused = || Answer::new(400, "{}");
    let (one, other) = (with_tokens(10_000), with_tokens(10_000));
    let pool =
        Pool::new().member(one.clone(), key("a")).member(one, key("b")).member(other, key("other"));
    let provider = Provider::new(std::array::from_fn::<_, 8, _>(|_| refused()));
    let client = provider.by(pool);
    for _ in 0..8 {
        ask_all(&client, question(1_000)).await;
    }
    let keys = keys(&provider);
    let of = |key: &str| keys.iter().filter(|own| *own == key).count();
    assert_eq!((of("a"), of("b"), of("other")), (2, 2, 4), "{keys:?}");
}

/// What was used comes back meanwhile.
#[tokio::test(start_paused = true)]
async fn a_request_goes_to_the_account_that_has_most_left_by_now() {
    let (_, _, pool) = two();
    let provider = Provider::new(std::array::from_fn::<_, 3, _>(|_| Answer::new(400, "{}")));
    let client = provider.by(pool);
    ask_all(&client, question(9_000)).await;
    // In five sixths of an hour five sixths of the limit.
    tokio::time::sleep(Duration::from_secs(3_000)).await;
    ask_all(&client, question(6_000)).await;
    ask_all(&client, question(100)).await;
    assert_eq!(keys(&provider), ["one", "other", "one"]);
}

/// To ask where nothing is left is a trip to the server for each call.
#[tokio::test(start_paused = true)]
async fn what_others_have_used_up_is_known_by_the_first_refusal() {
    let store = || LocalBuilder::new().build_with_clock(Paused::new());
    let of = |store: &Store| {
        let account = Account::builder(profile("openai")).jitter(Duration::ZERO);
        let account = account.limit("requests", Quota::per_hour(11));
        let account = account.backend(Distant::new(store.clone(), millis(10)));
        account.build().expect("the profile has it")
    };
    let (shared, own) = (store(), store());
    let provider = Provider::default();
    let elsewhere = UpstreamLayer::new(of(&shared)).layer(provider.clone());
    let pool = Pool::new().member(of(&shared), |_| ()).member(of(&own), |_| ());
    let here = UpstreamLayer::new(pool).layer(provider.clone());
    here.clone().oneshot(question(10)).await.expect("both are free");
    for _ in 0..9 {
        elsewhere.clone().oneshot(question(10)).await.expect("as many as there are");
    }
    let mut took = Vec::new();
    for _ in 0..4 {
        let begun = Instant::now();
        here.clone().oneshot(question(10)).await.expect("the other has room");
        took.push(begun.elapsed());
    }
    assert!(took[3] < millis(30), "one trip: {took:?}");
}
