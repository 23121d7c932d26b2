use std::time::Duration;

use http::{HeaderMap, StatusCode};
use proptest::prelude::*;
use tower_quota::{
    Cost,
    time::Timestamp,
    upstream::{Answer, Class, Observation, Profile, Source, Standing, Ticket},
};

use crate::cases::cases;
use crate::support::{headers, ready};

const fn at(secs: u64) -> Timestamp {
    Timestamp::from_secs(1_775_044_800 + secs)
}

fn tokens(units: u64) -> Cost {
    Cost::new(1).with(1, units)
}

fn answer(
    profile: &str,
    status: u16,
    fields: &str,
    sent: Timestamp,
    received: Timestamp,
) -> Observation {
    let headers: HeaderMap = headers(fields);
    let status = StatusCode::from_u16(status).expect("a status");
    ready(profile).observe(&Answer { status, headers: &headers, body: b"", sent, received })
}

fn openai(remaining: u64, sent: Timestamp, received: Timestamp) -> Observation {
    let fields = format!("x-ratelimit-remaining-tokens: {remaining}");
    answer("openai", 200, &fields, sent, received)
}

#[test]
fn an_older_answer_changes_nothing() {
    let mut standing = Standing::new(&ready("openai"));
    let a = standing.send(at(1), Cost::ZERO);
    let b = standing.send(at(2), Cost::ZERO);
    standing.observe(Some(b), &openai(5, at(2), at(3)));
    standing.observe(Some(a), &openai(10, at(1), at(4)));
    assert_eq!(standing.left("tokens", at(4)), Some(5));
    standing.observe(Some(b), &openai(7, at(2), at(3)));
    assert_eq!(standing.left("tokens", at(4)), Some(5), "one that comes twice does not raise it");
}

#[test]
fn what_the_provider_has_not_seen_is_taken_off() {
    let mut standing = Standing::new(&ready("openai"));
    let tickets = [1, 2, 3].map(|secs| standing.send(at(secs), tokens(100)));
    standing.observe(Some(tickets[0]), &openai(1_000, at(1), at(4)));
    assert_eq!(standing.left("tokens", at(4)), Some(800));
    standing.answered(Some(tickets[1]));
    assert_eq!(standing.left("tokens", at(4)), Some(800), "it may have counted all the same");
    standing.observe(Some(tickets[2]), &openai(850, at(3), at(5)));
    assert_eq!(standing.left("tokens", at(5)), Some(850));
}

#[test]
fn an_answer_of_somebody_else_counts_by_its_time() {
    let mut standing = Standing::new(&ready("openai"));
    standing.send(at(1), tokens(100));
    standing.observe(None, &openai(1_000, at(2), at(3)));
    assert_eq!(standing.left("tokens", at(3)), Some(900), "it has no answer yet");
}

#[test]
fn what_is_rounded_is_taken_from_below() {
    let fields = "anthropic-ratelimit-input-tokens-remaining: 28000";
    let mut standing = Standing::new(&ready("anthropic"));
    standing.observe(None, &answer("anthropic", 200, fields, at(1), at(1)));
    assert_eq!(standing.left("input-tokens", at(1)), Some(27_500));
}

#[test]
fn the_reset_that_blocks_this_request_counts() {
    let fields = "x-ratelimit-limit-requests-day: 14400
                  x-ratelimit-remaining-requests-day: 14399
                  x-ratelimit-reset-requests-day: 33011.38
                  x-ratelimit-limit-tokens-minute: 60000
                  x-ratelimit-remaining-tokens-minute: 100
                  x-ratelimit-reset-tokens-minute: 11";
    let mut standing = Standing::new(&ready("cerebras"));
    standing.observe(None, &answer("cerebras", 200, fields, at(0), at(0)));
    assert_eq!(standing.admits(tokens(100), at(0)), Some(at(0)));
    assert_eq!(standing.admits(tokens(101), at(0)), Some(at(11)));
    assert_eq!(standing.admits(tokens(60_001), at(0)), None, "it never fits");
    assert_eq!(standing.left("tokens-minute", at(11)), Some(60_000));
}

