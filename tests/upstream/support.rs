use http::{HeaderMap, HeaderName, StatusCode};
use tower_quota::{
    time::Timestamp,
    upstream::{Answer, Observation, Profile, Report},
};

/// 2026-04-01T12:00:00Z.
pub(crate) const NOW: Timestamp = Timestamp::from_secs(1_775_044_800);

pub(crate) fn ready(name: &str) -> Profile {
    Profile::ready(name).unwrap_or_else(|| panic!("{name} is ready-made"))
}

/// Header fields, one to a line.
pub(crate) fn headers(text: &str) -> HeaderMap {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let (name, value) = line.split_once(':').expect("a name and a value");
            let name: HeaderName = name.parse().expect("a name");
            (name, value.trim().parse().expect("a value"))
        })
        .collect()
}

pub(crate) fn observe(profile: &str, status: u16, fields: &str, body: &str) -> Observation {
    observe_by(&ready(profile), status, &headers(fields), body)
}

pub(crate) fn observe_by(
    profile: &Profile,
    status: u16,
    headers: &HeaderMap,
    body: &str,
) -> Observation {
    let status = StatusCode::from_u16(status).expect("a status");
    let (sent, received) = (NOW, NOW);
    let answer = Answer { status, headers, body: body.as_bytes(), sent, received };
    profile.observe(&answer)
}

pub(crate) fn report<'a>(observation: &'a Observation, name: &str) -> &'a Report {
    let mut reports = observation.reports.iter();
    reports.find(|report| report.name == name).unwrap_or_else(|| panic!("it tells of {name}"))
}

/// Milliseconds from now.
pub(crate) fn in_ms(at: Timestamp) -> u64 {
    u64::try_from(at.saturating_since(NOW).as_millis()).expect("a short time")
}
