//! The hops that a proxy's header lists, from the right; `None` stands for one that is no address.
//!
//! Nothing is joined or copied: lines and elements are walked where they are.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, header::FORWARDED};

use super::{forwarded, node::node};

static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The hops in all lines of `X-Forwarded-For`. An empty element is a hop that is not known.
pub(super) fn x_forwarded_for(headers: &HeaderMap) -> impl Iterator<Item = Option<IpAddr>> {
    let lines = headers.get_all(&X_FORWARDED_FOR).into_iter().rev();
    lines.flat_map(|line| line.as_bytes().rsplit(|&byte| byte == b',')).map(address)
}

/// The `for` parameters in all lines of `Forwarded`.
pub(super) fn forwarded(headers: &HeaderMap) -> impl Iterator<Item = Option<IpAddr>> {
    let lines = headers.get_all(FORWARDED).into_iter().rev();
    lines.flat_map(|line| forwarded::elements_from_right(line.as_bytes())).map(forwarded::client)
}

/// The address in a header of one address, if there is one line of it.
pub(super) fn single(headers: &HeaderMap, name: &HeaderName) -> Option<IpAddr> {
    let mut lines = headers.get_all(name).into_iter();
    match (lines.next(), lines.next()) {
        (Some(line), None) => address(line.as_bytes()),
        _ => None,
    }
}

/// An address as proxies write it, in canonical form: `192.0.2.1`, `2001:db8::1`, with a port
/// `192.0.2.1:80` and `[2001:db8::1]:80`.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(text.trim_ascii()).ok()?;
    // First of all as it is: `2001:db8::1:443` is an address, not one with a port.
    let bare = text.parse::<IpAddr>().ok();
    bare.map(|address| address.to_canonical()).or_else(|| node(text))
}
