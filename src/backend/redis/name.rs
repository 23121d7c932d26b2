//! Names of keys in the server.
//!
//! ```text
//! tq:login:{t.alice}                    the text "alice" of the limit "login"
//! tq:login:{n.42}   tq:login:{a.192.0.2.1}
//! tq:login:{h.nB3XbZkq4qk2Wc0m3mqj5Q}   something secret or long
//! tq:login:{17}:t.alice                 spread over tags
//! tq:login:{c.0}                        what a check takes from, and gives back
//! tq:login:{all}                        what all keys have together
//! ```
//!
//! What a user can choose is between our own braces and has none itself, so it can neither move a
//! key to another slot nor meet another key.

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
    num::NonZeroU16,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::{
    key::{Key, kind},
    name::PolicyName,
};

/// Makes the names of a limit's keys.
pub(super) struct Names {
    limit: PolicyName,
    /// The prefix and the limit: `tq:login:`.
    base: String,
    /// Begun with the secret.
    hash: Hmac<Sha256>,
    tags: Option<NonZeroU16>,
}

/// A key's content beyond this is not shown but hashed: names are stored with every key.
const MOST_SHOWN: usize = 64;

impl Names {
    /// Names of the keys of `limit`. What must not be seen is hashed under `secret`.
    pub(super) fn new(
        prefix: &PolicyName,
        limit: &PolicyName,
        secret: Option<&[u8]>,
        tags: Option<NonZeroU16>,
    ) -> Self {
        let base = format!("{prefix}:{limit}:");
        let secret = secret.unwrap_or(base.as_bytes());
        let hash = Hmac::new_from_slice(secret).expect("an HMAC takes a secret of any length");
        Self { limit: limit.clone(), base, hash, tags }
    }

    /// The name of `key`.
    pub(super) fn of(&self, key: &Key) -> Vec<u8> {
        let mut name = Vec::with_capacity(self.base.len() + MOST_SHOWN);
        name.extend_from_slice(self.base.as_bytes());
        name.push(b'{');
        let begin = name.len();
        self.show(key, &mut name);
        match self.tags {
            None => name.push(b'}'),
            Some(tags) => {
                let shown = name.split_off(begin);
                let tag = (u64::from(crc16(&shown)) * u64::from(tags.get())) >> 16;
                push_number(&mut name, tag);
                name.extend_from_slice(b"}:");
                name.extend(shown);
            }
        }
        name
    }

    /// The name of the mark that goes with the key of this name: of the same tag where keys are
    /// spread over tags, otherwise one for all of the limit. No key has it: what follows a tag or a
    /// limit is a colon or a brace for them.
    pub(super) fn mark(&self, name: &[u8]) -> Vec<u8> {
        let end = match self.tags {
            None => self.base.len(),
            Some(_) => name.iter().position(|&byte| byte == b'}').map_or(name.len(), |end| end + 1),
        };
        [&name[..end], b"began"].concat()
    }

    /// The name of a key that is nobody's.
    pub(super) fn reserved(&self, number: u32) -> Vec<u8> {
        format!("{}{{c.{number}}}", self.base).into_bytes()
    }

    /// The name of what all keys have together. No key has it: theirs have a dot, or are one
    /// letter.
    #[cfg(feature = "local")]
    pub(super) fn of_all(&self) -> Vec<u8> {
        format!("{}{{all}}", self.base).into_bytes()
    }

    /// By what `key` is told from others under one name. It says nothing of what is secret.
    #[cfg(feature = "local")]
    pub(super) fn digest(&self, key: &Key) -> [u8; 16] {
        let digest = self.hash.clone().chain_update(key.as_bytes()).finalize().into_bytes();
        std::array::from_fn(|at| digest[at])
    }

    /// The limit.
    pub(super) const fn limit(&self) -> &PolicyName {
        &self.limit
    }

    /// Adds what is shown of `key`. It is done for each decision: what keys mostly are is written
    /// without the machinery of formats.
    fn show(&self, key: &Key, name: &mut Vec<u8>) {
        let bytes = key.as_bytes();
        if key.is_secret() || bytes.len() > MOST_SHOWN {
            let digest = self.hash.clone().chain_update(bytes).finalize().into_bytes();
            name.extend_from_slice(b"h.");
            return name.extend(URL_SAFE_NO_PAD.encode(&digest[..16]).into_bytes());
        }
        match bytes {
            [] => name.push(b'g'),
            [kind::TEXT, text @ ..] => {
                name.extend_from_slice(b"t.");
                for &byte in text {
                    match byte {
                        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'@' => {
                            name.push(byte)
                        }
                        _ => {
                            name.push(b'%');
                            push_hex(name, byte);
                        }
                    }
                }
            }
            [kind::NUMBER, number @ ..] if number.len() == 8 => {
                name.extend_from_slice(b"n.");
                push_number(name, number.iter().fold(0, |sum, &byte| sum << 8 | u64::from(byte)));
            }
            [kind::ADDRESS, a, b, c, d] => {
                name.extend(format!("a.{}", Ipv4Addr::new(*a, *b, *c, *d)).into_bytes());
            }
            [kind::ADDRESS, address @ ..] if address.len() == 16 => {
                let bits = address.iter().fold(0_u128, |sum, &byte| sum << 8 | u128::from(byte));
                name.extend(format!("a.{}", Ipv6Addr::from_bits(bits)).into_bytes());
            }
            _ => {
                name.extend_from_slice(b"x.");
                bytes.iter().for_each(|&byte| push_hex(name, byte));
            }
        }
    }
}

