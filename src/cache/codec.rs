//! Answers as bytes, for stores elsewhere.
//!
//! ```text
//! "TQA"             what it is
//! version           1
//! form              0: the content as it is; 1: packed by LZ4
//! length            of the content as it is, 4 bytes
//! content
//! SHA-256           over all before
//!
//! content           status (2 bytes), HTTP version (1), fresh for (seconds, nanoseconds),
//!                   length of the body + 1 or 0, fields of the head, parts to the end
//! part              twice the length of its data, the data; or
//!                   twice the number of its trailers + 1, their fields
//! fields            their number; for each twice the length of its name (+ 1 if it is sensitive),
//!                   the name, the length of its value, the value
//! ```
//!
//! Numbers without a size are in seven bits a byte, the least first (LEB128).

mod input;
mod malformed;
#[cfg(test)]
mod tests;

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode, Version};
use sha2::{Digest, Sha256};

use self::input::Input;
pub use self::malformed::MalformedAnswer;
use super::answer::{Answer, Head, Part};

const MAGIC: &[u8] = b"TQA";
const VERSION: u8 = 1;
const PLAIN: u8 = 0;
const PACKED: u8 = 1;
/// What stands before the content.
const PREFIX: usize = MAGIC.len() + 1 + 1 + 4;
/// What stands behind it.
pub(super) const DIGEST: usize = 32;
/// An LZ4 block of so many bytes cannot hold more than so many times as much.
#[cfg(feature = "cache-compression")]
const MOST_RATIO: usize = 255;

impl Answer {
    /// The answer as bytes, for a store elsewhere: its head, and its frames as they are.
    ///
    /// They are in clear, and whoever can write to the store can write others: their checksum finds
    /// damage, not forgery. There are never more of them than the answer [weighs](Self::weight).
    pub fn encode(&self) -> Vec<u8> {
        sealed(PLAIN, self.content())
    }

    /// The same, packed by LZ4 if that makes it smaller.
    #[cfg(feature = "cache-compression")]
    pub fn encode_packed(&self) -> Vec<u8> {
        let content = self.content();
        let length = content.len();
        let mut packed = content[..PREFIX].to_vec();
        packed.extend(lz4_flex::block::compress(&content[PREFIX..]));
        if packed.len() < length { sealed(PACKED, packed) } else { sealed(PLAIN, content) }
    }

    /// The answer that has these bytes, if it weighs `max_weight` at the most. Its frames are
    /// slices of them, where they are not packed.
    ///
    /// Whatever the bytes are, it takes no more memory than that, and no more time than it takes
    /// to read so much.
    ///
    /// # Errors
    ///
    /// The bytes are no answer, of another version, damaged, or too large an answer.
    pub fn decode(bytes: impl Into<Bytes>, max_weight: usize) -> Result<Self, MalformedAnswer> {
        let mut bytes = bytes.into();
        if bytes.len() < PREFIX + DIGEST || !bytes.starts_with(MAGIC) {
            return Err(MalformedAnswer::Foreign);
        }
        if bytes[MAGIC.len()] != VERSION {
            return Err(MalformedAnswer::Version);
        }
        if bytes.len() > max_weight {
            return Err(MalformedAnswer::TooLarge);
        }
        let digest = bytes.split_off(bytes.len() - DIGEST);
        if Sha256::digest(&bytes)[..] != digest[..] {
            return Err(MalformedAnswer::Damaged);
        }
        let prefix = bytes.split_to(PREFIX);
        let form = prefix[MAGIC.len() + 1];
        let length =
            prefix[MAGIC.len() + 2..].iter().fold(0, |n, byte| n << 8 | usize::from(*byte));
        if length > max_weight {
            return Err(MalformedAnswer::TooLarge);
        }
        let content = match form {
            PLAIN => bytes,
            PACKED => unpack(&bytes, length)?,
            _ => return Err(MalformedAnswer::Form),
        };
        if content.len() != length {
            return Err(MalformedAnswer::Content);
        }
        read(content, max_weight)
    }

