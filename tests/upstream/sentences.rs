//! What refusals say to people.

use tower_quota::upstream::Class;

use crate::support::{in_ms, observe, report};

/// When to ask again, by a sentence behind "Please ".
fn wait(rest: &str) -> u64 {
    let body = format!(r#"{{"error":{{"message":"Slow down. Please {rest}","type":"tokens"}}}}"#);
    let stop = observe("openai", 429, "", &body).stop.expect("it refuses");
    assert_eq!(stop.class, Class::Transient);
    in_ms(stop.until.expect("it ends"))
}

#[test]
fn a_time_may_have_its_units_in_words() {
    let (minute, hour, day) = (60_000, 3_600_000, 86_400_000);
    let rows = [
        ("try again in 5 minutes.", 5 * minute),
        ("try again in 1 minute", minute),
        ("try again in 2 hours and 30 minutes.", 2 * hour + 30 * minute),
        ("try again in 1 hour, 20 min and 5 secs!", hour + 20 * minute + 5_000),
        ("try again in 1 minute 30 seconds", 90_000),
        ("try again in 1.5 hours.", 90 * minute),
        ("try again in 20 Seconds.", 20_000),
        ("try again in 350 milliseconds", 350),
        ("try again in an hour.", hour),
        ("try again in a minute.", minute),
        ("try again in 3 days", 3 * day),
        ("try again in 1 week.", 7 * day),
        ("try again in 1,200 seconds", 1_200_000),
        ("try again in 5-10 minutes", 10 * minute),
        ("try again in 5 - 10 minutes", 10 * minute),
        ("try again in 5– 10 minutes", 10 * minute),
        ("try again in 5 to 10 minutes", 10 * minute),
        ("try again in 1 or 2 hours", 2 * hour),
        ("try again in 20 - thank you", 20_000),
        // As before.
        ("try again in 9.816s. Visit", 9_816),
        ("try again in 1m26.4s.", 86_400),
        ("try again in 6m0s", 6 * minute),
        ("try again in 5m, or ask for more", 5 * minute),
        ("retry in 36.429760048s.", 36_430),
        ("please wait 42 seconds before you retry", 42_000),
        ("try again in 20. Thank you", 20_000),
        ("try again in 20", 20_000),
        ("try again in 30 s", 30_000),
        ("try again in 5 moments", 5_000),
        // It tells none, so it is the usual one.
        ("try again in a while", 1_000),
        ("try again in the next minute", 1_000),
    ];
    for (rest, expected) in rows {
        let told = wait(rest);
        assert!(told == expected || told + 1 == expected, "{rest}: {told}, not {expected}");
    }
}

#[test]
fn an_instant_is_no_time_from_now() {
    assert_eq!(wait("try again in 2026-04-01 13:00:00"), 1_000);
}

#[test]
fn a_limit_may_be_grouped_by_thousands() {
    let rows = [
        ("Limit 30,000, Used 8,554, Requested 23,082.", Some((30_000, 21_446))),
        ("Limit 1,000,000, Used 999_999, Requested 5.", Some((1_000_000, 1))),
        ("Limit 10000, Used 8554, Requested 3082.", Some((10_000, 1_446))),
        ("Limit 100, 200 more tomorrow, Used 100", Some((100, 0))),
        // What it is nobody knows.
        ("Limit 30k, Used 20k", None),
        ("Limit 30.5, Used 7", None),
        ("Limit 30 000, Used 7", None),
        ("Limit 3,00,000, Used 7", None),
        ("Limit of them all", None),
    ];
    for (text, expected) in rows {
        let message = format!("Rate limit reached on tokens per min (TPM): {text}");
        let body = format!(r#"{{"error":{{"message":"{message}","type":"tokens"}}}}"#);
        let seen = observe("openai", 429, "", &body);
        let told = seen.reports.iter().find(|report| report.name == "tokens");
        let told = told.and_then(|told| Some((told.limit?, told.remaining?)));
        assert_eq!(told, expected, "{text}");
    }
}

#[test]
fn a_limit_without_what_is_used_is_a_limit() {
    let body = r#"{"error":{"message":"on tokens per min (TPM): Limit 30,000. Ask later","type":"tokens"}}"#;
    let seen = observe("openai", 429, "", body);
    assert_eq!(report(&seen, "tokens").limit, Some(30_000));
}
