//! Limits that are set by hand: what cannot be kept as it was said is an error, with the way out.

use std::time::Duration;

use tower_quota::{
    Quota,
    backend::LocalBuilder,
    upstream::{Account, AccountBuilder, Profile},
};

use crate::support::{Answer, Paused, Provider, Store, ask, ask_all, left, profile, question};

fn of(profile: Profile) -> AccountBuilder<Store> {
    let store = LocalBuilder::new().build_with_clock(Paused::new());
    Account::builder(profile).backend(store).jitter(Duration::ZERO)
}

#[test]
fn a_limit_of_another_time_than_the_profile_has_it_is_an_error_that_names_the_one_that_is_meant() {
    let rows = [
        // Thirty a day, where thirty a minute were meant.
        ("groq", "requests", Quota::per_minute(30), Some("requests-minute")),
        // Five hundred a minute, where five hundred a day were meant.
        ("gemini", "requests", Quota::per_day(500), Some("requests-day")),
        ("gemini", "requests-day", Quota::per_minute(15), Some("requests")),
        ("mistral", "requests", Quota::per_second(1), None),
        ("mistral", "tokens", Quota::per_day(1_000_000), None),
        ("anthropic", "input-tokens", Quota::per_hour(1_000_000), None),
        // As much in the same time, but not as many at once.
        ("cerebras", "tokens-minute", Quota::per_second(1_000), None),
    ];
    for (name, limit, quota, instead) in rows {
        let of_all = of(profile(name)).limit(limit, quota).build();
        let of_a_model = of(profile(name)).model_limit("small", limit, quota).build();
        for error in [of_all, of_a_model].map(|built| built.expect_err(limit).to_string()) {
            let own = profile(name);
            let window = own.limits().find(|(own, ..)| *own == limit);
            let window = window.and_then(|(.., window)| window).expect("it has one");
            assert!(error.contains(&format!("{limit:?}")), "{error}");
            assert!(error.contains(&format!("{window:?}")), "{error}");
            assert!(error.contains(&format!("{:?}", quota.period())), "{error}");
            match instead {
                Some(instead) => assert!(error.contains(&format!("{instead:?}")), "{error}"),
                None => assert!(error.contains("a profile of your own"), "{error}"),
            }
        }
    }
}

#[test]
fn a_limit_of_the_time_that_the_profile_says_or_does_not_say_can_be_set() {
    let day = Duration::from_secs(86_400);
    for (name, limit, quota) in [
        ("groq", "requests-minute", Quota::per_minute(30)),
        ("groq", "requests", Quota::new(14_400, day).expect("a quota")),
        ("gemini", "requests-day", Quota::per_day(500)),
        ("openai", "requests", Quota::per_second(5)),
        ("openai", "requests", Quota::per_day(5)),
        ("openrouter", "requests", Quota::per_minute(20)),
        ("deepseek", "concurrency", Quota::per_hour(500)),
    ] {
        of(profile(name)).limit(limit, quota).build().expect(limit);
    }
}

#[test]
fn a_limit_of_what_the_profile_does_not_count_is_an_error() {
    // It has input and output apart.
    let tokens = of(profile("anthropic")).limit("tokens", Quota::per_minute(40_000));
    let error = tokens.build().expect_err("nothing would count it").to_string();
    for part in ["\"tokens\"", "input-tokens", "output-tokens"] {
        assert!(error.contains(part), "{error}");
    }
    let house: Profile = r#"
        name = "house"
        like = "openai"
        [[limit]]
        dimension = "images"
        limit = "x-ratelimit-limit-images"
    "#
    .parse()
    .expect("it can be read");
    let images = of(house).limit("images", Quota::per_minute(5));
    let error = images.build().expect_err("nothing would count it").to_string();
    assert!(error.contains("images") && error.contains("requests"), "{error}");
}

/// The windows of one profile are not those of another.
#[tokio::test(start_paused = true)]
async fn what_is_adopted_of_another_profile_holds_only_where_it_is_of_the_same_time() {
    let groq = of(profile("groq")).limit("requests-minute", Quota::per_minute(8));
    let groq = groq.limit("requests", Quota::per_day(10)).build().expect("an account");
    // Its `requests` are those of a minute, and it does not have the other.
    let mistral = of(profile("mistral")).limit("requests", Quota::per_minute(5));
    groq.adopt(&mistral.build().expect("an account"));
    let client = Provider::new((0..9).map(|_| Answer::used(0))).by(groq.clone());
    for _ in 0..9 {
        ask_all(&client, question(10)).await;
    }
    // One is left for who is late.
    ask(&client, question(10)).await.expect_err("nine of ten of the day were sent");
}

#[tokio::test(start_paused = true)]
async fn of_a_limit_that_is_set_twice_the_last_one_holds() {
    let account = of(profile("mistral")).limit("requests", Quota::per_minute(9));
    let account = account.limit("requests", Quota::per_minute(2)).build().expect("an account");
    assert_eq!(left(&account).await, 2);
    let account = of(profile("mistral")).model_limit("m", "requests", Quota::per_minute(9));
    let account = account.model_limit("m", "requests", Quota::per_minute(2));
    let account = account.build().expect("an account");
    assert_eq!(account.standing("m").await.expect("it answers").remaining, 2);
}

/// The family has the quota, so the limit would be nobody's.
#[test]
fn a_limit_of_a_model_that_is_counted_with_its_family_is_an_error() {
    let of = |model| of(profile("openai")).model_limit(model, "requests", Quota::per_minute(5));
    let built = of("big-2026-01-01").model_family("big").build();
    let error = built.expect_err("nothing would keep it").to_string();
    assert!(error.contains("big-2026-01-01") && error.contains("\"big\""), "{error}");
    of("big").model_family("big").build().expect("it is the limit of the family");
    let own = of("big-2026-01-01").model_family("big").model_family("big-2026-01-01");
    own.build().expect("it is a family of its own");
}
