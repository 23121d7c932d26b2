//! Which models a tenant has, in its language.

use axum::body::Body;
use http::{HeaderValue, Response, header::CONTENT_TYPE};
use serde_json::{Value, json};

use crate::{config::Wire, live::Live, refusal::Refusal, tenants::Tenant};

/// All of them. Each language sees all: which speaks which is found out by asking.
pub(crate) fn all(live: &Live, tenant: &Tenant, wire: Wire) -> Response<Body> {
    let own: Vec<_> = live.routes.keys().filter(|model| tenant.may_use(model)).collect();
    let data: Vec<_> = own.iter().map(|id| shown(id, wire)).collect();
    answer(&match wire {
        Wire::OpenAi => json!({ "object": "list", "data": data }),
        Wire::Anthropic => json!({
            "data": data, "has_more": false, "first_id": own.first(), "last_id": own.last(),
        }),
    })
}

pub(crate) fn one(
    live: &Live,
    tenant: &Tenant,
    model: &str,
    wire: Wire,
) -> Result<Response<Body>, Refusal> {
    let own = live.routes.contains_key(model) && tenant.may_use(model);
    own.then(|| answer(&shown(model, wire))).ok_or_else(Refusal::no_such_model)
}

fn shown(id: &str, wire: Wire) -> Value {
    match wire {
        Wire::OpenAi => {
            json!({ "id": id, "object": "model", "created": 0, "owned_by": "gateway" })
        }
        Wire::Anthropic => json!({
            "id": id, "type": "model", "display_name": id, "created_at": "1970-01-01T00:00:00Z",
        }),
    }
}

fn answer(body: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(body.to_string()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
