//! An error inside of an answer that began well.

use http::{HeaderMap, StatusCode};

use super::{
    found::Found,
    observation::{Answer, Observation},
    profile::{InsideShape, Profile, Shape},
    refusal::{Refusal, RefusalTargets},
    scan::Value,
};
use crate::time::Timestamp;

/// What is found of an error while an answer passes. The first counts.
#[derive(Clone, Debug, Default)]
pub(super) struct Inside {
    found: Found,
    state: State,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum State {
    /// The part that is passing has no error so far.
    #[default]
    Well,
    /// It has one, and goes on.
    Passing,
    /// It has passed.
    Passed,
    Told,
    /// Nothing is taken for one.
    Closed,
}

/// What the paths of errors inside of an answer lead to, beside those of refusals.
struct InsideTargets;

impl InsideTargets {
    const KIND: usize = RefusalTargets::END;
    const MARKS: usize = RefusalTargets::END + 1;
}

/// The paths to what refusals say, and to what is a sign of one inside of an answer that began
/// well.
pub(super) fn paths(shape: &Shape) -> impl Iterator<Item = (String, usize)> {
    let inside = &shape.inside;
    let marks = inside.errors.iter().zip(InsideTargets::MARKS..);
    let marks = marks.map(|(mark, target)| (mark.at.clone(), target));
    let kinds = inside.kinds.iter().map(|path| (path.clone(), InsideTargets::KIND));
    let said = RefusalTargets::list(shape).into_iter().chain(kinds);
    let said = said.flat_map(|(path, target)| {
        let others = elsewhere(inside, &path).into_iter().map(move |path| (path, target));
        others.chain([(path, target)]).collect::<Vec<_>>()
    });
    said.chain(marks)
}

/// Where else a value may be that refusals have at this path.
fn elsewhere(inside: &InsideShape, path: &str) -> Vec<String> {
    let Some(rest) = path.strip_prefix("error.") else { return Vec::new() };
    let others = inside.also_at.iter().map(|prefix| match prefix.as_str() {
        "" => rest.to_owned(),
        prefix => format!("{prefix}.{rest}"),
    });
    others.collect()
}

impl Inside {
    /// Takes nothing for an error.
    pub(super) fn closed() -> Self {
        Self { found: Found::default(), state: State::Closed }
    }

    /// Takes a value that its paths lead to.
    pub(super) fn take(&mut self, shape: &InsideShape, target: usize, value: Value<'_>) {
        if matches!(self.state, State::Passed | State::Told | State::Closed) {
            return;
        }
        let mark = target.checked_sub(InsideTargets::MARKS).and_then(|at| shape.errors.get(at));
        let Some(mark) = mark else {
            if let Value::Text { text, .. } | Value::Number(text) | Value::Word(text) = value {
                self.found.add(target, text);
            }
            return;
        };
        let is_error = match (&mark.is, value) {
            (Some(is), Value::Text { text, .. }) => text.eq_ignore_ascii_case(is.as_bytes()),
            (None, Value::Object | Value::Text { characters: 1.., .. }) => true,
            _ => false,
        };
        if is_error {
            self.state = State::Passing;
        }
    }

    /// The stream says itself that its event is an error, of this kind.
    pub(super) fn exception(&mut self, kind: &[u8]) {
        if self.state == State::Well {
            self.found.add(InsideTargets::KIND, kind);
            self.state = State::Passing;
        }
    }

    /// An event ends: each is judged by itself.
    pub(super) fn end_event(&mut self) {
        match self.state {
            State::Well => self.found.clear(),
            State::Passing => self.state = State::Passed,
            State::Passed | State::Told | State::Closed => {}
        }
    }

    /// The answer ends.
    pub(super) fn end(&mut self) {
        if self.state == State::Passing {
            self.state = State::Passed;
        }
    }

    /// Whether there was an error.
    pub(super) fn is_error(&self) -> bool {
        !matches!(self.state, State::Well | State::Closed)
    }

    /// Whether one has passed of which nobody was told.
    pub(super) fn is_news(&self) -> bool {
        self.state == State::Passed
    }

    /// What the error says, once.
    pub(super) fn tell(
        &mut self,
        profile: &Profile,
        sent: Timestamp,
        received: Timestamp,
    ) -> Option<Observation> {
        if !self.is_news() {
            return None;
        }
        self.state = State::Told;
        let found = std::mem::take(&mut self.found);
        let (status, headers) = (status(profile.inside(), &found), HeaderMap::new());
        let answer = Answer { status, headers: &headers, body: b"", sent, received };
        Some(profile.observation(&answer, &Refusal::of(profile, status, found)))
    }
}

/// The status that an error stands for: the first that is told as one, or by a kind that the
/// profile knows. One that nobody knows is the provider's own.
fn status(shape: &InsideShape, found: &Found) -> StatusCode {
    let known = found.of(InsideTargets::KIND).find_map(|kind| {
        let kind = std::str::from_utf8(kind).ok()?;
        let named = shape.statuses.iter().find(|(name, _)| name.eq_ignore_ascii_case(kind));
        let number = named.map(|(_, status)| *status).or_else(|| kind.parse().ok())?;
        StatusCode::from_u16(number).ok().filter(|status| is_failure(*status))
    });
    known.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

pub(super) fn is_failure(status: StatusCode) -> bool {
    status.is_client_error() || status.is_server_error()
}
