use std::time::Duration;

use tower_quota::{
    time::Timestamp,
    upstream::{Form, infer_window},
};

use crate::support::NOW;

fn nanos_from_now(form: Form, text: &str) -> Option<u64> {
    form.read(text.as_bytes(), NOW).map(|at| at.as_nanos() - NOW.as_nanos())
}

#[test]
fn a_duration_is_numbers_with_units() {
    let table = [
        ("0s", 0),
        ("2ms", 2_000_000),
        ("120ms", 120_000_000),
        ("577.5ms", 577_500_000),
        ("1s", 1_000_000_000),
        ("8.64s", 8_640_000_000),
        ("7.66s", 7_660_000_000),
        ("38.43s", 38_430_000_000),
        ("1m26.4s", 86_400_000_000),
        ("2m59.56s", 179_560_000_000),
        ("6m0s", 360_000_000_000),
        ("1h2m3s", 3_723_000_000_000),
        ("5m", 300_000_000_000),
        ("24h", 86_400_000_000_000),
        ("1.5h", 5_400_000_000_000),
        ("36.429760048s", 36_429_760_048),
        ("1.0000000001s", 1_000_000_001),
        ("5us", 5_000),
        ("5µs", 5_000),
    ];
    for (text, nanos) in table {
        assert_eq!(nanos_from_now(Form::Duration, text), Some(nanos), "{text}");
    }
    for text in ["", "soon", "invalid", "1m2x", "-1m", "m", "1.2.3s", "5 m", "36", "1.s", ".5s"] {
        assert_eq!(nanos_from_now(Form::Duration, text), None, "{text}");
    }
}

#[test]
fn a_wait_is_seconds_or_a_date() {
    let table = [
        ("120", 120_000_000_000),
        ("0", 0),
        ("0.2", 200_000_000),
        ("1.5", 1_500_000_000),
        ("Wed, 01 Apr 2026 12:05:00 GMT", 300_000_000_000),
        ("Wednesday, 01-Apr-26 12:05:00 GMT", 300_000_000_000),
        ("Wed Apr  1 12:05:00 2026", 300_000_000_000),
    ];
    for (text, nanos) in table {
        assert_eq!(nanos_from_now(Form::RetryAfter, text), Some(nanos), "{text}");
    }
    for text in ["120s", "-5", "+5", "", "soon", "NaN", "1e400", "inf"] {
        assert_eq!(nanos_from_now(Form::RetryAfter, text), None, "{text}");
    }
    let century = Duration::from_secs(100 * 365 * 86_400);
    let far = Form::RetryAfter.read(b"99999999999999999999", NOW).expect("digits");
    assert!(far.saturating_since(NOW) > century, "it is cut, and not wrapped");
}

#[test]
fn an_instant_is_read_in_each_form() {
    let at = NOW.as_nanos();
    let table = [
        (Form::Rfc3339, "2026-04-01T12:00:00Z", at),
        (Form::Rfc3339, "2026-04-01T12:00:00.25Z", at + 250_000_000),
        (Form::Rfc3339, "2026-04-01T14:00:00+02:00", at),
        (Form::Rfc3339, "2026-04-01T07:30:00-04:30", at),
        (Form::Rfc3339, "2024-02-29T00:00:00Z", 1_709_164_800_000_000_000),
        (Form::Rfc3339, "2000-03-01T00:00:00Z", 951_868_800_000_000_000),
        (Form::EpochSeconds, "1775044800", at),
        (Form::EpochMillis, "1775044800000", at),
        (Form::HttpDate, "Wed, 01 Apr 2026 12:00:00 GMT", at),
        (Form::Any, "60", at + 60_000_000_000),
        (Form::Any, "1775044800", at),
        (Form::Any, "1775044800000", at),
        (Form::Any, "2026-04-01T12:00:00Z", at),
        (Form::Any, "6ms", at + 6_000_000),
        (Form::Seconds, "33011.382867097855", at + 33_011_382_867_098),
        (Form::Millis, "800", at + 800_000_000),
        (Form::Millis, "0.5", at + 500_000),
    ];
    for (form, text, nanos) in table {
        let read = form.read(text.as_bytes(), NOW).map(Timestamp::as_nanos);
        assert_eq!(read, Some(nanos), "{form:?} {text}");
    }
    let malformed = [
        (Form::Rfc3339, "2026-13-01T12:00:00Z"),
        (Form::Rfc3339, "2026-04-01T24:00:00Z"),
        (Form::Rfc3339, "2026-04-01T12:00:00"),
        (Form::Rfc3339, "2026-04-01"),
        (Form::Rfc3339, "2026-04-01T12:00:00.Z"),
        (Form::EpochSeconds, "2026-04-01T12:00:00Z"),
        (Form::Seconds, "1,5"),
        (Form::Any, ""),
    ];
    for (form, text) in malformed {
        assert_eq!(form.read(text.as_bytes(), NOW), None, "{form:?} {text}");
    }
}

#[test]
fn a_bucket_gives_its_window_away() {
    let table = [
        (500, 499, "120ms", Some(60)),
        (100, 99, "600ms", Some(60)),
        (3_500, 3_499, "17ms", Some(60)),
        (10_000, 9_999, "8.64s", Some(86_400)),
        (200_000, 199_221, "233ms", Some(60)),
        (1_000_000, 998_125, "112ms", Some(60)),
        (200_000, 199_998, "0s", None),
        (60_000, 57_000, "3s", Some(60)),
        (90_000, 89_985, "10ms", Some(60)),
        (14_400, 14_370, "2m59.56s", Some(86_400)),
        (200_000, 199_992, "2ms", Some(60)),
        (150_000, 149_984, "6m0s", None),
        (18_000, 17_997, "7.66s", None),
        (5, 5, "1s", None),
        (5, 6, "1s", None),
        (u64::MAX, 0, "24h", Some(86_400)),
        (u64::MAX, u64::MAX - 1, "24h", None),
    ];
    for (limit, remaining, reset, secs) in table {
        let reset = Form::Duration.read(reset.as_bytes(), Timestamp::MIN).expect("a duration");
        let window = infer_window(limit, remaining, Duration::from_nanos(reset.as_nanos()));
        assert_eq!(window.map(|window| window.as_secs()), secs, "{limit} {remaining} {reset:?}");
    }
}
