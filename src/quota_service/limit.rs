//! From what a rule says of its limit to the algorithm.

use std::time::Duration;

use super::{
    error::RulesError,
    lines::Step::Key,
    place::Place,
    request::LimitOverride,
    rule::{Kind, RuleLimit, Unit},
    shape::{AlgorithmShape, LimitShape},
};
use crate::{
    algorithm::{
        FixedWindow, LeakyBucket, Plan, Rule, SlidingCounter, SlidingLog, SlidingWindow,
        TokenBucket,
    },
    limiter::Limit,
    name::PolicyName,
    quota::Quota,
};

/// The limit of a rule; none if it is unlimited.
pub(super) fn check<'a>(
    place: &Place<'a>,
    shape: &'a LimitShape,
) -> Result<Option<RuleLimit>, RulesError> {
    let is_said = shape.unit.is_some() || shape.requests_per_unit.is_some();
    if shape.unlimited {
        if is_said || shape.quota.is_some() {
            return place.wrong(&[Key("unlimited")], "remove it, or the limit beside it");
        }
        return Ok(None);
    }
    let quota = match (&shape.quota, &shape.unit, shape.requests_per_unit) {
        (Some(text), None, None) => match text.parse::<Quota>() {
            Ok(quota) => quota,
            Err(error) => return place.wrong(&[Key("quota")], error.to_string()),
        },
        (None, Some(unit), Some(requests)) => {
            let Some(unit) = Unit::named(unit) else {
                return place.wrong(
                    &[Key("unit")],
                    "write `second`, `minute`, `hour`, `day`, `week`, `month` or `year`, or a \
                     `quota` such as `\"100/15 min\"` instead",
                );
            };
            match Quota::new(requests, unit.duration()) {
                Ok(quota) => quota,
                Err(error) => return place.wrong(&[Key("requests_per_unit")], error.to_string()),
            }
        }
        (Some(_), ..) => {
            return place
                .wrong(&[Key("quota")], "write either this, or `unit` and `requests_per_unit`");
        }
        (None, None, _) => return place.wrong(&[Key("unit")], MISSING),
        (None, _, None) => return place.wrong(&[Key("requests_per_unit")], MISSING),
    };
    let rule = algorithm(place, shape, quota)?;
    Ok(Some(RuleLimit::new(shape.name.as_deref(), quota, rule)))
}

const MISSING: &str = "say how much: `unit` and `requests_per_unit`, a `quota` such as \
                       `\"100/15 min\"`, or `unlimited = true`";

fn algorithm<'a>(place: &Place<'a>, shape: &LimitShape, quota: Quota) -> Result<Rule, RulesError> {
    use AlgorithmShape as Kind;

    let kind = shape.algorithm;
    let settings: [(&str, Option<u64>, &[Kind], &'static str); 3] = [
        (
            "burst",
            shape.burst,
            &[Kind::TokenBucket, Kind::LeakyBucket],
            "only a `token-bucket` or a `leaky-bucket` has a burst: change `algorithm`, or remove it",
        ),
        (
            "segments",
            shape.segments,
            &[Kind::SlidingWindow],
            "only a `sliding-window` has segments: change `algorithm`, or remove it",
        ),
        (
            "max_wait_ms",
            shape.max_wait_ms,
            &[Kind::LeakyBucket],
            "only in a `leaky-bucket` is waited: change `algorithm`, or remove it",
        ),
    ];
    for (key, value, kinds, remedy) in settings {
        if value.is_some() && !kinds.contains(&kind) {
            return place.wrong(&[Key(key)], remedy);
        }
    }
    Ok(match kind {
        Kind::FixedWindow => FixedWindow::new(quota).into(),
        Kind::LeakyBucket => {
            let bucket = LeakyBucket::new(quota);
            let bucket = shape.burst.map_or(bucket, |depth| bucket.depth(depth));
            let wait = shape.max_wait_ms.map(Duration::from_millis);
            wait.map_or(bucket, |wait| bucket.max_wait(wait)).into()
        }
        Kind::SlidingCounter => SlidingCounter::new(quota).into(),
        Kind::SlidingLog => SlidingLog::new(quota).into(),
        Kind::SlidingWindow => {
            let window = SlidingWindow::new(quota);
            match shape.segments.map_or(Ok(window), |segments| window.segments(segments)) {
                Ok(window) => window.into(),
                Err(error) => return place.wrong(&[Key("segments")], error.to_string()),
            }
        }
        Kind::TokenBucket => {
            let bucket = TokenBucket::new(quota);
            shape.burst.map_or(bucket, |burst| bucket.burst(burst)).into()
        }
    })
}

impl RuleLimit {
    fn new(name: Option<&str>, quota: Quota, rule: Rule) -> Self {
        // A name that fields cannot carry is told only where any text will do.
        let policy = name.and_then(|name| PolicyName::new(name).ok()).unwrap_or_default();
        let kind = Kind::of(&rule);
        let plan = Plan::new().limit(policy.clone(), rule).build();
        let plan = plan.expect("one limit in the first dimension is a plan");
        Self {
            limit: Limit::new(policy, plan),
            kind,
            requests: quota.limit(),
            period: quota.period(),
            unit: Unit::lasting(quota.period()),
            name: name.map(Into::into),
        }
    }

    /// The limit that a request brings with it: fixed windows, as in the reference service.
    pub(super) fn of(given: LimitOverride, name: Option<&str>) -> Self {
        let limit = given.requests_per_unit.min(Quota::MAX_LIMIT);
        let quota = Quota::new(limit, given.unit.duration()).unwrap_or(Quota::CLOSED);
        Self::new(name, quota, FixedWindow::new(quota).into())
    }
}
