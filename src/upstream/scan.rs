mod escape;
mod piece;

use memchr::memchr2;

pub(super) use self::piece::Value;
use self::piece::{characters, is_delimiter, plain_text};
use super::paths::Paths;

/// Finds values in JSON as it passes, without keeping it.
///
/// It keeps a key or a text up to [`MAX_TEXT`] bytes, unless it is told otherwise, and
/// [`MAX_DEPTH`] levels; a deeper part is passed over. It does not judge the JSON: of a text that
/// is none it finds nothing, or something that is not there, but it never fails. Values that follow
/// one another are read one after the other.
#[derive(Clone, Debug)]
pub(super) struct Scanner {
    levels: Vec<Level>,
    /// What the next value is to the paths; `None` if nobody asks for it.
    next: Next,
    /// How many levels of a part that nobody asks for are open.
    passed_over: u64,
    state: State,
    text: Vec<u8>,
    max_text: usize,
    /// The characters of the text, which may be longer than what is kept.
    characters: u64,
    is_cut: bool,
    /// The first half of a pair of units that is one character.
    half: Option<u32>,
}

impl Default for Scanner {
    fn default() -> Self {
        Self::keeping(MAX_TEXT)
    }
}

#[derive(Clone, Copy, Debug)]
struct Level {
    node: usize,
    is_object: bool,
}

#[derive(Clone, Copy, Debug, Default)]
enum Next {
    #[default]
    Root,
    Node(usize),
    Key,
    Nobody,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    #[default]
    Between,
    /// In a text; whether it is a key.
    Text {
        is_key: bool,
    },
    /// Behind a backslash.
    Escape {
        is_key: bool,
    },
    /// In the digits of `\u`: how many have been read, and their value.
    Unicode {
        is_key: bool,
        digits: u8,
        unit: u32,
    },
    Word,
}

impl Scanner {
    /// Keeps so many bytes of a text.
    pub(super) const fn keeping(max_text: usize) -> Self {
        Self {
            levels: Vec::new(),
            next: Next::Root,
            passed_over: 0,
            state: State::Between,
            text: Vec::new(),
            max_text,
            characters: 0,
            is_cut: false,
            half: None,
        }
    }

    /// Reads a part. `found` gets what the paths lead to: the target and the value.
    ///
    /// Most texts and words are in one part from end to end: these are looked at where they are,
    /// and those that nobody asks for are leapt over. Only what goes on in the next part is kept.
    pub(super) fn data(
        &mut self,
        paths: &Paths,
        mut data: &[u8],
        found: &mut impl FnMut(usize, Value<'_>),
    ) {
        while let Some((byte, rest)) = data.split_first() {
            data = match self.state {
                State::Between if self.passed_over > 0 => self.pass_over(data),
                State::Between => self.between(data, paths, found),
                State::Text { is_key } => self.text(data, is_key, paths, found),
                State::Word => self.word(data, paths, found),
                State::Escape { is_key } => {
                    self.escape(*byte, is_key, paths);
                    rest
                }
                State::Unicode { is_key, digits, unit } => {
                    self.unicode(*byte, is_key, digits, unit, paths);
                    rest
                }
            };
        }
    }

    /// The JSON has ended here. A text that is still open is taken as far as it came.
    pub(super) fn end(&mut self, paths: &Paths, found: &mut impl FnMut(usize, Value<'_>)) {
        match self.state {
            State::Text { is_key: false }
            | State::Escape { is_key: false }
            | State::Unicode { is_key: false, .. } => self.end_text(false, paths, found),
            _ => {}
        }
        self.reset();
    }

    /// What asks for the text that has begun and not ended, if one has.
    pub(super) fn open_text<'p>(&self, paths: &'p Paths) -> &'p [usize] {
        match (self.state, self.asked()) {
            (
                State::Text { is_key: false }
                | State::Escape { is_key: false }
                | State::Unicode { is_key: false, .. },
                Some(node),
            ) => paths.targets(node),
            _ => &[],
        }
    }

