use http::{HeaderMap, header::CONTENT_TYPE};

use super::{
    estimate::Estimate,
    event_stream::Frames,
    events::{Events, Part},
    profile::{Profile, Settles},
    scan::Scanner,
    usage::{Told, Usage},
};
use crate::{
    cost::Cost,
    reserve::{End, Reading},
};

/// Reads from an answer, as it passes, what the call used.
///
/// It plugs into [`FromBody`](crate::http::FromBody). Nothing of the body is kept but the key or the
/// number that it is at, at most some kilobytes, however long a line or a body is. Parts may end
/// anywhere.
///
/// # What it settles
///
/// A whole answer that tells its usage costs that. One that is cut off, or does not tell it, is
/// settled from below: by the input where it was told or [estimated](Self::estimated), and the larger
/// of the output that was told and one token for each text that passed; never below
/// [`at_least`](Self::at_least). Where not even the input is known, what was reserved counts.
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
    estimate: Option<u64>,
    at_least: Option<Cost>,
}

#[derive(Clone, Debug)]
enum Framing {
    /// JSON, one value or several.
    Json,
    /// Server-sent events.
    Events(Events),
    /// The binary event stream of AWS.
    Frames(Frames),
}

impl UsageReading {
    /// Reads a body of JSON: one value, or several one after the other.
    pub fn json(profile: &Profile) -> Self {
        Self::new(profile, Framing::Json)
    }

    /// Reads server-sent events.
    pub fn events(profile: &Profile) -> Self {
        Self::new(profile, Framing::Events(Events::default()))
    }

    /// Reads the binary event stream of AWS.
    pub fn frames(profile: &Profile) -> Self {
        Self::new(profile, Framing::Frames(Frames::default()))
    }

    /// Reads a body of the type that its fields tell. What is not an event stream is taken as JSON.
    pub fn of(profile: &Profile, headers: &HeaderMap) -> Self {
        let kind = headers.get(CONTENT_TYPE).map_or(&b""[..], |kind| kind.as_bytes());
        let kind = kind.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        if kind.eq_ignore_ascii_case(b"text/event-stream") {
            Self::events(profile)
        } else if kind.eq_ignore_ascii_case(b"application/vnd.amazon.eventstream") {
            Self::frames(profile)
        } else {
            Self::json(profile)
        }
    }

    fn new(profile: &Profile, framing: Framing) -> Self {
        Self {
            profile: profile.clone(),
            framing,
            scanner: Scanner::default(),
            told: Told::default(),
            estimate: None,
            at_least: None,
        }
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
        matches!(self.framing, Framing::Json)
    }

    /// What the part that has passed says.
    pub fn usage(&self) -> Usage {
        self.told.usage(self.profile.usage(), false)
    }
}

impl Reading for UsageReading {
    fn data(&mut self, data: &[u8]) {
        let Self { profile, framing, scanner, told, .. } = self;
        let paths = profile.usage_paths();
        let mut found = |target, value: super::scan::Value<'_>| told.take(target, value);
        match framing {
            Framing::Json => scanner.data(paths, data, &mut found),
            Framing::Events(events) => events.data(data, &mut |part| match part {
                Part::Data(data) => scanner.data(paths, data, &mut found),
                Part::End => scanner.reset(),
            }),
            Framing::Frames(frames) => frames.data(data, &mut |part| match part {
                Part::Data(data) => scanner.data(paths, data, &mut found),
                Part::End => scanner.reset(),
            }),
        }
    }

    fn cost(&mut self, end: End) -> Option<Cost> {
        let shape = self.profile.usage();
        if shape.settles == Settles::Reserved {
            return None;
        }
        let exact = self.told.usage(shape, true);
        if end == End::Whole && exact.is_known() {
            return Some(self.profile.cost(&exact));
        }
        let mut usage = self.told.usage(shape, false);
        usage.input = usage.input.or(self.estimate);
        let cost = self.profile.cost(&usage);
        match self.at_least {
            Some(least) => Some(larger(cost, least)),
            None => usage.input.map(|_| cost),
        }
    }
}

/// The larger number in each dimension.
fn larger(one: Cost, other: Cost) -> Cost {
    (0..Cost::DIMENSIONS).fold(one, |cost, dimension| {
        cost.with(dimension, cost.get(dimension).max(other.get(dimension)))
    })
}
