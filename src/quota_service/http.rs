//! The quota service over plain HTTP, in JSON: for programs in any language.
//!
//! | request | what it does | answer |
//! |---|---|---|
//! | `POST /v1/decide` | charges for all descriptors or none | 200, or 429 with a problem |
//! | `POST /v1/inspect` | says what `decide` would say, takes nothing | 200 |
//! | `POST /v1/reservations` | charges, to be settled later | 201 with an `id`, or 429 |
//! | `PUT /v1/reservations/{id}` | corrects it to what was in fact used, and closes it | 204, or 404 |
//! | `DELETE /v1/reservations/{id}` | gives all of it back, and closes it | 204, or 404 |
//! | `GET /v1/rules` | how often each rule has decided, and how | 200 |
//! | `POST /v1/store/…` | only as a [store](QuotaRouter::store): what `backend::remote` asks | 200 |
//! | `GET /healthz` | whether the process serves | 200 |
//! | `GET /readyz` | whether the store can decide | 200, or 503 |
//!
//! The [guide](crate::guide::quota_service) shows each with `curl`. Whatever is refused is told as
//! `application/problem+json` (RFC 9457).
//!
//! ```
//! # use tower_quota::{backend::LocalBuilder, time::SystemClock};
//! use tower_quota::quota_service::{BearerTokens, QuotaService, Rules, http::QuotaRouter};
//!
//! # let backend = LocalBuilder::new().build_with_clock(SystemClock);
//! let service = QuotaService::new(Rules::default(), backend);
//! let tokens = BearerTokens::new(std::env::var("QUOTA_TOKEN"));
//! let router: axum::Router = QuotaRouter::new(service).tokens(tokens).build();
//! # let _ = router;
//! ```

mod answer;
mod handle;
mod problem;
mod read;
mod store;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::DefaultBodyLimit,
    routing::{get, post, put},
};

use super::{BearerTokens, QuotaService};

/// Makes the router of a quota service. See the [module](self).
#[derive(Clone, Debug)]
#[must_use = "the router is made by `build`"]
pub struct QuotaRouter {
    settings: Settings,
}

#[derive(Clone, Debug)]
pub(super) struct Settings {
    service: QuotaService,
    tokens: Option<BearerTokens>,
    is_store: bool,
    max_body: usize,
    read_timeout: Duration,
}

impl QuotaRouter {
    /// The largest body that is read unless told otherwise: 64 KiB.
    pub const DEFAULT_MAX_BODY: usize = 64 * 1024;
    /// How long a body may take to arrive unless told otherwise.
    pub const DEFAULT_READ_TIMEOUT: Duration = Duration::from_secs(5);

    /// Routes to `service`, open to everybody who reaches them.
    pub const fn new(service: QuotaService) -> Self {
        let settings = Settings {
            service,
            tokens: None,
            is_store: false,
            max_body: Self::DEFAULT_MAX_BODY,
            read_timeout: Self::DEFAULT_READ_TIMEOUT,
        };
        Self { settings }
    }

    /// Answers only who has one of these tokens, as `authorization: Bearer …`; others are told 401.
    /// `/healthz` and `/readyz` stay open.
    pub fn tokens(mut self, tokens: BearerTokens) -> Self {
        self.settings.tokens = Some(tokens);
        self
    }

    /// Serves as the store of layers elsewhere, by their `backend::remote`. They bring their own
    /// limits and name their own keys, so whoever may ask can use up, and give back, what is in the
    /// store: give [tokens](Self::tokens) to those only who may. What descriptors are charged is
    /// apart.
    pub fn store(mut self, is_store: bool) -> Self {
        self.settings.is_store = is_store;
        self
    }

    /// Reads bodies of so many bytes at the most.
    pub fn max_body(mut self, bytes: usize) -> Self {
        self.settings.max_body = bytes;
        self
    }

    /// Reads a body for so long at the most.
    pub fn read_timeout(mut self, timeout: Duration) -> Self {
        self.settings.read_timeout = timeout;
        self
    }

    /// The router.
    pub fn build(self) -> Router {
        let max_body = self.settings.max_body;
        let state = Arc::new(self.settings);
        let store = if state.is_store {
            Router::new()
                .route("/v1/store/decide", post(store::decide))
                .route("/v1/store/settle", post(store::settle))
        } else {
            Router::new()
        };
        let guarded = store
            .route("/v1/decide", post(handle::decide))
            .route("/v1/inspect", post(handle::inspect))
            .route("/v1/reservations", post(handle::reserve))
            .route("/v1/reservations/{id}", put(handle::settle).delete(handle::give_back))
            .route("/v1/rules", get(handle::rules))
            .layer(axum::middleware::from_fn_with_state(Arc::clone(&state), handle::authorize));
        guarded
            .route("/healthz", get(handle::health))
            .route("/readyz", get(handle::ready))
            .fallback(handle::no_such_route)
            .method_not_allowed_fallback(handle::no_such_method)
            .layer(DefaultBodyLimit::max(max_body))
            .with_state(state)
    }
}
