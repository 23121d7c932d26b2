use std::time::Duration;

use http::{HeaderValue, StatusCode};

use super::{
    form::{Form, When, local_time},
    found::Found,
    midnight::next_midnight,
    number::whole,
    observation::{Answer, Class, Observation, Report, Source, Stop},
    paths::Paths,
    profile::{Profile, RuleShape, Shape},
    scan::{Scanner, Value},
    sentence::{amount, time},
};
use crate::time::Timestamp;

/// What the status and the body of an answer say of a refusal.
pub(super) struct Refusal {
    /// The texts that the paths of the profile lead to, in their order.
    found: Found,
    /// The fields that the body repeats.
    body_headers: Vec<(String, usize)>,
    rule: Option<RuleShape>,
    /// Where in `found` the rule has found its text.
    at: usize,
    class: Option<Class>,
}

/// What the paths of refusals lead to, as the scanner numbers it.
pub(super) struct RefusalTargets;

impl RefusalTargets {
    // Those of usage are below.
    const LIMIT: usize = 100;
    const SENTENCE: usize = 101;
    const PATHS: usize = 1_000;
    const RULES: usize = 1_000_000;
    const HEADERS: usize = 2_000_000;
    /// Behind all of them.
    pub(super) const END: usize = 3_000_000;

    /// The paths of a profile.
    pub(super) fn paths(shape: &Shape) -> Paths {
        let mut paths = Paths::new();
        Self::list(shape).iter().for_each(|(path, target)| paths.add(path, *target));
        paths
    }

    /// The paths and their targets.
    pub(super) fn list(shape: &Shape) -> Vec<(String, usize)> {
        let mut list = Vec::new();
        let wait = &shape.wait;
        list.extend(wait.limit.iter().map(|path| (path.clone(), Self::LIMIT)));
        list.extend(wait.sentences.iter().map(|path| (path.clone(), Self::SENTENCE)));
        for (index, place) in wait.paths.iter().enumerate() {
            list.push((place.at.clone(), Self::PATHS + index));
        }
        for (index, rule) in shape.refusal.iter().flatten().enumerate() {
            list.extend(rule.path.iter().map(|path| (path.clone(), Self::RULES + index)));
        }
        if let Some(prefix) = &wait.body_headers {
            for (index, name) in header_names(shape.limit.iter().flatten()).enumerate() {
                list.push((format!("{prefix}.{name}"), Self::HEADERS + index));
            }
        }
        list
    }
}

fn header_names<'a>(
    limits: impl Iterator<Item = &'a super::profile::LimitShape>,
) -> impl Iterator<Item = &'a str> {
    limits
        .flat_map(|limit| [&limit.limit, &limit.remaining, &limit.reset])
        .filter_map(|name| name.as_deref())
}

