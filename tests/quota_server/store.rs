//! A quota server as the store of our own layers: the conformance suite, over HTTP.

use std::{
    net::SocketAddr,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tower_quota::{
    BackendErrorKind, Cost, Key, Limiter, PolicyName, Quota,
    algorithm::{Calendar, FixedWindow, Portion, TokenBucket},
    backend::{Backend, GuardedBuilder, Remote, RemoteBuilder, guarded::Fallback},
    quota_service::{BearerTokens, QuotaService, http::QuotaRouter},
    testing::conformance::{self, Harness},
    time::{ManualClock, Timestamp},
};

use crate::{
    envoy::Broken,
    support::{serve_http, service, service_at},
};

/// Stores of one server, each of another name.
struct OverHttp {
    address: SocketAddr,
    clock: ManualClock,
    made: AtomicU64,
}

impl<A: tower_quota::backend::remote::Portable> Harness<A> for OverHttp {
    type Backend = Remote;

    fn backend(&self) -> Remote {
        let name = format!("store-{}", self.made.fetch_add(1, Ordering::Relaxed));
        remote(self.address, &name).build()
    }

    fn set_time(&self, now: Timestamp) {
        self.clock.set(now);
    }
}

/// One that is patient: a machine that stalls has not failed.
fn remote(address: SocketAddr, name: &str) -> RemoteBuilder {
    let name = PolicyName::new(name).expect("a name");
    let builder = RemoteBuilder::new(&format!("http://{address}"), name).expect("a URL");
    builder.timeout(Duration::from_secs(60))
}

/// An address that refuses connections for as long as the value is there: nobody else can have it.
fn gone() -> (tokio::net::TcpSocket, SocketAddr) {
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.bind(([127, 0, 0, 1], 0).into()).expect("a port");
    let address = socket.local_addr().expect("an address");
    (socket, address)
}

async fn store() -> OverHttp {
    let (service, clock) = service_at("", Timestamp::from_secs(1));
    let address = serve_http(QuotaRouter::new(service).store(true)).await;
    OverHttp { address, clock, made: AtomicU64::new(0) }
}

#[tokio::test]
async fn a_quota_server_is_a_backend_like_any_other() {
    conformance::run(&store().await).await;
}

#[tokio::test]
async fn windows_of_a_calendar_travel_too() {
    let store = store().await;
    let days = Calendar::days("America/Los_Angeles").expect("a zone");
    let limiter =
        Limiter::new(FixedWindow::calendar(2, days), remote(store.address, "days").build());
    // Three hours before midnight there.
    store.clock.set(Timestamp::from_secs(1_700_110_800));
    for _ in 0..2 {
        assert!(limiter.decide(&Key::GLOBAL, 1).await.expect("a decision").is_allowed());
    }
    let refused = limiter.decide(&Key::GLOBAL, 1).await.expect("a decision");
    assert_eq!(refused.retry_after().and_then(|wait| wait.as_secs_ceil()), Some(3 * 3_600));
}

#[tokio::test]
async fn a_server_that_is_no_store_says_so() {
    let (service, _) = service("");
    let address = serve_http(QuotaRouter::new(service)).await;
    assert_eq!(failure(remote(address, "login")).await, BackendErrorKind::Rejected);
}

#[tokio::test]
async fn without_the_right_token_nothing_is_decided() {
    let (service, _) = service("");
    let tokens = BearerTokens::new(["right"]);
    let address = serve_http(QuotaRouter::new(service).store(true).tokens(tokens)).await;
    let builder = || remote(address, "login");
    assert_eq!(failure(builder()).await, BackendErrorKind::Unauthorized);
    let wrong = builder().token("wrong").expect("a token");
    assert!(!format!("{wrong:?}").contains("wrong"));
    assert_eq!(failure(wrong).await, BackendErrorKind::Unauthorized);
    let right = builder().token("right").expect("a token").build();
    assert!(!format!("{right:?}").contains("right"));
    let limiter = Limiter::new(TokenBucket::new(Quota::per_second(1)), right);
    assert!(limiter.decide(&Key::GLOBAL, 1).await.expect("a decision").is_allowed());
}

#[tokio::test]
async fn a_server_that_fails_counts_as_perhaps_charged_and_one_that_is_gone_as_not() {
    let broken = QuotaService::new("".parse().expect("rules"), Broken);
    let address = serve_http(QuotaRouter::new(broken).store(true)).await;
    assert_eq!(failure(remote(address, "login")).await, BackendErrorKind::TimedOut);

    let (_gone, address) = gone();
    assert_eq!(failure(remote(address, "login")).await, BackendErrorKind::Unreachable);

    // One that takes connections and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = silent.local_addr().expect("an address");
    let impatient = remote(address, "login").timeout(Duration::from_millis(20));
    assert_eq!(failure(impatient).await, BackendErrorKind::TimedOut);
}

#[tokio::test]
async fn while_the_server_is_gone_each_instance_decides_by_its_share() {
    let (_gone, address) = gone();
    let share = Fallback::LocalShare(Portion::of(4).expect("a portion"));
    let guarded = GuardedBuilder::new(share)
        .timeout(Duration::from_secs(120))
        .build(remote(address, "login").build());
    let limiter = Limiter::new(TokenBucket::new(Quota::per_hour(8)), guarded);
    let mut admitted = 0;
    for _ in 0..8 {
        let decision = limiter.decide(&Key::GLOBAL, Cost::ONE).await.expect("a decision");
        admitted += u32::from(decision.is_allowed());
    }
    assert_eq!(admitted, 2);
}

#[tokio::test]
async fn a_key_does_not_leave_the_process() {
    let sent = std::sync::Arc::new(Mutex::new(Vec::new()));
    let seen = std::sync::Arc::clone(&sent);
    let backend = remote(([127, 0, 0, 1], 1).into(), "login")
        .send_by(move |request| {
            seen.lock().expect("a lock").extend_from_slice(request.body());
            std::future::ready(Ok(http::Response::new(bytes::Bytes::new())))
        })
        .build();
    let algorithm = TokenBucket::new(Quota::per_second(1));
    let demand = tower_quota::Demand::exactly(Cost::ONE);
    for key in [Key::secret("sk-very-secret"), Key::from("alice")] {
        let error = backend.decide(&algorithm, &key, &demand).await.expect_err("an empty answer");
        assert_eq!(error.kind(), BackendErrorKind::Malformed);
    }
    let sent = String::from_utf8(sent.lock().expect("a lock").clone()).expect("text");
    assert!(!sent.contains("sk-very-secret") && !sent.contains("alice"), "{sent}");
}

async fn failure(builder: RemoteBuilder) -> BackendErrorKind {
    let limiter = Limiter::new(TokenBucket::new(Quota::per_second(1)), builder.build());
    limiter.decide(&Key::GLOBAL, 1).await.expect_err("no decision").kind()
}
