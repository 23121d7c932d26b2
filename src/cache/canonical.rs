mod error;
mod order;
mod plain;

use std::ops::Range;

pub use self::error::NotCanonical;
use self::{
    order::{Member, Order},
    plain::plain_length,
};

/// The canonical form of a JSON text: texts that mean the same have the same one.
///
/// | differs | is it the same? |
/// |---|---|
/// | the order of members, white space, `\u0061` for `a` | yes |
/// | `1`, `1.0`, `1e0`, `10e-1`; `0` and `-0` | yes: numbers are compared by value |
/// | `9007199254740993` and `9007199254740992` | no: no digit is lost, whatever the number's size |
/// | the order of an array's items | no |
/// | `é` as one code point and as two | no: text is not normalized |
/// | `1` and `"1"`; `null` and no member | no |
///
/// The form is JSON itself, and its own canonical form. It is close to that of RFC 8785, which
/// rounds numbers to doubles; here `1200` is written `12e2`. Members are in the order of their
/// names' bytes.
///
/// # Cost
///
/// Time in proportion to the text, times the logarithm of the number of its members. Memory of at
/// most eight times the text's bytes, whatever it is, and of three times where objects are few.
///
/// # Errors
///
/// [`NotCanonical`] if the text is no JSON (RFC 8259), an object has a name twice, a string has
/// half of a surrogate pair, it is nested deeper than 128, an exponent has more than 18 digits, or
/// it is longer than 2 GiB.
///
/// ```
/// use tower_quota::cache::canonical_json;
///
/// let one = canonical_json(br#"{"n": 1.0, "model": "m"}"#)?;
/// assert_eq!(one, br#"{"model":"m","n":1}"#);
/// assert_eq!(one, canonical_json(br#"{"model":"m","n":1e0}"#)?);
/// assert!(canonical_json(br#"{"n": 1, "n": 2}"#).is_err());
/// # Ok::<_, tower_quota::cache::NotCanonical>(())
/// ```
pub fn canonical_json(text: &[u8]) -> Result<Vec<u8>, NotCanonical> {
    canonical_json_without(text, &[])
}

/// The same, without the members of the outermost object that have these names.
pub(super) fn canonical_json_without(
    text: &[u8],
    ignored: &[String],
) -> Result<Vec<u8>, NotCanonical> {
    // From here on every cut at an ASCII character is one between characters.
    std::str::from_utf8(text).map_err(|error| NotCanonical { at: error.valid_up_to() })?;
    if text.len() > LONGEST {
        return Err(NotCanonical { at: LONGEST });
    }
    let ignored: Vec<_> = ignored.iter().map(|name| quoted(name)).collect();
    let mut parser = Parser {
        text,
        at: 0,
        ignored: &ignored,
        // No text grows by more than that: `[1.5,` becomes `[15e-1,`.
        out: Vec::with_capacity(text.len() + text.len() / 2 + 8),
        open: Vec::new(),
        order: Order::default(),
    };
    parser.value(0)?;
    parser.skip_space();
    if parser.at < text.len() {
        return Err(parser.error());
    }
    Ok(parser.order.of(parser.out))
}

/// Writes what it reads at once: nothing is kept of a text but the places of members.
struct Parser<'a> {
    text: &'a [u8],
    at: usize,
    /// The names of members that are left out of the outermost object, as they are written.
    ignored: &'a [Vec<u8>],
    /// The canonical form so far, but for the order of members.
    out: Vec<u8>,
    /// The members of the objects that are not at their end, the innermost last.
    open: Vec<Member>,
    order: Order,
}