    /// Begins anew, whatever is open.
    pub(super) fn reset(&mut self) {
        let Self { levels, next, passed_over, state, text, characters, is_cut, half, .. } = self;
        levels.clear();
        text.clear();
        *next = Next::Root;
        *passed_over = 0;
        *state = State::Between;
        *characters = 0;
        *is_cut = false;
        *half = None;
    }

    fn between<'d>(
        &mut self,
        data: &'d [u8],
        paths: &Paths,
        found: &mut impl FnMut(usize, Value<'_>),
    ) -> &'d [u8] {
        let Some((byte, rest)) = data.split_first() else { return data };
        match byte {
            b'{' | b'[' => self.open(*byte == b'{', paths, found),
            b'}' | b']' => self.close(),
            b',' => {
                self.next = match self.levels.last() {
                    Some(Level { is_object: true, .. }) => Next::Key,
                    Some(Level { node, .. }) => Next::Node(*node),
                    None => Next::Root,
                };
            }
            b':' | b' ' | b'\t' | b'\r' | b'\n' => {}
            b'"' => {
                let is_key = matches!(self.next, Next::Key);
                let Some((text, rest)) = plain_text(rest) else {
                    self.begin(State::Text { is_key });
                    return rest;
                };
                let kept = &text[..text.len().min(self.max_text)];
                if is_key {
                    self.take_key(kept, kept.len() < text.len(), paths);
                } else {
                    self.take_value(paths, found, || {
                        Some(Value::Text { text: kept, characters: characters(text) })
                    });
                }
                return rest;
            }
            _ => {
                let Some(end) = data.iter().position(is_delimiter) else {
                    self.begin(State::Word);
                    return data;
                };
                let (word, rest) = data.split_at(end);
                let kept = &word[..word.len().min(self.max_text)];
                self.take_value(paths, found, || Value::of_word(kept));
                return rest;
            }
        }
        rest
    }

    /// Counts through a part that nobody asks for: in it only texts matter, and what opens and
    /// closes.
    fn pass_over<'d>(&mut self, data: &'d [u8]) -> &'d [u8] {
        let mut left = data;
        while self.passed_over > 0 {
            let next =
                left.iter().position(|byte| matches!(byte, b'"' | b'{' | b'[' | b'}' | b']'));
            let Some((byte, rest)) = next.and_then(|next| left[next..].split_first()) else {
                return &[];
            };
            left = rest;
            match byte {
                b'"' => match plain_text(rest) {
                    Some((_, rest)) => left = rest,
                    None => {
                        self.begin(State::Text { is_key: false });
                        return rest;
                    }
                },
                b'{' | b'[' => self.passed_over = self.passed_over.saturating_add(1),
                _ => self.close(),
            }
        }
        left
    }

    /// Begins a text or a word of which the end is not here, or not plain.
    fn begin(&mut self, state: State) {
        self.text.clear();
        self.characters = 0;
        self.is_cut = false;
        self.half = None;
        self.state = state;
    }

    /// Goes on with a text.
    fn text<'d>(
        &mut self,
        data: &'d [u8],
        is_key: bool,
        paths: &Paths,
        found: &mut impl FnMut(usize, Value<'_>),
    ) -> &'d [u8] {
        let end = memchr2(b'"', b'\\', data).unwrap_or(data.len());
        let (run, behind) = data.split_at(end);
        self.keep(run, is_key, paths);
        let Some((byte, rest)) = behind.split_first() else { return behind };
        if *byte == b'"' {
            self.end_text(is_key, paths, found);
        } else {
            self.state = State::Escape { is_key };
        }
        rest
    }

    /// Goes on with a word.
    fn word<'d>(
        &mut self,
        data: &'d [u8],
        paths: &Paths,
        found: &mut impl FnMut(usize, Value<'_>),
    ) -> &'d [u8] {
        let end = data.iter().position(is_delimiter);
        let (run, rest) = data.split_at(end.unwrap_or(data.len()));
        self.keep(run, false, paths);
        if end.is_some() {
            self.state = State::Between;
            let text = std::mem::take(&mut self.text);
            self.take_value(paths, found, || Value::of_word(&text));
            self.text = text;
        }
        rest
    }

    /// Opens an object or an array. A part that nobody asks for is only counted through.
    fn open(&mut self, is_object: bool, paths: &Paths, found: &mut impl FnMut(usize, Value<'_>)) {
        let asked = if self.passed_over > 0 { None } else { self.asked() };
        if let Some(node) = asked
            && is_object
        {
            paths.targets(node).iter().for_each(|target| found(*target, Value::Object));
        }
        match asked {
            Some(node) if self.levels.len() < MAX_DEPTH && !paths.is_leaf(node, is_object) => {
                self.levels.push(Level { node, is_object });
                self.next = if is_object { Next::Key } else { Next::Node(node) };
            }
            _ => {
                self.passed_over = self.passed_over.saturating_add(1);
                self.next = Next::Nobody;
            }
        }
    }

    fn close(&mut self) {
        if self.passed_over > 0 {
            self.passed_over -= 1;
        } else {
            self.levels.pop();
        }
        self.next =
            if self.levels.is_empty() && self.passed_over == 0 { Next::Root } else { Next::Nobody };
    }

    /// The node of the value that begins here.
    const fn asked(&self) -> Option<usize> {
        match self.next {
            Next::Root => Some(Paths::ROOT),
            Next::Node(node) => Some(node),
            Next::Key | Next::Nobody => None,
        }
    }

    fn is_wanted(&self, is_key: bool, paths: &Paths) -> bool {
        is_key || self.asked().is_some_and(|node| !paths.targets(node).is_empty())
    }

    fn keep(&mut self, run: &[u8], is_key: bool, paths: &Paths) {
        if run.is_empty() || !self.is_wanted(is_key, paths) {
            return;
        }
        self.half = None;
        self.characters = self.characters.saturating_add(characters(run));
        let room = self.max_text - self.text.len();
        self.is_cut |= run.len() > room;
        self.text.extend_from_slice(&run[..run.len().min(room)]);
    }

    fn end_text(&mut self, is_key: bool, paths: &Paths, found: &mut impl FnMut(usize, Value<'_>)) {
        self.state = State::Between;
        let text = std::mem::take(&mut self.text);
        if is_key {
            self.take_key(&text, self.is_cut, paths);
        } else {
            let characters = self.characters;
            self.take_value(paths, found, || Some(Value::Text { text: &text, characters }));
        }
        self.text = text;
    }

    /// A key is there, or what is kept of it.
    fn take_key(&mut self, key: &[u8], is_cut: bool, paths: &Paths) {
        let child = self.levels.last().and_then(|level| paths.child(level.node, key));
        self.next = child.filter(|_| !is_cut).map_or(Next::Nobody, Next::Node);
    }

    /// A text or a word is there. It is looked at if anybody asks for it.
    fn take_value<'v>(
        &mut self,
        paths: &Paths,
        found: &mut impl FnMut(usize, Value<'_>),
        value: impl FnOnce() -> Option<Value<'v>>,
    ) {
        if let Some(node) = self.asked()
            && let targets @ [_, ..] = paths.targets(node)
            && let Some(value) = value()
        {
            targets.iter().for_each(|target| found(*target, value));
        }
        self.after_value();
    }

    fn after_value(&mut self) {
        if !self.levels.is_empty() || self.passed_over > 0 {
            self.next = Next::Nobody;
        }
    }
}

/// The bytes of a key or a text that are kept.
pub(super) const MAX_TEXT: usize = 1_024;
/// The levels that are followed.
const MAX_DEPTH: usize = 64;