#[test]
fn a_bucket_refills_meanwhile() {
    let fields = "x-ratelimit-limit-tokens: 60000
                  x-ratelimit-remaining-tokens: 30000
                  x-ratelimit-reset-tokens: 30s";
    let mut standing = Standing::new(&ready("openai"));
    standing.observe(None, &answer("openai", 200, fields, at(0), at(0)));
    assert_eq!(standing.left("tokens", at(10)), Some(40_000));
    assert_eq!(standing.admits(tokens(35_000), at(0)), Some(at(5)));
}

#[test]
fn limits_that_no_reset_is_told_of_begin_anew() {
    let fields = "x-ratelimit-limit-tokens: 1000
                  x-ratelimit-remaining-tokens: 0";
    let mut standing = Standing::new(&ready("azure-openai"));
    standing.observe(None, &answer("azure-openai", 200, fields, at(0), at(0)));
    assert_eq!(standing.admits(tokens(1), at(1)), Some(at(60)));
    assert_eq!(standing.left("tokens", at(60)), Some(1_000));
}

#[test]
fn limits_are_followed_and_say_how_they_are_known() {
    let mut standing = Standing::new(&ready("openai"));
    let known = |standing: &Standing| standing.limits()[1].limit;
    assert_eq!(known(&standing), None);
    standing.configure("tokens", 500, Duration::from_secs(60));
    assert_eq!(known(&standing), Some((500, Source::Configured)));
    for limit in [900, 300] {
        let fields = format!("x-ratelimit-limit-tokens: {limit}");
        standing.observe(None, &answer("openai", 200, &fields, at(limit), at(limit)));
        assert_eq!(known(&standing), Some((limit, Source::Told)));
    }
}

#[test]
fn a_window_that_was_inferred_stays() {
    let fields = |remaining: u64, reset: &str| {
        format!(
            "x-ratelimit-limit-tokens: 200000
             x-ratelimit-remaining-tokens: {remaining}
             x-ratelimit-reset-tokens: {reset}"
        )
    };
    let mut standing = Standing::new(&ready("openai"));
    standing.observe(None, &answer("openai", 200, &fields(199_221, "233ms"), at(0), at(0)));
    standing.observe(None, &answer("openai", 200, &fields(199_998, "0s"), at(1), at(1)));
    assert_eq!(standing.limits()[1].window, Some((Duration::from_secs(60), Source::Inferred)));
}

#[test]
fn a_request_that_never_fits_stops_no_other() {
    let mut standing = Standing::new(&ready("groq"));
    standing.observe(None, &answer("groq", 413, "", at(0), at(0)));
    assert_eq!(standing.stop(at(0)), None);
}

#[test]
fn what_no_waiting_helps_against_stops_until_somebody_resumes() {
    let mut standing = Standing::new(&ready("openrouter"));
    standing.observe(None, &answer("openrouter", 402, "", at(0), at(0)));
    standing.observe(None, &answer("openrouter", 429, "retry-after: 5", at(1), at(1)));
    assert_eq!(standing.stop(at(1_000_000)).map(|stop| stop.class), Some(Class::Permanent));
    assert_eq!(standing.admits(Cost::ONE, at(1_000_000)), None);
    standing.resume();
    assert_eq!(standing.admits(Cost::ONE, at(2)), Some(at(2)));
}

#[test]
fn an_overload_leaves_the_limit_as_it_was() {
    let mut standing = Standing::new(&ready("anthropic"));
    let fields = "anthropic-ratelimit-requests-limit: 50";
    standing.observe(None, &answer("anthropic", 200, fields, at(0), at(0)));
    standing.observe(None, &answer("anthropic", 529, "", at(1), at(1)));
    assert_eq!(standing.limits()[0].limit, Some((50, Source::Told)));
    assert_eq!(standing.admits(Cost::ONE, at(1)), Some(at(6)));
}

