//! Whom a request is counted against.

use std::{
    fmt,
    hash::{Hash, Hasher},
    net::{IpAddr, Ipv4Addr},
};

/// Bytes that a key holds without an allocation.
const INLINE: usize = 38;

/// Whom a request is counted against: a user, an address, an API key, or several of them joined.
///
/// A key is a short string of bytes that says of which kind it is, so that keys of different kinds
/// are different: the number 7, the text `"7"` and a join of one part never meet. Up to 37 bytes
/// of content it is made, moved and compared without an allocation.
///
/// ```
/// use tower_quota::Key;
///
/// assert_ne!(Key::from("7"), Key::from(7));
/// assert_ne!(Key::join([&Key::from("a"), &Key::from("bc")]),
///            Key::join([&Key::from("ab"), &Key::from("c")]));
///
/// // What is secret stays out of logs.
/// assert_eq!(format!("{:?}", Key::secret("sk-123")), "Key(secret)");
/// ```
#[derive(Clone)]
pub struct Key {
    secret: bool,
    bytes: Bytes,
}

#[derive(Clone)]
enum Bytes {
    Inline { length: u8, bytes: [u8; INLINE] },
    Heap(Box<[u8]>),
}

/// The first byte of a key's bytes: the kind of what follows.
pub(crate) mod kind {
    pub(crate) const TEXT: u8 = 1;
    pub(crate) const NUMBER: u8 = 2;
    pub(crate) const ADDRESS: u8 = 3;
    pub(super) const JOIN: u8 = 4;
    pub(super) const PREFIX: u8 = 5;
}

impl Key {
    /// The one key of a limit that counts everything together. It has no bytes.
    pub const GLOBAL: Self =
        Self { secret: false, bytes: Bytes::Inline { length: 0, bytes: [0; INLINE] } };

    /// The key of whoever could not be told apart: requests without a key are counted under it.
    pub fn anonymous() -> Self {
        Self::of_kind(kind::JOIN, &[])
    }

    /// The key of these bytes, of any length.
    #[inline]
    pub fn new(bytes: impl AsRef<[u8]>) -> Self {
        Self::of_kind(kind::TEXT, bytes.as_ref())
    }

    /// The key of bytes that must not be seen: an API key, a session, an address to be kept
    /// private. It is counted like any other, but never shown. A store elsewhere knows it by a
    /// hash, so there the same bytes as a [plain](Self::new) key are another key.
    pub fn secret(bytes: impl AsRef<[u8]>) -> Self {
        Self { secret: true, ..Self::new(bytes) }
    }

    /// The key of a network: the first `length` bits of `address`.
    #[cfg(feature = "http")]
    pub(crate) fn prefix(address: IpAddr, length: u8) -> Self {
        let mut bytes = [0; 17];
        bytes[0] = length;
        let written = match address {
            IpAddr::V4(address) => write_at(&mut bytes[1..], &address.octets()),
            IpAddr::V6(address) => write_at(&mut bytes[1..], &address.octets()),
        };
        Self::of_kind(kind::PREFIX, &bytes[..=written])
    }

    /// The key of several keys together, in this order. Joins cannot collide: each part stands
    /// with its length. Secret if any part is.
    pub fn join<'k>(parts: impl IntoIterator<Item = &'k Self>) -> Self {
        let mut joined = Writer::new(kind::JOIN);
        let mut secret = false;
        for part in parts {
            let bytes = part.as_bytes();
            secret |= part.secret;
            joined.push_length(bytes.len());
            joined.push(bytes);
        }
        Self { secret, bytes: joined.finish() }
    }

    /// A key whose content is known to fit.
    #[inline]
    fn short<const N: usize>(kind: u8, content: [u8; N]) -> Self {
        const { assert!(N < INLINE) };
        let mut bytes = [0; INLINE];
        bytes[0] = kind;
        bytes[1..=N].copy_from_slice(&content);
        Self { secret: false, bytes: Bytes::Inline { length: 1 + N as u8, bytes } }
    }

    /// The key of an IPv4 address.
    #[inline(always)]
    fn ipv4(address: Ipv4Addr) -> Self {
        let octets = u64::from(address.to_bits().swap_bytes());
        Self::in_words(octets << 8 | u64::from(kind::ADDRESS), 0, 5)
    }

    /// The key of a number: in the order of its bytes from the greatest.
    #[inline(always)]
    fn number(number: u64) -> Self {
        let octets = number.swap_bytes();
        Self::in_words(octets << 8 | u64::from(kind::NUMBER), octets >> 56, 9)
    }

    /// A key from registers: put together byte by byte, it would have to be waited for by whoever
    /// reads it next, in words.
    #[inline(always)]
    fn in_words(first: u64, second: u64, length: u8) -> Self {
        let mut bytes = [0; INLINE];
        bytes[..8].copy_from_slice(&first.to_le_bytes());
        bytes[8..16].copy_from_slice(&second.to_le_bytes());
        Self { secret: false, bytes: Bytes::Inline { length, bytes } }
    }

    #[inline]
    fn of_kind(kind: u8, content: &[u8]) -> Self {
        if content.len() < INLINE {
            let mut bytes = [0; INLINE];
            bytes[0] = kind;
            bytes[1..=content.len()].copy_from_slice(content);
            let length = 1 + content.len() as u8;
            return Self { secret: false, bytes: Bytes::Inline { length, bytes } };
        }
        let mut bytes = Writer::new(kind);
        bytes.push(content);
        Self { secret: false, bytes: bytes.finish() }
    }

    /// The bytes by which keys are told apart: a byte for the kind, then the content.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Inline { length, bytes } => &bytes[..usize::from(*length)],
            Bytes::Heap(bytes) => bytes,
        }
    }

    /// Whether this is [`GLOBAL`](Self::GLOBAL).
    #[inline]
    pub const fn is_global(&self) -> bool {
        matches!(self.bytes, Bytes::Inline { length: 0, .. })
    }

    /// Whether the key must not be shown.
    pub const fn is_secret(&self) -> bool {
        self.secret
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Key {}

impl Hash for Key {
    /// A short key is hashed in the words that it was written in: what is read across two of them
    /// would have to be waited for. Bytes without content are zero, so the last one can tell the
    /// length.
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        match &self.bytes {
            Bytes::Inline { length, bytes } if *length < 16 => {
                let &[a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, ..] = bytes;
                state.write_u64(u64::from_le_bytes([a, b, c, d, e, f, g, h]));
                state.write_u64(u64::from_le_bytes([i, j, k, l, m, n, o, *length]));
            }
            _ => state.write(self.as_bytes()),
        }
    }
}

