//! The server's part of [`backend::remote`](crate::guide::quota_service): a store for the layers of
//! others, which bring their own limits.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    response::Response,
};
use http::StatusCode;

use super::{Settings, answer, problem::Problem, read};
use crate::{
    algorithm::{Plan, PlanForm},
    backend::{
        Backend as _,
        wire::{self, DecideBody, DecisionForm, SettleBody},
    },
    decision::Demand,
    key::Key,
    name::PolicyName,
    quota_service::AskError,
};

pub(super) async fn decide(
    State(settings): State<Arc<Settings>>,
    request: Request,
) -> Result<Response, Problem> {
    let body: DecideBody = read::json(&settings, request).await?;
    let (plan, key) = (plan(body.plan)?, key(body.store, &body.key)?);
    let demand = Demand::from(body.demand);
    let decision = settings.service.backend().decide(&plan, &key, &demand).await;
    let decision = DecisionForm::from(decision.map_err(AskError::Backend)?);
    Ok(answer::json(StatusCode::OK, &decision, answer::JSON))
}

pub(super) async fn settle(
    State(settings): State<Arc<Settings>>,
    request: Request,
) -> Result<StatusCode, Problem> {
    let body: SettleBody = read::json(&settings, request).await?;
    let (plan, key) = (plan(body.plan)?, key(body.store, &body.key)?);
    let (charge, actual) = (body.charge.into(), wire::cost(body.actual));
    let settled = settings.service.backend().settle(&plan, &key, &charge, actual).await;
    settled.map_err(AskError::Backend)?;
    Ok(StatusCode::NO_CONTENT)
}

fn plan(form: PlanForm) -> Result<Plan, Problem> {
    let plan = Plan::try_from(form);
    plan.map_err(|error| Problem::new(StatusCode::BAD_REQUEST, error.to_string()))
}

/// A key of a store. It begins with a join, where those of descriptors begin with a text: neither
/// can be written to meet the other.
fn key(store: String, key: &str) -> Result<Key, Problem> {
    let store = PolicyName::new(store)
        .map_err(|error| Problem::new(StatusCode::BAD_REQUEST, error.to_string()))?;
    if key.len() > LONGEST_KEY {
        return Err(Problem::new(StatusCode::BAD_REQUEST, "a key is a hash of 64 digits"));
    }
    Ok(Key::join([&Key::join([&Key::secret(store.as_str())]), &Key::from(key)]))
}

const LONGEST_KEY: usize = 64;
