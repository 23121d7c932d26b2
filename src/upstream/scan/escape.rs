//! Escapes in a text, byte by byte.

use super::{Scanner, State};
use crate::upstream::paths::Paths;

impl Scanner {
    /// The byte behind a backslash.
    pub(super) fn escape(&mut self, byte: u8, is_key: bool, paths: &Paths) {
        self.state = State::Text { is_key };
        let plain = match byte {
            b'u' => {
                self.state = State::Unicode { is_key, digits: 0, unit: 0 };
                return;
            }
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            other => other,
        };
        self.keep(&[plain], is_key, paths);
    }

    /// A digit of `\u`. Two halves are one character; the first alone is none.
    pub(super) fn unicode(&mut self, byte: u8, is_key: bool, digits: u8, unit: u32, paths: &Paths) {
        let Some(digit) = char::from(byte).to_digit(16) else {
            // Not an escape at all: go on with the text as if it were not there.
            self.state = State::Text { is_key };
            return;
        };
        let unit = unit * 16 + digit;
        if digits < 3 {
            self.state = State::Unicode { is_key, digits: digits + 1, unit };
            return;
        }
        self.state = State::Text { is_key };
        if (0xD800..0xDC00).contains(&unit) {
            self.half = Some(unit);
            return;
        }
        let whole = match self.half {
            Some(half) if (0xDC00..0xE000).contains(&unit) => {
                0x1_0000 + ((half - 0xD800) << 10) + (unit - 0xDC00)
            }
            _ => unit,
        };
        let character = char::from_u32(whole).unwrap_or(char::REPLACEMENT_CHARACTER);
        self.keep(character.encode_utf8(&mut [0; 4]).as_bytes(), is_key, paths);
    }
}