#[test]
fn answers_that_tell_nothing_are_kept_as_a_sum() {
    let mut standing = Standing::new(&ready("openai"));
    let first = standing.send(at(0), tokens(0));
    standing.observe(Some(first), &openai(1_000_000, at(0), at(0)));
    for secs in 0..10_000 {
        let ticket = standing.send(at(1).saturating_add(Duration::from_millis(secs)), tokens(7));
        standing.answered(Some(ticket));
    }
    assert_eq!(standing.left("tokens", at(11)), Some(1_000_000 - 70_000));
    assert!(format!("{standing:?}").len() < 500_000, "it does not grow with what was sent");
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn a_second_stop_never_shortens_the_first(waits in prop::collection::vec((1_u64..100, 0_u64..50), 1..20)) {
        let mut standing = Standing::new(&ready("openai"));
        let (mut now, mut end) = (0, 0);
        for (wait, pause) in waits {
            now += pause;
            let fields = format!("retry-after: {wait}");
            standing.observe(None, &answer("openai", 429, &fields, at(now), at(now)));
            end = end.max(now + wait);
            let until = standing.stop(at(now)).and_then(|stop| stop.until);
            prop_assert_eq!(until, (now < end).then(|| at(end)));
        }
    }

    /// A provider that takes requests in the order in which they are sent, and whose answers come in
    /// any order, or twice, or tell nothing, or never come. Its quota is of a day.
    #[test]
    fn what_is_left_is_never_more_than_the_provider_has(
        steps in prop::collection::vec((0_u8..5, 1_u64..50, any::<prop::sample::Index>()), 1..200)
    ) {
        let mut standing = Standing::new(&ready("openai"));
        let mut has = 10_000_u64;
        let mut open: Vec<(Ticket, u64, Timestamp)> = Vec::new();
        // As a simple mind has it: the answer to the latest request, and what came after it.
        let mut newest: Option<(u64, u64)> = None;
        let mut sent: Vec<(u64, bool)> = Vec::new();
        let mut order: Vec<usize> = Vec::new();
        let mut heard: Vec<(Ticket, u64, Timestamp)> = Vec::new();
        for (now, (step, units, index)) in (0..).zip(steps) {
            let now = at(0).saturating_add(Duration::from_millis(now));
            if step < 2 || open.is_empty() {
                if has < units { continue }
                has -= units;
                open.push((standing.send(now, tokens(units)), has, now));
                order.push(sent.len());
                sent.push((units, true));
            } else if step == 4 {
                // Once more, however old it is.
                if !heard.is_empty() {
                    let (ticket, remaining, then) = heard[index.index(heard.len())];
                    standing.observe(Some(ticket), &openai(remaining, then, now));
                }
            } else {
                let place = index.index(open.len());
                let (ticket, remaining, then) = open.remove(place);
                let number = order.remove(place);
                sent[number].1 = false;
                if step == 2 {
                    standing.answered(Some(ticket));
                } else {
                    standing.observe(Some(ticket), &openai(remaining, then, now));
                    heard.push((ticket, remaining, then));
                    if newest.is_none_or(|(newest, _)| newest < number as u64) {
                        newest = Some((number as u64, remaining));
                    }
                }
            }
            let left = standing.left("tokens", now);
            prop_assert!(left.is_none_or(|left| left <= has), "{left:?} of {has}");
            let simple = newest.map(|(newest, remaining)| {
                let unseen = (0..).zip(&sent).filter(|(number, (_, open))| *open || newest < *number);
                remaining.saturating_sub(unseen.map(|(_, (units, _))| units).sum())
            });
            prop_assert_eq!(left, simple);
        }
    }

    #[test]
    fn no_number_is_too_large(limit: u64, remaining: u64, window: u64, units: u64, secs: u64) {
        let text = "name = \"x\"\ndimensions = [\"requests\", \"tokens\"]\n[[limit]]\ndimension = \"tokens\"\nrefills = true\nlimit = \"l\"\nremaining = \"r\"\nreset = \"t\"\nform = \"seconds\"";
        let profile: Profile = text.parse().expect("a profile");
        let mut standing = Standing::new(&profile);
        standing.configure("tokens", limit, Duration::from_secs(window));
        let headers = headers(&format!("l: {limit}\nr: {remaining}\nt: {secs}"));
        let (sent, received) = (at(0), Timestamp::from_nanos(secs));
        let answer = Answer { status: StatusCode::OK, headers: &headers, body: b"", sent, received };
        standing.observe(None, &profile.observe(&answer));
        standing.send(Timestamp::MAX, tokens(units));
        for now in [Timestamp::MIN, at(0), Timestamp::from_nanos(window), Timestamp::MAX] {
            standing.left("tokens", now);
            standing.admits(tokens(units), now);
        }
    }
}
