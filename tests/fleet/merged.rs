//! The merge of a board on a server beside that in a process: what both make of the same posts.

use std::time::Duration;

use tower_quota::{
    PolicyName,
    backend::redis::Server,
    time::{Clock as _, SystemClock},
    upstream::{Board, Dimension, KnownLimit, Notice, Source},
};

use crate::{fleet::until, load::Random, servers::Standalone};

const CASES: u64 = 40;
const POSTS: u64 = 10;

/// By a server's clock an instant is some milliseconds off, so only what is told is looked at.
type Known = Vec<(Box<str>, u64, Option<Duration>, Source)>;

fn known(notice: Notice) -> Known {
    let limits = notice.limits.into_iter();
    limits.map(|limit| (limit.name, limit.limit, limit.window, limit.source)).collect()
}

/// Told at moments that are far from each other, or half a second apart.
fn post(random: &mut Random) -> KnownLimit {
    let name = ["requests", "a name of\ttheirs"][random.below(2) as usize];
    let mut limit = KnownLimit::new(name, Dimension::Tokens, 100 * (1 + random.below(3)));
    limit.window = [None, Some(Duration::from_secs(60))][random.below(2) as usize];
    limit.source = [Source::Told, Source::Told, Source::Inferred, Source::Configured]
        [random.below(4) as usize];
    if limit.source == Source::Inferred {
        limit.instead_of = Some(100 * (1 + random.below(3)));
    }
    let before = 45_000 * random.below(40) + 500 * random.below(3);
    limit.told = SystemClock.now().saturating_sub(Duration::from_millis(before));
    limit
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_and_a_process_make_the_same_of_what_is_posted() {
    let server = Standalone::start();
    let name = PolicyName::from_static("account");
    let shared = || Board::shared(Server::open(server.url()).expect("a URL"), name.clone());
    let (here, there, alone) = (shared(), shared(), Board::new());
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for case in 0..CASES {
        let quota = format!("model {case}");
        for _ in 0..POSTS {
            let limit = post(&mut random);
            alone.post_limit(&quota, limit.clone());
            let one = if random.below(2) == 0 { &here } else { &there };
            one.post_limit(&quota, limit);
        }
    }
    let agree = |board: &Board| {
        (0..CASES).map(|case| format!("model {case}")).all(|quota| {
            let expected = known(alone.notice(&quota));
            !expected.is_empty() && known(board.notice(&quota)) == expected
        })
    };
    until(|| agree(&here) && agree(&there)).await;
    // Who comes later has all of it from the server.
    let later = shared();
    until(|| agree(&later)).await;
}
