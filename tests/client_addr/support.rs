//! Requests, and the subjects made of them.

use std::net::{IpAddr, SocketAddr};

use http::Request;
use tower_quota::{
    http::{ClientAddr, Networks, OnUnknownClient, PeerAddr, ProxyHeader, TrustedProxies},
    policy::{KeyOf, Subject},
};

pub(crate) const XFF: &str = "x-forwarded-for";
pub(crate) const FORWARDED: &str = "forwarded";

/// The peer of most tests, a trusted proxy.
pub(crate) const PROXY: &str = "10.0.0.1";

/// A request from `peer` with these header lines.
pub(crate) fn request<V: AsRef<[u8]>>(peer: &str, lines: &[(&'static str, V)]) -> Request<()> {
    let mut request = Request::builder().extension(peer_addr(peer));
    for (name, value) in lines {
        request = request.header(*name, value.as_ref());
    }
    request.body(()).expect("the test's header is valid")
}

fn peer_addr(peer: &str) -> PeerAddr {
    let address = peer.parse::<IpAddr>().map(|address| SocketAddr::new(address, 4711));
    PeerAddr(address.or_else(|_| peer.parse()).expect("the test's peer is an address"))
}

pub(crate) fn trusted() -> TrustedProxies {
    TrustedProxies::parse(["10.0.0.0/8", "fd00::/8"]).unwrap()
}

pub(crate) fn behind_xff() -> ClientAddr {
    ClientAddr::behind(trusted())
}

pub(crate) fn behind_forwarded() -> ClientAddr {
    ClientAddr::behind(trusted().header(ProxyHeader::Forwarded))
}

pub(crate) fn behind_cloudflare() -> ClientAddr {
    let name = http::HeaderName::from_static("cf-connecting-ip");
    ClientAddr::behind(trusted().header(ProxyHeader::Single(name)))
}

/// The same keys with the other answer to a client that is not told.
pub(crate) fn strict(header: ProxyHeader) -> ClientAddr {
    ClientAddr::behind(trusted().header(header).on_unknown_client(OnUnknownClient::Missing))
}

pub(crate) fn networks(list: &str) -> Networks {
    list.parse().unwrap()
}

pub(crate) fn subject<B>(key: &ClientAddr, request: &Request<B>) -> Subject {
    key.key_of(request).try_into_ready().expect("an address is known at once")
}

/// What the request is counted under, as people see it.
pub(crate) fn shown<B>(key: &ClientAddr, request: &Request<B>) -> String {
    match subject(key, request) {
        Subject::Counted(key) => key.to_string(),
        other => format!("{other:?}"),
    }
}

/// Of a request through [`PROXY`] with one line of `X-Forwarded-For`.
pub(crate) fn by_xff(line: impl AsRef<[u8]>) -> String {
    shown(&behind_xff(), &request(PROXY, &[(XFF, line)]))
}

/// Of a request through [`PROXY`] with one line of `Forwarded`.
pub(crate) fn by_forwarded(line: impl AsRef<[u8]>) -> String {
    shown(&behind_forwarded(), &request(PROXY, &[(FORWARDED, line)]))
}

/// Of a request with nothing but a socket.
pub(crate) fn by_socket(key: &ClientAddr, peer: &str) -> String {
    shown(key, &request::<&str>(peer, &[]))
}
