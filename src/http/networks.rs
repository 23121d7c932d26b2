use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
    sync::Arc,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::error::ConfigError;

/// A set of IP networks: those of the trusted proxies, of exempt or of denied clients.
///
/// Whether an address is in it is found by binary search, so a list of a hundred thousand denied
/// networks is fine. A clone shares the list.
///
/// ```
/// use tower_quota::http::Networks;
///
/// let office = Networks::parse(["198.51.100.0/24", "2001:db8:cafe::/48", "203.0.113.9"])?;
/// assert!(office.contains("198.51.100.7".parse()?));
/// assert!(!office.contains("203.0.113.10".parse()?));
///
/// // One line, as it comes from an environment variable.
/// assert_eq!("198.51.100.0/24, 2001:db8:cafe::/48 203.0.113.9/32".parse(), Ok(office));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// IPv4 addresses are IPv4 in whichever way they are written: `::ffff:10.0.0.0/104` is
/// `10.0.0.0/8`. A wider IPv6 network, `::/0` say, holds no IPv4 address.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Networks {
    /// Sorted and disjoint, as `aggregate` leaves them: `holds` searches by halves.
    ipv4: Arc<[Ipv4Net]>,
    ipv6: Arc<[Ipv6Net]>,
}

impl Networks {
    /// Reads networks (`10.0.0.0/8`, `fd00::/8`) and single addresses (`10.0.0.1`, `::1`). Bits
    /// after the prefix do not matter.
    ///
    /// # Errors
    ///
    /// [`ConfigError::MalformedNetwork`] for the first text that is neither.
    pub fn parse<T: AsRef<str>>(
        networks: impl IntoIterator<Item = T>,
    ) -> Result<Self, ConfigError> {
        networks.into_iter().map(|network| parse_network(network.as_ref())).collect()
    }

    /// The loopback networks: `127.0.0.0/8` and `::1`.
    pub fn loopback() -> Self {
        LOOPBACK.into_iter().collect()
    }

    /// The networks that are not routed in the Internet: loopback, `10.0.0.0/8`, `172.16.0.0/12`,
    /// `192.168.0.0/16`, the link-local `169.254.0.0/16` and `fe80::/10`, and `fc00::/7`.
    pub fn private_ranges() -> Self {
        LOOPBACK.into_iter().chain(PRIVATE).collect()
    }

    /// Every address there is.
    pub(super) fn everything() -> Self {
        EVERYTHING.into_iter().collect()
    }

    /// Whether `address` is in one of the networks.
    #[inline]
    pub fn contains(&self, address: IpAddr) -> bool {
        if self.is_empty() {
            return false;
        }
        match address.to_canonical() {
            IpAddr::V4(address) => {
                holds(&self.ipv4, |net| net.network() <= address, |net| net.contains(&address))
            }
            IpAddr::V6(address) => {
                holds(&self.ipv6, |net| net.network() <= address, |net| net.contains(&address))
            }
        }
    }

    /// Whether there is no network in it.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.ipv4.is_empty() && self.ipv6.is_empty()
    }
}

impl FromIterator<IpNet> for Networks {
    fn from_iter<I: IntoIterator<Item = IpNet>>(networks: I) -> Self {
        let (mut ipv4, mut ipv6) = (Vec::new(), Vec::new());
        for network in networks {
            match canonical(network) {
                IpNet::V4(network) => ipv4.push(network),
                IpNet::V6(network) => ipv6.push(network),
            }
        }
        Self { ipv4: Ipv4Net::aggregate(&ipv4).into(), ipv6: Ipv6Net::aggregate(&ipv6).into() }
    }
}

/// Reads a list that is separated by commas, white space or both.
impl FromStr for Networks {
    type Err = ConfigError;

    fn from_str(list: &str) -> Result<Self, ConfigError> {
        let separator = |c: char| c == ',' || c.is_whitespace();
        Self::parse(list.split(separator).filter(|network| !network.is_empty()))
    }
}

/// Whether the last network that starts at the address or before it (`starts`) holds it: none of
/// the others can, for they are disjoint.
fn holds<N>(sorted: &[N], starts: impl Fn(&N) -> bool, contains: impl Fn(&N) -> bool) -> bool {
    let after = sorted.partition_point(starts);
    sorted[..after].last().is_some_and(contains)
}

fn parse_network(text: &str) -> Result<IpNet, ConfigError> {
    let network = text.trim();
    network
        .parse()
        .or_else(|_| network.parse::<IpAddr>().map(IpNet::from))
        .map_err(|_| ConfigError::MalformedNetwork { network: text.to_owned() })
}

/// Addresses are made canonical before they are looked up, so networks have to be, too.
fn canonical(network: IpNet) -> IpNet {
    const MAPPED: u8 = 96;

    if let IpAddr::V4(address) = network.addr().to_canonical()
        && let IpNet::V6(mapped) = network
        && let Some(length) = mapped.prefix_len().checked_sub(MAPPED)
        && let Ok(network) = Ipv4Net::new(address, length)
    {
        return IpNet::V4(network.trunc());
    }
    network.trunc()
}

const fn v4(a: u8, b: u8, length: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, 0, 0), length))
}

const fn v6(first: u16, last: u16, length: u8) -> IpNet {
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, last), length))
}

const LOOPBACK: [IpNet; 2] = [v4(127, 0, 8), v6(0, 1, 128)];
const PRIVATE: [IpNet; 6] = [
    v4(10, 0, 8),
    v4(169, 254, 16),
    v4(172, 16, 12),
    v4(192, 168, 16),
    v6(0xfc00, 0, 7),
    v6(0xfe80, 0, 10),
];
const EVERYTHING: [IpNet; 2] = [v4(0, 0, 0), v6(0, 0, 0)];
