use http::{HeaderMap, header::CONTENT_TYPE};

use super::{
    elements::Elements,
    encoding::is_packed,
    estimate::Estimate,
    event_stream::Frames,
    events::{Events, Part},
    inside::Inside,
    observation::{Class, Observation},
    profile::{InsideShape, OnFailure, Profile, Settles},
    scan::{Scanner, Value},
    usage::{Told, Usage, UsageTarget},
};
use crate::{
    cost::Cost,
    reserve::{End, Reading},
    time::Timestamp,
};

/// Reads from an answer, as it passes, what the call used.
///
/// It plugs into [`FromBody`](crate::http::FromBody). Nothing of the body is kept but the key or
/// the number that it is at, at most some kilobytes, however long a line or a body is. Parts may
/// end anywhere.
///
/// # What it settles
///
/// A whole answer that tells its usage costs that. One that is cut off, or does not tell it, is
/// settled from below: by the input where it was told or [estimated](Self::estimated), and the
/// larger of the output that was told and one token for each text that passed; never below
/// [`at_least`](Self::at_least). Where not even the input is known, what was reserved counts.
///
/// # Errors inside
///
/// An answer that began well may end in an error: an event of a stream that says that the provider
/// is overloaded, a body that is a refusal with the status 200. [`error`](Self::error) tells what
/// it says. What came before it is settled like an answer that is cut off; if nothing came, like a
/// call that failed.
///
/// ```
/// use tower_quota::{Cost, reserve::{End, Reading}, upstream::{Profile, UsageReading}};
///
/// let openai = Profile::ready("openai").expect("it is ready-made");
/// let mut reading = UsageReading::events(&openai);
/// reading.data(b"data: {\"choices\":[],\"usage\":{\"prompt_tokens\":12,\"comple");
/// reading.data(b"tion_tokens\":100}}\r\n\r\ndata: [DONE]\n\n");
/// assert_eq!(reading.cost(End::Whole), Some(Cost::new(1).with(1, 112)));
/// ```
#[derive(Clone, Debug)]
pub struct UsageReading {
    profile: Profile,
    framing: Framing,
    scanner: Scanner,
    told: Told,
    inside: Inside,
    estimate: Option<u64>,
    at_least: Option<Cost>,
}

#[derive(Clone, Debug)]
enum Framing {
    /// JSON, one value or several.
    Json,
    /// JSON, or an array of it that is a stream.
    Elements(Elements),
    /// Server-sent events.
    Events(Events),
    /// The binary event stream of AWS.
    Frames(Box<Frames>),
    /// Compressed.
    Packed,
}

impl UsageReading {
    /// Reads a body of JSON: one value, or several one after the other. Where the profile says so
    /// (`array-is-stream`), an array is a stream, and each of its elements an event.
    pub fn json(profile: &Profile) -> Self {
        let is_stream = profile.usage().array_is_stream;
        let elements = || Framing::Elements(Elements::default());
        Self::new(profile, if is_stream { elements() } else { Framing::Json })
    }

    /// Reads server-sent events.
    pub fn events(profile: &Profile) -> Self {
        Self::new(profile, Framing::Events(Events::default()))
    }

    /// Reads the binary event stream of AWS.
    pub fn frames(profile: &Profile) -> Self {
        Self::new(profile, Framing::Frames(Box::default()))
    }

    /// Reads a body of the type that its fields tell. What is not an event stream is taken as JSON,
    /// but only what says that it is JSON is looked at for an error: anything else may be a file of
    /// somebody who has written one into it. What is compressed is not read: it costs what was
    /// reserved.
    pub fn of(profile: &Profile, headers: &HeaderMap) -> Self {
        let kind = media_type(headers);
        if is_packed(headers) {
            Self::new(profile, Framing::Packed).without_errors()
        } else if kind.eq_ignore_ascii_case(b"text/event-stream") {
            Self::events(profile)
        } else if kind.eq_ignore_ascii_case(b"application/vnd.amazon.eventstream") {
            Self::frames(profile)
        } else if is_json(headers) {
            Self::json(profile)
        } else {
            Self::json(profile).without_errors()
        }
    }

    fn new(profile: &Profile, framing: Framing) -> Self {
        Self {
            profile: profile.clone(),
            framing,
            scanner: Scanner::default(),
            told: Told::default(),
            inside: Inside::default(),
            estimate: None,
            at_least: None,
        }
    }

    /// Takes nothing in the answer for an error of the call, as where it hands out what others
    /// wrote.
    pub(super) fn without_errors(self) -> Self {
        Self { inside: Inside::closed(), ..self }
    }

    /// What the request was estimated to use: its input counts where the answer does not tell it.
    #[must_use]
    pub const fn estimated(mut self, estimate: &Estimate) -> Self {
        self.estimate = Some(estimate.input);
        self
    }

    /// An answer that is cut off costs no less than this: give what was reserved, and a cut gives
    /// nothing back.
    #[must_use]
    pub const fn at_least(mut self, cost: Cost) -> Self {
        self.at_least = Some(cost);
        self
    }

    /// Whether it is no stream of events, so that all of it was there before any of it came.
    pub(super) const fn is_in_one_piece(&self) -> bool {
        match &self.framing {
            Framing::Json => true,
            Framing::Elements(elements) => !elements.is_array(),
            Framing::Events(_) | Framing::Frames(_) | Framing::Packed => false,
        }
    }

    /// Whether it is compressed, so that nothing can be read.
    pub(super) const fn is_packed(&self) -> bool {
        matches!(self.framing, Framing::Packed)
    }