impl Refusal {
    /// Reads an answer. The body of a success is read only where the profile has a rule for it.
    pub(super) fn read(profile: &Profile, answer: &Answer<'_>) -> Self {
        let status = answer.status.as_u16();
        let is_failure = status >= 400;
        let may_apply = |rule: &RuleShape| rule.status.contains(&status);
        let mut found = Found::default();
        if is_failure || profile.rules().iter().any(may_apply) {
            let body = &answer.body[..answer.body.len().min(Observation::MAX_BODY)];
            let mut scanner = Scanner::default();
            let mut keep = |target, value: Value<'_>| {
                if let Some(text) = text_of(value) {
                    found.add(target, text);
                }
            };
            scanner.data(profile.refusal_paths(), body, &mut keep);
            scanner.end(profile.refusal_paths(), &mut keep);
        }
        Self::of(profile, answer.status, found)
    }

    /// What an answer of this status says whose body has these texts.
    pub(super) fn of(profile: &Profile, status: StatusCode, found: Found) -> Self {
        let status = status.as_u16();
        let is_failure = status >= 400;
        let may_apply = |rule: &RuleShape| rule.status.contains(&status);
        let rules = profile.rules().iter().enumerate();
        let fitting = rules
            .filter(|(_, rule)| if rule.status.is_empty() { is_failure } else { may_apply(rule) })
            .find_map(|(index, rule)| fit(index, rule, &found).map(|at| (rule.clone(), at)));
        let class = match (&fitting, status) {
            (Some((rule, _)), _) => Some(rule.class),
            (None, 429) => Some(Class::Transient),
            (None, 503 | 529) => Some(Class::Overloaded),
            (None, _) => None,
        };
        let names = header_names(profile.limit_shapes().iter()).map(str::to_owned);
        let body_headers = match profile.wait().body_headers {
            Some(_) => names.zip(RefusalTargets::HEADERS..).collect(),
            None => Vec::new(),
        };
        let (rule, at) = fitting.map_or((None, 0), |(rule, at)| (Some(rule), at));
        Self { found, body_headers, rule, at, class }
    }

    /// The value of a header field in the body.
    pub(super) fn body_header(&self, name: &str) -> Option<&[u8]> {
        let (_, target) = self.body_headers.iter().find(|(own, _)| own == name)?;
        self.found.of(*target).next()
    }

    /// What the body says of the limit that binds.
    pub(super) fn report(&self, profile: &Profile) -> Option<Report> {
        let name = self.rule.as_ref()?.limit.as_deref()?;
        let shapes = profile.limit_shapes();
        let index = shapes.iter().position(|limit| limit.name() == name)?;
        let wait = profile.wait();
        let behind = self.found.iter().skip(self.at);
        let told = behind.filter(|(target, _)| *target == RefusalTargets::LIMIT);
        let limit = told
            .filter_map(|(_, text)| whole(text))
            .next()
            .or_else(|| self.number_behind(wait.before_limit.as_deref()));
        let used = self.number_behind(wait.before_used.as_deref());
        limit?;
        Some(Report {
            name: name.to_owned().into(),
            dimension: shapes[index].dimension,
            window: profile.window(index).map(|window| (window, Source::Configured)),
            limit,
            remaining: limit.zip(used).map(|(limit, used)| limit.saturating_sub(used)),
            reset: None,
            slack: 0,
            is_binding: !shapes[index].apart,
        })
    }

    /// Until when to wait: as the answer says, else until the limit that has nothing left is reset,
    /// else as long as this kind of refusal usually asks for. The limit of a day ends at midnight
    /// where the profile says in which zone, whatever shorter time the answer has.
    pub(super) fn stop(
        &self,
        profile: &Profile,
        answer: &Answer<'_>,
        reports: &[Report],
        date: Option<Timestamp>,
        ignored: &mut u32,
    ) -> Option<Stop> {
        let class = self.class?;
        let limit = self.rule.as_ref().and_then(|rule| rule.limit.clone());
        // To wait for nothing, or until a time that is past, is no word of how long: who takes it
        // for one sends all who wait at once, again and again.
        let is_ahead = |at: &Timestamp| answer.received < *at;
        let told =
            self.told(profile, answer, ignored).map(|when| when.instant(answer.received, date));
        let told = told.filter(is_ahead);
        let shape =
            profile.limit_shapes().iter().find(|shape| Some(shape.name()) == limit.as_deref());
        let midnight = shape
            .filter(|_| class == Class::Daily)
            .and_then(|shape| shape.midnight.as_deref())
            .map(|zone| end_of_day(zone, answer, date));
        let spent =
            reports.iter().filter(|report| report.is_binding && report.remaining == Some(0));
        let blocking = spent
            .filter(|report| report.reset.as_ref().is_some_and(is_ahead))
            .max_by_key(|report| report.reset);
        let (until, source) = match (class, midnight.max(told), blocking) {
            (Class::Permanent | Class::NeverAdmissible, ..) => (None, Source::Told),
            (_, Some(until), _) => (Some(until), Source::Told),
            (Class::Transient | Class::Daily, None, Some(report)) => {
                (report.reset, Source::Inferred)
            }
            (_, None, _) => {
                (Some(answer.received.saturating_add(usual(class))), Source::Configured)
            }
        };
        let limit = limit.map(Into::into).or_else(|| {
            let report = blocking.filter(|_| class == Class::Transient)?;
            Some(report.name.clone())
        });
        Some(Stop { class, until: until.map(|until| until.max(answer.received)), limit, source })
    }

    /// The time that the answer tells: by the first field that has one, else by the longest that
    /// the body has.
    fn told(&self, profile: &Profile, answer: &Answer<'_>, ignored: &mut u32) -> Option<When> {
        let wait = profile.wait();
        for place in &wait.headers {
            let values = answer.headers.get_all(&place.at).iter().map(HeaderValue::as_bytes);
            let mut longest = None;
            for value in values {
                match listed(place.form, value) {
                    Some(when) => longest = later(longest, when, answer.received),
                    None => *ignored = ignored.saturating_add(1),
                }
            }
            if longest.is_some() {
                return longest;
            }
        }
        let mut longest = None;
        for (index, place) in wait.paths.iter().enumerate() {
            for text in self.found.of(RefusalTargets::PATHS + index) {
                match place.form.when(text) {
                    Some(when) => longest = later(longest, when, answer.received),
                    None => *ignored = ignored.saturating_add(1),
                }
            }
        }
        for text in self.found.of(RefusalTargets::SENTENCE) {
            for words in &wait.before_time {
                if let Some(time) = behind(text, words).and_then(time) {
                    longest = later(longest, When::After(time), answer.received);
                }
            }
            let offset = wait.utc_offset.as_deref().unwrap_or("Z").as_bytes();
            for words in &wait.before_instant {
                // One that is past is told by another clock than the profile says.
                if let Some(at) = behind(text, words).and_then(|text| local_time(text, offset))
                    && answer.received < at
                {
                    longest = later(longest, When::At(at), answer.received);
                }
            }
        }
        longest
    }

    fn number_behind(&self, words: Option<&str>) -> Option<u64> {
        let words = words.filter(|words| !words.is_empty())?;
        self.found.of(RefusalTargets::SENTENCE).find_map(|text| {
            let mut rest = text;
            loop {
                rest = behind(rest, words)?;
                if let Some(number) = amount(rest) {
                    return Some(number);
                }
            }
        })
    }
}

