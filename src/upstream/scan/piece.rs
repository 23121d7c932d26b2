//! What JSON is made of, where it is whole.

use memchr::memchr2;

/// A value that a path leads to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::upstream) enum Value<'a> {
    Text {
        /// Its beginning, without escapes.
        text: &'a [u8],
        characters: u64,
    },
    /// A number, as it is written.
    Number(&'a [u8]),
    /// An object, at its beginning.
    Object,
    /// A truth value or null.
    Word(&'a [u8]),
}

impl<'a> Value<'a> {
    /// A value without quotes, as it is written.
    pub(super) const fn of_word(word: &'a [u8]) -> Option<Self> {
        match word {
            [] => None,
            [b'0'..=b'9' | b'-', ..] => Some(Self::Number(word)),
            _ => Some(Self::Word(word)),
        }
    }
}

/// A text behind its first quote and what follows, if it ends here and is as it stands.
pub(super) fn plain_text(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr2(b'"', b'\\', data)?;
    let (text, behind) = data.split_at(end);
    let rest = behind.strip_prefix(b"\"")?;
    Some((text, rest))
}

/// The characters that begin here: the bytes that go on with one are not its beginning.
pub(super) fn characters(text: &[u8]) -> u64 {
    // So few that a byte counts them: the compiler counts many at a time then.
    let counts = text
        .chunks(MOST_IN_A_BYTE)
        .map(|few| few.iter().fold(0_u8, |count, byte| count + u8::from(*byte & 0xC0 != 0x80)));
    counts.map(u64::from).sum()
}

pub(super) const fn is_delimiter(byte: &u8) -> bool {
    matches!(byte, b',' | b':' | b'{' | b'}' | b'[' | b']' | b'"' | b' ' | b'\t' | b'\r' | b'\n')
}

const MOST_IN_A_BYTE: usize = 128;
