use super::events::Part;

/// Takes the binary event stream of AWS apart as it passes: frames of a length, the length of the
/// headers, a checksum, the headers, a payload, and a checksum. Checksums are not checked: what is
/// read here decides nothing about the frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frames {
    prelude: [u8; PRELUDE],
    read: usize,
    headers: u64,
    payload: u64,
    trailer: u64,
    /// The beginning of the headers.
    kept: [u8; KEPT],
    length: usize,
    /// The lengths made no sense, so nothing behind them can be found.
    is_lost: bool,
}

impl Default for Frames {
    fn default() -> Self {
        Self {
            prelude: [0; PRELUDE],
            read: 0,
            headers: 0,
            payload: 0,
            trailer: 0,
            kept: [0; KEPT],
            length: 0,
            is_lost: false,
        }
    }
}

impl Frames {
    /// Reads a part of the stream.
    pub(super) fn data(&mut self, mut data: &[u8], found: &mut impl FnMut(Part<'_>)) {
        while !data.is_empty() && !self.is_lost {
            if self.read < PRELUDE {
                let length = data.len().min(PRELUDE - self.read);
                let (part, rest) = data.split_at(length);
                self.prelude[self.read..self.read + length].copy_from_slice(part);
                self.read += length;
                data = rest;
                if self.read == PRELUDE {
                    self.begin();
                }
                continue;
            }
            if self.headers > 0 {
                let headers = skip(&mut data, &mut self.headers);
                self.keep(headers);
            }
            if self.headers == 0
                && let Some(kind) = exception(&self.kept[..std::mem::take(&mut self.length)])
            {
                found(Part::Exception(kind));
            }
            let payload = skip(&mut data, &mut self.payload);
            if !payload.is_empty() {
                found(Part::Data(payload));
            }
            skip(&mut data, &mut self.trailer);
            if self.headers + self.payload + self.trailer == 0 {
                self.read = 0;
                found(Part::End);
            }
        }
    }

    fn keep(&mut self, headers: &[u8]) {
        let length = headers.len().min(KEPT - self.length);
        self.kept[self.length..self.length + length].copy_from_slice(&headers[..length]);
        self.length += length;
    }

    fn begin(&mut self) {
        let [a, b, c, d, e, f, g, h, ..] = self.prelude;
        let total = u64::from(u32::from_be_bytes([a, b, c, d]));
        let headers = u64::from(u32::from_be_bytes([e, f, g, h]));
        let around = PRELUDE as u64 + TRAILER + headers;
        self.is_lost = total < around;
        self.headers = headers;
        self.payload = total.saturating_sub(around);
        self.trailer = TRAILER;
    }
}

/// The kind of exception that a frame with these headers is. A header is the length of its name,
/// its name, the type of its value and the value; texts have their length before them.
fn exception(mut headers: &[u8]) -> Option<&[u8]> {
    loop {
        let (length, rest) = headers.split_first()?;
        let (name, rest) = rest.split_at_checked(usize::from(*length))?;
        let (kind, rest) = rest.split_first()?;
        let (length, rest) = match kind {
            0 | 1 => (0, rest),
            2 => (1, rest),
            3 => (2, rest),
            4 => (4, rest),
            5 | 8 => (8, rest),
            6 | 7 => {
                let (length, rest) = rest.split_first_chunk::<2>()?;
                (usize::from(u16::from_be_bytes(*length)), rest)
            }
            9 => (16, rest),
            _ => return None,
        };
        let (value, rest) = rest.split_at_checked(length)?;
        if matches!(name, b":exception-type" | b":error-code") {
            return Some(value);
        }
        headers = rest;
    }
}

/// Takes what is left of a part from the front.
fn skip<'a>(data: &mut &'a [u8], left: &mut u64) -> &'a [u8] {
    let length = usize::try_from(*left).unwrap_or(usize::MAX).min(data.len());
    let (part, rest) = data.split_at(length);
    *data = rest;
    *left -= length as u64;
    part
}

const PRELUDE: usize = 12;
const TRAILER: u64 = 4;
/// The bytes of a frame's headers that are kept: those of AWS have a hundred.
const KEPT: usize = 256;
