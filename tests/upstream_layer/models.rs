//! Limits of single models, and of families of them.

use tower_quota::Quota;

use crate::support::{Answer, Provider, account, ask, ask_all, question_of, with_a_small_model};

#[tokio::test(start_paused = true)]
async fn a_model_has_the_limit_that_was_set_for_it() {
    let client = Provider::default().by(with_a_small_model());
    ask(&client, question_of("small", 200)).await.expect_err("it never fits");
    ask(&client, question_of("large", 200)).await.expect("there is room");
}

#[tokio::test(start_paused = true)]
async fn limits_of_a_model_are_adopted_too() {
    let of = |limit| {
        let account = account().limit("tokens", Quota::per_hour(1_001));
        account.model_limit("small", "tokens", Quota::per_hour(limit)).build().expect("an account")
    };
    let account = of(101);
    let client = Provider::default().by(account.clone());
    ask(&client, question_of("large", 500)).await.expect("it has the limit of all");
    ask(&client, question_of("small", 500)).await.expect_err("it has its own");
    account.adopt(&of(601));
    ask(&client, question_of("small", 500)).await.expect("its own is larger now");
}

#[tokio::test(start_paused = true)]
async fn a_model_with_a_limit_of_its_own_has_it_though_many_others_were_asked_for() {
    let client = Provider::default().by(with_a_small_model());
    for model in 0..300 {
        ask_all(&client, question_of(&format!("invented-{model}"), 10)).await;
    }
    ask(&client, question_of("small", 200)).await.expect_err("it never fits");
}

#[tokio::test(start_paused = true)]
async fn models_of_a_family_have_one_quota_and_others_their_own() {
    let account = account()
        .model_family("big")
        .model_family("big-mini")
        .model_limit("big", "tokens", Quota::per_hour(1_001))
        .build()
        .expect("an account");
    let client = Provider::new([Answer::new(400, "{}")]).by(account.clone());
    ask_all(&client, question_of("big-2026-01-01", 900)).await;
    ask(&client, question_of("big", 900)).await.expect_err("its family has used it");
    ask(&client, question_of("big-mini-2", 900)).await.expect("it is of another");
    ask(&client, question_of("small", 900)).await.expect("it is of none");
    let refused = Answer::refused("slow down").header("retry-after", "600");
    ask_all(&Provider::new([refused]).by(account.clone()), question_of("big-x", 10)).await;
    for model in ["big", "big-x", "big-2026-01-01"] {
        assert!(account.notice(model).stop.is_some(), "all of the family are stopped");
    }
    assert!(account.notice("big-mini-2").stop.is_none() && account.notice("").stop.is_none());
    account.resume("big-2026-01-01");
    assert!(account.notice("big").stop.is_none());
}

/// Whoever asks for models that nobody has heard of takes nothing from those that were named.
#[tokio::test(start_paused = true)]
async fn a_family_has_its_quota_though_many_others_were_asked_for() {
    let account = account().model_family("big").limit("tokens", Quota::per_hour(1_001));
    let refused = (0..301).map(|_| Answer::new(400, "{}"));
    let client = Provider::new(refused).by(account.build().expect("an account"));
    for model in 0..300 {
        ask_all(&client, question_of(&format!("invented-{model}"), 10)).await;
    }
    ask_all(&client, question_of("big-2026-01-01", 900)).await;
    ask(&client, question_of("big", 900)).await.expect_err("its family has used it");
    ask(&client, question_of("invented", 400)).await.expect("it is of another");
}
