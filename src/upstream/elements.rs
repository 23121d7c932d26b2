use memchr::memchr2;

use super::events::Part;

/// Takes a JSON array apart whose elements are the events of a stream, as they pass, without
/// keeping any. What is no array is one value, of which nothing is the end.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Elements {
    state: State,
    is_array: bool,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    /// Nothing has come but space.
    #[default]
    Start,
    /// What comes is no part of an array.
    Outside,
    /// Between two elements.
    Between,
    /// In an element, so many levels deep in what it opens.
    Element { depth: u64 },
    /// In a text of one.
    Text { depth: u64 },
    /// Behind a backslash in it.
    Escape { depth: u64 },
}

impl Elements {
    /// Whether an array has begun.
    pub(super) const fn is_array(&self) -> bool {
        self.is_array
    }

    /// Reads a part of the body.
    pub(super) fn data(&mut self, data: &[u8], found: &mut impl FnMut(Part<'_>)) {
        let mut rest = data;
        while let Some((byte, behind)) = rest.split_first() {
            rest = match (self.state, byte) {
                (State::Outside, _) => return found(Part::Data(rest)),
                (State::Start | State::Between, b' ' | b'\t' | b'\r' | b'\n') => behind,
                (State::Start, b'[') => {
                    (self.state, self.is_array) = (State::Between, true);
                    behind
                }
                (State::Start, _) => {
                    self.state = State::Outside;
                    rest
                }
                (State::Between, b',') => behind,
                (State::Between, b']') => {
                    self.state = State::Outside;
                    behind
                }
                (State::Between, _) => {
                    self.state = State::Element { depth: 0 };
                    rest
                }
                (State::Element { .. } | State::Text { .. } | State::Escape { .. }, _) => {
                    let (part, behind) = rest.split_at(self.element(rest));
                    found(Part::Data(part));
                    if matches!(self.state, State::Between) {
                        found(Part::End);
                    }
                    behind
                }
            };
        }
    }

    /// Goes on in an element, and says how much of `data` is part of it.
    fn element(&mut self, data: &[u8]) -> usize {
        let mut at = 0;
        while let Some(byte) = data.get(at) {
            at += 1;
            self.state = match (self.state, byte) {
                (State::Element { depth }, b'"') => State::Text { depth },
                (State::Element { depth }, b'{' | b'[') => {
                    State::Element { depth: depth.saturating_add(1) }
                }
                (State::Element { depth: 1 }, b'}' | b']') => {
                    self.state = State::Between;
                    return at;
                }
                // A number or a word ends with what is behind it.
                (State::Element { depth: 0 }, b',' | b']') => {
                    self.state = State::Between;
                    return at - 1;
                }
                (State::Element { depth: depth @ 2.. }, b'}' | b']') => {
                    State::Element { depth: depth - 1 }
                }
                (State::Text { depth }, b'"') => State::Element { depth },
                (State::Text { depth }, b'\\') => State::Escape { depth },
                (State::Text { depth }, _) => {
                    at = memchr2(b'"', b'\\', &data[at..]).map_or(data.len(), |end| at + end);
                    State::Text { depth }
                }
                (State::Escape { depth }, _) => State::Text { depth },
                (state, _) => state,
            };
        }
        at
    }
}
