//! http

mod client_addr;
mod forwarded;
mod hops;
mod keys;
mod networks;
mod peer;
mod proxies;

pub use self::{
    client_addr::ClientAddr,
    keys::{ExtensionKey, HeaderKey, MethodKey, PathKey, extension, header, method, path},
    networks::Networks,
    peer::PeerAddr,
    proxies::{OnUnknownClient, ProxyHeader, TrustedProxies},
};