impl Parser<'_> {
    fn error(&self) -> NotCanonical {
        NotCanonical { at: self.at }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn next(&mut self) -> Result<u8, NotCanonical> {
        let byte = self.peek().ok_or_else(|| self.error())?;
        self.at += 1;
        Ok(byte)
    }

    fn take(&mut self, byte: u8) -> bool {
        let is_there = self.peek() == Some(byte);
        self.at += usize::from(is_there);
        is_there
    }

    fn expect(&mut self, byte: u8) -> Result<(), NotCanonical> {
        if self.take(byte) { Ok(()) } else { Err(self.error()) }
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// Where it writes.
    fn place(&self) -> u32 {
        u32::try_from(self.out.len()).expect("the longest text is far from the type's end")
    }

    fn value(&mut self, depth: usize) -> Result<(), NotCanonical> {
        if depth > DEEPEST {
            return Err(self.error());
        }
        self.skip_space();
        match self.peek() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => self.string(),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => self.word(),
        }
    }

    fn word(&mut self) -> Result<(), NotCanonical> {
        let rest = &self.text[self.at..];
        let words: [&[u8]; 3] = [b"null", b"true", b"false"];
        let word =
            words.into_iter().find(|word| rest.starts_with(word)).ok_or_else(|| self.error())?;
        self.at += word.len();
        self.out.extend_from_slice(word);
        Ok(())
    }

    fn array(&mut self, depth: usize) -> Result<(), NotCanonical> {
        self.expect(b'[')?;
        self.out.push(b'[');
        self.skip_space();
        let mut is_at_end = self.take(b']');
        while !is_at_end {
            self.value(depth + 1)?;
            self.skip_space();
            is_at_end = self.take(b']');
            if !is_at_end {
                self.expect(b',')?;
                self.out.push(b',');
            }
        }
        self.out.push(b']');
        Ok(())
    }

    fn object(&mut self, depth: usize) -> Result<(), NotCanonical> {
        self.expect(b'{')?;
        let (start, first) = (self.place(), self.open.len());
        self.out.push(b'{');
        let mut is_in_order = true;
        self.skip_space();
        let mut is_at_end = self.take(b'}');
        while !is_at_end {
            self.skip_space();
            let mut member = Member { start: self.place(), name_end: 0, end: 0 };
            self.string()?;
            member.name_end = self.place();
            if let [.., before] = &self.open[first..] {
                is_in_order &= before.name(&self.out) < member.name(&self.out);
            }
            self.skip_space();
            self.expect(b':')?;
            self.out.push(b':');
            let index = self.open.len();
            self.open.push(member);
            self.value(depth + 1)?;
            self.open[index].end = self.place();
            self.skip_space();
            is_at_end = self.take(b'}');
            if !is_at_end {
                self.expect(b',')?;
                self.out.push(b',');
            }
        }
        self.out.push(b'}');
        if !is_in_order {
            let out = &self.out;
            let members = &mut self.open[first..];
            members.sort_unstable_by(|one, other| one.name(out).cmp(other.name(out)));
            if members.windows(2).any(|pair| pair[0].name(out) == pair[1].name(out)) {
                return Err(self.error());
            }
        }
        if depth == 0 && !self.ignored.is_empty() {
            let (out, ignored) = (&self.out, self.ignored);
            let before = self.open.len();
            self.open.retain(|member| !ignored.iter().any(|name| name == member.name(out)));
            is_in_order &= self.open.len() == before;
        }
        if !is_in_order {
            self.order.put(start..self.place(), &self.open[first..]);
        }
        self.open.truncate(first);
        Ok(())
    }

    fn string(&mut self) -> Result<(), NotCanonical> {
        self.expect(b'"')?;
        self.out.push(b'"');
        loop {
            // Most of a string stands for itself, and is copied at once.
            let rest = &self.text[self.at..];
            let plain = plain_length(rest);
            self.out.extend_from_slice(&rest[..plain]);
            self.at += plain;
            match self.next()? {
                b'"' => break,
                b'\\' => {
                    let character = self.escape()?;
                    push_escaped(character, &mut self.out);
                }
                _ => return Err(self.error()),
            }
        }
        self.out.push(b'"');
        Ok(())
    }

    fn escape(&mut self) -> Result<char, NotCanonical> {
        Ok(match self.next()? {
            b'"' => '"',
            b'\\' => '\\',
            b'/' => '/',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let unit = self.unit()?;
                let point = if (0xd800..0xdc00).contains(&unit) {
                    self.expect(b'\\')?;
                    self.expect(b'u')?;
                    let low = self.unit()?;
                    if !(0xdc00..0xe000).contains(&low) {
                        return Err(self.error());
                    }
                    0x1_0000 + ((unit - 0xd800) << 10) + (low - 0xdc00)
                } else {
                    unit
                };
                char::from_u32(point).ok_or_else(|| self.error())?
            }
            _ => return Err(self.error()),
        })
    }

    fn unit(&mut self) -> Result<u32, NotCanonical> {
        let mut unit = 0;
        for _ in 0..4 {
            let digit = char::from(self.next()?).to_digit(16).ok_or_else(|| self.error())?;
            unit = unit << 4 | digit;
        }
        Ok(unit)
    }

    fn digits(&mut self) -> Result<Range<usize>, NotCanonical> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == start { Err(self.error()) } else { Ok(start..self.at) }
    }

    /// Writes a number as its digits without zeros at either end, and the power of ten that they
    /// are multiplied by.
    fn number(&mut self) -> Result<(), NotCanonical> {
        let is_negative = self.take(b'-');
        let whole = self.digits()?;
        if whole.len() > 1 && self.text[whole.start] == b'0' {
            return Err(self.error());
        }
        let fraction = if self.take(b'.') { self.digits()? } else { self.at..self.at };
        let exponent = if self.take(b'e') || self.take(b'E') { self.exponent()? } else { 0 };

        let start = self.out.len();
        if is_negative {
            self.out.push(b'-');
        }
        let first = self.out.len();
        for &digit in self.text[whole].iter().chain(&self.text[fraction.clone()]) {
            if digit != b'0' || self.out.len() > first {
                self.out.push(digit);
            }
        }
        let written = self.out.len();
        while self.out.len() > first && self.out.ends_with(b"0") {
            self.out.pop();
        }
        if self.out.len() == first {
            self.out.truncate(start);
            self.out.push(b'0');
        } else {
            // Lengths of what is in memory and 18 digits: far from the type's end.
            let zeros = (written - self.out.len()) as i64;
            let power = exponent - fraction.len() as i64 + zeros;
            if power != 0 {
                self.out.extend_from_slice(format!("e{power}").as_bytes());
            }
        }
        Ok(())
    }

    fn exponent(&mut self) -> Result<i64, NotCanonical> {
        let is_negative = if self.take(b'-') {
            true
        } else {
            self.take(b'+');
            false
        };
        let digits = self.digits()?;
        let mut exponent = 0_i64;
        for &digit in &self.text[digits] {
            if exponent >= LARGEST_EXPONENT / 10 {
                return Err(self.error());
            }
            exponent = exponent * 10 + i64::from(digit - b'0');
        }
        Ok(if is_negative { -exponent } else { exponent })
    }
}

