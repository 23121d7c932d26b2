//! Properties, against a model that is told the hops instead of reading them.

use std::net::IpAddr;

use proptest::{collection::vec, prelude::*};
use tower_quota::http::{ClientAddr, ProxyHeader};

use crate::cases::cases;
use crate::support::*;

/// One hop as it was meant, and how the proxy wrote it.
#[derive(Clone, Debug)]
struct Written {
    hop: Option<IpAddr>,
    text: String,
}

impl Written {
    fn is_trusted(&self) -> bool {
        self.hop.is_some_and(trusted_by_the_model)
    }
}

/// What `trusted()` says in another way.
fn trusted_by_the_model(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.octets()[0] == 10,
        IpAddr::V6(address) => match address.to_ipv4_mapped() {
            Some(address) => address.octets()[0] == 10,
            None => address.octets()[0] == 0xfd,
        },
    }
}

/// The first hop from the right that is not trusted, if every hop on the way is known.
fn expected(peer: IpAddr, hops: &[Written]) -> IpAddr {
    let known = hops.iter().rposition(|hop| hop.hop.is_none()).map_or(0, |place| place + 1);
    let readable = &hops[known..];
    let client = readable.iter().rfind(|hop| !hop.is_trusted()).or_else(|| readable.first());
    client.and_then(|hop| hop.hop).unwrap_or(peer).to_canonical()
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        4 => any::<[u8; 3]>().prop_map(|[a, b, c]| IpAddr::from([10, a, b, c])),
        3 => any::<[u8; 4]>().prop_map(IpAddr::from),
        1 => any::<u32>().prop_map(|bits| std::net::Ipv4Addr::from(bits).to_ipv6_mapped().into()),
        1 => any::<u128>().prop_map(|bits| IpAddr::from((bits >> 8 | 0xfd << 120).to_be_bytes())),
        2 => any::<u128>().prop_map(|bits| IpAddr::from(bits.to_be_bytes())),
    ]
}

fn not_an_address() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("unknown".to_owned()),
        Just("_hidden".to_owned()),
        Just(String::new()),
        Just("10.0.0.256".to_owned()),
        Just("fe80::1%eth0".to_owned()),
        "[a-z:.]{0,12}x",
    ]
}

/// As `X-Forwarded-For` has it.
fn plain() -> impl Strategy<Value = Written> {
    let port = prop_oneof![Just(String::new()), (1_u16..).prop_map(|port| format!(":{port}"))];
    let known = (address(), port, any::<bool>()).prop_map(|(hop, port, brackets)| {
        let text = match hop {
            IpAddr::V6(hop) if brackets || !port.is_empty() => format!("[{hop}]{port}"),
            IpAddr::V6(hop) => hop.to_string(),
            IpAddr::V4(hop) => format!("{hop}{port}"),
        };
        Written { hop: Some(hop), text }
    });
    let unknown = not_an_address().prop_map(|text| Written { hop: None, text });
    prop_oneof![9 => known, 1 => unknown]
}

fn quoted(text: &str) -> String {
    let escaped: String = text
        .chars()
        .flat_map(|c| matches!(c, '"' | '\\').then_some('\\').into_iter().chain([c]))
        .collect();
    format!("\"{escaped}\"")
}

/// As `Forwarded` has it, with other parameters that a client may have chosen.
fn element() -> impl Strategy<Value = Written> {
    let host = r#"[ -~]{0,12}"#.prop_map(|host| format!("host={}", quoted(&host)));
    let parameters = vec(prop_oneof![host, Just("proto=http".to_owned())], 0..3);
    (plain(), parameters, any::<prop::sample::Index>(), "[fF][oO][rR]").prop_map(
        |(mut written, mut parameters, place, name)| {
            written.text = match written.hop {
                Some(IpAddr::V6(hop)) => quoted(&format!("[{hop}]")),
                _ => quoted(&written.text),
            };
            let place = place.index(parameters.len() + 1);
            parameters.insert(place, format!("{name}={}", written.text));
            written.text = parameters.join(";");
            written
        },
    )
}

/// The hops in lines: after which of them a line ends, and the space around commas.
fn lines(hops: &[Written], ends: &[bool], space: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for (place, hop) in hops.iter().enumerate() {
        if place > 0 && ends[place % ends.len()] {
            lines.push(String::new());
        } else if place > 0 {
            lines.last_mut().unwrap().push_str(&format!("{space},{space}"));
        }
        lines.last_mut().unwrap().push_str(&hop.text);
    }
    lines
}

fn answer(key: &ClientAddr, name: &'static str, lines: &[impl AsRef<[u8]>]) -> Option<IpAddr> {
    let lines: Vec<_> = lines.iter().map(|line| (name, line.as_ref())).collect();
    key.address(&request(PROXY, &lines))
}

/// Any bytes that a header may have, mostly those that the grammars know.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        any::<u8>()
            .prop_filter("not in headers", |byte| (*byte >= 32 && *byte != 127) || *byte == 9)
            .prop_map(|byte| vec![byte]),
        prop::sample::select(vec![
            ",",
            "\"",
            "\\",
            ";",
            "=",
            "for=",
            "[",
            "]",
            ":",
            " ",
            "6.6.6.6",
            "10.0.0.9",
            "_x",
            "unknown",
            "2001:db8::6",
            "for=\"",
            "\\\"",
            "host=\"",
            "%",
            "::",
            ", for=6.6.6.6",
        ])
        .prop_map(|piece| piece.as_bytes().to_vec()),
    ];
    vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

