//! How everything stands now, as one JSON value: the page, `/status` and `/metrics` tell nothing else.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use serde_json::{Value, json};
use tower_quota::{
    decision::Snapshot,
    deferred::{Counts, State},
    time::{Clock as _, SystemClock, Timestamp},
    upstream::{Notice, Source, Stop},
};

use crate::{
    live::{Gateway, Live},
    numbers::{Tally, lock, millis},
    upstream::{Quota, Upstream},
};

/// How everything stands.
pub(crate) fn status(gateway: &Gateway) -> Value {
    let now = SystemClock.now();
    let live = gateway.live();
    let numbers = &gateway.numbers;
    let (answers, bytes) = gateway.kept_answers();
    let limits: Vec<_> = live.upstreams.iter().flat_map(|own| limits(own, now)).collect();
    let accounts: Vec<_> = live.upstreams.iter().flat_map(|own| accounts(own, now)).collect();
    let state = &live.config.state;
    json!({
        "now": millis(now),
        "instance": {
            "name": instance(&live),
            "version": env!("CARGO_PKG_VERSION"),
            "started": millis(numbers.started),
            "uptime_seconds": now.saturating_since(numbers.started).as_secs(),
            "health": if numbers.is_draining() { "draining" } else { "ready" },
            "tasks": tasks(),
            "state": if state.redis.is_some() { "redis" } else { "in process" },
        },
        "store": gateway.home.store.json(),
        "totals": totals(&numbers.all),
        "upstream_429": numbers.upstream_429.load(Relaxed),
        "connections": numbers.connections.json(),
        "deferred": gateway.lookout.deferred().map(deferred),
        "answers_kept": answers,
        "answers_kept_bytes": bytes,
        "accounts": accounts,
        "limits": limits,
        "tenants": tenants(gateway, &live),
        "news": numbers.news(),
    })
}

fn totals(all: &Tally) -> Value {
    let mut totals = all.json();
    totals["waits_up_to"] = all.waits_up_to().into();
    totals
}

/// The deferred calls of all instances.
fn deferred(counts: Counts) -> Value {
    let mut json = json!({
        "oldest_wait_seconds": counts.oldest_wait.unwrap_or_default().as_secs_f64(),
        "bytes": counts.bytes,
    });
    for state in STATES {
        json[state.name()] = counts.of(state).into();
    }
    json
}

/// The tasks that this process has: some for itself, and one for each connection and call.
fn tasks() -> Option<usize> {
    let runtime = tokio::runtime::Handle::try_current().ok()?;
    Some(runtime.metrics().num_alive_tasks())
}

/// What of a status is kept as history.
pub(crate) fn sample(status: &Value) -> Value {
    let totals = &status["totals"];
    let remaining: serde_json::Map<_, _> = status["limits"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|limit| Some((limit["id"].as_str()?.to_owned(), limit["remaining"].clone())))
        .collect();
    let mut sample = json!({
        "at": status["now"], "upstream_429": status["upstream_429"], "remaining": remaining,
    });
    for name in ["admitted", "cached", "deferred", "refused", "failed", "waiting"] {
        sample[name] = totals[name].clone();
    }
    sample
}

pub(crate) fn instance(live: &Live) -> String {
    let name = live.config.state.instance.clone();
    name.unwrap_or_else(|| format!("process {}", std::process::id()))
}

/// An account, by what is counted apart of it.
fn accounts(upstream: &Upstream, now: Timestamp) -> Vec<Value> {
    let all = upstream.account.notice("");
    let outage = upstream.board.outage();
    let quotas = upstream.quotas.iter().map(|Quota { model, .. }| {
        // What stops all of it goes first: it has mostly no end.
        let stop = all.stop.clone().or_else(|| upstream.account.notice(model).stop);
        json!({
            "name": upstream.name,
            "model": model,
            "profile": upstream.profile.name(),
            "waiting": upstream.account.waiting(model),
            "board_away_since": outage.map(|outage| millis(outage.since)),
            "board_error": outage.map(|outage| outage.kind.name()),
            "stop": stop.as_ref().map(|stop| stop_json(stop, now)),
        })
    });
    quotas.collect()
}

fn stop_json(stop: &Stop, now: Timestamp) -> Value {
    json!({
        "class": stop.class.name(),
        "limit": stop.limit,
        "seconds_left": stop.until.map(|until| until.saturating_since(now).as_secs_f64()),
    })
}