    /// The content, behind a prefix that is to be finished.
    fn content(&self) -> Vec<u8> {
        let head = self.head();
        let mut out = Vec::with_capacity(self.weight());
        out.extend([0; PREFIX]);
        out.extend(head.status.as_u16().to_be_bytes());
        out.push(number_of(head.version));
        write_number(self.fresh_for().as_secs(), &mut out);
        write_number(u64::from(self.fresh_for().subsec_nanos()), &mut out);
        write_number(head.length.map_or(0, |length| length.saturating_add(1)), &mut out);
        write_fields(&head.headers, 0, &mut out);
        for part in self.parts() {
            match part {
                Part::Data(data) => {
                    write_number((data.len() as u64) << 1, &mut out);
                    out.extend_from_slice(data);
                }
                Part::Trailers(trailers) => write_fields(trailers, 1, &mut out),
            }
        }
        let length = u32::try_from(out.len() - PREFIX).unwrap_or(u32::MAX);
        out[PREFIX - 4..PREFIX].copy_from_slice(&length.to_be_bytes());
        out
    }
}

/// Finishes the prefix and adds the digest.
fn sealed(form: u8, mut bytes: Vec<u8>) -> Vec<u8> {
    bytes[..MAGIC.len()].copy_from_slice(MAGIC);
    bytes[MAGIC.len()] = VERSION;
    bytes[MAGIC.len() + 1] = form;
    let digest = Sha256::digest(&bytes);
    bytes.extend(digest);
    bytes
}

#[cfg(feature = "cache-compression")]
fn unpack(bytes: &[u8], length: usize) -> Result<Bytes, MalformedAnswer> {
    // No room is made for what cannot be in there.
    if length > bytes.len().saturating_mul(MOST_RATIO) {
        return Err(MalformedAnswer::Content);
    }
    let content = lz4_flex::block::decompress(bytes, length);
    content.map(Bytes::from).map_err(|_| MalformedAnswer::Content)
}

#[cfg(not(feature = "cache-compression"))]
const fn unpack(_: &[u8], _: usize) -> Result<Bytes, MalformedAnswer> {
    Err(MalformedAnswer::Form)
}

fn read(content: Bytes, max_weight: usize) -> Result<Answer, MalformedAnswer> {
    let mut input = Input::new(content, max_weight);
    let status = u16::from_be_bytes([input.byte()?, input.byte()?]);
    let status = StatusCode::from_u16(status).map_err(|_| MalformedAnswer::Content)?;
    let version = version_of(input.byte()?).ok_or(MalformedAnswer::Content)?;
    let (seconds, nanos) = (input.number()?, input.number()?);
    let nanos = u32::try_from(nanos).ok().filter(|nanos| *nanos < 1_000_000_000);
    let fresh_for = Duration::new(seconds, nanos.ok_or(MalformedAnswer::Content)?);
    let length = input.number()?.checked_sub(1);
    let count = input.number()?;
    if count & 1 == 1 {
        return Err(MalformedAnswer::Content);
    }
    let headers = input.fields(count >> 1)?;
    let head = Head { status, version, headers, length };
    input.weigh(head.weight())?;
    let mut parts = Vec::new();
    while !input.is_empty() {
        let number = input.number()?;
        let part = match number & 1 {
            0 => Part::Data(input.bytes(number >> 1)?),
            _ => Part::Trailers(input.fields(number >> 1)?),
        };
        input.weigh(part.weight())?;
        parts.push(part);
    }
    Ok(Answer::of_parts(head, parts.into(), fresh_for))
}

fn write_number(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn write_fields(fields: &HeaderMap, mark: u64, out: &mut Vec<u8>) {
    write_number((fields.len() as u64) << 1 | mark, out);
    for (name, value) in fields {
        let name = name.as_str();
        write_number((name.len() as u64) << 1 | u64::from(value.is_sensitive()), out);
        out.extend_from_slice(name.as_bytes());
        write_number(value.len() as u64, out);
        out.extend_from_slice(value.as_bytes());
    }
}

const VERSIONS: [Version; 5] =
    [Version::HTTP_09, Version::HTTP_10, Version::HTTP_11, Version::HTTP_2, Version::HTTP_3];

fn number_of(version: Version) -> u8 {
    // What is not known here is said to be what all understand.
    VERSIONS.iter().position(|known| *known == version).unwrap_or(2) as u8
}

fn version_of(number: u8) -> Option<Version> {
    VERSIONS.get(usize::from(number)).copied()
}