impl From<&str> for Key {
    #[inline]
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl From<String> for Key {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

impl From<u64> for Key {
    #[inline]
    fn from(number: u64) -> Self {
        Self::number(number)
    }
}

/// The whole address; [`ClientAddr`](crate::http::ClientAddr) makes keys of IPv6 networks.
impl From<IpAddr> for Key {
    #[inline]
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::ipv4(address),
            IpAddr::V6(address) => Self::short(kind::ADDRESS, address.octets()),
        }
    }
}

/// Shows the key for people, unless it is secret. Bytes that are no text are escaped.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.secret {
            return f.write_str("secret");
        }
        match self.as_bytes().split_first() {
            None => f.write_str("global"),
            Some((&kind, content)) => show(kind, content, f),
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}

fn show(kind: u8, content: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match (kind, content) {
        (kind::NUMBER, content) => {
            let number = content.iter().fold(0_u64, |number, &byte| number << 8 | u64::from(byte));
            write!(f, "{number}")
        }
        (kind::ADDRESS, content) => show_address(content, f),
        (kind::PREFIX, [length, address @ ..]) => {
            show_address(address, f)?;
            write!(f, "/{length}")
        }
        (kind::JOIN, []) => f.write_str("anonymous"),
        (kind::JOIN, parts) => show_join(parts, f),
        (_, text) => write!(f, "{}", text.escape_ascii()),
    }
}

fn show_address(octets: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if let Ok(octets) = <[u8; 4]>::try_from(octets) {
        write!(f, "{}", IpAddr::from(octets))
    } else if let Ok(octets) = <[u8; 16]>::try_from(octets) {
        write!(f, "{}", IpAddr::from(octets))
    } else {
        write!(f, "{}", octets.escape_ascii())
    }
}

fn show_join(mut parts: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut first = true;
    while let Some((length, rest)) = read_length(parts) {
        let (part, after) = rest.split_at(length.min(rest.len()));
        if !std::mem::take(&mut first) {
            f.write_str(" + ")?;
        }
        match part.split_first() {
            None => f.write_str("global")?,
            Some((&kind, content)) => show(kind, content, f)?,
        }
        parts = after;
    }
    Ok(())
}

/// Reads what [`Writer::push_length`] wrote.
fn read_length(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (&first, rest) = bytes.split_first()?;
    if first < 255 {
        return Some((usize::from(first), rest));
    }
    let (length, rest) = rest.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*length) as usize, rest))
}

#[cfg(feature = "http")]
fn write_at(target: &mut [u8], bytes: &[u8]) -> usize {
    target[..bytes.len()].copy_from_slice(bytes);
    bytes.len()
}

/// Bytes on their way into a key: on the stack while they fit.
struct Writer {
    length: usize,
    inline: [u8; INLINE],
    heap: Vec<u8>,
}

impl Writer {
    fn new(kind: u8) -> Self {
        let mut inline = [0; INLINE];
        inline[0] = kind;
        Self { length: 1, inline, heap: Vec::new() }
    }

    fn push(&mut self, bytes: &[u8]) {
        if self.heap.is_empty() && self.length + bytes.len() <= INLINE {
            self.inline[self.length..][..bytes.len()].copy_from_slice(bytes);
            self.length += bytes.len();
            return;
        }
        if self.heap.is_empty() {
            self.heap.extend_from_slice(&self.inline[..self.length]);
        }
        self.heap.extend_from_slice(bytes);
    }

    /// Lengths below 255 take one byte; others the byte 255 and then eight.
    fn push_length(&mut self, length: usize) {
        if length < 255 {
            self.push(&[length as u8]);
        } else {
            self.push(&[255]);
            self.push(&(length as u64).to_be_bytes());
        }
    }

    fn finish(self) -> Bytes {
        if self.heap.is_empty() {
            // INLINE fits in a byte.
            Bytes::Inline { length: self.length as u8, bytes: self.inline }
        } else {
            Bytes::Heap(self.heap.into())
        }
    }
}
