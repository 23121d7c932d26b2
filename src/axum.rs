//! Keys for axum.
//!
//! [`http::ClientAddr`](crate::http::ClientAddr) finds the socket's address where axum leaves it,
//! but axum leaves it only if the server was started so:
//!
//! ```no_run
//! use std::net::SocketAddr;
//!
//! # async fn serve(app: axum::Router, listener: tokio::net::TcpListener) -> std::io::Result<()> {
//! axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>()).await
//! # }
//! ```
//!
//! Without it every request is [`Missing`](Subject::Missing) its key, and all are counted as one
//! client, which is reported at the first. In tests axum's `MockConnectInfo<SocketAddr>` does as
//! well.

use std::future::Ready;

use axum::extract::MatchedPath;
use http::Request;

use crate::{
    key::Key,
    maybe_ready::MaybeReady,
    policy::{KeyOf, Subject},
};

/// Keys requests by the route that they matched, `/users/{id}`: all users together, and as many
/// keys as there are routes.
///
/// The route is known to layers that are added to a router with `route_layer`, or with `layer`
/// after the routes. A request that matched none is [`Missing`](Subject::Missing) its key: one
/// that goes to the fallback, or whose layer wraps the whole router from outside.
///
/// ```
/// use tower_quota::{axum::matched_path, http::ClientAddr, policy::join};
///
/// let client_and_route = join((ClientAddr::new(), matched_path()));
/// # let _ = client_and_route;
/// ```
pub const fn matched_path() -> MatchedPathKey {
    MatchedPathKey(())
}

/// What [`matched_path`] makes.
#[derive(Clone, Copy, Debug)]
pub struct MatchedPathKey(());

impl<B> KeyOf<Request<B>> for MatchedPathKey {
    type Future = Ready<Subject>;

    fn key_of(&self, request: &Request<B>) -> MaybeReady<Self::Future> {
        let route = request.extensions().get::<MatchedPath>();
        MaybeReady::ready(route.map(|route| Key::new(route.as_str())).into())
    }
}
