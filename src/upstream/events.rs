use memchr::memchr2;

/// Takes server-sent events apart as they pass, without keeping a line.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Events {
    state: State,
    /// The last byte was a carriage return: a line feed behind it is part of the same end.
    after_return: bool,
    /// The event has a line of data already.
    has_data: bool,
}

/// A part of an event.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Part<'a> {
    /// It is an exception of this kind.
    Exception(&'a [u8]),
    /// Data, as it came.
    Data(&'a [u8]),
    /// The event ends.
    End,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    /// At the beginning of a stream, of which a mark of byte order may be so much.
    #[default]
    Start,
    /// In the field's name, of which so much is like `data`.
    Name(usize),
    /// Behind the colon: one space is not data.
    Colon,
    Data,
    /// In a line that has no data.
    Other,
}

impl Events {
    /// Reads a part of the stream.
    pub(super) fn data(&mut self, data: &[u8], found: &mut impl FnMut(Part<'_>)) {
        let mut rest = data;
        while let Some((byte, behind)) = rest.split_first() {
            let after_return = std::mem::take(&mut self.after_return);
            if *byte == b'\n' && after_return {
                rest = behind;
                continue;
            }
            if matches!(byte, b'\r' | b'\n') {
                self.after_return = *byte == b'\r';
                self.end_line(found);
                rest = behind;
                continue;
            }
            match self.state {
                State::Data | State::Other => {
                    let end = memchr2(b'\r', b'\n', rest);
                    let (run, behind) = rest.split_at(end.unwrap_or(rest.len()));
                    if matches!(self.state, State::Data) {
                        found(Part::Data(run));
                    }
                    rest = behind;
                    continue;
                }
                State::Colon => {
                    self.state = State::Data;
                    // Lines of one event are as lines of one text.
                    if std::mem::replace(&mut self.has_data, true) {
                        found(Part::Data(b"\n"));
                    }
                    if *byte != b' ' {
                        continue;
                    }
                }
                State::Start if matches!(byte, 0xEF | 0xBB | 0xBF) => {}
                State::Start => {
                    self.state = State::Name(0);
                    continue;
                }
                State::Name(4) if *byte == b':' => self.state = State::Colon,
                State::Name(read) if b"data".get(read) == Some(byte) => {
                    self.state = State::Name(read + 1);
                }
                State::Name(_) => self.state = State::Other,
            }
            rest = behind;
        }
    }

    fn end_line(&mut self, found: &mut impl FnMut(Part<'_>)) {
        let is_blank = matches!(self.state, State::Name(0) | State::Start);
        self.state = State::Name(0);
        if is_blank && std::mem::take(&mut self.has_data) {
            found(Part::End);
        }
    }
}
