//! What each layer promises, and whether the visits show that it was kept.
//!
//! A decision falls somewhere between a request's arrival and its start. What is counted against a
//! layer are only requests that were decided within the time in question *for certain*. So a slow
//! machine breaks no promise, and a broken one cannot hide but in the microseconds between.

use std::time::Duration;

use reqwest::StatusCode;
use tower_quota::time::Timestamp;

use crate::{client::Answer, server::Visit, stream};

#[derive(Clone, Copy)]
pub(crate) enum Promise {
    TokenBucket,
    LeakyBucket,
    FixedWindow,
    SlidingWindow,
}

/// A promise in words, what was measured, and whether that keeps it.
pub(crate) struct Verdict {
    pub(crate) kept: bool,
    pub(crate) promise: String,
    pub(crate) measured: String,
}

impl Verdict {
    fn new(kept: bool, promise: impl Into<String>, measured: impl Into<String>) -> Self {
        Self { kept, promise: promise.into(), measured: measured.into() }
    }
}

/// Every layer's limit, and the time from one turn of the leaky bucket to the next.
const LIMIT: u64 = 10;
const PERIOD: Duration = Duration::from_secs(1);
const TURN: Duration = Duration::from_millis(100);
const TENTH: Duration = Duration::from_millis(100);

/// The times from the arrival to the start of what was admitted, in order of arrival.
type Spans = Vec<(Timestamp, Timestamp)>;

pub(crate) fn judge(promise: Promise, visits: &[Visit]) -> Vec<Verdict> {
    let admitted: Spans =
        visits.iter().filter_map(|visit| Some((visit.arrived, visit.started?))).collect();
    match promise {
        Promise::TokenBucket => token_bucket(&admitted),
        Promise::LeakyBucket => vec![leaky_bucket(&admitted)],
        Promise::FixedWindow => fixed_window(&admitted),
        Promise::SlidingWindow => vec![sliding_window(&admitted)],
    }
}

fn token_bucket(admitted: &Spans) -> Vec<Verdict> {
    let refilled = |d: Duration| (LIMIT as u128 * d.as_nanos() / PERIOD.as_nanos()) as u64;
    let bursts = intervals(admitted).map(|(from, to)| {
        within(admitted, from, to).saturating_sub(refilled(to.saturating_since(from)))
    });
    let burst = bursts.max().unwrap_or(0);
    let busiest = busiest_second(admitted);
    vec![
        Verdict::new(
            burst <= LIMIT,
            "at most 10 + 10 × d in any time d",
            format!("above 10 × d: {burst} of 10"),
        ),
        Verdict::new(
            busiest <= 2 * LIMIT,
            "so at most 20 in any second",
            format!("busiest second: {busiest} of 20"),
        ),
    ]
}

/// Each start has a turn, a tenth of a second after the one before it or when its request comes,
/// whichever is later. It may be late, by the steps of the timer, but never early.
fn leaky_bucket(admitted: &Spans) -> Verdict {
    let mut starts: Vec<_> = admitted.iter().map(|(_, started)| *started).collect();
    starts.sort();
    let (mut turn, mut early, mut latest) = (Timestamp::MIN, 0, Duration::ZERO);
    for ((arrived, _), started) in admitted.iter().zip(starts) {
        turn = turn.saturating_add(TURN).max(*arrived);
        early += u32::from(started < turn);
        latest = latest.max(started.saturating_since(turn));
    }
    let latest = latest.as_secs_f64() * 1e3;
    let measured = format!("early: {early}, latest: +{latest:.1} ms");
    Verdict::new(early == 0, "a turn each 100 ms, no start before it", measured)
}