/// Adds a number in its decimal digits.
fn push_number(name: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut begin = digits.len();
    loop {
        begin -= 1;
        digits[begin] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    name.extend_from_slice(&digits[begin..]);
}

/// Adds a byte in two hexadecimal digits.
fn push_hex(name: &mut Vec<u8>, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    name.extend([byte >> 4, byte & 15].map(|half| DIGITS[usize::from(half)]));
}

/// The slot of a name on a cluster, as its specification has it: that of the text between the first
/// `{` and the next `}` if there is any, otherwise of the whole.
pub(crate) fn slot(name: &[u8]) -> u16 {
    let tag = name.iter().position(|&byte| byte == b'{').and_then(|begin| {
        let tag = &name[begin + 1..];
        let end = tag.iter().position(|&byte| byte == b'}')?;
        (end > 0).then(|| &tag[..end])
    });
    crc16(tag.unwrap_or(name)) % 16_384
}

/// CRC-16/XMODEM.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, &byte| {
        (0..8).fold(crc ^ u16::from(byte) << 8, |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 }
        })
    })
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Names").field("base", &self.base).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, net::IpAddr};

    use super::*;

    fn names(tags: Option<u16>) -> Names {
        let (prefix, limit) = (PolicyName::from_static("tq"), PolicyName::from_static("login"));
        Names::new(&prefix, &limit, Some(b"pepper"), tags.and_then(NonZeroU16::new))
    }

    fn name(key: &Key) -> String {
        String::from_utf8(names(None).of(key)).expect("names are text")
    }

    #[test]
    fn a_key_can_be_read_where_it_may_be_seen() {
        assert_eq!(name(&Key::from("alice")), "tq:login:{t.alice}");
        assert_eq!(name(&Key::from(42)), "tq:login:{n.42}");
        assert_eq!(name(&Key::from(IpAddr::from([192, 0, 2, 1]))), "tq:login:{a.192.0.2.1}");
        assert_eq!(name(&Key::GLOBAL), "tq:login:{g}");
    }

    #[test]
    fn a_user_can_forge_neither_a_tag_nor_another_key() {
        assert_eq!(name(&Key::from("{x}1")), "tq:login:{t.%7bx%7d1}");
        assert_eq!(name(&Key::from("a b\r\n%é")), "tq:login:{t.a%20b%0d%0a%25%c3%a9}");
        let like = [
            Key::from("n.42"),
            Key::from(42),
            Key::from("42"),
            Key::new(b"\x0042"),
            Key::from(""),
            Key::GLOBAL,
            Key::anonymous(),
            Key::from("g"),
            Key::from("a.192.0.2.1"),
            Key::from(IpAddr::from([192, 0, 2, 1])),
            Key::join([&Key::from("a"), &Key::from("bc")]),
            Key::join([&Key::from("ab"), &Key::from("c")]),
            Key::from("%7b"),
            Key::from("{"),
        ];
        let different: HashSet<String> = like.iter().map(name).collect();
        assert_eq!(different.len(), like.len());
    }

    #[test]
    fn what_is_secret_or_long_is_hashed_under_the_secret() {
        let secret = name(&Key::secret("sk-123"));
        assert!(secret.starts_with("tq:login:{h.") && !secret.contains("123"), "{secret}");
        let long = name(&Key::from("x".repeat(1_000)));
        assert_eq!(long.len(), secret.len());
        let (prefix, limit) = (PolicyName::from_static("tq"), PolicyName::from_static("login"));
        let other = Names::new(&prefix, &limit, Some(b"salt"), None);
        assert_ne!(other.of(&Key::secret("sk-123")), secret.into_bytes());
    }

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(slot(b"123456789"), 12_739);
        assert_eq!(slot(b"foo"), 12_182);
        assert_eq!((slot(b"foo{bar}{zap}"), slot(b"bar")), (5_061, 5_061));
        assert_eq!(slot(b"foo{}{bar}"), 8_363);
        assert_eq!((slot(b"{}tq:{a}:1"), slot(b"{}tq:{a}:2")), (13_160, 779));
    }

    #[test]
    fn keys_are_spread_over_as_many_tags_as_were_asked_for() {
        let names = names(Some(8));
        let slots: HashSet<u16> =
            (0..1_000_u64).map(|key| slot(&names.of(&Key::from(key)))).collect();
        assert_eq!(slots.len(), 8);
    }
}
