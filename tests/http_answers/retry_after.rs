use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::{any, proptest};
use tower_quota::http::RetryHint;

use crate::cases::cases;
use crate::support::secs;

fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
    lines
        .iter()
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()))
        .collect()
}

/// 2026-11-24T12:00:00Z
fn today() -> SystemTime {
    UNIX_EPOCH + secs(1_795_521_600)
}

// C1, C5
#[test]
fn digits_are_seconds() {
    for (text, expected) in [("120", 120), ("0", 0), ("007", 7)] {
        let hint = Some(RetryHint::After(secs(expected)));
        assert_eq!(RetryHint::parse(text.as_bytes()), hint);
        assert_eq!(RetryHint::parse_lenient(text.as_bytes()), hint);
        assert_eq!(RetryHint::from_headers(&headers(&[("retry-after", text)])), hint);
    }
}

// C2
#[test]
fn a_date_that_is_past_is_now() {
    let hint = RetryHint::parse(b"Fri, 31 Dec 1999 23:59:59 GMT").unwrap();
    assert_eq!(hint.wait(today()), Duration::ZERO);
    let hint = RetryHint::parse(b"Tue, 24 Nov 2026 12:01:30 GMT").unwrap();
    assert_eq!(hint.wait(today()), secs(90));
}

// C4
#[test]
fn all_three_forms_of_a_date_are_read() {
    let at = RetryHint::At(UNIX_EPOCH + secs(784_111_777));
    let forms = [
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
    ];
    for form in forms {
        assert_eq!(RetryHint::parse(form.as_bytes()), Some(at), "{form}");
        assert_eq!(RetryHint::parse_lenient(form.as_bytes()), Some(at), "{form}");
    }
}

#[test]
fn a_leap_second_is_the_one_before_the_next() {
    let leap = RetryHint::parse(b"Sat, 31 Dec 2016 23:59:60 GMT");
    assert_eq!(leap, RetryHint::parse(b"Sun, 01 Jan 2017 00:00:00 GMT"));
    assert!(leap.is_some());
    assert_eq!(RetryHint::parse(b"Sat, 31 Dec 2016 23:59:61 GMT"), None);
}

// C7
#[test]
fn a_fraction_is_read_leniently_only() {
    assert_eq!(RetryHint::parse(b"1.5"), None);
    let lenient = RetryHint::parse_lenient(b" 1.5 ");
    assert_eq!(lenient, Some(RetryHint::After(Duration::from_millis(1_500))));
    let tiny = RetryHint::parse_lenient(b"0.00000000019");
    assert_eq!(tiny, Some(RetryHint::After(Duration::ZERO)));
}

// C8
#[test]
fn what_is_neither_a_number_nor_a_date_is_ignored() {
    let malformed = [
        "-1",
        "+5",
        "5s",
        "",
        ".",
        "1.",
        ".5",
        "1.2.3",
        "1e3",
        "0x10",
        "inf",
        "NaN",
        "1,5",
        "1 5",
        "١",
        "Fri, 31 Dec 1999",
        "Mon, 31 Dec 1999 23:59:59 GMT",
        "Fri, 31 Feb 1999 23:59:59 GMT",
        "fri, 31 dec 1999 23:59:59 gmt",
        "1999-12-31T23:59:59Z",
        ":60 ",
    ];
    for text in malformed {
        assert_eq!(RetryHint::parse(text.as_bytes()), None, "{text:?}");
        assert_eq!(RetryHint::parse_lenient(text.as_bytes()), None, "{text:?}");
    }
}

// C10
#[test]
fn milliseconds_take_precedence() {
    let both = headers(&[("retry-after-ms", "1500"), ("retry-after", "2")]);
    let hint = RetryHint::from_headers(&both);
    assert_eq!(hint, Some(RetryHint::After(Duration::from_millis(1_500))));

    let fraction = headers(&[("retry-after-ms", "0.5")]);
    let hint = RetryHint::from_headers(&fraction);
    assert_eq!(hint, Some(RetryHint::After(Duration::from_micros(500))));
}

#[test]
fn malformed_lines_are_passed_over() {
    let broken = headers(&[("retry-after-ms", "soon"), ("retry-after", "2")]);
    assert_eq!(RetryHint::from_headers(&broken), Some(RetryHint::After(secs(2))));
    let twice = headers(&[("retry-after", "soon"), ("retry-after", "3")]);
    assert_eq!(RetryHint::from_headers(&twice), Some(RetryHint::After(secs(3))));
    assert_eq!(RetryHint::from_headers(&headers(&[("retry-after", "")])), None);
    assert_eq!(RetryHint::from_headers(&HeaderMap::new()), None);
}

#[test]
fn a_time_beyond_all_measure_is_the_longest() {
    let digits = "9".repeat(4_000);
    for text in [digits.as_str(), "18446744073709551615", "18446744073709551616"] {
        let hint = RetryHint::parse(text.as_bytes()).unwrap();
        assert_eq!(hint.wait(today()), RetryHint::MAX_WAIT);
    }
    let millis = RetryHint::from_headers(&headers(&[("retry-after-ms", &digits)])).unwrap();
    assert!(millis.wait(today()) <= RetryHint::MAX_WAIT);
    let last = RetryHint::parse(b"Fri, 31 Dec 9999 23:59:59 GMT").unwrap();
    assert_eq!(last.wait(today()), RetryHint::MAX_WAIT);
    assert!(today().checked_add(RetryHint::MAX_WAIT).is_some());
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn no_bytes_are_a_panic(bytes in any::<Vec<u8>>(), date in "[A-Za-z]{3,9},? [0-9 A-Za-z:-]{15,30}") {
        for text in [bytes.as_slice(), date.as_bytes()] {
            for hint in [RetryHint::parse(text), RetryHint::parse_lenient(text)].into_iter().flatten() {
                let _ = hint.wait(today());
            }
        }
    }

    #[test]
    fn near_dates_are_no_panic(place in 0_usize..29, byte: u8, year in 0_u32..10_000) {
        let mut text = format!("Fri, 31 Dec {year:04} 23:59:59 GMT").into_bytes();
        text[place] = byte;
        if let Some(hint) = RetryHint::parse(&text) {
            let _ = hint.wait(today());
        }
    }
}