/// What the proxies wrote: an untrusted address, then trusted ones.
fn suffix() -> impl Strategy<Value = (IpAddr, Vec<IpAddr>)> {
    let client = address().prop_filter("untrusted", |address| !trusted_by_the_model(*address));
    let proxies = vec(address().prop_filter("trusted", |a| trusted_by_the_model(*a)), 0..4);
    (client, proxies)
}

fn forwarded_node(address: &IpAddr) -> String {
    match address {
        IpAddr::V4(address) => format!("for={address}"),
        IpAddr::V6(address) => format!("for=\"[{address}]:4711\";host=\"a,b\\\"\""),
    }
}

proptest! {
    #![proptest_config(cases(2_000))]

    #[test]
    fn x_forwarded_for_agrees_with_the_model(
        hops in vec(plain(), 0..8),
        ends in vec(any::<bool>(), 1..8),
        space in "[ \t]{0,2}",
    ) {
        let expected = expected(PROXY.parse().unwrap(), &hops);
        let lines = lines(&hops, &ends, &space);
        let answer = answer(&behind_xff(), XFF, &lines);
        prop_assert_eq!(answer, Some(expected), "{:?}", lines);
    }

    #[test]
    fn forwarded_agrees_with_the_model(
        hops in vec(element(), 0..8),
        ends in vec(any::<bool>(), 1..8),
        space in "[ \t]{0,2}",
    ) {
        let expected = expected(PROXY.parse().unwrap(), &hops);
        let lines = lines(&hops, &ends, &space);
        let answer = answer(&behind_forwarded(), FORWARDED, &lines);
        prop_assert_eq!(answer, Some(expected), "{:?}", lines);
    }

    /// Whatever the client wrote, in the same line or in one of its own, it is counted under its
    /// own address.
    #[test]
    fn client_cannot_choose_its_address(
        written in bytes(),
        (client, proxies) in suffix(),
        same_line in any::<bool>(),
    ) {
        let hops = || std::iter::once(&client).chain(&proxies);
        let plain: Vec<_> = hops().map(IpAddr::to_string).collect();
        let elements: Vec<_> = hops().map(forwarded_node).collect();
        for (key, name, appended) in [
            (behind_xff(), XFF, plain.join(", ")),
            (behind_forwarded(), FORWARDED, elements.join(", ")),
        ] {
            let mut lines = vec![written.clone()];
            if same_line {
                lines[0].extend(b", ");
                lines[0].extend(appended.as_bytes());
            } else {
                lines.push(appended.into_bytes());
            }
            prop_assert_eq!(answer(&key, name, &lines), Some(client.to_canonical()));
        }
    }

    /// A peer that is not trusted is the client, whatever it wrote.
    #[test]
    fn untrusted_peer_is_not_believed(written in bytes(), (client, _) in suffix()) {
        for (key, name) in [
            (behind_xff(), XFF),
            (behind_forwarded(), FORWARDED),
            (behind_cloudflare(), "cf-connecting-ip"),
        ] {
            let request = request(&client.to_string(), &[(name, &written)]);
            prop_assert_eq!(key.address(&request), Some(client.to_canonical()));
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(lines in vec(bytes(), 0..4), place in 1_u8..) {
        let keys = |header: ProxyHeader, name| {
            let proxies = trusted().header(header.clone());
            let placed = ClientAddr::behind(proxies.clone().hops(place).unwrap());
            [(ClientAddr::behind(proxies), name), (placed, name), (strict(header), name)]
        };
        let single = "x-real-ip";
        let single_header = ProxyHeader::Single(http::HeaderName::from_static(single));
        for (key, name) in [
            keys(ProxyHeader::XForwardedFor, XFF),
            keys(ProxyHeader::Forwarded, FORWARDED),
            keys(single_header, single),
        ].into_iter().flatten() {
            let address = answer(&key, name, &lines);
            prop_assert!(address.is_none_or(|address| address == address.to_canonical()));
        }
    }

    /// Two addresses have one key if and only if they share the prefix.
    #[test]
    fn keys_are_networks(one: u128, other: u128, length in 32_u8..=128, same in 0_u32..=128) {
        // `other` shares at least the first `same` bits with `one`.
        let mask = u128::MAX.checked_shl(128 - same).unwrap_or(0);
        let other = one & mask | other & !mask;
        let [one, other] = [one, other].map(|bits| IpAddr::from(bits.to_be_bytes()));
        let key = ClientAddr::new().ipv6_prefix(length).unwrap();
        let subject = |peer: IpAddr| subject(&key, &request::<&str>(&peer.to_string(), &[]));
        let network = |peer: IpAddr| match peer.to_canonical() {
            IpAddr::V4(peer) => (4, u128::from(peer.to_bits())),
            IpAddr::V6(peer) => (6, peer.to_bits() >> (128 - u32::from(length))),
        };
        prop_assert_eq!(subject(one) == subject(other), network(one) == network(other));
    }
}