/// The limits of an account: as its answers told them, else as they were set.
fn limits(upstream: &Upstream, now: Timestamp) -> Vec<Value> {
    upstream.quotas.iter().flat_map(|quota| limits_of(upstream, quota, now)).collect()
}

fn limits_of(upstream: &Upstream, quota: &Quota, now: Timestamp) -> Vec<Value> {
    let notice = upstream.account.notice(&quota.model);
    let standing = lock(&quota.standing);
    let of_model = if quota.model.is_empty() { "" } else { "/" };
    let known = standing.limits().iter().filter_map(|limit| {
        let told = notice.limits.iter().find(|told| *told.name == *limit.name);
        // One that was set and is not any more is none.
        let is_set = quota.set.iter().any(|(name, _)| *name == *limit.name);
        let own = limit.limit.filter(|(_, source)| *source != Source::Configured || is_set);
        let (amount, source) = own.or_else(|| told.map(|told| (told.limit, told.source)))?;
        let window = limit.window.map(|(window, _)| window).or_else(|| told?.window);
        let remaining = standing.left(&limit.name, now);
        Some(json!({
            "id": format!("{}{of_model}{}/{}", upstream.name, quota.model, limit.name),
            "account": upstream.name,
            "model": quota.model,
            "name": limit.name,
            "limit": amount,
            "remaining": remaining.map(|remaining| remaining.min(amount)),
            "window_seconds": window.map(|window| window.as_secs_f64()),
            "source": source_name(source),
            "told": told.map(|told| millis(told.told)),
        }))
    });
    known.collect()
}

fn tenants(gateway: &Gateway, live: &Live) -> Vec<Value> {
    let tallies = gateway.numbers.tenants();
    let rows = tallies.iter().map(|(name, tally)| {
        let tenant = live.tenants.values().find(|tenant| tenant.name == *name);
        let mut row = tally.json();
        let left = gateway.lookout.left(name).into_iter();
        row["limits"] = left.map(|(limit, left)| left_json(limit, &left)).collect();
        row["name"] = name.as_str().into();
        row["plan"] = tenant.map_or("(gone)", |tenant| tenant.plan.name.as_str()).into();
        row
    });
    rows.collect()
}

/// What is left of a limit of a plan.
fn left_json(name: &str, left: &Snapshot) -> Value {
    json!({
        "name": name,
        "limit": left.limit,
        "remaining": left.remaining,
        "reset_seconds": left.reset_after.as_secs_f64(),
    })
}

/// What has become known of an account since it was looked at.
pub(crate) fn news(before: &Notice, after: &Notice, now: Timestamp) -> Vec<(&'static str, String)> {
    let mut news = Vec::new();
    for limit in &after.limits {
        let was = before.limits.iter().find(|was| was.name == limit.name);
        if was.is_some_and(|was| (was.limit, was.window) == (limit.limit, limit.window)) {
            continue;
        }
        let per =
            limit.window.map_or_else(String::new, |window| format!(" per {}", period(window)));
        let text = match was {
            Some(was) if was.limit != limit.limit => {
                format!("{}: {}{per}, was {}", limit.name, limit.limit, was.limit)
            }
            _ => format!("{}: {}{per}", limit.name, limit.limit),
        };
        news.push((source_name(limit.source), text));
    }
    if let Some(stop) = after.stop.as_ref().filter(|stop| before.stop.as_ref() != Some(stop)) {
        let class = stop.class.name();
        let wait = stop.until.map(|until| until.saturating_since(now).as_secs_f64());
        let wait =
            wait.map_or_else(|| "until further notice".into(), |wait| format!("for {wait:.1} s"));
        news.push(("stop", format!("{class}: nothing is sent {wait}")));
    }
    news
}

fn period(window: Duration) -> String {
    match window.as_secs() {
        1 => "second".into(),
        60 => "minute".into(),
        3_600 => "hour".into(),
        86_400 => "day".into(),
        _ => format!("{} s", window.as_secs_f64()),
    }
}

fn source_name(source: Source) -> &'static str {
    match source {
        Source::Told => "told",
        Source::Inferred => "inferred",
        Source::Configured => "set",
        _ => "known",
    }
}

/// Of deferred calls, in the order of their ways.
const STATES: [State; 6] =
    [State::Waiting, State::Running, State::Done, State::Failed, State::Expired, State::Canceled];
