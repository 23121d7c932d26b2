//! Peers, prefixes and fixed places.

use std::net::{IpAddr, Ipv6Addr};

use http::{HeaderName, Request};
use tower_quota::{
    ConfigError, Key,
    http::{ClientAddr, OnUnknownClient, ProxyHeader, TrustedProxies},
    policy::Subject,
};

use crate::{events, support::*};

#[test]
fn request_without_a_peer_has_no_key() {
    let request = Request::builder().header(XFF, "198.51.100.7").body(()).unwrap();
    for key in [ClientAddr::new(), behind_xff(), ClientAddr::behind(TrustedProxies::everyone())] {
        assert_eq!(subject(&key, &request), Subject::Missing);
        assert_eq!(key.address(&request), None);
    }
}

#[test]
fn any_body_will_do() {
    let request = request::<&str>("203.0.113.9", &[]).map(|()| vec![Box::new("not even Sync")]);
    assert_eq!(shown(&ClientAddr::new(), &request), "203.0.113.9");
}

#[test]
fn closure_says_where_the_peer_is() {
    #[derive(Clone)]
    struct Connection(Option<&'static str>);

    let key = ClientAddr::new().peer(|extensions| extensions.get::<Connection>()?.0?.parse().ok());
    let of = |connection| shown(&key, &Request::builder().extension(connection).body(()).unwrap());
    assert_eq!(of(Connection(Some("::ffff:203.0.113.9"))), "203.0.113.9");
    assert_eq!(of(Connection(None)), "Missing");
    // And is the only one asked.
    assert_eq!(by_socket(&key, "203.0.113.9"), "Missing");
}

#[cfg(feature = "axum")]
#[test]
fn axum_says_who_the_peer_is() {
    use axum::extract::connect_info::{ConnectInfo, MockConnectInfo};
    use std::net::SocketAddr;

    let address = SocketAddr::from(([203, 0, 113, 9], 80));
    let other = SocketAddr::from(([203, 0, 113, 10], 80));
    let real = Request::builder().extension(ConnectInfo(address)).extension(MockConnectInfo(other));
    assert_eq!(shown(&ClientAddr::new(), &real.body(()).unwrap()), "203.0.113.9");
    let mock = Request::builder().extension(MockConnectInfo(address));
    assert_eq!(shown(&ClientAddr::new(), &mock.body(()).unwrap()), "203.0.113.9");
}

#[test]
fn address_is_whole_and_agrees_with_the_key() {
    let request = request(PROXY, &[(XFF, "6.6.6.6, 2001:db8::1")]);
    assert_eq!(behind_xff().address(&request), Some("2001:db8::1".parse().unwrap()));
    assert_eq!(shown(&behind_xff(), &request), "2001:db8::/64");
}

#[test]
fn prefixes_count_networks_together() {
    let key = ClientAddr::new().ipv4_prefix(24).unwrap().ipv6_prefix(48).unwrap();
    assert_eq!(by_socket(&key, "198.51.100.7"), "198.51.100.0/24");
    assert_eq!(by_socket(&key, "198.51.100.8"), "198.51.100.0/24");
    assert_eq!(by_socket(&key, "::ffff:198.51.100.8"), "198.51.100.0/24");
    assert_eq!(by_socket(&key, "2001:db8:1:2::3"), "2001:db8:1::/48");
    let key = key.ipv4_prefix(8).unwrap().ipv6_prefix(32).unwrap();
    assert_eq!(by_socket(&key, "198.51.100.7"), "198.0.0.0/8");
    assert_eq!(by_socket(&key, "2001:db8:1:2::3"), "2001:db8::/32");
}

#[test]
fn whole_ipv6_address_is_the_same_key_as_of_the_address() {
    let key = ClientAddr::new().ipv6_prefix(128).unwrap();
    let subject = subject(&key, &request::<&str>("2001:db8::1", &[]));
    let address = IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));
    assert_eq!(subject, Subject::Counted(Key::from(address)));
}

#[test]
fn prefix_out_of_range_is_an_error() {
    let range_of = |result: Result<ClientAddr, ConfigError>| match result {
        Err(ConfigError::SettingOutOfRange { value, range, .. }) => (value, range),
        other => panic!("{other:?}"),
    };
    for length in [0, 31, 129, 255] {
        let result = ClientAddr::new().ipv6_prefix(length);
        assert_eq!(range_of(result), (length.into(), (32, 128)));
    }
    for length in [0, 7, 33, 255] {
        let result = ClientAddr::new().ipv4_prefix(length);
        assert_eq!(range_of(result), (length.into(), (8, 32)));
    }
}

#[test]
fn changing_a_clone_leaves_the_original() {
    let key = ClientAddr::new();
    let denying = key.clone().denied(networks("0.0.0.0/0"));
    assert_eq!(by_socket(&denying, "198.51.100.7"), "Denied");
    assert_eq!(by_socket(&key, "198.51.100.7"), "198.51.100.7");
}

