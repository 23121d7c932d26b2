//! What tenants see: the endpoints, and who may use them.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::{
    Router,
    body::Body,
    extract::{Path, State},
    routing::{any, get, post},
};
use http::{
    HeaderMap, HeaderValue, Request, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_LENGTH},
};
use serde::Deserialize;
use tower::ServiceExt as _;
use tower_quota::{
    http::RetryHint,
    time::{Clock as _, SystemClock},
};

use crate::{
    bodies,
    call::Call,
    config::Wire,
    deferral::Line,
    fields, health,
    live::{Gateway, Live},
    models,
    numbers::Outcome,
    refusal::Refusal,
    tenants::{Tenant, key_hash},
};

/// The tenants' side.
pub(crate) fn router(gateway: Arc<Gateway>) -> Router {
    Router::new()
        .route("/v1/chat/completions", post(openai))
        .route("/v1/completions", post(openai))
        .route("/v1/embeddings", post(openai))
        .route("/v1/responses", post(openai))
        .route("/v1/responses/input_tokens", post(openai))
        .route("/v1/messages", post(anthropic))
        .route("/v1/messages/count_tokens", post(anthropic))
        .route("/v1/models", get(models))
        .route("/v1/models/{*model}", get(model))
        .route("/deferred/{*id}", any(later))
        .merge(health::router(Arc::clone(&gateway)))
        .fallback(|request: Request<Body>| async move {
            Refusal::nothing_there().respond(wire_of(request.uri().path()))
        })
        .with_state(gateway)
}

/// What those see who are one too many: that there is no room, and that it lives all the same.
pub(crate) fn full() -> Router {
    Router::new().route("/healthz", get(health::lives)).fallback(
        |request: Request<Body>| async move {
            let (parts, body) = request.into_parts();
            bodies::discard(body).await;
            Refusal::full().respond(wire_of(parts.uri.path()))
        },
    )
}

async fn openai(State(gateway): State<Arc<Gateway>>, request: Request<Body>) -> Response<Body> {
    answer(&gateway, Wire::OpenAi, request).await
}

async fn anthropic(State(gateway): State<Arc<Gateway>>, request: Request<Body>) -> Response<Body> {
    answer(&gateway, Wire::Anthropic, request).await
}

async fn models(State(gateway): State<Arc<Gateway>>, request: Request<Body>) -> Response<Body> {
    let (live, wire) = (gateway.live(), wire_of_head(request.headers()));
    match tenant(&live, request.headers()) {
        Ok(tenant) => models::all(&live, &tenant, wire),
        Err(refusal) => refusal.respond(wire),
    }
}

async fn model(
    State(gateway): State<Arc<Gateway>>,
    Path(model): Path<String>,
    request: Request<Body>,
) -> Response<Body> {
    let (live, wire) = (gateway.live(), wire_of_head(request.headers()));
    match tenant(&live, request.headers()).and_then(|own| models::one(&live, &own, &model, wire)) {
        Ok(response) => response,
        Err(refusal) => refusal.respond(wire),
    }
}

async fn answer(gateway: &Gateway, wire: Wire, request: Request<Body>) -> Response<Body> {
    let live = gateway.live();
    let tenant = match tenant(&live, request.headers()) {
        Ok(tenant) => tenant,
        Err(refusal) => {
            bodies::discard(request.into_body()).await;
            return refusal.respond(wire);
        }
    };
    let (call, request) = match prepare(gateway, &live, tenant, wire, request).await {
        Ok(prepared) => prepared,
        Err(refusal) => return refusal.respond(wire),
    };
    let tally = |outcome| {
        gateway.numbers.all.count(outcome);
        call.tenant().tally.count(outcome);
    };
    let response = match live.service.clone().oneshot(request).await {
        Ok(response) => response,
        Err(error) => {
            let refusal = Refusal::of(&error);
            tally(if refusal.is_limit() { Outcome::Refused } else { Outcome::Failed });
            return refusal.respond(wire);
        }
    };
    let status = response.status();
    tally(if status == StatusCode::ACCEPTED {
        Outcome::Deferred
    } else if is_from_memory(response.headers()) {
        Outcome::Cached
    } else if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
        Outcome::Failed
    } else {
        Outcome::Admitted
    });
    given(response, wire)
}

/// How a deferred call stands, or its answer.
async fn later(State(gateway): State<Arc<Gateway>>, mut request: Request<Body>) -> Response<Body> {
    let live = gateway.live();
    let tenant = match tenant(&live, request.headers()) {
        Ok(tenant) => tenant,
        Err(refusal) => return refusal.respond(Wire::OpenAi),
    };
    let path = request.uri().path().trim_start_matches("/deferred/");
    let Some(line) = Line::of_path(path) else {
        return Refusal::nothing_there().respond(Wire::OpenAi);
    };
    line.own(&tenant, request.extensions_mut());
    match gateway.later.results(&line).oneshot(request).await {
        Ok(response) => response,
        Err(error) => Refusal::of(&error).respond(Wire::OpenAi),
    }
}

