//! What is posted of limits, in any order and any number of times.

use std::time::Duration;

use proptest::prelude::*;
use tower_quota::{
    time::Timestamp,
    upstream::{Board, Dimension, KnownLimit, Source},
};

use crate::cases::cases;

fn posts() -> impl Strategy<Value = Vec<KnownLimit>> {
    let name = prop::sample::select(vec!["a", "b"]);
    // Few of each, so that they meet: moments within the time that an answer may be on its way, and
    // some minutes, in which an inference is believed.
    let moment = prop_oneof![0_u64..4_000, (0_u64..20).prop_map(|minutes| minutes * 60_000)];
    let limit = prop::sample::select(vec![100_u64, 200, 300]);
    let window = prop::option::of(prop::sample::select(vec![60_u64, 3_600]));
    let source = prop::sample::select(vec![
        Source::Told,
        Source::Told,
        Source::Told,
        Source::Inferred,
        Source::Configured,
    ]);
    let instead_of = prop::option::of(prop::sample::select(vec![200_u64, 300]));
    let post = (name, moment, limit, window, source, instead_of);
    let post = post.prop_map(|(name, moment, limit, window, source, instead_of)| {
        let mut told = KnownLimit::new(name, Dimension::Tokens, limit);
        told.window = window.map(Duration::from_secs);
        told.source = source;
        told.instead_of = instead_of.filter(|_| source == Source::Inferred);
        told.told = Timestamp::from_secs(1_000).saturating_add(Duration::from_millis(moment));
        told
    });
    prop::collection::vec(post, 0..12)
}

fn known(posts: &[KnownLimit]) -> Vec<KnownLimit> {
    let board = Board::new();
    posts.iter().for_each(|limit| board.post_limit("", limit.clone()));
    board.notice("").limits
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn what_is_known_of_limits_is_the_same_in_any_order_and_any_number_of_times(
        (posts, shuffled) in posts().prop_flat_map(|posts| {
            let twice = [posts.clone(), posts.clone()].concat();
            (Just(posts), Just(twice).prop_shuffle())
        }),
    ) {
        prop_assert_eq!(known(&posts), known(&shuffled));
    }

    /// What holds is something that somebody told, and never older by far than what answers told
    /// last.
    #[test]
    fn what_is_known_of_a_limit_was_told_by_somebody(posts in posts()) {
        for limit in known(&posts) {
            let same = |post: &&KnownLimit| (&post.name, post.limit) == (&limit.name, limit.limit);
            prop_assert!(posts.iter().any(|post| same(&post)), "{limit:?}");
        }
    }
}

/// The oldest of what was told is forgotten, and a name that is one too many; neither changes with
/// the order.
#[test]
fn what_is_kept_of_limits_is_bounded_and_the_same_in_any_order() {
    let told = |name: String, limit, secs| {
        let mut told = KnownLimit::new(name, Dimension::Tokens, limit);
        told.told = Timestamp::from_secs(secs);
        told
    };
    let mut posts: Vec<_> = (0..200).map(|at| told("a".into(), 1_000 + at, at * 7)).collect();
    posts.extend((0..50).map(|number| told(format!("b{number:02}"), 7, number)));
    let limits = known(&posts);
    assert_eq!((limits.len(), limits[0].limit), (32, 1_199));
    posts.reverse();
    assert_eq!(known(&posts), limits);
}
