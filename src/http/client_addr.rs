use std::{
    future::Ready,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use http::{Extensions, HeaderMap, Request};

use super::{
    networks::Networks,
    peer::PeerSource,
    proxies::{Client, TrustedProxies},
};
use crate::{
    error::ConfigError,
    key::Key,
    maybe_ready::MaybeReady,
    observe,
    policy::{KeyOf, Subject},
};

/// Keys requests by the address of the client.
///
/// By default that is the socket's address and nothing else: a header is what anybody wrote.
/// Behind proxies, it is the nearest address that is not one of theirs:
///
/// ```
/// use tower_quota::http::{ClientAddr, TrustedProxies};
///
/// let direct = ClientAddr::new();
/// let proxied = ClientAddr::behind(TrustedProxies::parse(["10.0.0.0/8"])?);
/// # Ok::<(), tower_quota::ConfigError>(())
/// ```
///
/// # Where the socket's address comes from
///
/// From the request's extensions: our own [`PeerAddr`](super::PeerAddr), or with the feature
/// `axum` its `ConnectInfo<SocketAddr>`, which is there if the server was started with
/// `into_make_service_with_connect_info::<SocketAddr>()`. Another place is told with
/// [`peer`](Self::peer). **If the address is nowhere, the request is [`Missing`](Subject::Missing)
/// its key**, and no header is read: then the layer's
/// [`OnMissingKey`](crate::policy::OnMissingKey) decides. Unless told otherwise it counts all such
/// requests together, which no test of a single client shows: so the first of them is reported,
/// once (an `ERROR` event, or without feature `tracing` a line on standard error in debug builds),
/// and [`check`](Self::check) finds it.
///
/// # How the client is found behind proxies
///
/// 1. A peer that is no [trusted proxy](TrustedProxies) is the client.
/// 2. Otherwise the one configured header is read, all its lines, **from the right**: the last
///    address is what the peer says, the one before it what that hop said, and so on for as long
///    as the hops are trusted proxies. The first that is not one is the client.
/// 3. If all are, the leftmost is the client.
/// 4. Where the walk meets something that is no address (`unknown`, an obfuscated name, garbage,
///    nothing), it stops: what stands to the left may be anybody's. The client is then counted as
///    the last proxy that was reached, or not at all: see
///    [`OnUnknownClient`](super::OnUnknownClient).
///
/// The alternatives are a fixed [number of hops](TrustedProxies::hops) and headers of
/// [a single address](super::ProxyHeader::Single).
///
/// # Which addresses are one client
///
/// An IPv6 client has a whole network, so a key is a /64; an IPv4 key is one address. Both can be
/// [set](Self::ipv6_prefix). IPv4-mapped addresses (`::ffff:192.0.2.1`) are IPv4, scopes
/// (`fe80::1%2`) and ports do not matter.
#[derive(Clone, Debug)]
pub struct ClientAddr {
    /// Shared: a layer's policy is cloned with each of its services.
    settings: Arc<Settings>,
}

#[derive(Clone, Debug)]
struct Settings {
    peer: PeerSource,
    proxies: Option<TrustedProxies>,
    ipv4_prefix: u8,
    ipv6_prefix: u8,
    exempt: Networks,
    denied: Networks,
    /// Whether a request came without the address of its socket. Clones know it too.
    came_without_peer: Arc<AtomicBool>,
}

impl ClientAddr {
    /// The address of the socket. No header is read.
    pub fn new() -> Self {
        Self::with(None)
    }

    /// The address of the client that `proxies` tell of.
    pub fn behind(proxies: TrustedProxies) -> Self {
        Self::with(Some(proxies))
    }

    fn with(proxies: Option<TrustedProxies>) -> Self {
        let settings = Settings {
            peer: PeerSource::default(),
            proxies,
            ipv4_prefix: IPV4_BITS,
            ipv6_prefix: 64,
            exempt: Networks::default(),
            denied: Networks::default(),
            came_without_peer: Arc::default(),
        };
        Self { settings: Arc::new(settings) }
    }

    /// Takes the socket's address from where `find` finds it in the request's extensions, and
    /// nowhere else.
    ///
    /// A Unix socket has no address: for a proxy that connects by one, `find` may answer with the
    /// loopback address, and [`TrustedProxies::loopback`] trust it. tonic's server is asked so:
    ///
    /// ```
    /// use tonic::transport::server::TcpConnectInfo;
    /// use tower_quota::http::ClientAddr;
    ///
    /// let key = ClientAddr::new().peer(|extensions| {
    ///     let connection = extensions.get::<TcpConnectInfo>()?;
    ///     Some(connection.remote_addr()?.ip())
    /// });
    /// ```
    #[must_use]
    pub fn peer(
        self,
        find: impl Fn(&Extensions) -> Option<IpAddr> + Send + Sync + 'static,
    ) -> Self {
        self.set(|settings| {
            settings.peer = PeerSource::Closure(Arc::new(find));
            // What was found before is not of it.
            settings.came_without_peer = Arc::default();
        })
    }

    /// Counts IPv4 addresses with the same first `length` bits together; 32 by default.
    ///
    /// # Errors
    ///
    /// [`ConfigError::SettingOutOfRange`] unless it is from 8 to 32.
    pub fn ipv4_prefix(self, length: u8) -> Result<Self, ConfigError> {
        ConfigError::check("the IPv4 prefix length", length.into(), (8, IPV4_BITS.into()))?;
        Ok(self.set(|settings| settings.ipv4_prefix = length))
    }

    /// Counts IPv6 addresses with the same first `length` bits together; 64 by default, which is
    /// what one subscriber has at least. Many have a /56 or a /48.
    ///
    /// # Errors
    ///
    /// [`ConfigError::SettingOutOfRange`] unless it is from 32 to 128.
    pub fn ipv6_prefix(self, length: u8) -> Result<Self, ConfigError> {
        ConfigError::check("the IPv6 prefix length", length.into(), (32, IPV6_BITS.into()))?;
        Ok(self.set(|settings| settings.ipv6_prefix = length))
    }

    /// Clients in these networks pass without being counted.
    ///
    /// A trusted proxy is never exempt, though it be listed: the request may be that of a client
    /// who made the proxy drop the header (with `Connection: X-Forwarded-For`, CVE-2022-31813).
    #[must_use]
    pub fn exempt(self, networks: Networks) -> Self {
        self.set(|settings| settings.exempt = networks)
    }

    /// Clients in these networks are refused, exempt or not.
    #[must_use]
    pub fn denied(self, networks: Networks) -> Self {
        self.set(|settings| settings.denied = networks)
    }

    /// Looks for what the first requests have shown: that a server does not tell the addresses of
    /// its sockets. Keep a clone of what a layer is given, and ask it once requests have come.
    ///
    /// # Errors
    ///
    /// [`ConfigError::NoPeerAddress`] if a request came without. Not where a closure of yours says
    /// [where it is](Self::peer): it may have meant that there is none.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.settings.came_without_peer.load(Ordering::Relaxed) {
            return Err(ConfigError::NoPeerAddress);
        }
        Ok(())
    }

    fn set(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(Arc::make_mut(&mut self.settings));
        self
    }

    /// The address by which `request` is counted, before it is cut to its prefix: for a log that
    /// has to agree with the limit.
    pub fn address<B>(&self, request: &Request<B>) -> Option<IpAddr> {
        let peer = self.settings.peer.find(request.extensions());
        match self.settings.client(peer, request.headers()) {
            Client::Told(address) | Client::Proxy(address) => Some(address),
            Client::Unknown => None,
        }
    }
}

