use proptest::prelude::*;

use super::*;
use crate::upstream::observation::{Class, Source};

#[derive(Clone, Debug)]
enum Post {
    Stop(ToldStop),
    Resume(Timestamp),
}

fn posts() -> impl Strategy<Value = Vec<Post>> {
    let at = || (0_u64..6).prop_map(Timestamp::from_secs);
    let stop = (at(), prop::option::of(0_u64..8), any::<u64>()).prop_map(|(told, end, id)| {
        let until = end.map(Timestamp::from_secs);
        let (class, source) = (Class::Transient, Source::Told);
        Post::Stop(ToldStop { stop: Stop { class, until, limit: None, source }, told, id })
    });
    let post = prop_oneof![5 => stop, 1 => at().prop_map(Post::Resume)];
    prop::collection::vec(post, 0..MAX_STOPS)
}

fn made_of(posts: &[Post]) -> Stops {
    posts.iter().fold(Stops::default(), |mut stops, post| {
        match post.clone() {
            Post::Stop(stop) => stops.add(stop),
            Post::Resume(at) => stops.resume(at),
        };
        stops
    })
}

proptest! {
    #[test]
    fn stops_are_the_same_in_any_order_and_any_number_of_times(
        (posts, shuffled) in posts().prop_flat_map(|posts| {
            let twice = [posts.clone(), posts.clone()].concat();
            (Just(posts), Just(twice).prop_shuffle())
        }),
    ) {
        prop_assert_eq!(made_of(&posts), made_of(&shuffled));
    }

    #[test]
    fn of_the_stops_that_were_told_since_the_last_resumption_the_longest_holds(posts in posts()) {
        let resumed = posts.iter().filter_map(|post| match post {
            Post::Resume(at) => Some(*at),
            Post::Stop(_) => None,
        });
        let resumed = resumed.max().unwrap_or(Timestamp::MIN);
        let ends = posts.iter().filter_map(|post| match post {
            Post::Stop(stop) if resumed < stop.told => Some(stop.end()),
            _ => None,
        });
        prop_assert_eq!(made_of(&posts).longest().map(ToldStop::end), ends.max());
    }
}
