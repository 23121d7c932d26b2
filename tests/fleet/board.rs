use http::{HeaderMap, StatusCode, header::RETRY_AFTER};
use tower_quota::{
    PolicyName,
    backend::redis::Server,
    time::{Clock, SystemClock},
    upstream::{Answer, Board, Profile},
};

use crate::{
    fleet::until,
    servers::{Proxy, Standalone},
};

/// What is posted while the server is away is posted when it is back, and what is known stays known.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_that_is_told_while_the_server_is_away_comes_to_all_when_it_is_back() {
    let server = Standalone::start();
    let proxy = Proxy::start(server.addr());
    let name = PolicyName::from_static("account");
    let here = Board::shared(Server::open(proxy.url()).expect("a URL"), name.clone());
    let there = Board::shared(Server::open(server.url()).expect("a URL"), name);
    let profile = Profile::ready("openai").expect("it is ready-made");
    let stop = |secs: u16| {
        let now = SystemClock.now();
        let mut observed = profile.observe(&Answer {
            status: StatusCode::TOO_MANY_REQUESTS,
            headers: &[(RETRY_AFTER, secs.into())].into_iter().collect::<HeaderMap>(),
            body: b"",
            sent: now,
            received: now,
        });
        observed.stop.take().expect("it is a refusal")
    };
    here.post_stop("a", stop(600));
    there.post_stop("b", stop(600));
    until(|| there.notice("a").stop.is_some() && here.notice("b").stop.is_some()).await;

    proxy.refuse();
    proxy.cut();
    here.post_stop("c", stop(700));
    assert!(here.notice("b").stop.is_some(), "what is known stays known");
    proxy.pass();
    until(|| there.notice("c").stop.is_some()).await;

    // A shorter one does not end a longer one, wherever it is told.
    let before = here.notice("c").stop.expect("it holds").until;
    there.post_stop("c", stop(60));
    there.post_stop("d", stop(60));
    until(|| here.notice("d").stop.is_some()).await;
    assert_eq!(here.notice("c").stop.expect("it holds").until, before);
    assert!(
        there.notice("c").stop.expect("it holds").until
            > here.notice("d").stop.expect("it holds").until
    );
}