#[test]
fn fixed_place_is_counted_from_the_right() {
    let second = ClientAddr::behind(trusted().hops(2).unwrap());
    let of = |line| shown(&second, &request(PROXY, &[(XFF, line)]));
    assert_eq!(of("6.6.6.6, 198.51.100.7, 35.191.0.1"), "198.51.100.7");
    // Whether the address is trusted does not matter.
    assert_eq!(of("6.6.6.6, 10.0.0.9, 35.191.0.1"), "10.0.0.9");
    // Too short, or not an address: nobody says who it is.
    assert_eq!(of("198.51.100.7"), PROXY);
    assert_eq!(of("6.6.6.6, unknown, 35.191.0.1"), PROXY);
    let lines = [(XFF, "6.6.6.6"), (XFF, "198.51.100.7"), (XFF, "35.191.0.1")];
    assert_eq!(shown(&second, &request(PROXY, &lines)), "198.51.100.7");
    assert_eq!(shown(&second, &request("203.0.113.9", &lines)), "203.0.113.9");
}

#[test]
fn fixed_place_is_missing_by_choice() {
    let proxies = trusted().hops(2).unwrap().on_unknown_client(OnUnknownClient::Missing);
    let request = request(PROXY, &[(XFF, "198.51.100.7")]);
    assert_eq!(subject(&ClientAddr::behind(proxies), &request), Subject::Missing);
}

#[test]
fn fixed_place_works_for_forwarded() {
    let proxies = trusted().header(ProxyHeader::Forwarded).hops(2).unwrap();
    let request = request(PROXY, &[(FORWARDED, "for=6.6.6.6,for=198.51.100.7,for=35.191.0.1")]);
    assert_eq!(shown(&ClientAddr::behind(proxies), &request), "198.51.100.7");
}

#[test]
fn no_hop_is_an_error() {
    assert!(matches!(
        trusted().hops(0),
        Err(ConfigError::SettingOutOfRange { value: 0, range: (1, 255), .. })
    ));
}

#[test]
fn everyone_is_believed_if_so_told() {
    let everyone = TrustedProxies::everyone;
    let request = request("203.0.113.9", &[(XFF, "6.6.6.6, 198.51.100.7")]);
    assert_eq!(shown(&ClientAddr::behind(everyone()), &request), "6.6.6.6");
    let last = ClientAddr::behind(everyone().hops(1).unwrap());
    assert_eq!(shown(&last, &request), "198.51.100.7");
    assert_eq!(shown(&last.exempt(networks("198.51.100.7")), &request), "Exempt");
}

#[test]
fn everyone_is_really_everyone() {
    let name = HeaderName::from_static("x-real-ip");
    let key = ClientAddr::behind(TrustedProxies::everyone().header(ProxyHeader::Single(name)));
    for peer in ["0.0.0.0", "255.255.255.255", "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"] {
        let request = request(peer, &[("x-real-ip", "198.51.100.7")]);
        assert_eq!(shown(&key, &request), "198.51.100.7", "{peer}");
    }
}

#[test]
fn conveniences_trust_what_they_say() {
    let line = [(XFF, "198.51.100.7")];
    let loopback = ClientAddr::behind(TrustedProxies::loopback());
    assert_eq!(shown(&loopback, &request("127.0.0.1", &line)), "198.51.100.7");
    assert_eq!(shown(&loopback, &request("::1", &line)), "198.51.100.7");
    assert_eq!(shown(&loopback, &request("10.0.0.1", &line)), "10.0.0.1");
    let private = ClientAddr::behind(TrustedProxies::private_ranges());
    assert_eq!(shown(&private, &request("192.168.1.1", &line)), "198.51.100.7");
    assert_eq!(shown(&private, &request("203.0.113.9", &line)), "203.0.113.9");
}

#[test]
fn debug_shows_the_settings_and_no_closure() {
    let shown = format!("{:?}", behind_xff().peer(|_| None));
    assert!(shown.contains("10.0.0.0/8") && shown.contains("Closure"), "{shown}");
}

#[test]
fn a_server_that_does_not_say_who_connects_is_reported_once_with_what_to_write() {
    let of = |key: &ClientAddr| subject(key, &Request::new(()));
    events::listen();
    let key = behind_xff();
    let kept = key.clone();
    assert_eq!(shown(&key, &request::<&str>(PROXY, &[])), PROXY);
    assert_eq!((kept.check(), events::told()), (Ok(()), Vec::new()));
    for key in [&key, &kept, &key] {
        assert_eq!(of(key), Subject::Missing);
    }
    let told = events::told();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with("ERROR"), "{told:?}");
    assert!(told[0].contains("into_make_service_with_connect_info"), "{told:?}");
    assert_eq!(kept.check(), Err(ConfigError::NoPeerAddress));

    // Who says where it is may say that there is none.
    let unix = ClientAddr::new().peer(|_| None);
    assert_eq!((of(&unix), unix.check()), (Subject::Missing, Ok(())));
    assert_eq!(kept.peer(|_| None).check(), Ok(()), "nor of what was found before");
    assert_eq!(events::told(), Vec::<String>::new());
}
