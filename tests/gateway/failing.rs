use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::{Router, body::Body, http::Request};
use http::{Response, StatusCode};
use tokio::{net::TcpListener, runtime::Runtime, time::Instant};
use tower::ServiceExt as _;
use tower_quota::testing::strict_upstream::StrictUpstream;

use crate::{
    servers::free_port,
    support::{Gateway, PATIENCE, SECRETS, configuration, on_a_socket, provider, until},
};

const ALICE: &str = SECRETS[2];

/// How a provider fails while it fails.
#[derive(Clone, Copy)]
enum Failing {
    /// It answers 500.
    Broken,
    /// It takes a call, and never begins to answer.
    Silent,
}

/// A provider that fails until it is well.
struct Patient {
    address: SocketAddr,
    is_well: Arc<AtomicBool>,
    /// The calls that came while it failed.
    failed: Arc<AtomicUsize>,
    upstream: StrictUpstream,
}

impl Patient {
    async fn start(failing: Failing) -> Self {
        let upstream = provider().build();
        let (is_well, failed) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let (well, count, router) = (Arc::clone(&is_well), Arc::clone(&failed), upstream.router());
        let app = Router::new().fallback(move |request: Request<Body>| {
            let (is_well, router) = (well.load(SeqCst), router.clone());
            if !is_well {
                count.fetch_add(1, SeqCst);
            }
            async move {
                if is_well {
                    return router.oneshot(request).await.expect("it is infallible");
                }
                match failing {
                    Failing::Silent => std::future::pending().await,
                    Failing::Broken => {
                        let mut broken = Response::new(Body::from("out of order"));
                        *broken.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                        broken
                    }
                }
            }
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { address, is_well, failed, upstream }
    }
}

/// A provider in a runtime of its own: with it all of its sockets are gone, as with a process.
struct Killed {
    runtime: Runtime,
    upstream: StrictUpstream,
}

impl Killed {
    fn start(address: SocketAddr) -> (Self, SocketAddr) {
        let (runtime, upstream) = (Runtime::new().expect("a runtime"), provider().build());
        let (router, (told, bound)) = (upstream.router(), std::sync::mpsc::channel());
        runtime.spawn(async move {
            let listener = TcpListener::bind(address).await.expect("its port is free");
            told.send(listener.local_addr().expect("it is bound")).expect("somebody waits for it");
            axum::serve(listener, router).await
        });
        let address = bound.recv().expect("it is bound");
        (Self { runtime, upstream }, address)
    }

    /// Returns when nothing of it is left.
    fn kill(self) {
        let ending = std::thread::spawn(move || self.runtime.shutdown_timeout(PATIENCE));
        ending.join().expect("it ends");
    }
}

/// A model with an account at each of two providers. The first may take a second to begin to answer.
fn two_providers(address: SocketAddr, second: SocketAddr) -> String {
    let first = format!("\"http://{address}\"");
    let impatient = format!("{first}\ntimeout = \"1s\"");
    configuration(address, "")
        .replacen(
            "[[provider]]",
            &format!(
                "[[provider]]\nname = \"spare\"\nprofile = \"openai\"\nspeaks = \"openai\"\n\
                 base_url = \"http://{second}\"\n\n[[provider]]"
            ),
            1,
        )
        .replacen(
            "[[account]]",
            "[[account]]\nname = \"spare\"\nprovider = \"spare\"\nkey_env = \"ACCOUNT_ONE\"\n\n\
             [[account]]",
            1,
        )
        .replacen("accounts = [\"one\"]", "accounts = [\"one\", \"spare\"]", 1)
        .replace(&first, &impatient)
}

/// Asks, one call after another, and says how long that took.
async fn ask(gateway: &Gateway, calls: usize) -> Duration {
    let begun = Instant::now();
    for call in 0..calls {
        let answer = gateway.chat(ALICE, "gpt", "Hello").await;
        assert_eq!(answer.status(), 200, "call {call}");
    }
    begun.elapsed()
}

/// Rests of 1, 2, 4… seconds end so often in so long, after a call that found out. A call that looks again
/// may take a second more.
fn looks_within(time: Duration) -> usize {
    2 + (time.as_secs() + 1).ilog2() as usize
}

#[tokio::test]
async fn calls_of_a_provider_that_is_killed_are_answered_by_another_until_it_is_up_again() {
    let (first, address) = Killed::start(([127, 0, 0, 1], free_port()).into());
    let spare = provider().build();
    let gateway = Gateway::start(&two_providers(address, on_a_socket(&spare).await)).await;
    // One that takes too long on a busy machine rests for a moment.
    until(|| async {
        ask(&gateway, 1).await;
        first.upstream.record().admitted > 0
    })
    .await;
    first.kill();

    let other = spare.record().admitted;
    ask(&gateway, 12).await;
    assert_eq!(spare.record().admitted, other + 12);

    let (first, _) = Killed::start(address);
    until(|| async {
        ask(&gateway, 1).await;
        first.upstream.record().admitted > 0
    })
    .await;
    first.kill();
}

#[tokio::test]
async fn a_provider_that_answers_with_errors_rests_and_comes_back_when_it_is_well() {
    rests_and_comes_back(Failing::Broken).await;
}

#[tokio::test]
async fn a_provider_that_never_begins_to_answer_rests_and_comes_back_when_it_is_well() {
    rests_and_comes_back(Failing::Silent).await;
}

async fn rests_and_comes_back(failing: Failing) {
    let (first, spare) = (Patient::start(failing).await, provider().build());
    let gateway = Gateway::start(&two_providers(first.address, on_a_socket(&spare).await)).await;
    let took = ask(&gateway, 20).await;
    assert_eq!(spare.record().admitted, 20);
    let failed = first.failed.load(SeqCst);
    let most = looks_within(took);
    assert!((1..=most).contains(&failed), "it was asked {failed} times within {took:?}");

    first.is_well.store(true, SeqCst);
    until(|| async {
        ask(&gateway, 1).await;
        first.upstream.record().admitted > 0
    })
    .await;
    // It is one of two again.
    let admitted = first.upstream.record().admitted;
    until(|| async {
        ask(&gateway, 1).await;
        first.upstream.record().admitted > admitted
    })
    .await;
}
