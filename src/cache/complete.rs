//! Whether an answer is the whole of one that succeeded, as far as its body tells.

use http::header::{CONTENT_ENCODING, CONTENT_TYPE};

use super::answer::Answer;

/// What the body of an answer tells of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Body {
    /// Nothing that speaks against it.
    Whole,
    /// It was cut in the middle of an event.
    Cut,
    /// It tells of an error.
    Failed,
    /// It may tell of one where nobody here can read it.
    Unreadable,
}

impl Body {
    pub(super) fn of(answer: &Answer) -> Self {
        let media_type = answer.headers().get(CONTENT_TYPE).map_or(&[][..], |one| one.as_bytes());
        if is_of(media_type, b"application/grpc-web") {
            // Its status is a frame of its body.
            return Self::Unreadable;
        }
        if !is_of(media_type, b"text/event-stream") {
            return Self::Whole;
        }
        if answer.headers().contains_key(CONTENT_ENCODING) {
            return Self::Unreadable;
        }
        let mut events = Events::default();
        answer.data().flatten().for_each(|byte| events.push(*byte));
        if events.has_failed {
            Self::Failed
        } else if events.is_between && events.line.is_empty() {
            Self::Whole
        } else {
            Self::Cut
        }
    }
}

fn is_of(media_type: &[u8], kind: &[u8]) -> bool {
    media_type.get(..kind.len()).is_some_and(|start| start.eq_ignore_ascii_case(kind))
}

/// Reads a stream of events byte by byte, as the HTML standard has them.
#[derive(Default)]
struct Events {
    /// The line that has begun, as far as it matters.
    line: Vec<u8>,
    is_after_return: bool,
    /// The last line was empty: an event ended there.
    is_between: bool,
    has_failed: bool,
}

impl Events {
    fn push(&mut self, byte: u8) {
        let is_second_of_end = byte == b'\n' && self.is_after_return;
        self.is_after_return = byte == b'\r';
        match byte {
            b'\n' if is_second_of_end => {}
            b'\n' | b'\r' => {
                let line = self.line.strip_prefix(MARK).unwrap_or(&self.line);
                let name = line.strip_prefix(b"event:");
                self.has_failed |=
                    name.is_some_and(|name| name.strip_prefix(b" ").unwrap_or(name) == b"error");
                self.is_between = self.line.is_empty();
                self.line.clear();
            }
            _ if self.line.len() < LONGEST => self.line.push(byte),
            _ => {}
        }
    }
}

/// What may stand before the first line.
const MARK: &[u8] = b"\xef\xbb\xbf";
/// One byte more than the longest line that matters.
const LONGEST: usize = MARK.len() + b"event: error".len() + 1;
