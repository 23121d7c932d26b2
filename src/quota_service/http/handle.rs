//! One function for each route.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{Path, Request, State},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use http::StatusCode;

use super::{
    Settings,
    answer::{self, Reserved},
    problem::Problem,
    read::{self, AskBody, SettleBody},
};
use crate::quota_service::{QuotaService, ReservationId};

type Shared = State<Arc<Settings>>;

/// How long a reservation is open that does not say it itself.
const USUAL_RESERVATION: Duration = Duration::from_secs(60);

pub(super) async fn authorize(
    State(settings): Shared,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let permits = settings.tokens.as_ref().is_none_or(|tokens| tokens.permit(request.headers()));
    if !permits {
        return Err(Problem::new(StatusCode::UNAUTHORIZED, "a valid bearer token is needed"));
    }
    Ok(next.run(request).await)
}

pub(super) async fn decide(State(settings): Shared, request: Request) -> Result<Response, Problem> {
    let ask = read::json::<AskBody>(&settings, request).await?.into_ask()?;
    let verdict = settings.service.ask(&ask).await?;
    Ok(answer::verdict(&verdict, None))
}

pub(super) async fn inspect(
    State(settings): Shared,
    request: Request,
) -> Result<Response, Problem> {
    let ask = read::json::<AskBody>(&settings, request).await?.into_ask()?;
    let verdict = settings.service.inspect(&ask).await?;
    Ok(answer::inspected(&verdict))
}

pub(super) async fn reserve(
    State(settings): Shared,
    request: Request,
) -> Result<Response, Problem> {
    let body = read::json::<AskBody>(&settings, request).await?;
    if body.expires_in_ms == Some(0) {
        let detail = "a reservation that is open for no time cannot be settled: leave \
                      `expires_in_ms` out, or decide instead";
        return Err(Problem::new(StatusCode::BAD_REQUEST, detail));
    }
    let expires_in = body.expires_in_ms.map_or(USUAL_RESERVATION, Duration::from_millis);
    let expires_in = expires_in.min(QuotaService::LONGEST_RESERVATION);
    let (verdict, id) = settings.service.reserve(&body.into_ask()?, expires_in).await?;
    let reserved = id.map(|id| Reserved { id: id.to_string(), expires_in });
    Ok(answer::verdict(&verdict, reserved.as_ref()))
}

pub(super) async fn settle(
    State(settings): Shared,
    Path(id): Path<String>,
    request: Request,
) -> Result<StatusCode, Problem> {
    let id: ReservationId = id.parse()?;
    let used = read::json::<SettleBody>(&settings, request).await?.hits;
    settings.service.settle(id, |descriptor| used.of(descriptor)).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn give_back(
    State(settings): Shared,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    settings.service.give_back(id.parse()?).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn rules(State(settings): Shared) -> Response {
    let counts = settings.service.rules().counts();
    answer::counts(&counts, settings.service.open_reservations())
}

pub(super) async fn health() -> &'static str {
    "ok\n"
}

pub(super) async fn ready(State(settings): Shared) -> Result<Response, Problem> {
    match settings.service.check().await {
        Ok(()) => Ok("ready\n".into_response()),
        Err(_) => Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the store cannot be reached")),
    }
}

pub(super) async fn no_such_route() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "there is nothing at this path")
}

pub(super) async fn no_such_method() -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this path does not take this method")
}
