//! What operators see: the page, and the same numbers for machines.

use std::{collections::BTreeMap, convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{Path, State},
    middleware,
    routing::{get, post},
};
use futures::{StreamExt as _, stream};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use serde_json::json;
use tokio::{sync::watch, time::MissedTickBehavior};
use tower_quota::{
    BackendErrorKind,
    time::{Clock as _, SystemClock},
    upstream::Notice,
};

use crate::{health, hosts, live::Gateway, metrics, status};

/// The operators' side. `ticks` changes each second, and ends with the server.
pub(crate) fn router(gateway: Arc<Gateway>, ticks: watch::Receiver<Arc<str>>) -> Router {
    let events = move |State(gateway): State<Arc<Gateway>>| {
        let ticks = ticks.clone();
        async move { events(&gateway, ticks) }
    };
    Router::new()
        .route("/", get(|| async { typed("text/html; charset=utf-8", PAGE.into()) }))
        .route("/events", get(events))
        .route("/status", get(status_json))
        .route("/metrics", get(metrics_text))
        .route("/accounts/{name}/resume", post(resume))
        .route_layer(middleware::from_fn_with_state(Arc::clone(&gateway), hosts::known))
        .merge(health::router(Arc::clone(&gateway)))
        .with_state(gateway)
}

/// Looks each second, and tells whoever listens. It ends when the gateway drains.
pub(crate) async fn look(gateway: Arc<Gateway>, ticks: watch::Sender<Arc<str>>) {
    let mut second = tokio::time::interval(Duration::from_secs(1));
    second.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let (mut known, mut away): (Vec<(String, Notice)>, _) = (Vec::new(), BTreeMap::new());
    loop {
        second.tick().await;
        note_news(&gateway, &mut known);
        note_outages(&gateway, &mut away);
        if let Some(news) = gateway.home.store.news(SystemClock.now()) {
            eprintln!("{news}");
            gateway.numbers.learn("", "store", news);
        }
        let status = status::status(&gateway);
        gateway.numbers.remember(status::sample(&status));
        ticks.send_replace(status.to_string().into());
    }
}

fn note_news(gateway: &Gateway, known: &mut Vec<(String, Notice)>) {
    let live = gateway.live();
    let quotas = live.upstreams.iter().flat_map(|upstream| {
        let models = upstream.quotas.iter().map(|quota| quota.model.as_str());
        // What is of all its models too.
        let models = models.filter(|model| !model.is_empty()).chain([""]);
        models.map(move |model| (upstream, model))
    });
    for (upstream, model) in quotas {
        let notice = upstream.account.notice(model);
        let name = if model.is_empty() {
            upstream.name.clone()
        } else {
            format!("{} {model}", upstream.name)
        };
        let place = known.iter().position(|(known, _)| *known == name);
        let place = place.unwrap_or_else(|| {
            known.push((name.clone(), Notice::default()));
            known.len() - 1
        });
        for (kind, what) in status::news(&known[place].1, &notice, SystemClock.now()) {
            gateway.numbers.learn(&name, kind, what);
        }
        known[place].1 = notice;
    }
}

/// Notes whose boards are not read any more, or again. `away` has those that were not.
fn note_outages(gateway: &Gateway, away: &mut BTreeMap<String, BackendErrorKind>) {
    for upstream in &gateway.live().upstreams {
        let outage = upstream.board.outage().map(|outage| outage.kind);
        let before = match outage {
            Some(kind) => away.insert(upstream.name.clone(), kind),
            None => away.remove(&upstream.name),
        };
        let news = match outage {
            Some(kind) if before != outage => {
                format!("what others are told is not read: {}", kind.name())
            }
            None if before.is_some() => "what others are told is read again".into(),
            _ => continue,
        };
        eprintln!("{}: {news}", upstream.name);
        gateway.numbers.learn(&upstream.name, "store", news);
    }
}

fn events(gateway: &Gateway, ticks: watch::Receiver<Arc<str>>) -> Response<Body> {
    let past = json!({ "history": gateway.numbers.history() }).to_string();
    let first = stream::iter([format!("retry: 1000\nevent: past\ndata: {past}\n\n")]);
    let rest = stream::unfold((ticks, true), |(mut ticks, is_first)| async move {
        if !is_first {
            ticks.changed().await.ok()?;
        }
        let status = Arc::clone(&ticks.borrow_and_update());
        Some((format!("event: status\ndata: {status}\n\n"), (ticks, false)))
    });
    let events = first.chain(rest).map(Ok::<_, Infallible>);
    typed("text/event-stream", Body::from_stream(events))
}

async fn status_json(State(gateway): State<Arc<Gateway>>) -> Response<Body> {
    typed("application/json", status::status(&gateway).to_string().into())
}

/// Ends the stops of an account by hand, on all instances: its bill is paid.
async fn resume(
    State(gateway): State<Arc<Gateway>>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> StatusCode {
    // Other people's pages can make an operator's browser send this, but not without saying so.
    if headers.contains_key(header::ORIGIN) {
        return StatusCode::FORBIDDEN;
    }
    let live = gateway.live();
    let Some(upstream) = live.upstreams.iter().find(|upstream| upstream.name == name) else {
        return StatusCode::NOT_FOUND;
    };
    for quota in upstream.quotas.iter().map(|quota| quota.model.as_str()).chain([""]) {
        upstream.account.resume(quota);
    }
    gateway.numbers.learn(&name, "resume", String::from("its stops are ended by hand"));
    StatusCode::NO_CONTENT
}

async fn metrics_text(State(gateway): State<Arc<Gateway>>) -> Response<Body> {
    let text = metrics::text(&status::status(&gateway));
    typed("text/plain; version=0.0.4; charset=utf-8", text.into())
}

fn typed(kind: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Nothing from anywhere else, and no frame around it.
const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; \
                      img-src data:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'";
const PAGE: &str = include_str!("page.html");
