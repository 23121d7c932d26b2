//! Values that another program, or another limit, left under our names.

use futures::future::join_all;
use tower_quota::{
    BackendErrorKind, Cost, Key, PolicyName, Quota,
    algorithm::{
        FixedWindow, LeakyBucket, Plan, SlidingCounter, SlidingLog, SlidingWindow, TokenBucket,
    },
    backend::redis::Scripted,
};

use crate::{keys::limiter, servers::Standalone};

/// No state of ours has such a number where it has any.
const STRANGE: [f64; 9] = [
    f64::NAN,
    f64::INFINITY,
    f64::NEG_INFINITY,
    -1.0,
    0.5,
    1e300,
    9_007_199_254_740_992.0,
    9_007_199_254_740_991.0,
    1e15,
];

/// What could be taken for a state by its length, and is none.
fn strange_values() -> Vec<Vec<u8>> {
    let numbers = [1_usize, 3, 4, 5, 6, 13, 300];
    let mut values: Vec<Vec<u8>> = vec![b"foo".to_vec(), vec![b'x'; 200_000]];
    for number in numbers {
        for strange in STRANGE {
            let all = vec![strange; number];
            let mut last = vec![1.0; number];
            last[number - 1] = strange;
            let mut first = vec![1.0; number];
            first[0] = strange;
            values.extend([all, first, last].map(|numbers| bytes(&numbers)));
        }
        values.push(bytes(&vec![0.0; number]));
        values.push(bytes(&vec![1.0; number]));
    }
    values
}

fn bytes(numbers: &[f64]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

async fn harms_itself_alone<A: Scripted>(server: &Standalone, algorithm: A) {
    for value in strange_values().into_iter().chain(algorithm_values()) {
        server.flush_all();
        server.set("tq:keys:{t.strange}", &value);
        let limiter = limiter(server, algorithm.clone());
        let keys = ["alice", "strange", "bob"].map(Key::from);
        let decisions = join_all(keys.iter().map(|key| limiter.decide(key, Cost::ONE))).await;
        let told = &decisions[1];
        let shown = &value[..value.len().min(64)];
        for other in [&decisions[0], &decisions[2]] {
            assert!(other.as_ref().is_ok_and(|other| other.is_allowed()), "{shown:?}: {other:?}");
        }
        if let Err(error) = told {
            assert_eq!(error.kind(), BackendErrorKind::Malformed, "{shown:?}");
        }
    }
}

fn algorithm_values() -> Vec<Vec<u8>> {
    // Parts of a plan: a strange end, and a strange part.
    let mut values = Vec::new();
    for strange in STRANGE {
        for kind in 1..=5 {
            values.push(bytes(&[f64::from(kind), strange, 24.0, 1.0, 1.0, 1.0]));
            values.push(bytes(&[f64::from(kind), 1.0, 24.0, 1.0, 1.0, strange]));
            values.push(bytes(&[f64::from(kind), 1.0, 32.0, 1.0, 1.0, 1.0, strange]));
            values.push(bytes(&[f64::from(kind), 1.0, strange, 1.0, 1.0, 1.0]));
        }
    }
    values
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strange_value_fails_its_own_key_alone_under_every_algorithm() {
    let server = Standalone::start();
    let quota = Quota::per_day(100);
    harms_itself_alone(&server, TokenBucket::new(quota)).await;
    harms_itself_alone(&server, LeakyBucket::new(quota)).await;
    harms_itself_alone(&server, FixedWindow::new(quota)).await;
    harms_itself_alone(&server, FixedWindow::from_first_hit(quota)).await;
    harms_itself_alone(&server, SlidingWindow::new(quota)).await;
    harms_itself_alone(&server, SlidingCounter::new(quota)).await;
    harms_itself_alone(&server, SlidingLog::new(quota)).await;
    let plan = Plan::new()
        .limit(PolicyName::from_static("day"), FixedWindow::new(quota))
        .limit(PolicyName::from_static("burst"), TokenBucket::new(quota))
        .limit(PolicyName::from_static("log"), SlidingLog::new(quota))
        .limit(PolicyName::from_static("counter"), SlidingCounter::new(quota))
        .build();
    harms_itself_alone(&server, plan.expect("a plan")).await;
}