/// Where in what was found the rule has its text; the beginning for one that asks for none.
fn fit(index: usize, rule: &RuleShape, found: &Found) -> Option<usize> {
    if rule.path.is_none() {
        return Some(0);
    }
    found.iter().position(|(target, text)| {
        target == RefusalTargets::RULES + index
            && rule.is.as_ref().is_none_or(|is| text.eq_ignore_ascii_case(is.as_bytes()))
            && rule.contains.as_ref().is_none_or(|part| behind(text, part).is_some())
    })
}

/// A value of a field that some send as a list: the longest counts.
fn listed(form: Form, value: &[u8]) -> Option<When> {
    form.when(value).or_else(|| {
        let parts = value.split(|byte| *byte == b',').map(|part| form.when(part));
        parts.collect::<Option<Vec<_>>>()?.into_iter().reduce(|one, other| match (one, other) {
            (When::After(one), When::After(other)) => When::After(one.max(other)),
            (When::At(one), When::At(other)) => When::At(one.max(other)),
            (one, _) => one,
        })
    })
}

fn later(longest: Option<When>, when: When, received: Timestamp) -> Option<When> {
    let is_longer = longest
        .is_none_or(|longest| longest.instant(received, None) < when.instant(received, None));
    if is_longer { Some(when) } else { longest }
}

/// What stands behind these words, compared without regard to case.
fn behind<'a>(text: &'a [u8], words: &str) -> Option<&'a [u8]> {
    let words = words.as_bytes();
    if words.is_empty() {
        return Some(text);
    }
    let at = text.windows(words.len()).position(|part| part.eq_ignore_ascii_case(words))?;
    Some(&text[at + words.len()..])
}

/// The end of the day that was spent when a request was refused. It is that in which the request
/// was sent, by the provider's clock; and who sends at midnight may be refused for the day before,
/// as no two clocks are the same.
fn end_of_day(zone: &str, answer: &Answer<'_>, date: Option<Timestamp>) -> Timestamp {
    let Answer { sent, received, .. } = *answer;
    let took = received.saturating_since(sent);
    let sent_there = date.map_or(sent, |date| date.saturating_sub(took));
    let midnight = next_midnight(zone, sent_there.saturating_sub(AT_MIDNIGHT));
    if sent_there < midnight {
        sent.saturating_add(midnight.saturating_since(sent_there))
    } else {
        let since = sent_there.saturating_since(midnight);
        sent.saturating_add(AT_MIDNIGHT.saturating_sub(since))
    }
}

const fn text_of<'a>(value: Value<'a>) -> Option<&'a [u8]> {
    match value {
        Value::Text { text, .. } | Value::Number(text) | Value::Word(text) => Some(text),
        Value::Object => None,
    }
}

const fn usual(class: Class) -> Duration {
    Duration::from_secs(match class {
        Class::Daily => 3_600,
        Class::Overloaded | Class::NotYourLimit => 5,
        _ => 1,
    })
}

/// By how much a provider's midnight may be later than it is here.
const AT_MIDNIGHT: Duration = Duration::from_secs(10);
