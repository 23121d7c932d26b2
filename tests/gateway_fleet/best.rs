//! The best that any schedule could do with the same arrivals, found when all is over.

use std::time::Duration;

/// What arrived, and what it came to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrived {
    pub(crate) at: Duration,
    pub(crate) tokens: u64,
}

/// The most tokens that can be spent until `end`, of a bucket that is full in the beginning.
///
/// Until an instant `s` nobody can spend more than has arrived before it, and after it no more than a
/// full bucket and what refills. The least of that over all `s` can be reached, by sending whatever is
/// there as soon as it fits, if calls can be cut; real ones cannot, so this is a little too high.
pub(crate) fn best(arrivals: &[Arrived], capacity: u64, window: Duration, end: Duration) -> u64 {
    let mut arrivals: Vec<_> = arrivals.iter().filter(|arrived| arrived.at <= end).collect();
    arrivals.sort_by_key(|arrived| arrived.at);
    let from = |since: Duration| {
        let refilled = u128::from(capacity) * (end - since).as_nanos() / window.as_nanos();
        capacity + u64::try_from(refilled).expect("a test is short")
    };
    let mut there = 0;
    let mut best = from(Duration::ZERO);
    for arrived in arrivals {
        best = best.min(there + from(arrived.at));
        there += arrived.tokens;
    }
    best.min(there)
}

#[test]
fn the_best_schedule_spends_no_more_than_there_is_and_no_more_than_came() {
    let arrived = |at, tokens| Arrived { at: Duration::from_secs(at), tokens };
    let best = |arrivals: &[_]| best(arrivals, 60, Duration::from_secs(6), Duration::from_secs(10));
    // More than enough from the start: a full bucket, and ten a second.
    assert_eq!(best(&[arrived(0, 1_000)]), 160);
    // Too little.
    assert_eq!(best(&[arrived(0, 20), arrived(5, 30)]), 50);
    // What refilled before the first came is lost: the bucket was full.
    assert_eq!(best(&[arrived(4, 1_000)]), 120);
    // A pause in which the bucket fills again, and two seconds more in which it overflows.
    assert_eq!(best(&[arrived(0, 60), arrived(8, 1_000)]), 140);
    // What comes after the end is of no use.
    assert_eq!(best(&[arrived(0, 20), arrived(11, 30)]), 20);
}
