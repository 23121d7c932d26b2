//! The conformance cases of client addresses. The numbers are those of the table they come from.

use tower_quota::{
    Key,
    http::{ClientAddr, ProxyHeader},
    policy::Subject,
};

use crate::support::*;

const NONE: &[(&str, &str)] = &[];

// G1
#[test]
fn header_of_an_untrusted_peer_is_not_read() {
    let request = request("203.0.113.9", &[(XFF, "1.1.1.1")]);
    assert_eq!(shown(&behind_xff(), &request), "203.0.113.9");
}

#[test]
fn without_proxies_no_header_is_read() {
    let lines = [(XFF, "1.1.1.1"), (FORWARDED, "for=2.2.2.2"), ("cf-connecting-ip", "3.3.3.3")];
    assert_eq!(shown(&ClientAddr::new(), &request(PROXY, &lines)), PROXY);
}

// G2
#[test]
fn rightmost_untrusted_address_is_the_client() {
    assert_eq!(by_xff("1.1.1.1, 198.51.100.7"), "198.51.100.7");
}

#[test]
fn trusted_hops_are_passed() {
    assert_eq!(by_xff("1.1.1.1, 198.51.100.7, 10.9.9.9,10.0.0.2"), "198.51.100.7");
}

#[test]
fn whole_ipv4_address_is_the_same_key_as_of_the_address() {
    let subject = subject(&behind_xff(), &request(PROXY, &[(XFF, "198.51.100.7")]));
    assert_eq!(subject, Subject::Counted(Key::from(std::net::IpAddr::from([198, 51, 100, 7]))));
}

// G4
#[test]
fn last_line_is_the_nearest() {
    let request = request(PROXY, &[(XFF, "6.6.6.6"), (XFF, "198.51.100.7")]);
    assert_eq!(shown(&behind_xff(), &request), "198.51.100.7");
}

#[test]
fn walk_goes_on_in_the_line_before() {
    let lines = [(XFF, "6.6.6.6, 198.51.100.7"), (XFF, "10.0.0.3"), (XFF, "10.0.0.2")];
    assert_eq!(shown(&behind_xff(), &request(PROXY, &lines)), "198.51.100.7");
}

// G5
#[test]
fn port_does_not_matter() {
    assert_eq!(by_xff("198.51.100.7:4711"), "198.51.100.7");
    assert_eq!(by_xff("[2001:db8::1]:4711"), "2001:db8::/64");
    assert_eq!(by_xff("[2001:db8::1]"), "2001:db8::/64");
}

// G7
#[test]
fn garbage_stops_the_walk() {
    assert_eq!(by_xff("198.51.100.7, garbage"), PROXY);
    let request = request(PROXY, &[(XFF, "198.51.100.7, garbage")]);
    assert_eq!(subject(&strict(ProxyHeader::XForwardedFor), &request), Subject::Missing);
}

#[test]
fn stopped_walk_is_at_the_proxy_nearest_to_the_client() {
    assert_eq!(by_xff("198.51.100.7, garbage, 10.0.0.3, 10.0.0.2"), "10.0.0.3");
}

// G8
#[test]
fn obfuscated_hop_stops_the_walk() {
    let line = r#"for="1.2.3.4",for="_obfuscated""#;
    assert_eq!(by_forwarded(line), PROXY);
    let request = request(PROXY, &[(FORWARDED, line)]);
    assert_eq!(subject(&strict(ProxyHeader::Forwarded), &request), Subject::Missing);
}

#[test]
fn unknown_hop_stops_the_walk() {
    assert_eq!(by_forwarded("for=1.2.3.4, for=unknown"), PROXY);
    assert_eq!(by_xff("1.2.3.4, unknown"), PROXY);
}

