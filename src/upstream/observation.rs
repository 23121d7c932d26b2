use std::{borrow::Cow, time::Duration};

use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{AGE, DATE},
};
use serde::{Deserialize, Serialize};

use super::{
    dimension::Dimension,
    form::{When, http_date},
    ietf,
    number::floored,
    profile::{LimitShape, Profile},
    refusal::Refusal,
    window::infer_window,
};
use crate::{cost::Cost, time::Timestamp};

/// An answer, as far as it is needed to see how the limits stand.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::exhaustive_structs, reason = "its caller puts it together")]
pub struct Answer<'a> {
    /// Its status.
    pub status: StatusCode,
    /// Its header fields.
    pub headers: &'a HeaderMap,
    /// Its body, or the beginning of it. Of a success it may be empty; not more than
    /// [`MAX_BODY`](Observation::MAX_BODY) bytes are read.
    pub body: &'a [u8],
    /// When its request was sent.
    pub sent: Timestamp,
    /// When its header fields came.
    pub received: Timestamp,
}

/// What an answer says of the limits that its request was under.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Observation {
    /// When the request was sent.
    pub sent: Timestamp,
    /// When the answer came.
    pub received: Timestamp,
    /// How the limits stand that it tells of.
    pub reports: Vec<Report>,
    /// Whether, why and until when nothing more is to be sent.
    pub stop: Option<Stop>,
    /// How many values it has that cannot be read, and were passed over.
    pub ignored: u32,
}

/// How one limit stands, as far as an answer says it.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Report {
    /// The limit's name: of the profile, or of the provider's policy.
    pub name: Cow<'static, str>,
    /// What it counts.
    pub dimension: Dimension,
    /// Its window, and how that is known.
    pub window: Option<(Duration, Source)>,
    /// How much there is in a window.
    pub limit: Option<u64>,
    /// How much is left.
    pub remaining: Option<u64>,
    /// When it is full again, or begins anew.
    pub reset: Option<Timestamp>,
    /// What is left may be less by so much, because the provider rounds it.
    pub slack: u64,
    /// It binds ordinary requests.
    pub is_binding: bool,
}

/// How a number is known.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Source {
    /// It follows from other numbers.
    Inferred,
    /// Whoever runs this program says so, or the profile.
    Configured,
    /// The provider's answer says so.
    Told,
}

/// Why a provider refuses.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Class {
    /// A limit of seconds or minutes: wait.
    Transient,
    /// The limit of a day.
    Daily,
    /// No waiting helps: no money, no right.
    Permanent,
    /// This request is larger than the limit ever is. Others may go.
    NeverAdmissible,
    /// The provider is overloaded: wait, but the limit is as it was.
    Overloaded,
    /// The limit of somebody behind the provider.
    NotYourLimit,
}

impl Class {
    /// Its name in a profile.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::Daily => "daily",
            Self::Permanent => "permanent",
            Self::NeverAdmissible => "never-admissible",
            Self::Overloaded => "overloaded",
            Self::NotYourLimit => "not-your-limit",
        }
    }
}

/// A stop: nothing more is to be sent until then.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Stop {
    /// Why.
    pub class: Class,
    /// Until when. `None`: no waiting helps.
    pub until: Option<Timestamp>,
    /// The name of the limit, if the answer says it.
    pub limit: Option<Cow<'static, str>>,
    /// How the time is known: [`Configured`](Source::Configured) where nothing says it.
    pub source: Source,
}

impl Profile {
    /// What an answer says. Values that cannot be read are passed over and counted.
    ///
    /// The fields of an answer that a cache gave (it has an `Age`) are of another time, and are not
    /// read. An instant that the provider tells by its own clock is corrected by its `Date`, where
    /// that is more than two seconds off.
    ///
    /// ```
    /// use http::{HeaderMap, StatusCode};
    /// use tower_quota::{time::Timestamp, upstream::{Answer, Profile}};
    ///
    /// let openai = Profile::ready("openai").expect("it is ready-made");
    /// let mut headers = HeaderMap::new();
    /// headers.insert("x-ratelimit-limit-tokens", "200000".parse()?);
    /// headers.insert("x-ratelimit-remaining-tokens", "199221".parse()?);
    /// headers.insert("x-ratelimit-reset-tokens", "233ms".parse()?);
    /// let (sent, received) = (Timestamp::from_secs(100), Timestamp::from_secs(101));
    /// let observation =
    ///     openai.observe(&Answer { status: StatusCode::OK, headers: &headers, body: b"", sent, received });
    /// let report = &observation.reports[0];
    /// assert_eq!((report.limit, report.remaining), (Some(200_000), Some(199_221)));
    /// assert_eq!(report.window.map(|(window, _)| window.as_secs()), Some(60));
    /// # Ok::<(), http::header::InvalidHeaderValue>(())
    /// ```
    pub fn observe(&self, answer: &Answer<'_>) -> Observation {
        self.observation(answer, &Refusal::read(self, answer))
    }

