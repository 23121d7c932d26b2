//! Headers by those who mean harm.

use tower_quota::{http::ProxyHeader, policy::Subject};

use crate::support::*;

#[test]
fn bytes_that_are_no_text_say_nothing() {
    assert_eq!(by_xff(b"6.6.6.6, \xff\xfe"), PROXY);
    assert_eq!(by_xff(b"6.6.6.6, 198.51.100.7\xa0"), PROXY);
    assert_eq!(by_forwarded(b"for=6.6.6.6, for=\xff"), PROXY);
    assert_eq!(by_forwarded(b"for=6.6.6.6, for=\"198.51.100.7\xc3\xbc\""), PROXY);
    // Digits, but not those of an address.
    assert_eq!(by_xff("6.6.6.6, ١.٢.٣.٤"), PROXY);
}

#[test]
fn bytes_that_are_no_text_do_not_hide_what_the_proxy_wrote() {
    assert_eq!(by_xff(b"\xff\xfe\x80, 198.51.100.7"), "198.51.100.7");
    assert_eq!(by_forwarded(b"\xff\"\xfe\x80, for=198.51.100.7"), "198.51.100.7");
}

#[test]
fn quote_that_is_never_closed_does_not_hide_what_the_proxy_wrote() {
    for prefix in [r#"for=""#, r#"for="6.6.6.6"#, r#"""#, r#"for="\"#, r#"for="\""#, r#"x="a,b"#] {
        let line = format!(r#"{prefix}, for=198.51.100.7;host="x""#);
        assert_eq!(by_forwarded(&line), "198.51.100.7", "{line}");
        let lines = [(FORWARDED, prefix), (FORWARDED, r#"for="198.51.100.7:1""#)];
        assert_eq!(shown(&behind_forwarded(), &request(PROXY, &lines)), "198.51.100.7");
    }
}

/// Linear work takes milliseconds; with quadratic work on 52 values of 100 KB nobody would wait for
/// this test.
#[test]
fn very_long_values_are_read_in_a_moment() {
    for filler in
        ["1", "a", ",", "\"", "\\", "\\\"", "[", ":", " ", "1.1.1.1,", "for=\"", ";", "=;"]
    {
        let long = filler.repeat(100 * 1024 / filler.len());
        // Alone it says nothing but what it may: that somebody without a key came.
        let alone = by_xff(&long);
        assert!(alone == PROXY || alone == "1.1.1.1", "{filler}: {alone}");
        assert_eq!(by_forwarded(&long), PROXY, "{filler}");
        assert_eq!(by_xff(format!("{long}, 198.51.100.7")), "198.51.100.7", "{filler}");
        assert_eq!(by_forwarded(format!("{long}, for=198.51.100.7")), "198.51.100.7", "{filler}");
    }
}

#[test]
fn ten_thousand_commas_are_ten_thousand_unknown_hops() {
    assert_eq!(by_xff(",".repeat(10_000)), PROXY);
    assert_eq!(by_forwarded(",".repeat(10_000)), PROXY);
}

#[test]
fn ten_thousand_trusted_hops_are_passed() {
    let hops = "10.0.0.2, ".repeat(10_000);
    assert_eq!(by_xff(format!("6.6.6.6, 198.51.100.7, {hops}10.0.0.2")), "198.51.100.7");
}

#[test]
fn ten_thousand_lines_are_one_list() {
    let mut lines = vec![(XFF, "6.6.6.6"), (XFF, "198.51.100.7")];
    lines.extend([(XFF, "10.0.0.2")].repeat(10_000));
    assert_eq!(shown(&behind_xff(), &request(PROXY, &lines)), "198.51.100.7");
}

/// CVE-2022-31813: a client named the header in `Connection`, and the proxy dropped it as
/// hop-by-hop. Who the client is cannot be known; that it is not somebody else, can.
#[test]
fn header_dropped_by_the_proxy_makes_no_client() {
    for header in [ProxyHeader::XForwardedFor, ProxyHeader::Forwarded] {
        let request = request(PROXY, &[("connection", "close, X-Forwarded-For, Forwarded")]);
        assert_eq!(shown(&behind_xff(), &request), PROXY);
        assert_eq!(subject(&strict(header), &request), Subject::Missing);

        // Trusting a network and exempting it must not let such a client go uncounted.
        let exempting = behind_xff().exempt(networks("10.0.0.0/8"));
        assert_eq!(shown(&exempting, &request), PROXY);
    }
}

#[test]
fn client_does_not_become_exempt_by_what_it_writes() {
    let key = behind_xff().exempt(networks("10.0.0.0/8, 192.0.2.0/24"));
    for line in ["192.0.2.1, 198.51.100.7", "192.0.2.1, _, 10.0.0.2", "10.0.0.5, 10.0.0.2", "x"] {
        let subject = subject(&key, &request(PROXY, &[(XFF, line)]));
        assert!(matches!(subject, Subject::Counted(_)), "{line}: {subject:?}");
    }
}
