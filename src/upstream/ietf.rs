//! The `RateLimit` fields of the IETF draft, as they come from servers.

use std::{borrow::Cow, time::Duration};

use http::{HeaderMap, HeaderValue};

use super::{
    dimension::Dimension,
    number::whole,
    observation::{Report, Source},
};
use crate::time::Timestamp;

/// A member of a list: its name, and its parameters.
struct Member {
    name: String,
    parameters: Vec<(String, Parameter)>,
}

enum Parameter {
    Number(u64),
    Text(String),
    Other,
}

/// Reads the fields; with how many of them cannot be read.
pub(super) fn read(headers: &HeaderMap, received: Timestamp) -> (Vec<Report>, u32) {
    let mut ignored = 0;
    let policies = members(headers, "ratelimit-policy", &mut ignored);
    let standings = members(headers, "ratelimit", &mut ignored);
    let mut reports = Vec::new();
    for policy in policies.into_iter().flatten() {
        match (policy.number("q"), policy.optional("w")) {
            (Some(limit), Ok(window)) if window != Some(0) => {
                let window = window.map(|secs| (Duration::from_secs(secs), Source::Told));
                reports.push(Report { window, limit: Some(limit), ..policy.report() });
            }
            _ => ignored += 1,
        }
    }
    for standing in standings.into_iter().flatten() {
        let (Some(remaining), Ok(reset)) = (standing.number("r"), standing.optional("t")) else {
            ignored += 1;
            continue;
        };
        let reset = reset.map(|secs| received.saturating_add(Duration::from_secs(secs)));
        let known = reports.iter_mut().find(|report| report.name == standing.name);
        match known {
            Some(report) => (report.remaining, report.reset) = (Some(remaining), reset),
            None => {
                reports.push(Report { remaining: Some(remaining), reset, ..standing.report() });
            }
        }
    }
    if reports.is_empty() {
        reports.extend(older(headers, received));
    }
    (reports, ignored)
}

/// `RateLimit-Limit`, `RateLimit-Remaining`, `RateLimit-Reset` and the seventh draft's dictionary.
fn older(headers: &HeaderMap, received: Timestamp) -> Option<Report> {
    let field = |name: &str| headers.get(name).map(HeaderValue::as_bytes);
    let dictionary = field("ratelimit").unwrap_or_default();
    let of = |key: &str| {
        let mut items = dictionary.split(|byte| *byte == b',');
        items.find_map(|item| {
            let value = item.trim_ascii().strip_prefix(key.as_bytes())?.strip_prefix(b"=")?;
            whole(value)
        })
    };
    let first = |name: &str| {
        let value = field(name)?;
        whole(value.split(|byte| matches!(byte, b',' | b';')).next()?.trim_ascii())
    };
    let limit = of("limit").or_else(|| first("ratelimit-limit"));
    let remaining = of("remaining").or_else(|| first("ratelimit-remaining"));
    let reset = of("reset").or_else(|| first("ratelimit-reset"));
    if limit.is_none() && remaining.is_none() {
        return None;
    }
    // Some send the time itself and not how long it is till then.
    let reset = reset.map(|secs| match secs {
        0..1_000_000_000 => received.saturating_add(Duration::from_secs(secs)),
        _ => Timestamp::from_secs(secs),
    });
    let unnamed = Member { name: "requests".into(), parameters: Vec::new() };
    Some(Report { limit, remaining, reset, ..unnamed.report() })
}

impl Member {
    fn report(&self) -> Report {
        let dimension = match self.parameters.iter().rev().find(|(key, _)| key == "qu") {
            Some((_, Parameter::Text(unit))) if unit == "content-bytes" => Dimension::ContentBytes,
            Some((_, Parameter::Text(unit))) if unit == "concurrent-requests" => {
                Dimension::Concurrency
            }
            _ => Dimension::Requests,
        };
        Report {
            name: Cow::Owned(self.name.clone()),
            dimension,
            window: None,
            limit: None,
            remaining: None,
            reset: None,
            slack: 0,
            is_binding: true,
        }
    }

    fn number(&self, key: &str) -> Option<u64> {
        self.optional(key).ok().flatten()
    }