// G10
#[test]
fn forwarded_ipv6_is_counted_by_its_network() {
    assert_eq!(by_forwarded(r#"For="[2001:db8:cafe::17]:4711""#), "2001:db8:cafe::/64");
}

// G11
#[test]
fn only_the_for_parameter_counts() {
    assert_eq!(by_forwarded("for=192.0.2.43;proto=http;by=203.0.113.60"), "192.0.2.43");
}

// G13
#[test]
fn leftmost_is_the_client_if_all_hops_are_trusted() {
    assert_eq!(by_xff("10.0.0.5, 10.0.0.2"), "10.0.0.5");
    let request = request(PROXY, &[(XFF, "10.0.0.5, 10.0.0.2")]);
    assert_eq!(shown(&strict(ProxyHeader::XForwardedFor), &request), "10.0.0.5");
}

// G14
#[test]
fn proxy_is_the_client_if_the_header_is_empty_or_absent() {
    assert_eq!(by_xff(""), PROXY);
    assert_eq!(by_xff(" \t"), PROXY);
    assert_eq!(shown(&behind_xff(), &request(PROXY, NONE)), PROXY);
    assert_eq!(by_forwarded(""), PROXY);
    assert_eq!(shown(&behind_forwarded(), &request(PROXY, NONE)), PROXY);
}

#[test]
fn absent_header_is_a_missing_key_by_choice() {
    for header in [ProxyHeader::XForwardedFor, ProxyHeader::Forwarded] {
        assert_eq!(subject(&strict(header), &request(PROXY, NONE)), Subject::Missing);
    }
}

// G16
#[test]
fn dotted_notation_does_not_make_an_address_ipv4() {
    let key = ClientAddr::new().ipv6_prefix(56).unwrap();
    assert_eq!(by_socket(&key, "2001:db8:1234:5678::1.2.3.4"), "2001:db8:1234:5600::/56");
}

// G17
#[test]
fn translated_address_is_ipv6() {
    let key = ClientAddr::new().ipv6_prefix(56).unwrap();
    assert_eq!(by_socket(&key, "64:ff9b::1.2.3.4"), "64:ff9b::/56");
}

// G19
#[test]
fn notation_of_ipv6_does_not_matter() {
    let key = ClientAddr::new().ipv6_prefix(56).unwrap();
    assert_eq!(by_socket(&key, "123:ABC::89"), "123:abc::/56");
    assert_eq!(by_socket(&key, "0123:0abc:0:0:0:0:0:0089"), "123:abc::/56");
}

// G20
#[test]
fn loopback_is_not_made_ipv4() {
    assert_eq!(by_socket(&ClientAddr::new(), "::1"), "::/64");
    // Nor is the deprecated IPv4-compatible form.
    assert_eq!(by_socket(&ClientAddr::new(), "::1.2.3.4"), "::/64");
}

// G22
#[test]
fn scope_of_the_socket_is_dropped() {
    assert_eq!(by_socket(&ClientAddr::new(), "[fe80::1%2]:80"), "fe80::/64");
    let key = ClientAddr::new().ipv6_prefix(128).unwrap();
    assert_eq!(by_socket(&key, "[fe80::1%2]:80"), by_socket(&key, "[fe80::1%3]:80"));
}

// G23
#[test]
fn what_is_almost_an_address_stops_the_walk() {
    for hop in ["fe80::1%eth0", "01.2.3.4", "127.1", "1.2.3", "1.2.3.4.5", "0x1.2.3.4", "256.1.1.1"]
    {
        assert_eq!(by_xff(format!("198.51.100.7, {hop}")), PROXY, "{hop}");
        assert_eq!(by_forwarded(format!(r#"for=198.51.100.7, for="{hop}""#)), PROXY, "{hop}");
    }
}

// G25
#[test]
fn single_address_of_an_untrusted_peer_is_not_read() {
    let request = request("203.0.113.9", &[("cf-connecting-ip", "1.1.1.1")]);
    assert_eq!(shown(&behind_cloudflare(), &request), "203.0.113.9");
}

#[test]
fn single_address_of_a_trusted_peer_is_the_client() {
    let request = request(PROXY, &[("CF-Connecting-IP", "2001:db8:1:2::3")]);
    assert_eq!(shown(&behind_cloudflare(), &request), "2001:db8:1:2::/64");
}

#[test]
fn single_address_that_is_not_one_says_nothing() {
    let name = "cf-connecting-ip";
    let strict = strict(ProxyHeader::Single(http::HeaderName::from_static(name)));
    let twice: &[_] = &[(name, "1.1.1.1"), (name, "1.1.1.1")];
    for lines in [twice, &[(name, "1.1.1.1, 2.2.2.2")], &[(name, "")], &[(name, "me")], NONE] {
        let request = request(PROXY, lines);
        assert_eq!(shown(&behind_cloudflare(), &request), PROXY, "{lines:?}");
        assert_eq!(subject(&strict, &request), Subject::Missing, "{lines:?}");
    }
}

// G26
#[test]
fn header_that_is_not_configured_is_not_read() {
    let lines = [(FORWARDED, "for=6.6.6.6"), (XFF, "198.51.100.7"), ("x-real-ip", "7.7.7.7")];
    assert_eq!(shown(&behind_xff(), &request(PROXY, &lines)), "198.51.100.7");
    // Not even if the configured one is absent, or says nothing.
    assert_eq!(shown(&behind_xff(), &request(PROXY, &lines[..1])), PROXY);
    let lines = [(FORWARDED, "for=6.6.6.6"), (XFF, "garbage")];
    assert_eq!(shown(&behind_xff(), &request(PROXY, &lines)), PROXY);
}

#[test]
fn mapped_ipv4_is_ipv4_before_it_is_masked() {
    assert_eq!(by_xff("::ffff:198.51.100.7"), "198.51.100.7");
    assert_eq!(by_xff("::ffff:c633:6407"), "198.51.100.7");
    assert_eq!(by_xff("[::ffff:198.51.100.7]:80"), "198.51.100.7");
    assert_eq!(by_forwarded(r#"for="[::ffff:198.51.100.7]""#), "198.51.100.7");
    assert_eq!(by_socket(&ClientAddr::new(), "::ffff:198.51.100.7"), "198.51.100.7");
}

#[test]
fn mapped_proxy_is_trusted_as_ipv4() {
    let request = request("::ffff:10.0.0.1", &[(XFF, "198.51.100.7, ::ffff:10.0.0.2")]);
    assert_eq!(shown(&behind_xff(), &request), "198.51.100.7");
}

#[test]
fn ipv6_proxies_are_passed() {
    let request = request("fd00::1", &[(XFF, "2001:db8::1, fd12::2")]);
    assert_eq!(shown(&behind_xff(), &request), "2001:db8::/64");
}

#[test]
fn address_that_ends_like_a_port_is_an_address() {
    let key = behind_xff().ipv6_prefix(128).unwrap();
    assert_eq!(shown(&key, &request(PROXY, &[(XFF, "2001:db8::1:443")])), "2001:db8::1:443");
}
