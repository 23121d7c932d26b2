use std::time::Duration;

use axum::body::Body;
use http::{HeaderMap, Request, Response, StatusCode, header::RETRY_AFTER};
use tokio::{
    net::TcpSocket,
    time::{Instant, sleep},
};
use tower::{BoxError, Layer as _, ServiceExt as _, service_fn};
use tower_quota::{
    PolicyName, Quota,
    backend::redis::Server,
    time::{Clock, SystemClock},
    upstream::{Account, Answer, Board, Dimension, KnownLimit, Profile, Stop, UpstreamLayer},
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
    // By another's clock it may end some moments later.
    assert!(here.notice("c").stop.expect("it holds").until >= before);
    assert!(
        there.notice("c").stop.expect("it holds").until
            > here.notice("d").stop.expect("it holds").until
    );
}

/// What was stopped for good and is resumed can be stopped again for a shorter time, everywhere.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_after_a_longer_one_that_was_ended_by_hand_comes_to_all() {
    let server = Standalone::start();
    let proxy = Proxy::start(server.addr());
    let name = PolicyName::from_static("account");
    let here = Board::shared(Server::open(proxy.url()).expect("a URL"), name.clone());
    let there = Board::shared(Server::open(server.url()).expect("a URL"), name);
    here.post_stop("a", for_good());
    until(|| there.notice("a").stop.is_some()).await;
    here.resume("a");
    until(|| there.notice("a").stop.is_none()).await;
    here.post_stop("a", stop(60));
    until(|| there.notice("a").stop.is_some()).await;

    proxy.refuse();
    proxy.cut();
    // By the server's clock they are milliseconds apart.
    here.post_stop("b", for_good());
    sleep(APART).await;
    here.resume("b");
    sleep(APART).await;
    here.post_stop("b", stop(60));
    proxy.pass();
    until(|| there.notice("b").stop.is_some()).await;
    assert!(there.notice("b").stop.expect("it holds").until.is_some());
}

/// One that is told of the end by hand of a longer stop only after a shorter one was told, which came later
/// than that: it is the shorter one that holds, as for those who heard of all of it in time.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_holds_that_was_told_after_a_longer_one_was_ended_by_hand_whoever_knew_of_that() {
    let server = Standalone::start();
    let proxy = Proxy::start(server.addr());
    let name = PolicyName::from_static("account");
    let here = Board::shared(Server::open(proxy.url()).expect("a URL"), name.clone());
    let there = Board::shared(Server::open(server.url()).expect("a URL"), name.clone());
    here.post_stop("a b", for_good());
    until(|| there.notice("a b").stop.is_some()).await;

    proxy.refuse();
    proxy.cut();
    sleep(APART).await;
    here.resume("a b");
    sleep(UNDER_WAY).await;
    for secs in [600, 60] {
        // The longer of the two was told first, and is not ended.
        there.post_stop("a b", stop(secs));
    }
    assert_eq!(
        there.notice("a b").stop.expect("it holds").until,
        None,
        "nobody has told of the end"
    );
    proxy.pass();
    let holds = |board: &Board| board.notice("a b").stop.is_some_and(|stop| stop.until.is_some());
    until(|| holds(&here) && holds(&there)).await;
    // Who comes later has it from the server.
    let later = Board::shared(Server::open(server.url()).expect("a URL"), name);
    until(|| holds(&later)).await;
    let soon = SystemClock.now().saturating_add(Duration::from_secs(300));
    for board in [here, there, later] {
        assert!(board.notice("a b").stop.expect("it holds").until > Some(soon));
    }
}

/// Instances of a version that had one stop of a quota say so in a field of its own, without an id.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_holds_that_an_older_version_has_told_until_it_is_ended_by_hand() {
    let server = Standalone::start();
    let name = PolicyName::from_static("account");
    let board = || Board::shared(Server::open(server.url()).expect("a URL"), name.clone());
    let told = || server.ask::<Vec<String>>(&["HVALS", "tq:account:board"]).pop();
    let newer = board();
    newer.post_stop("a", for_good());
    until(|| told().is_some()).await;
    let told = told().expect("it was told");
    let (older, id) = told.split_once(",\"id\":").expect("it has an id");
    assert!(id.trim_end_matches('}').parse::<u64>().is_ok(), "it is the last: {told}");
    drop(newer);
    let _: i64 = server.ask(&["DEL", "tq:account:board"]);
    let _: i64 = server.ask(&["HSET", "tq:account:board", "stop a", &format!("{older}}}}}")]);

    let (here, there) = (board(), board());
    until(|| here.notice("a").stop.is_some() && there.notice("a").stop.is_some()).await;
    sleep(APART).await;
    here.resume("a");
    until(|| there.notice("a").stop.is_none()).await;
    // Who comes later reads both.
    let later = board();
    later.post_stop("b", stop(600));
    until(|| here.notice("b").stop.is_some()).await;
    assert!(later.notice("a").stop.is_none());
}