fn quoted(text: &str) -> Vec<u8> {
    let mut quoted = vec![b'"'];
    text.chars().for_each(|character| push_escaped(character, &mut quoted));
    quoted.push(b'"');
    quoted
}

/// A character as it stands in a canonical string.
fn push_escaped(character: char, out: &mut Vec<u8>) {
    match character {
        '"' => out.extend_from_slice(b"\\\""),
        '\\' => out.extend_from_slice(b"\\\\"),
        '\u{8}' => out.extend_from_slice(b"\\b"),
        '\t' => out.extend_from_slice(b"\\t"),
        '\n' => out.extend_from_slice(b"\\n"),
        '\u{c}' => out.extend_from_slice(b"\\f"),
        '\r' => out.extend_from_slice(b"\\r"),
        '\0'..='\u{1f}' => {
            // Two digits are enough, and they fit.
            let code = character as u8;
            let digit = |number: u8| if number < 10 { b'0' + number } else { b'a' + number - 10 };
            out.extend_from_slice(b"\\u00");
            out.extend([digit(code >> 4), digit(code & 0xf)]);
        }
        _ => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
    }
}

/// How deep arrays and objects may be nested: each level takes some of the stack.
const DEEPEST: usize = 128;

/// Places in what is written have 32 bits.
const LONGEST: usize = 1 << 31;

const LARGEST_EXPONENT: i64 = 1_000_000_000_000_000_000;
