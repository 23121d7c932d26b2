use bytes::{Buf, Bytes};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::malformed::MalformedAnswer;
use crate::cache::answer::AROUND_FIELD;

/// Bytes that are read, and how much what they say may weigh still.
pub(super) struct Input {
    rest: Bytes,
    room: usize,
}

impl Input {
    pub(super) const fn new(bytes: Bytes, room: usize) -> Self {
        Self { rest: bytes, room }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn byte(&mut self) -> Result<u8, MalformedAnswer> {
        if self.rest.is_empty() {
            return Err(MalformedAnswer::Content);
        }
        Ok(self.rest.get_u8())
    }

    /// A number in seven bits a byte.
    pub(super) fn number(&mut self) -> Result<u64, MalformedAnswer> {
        let mut number = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            // Of the tenth byte one bit has a place.
            if shift == 63 && bits > 1 {
                break;
            }
            number |= bits << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(MalformedAnswer::Content)
    }

    pub(super) fn bytes(&mut self, length: u64) -> Result<Bytes, MalformedAnswer> {
        match usize::try_from(length) {
            Ok(length) if length <= self.rest.len() => Ok(self.rest.split_to(length)),
            _ => Err(MalformedAnswer::Content),
        }
    }

    pub(super) fn fields(&mut self, count: u64) -> Result<HeaderMap, MalformedAnswer> {
        let mut fields = HeaderMap::new();
        for _ in 0..count {
            let number = self.number()?;
            let name = self.bytes(number >> 1)?;
            let length = self.number()?;
            let value = self.bytes(length)?;
            let name = HeaderName::from_bytes(&name).map_err(|_| MalformedAnswer::Content)?;
            let mut value =
                HeaderValue::from_maybe_shared(value).map_err(|_| MalformedAnswer::Content)?;
            value.set_sensitive(number & 1 == 1);
            // Weighed as a whole only when all are there: their number is held down here.
            if fields.len() > self.room / AROUND_FIELD {
                return Err(MalformedAnswer::TooLarge);
            }
            fields.try_append(name, value).map_err(|_| MalformedAnswer::TooLarge)?;
        }
        Ok(fields)
    }

    /// Takes `weight` of the room.
    pub(super) fn weigh(&mut self, weight: usize) -> Result<(), MalformedAnswer> {
        self.room = self.room.checked_sub(weight).ok_or(MalformedAnswer::TooLarge)?;
        Ok(())
    }
}
