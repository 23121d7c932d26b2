//! What a profile must keep to.

use std::time::Duration;

use http::HeaderName;

use super::{Inner, ProfileError, Shape, shape::LimitShape};
use crate::{
    cost::Cost,
    upstream::{
        estimate::EstimateTarget,
        form::{duration, utc_offset},
        inside,
        paths::Paths,
        refusal::RefusalTargets,
        usage::UsageTarget,
    },
};

pub(super) fn check(shape: Shape) -> Result<Inner, ProfileError> {
    let dimensions = shape.dimensions.clone().unwrap_or_default();
    if dimensions.is_empty() || dimensions.len() > Cost::DIMENSIONS {
        return wrong("dimensions".into(), "name one to four, as in `[\"requests\", \"tokens\"]`");
    }
    let repeats = (1..dimensions.len()).any(|at| dimensions[..at].contains(&dimensions[at]));
    if repeats {
        return wrong("dimensions".into(), "name each dimension once");
    }
    if !dimensions.iter().all(|dimension| dimension.is_counted()) {
        return wrong(
            "dimensions".into(),
            "name what calls are counted by: `requests`, `tokens`, `input-tokens`, \
             `output-tokens`; a `[[limit]]` of anything else is read, and not kept",
        );
    }
    let limits = shape.limit.as_deref().unwrap_or_default();
    let mut windows = Vec::with_capacity(limits.len());
    for (index, limit) in limits.iter().enumerate() {
        windows.push(check_limit(index, limit)?);
        if limits[..index].iter().any(|other| other.name() == limit.name()) {
            return wrong(
                format!("limit[{index}].name"),
                "give each limit of a dimension a `name` of its own",
            );
        }
    }
    check_rules(&shape, limits)?;
    for (index, place) in shape.wait.headers.iter().enumerate() {
        check_header(&format!("wait.headers[{index}].at"), &place.at)?;
    }
    if let Some(offset) = &shape.wait.utc_offset
        && utc_offset(offset.as_bytes()).is_none()
    {
        return wrong("wait.utc-offset".into(), "write hours and minutes, as in `+08:00`");
    }
    let longest_stop = match &shape.wait.longest {
        Some(longest) => Some(above_zero("wait.longest", longest)?),
        None => None,
    };
    if let Some((kind, _)) =
        shape.inside.statuses.iter().find(|(_, status)| !(400..600).contains(*status))
    {
        return wrong(
            format!("inside.statuses.{kind}"),
            "write the status of a failure: 400 to 599",
        );
    }
    if shape.estimate.characters_per_token == 0 {
        return wrong("estimate.characters-per-token".into(), "write one or more; 4 is usual");
    }

    let refusal_paths = RefusalTargets::paths(&shape);
    let mut reading_paths = paths(UsageTarget::paths(&shape.usage));
    inside::paths(&shape).for_each(|(path, target)| reading_paths.add(&path, target));
    let estimate_paths = paths(EstimateTarget::paths(&shape.estimate));
    Ok(Inner {
        shape,
        dimensions,
        windows,
        longest_stop,
        refusal_paths,
        reading_paths,
        estimate_paths,
    })
}

fn check_limit(index: usize, limit: &LimitShape) -> Result<Option<Duration>, ProfileError> {
    if OTHERS.iter().any(|others| limit.name().starts_with(others)) {
        return wrong(
            format!("limit[{index}].name"),
            "begin it otherwise: `told-` and `unknown-` are for limits that are not the profile's",
        );
    }
    let fields =
        [("limit", &limit.limit), ("remaining", &limit.remaining), ("reset", &limit.reset)];
    for (key, header) in fields {
        if let Some(header) = header {
            check_header(&format!("limit[{index}].{key}"), header)?;
        }
    }
    if limit.reset.is_some() && limit.form.is_none() {
        return wrong(
            format!("limit[{index}].form"),
            "say in which form `reset` is, as in `form = \"duration\"`",
        );
    }
    let Some(window) = &limit.window else { return Ok(None) };
    above_zero(&format!("limit[{index}].window"), window).map(Some)
}

fn above_zero(key: &str, time: &str) -> Result<Duration, ProfileError> {
    match duration(time.as_bytes()).filter(|time| !time.is_zero()) {
        Some(time) => Ok(time),
        None => wrong(key.into(), "write a time above zero, as in `1m` or `24h`"),
    }
}

/// How the names begin under which other limits than those of a profile are counted.
const OTHERS: [&str; 2] = ["told-", "unknown-"];

fn check_rules(shape: &Shape, limits: &[LimitShape]) -> Result<(), ProfileError> {
    for (index, rule) in shape.refusal.iter().flatten().enumerate() {
        if rule.status.is_empty() && rule.path.is_none() {
            return wrong(
                format!("refusal[{index}]"),
                "say by what it is known: `status`, `path`, or both",
            );
        }
        if rule.path.is_none() && (rule.is.is_some() || rule.contains.is_some()) {
            return wrong(
                format!("refusal[{index}].path"),
                "say where the text is, as in `path = \"error.code\"`",
            );
        }
        if let Some(name) = &rule.limit
            && !limits.iter().any(|limit| limit.name() == name)
        {
            return wrong(format!("refusal[{index}].limit"), "name a `[[limit]]` of this profile");
        }
    }
    Ok(())
}

fn check_header(key: &str, name: &str) -> Result<(), ProfileError> {
    match name.parse::<HeaderName>() {
        Ok(_) => Ok(()),
        Err(_) => wrong(key.into(), "write the name of a header field, as in `x-ratelimit-reset`"),
    }
}

fn paths<'a>(targets: impl Iterator<Item = (&'a str, usize)>) -> Paths {
    let mut paths = Paths::new();
    targets.for_each(|(path, target)| paths.add(path, target));
    paths
}

fn wrong<T>(key: String, remedy: &'static str) -> Result<T, ProfileError> {
    Err(ProfileError::Meaningless { key, remedy })
}
