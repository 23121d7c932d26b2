use std::{net::IpAddr, str::FromStr};

use http::{HeaderMap, HeaderName};

use super::{hops, networks::Networks};
use crate::error::ConfigError;

/// The proxies in front of a server, and the one header in which they say who their client is.
///
/// Anybody can write a header. What a trusted proxy wrote is known by where it stands: each proxy
/// appends the address it got the request from, so the list is believed from its right end, as far
/// as one trusted proxy vouches for the next. [`ClientAddr`](super::ClientAddr) tells the walk.
///
/// ```
/// use tower_quota::http::{ProxyHeader, TrustedProxies};
///
/// let proxies = TrustedProxies::parse(["10.0.0.0/8", "fd00::/8"])?.header(ProxyHeader::Forwarded);
/// # Ok::<(), tower_quota::ConfigError>(())
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
#[must_use = "no proxy is trusted until a `ClientAddr` is `behind` it"]
pub struct TrustedProxies {
    /// Never empty.
    networks: Networks,
    header: ProxyHeader,
    /// The client's place in the list, from the right and from one; `None` is the walk.
    hops: Option<u8>,
    on_unknown: OnUnknownClient,
}

/// The header in which a proxy says who its client is.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum ProxyHeader {
    /// `X-Forwarded-For`: addresses with commas between them. What most proxies write.
    #[default]
    XForwardedFor,
    /// `Forwarded`, RFC 7239: the `for` parameters of its elements.
    Forwarded,
    /// A header that holds one address, which the proxy replaces and does not append to:
    /// `CF-Connecting-IP`, `True-Client-IP`, `Fly-Client-IP`, `X-Real-IP`. Sent twice, it says
    /// nothing.
    Single(HeaderName),
}

/// Whom a request is counted against that came by a trusted proxy which does not say who its
/// client is: the header is missing, or holds something else than an address where the client's
/// should be.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum OnUnknownClient {
    /// The proxy that does not say it. All its unknown clients share one key; they are never
    /// exempt.
    #[default]
    NearestProxy,
    /// Nobody: the request is [`Missing`](crate::policy::Subject::Missing) its key.
    Missing,
}

impl TrustedProxies {
    /// The proxies in these networks.
    ///
    /// # Errors
    ///
    /// [`ConfigError::NoTrustedProxies`] if there are none: no header would ever be read.
    pub fn new(networks: Networks) -> Result<Self, ConfigError> {
        if networks.is_empty() {
            return Err(ConfigError::NoTrustedProxies);
        }
        Ok(Self::within(networks))
    }

    /// The proxies in these networks (`10.0.0.0/8`, `fd00::/8`) and at these addresses.
    ///
    /// # Errors
    ///
    /// [`ConfigError::MalformedNetwork`] for a text that is no network,
    /// [`ConfigError::NoTrustedProxies`] if there are none.
    pub fn parse<T: AsRef<str>>(
        networks: impl IntoIterator<Item = T>,
    ) -> Result<Self, ConfigError> {
        Self::new(Networks::parse(networks)?)
    }

    /// Proxies on the same machine: [`Networks::loopback`].
    pub fn loopback() -> Self {
        Self::within(Networks::loopback())
    }

    /// Proxies in any private network: [`Networks::private_ranges`].
    ///
    /// A convenience for a server that only its proxies can reach. Whoever else can connect to it
    /// from a private address may write any client's address.
    pub fn private_ranges() -> Self {
        Self::within(Networks::private_ranges())
    }

    /// Whoever connects is a trusted proxy. **Dangerous**: a client that reaches the server itself
    /// chooses the address it is counted under, and in the walk so does every client, since no hop
    /// stops it. Meant for a server that nobody but a proxy can reach, whose address is not known,
    /// together with [`hops`](Self::hops) or a [`ProxyHeader::Single`].
    pub fn everyone() -> Self {
        Self::within(Networks::everything())
    }

    fn within(networks: Networks) -> Self {
        Self {
            networks,
            header: ProxyHeader::default(),
            hops: None,
            on_unknown: OnUnknownClient::default(),
        }
    }

    /// Reads this header instead of `X-Forwarded-For`, and no other: a proxy that writes one
    /// passes on what a client wrote into the others.
    pub fn header(mut self, header: ProxyHeader) -> Self {
        self.header = header;
        self
    }

    /// Takes the client's address from a fixed place, the `count`th from the right: 1 is what the
    /// nearest proxy appended, 2 what the one before it did. Only the peer has to be trusted. For
    /// load balancers whose addresses are not known; Google's puts its own address last and the
    /// client's second.
    ///
    /// A shorter list says nothing. A header of a single address has no places and is read as
    /// always.
    ///
    /// # Errors
    ///
    /// [`ConfigError::SettingOutOfRange`] for a count of zero.
    pub fn hops(mut self, count: u8) -> Result<Self, ConfigError> {
        ConfigError::check("the number of hops", count.into(), (1, u8::MAX.into()))?;
        self.hops = Some(count);
        Ok(self)
    }

    /// What happens where the client's address is not told.
    pub fn on_unknown_client(mut self, on_unknown: OnUnknownClient) -> Self {
        self.on_unknown = on_unknown;
        self
    }

    /// Who sent the request that came from `peer`, an address in canonical form.
    pub(super) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> Client {
        if !self.networks.contains(peer) {
            return Client::Told(peer);
        }
        match &self.header {
            ProxyHeader::XForwardedFor => self.read(peer, hops::x_forwarded_for(headers)),
            ProxyHeader::Forwarded => self.read(peer, hops::forwarded(headers)),
            ProxyHeader::Single(name) => self.told_or_untold(hops::single(headers, name), peer),
        }
    }

    fn read(&self, peer: IpAddr, mut hops: impl Iterator<Item = Option<IpAddr>>) -> Client {
        match self.hops {
            Some(place) => {
                let hop = hops.nth(usize::from(place.saturating_sub(1)));
                self.told_or_untold(hop.flatten(), peer)
            }
            None => self.walk(peer, hops),
        }
    }

    /// Goes to the left for as long as the hops are trusted proxies.
    fn walk(&self, peer: IpAddr, hops: impl Iterator<Item = Option<IpAddr>>) -> Client {
        let mut leftmost = None;
        for hop in hops {
            // What stands left of an unknown hop was written by somebody who cannot be trusted,
            // for nobody knows who it was: the walk never skips one.
            let Some(address) = hop else {
                return self.untold(leftmost.unwrap_or(peer));
            };
            if !self.networks.contains(address) {
                return Client::Told(address);
            }
            leftmost = Some(address);
        }
        leftmost.map_or_else(|| self.untold(peer), Client::Proxy)
    }

    fn told_or_untold(&self, told: Option<IpAddr>, proxy: IpAddr) -> Client {
        told.map_or_else(|| self.untold(proxy), Client::Told)
    }

    const fn untold(&self, proxy: IpAddr) -> Client {
        match self.on_unknown {
            OnUnknownClient::NearestProxy => Client::Proxy(proxy),
            OnUnknownClient::Missing => Client::Unknown,
        }
    }
}

/// Reads a list of networks as [`Networks`] does: with commas or white space between them.
impl FromStr for TrustedProxies {
    type Err = ConfigError;

    fn from_str(networks: &str) -> Result<Self, ConfigError> {
        Self::new(networks.parse()?)
    }
}

/// Who sent a request, as far as it is known.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Client {
    /// The address of whoever is not a proxy, by the socket or by the word of a trusted proxy.
    Told(IpAddr),
    /// The address of a trusted proxy that is the client itself or does not say who is.
    Proxy(IpAddr),
    /// Not known.
    Unknown,
}
