//! Several limits at once, all or nothing: requests in each hour and day, tokens in each minute.
//! A refusal says which of them bound.
//!
//! ```sh
//! cargo run --example several_limits
//! ```

#![expect(clippy::print_stdout, reason = "an example talks to its reader")]

use tower::{BoxError, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_quota::{
    Cost, Key, PolicyName, Quota, QuotaLayer, Rejection,
    algorithm::{FixedWindow, Plan, SlidingWindow, TokenBucket},
};

/// A question to a language model, with the tokens that it may take.
struct Prompt {
    user: &'static str,
    tokens: u64,
}

/// The dimension of a cost that counts tokens; requests are the first one, as everywhere.
const TOKENS: usize = 1;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let [per_hour, per_day, tokens] =
        ["per-hour", "per-day", "tokens"].map(PolicyName::from_static);
    let plan = Plan::new()
        .limit(per_hour, TokenBucket::new(Quota::per_hour(60)).burst(4))
        .limit(per_day, FixedWindow::new(Quota::per_day(1_000)))
        .limit_on(TOKENS, tokens, SlidingWindow::new(Quota::per_minute(10_000)))
        .build()?;

    let layer = QuotaLayer::new(plan)
        .key(|prompt: &Prompt| Key::from(prompt.user))
        .cost(|prompt: &Prompt| Cost::ONE.with(TOKENS, prompt.tokens));
    let mut model = ServiceBuilder::new()
        .layer(layer)
        .service(service_fn(|_: Prompt| async { Ok::<_, BoxError>("an answer") }));

    for (user, tokens, expected) in [
        ("alice", 6_000, "answered"),
        ("alice", 6_000, "tokens"), // refused, so it takes no request either
        ("alice", 4_000, "answered"),
        ("alice", 0, "answered"),
        ("alice", 0, "answered"),
        ("alice", 0, "per-hour"), // the fifth at once
        ("bob", 6_000, "answered"),
        ("bob", 20_000, "tokens"), // more than a minute ever holds
    ] {
        let answer = model.ready().await?.call(Prompt { user, tokens }).await;
        let (outcome, text) = match answer {
            Ok(text) => ("answered".to_owned(), text.to_owned()),
            Err(error) => (which_bound(&error).ok_or("no refusal")?, error.to_string()),
        };
        println!("{user:>5}, {tokens:>6} tokens: {text}");
        assert_eq!(outcome, expected);
    }
    Ok(())
}

/// The name of the limit that refused.
fn which_bound(error: &BoxError) -> Option<String> {
    match Rejection::of(&**error)? {
        Rejection::OverLimit(denial) => denial.policy().map(|policy| policy.name.to_string()),
        _ => None,
    }
}