/// As after another server took over whose clock is behind.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_told_before_the_servers_clock_went_back_is_ended_by_hand_and_ends_nothing() {
    const HOUR: u64 = 3_600_000;

    let server = Standalone::start();
    let name = PolicyName::from_static("account");
    let board = || Board::shared(Server::open(server.url()).expect("a URL"), name.clone());
    let fields = || server.ask::<Vec<String>>(&["HGETALL", "tq:account:board"]);
    let first = board();
    for quota in ["stopped", "resumed"] {
        first.post_stop(quota, for_good());
    }
    until(|| fields().iter().filter(|field| field.starts_with("stop ")).count() == 2).await;
    sleep(APART).await;
    first.resume("resumed");
    until(|| fields().iter().any(|field| field.starts_with("resume "))).await;
    drop(first);
    for pair in fields().chunks(2) {
        let mut parts = pair[1].splitn(3, ' ');
        let mut next = || parts.next().expect("three parts").to_owned();
        let (order, told, rest) = (next(), next(), next());
        let later = told.parse::<u64>().expect("a number") + HOUR;
        let order = if pair[0].starts_with("stop ") { order } else { later.to_string() };
        let value = format!("{order} {later} {rest}");
        let _: i64 = server.ask(&["HSET", "tq:account:board", &pair[0], &value]);
    }

    let (here, there) = (board(), board());
    until(|| here.notice("stopped").stop.is_some() && there.notice("stopped").stop.is_some()).await;
    sleep(APART).await;
    here.resume("stopped");
    there.post_stop("resumed", for_good());
    until(|| there.notice("stopped").stop.is_none() && here.notice("resumed").stop.is_some()).await;
    // So it is when all of it is read again, and for who comes later.
    let later = board();
    later.post_stop("last", stop(600));
    until(|| here.notice("last").stop.is_some() && there.notice("last").stop.is_some()).await;
    for board in [&here, &there, &later] {
        assert!(board.notice("stopped").stop.is_none());
        assert!(board.notice("resumed").stop.is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_that_nobody_can_read_keep_nothing_from_being_told() {
    let server = Standalone::start();
    let name = PolicyName::from_static("account");
    let board = || Board::shared(Server::open(server.url()).expect("a URL"), name.clone());
    for field in ["stop a 0123456789abcdef", "resume a", "limit 1 a requests Told 5 - - requests"] {
        let _: i64 = server.ask(&["HSET", "tq:account:board", field, "nonsense"]);
    }
    let (here, there) = (board(), board());
    here.post_stop("a", stop(600));
    here.post_limit("a", KnownLimit::new("requests", Dimension::Requests, 7));
    until(|| there.notice("a").stop.is_some() && !there.notice("a").limits.is_empty()).await;
    here.resume("a");
    until(|| there.notice("a").stop.is_none()).await;
}

/// A server that is away holds up only those who come first.
#[tokio::test(start_paused = true)]
async fn who_comes_after_the_first_does_not_wait_for_a_server_that_is_away() {
    // It is bound and does not listen, so that nobody else does.
    let gone = TcpSocket::new_v4().expect("a socket");
    gone.bind(([127, 0, 0, 1], 0).into()).expect("a port");
    let address = gone.local_addr().expect("an address");
    let server = Server::open(format!("redis://{address}").as_str()).expect("a URL");
    let profile = Profile::ready("openai").expect("it is ready-made");
    let account = Account::builder(profile)
        .limit("requests", Quota::per_minute(600))
        .board(Board::shared(server, PolicyName::from_static("account")))
        .build()
        .expect("an account");
    let answer = service_fn(|_| async { Ok::<_, BoxError>(Response::new(Body::empty())) });
    let service = UpstreamLayer::new(account).layer(answer);
    let mut waits = Vec::new();
    for _ in 0..2 {
        let begun = Instant::now();
        service.clone().oneshot(Request::new(Body::empty())).await.expect("an answer");
        waits.push(begun.elapsed());
    }
    assert!(waits[0] >= Duration::from_millis(500), "{waits:?}");
    assert!(waits[1] < Duration::from_millis(500), "{waits:?}");
}

fn stop(secs: u16) -> Stop {
    let headers = [(RETRY_AFTER, secs.into())].into_iter().collect();
    observed(&headers, b"")
}

fn for_good() -> Stop {
    let body = br#"{"error":{"type":"insufficient_quota","code":"insufficient_quota"}}"#;
    observed(&HeaderMap::new(), body)
}

fn observed(headers: &HeaderMap, body: &[u8]) -> Stop {
    let (status, now) = (StatusCode::TOO_MANY_REQUESTS, SystemClock.now());
    let answer = Answer { status, headers, body, sent: now, received: now };
    let profile = Profile::ready("openai").expect("it is ready-made");
    profile.observe(&answer).stop.take().expect("it is a refusal")
}

const APART: Duration = Duration::from_millis(20);
/// What one instance tells before another by more than this is before it for the server too. It
/// dates what it is told by when that comes, and on a machine that stalls something may be under way
/// for seconds.
const UNDER_WAY: Duration = Duration::from_secs(5);
