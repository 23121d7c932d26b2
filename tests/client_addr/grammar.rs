//! What a `Forwarded` field may look like (RFC 7239, section 4), and what it may not.

use crate::support::*;

#[test]
fn examples_of_the_rfc_are_read() {
    assert_eq!(by_forwarded(r#"for="_gazonk""#), PROXY);
    assert_eq!(by_forwarded("for=192.0.2.60;proto=http;by=203.0.113.43"), "192.0.2.60");
    assert_eq!(by_forwarded("for=192.0.2.43, for=198.51.100.17"), "198.51.100.17");
    assert_eq!(by_forwarded("for=_hidden, for=_SEVKISEK"), PROXY);
    let line = r#"for=192.0.2.43,for="[2001:db8:cafe::17]",for=unknown"#;
    assert_eq!(by_forwarded(line), PROXY);
    let line = "for=192.0.2.43, for=198.51.100.17;by=203.0.113.60;proto=http;host=example.com";
    assert_eq!(by_forwarded(line), "198.51.100.17");
}

#[test]
fn lines_are_one_list() {
    let lines = [(FORWARDED, "for=6.6.6.6, for=198.51.100.7"), (FORWARDED, "for=10.0.0.2")];
    assert_eq!(shown(&behind_forwarded(), &request(PROXY, &lines)), "198.51.100.7");
}

#[test]
fn names_are_the_same_in_either_case() {
    assert_eq!(by_forwarded("PROTO=https;FOR=198.51.100.7"), "198.51.100.7");
}

#[test]
fn pairs_may_be_left_out() {
    assert_eq!(by_forwarded(";;for=198.51.100.7;"), "198.51.100.7");
}

#[test]
fn space_around_semicolons_is_let_pass() {
    assert_eq!(by_forwarded("by=10.0.0.1 ; for=198.51.100.7 ;\tproto=http"), "198.51.100.7");
}

#[test]
fn ports_are_dropped() {
    assert_eq!(by_forwarded(r#"for="198.51.100.7:4711""#), "198.51.100.7");
    assert_eq!(by_forwarded(r#"for="198.51.100.7:_hid.den-1""#), "198.51.100.7");
    assert_eq!(by_forwarded(r#"for="[2001:db8::1]:_x""#), "2001:db8::/64");
}

#[test]
fn separators_in_quotes_are_text() {
    let line = r#"for=198.51.100.7;host="a,b;for=6.6.6.6""#;
    assert_eq!(by_forwarded(line), "198.51.100.7");
    let line = r#"for=198.51.100.7;host="a\", for=6.6.6.6;x=\"""#;
    assert_eq!(by_forwarded(line), "198.51.100.7");
    let line = r#"for=1.1.1.1, for=198.51.100.7;host="a\\", for=10.0.0.2;host="\\\",""#;
    assert_eq!(by_forwarded(line), "198.51.100.7");
}

#[test]
fn malformed_element_says_nothing() {
    for element in [
        "198.51.100.7",
        "for",
        "for=",
        "for =198.51.100.7",
        "for= 198.51.100.7",
        "=198.51.100.7",
        "for=198.51.100.7 proto=http",
        "for=198.51.100.7;proto",
        "for=198.51.100.7;proto=",
        "for=198.51.100.7;=http",
        "for=198.51.100.7;for=6.6.6.6",
        "for=198.51.100.7;FOR=198.51.100.7",
        "proto=http",
        "fork=198.51.100.7",
        // Not quoted though it must be.
        "for=198.51.100.7:80",
        "for=[2001:db8::1]",
        // Not in brackets though it must be.
        r#"for="2001:db8::1""#,
        r#"for="[198.51.100.7]""#,
        r#"for="198.51.100.7"#,
        r#"for=198.51.100.7""#,
        r#"for="198.51.100.7"x"#,
        r#"for="198.51.100.7\""#,
        r#"for="\198.51.100.7""#,
        r#"for=" 198.51.100.7""#,
        r#"for="""#,
        r#"for="[2001:db8::1"#,
        r#"for="[2001:db8::1]x""#,
        r#"for="[2001:db8::1]80""#,
        r#"for="198.51.100.7:""#,
        r#"for="198.51.100.7:123456""#,
        r#"for="198.51.100.7:8o""#,
        r#"for="198.51.100.7:_""#,
        r#"for="198.51.100.7:_ü""#,
        r#"for="198.51.100.7:80:80""#,
    ] {
        assert_eq!(by_forwarded(element), PROXY, "{element}");
        // Nor is the one before it looked at.
        assert_eq!(by_forwarded(format!("for=6.6.6.6, {element}")), PROXY, "{element}");
    }
}

#[test]
fn element_left_out_says_nothing() {
    for (by, header) in [(by_xff as fn(String) -> String, ""), (by_forwarded, "for=")] {
        assert_eq!(by(format!("{header}6.6.6.6,")), PROXY);
        assert_eq!(by(format!("{header}6.6.6.6, , {header}10.0.0.2")), "10.0.0.2");
        assert_eq!(by(format!(",{header}198.51.100.7")), "198.51.100.7");
        assert_eq!(by(format!(",{header}10.0.0.2")), "10.0.0.2");
    }
}
