use std::time::Duration;

use proptest::prelude::*;
use tower_quota::{ConfigError, adaptive::AcceptWindow, time::Timestamp};

use crate::cases::cases;
use crate::server::Random;

fn at(millis: u64) -> Timestamp {
    Timestamp::from_nanos(millis * 1_000_000)
}

/// Every request ever, with its segment: nothing is summed up, nothing is forgotten.
struct Model {
    segment_millis: u64,
    segments: u64,
    percent: u64,
    seen: Vec<(u64, bool)>,
}

impl Model {
    fn counts(&self, millis: u64) -> (u64, u64) {
        let newest = millis / self.segment_millis;
        let inside = self.seen.iter().filter(|(segment, _)| segment + self.segments > newest);
        let accepted: Vec<bool> = inside.map(|(_, accepted)| *accepted).collect();
        (accepted.len() as u64, accepted.iter().filter(|accepted| **accepted).count() as u64)
    }

    fn record(&mut self, accepted: bool, millis: u64) {
        self.seen.push((millis / self.segment_millis, accepted));
    }

    /// In floating point, straight from the book. `None` where that cannot tell.
    fn rejects(&self, random: u64, millis: u64) -> Option<bool> {
        let (requests, accepts) = self.counts(millis);
        let k = self.percent as f64 / 100.0;
        let odds = ((requests as f64 - k * accepts as f64) / (requests as f64 + 1.0)).max(0.0);
        let drawn = random as f64 / 2_f64.powi(64);
        ((drawn - odds).abs() > 1e-9).then_some(drawn < odds)
    }
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn a_window_counts_and_decides_as_the_book_says(
        segments in 1_u32..8,
        percent in 100_u32..400,
        steps in prop::collection::vec((0_u64..1_500, any::<bool>(), any::<u64>()), 0..200),
    ) {
        let length = Duration::from_millis(u64::from(segments) * 500);
        let mut window = AcceptWindow::new(length, segments, percent).unwrap();
        let mut model = Model {
            segment_millis: 500,
            segments: segments.into(),
            percent: percent.into(),
            seen: Vec::new(),
        };
        let mut now = 10_000;
        for (step, accepted, random) in steps {
            now += step;
            let expected = model.rejects(random, now);
            let is_sent = window.admit(random, at(now));
            if let Some(expected) = expected {
                prop_assert_eq!(is_sent, !expected);
            }
            model.record(is_sent && accepted, now);
            if is_sent {
                window.record(accepted, at(now));
            }
            let counts = (window.requests(at(now)), window.accepts(at(now)));
            prop_assert_eq!(counts, model.counts(now));
        }
    }
}

#[test]
fn nothing_is_refused_while_one_of_k_requests_is_accepted() {
    let mut window = AcceptWindow::default();
    for round in 0..1_000 {
        assert!(window.admit(0, at(round)));
        window.record(round % 2 == 0, at(round));
    }
}

#[test]
fn when_nothing_is_accepted_some_are_still_sent() {
    let sent: usize = (0..20)
        .map(|seed| {
            let (mut window, mut random) = (AcceptWindow::default(), Random(seed));
            for round in 0..10 {
                window.record(false, at(round));
            }
            (0..10_000).filter(|_| window.admit(random.draw(), at(1_000))).count()
        })
        .sum();
    // Twenty times the sum of 1 / (n + 1) from 10 to 10,010: 137, give or take twelve.
    assert!((100..175).contains(&sent), "{sent} were sent");
}

#[test]
fn what_has_left_the_window_is_forgotten() {
    let mut window = AcceptWindow::new(Duration::from_secs(10), 10, 200).unwrap();
    window.record(false, at(500));
    assert!(!window.admit(0, at(9_999)));
    // The refusal at 9.999 s stays until 19 s; what came at 0.5 s is gone at 10 s.
    assert_eq!(window.requests(at(10_000)), 1);
    assert_eq!(window.requests(at(18_999)), 1);
    assert_eq!(window.requests(at(19_000)), 0);
    assert!(window.admit(0, at(19_000)));
}

#[test]
fn a_clock_that_goes_back_loses_nothing() {
    let mut window = AcceptWindow::new(Duration::from_secs(10), 10, 200).unwrap();
    window.record(true, at(60_000));
    window.record(false, at(1_000));
    assert_eq!((window.requests(at(60_500)), window.accepts(at(60_500))), (2, 1));
    assert_eq!(window.requests(Timestamp::MAX), 0);
}

#[test]
fn settings_that_make_no_sense_are_told() {
    let second = Duration::from_secs(1);
    for (window, segments, percent) in [
        (second, 0, 200),
        (second, 1_001, 200),
        (second, 10, 99),
        (second, 10, 10_001),
        (Duration::ZERO, 10, 200),
        (Duration::MAX, 10, 200),
    ] {
        let error = AcceptWindow::new(window, segments, percent).unwrap_err();
        assert!(matches!(error, ConfigError::SettingOutOfRange { .. }), "{error}");
    }
}
