use super::events::Part;

/// Takes the binary event stream of AWS apart as it passes: frames of a length, the length of the
/// headers, a checksum, the headers, a payload, and a checksum. Checksums are not checked: what is
/// read here decides nothing about the frame.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Frames {
    prelude: [u8; PRELUDE],
    read: usize,
    headers: u64,
    payload: u64,
    trailer: u64,
    /// The lengths made no sense, so nothing behind them can be found.
    is_lost: bool,
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
            skip(&mut data, &mut self.headers);
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
