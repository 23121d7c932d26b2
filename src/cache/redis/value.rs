//! What stands under an answer's name.
//!
//! ```text
//! kept for      in ms, 12 hexadecimal digits: how old it is follows from its time to live
//! fresh for     the same
//! answer        as `Answer::encode` writes it; the last 32 bytes are its digest
//! tag           16 bytes: HMAC-SHA-256 over the name, the times and the digest
//! ```

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use super::names::{Names, TAG};
use crate::cache::{
    answer::Answer,
    codec::{DIGEST, MalformedAnswer},
    found::Found,
};

/// The bytes of both times.
const TIMES: usize = 24;
/// What stands around an encoded answer.
pub(super) const AROUND: usize = TIMES + TAG;
/// What twelve digits can say: some 8,900 years.
pub(super) const LONGEST: u64 = (1 << 48) - 1;

/// Whole milliseconds, as many as can be said.
pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).min(LONGEST)
}

pub(super) fn write(names: &Names, name: &[u8], keep: u64, fresh: u64, encoded: &[u8]) -> Vec<u8> {
    let times = format!("{keep:012x}{fresh:012x}");
    let digest = &encoded[encoded.len() - DIGEST..];
    let tag = names.tag(name, [times.as_bytes(), digest]);
    [times.as_bytes(), encoded, &tag].concat()
}

/// Reads what stands under `name` and has `left` until it is gone.
pub(super) fn read(
    names: &Names,
    name: &[u8],
    value: Vec<u8>,
    left: u64,
    max_weight: usize,
) -> Result<Found, MalformedAnswer> {
    let mut value = Bytes::from(value);
    if value.len() < TIMES + DIGEST + TAG {
        return Err(MalformedAnswer::Foreign);
    }
    let times = value.split_to(TIMES);
    let tag = value.split_off(value.len() - TAG);
    let digest = &value[value.len() - DIGEST..];
    if !is_same(&names.tag(name, [&times, digest]), &tag) {
        return Err(MalformedAnswer::Foreign);
    }
    let keep = number(&times[..TIMES / 2]).ok_or(MalformedAnswer::Content)?;
    let age = keep.checked_sub(left).ok_or(MalformedAnswer::Content)?;
    let answer = Answer::decode(value, max_weight)?;
    // A millisecond more: both ends are rounded.
    Ok(Found::new(Arc::new(answer), Duration::from_millis(age.saturating_add(1))))
}

fn number(digits: &[u8]) -> Option<u64> {
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// Compares in a time that does not say where they differ.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |all, (a, b)| all | (a ^ b)) == 0
}