    /// `Err` if it is there and not a number that makes sense. The last of several counts.
    fn optional(&self, key: &str) -> Result<Option<u64>, ()> {
        match self.parameters.iter().rev().find(|(own, _)| own == key) {
            Some((_, Parameter::Number(number))) => Ok(Some(*number)),
            Some(_) => Err(()),
            None => Ok(None),
        }
    }
}

/// All members of a field that may have several lines. One that is malformed spoils its field.
fn members(headers: &HeaderMap, name: &str, ignored: &mut u32) -> Option<Vec<Member>> {
    let mut all = Vec::new();
    for line in headers.get_all(name) {
        let Some(members) = Parser(line.as_bytes()).list() else {
            *ignored += 1;
            return None;
        };
        all.extend(members);
        if all.len() > MAX_MEMBERS {
            *ignored += 1;
            return None;
        }
    }
    Some(all)
}

/// A list of RFC 9651 whose members are texts or tokens. One deviation of the field is let pass: a
/// text in the place of a parameter, which is then the name.
struct Parser<'a>(&'a [u8]);

impl Parser<'_> {
    fn list(mut self) -> Option<Vec<Member>> {
        let mut members = Vec::new();
        self.space();
        loop {
            members.push(self.member()?);
            if members.len() > MAX_MEMBERS {
                return None;
            }
            self.space();
            if self.0.is_empty() {
                return Some(members);
            }
            self.take(b',')?;
            self.space();
        }
    }

    fn member(&mut self) -> Option<Member> {
        let mut member = Member { name: self.text_or_token()?, parameters: Vec::new() };
        while self.take(b';').is_some() {
            self.space();
            if self.0.first() == Some(&b'"') {
                member.name = self.text()?;
                continue;
            }
            let key = self.run(|byte| {
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-.*".contains(&byte)
            })?;
            let value = match self.take(b'=') {
                Some(()) => self.value()?,
                None => Parameter::Other,
            };
            if member.parameters.len() == MAX_MEMBERS {
                return None;
            }
            member.parameters.push((key, value));
        }
        Some(member)
    }

    fn value(&mut self) -> Option<Parameter> {
        match self.0.first()? {
            b'"' => self.text().map(Parameter::Text),
            b'0'..=b'9' => {
                let number = self.run(|byte| byte.is_ascii_digit() || byte == b'.')?;
                // Fifteen digits are the most; a fraction is not a number of units.
                let is_long = number.len() > 15;
                let number = whole(number.as_bytes()).filter(|_| !is_long);
                Some(number.map_or(Parameter::Other, Parameter::Number))
            }
            b':' => {
                self.take(b':')?;
                let end = self.0.iter().position(|byte| *byte == b':')?;
                self.0 = &self.0[end + 1..];
                Some(Parameter::Other)
            }
            b'-' | b'?' => {
                self.0 = &self.0[1..];
                self.run(|byte| byte.is_ascii_digit() || byte == b'.').map(|_| Parameter::Other)
            }
            _ => self.text_or_token().map(|_| Parameter::Other),
        }
    }

    fn text_or_token(&mut self) -> Option<String> {
        match self.0.first()? {
            b'"' => self.text(),
            b'*' | b'a'..=b'z' | b'A'..=b'Z' => self
                .run(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&byte)),
            _ => None,
        }
    }

    fn text(&mut self) -> Option<String> {
        self.take(b'"')?;
        let mut text = String::new();
        loop {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            match byte {
                b'"' => return Some(text),
                b'\\' => {
                    let (escaped, rest) = self.0.split_first()?;
                    self.0 = rest;
                    text.push(char::from(*escaped));
                }
                b' '..=b'~' => text.push(char::from(*byte)),
                _ => return None,
            }
        }
    }

    fn run(&mut self, is_part: impl Fn(u8) -> bool) -> Option<String> {
        let end = self.0.iter().position(|byte| !is_part(*byte)).unwrap_or(self.0.len());
        let (run, rest) = self.0.split_at(end);
        self.0 = rest;
        if run.is_empty() { None } else { String::from_utf8(run.to_vec()).ok() }
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        self.0 = self.0.strip_prefix(&[byte])?;
        Some(())
    }

    fn space(&mut self) {
        self.0 = self.0.trim_ascii_start();
    }
}

/// The members of a field that are read, and the parameters of one.
const MAX_MEMBERS: usize = 32;