    /// What an answer says that is this refusal, or none.
    pub(super) fn observation(&self, answer: &Answer<'_>, refusal: &Refusal) -> Observation {
        let mut reader = FieldReader { answer, refusal, date: skew(answer), ignored: 0 };
        let mut reports = Vec::new();
        if !answer.headers.contains_key(AGE) {
            for (index, limit) in self.limit_shapes().iter().enumerate() {
                reports.extend(reader.report(limit, self.window(index)));
            }
            if self.has_ietf_fields() {
                let (told, ignored) = ietf::read(answer.headers, answer.received);
                reports.extend(told);
                reader.ignored += ignored;
            }
        }
        let mut ignored = reader.ignored;
        if let Some(told) = refusal.report(self)
            && !reports.iter().any(|report| report.name == told.name)
        {
            reports.push(told);
        }
        let stop = refusal.stop(self, answer, &reports, skew(answer), &mut ignored);
        Observation { sent: answer.sent, received: answer.received, reports, stop, ignored }
    }
}

impl Observation {
    /// The bytes of a body that are read.
    pub const MAX_BODY: usize = 65_536;
}

impl Observation {
    /// Forgets what an answer says of a limit if a request of this cost can never have been
    /// answered well inside of that, however far its estimate is off: as all that are like it
    /// would be refused for good, no other answer would come that says otherwise.
    pub(super) fn forget_what_cannot_be(&mut self, dimensions: &[Dimension], cost: Cost) {
        self.reports.retain(|report| {
            let place = dimensions.iter().position(|dimension| *dimension == report.dimension);
            let cost = place.map_or(0, |place| cost.get(place));
            report.limit.is_none_or(|limit| cost <= limit.saturating_mul(MOST_OFF))
        });
    }
}

/// Reads header fields, where they are and where a body repeats them.
struct FieldReader<'a> {
    answer: &'a Answer<'a>,
    refusal: &'a Refusal,
    date: Option<Timestamp>,
    ignored: u32,
}

impl FieldReader<'_> {
    fn report(&mut self, shape: &LimitShape, window: Option<Duration>) -> Option<Report> {
        let limit = self.value(shape.limit.as_deref(), floored);
        let remaining = self.value(shape.remaining.as_deref(), floored);
        let form = shape.form;
        let when = self.value(shape.reset.as_deref(), |text| form?.when(text));
        if limit.is_none() && remaining.is_none() && when.is_none()
            || (shape.zero_is_none && limit == Some(0))
        {
            return None;
        }
        let window = match (window, limit, remaining, when) {
            (Some(window), ..) => Some((window, Source::Configured)),
            (None, Some(limit), Some(remaining), Some(When::After(reset))) if shape.refills => {
                infer_window(limit, remaining, reset).map(|window| (window, Source::Inferred))
            }
            _ => None,
        };
        Some(Report {
            name: shape.name().to_owned().into(),
            dimension: shape.dimension,
            window,
            limit,
            remaining,
            reset: when.map(|when| when.instant(self.answer.received, self.date)),
            slack: shape.rounded_to / 2,
            is_binding: !shape.apart,
        })
    }

    /// The first value of a field that can be read.
    fn value<T>(&mut self, name: Option<&str>, read: impl Fn(&[u8]) -> Option<T>) -> Option<T> {
        let name = name?;
        let headers = self.answer.headers.get_all(name).iter().map(HeaderValue::as_bytes);
        for text in headers.chain(self.refusal.body_header(name)) {
            match read(text) {
                Some(value) => return Some(value),
                None => self.ignored = self.ignored.saturating_add(1),
            }
        }
        None
    }
}

/// The provider's time, where it is not ours.
fn skew(answer: &Answer<'_>) -> Option<Timestamp> {
    let date = http_date(answer.headers.get(DATE)?.as_bytes())?;
    let (received, bound) = (answer.received, Duration::from_secs(2));
    let apart = date.saturating_since(received).max(received.saturating_since(date));
    (apart > bound).then_some(date)
}

/// An estimate is hardly more than so many times what is used.
const MOST_OFF: u64 = 4;