fn fixed_window(admitted: &Spans) -> Vec<Verdict> {
    let second = |at: Timestamp| u128::from(at.as_nanos()) / PERIOD.as_nanos();
    let fullest = admitted.iter().map(|(first, _)| {
        let in_same = |at: &Timestamp| second(*at) == second(*first);
        admitted.iter().filter(|(arrived, started)| in_same(arrived) && in_same(started)).count()
    });
    let fullest = fullest.max().unwrap_or(0);
    let busiest = busiest_second(admitted);
    vec![
        Verdict::new(
            fullest as u64 <= LIMIT,
            "at most 10 in each second of the clock",
            format!("fullest second: {fullest} of 10"),
        ),
        Verdict::new(
            busiest <= 2 * LIMIT,
            "so at most 20 across a border",
            format!("busiest second: {busiest} of 20"),
        ),
    ]
}

fn sliding_window(admitted: &Spans) -> Verdict {
    let busiest = busiest_second(admitted);
    let measured = format!("busiest second: {busiest} of 10");
    Verdict::new(busiest <= LIMIT, "at most 10 in any second", measured)
}

/// What all layers promise.
pub(crate) fn judge_all(answers: &[Answer], visits: &[Vec<Visit>]) -> Vec<Verdict> {
    let is_admitted = |answer: &&Answer| answer.status == StatusCode::OK;
    let steady = answers.iter().filter(|answer| answer.phase == stream::STEADY);
    let (sent, admitted) = (steady.clone().count(), steady.filter(is_admitted).count());
    let too_soon: usize = visits.iter().map(|visits| refused_too_soon(visits)).sum();

    let refused = answers.iter().filter(|answer| answer.status == StatusCode::TOO_MANY_REQUESTS);
    let told = refused.clone().filter(|answer| answer.retry_after.is_some()).count();
    let refused = refused.count();

    vec![
        Verdict::new(
            too_soon == 0,
            "who stays below the rate is not refused",
            // Where the machine stalls they come together, above the rate.
            format!("refused below it: {too_soon}; 8 a second: {admitted} of {sent}"),
        ),
        Verdict::new(
            told == refused,
            "a refusal says when to come back",
            format!("Retry-After: {told} of {refused}"),
        ),
    ]
}

/// How many were refused although for certain fewer than the limit were admitted in the second before, or in the
/// tenth of one before that: the sliding window counts by tenths.
fn refused_too_soon(visits: &[Visit]) -> usize {
    let refused = visits.iter().filter(|visit| visit.started.is_none());
    let too_soon = refused.filter(|refused| {
        let admitted = visits.iter().filter(|visit| {
            let counts_until = visit.started.map(|started| started.saturating_add(PERIOD + TENTH));
            counts_until.is_some_and(|until| until >= refused.arrived)
                && visit.arrived <= refused.left
        });
        (admitted.count() as u64) < LIMIT
    });
    too_soon.count()
}

/// Whether the client was told what the server saw: 200 for what was admitted, 429 for the rest.
pub(crate) fn is_what_was_told(visits: &[Visit], answers: &[Answer]) -> bool {
    let told = |status| answers.iter().filter(|answer| answer.status == status).count();
    let admitted = visits.iter().filter(|visit| visit.started.is_some()).count();
    told(StatusCode::OK) == admitted
        && told(StatusCode::TOO_MANY_REQUESTS) == visits.len() - admitted
}

fn busiest_second(admitted: &Spans) -> u64 {
    // The end is not part of it: a request that comes a second later is in the next one.
    let second = PERIOD - Duration::from_nanos(1);
    let counts =
        admitted.iter().map(|(from, _)| within(admitted, *from, from.saturating_add(second)));
    counts.max().unwrap_or(0)
}

/// How many were decided between `from` and `to` for certain.
fn within(admitted: &Spans, from: Timestamp, to: Timestamp) -> u64 {
    admitted.iter().filter(|(arrived, started)| *arrived >= from && *started <= to).count() as u64
}

/// From each arrival to each start.
fn intervals(admitted: &Spans) -> impl Iterator<Item = (Timestamp, Timestamp)> {
    admitted.iter().flat_map(|(from, _)| admitted.iter().map(|(_, to)| (*from, *to)))
}