impl Default for ClientAddr {
    fn default() -> Self {
        Self::new()
    }
}

impl<B> KeyOf<Request<B>> for ClientAddr {
    type Future = Ready<Subject>;

    #[inline]
    fn key_of(&self, request: &Request<B>) -> MaybeReady<Self::Future> {
        let settings = &*self.settings;
        let peer = settings.peer.find(request.extensions());
        // The usual one, in registers: see `Key`.
        if settings.is_plain()
            && let Some(peer @ IpAddr::V4(_)) = peer
        {
            return MaybeReady::ready(Subject::Counted(Key::from(peer)));
        }
        if peer.is_none() {
            settings.note_missing_peer();
        }
        MaybeReady::ready(settings.subject(settings.client(peer, request.headers())))
    }
}

impl Settings {
    /// Takes note of a request without the address of its socket, and tells the developer of the
    /// first.
    #[cold]
    fn note_missing_peer(&self) {
        let PeerSource::Known = self.peer else { return };
        let came_before = &self.came_without_peer;
        if !came_before.load(Ordering::Relaxed) && !came_before.swap(true, Ordering::Relaxed) {
            observe::misused(&ConfigError::NoPeerAddress);
        }
    }

    fn client(&self, peer: Option<IpAddr>, headers: &HeaderMap) -> Client {
        match (peer, &self.proxies) {
            (None, _) => Client::Unknown,
            (Some(peer), Some(proxies)) => proxies.client(peer, headers),
            (Some(peer), None) => Client::Told(peer),
        }
    }

    /// Whether an IPv4 peer is its key: nothing is looked up, and nothing cut off.
    #[inline]
    fn is_plain(&self) -> bool {
        let unlisted = self.exempt.is_empty() && self.denied.is_empty();
        self.proxies.is_none() && unlisted && self.ipv4_prefix == IPV4_BITS
    }

    fn subject(&self, client: Client) -> Subject {
        let (address, may_be_exempt) = match client {
            Client::Told(address) => (address, true),
            Client::Proxy(address) => (address, false),
            Client::Unknown => return Subject::Missing,
        };
        if self.denied.contains(address) {
            Subject::Denied
        } else if may_be_exempt && self.exempt.contains(address) {
            Subject::Exempt
        } else {
            Subject::Counted(self.key(address))
        }
    }

    /// The key of an address in canonical form. A mask cut to an IPv4-mapped address would make
    /// one key of all IPv4 clients (CVE-2026-30827).
    fn key(&self, address: IpAddr) -> Key {
        match address {
            IpAddr::V4(_) if self.ipv4_prefix == IPV4_BITS => Key::from(address),
            IpAddr::V6(_) if self.ipv6_prefix == IPV6_BITS => Key::from(address),
            IpAddr::V4(v4) => {
                let mask = u32::MAX << (IPV4_BITS - self.ipv4_prefix);
                Key::prefix(Ipv4Addr::from(v4.to_bits() & mask).into(), self.ipv4_prefix)
            }
            IpAddr::V6(v6) => {
                let mask = u128::MAX << (IPV6_BITS - self.ipv6_prefix);
                Key::prefix(Ipv6Addr::from(v6.to_bits() & mask).into(), self.ipv6_prefix)
            }
        }
    }
}

const IPV4_BITS: u8 = 32;
const IPV6_BITS: u8 = 128;
