//! Under which names operators may look. A page of somebody else can have its own name lead to this address
//! and then read what an operator's browser sees here; but the browser says that name.

use std::{net::IpAddr, sync::Arc};

use axum::{
    body::Body,
    extract::{Request, State},
    middleware::Next,
};
use http::{Response, StatusCode, header::HOST, uri::Authority};

use crate::live::Gateway;

/// Lets through who asks for an address, for `localhost`, or for a name that is configured.
pub(crate) async fn known(
    State(gateway): State<Arc<Gateway>>,
    request: Request,
    next: Next,
) -> Response<Body> {
    let said = match request.uri().authority() {
        Some(authority) => Some(authority.clone()),
        None => request.headers().get(HOST).and_then(|host| host.as_bytes().try_into().ok()),
    };
    let names = &gateway.live().config.server.page_names;
    if said.is_some_and(|said| is_known(&said, names)) {
        return next.run(request).await;
    }
    let mut response = Response::new(Body::from(UNKNOWN));
    *response.status_mut() = StatusCode::MISDIRECTED_REQUEST;
    response
}

fn is_known(said: &Authority, names: &[String]) -> bool {
    let host = said.host();
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    // No name leads to what is an address itself.
    address.parse::<IpAddr>().is_ok()
        || host.eq_ignore_ascii_case("localhost")
        || names.iter().any(|name| name.eq_ignore_ascii_case(host))
}

const UNKNOWN: &str = "Nothing is shown under this name. Ask for an address or for localhost, or add the \
                       name to page_names of [server].\n";
