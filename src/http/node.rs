use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A `node` of RFC 7239, in canonical form: an IPv4 address or a bracketed IPv6 address, and
/// perhaps a port. The names that a node may have instead, `unknown` and `_hidden`, are no address.
pub(super) fn node(text: &str) -> Option<IpAddr> {
    let (address, port): (IpAddr, _) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            (address.parse::<Ipv6Addr>().ok()?.into(), port)
        }
        None => {
            let (address, port) = text.split_at(text.find(':').unwrap_or(text.len()));
            (address.parse::<Ipv4Addr>().ok()?.into(), port)
        }
    };
    is_port_or_nothing(port).then(|| address.to_canonical())
}

fn is_port_or_nothing(text: &str) -> bool {
    if text.is_empty() {
        return true;
    }
    match text.strip_prefix(':').map(str::as_bytes) {
        Some([b'_', name @ ..]) => !name.is_empty() && name.iter().all(is_obfuscated),
        Some(digits @ ([_] | [_, _] | [_, _, _] | [_, _, _, _] | [_, _, _, _, _])) => {
            digits.iter().all(u8::is_ascii_digit)
        }
        _ => false,
    }
}

const fn is_obfuscated(byte: &u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'.' | b'_' | b'-')
}
