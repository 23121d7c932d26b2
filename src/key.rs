//! Whom a request is counted against.

use std::{
    fmt,
    hash::{Hash, Hasher},
    net::IpAddr,
};

/// The words of a key that needs no allocation.
const WORDS: usize = 5;
/// Its bytes. The last is not used: hashed, it tells the length.
const INLINE: usize = 8 * WORDS;

/// Whom a request is counted against: a user, an address, an API key, or several of them joined.
///
/// A key is a short string of bytes that says of which kind it is, so that keys of different kinds
/// are different: the number 7, the text `"7"` and a join of one part never meet. Up to 38 bytes
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
    bytes: Bytes,
}

#[derive(Clone)]
enum Bytes {
    /// What is behind the length is zero.
    Inline {
        secret: bool,
        length: u8,
        bytes: Words,
    },
    Heap {
        secret: bool,
        bytes: Box<[u8]>,
    },
}

/// Bytes that are written and read in words.
#[derive(Clone, Copy)]
#[repr(align(8))]
struct Words([u8; INLINE]);

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
        Self { bytes: Bytes::Inline { secret: false, length: 0, bytes: Words([0; INLINE]) } };

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
        Self::new(bytes).with_secrecy(true)
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
            secret |= part.is_secret();
            joined.push_length(bytes.len());
            joined.push(bytes);
        }
        joined.finish().with_secrecy(secret)
    }

    /// The key of so many bytes, which these words hold from the least significant.
    #[inline(always)]
    fn of_words(words: [u64; WORDS], length: u8) -> Self {
        let mut bytes = [0; INLINE];
        for (bytes, word) in bytes.as_chunks_mut().0.iter_mut().zip(words) {
            *bytes = word.to_le_bytes();
        }
        Self { bytes: Bytes::Inline { secret: false, length, bytes: Words(bytes) } }
    }

    /// Short content is put together in registers: written byte by byte, it would have to be waited
    /// for by whoever reads it next, in words.
    #[inline]
    fn of_kind(kind: u8, content: &[u8]) -> Self {
        if content.len() < INLINE - 1 {
            return Self::of_words(words_of(kind, content), 1 + content.len() as u8);
        }
        let mut bytes = Writer::new(kind);
        bytes.push(content);
        bytes.finish()
    }

    fn with_secrecy(mut self, is_secret: bool) -> Self {
        match &mut self.bytes {
            Bytes::Inline { secret, .. } | Bytes::Heap { secret, .. } => *secret = is_secret,
        }
        self
    }

    /// The bytes by which keys are told apart: a byte for the kind, then the content.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Inline { length, bytes, .. } => &bytes.0[..usize::from(*length)],
            Bytes::Heap { bytes, .. } => bytes,
        }
    }

    /// Whether this is [`GLOBAL`](Self::GLOBAL).
    #[inline]
    pub const fn is_global(&self) -> bool {
        matches!(self.bytes, Bytes::Inline { length: 0, .. })
    }

    /// Whether the key must not be shown.
    pub const fn is_secret(&self) -> bool {
        match self.bytes {
            Bytes::Inline { secret, .. } | Bytes::Heap { secret, .. } => secret,
        }
    }
}

/// A kind and what follows it, in words, from the least significant byte. It must be short enough.
#[inline(always)]
fn words_of(kind: u8, content: &[u8]) -> [u64; WORDS] {
    let mut words = [0; WORDS];
    let (Some(first), Some(last)) = (content.first_chunk(), content.last_chunk()) else {
        words[0] = few(content) << 8 | u64::from(kind);
        return words;
    };
    let (first, last) = (u64::from_le_bytes(*first), u64::from_le_bytes(*last));
    words[0] = first << 8 | u64::from(kind);
    for (at, word) in words.iter_mut().enumerate().skip(1) {
        let begin = 8 * at - 1;
        if let Some(whole) = content.get(begin..).and_then(<[u8]>::first_chunk) {
            *word = u64::from_le_bytes(*whole);
        } else {
            // What of the last eight bytes stood in the word before goes.
            let twice = begin + 8 - content.len();
            *word = if twice < 8 { last >> (8 * twice) } else { 0 };
        }
    }
    words
}

/// Fewer than eight bytes in a word, from the least significant.
#[inline(always)]
fn few(bytes: &[u8]) -> u64 {
    if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        // Those in the middle are the same in both.
        let (first, last) = (u32::from_le_bytes(*first), u32::from_le_bytes(*last));
        return u64::from(first) | u64::from(last) << (8 * (bytes.len() - 4));
    }
    bytes.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte))
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Key {}

impl Hash for Key {
    /// A short key is hashed in the words that it was written in: what is read across two of them
    /// would have to be waited for. The first tells beside the kind how many there are, the last
    /// the length; neither needs these bits. So no key's words begin as all of another's.
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Bytes::Inline { length, bytes, .. } = &self.bytes else {
            let bytes = self.as_bytes();
            state.write_u64(u64::MAX - bytes.len() as u64);
            return state.write(bytes);
        };
        let (words, _) = bytes.0.as_chunks();
        let word = |at: usize| u64::from_le_bytes(words[at]);
        let length_bits = u64::from(*length) << 56;
        // Word by word: collected in an array, they would be in memory once more.
        match length {
            ..16 => {
                state.write_u64(word(0) | 2 << 4);
                state.write_u64(word(1) | length_bits);
            }
            16..32 => {
                state.write_u64(word(0) | 4 << 4);
                state.write_u64(word(1));
                state.write_u64(word(2));
                state.write_u64(word(3) | length_bits);
            }
            _ => {
                state.write_u64(word(0) | 5 << 4);
                state.write_u64(word(1));
                state.write_u64(word(2));
                state.write_u64(word(3));
                state.write_u64(word(4) | length_bits);
            }
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
        Self::of_kind(kind::NUMBER, &number.to_be_bytes())
    }
}

/// The whole address; [`ClientAddr`](crate::http::ClientAddr) makes keys of IPv6 networks.
impl From<IpAddr> for Key {
    #[inline]
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::of_kind(kind::ADDRESS, &address.octets()),
            IpAddr::V6(address) => Self::of_kind(kind::ADDRESS, &address.octets()),
        }
    }
}

/// Shows the key for people, unless it is secret. Bytes that are no text are escaped.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_secret() {
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
        if self.heap.is_empty() && self.length + bytes.len() < INLINE {
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

    fn finish(self) -> Key {
        let bytes = if self.heap.is_empty() {
            // INLINE fits in a byte.
            let (length, bytes) = (self.length as u8, Words(self.inline));
            Bytes::Inline { secret: false, length, bytes }
        } else {
            Bytes::Heap { secret: false, bytes: self.heap.into() }
        };
        Key { bytes }
    }
}
