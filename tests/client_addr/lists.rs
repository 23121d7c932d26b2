//! Exempt and denied networks, and networks themselves.

use tower_quota::{
    ConfigError,
    http::{ClientAddr, Networks, TrustedProxies},
    policy::Subject,
};

use crate::support::*;

#[test]
fn listed_clients_are_exempt_or_denied() {
    let key = behind_xff()
        .exempt(networks("192.0.2.0/24, 2001:db8:1::/48"))
        .denied(networks("192.0.2.66, 203.0.113.0/24"));
    for (client, expected) in [
        ("192.0.2.1", Subject::Exempt),
        ("2001:db8:1:2::3", Subject::Exempt),
        ("::ffff:192.0.2.1", Subject::Exempt),
        ("192.0.2.66", Subject::Denied),
        ("203.0.113.9", Subject::Denied),
    ] {
        assert_eq!(subject(&key, &request(PROXY, &[(XFF, client)])), expected, "{client}");
        assert_eq!(subject(&key, &request::<&str>(client, &[])), expected, "{client}");
    }
    assert_eq!(by_socket(&key, "198.51.100.7"), "198.51.100.7");
}

#[test]
fn lists_see_the_address_and_not_its_prefix() {
    let key = ClientAddr::new().denied(networks("2001:db8::1"));
    assert_eq!(by_socket(&key, "2001:db8::1"), "Denied");
    assert_eq!(by_socket(&key, "2001:db8::2"), "2001:db8::/64");
}

#[test]
fn trusted_proxy_can_be_denied() {
    let key = behind_xff().denied(networks(PROXY));
    assert_eq!(by_socket(&key, PROXY), "Denied");
    assert_eq!(shown(&key, &request(PROXY, &[(XFF, "198.51.100.7")])), "198.51.100.7");
}

#[test]
fn networks_hold_what_their_prefixes_hold() {
    let list = networks("10.1.2.3/8 192.0.2.0/25,192.0.2.128/25\n203.0.113.9,2001:db8::/33 ::1");
    for (address, held) in [
        ("9.255.255.255", false),
        ("10.0.0.0", true),
        ("10.255.255.255", true),
        ("11.0.0.0", false),
        ("192.0.2.0", true),
        ("192.0.2.255", true),
        ("192.0.3.0", false),
        ("203.0.113.8", false),
        ("203.0.113.9", true),
        ("203.0.113.10", false),
        ("2001:db8::", true),
        ("2001:db8:7fff:ffff:ffff:ffff:ffff:ffff", true),
        ("2001:db8:8000::", false),
        ("::", false),
        ("::1", true),
        ("::ffff:10.1.1.1", true),
    ] {
        assert_eq!(list.contains(address.parse().unwrap()), held, "{address}");
    }
}

#[test]
fn mapped_network_is_ipv4() {
    assert_eq!(networks("::ffff:10.0.0.0/104"), networks("10.0.0.0/8"));
    assert_eq!(networks("::ffff:10.0.0.1"), networks("10.0.0.1"));
    assert_eq!(networks("::ffff:0:0/96"), networks("0.0.0.0/0"));
    assert!(!networks("::/0").contains("10.0.0.1".parse().unwrap()));
}

#[test]
fn private_ranges_hold_no_public_address() {
    let list = Networks::private_ranges();
    for (address, held) in [
        ("10.1.1.1", true),
        ("127.0.0.1", true),
        ("169.254.1.1", true),
        ("172.15.255.255", false),
        ("172.16.0.0", true),
        ("172.31.255.255", true),
        ("172.32.0.0", false),
        ("192.168.1.1", true),
        ("100.64.0.1", false),
        ("8.8.8.8", false),
        ("::1", true),
        ("fd00::1", true),
        ("fe80::1", true),
        ("fec0::1", false),
        ("2001:db8::1", false),
    ] {
        assert_eq!(list.contains(address.parse().unwrap()), held, "{address}");
    }
}

#[test]
fn malformed_network_is_named() {
    for text in ["10.0.0.0/33", "10.0.0/8", "proxy.example", "::/129", "", "10.0.0.1-10.0.0.9"] {
        let expected = ConfigError::MalformedNetwork { network: text.to_owned() };
        assert_eq!(Networks::parse([text]), Err(expected.clone()), "{text}");
        assert_eq!(TrustedProxies::parse(["::1", text]), Err(expected), "{text}");
    }
}

#[test]
fn trusting_no_proxy_is_an_error() {
    assert_eq!(TrustedProxies::new(Networks::default()), Err(ConfigError::NoTrustedProxies));
    assert_eq!(TrustedProxies::parse::<&str>([]), Err(ConfigError::NoTrustedProxies));
    assert_eq!(" , ".parse::<TrustedProxies>(), Err(ConfigError::NoTrustedProxies));
    assert_eq!("10.0.0.0/8, fd00::/8".parse(), Ok(trusted()));
}
