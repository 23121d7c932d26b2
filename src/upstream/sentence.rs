//! Times and numbers in sentences for people.

use std::time::Duration;

use super::{
    form::duration,
    number::{scaled, whole},
};

/// What stands behind these words, compared without regard to case.
pub(super) fn behind<'a>(text: &'a [u8], words: &str) -> Option<&'a [u8]> {
    let words = words.as_bytes();
    if words.is_empty() {
        return Some(text);
    }
    let at = text.windows(words.len()).position(|part| part.eq_ignore_ascii_case(words))?;
    Some(&text[at + words.len()..])
}

/// A time behind these words: `1m26.4s`, `5 minutes`, `1 hour and 5 minutes`, or a number of
/// seconds.
pub(super) fn time_behind(text: &[u8], words: &str) -> Option<Duration> {
    let rest = behind(text, words)?;
    let (first, mut rest) = piece(rest)?;
    let mut sum = first;
    while let Some((more, behind)) = further(rest) {
        (sum, rest) = (sum.saturating_add(more), behind);
    }
    Some(sum)
}

/// A number and its unit, and what stands behind them. Without a unit it is one of seconds.
fn piece(text: &[u8]) -> Option<(Duration, &[u8])> {
    let end = text.iter().position(|byte| !byte.is_ascii_alphanumeric() && *byte != b'.');
    let (time, rest) = text.split_at(end.unwrap_or(text.len()));
    let time = time.strip_suffix(b".").unwrap_or(time);
    if let Some(time) = duration(time) {
        return Some((time, b""));
    }
    match unit(rest) {
        Some((nanos, rest)) => Some((scaled(time, nanos)?, rest)),
        None => Some((scaled(time, SECOND)?, b"")),
    }
}

/// The next part of a time in words.
fn further(text: &[u8]) -> Option<(Duration, &[u8])> {
    let text = text.strip_prefix(b",").unwrap_or(text).trim_ascii_start();
    let text = text.strip_prefix(b"and ").unwrap_or(text);
    let end = text.iter().position(|byte| !byte.is_ascii_digit() && *byte != b'.')?;
    let (number, rest) = text.split_at(end);
    let (nanos, rest) = unit(rest)?;
    Some((scaled(number, nanos)?, rest))
}

/// The nanoseconds of the unit that is the next word, and what stands behind it.
fn unit(text: &[u8]) -> Option<(u64, &[u8])> {
    let text = text.trim_ascii_start();
    let end = text.iter().position(|byte| !byte.is_ascii_alphabetic());
    let (word, rest) = text.split_at(end.unwrap_or(text.len()));
    let word = word.to_ascii_lowercase();
    let nanos = match word.strip_suffix(b"s").unwrap_or(&word) {
        b"millisecond" => 1_000_000,
        b"sec" | b"second" => SECOND,
        b"min" | b"minute" => 60 * SECOND,
        b"hour" => 3_600 * SECOND,
        b"day" => 86_400 * SECOND,
        b"week" => 7 * 86_400 * SECOND,
        _ => return None,
    };
    Some((nanos, rest))
}

/// A whole number behind these words. There may be commas between its thousands.
pub(super) fn number_behind(text: &[u8], words: &str) -> Option<u64> {
    let mut rest = text;
    loop {
        rest = behind(rest, words)?;
        if let Some(number) = whole(&digits(rest)) {
            return Some(number);
        }
    }
}

/// The digits that a text begins with, without commas that have three digits behind them.
fn digits(text: &[u8]) -> Vec<u8> {
    let (first, mut rest) = split_digits(text);
    let mut all = first.to_vec();
    while let Some(behind) = rest.strip_prefix(b",") {
        let (more, behind) = split_digits(behind);
        if more.len() != 3 || !(1..=3).contains(&first.len()) {
            break;
        }
        all.extend_from_slice(more);
        rest = behind;
    }
    all
}

fn split_digits(text: &[u8]) -> (&[u8], &[u8]) {
    text.split_at(text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len()))
}

const SECOND: u64 = 1_000_000_000;