/// What of an answer is the caller's.
pub(crate) fn given(mut response: Response<Body>, wire: Wire) -> Response<Body> {
    if response.status() == StatusCode::TOO_MANY_REQUESTS {
        // What it says is about the account: whose it is, its limits, its use.
        let after = RetryHint::from_headers(response.headers());
        let now = SystemTime::UNIX_EPOCH + Duration::from_nanos(SystemClock.now().as_nanos());
        let wait = after.map(|after| after.wait(now));
        let secs = wait.map(|wait| wait.as_secs() + u64::from(wait.subsec_nanos() > 0));
        return Refusal::throttled(secs).respond(wire);
    }
    let of_account =
        [StatusCode::UNAUTHORIZED, StatusCode::PAYMENT_REQUIRED, StatusCode::FORBIDDEN];
    if of_account.contains(&response.status()) {
        // The provider means the gateway's key or money, and what it says may quote it.
        let message = "The provider did not accept the gateway's account.";
        return Refusal::new(StatusCode::BAD_GATEWAY, "api_error", message).respond(wire);
    }
    *response.headers_mut() = fields::to_tenant(response.headers());
    response.extensions_mut().clear();
    response
}

/// The answer to a deferred call whose tenant is gone.
pub(crate) fn unknown_tenant() -> Response<Body> {
    let message = "The tenant of this call is not known any more.";
    Refusal::new(StatusCode::UNAUTHORIZED, "authentication_error", message).respond(Wire::OpenAi)
}

fn tenant(live: &Live, headers: &HeaderMap) -> Result<Arc<Tenant>, Refusal> {
    let known = key_hash(headers).and_then(|hash| live.tenants.get(&hash));
    known.cloned().ok_or_else(|| {
        let message = "This API key is not known here.";
        Refusal::new(StatusCode::UNAUTHORIZED, "authentication_error", message)
    })
}

/// What has to be known of a question before it is let in.
#[derive(Deserialize)]
struct Head {
    model: String,
    temperature: Option<f64>,
    n: Option<f64>,
}

impl Head {
    /// Whether the caller asks for another answer each time.
    fn is_random(&self) -> bool {
        self.temperature.is_some_and(|temperature| temperature > 0.0)
            || self.n.is_some_and(|n| n > 1.0)
    }
}

pub(crate) async fn prepare(
    gateway: &Gateway,
    live: &Live,
    tenant: Arc<Tenant>,
    wire: Wire,
    request: Request<Body>,
) -> Result<(Call, Request<Body>), Refusal> {
    let (mut parts, body) = request.into_parts();
    let body = bodies::read(&parts.headers, body, &live.config.server).await?;
    let text = std::str::from_utf8(&body).map_err(|_| Refusal::bad("The body is not UTF-8."))?;
    // A list would be read as one, its members in the order of the fields.
    if !text.trim_start().starts_with('{') {
        return Err(Refusal::bad("The body is not a JSON object."));
    }
    // What is skipped of it here is read elsewhere, by what follows each level.
    if bodies::is_deeper(&body, DEEPEST) {
        return Err(Refusal::bad(format!("The body is nested deeper than {DEEPEST} levels.")));
    }
    let head: Head = serde_json::from_str(text)
        .map_err(|error| Refusal::bad(format!("The body is not understood: {error}.")))?;
    let route = live.routes.get(&head.model);
    let route = route.filter(|route| route.wire == wire && tenant.may_use(&route.model));
    let route = route.cloned().ok_or_else(Refusal::no_such_model)?;
    let counts_only = matches!(parts.uri.path(), COUNT_ANTHROPIC | COUNT_OPENAI);
    let estimate = route.profile.estimate(&body);
    let priority = fields::priority(&parts.headers).unwrap_or(tenant.plan.priority);
    let call = Call::new(tenant, route, estimate, priority, Arc::clone(&gateway.numbers.all));
    let call = if counts_only { call.counting_only() } else { call };
    parts.extensions.clear();
    Line::of_model(&call.route().model).own(call.tenant(), &mut parts.extensions);
    parts.extensions.insert(call.clone());
    parts.headers.remove(CONTENT_LENGTH);
    // The query says nothing at these endpoints.
    parts.uri =
        parts.uri.path().parse().map_err(|_| Refusal::bad("The path is not understood."))?;
    if head.is_random() {
        parts.headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    Ok((call, Request::from_parts(parts, Body::from(body))))
}

fn is_from_memory(headers: &HeaderMap) -> bool {
    let says = headers.get(fields::CACHE_STATUS).and_then(|value| value.to_str().ok());
    says.is_some_and(|says| says.contains("hit") || says.contains("collapsed"))
}

pub(crate) fn wire_of(path: &str) -> Wire {
    if matches!(path, "/v1/messages" | COUNT_ANTHROPIC) { Wire::Anthropic } else { Wire::OpenAi }
}

/// Whose language a caller speaks where both have the same path.
fn wire_of_head(headers: &HeaderMap) -> Wire {
    if headers.contains_key("anthropic-version") { Wire::Anthropic } else { Wire::OpenAi }
}

/// Where it is asked how many tokens a question has.
const COUNT_ANTHROPIC: &str = "/v1/messages/count_tokens";
const COUNT_OPENAI: &str = "/v1/responses/input_tokens";

/// As JSON readers have it.
const DEEPEST: usize = 127;