    /// Whether an error has passed that [`error`](Self::error) has not told yet.
    pub(super) fn has_news(&self) -> bool {
        self.inside.is_news()
    }

    /// Whether what has passed has an error.
    pub(super) fn has_error(&self) -> bool {
        self.inside.is_error()
    }

    /// Nothing more comes: an error of which a part has passed is told too.
    pub(super) fn end(&mut self) {
        self.inside.end();
    }

    /// What an error inside of the answer says, as the body of an answer with the status that it
    /// stands for would say it. It is told once, and the first only: in a stream as soon as its
    /// event has passed, of any other body after [`cost`](Reading::cost) was asked. `sent` is when
    /// the request was sent, `received` when this part came.
    ///
    /// A body that is no stream stops nobody for good, unless the profile has a rule for refusals
    /// with a success: it is no event of the provider's, and what a model puts out may look like
    /// one.
    ///
    /// ```
    /// use tower_quota::{reserve::Reading, time::Timestamp, upstream::{Class, Profile, UsageReading}};
    ///
    /// let anthropic = Profile::ready("anthropic").expect("it is ready-made");
    /// let (sent, received) = (Timestamp::from_secs(100), Timestamp::from_secs(103));
    /// let mut reading = UsageReading::events(&anthropic);
    /// reading.data(b"event: ping\ndata: {\"type\": \"ping\"}\n\n");
    /// assert_eq!(reading.error(sent, received), None);
    /// reading.data(b"event: error\ndata: {\"type\": \"error\", \"error\":");
    /// reading.data(b"{\"type\": \"overloaded_error\", \"message\": \"Overloaded\"}}\n\n");
    /// let stop = reading.error(sent, received).and_then(|error| error.stop);
    /// assert_eq!(stop.map(|stop| stop.class), Some(Class::Overloaded));
    /// ```
    pub fn error(&mut self, sent: Timestamp, received: Timestamp) -> Option<Observation> {
        let mut told = self.inside.tell(&self.profile, sent, received)?;
        if self.is_in_one_piece() && !self.profile.refuses_with_success() {
            told.stop.take_if(|stop| stop.class == Class::Permanent);
        }
        Some(told)
    }

    /// What the part that has passed says.
    pub fn usage(&self) -> Usage {
        self.told.usage(self.profile.usage(), false)
    }
}

impl Reading for UsageReading {
    fn data(&mut self, data: &[u8]) {
        let Self { profile, framing, scanner, told, inside, .. } = self;
        let (paths, shape) = (profile.reading_paths(), profile.inside());
        match framing {
            Framing::Json => scanner.data(paths, data, &mut |target, value| {
                take(told, inside, shape, target, value);
            }),
            Framing::Elements(elements) => {
                elements.data(data, &mut |part| read(part, profile, scanner, told, inside));
            }
            Framing::Events(events) => {
                events.data(data, &mut |part| read(part, profile, scanner, told, inside));
            }
            Framing::Frames(frames) => {
                frames.data(data, &mut |part| read(part, profile, scanner, told, inside));
            }
            Framing::Packed => {}
        }
    }

    fn cost(&mut self, end: End) -> Option<Cost> {
        self.end();
        let shape = self.profile.usage();
        if shape.settles == Settles::Reserved {
            return None;
        }
        if self.is_packed() {
            return self.at_least;
        }
        let exact = self.told.usage(shape, true);
        let is_whole = end == End::Whole && !self.has_error();
        if is_whole && exact.is_known() {
            return Some(self.profile.cost(&exact));
        }
        let mut usage = self.told.usage(shape, false);
        if self.has_error() && !usage.is_known() {
            return match shape.counts_on_failure {
                OnFailure::Reserved => self.at_least,
                OnFailure::Nothing | OnFailure::Request => Some(self.profile.failed(Cost::ZERO)),
            };
        }
        usage.input = usage.input.or(self.estimate);
        let cost = self.profile.cost(&usage);
        match self.at_least {
            Some(least) => Some(larger(cost, least)),
            None => usage.input.map(|_| cost),
        }
    }
}

/// The type of a body without its parameters.
pub(super) fn media_type(headers: &HeaderMap) -> &[u8] {
    let kind = headers.get(CONTENT_TYPE).map_or(&b""[..], |kind| kind.as_bytes());
    kind.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii()
}

/// Whether a body says that it is JSON.
pub(super) fn is_json(headers: &HeaderMap) -> bool {
    let kind = media_type(headers).to_ascii_lowercase();
    kind == b"application/json" || kind.ends_with(b"+json")
}

/// Reads a part of a stream.
fn read(
    part: Part<'_>,
    profile: &Profile,
    scanner: &mut Scanner,
    told: &mut Told,
    inside: &mut Inside,
) {
    match part {
        Part::Exception(kind) => inside.exception(kind),
        Part::Data(data) => {
            let shape = profile.inside();
            scanner.data(profile.reading_paths(), data, &mut |target, value| {
                take(told, inside, shape, target, value);
            });
        }
        Part::End => {
            scanner.reset();
            inside.end_event();
        }
    }
}

fn take(
    told: &mut Told,
    inside: &mut Inside,
    shape: &InsideShape,
    target: usize,
    value: Value<'_>,
) {
    if UsageTarget::has(target) {
        told.take(target, value);
    } else {
        inside.take(shape, target, value);
    }
}

/// The larger number in each dimension.
fn larger(one: Cost, other: Cost) -> Cost {
    (0..Cost::DIMENSIONS).fold(one, |cost, dimension| {
        cost.with(dimension, cost.get(dimension).max(other.get(dimension)))
    })
}
