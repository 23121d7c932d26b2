//! Times and numbers in sentences for people.

use std::time::Duration;

use super::number::{scaled, whole};
use crate::http::RetryHint;

/// The time that a text begins with: `1m26.4s`, `5 minutes`, `1 hour and 20 min`, `an hour`, `20`.
/// A number without a unit is one of seconds. `None`: it begins with none, but with words, with a
/// date or a time of day.
pub(super) fn time(text: &[u8]) -> Option<Duration> {
    let mut rest = text.trim_ascii_start();
    if let Some(behind) = article(rest) {
        return scaled(b"1", unit(word(behind).0)?);
    }
    let mut sum: Option<Duration> = None;
    let mut is_range = false;
    while let Some((number, behind)) = quantity(rest) {
        let (name, after) = word(behind.trim_ascii_start());
        match (unit(name), upper(behind)) {
            (Some(nanos), _) => {
                let time = scaled(&number, nanos)?;
                sum = Some(sum.unwrap_or_default().saturating_add(time));
                rest = joined(after);
            }
            _ if sum.is_some() => break,
            // Of `5-10 minutes` the longer counts.
            (None, Some(next)) if !is_range => {
                is_range = true;
                rest = next;
            }
            (None, _) if is_range || !ends(behind) => return None,
            (None, _) => return scaled(&number, SECOND),
        }
    }
    sum.map(|sum| sum.min(RetryHint::MAX_WAIT))
}

/// The whole number that a text begins with: `30000`, `30,000`. `None` if it goes on in a way that
/// is none, or that nobody knows: `30k`, `30.5`, `30 000`. A limit that is too small by a thousand
/// would stop a fleet.
pub(super) fn amount(text: &[u8]) -> Option<u64> {
    let (number, behind) = grouped(text)?;
    let goes_on = matches!(behind, [b' ', next, ..] if next.is_ascii_digit());
    if ends(behind) && !goes_on { whole(&number) } else { None }
}

/// A number, perhaps with a fraction, and what is behind it.
fn quantity(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let (mut number, behind) = grouped(text)?;
    if let [b'.', fraction @ ..] = behind
        && let Some((fraction, behind)) = digits(fraction)
    {
        number.push(b'.');
        number.extend_from_slice(fraction);
        return Some((number, behind));
    }
    Some((number, behind))
}

/// Digits, perhaps in groups of thousands, without what parts those.
fn grouped(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let (first, mut rest) = digits(text)?;
    let mut number = first.to_vec();
    while let [b',' | b'_', behind @ ..] = rest
        && first.len() <= GROUP
        && let Some((group, behind)) = digits(behind)
        && group.len() == GROUP
    {
        number.extend_from_slice(group);
        rest = behind;
    }
    Some((number, rest))
}

fn digits(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

/// The second number of `5-10`, `5 - 10`, `5 to 10` or `5 or 10`, by what is behind the first.
fn upper(behind: &[u8]) -> Option<&[u8]> {
    let behind = behind.trim_ascii_start();
    let next = match word(behind) {
        (b"", _) => behind.strip_prefix(b"-").or_else(|| behind.strip_prefix(DASH))?,
        (b"to" | b"or", next) => next,
        _ => return None,
    };
    let next = next.trim_ascii_start();
    next.first().filter(|byte| byte.is_ascii_digit()).map(|_| next)
}

/// Whether a number ends before this, and is not a part of something else.
fn ends(behind: &[u8]) -> bool {
    match behind {
        [b' ', ..] | [] => true,
        [_, next, ..] if next.is_ascii_digit() => false,
        [byte, ..] => byte.is_ascii() && !byte.is_ascii_alphanumeric() && !b"%_".contains(byte),
    }
}

/// What stands behind `a` or `one`.
fn article(text: &[u8]) -> Option<&[u8]> {
    let (first, behind) = word(text);
    let is_one = [&b"a"[..], b"an", b"one"].iter().any(|one| first.eq_ignore_ascii_case(one));
    behind.strip_prefix(b" ").filter(|_| is_one).map(<[u8]>::trim_ascii_start)
}

fn word(text: &[u8]) -> (&[u8], &[u8]) {
    let is_letter = |byte: &u8| byte.is_ascii_alphabetic() || MICRO.contains(byte);
    let end = text.iter().position(|byte| !is_letter(byte)).unwrap_or(text.len());
    text.split_at(end)
}

/// What stands behind `, ` or ` and `, or nothing of that.
fn joined(text: &[u8]) -> &[u8] {
    let text = text.trim_ascii_start();
    let text = text.strip_prefix(b",").unwrap_or(text).trim_ascii_start();
    match word(text) {
        (joint, behind) if joint.eq_ignore_ascii_case(b"and") => behind.trim_ascii_start(),
        _ => text,
    }
}

/// The nanoseconds of a unit.
fn unit(name: &[u8]) -> Option<u64> {
    let name = name.to_ascii_lowercase();
    Some(match name.as_slice() {
        b"ns" => 1,
        b"us" | b"\xc2\xb5s" => 1_000,
        b"ms" | b"msec" | b"msecs" | b"millisecond" | b"milliseconds" => 1_000_000,
        b"s" | b"sec" | b"secs" | b"second" | b"seconds" => SECOND,
        b"m" | b"min" | b"mins" | b"minute" | b"minutes" => 60 * SECOND,
        b"h" | b"hr" | b"hrs" | b"hour" | b"hours" => 3_600 * SECOND,
        b"d" | b"day" | b"days" => 86_400 * SECOND,
        b"w" | b"week" | b"weeks" => 7 * 86_400 * SECOND,
        _ => return None,
    })
}

const SECOND: u64 = 1_000_000_000;
/// The bytes of the letter in `µs`.
const MICRO: [u8; 2] = [0xC2, 0xB5];
/// The dash of a range, which is longer than a hyphen.
const DASH: &[u8] = "\u{2013}".as_bytes();
/// The digits between two commas.
const GROUP: usize = 3;
