//! Whether this instance lives, and whether it takes calls.

use std::sync::Arc;

use axum::{Router, extract::State, routing::get};
use http::StatusCode;

use crate::live::Gateway;

pub(crate) fn router(gateway: Arc<Gateway>) -> Router<Arc<Gateway>> {
    Router::new().route("/healthz", get(lives)).route("/readyz", get(ready)).with_state(gateway)
}

pub(crate) async fn lives() -> &'static str {
    "ok\n"
}

async fn ready(State(gateway): State<Arc<Gateway>>) -> (StatusCode, &'static str) {
    if gateway.numbers.is_draining() {
        return (StatusCode::SERVICE_UNAVAILABLE, "draining\n");
    }
    if gateway.home.store.standing().is_away() {
        // Another instance would be no better off.
        return (
            StatusCode::OK,
            "ready\nthe server does not answer: decided by this instance's part\n",
        );
    }
    (StatusCode::OK, "ready\n")
}
