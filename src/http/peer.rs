use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use http::Extensions;

/// The address at the other end of the socket, as an extension of a request.
///
/// A server puts it there for [`ClientAddr`](super::ClientAddr) to find, if its framework does not:
/// a hyper server knows it when it accepts a connection.
///
/// ```
/// use std::net::SocketAddr;
/// use tower_quota::http::PeerAddr;
///
/// fn with_peer<B>(mut request: http::Request<B>, peer: SocketAddr) -> http::Request<B> {
///     request.extensions_mut().insert(PeerAddr(peer));
///     request
/// }
/// # let peer = SocketAddr::from(([203, 0, 113, 9], 4711));
/// # assert_eq!(with_peer(http::Request::new(()), peer).extensions().get(), Some(&PeerAddr(peer)));
/// ```
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "servers make it and take it apart")]
pub struct PeerAddr(pub SocketAddr);

/// Where the socket's address is found.
#[derive(Clone, Default)]
pub(super) enum PeerSource {
    /// In the extensions that this crate knows.
    #[default]
    Known,
    /// Where the user's closure finds it.
    Closure(Arc<Find>),
}

type Find = dyn Fn(&Extensions) -> Option<IpAddr> + Send + Sync;

impl PeerSource {
    /// The address in canonical form, so that no list has to know about IPv4-mapped ones. The port
    /// and the scope stay behind.
    #[inline]
    pub(super) fn find(&self, extensions: &Extensions) -> Option<IpAddr> {
        let peer = match self {
            Self::Known => known(extensions).map(|peer| peer.ip()),
            Self::Closure(find) => find(extensions),
        };
        match peer {
            Some(IpAddr::V6(address)) => Some(address.to_canonical()),
            ipv4 => ipv4,
        }
    }
}

impl fmt::Debug for PeerSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Known => "Known",
            Self::Closure(_) => "Closure",
        })
    }
}

#[inline]
fn known(extensions: &Extensions) -> Option<SocketAddr> {
    extensions.get().map(|PeerAddr(peer)| *peer).or_else(|| known_to_axum(extensions))
}

#[cfg(feature = "axum")]
#[inline]
fn known_to_axum(extensions: &Extensions) -> Option<SocketAddr> {
    use axum::extract::connect_info::{ConnectInfo, MockConnectInfo};

    // In the order of axum's own extractor: the mock stands in where there is no connection.
    extensions
        .get()
        .map(|ConnectInfo(peer)| *peer)
        .or_else(|| extensions.get().map(|MockConnectInfo(peer)| *peer))
}

#[cfg(not(feature = "axum"))]
const fn known_to_axum(_: &Extensions) -> Option<SocketAddr> {
    None
}
