use std::time::Duration;

use http::Response;
use tower_quota::{
    adaptive::{Classify, Outcome},
    http::StatusClassifier,
};

fn classified(status: u16, headers: &[(&str, &str)]) -> Outcome {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    let response = response.body(()).expect("a response");
    StatusClassifier::new().classify(Ok::<_, &()>(&response))
}

#[test]
fn a_status_says_whether_it_throttles() {
    for (status, outcome) in [
        (200, Outcome::Accepted),
        (404, Outcome::Accepted),
        (429, Outcome::Throttled(None)),
        (500, Outcome::Accepted),
        (503, Outcome::Throttled(None)),
    ] {
        assert_eq!(classified(status, &[]), outcome, "{status}");
    }
}

#[test]
fn a_grpc_status_says_whether_it_throttles() {
    for (code, outcome) in [
        ("0", Outcome::Accepted),
        ("8", Outcome::Throttled(None)),
        ("13", Outcome::Accepted),
        ("14", Outcome::Throttled(None)),
        ("88", Outcome::Accepted),
    ] {
        assert_eq!(classified(200, &[("grpc-status", code)]), outcome, "{code}");
    }
    let pushback = [("grpc-status", "8"), ("grpc-retry-pushback-ms", "1500")];
    assert_eq!(classified(200, &pushback), Outcome::Throttled(Some(Duration::from_millis(1_500))));
    let never = [("grpc-status", "8"), ("grpc-retry-pushback-ms", "-1")];
    assert_eq!(classified(200, &never), Outcome::Throttled(None));
}

#[test]
fn a_time_to_wait_is_read_in_all_its_forms() {
    let secs = |secs| Outcome::Throttled(Some(Duration::from_secs(secs)));
    assert_eq!(classified(429, &[("retry-after", "7")]), secs(7));
    assert_eq!(classified(503, &[("retry-after-ms", "3000"), ("retry-after", "7")]), secs(3));
    assert_eq!(classified(429, &[("retry-after", "Fri, 31 Dec 1999 23:59:59 GMT")]), secs(0));
    assert_eq!(classified(429, &[("retry-after", "soon")]), Outcome::Throttled(None));
    // What is accepted has nothing to wait for.
    assert_eq!(classified(200, &[("retry-after", "7")]), Outcome::Accepted);

    let date = [("retry-after", "Fri, 01 Jan 2100 00:00:00 GMT")];
    let Outcome::Throttled(Some(wait)) = classified(429, &date) else {
        panic!("a date is a time");
    };
    assert!(wait > Duration::from_secs(86_400));
}

#[test]
fn an_error_says_what_was_set() {
    let error: Result<&Response<()>, &()> = Err(&());
    assert_eq!(StatusClassifier::new().classify(error), Outcome::Ignored);
    let strict = StatusClassifier::new().on_error(Outcome::Throttled(None));
    assert_eq!(strict.classify(error), Outcome::Throttled(None));
}
