//! A quota that begins anew at a provider's midnight, whatever the time is here, and also on a day
//! of 23 hours.
//!
//! ```sh
//! cargo run --features calendar,testing --example calendar_quota
//! ```

#![expect(clippy::print_stdout, reason = "an example talks to its reader")]

use std::{error::Error, time::Duration};

use tower_quota::{
    Decision, Key, Limiter, RetryAfter,
    algorithm::{Calendar, FixedWindow},
    backend::LocalBuilder,
    time::{ManualClock, Timestamp},
};

fn main() -> Result<(), Box<dyn Error>> {
    let limit = FixedWindow::calendar(1_500, Calendar::days("America/Los_Angeles")?);

    // In a program this is `SystemClock`; here a day passes at once. It begins on Saturday,
    // 2026-03-07, a quarter to midnight in California. That night the clocks go forward.
    let saturday = Timestamp::from_secs(1_772_955_900);
    let clock = ManualClock::starting_at(saturday);
    let limiter = Limiter::new(limit, LocalBuilder::new().build_with_clock(clock.clone()));
    let provider = Key::from("provider");

    let use_all = || {
        let taken = limiter.decide_now(&provider, 1_500)?;
        let next = limiter.decide_now(&provider, 1)?;
        match (taken.is_allowed(), next) {
            (true, Decision::Deny { retry_after: RetryAfter::After(wait), .. }) => Ok(wait),
            _ => Err(Box::<dyn Error>::from("the day has not 1,500 requests")),
        }
    };

    let until_midnight = use_all()?;
    println!("Saturday, 23:45: 1,500 used, the next in {} min", until_midnight.as_secs() / 60);
    assert_eq!(until_midnight, Duration::from_secs(15 * 60));

    clock.advance(until_midnight);
    let until_midnight = use_all()?;
    println!("Sunday,   00:00: 1,500 used, the next in {} h", until_midnight.as_secs() / 3_600);
    assert_eq!(until_midnight, Duration::from_secs(23 * 3_600));

    clock.advance(until_midnight);
    let until_midnight = use_all()?;
    println!("Monday,   00:00: 1,500 used, the next in {} h", until_midnight.as_secs() / 3_600);
    assert_eq!(until_midnight, Duration::from_secs(24 * 3_600));
    Ok(())
}
