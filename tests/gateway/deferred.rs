use std::{
    fs,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::{Router, body::Body, http::Request};
use futures::future::join_all;
use reqwest::{Method, Response, StatusCode};
use serde_json::Value;
use tokio::{net::TcpListener, sync::Semaphore};
use tower::ServiceExt as _;
use tower_quota::testing::strict_upstream::{Fault, ProviderLimit, StrictUpstream};

use crate::support::{
    Gateway, PATIENCE, SECRETS, configuration, on_a_socket, ports_of_its_own, provider, until,
};

const ALICE: &str = SECRETS[2];
const CAROL: &str = SECRETS[4];

#[tokio::test]
async fn a_call_is_accepted_now_and_answered_later_to_its_tenant_only() {
    let upstream = provider().build();
    let gateway = Gateway::start(&configuration(on_a_socket(&upstream).await, "")).await;
    let body = r#"{"model":"gpt","messages":[{"role":"user","content":"Hello"}]}"#;
    let request = gateway.ask(ALICE, "/v1/chat/completions", body);
    let accepted = request.header("prefer", "respond-async").send().await.expect("an answer");
    assert_eq!(accepted.status(), 202);
    let location = accepted.headers()["location"].to_str().expect("ASCII").to_owned();
    let fetch = |key: &'static str, more: &str| {
        let url = format!("http://{}{location}{more}", gateway.tenants);
        gateway.client.get(url).bearer_auth(key).send()
    };
    until(|| async { fetch(ALICE, "/result").await.expect("an answer").status() == 200 }).await;
    let answer: Value =
        fetch(ALICE, "/result").await.expect("an answer").json().await.expect("JSON");
    assert_eq!(answer["usage"]["completion_tokens"], 12);

    assert_eq!(fetch(CAROL, "").await.expect("an answer").status(), StatusCode::NOT_FOUND);
    assert_eq!(fetch(CAROL, "/result").await.expect("an answer").status(), StatusCode::NOT_FOUND);
    assert_eq!(fetch("sk-x", "").await.expect("an answer").status(), StatusCode::UNAUTHORIZED);
    let url = format!("http://{}{location}", gateway.tenants);
    let canceled = gateway.client.delete(&url).bearer_auth(CAROL).send().await.expect("an answer");
    assert_eq!(canceled.status(), StatusCode::NOT_FOUND);
    assert_eq!(fetch(ALICE, "").await.expect("an answer").status(), StatusCode::OK);
    let totals = &gateway.status().await["totals"];
    assert_eq!((&totals["deferred"], &totals["admitted"]), (&1.into(), &0.into()));
    assert_eq!(totals["tokens"], 20);
}

/// A folder that a gateway's end leaves alone.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let name = format!("tower-quota-gateway-deferred-{}-{name}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).expect("a folder for temporary files");
        Self(folder)
    }

    fn section(&self) -> String {
        format!("[deferred]\npath = \"{}\"", self.0.join("deferred.redb").display())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

/// Asks later, and says where the answer will be.
async fn defer(gateway: &Gateway, question: usize) -> String {
    defer_to(gateway, "gpt", question).await
}

async fn defer_to(gateway: &Gateway, model: &str, question: usize) -> String {
    let body = format!(
        r#"{{"model":"{model}","messages":[{{"role":"user","content":"Hello {question}"}}]}}"#
    );
    let request = gateway.ask(ALICE, "/v1/chat/completions", body);
    let accepted = request.header("prefer", "respond-async").send().await.expect("an answer");
    assert_eq!(accepted.status(), 202);
    accepted.headers()["location"].to_str().expect("ASCII").to_owned()
}

async fn at(gateway: &Gateway, method: Method, key: &str, path: &str) -> Response {
    let url = format!("http://{}{path}", gateway.tenants);
    gateway.client.request(method, url).bearer_auth(key).send().await.expect("an answer")
}

async fn state(gateway: &Gateway, path: &str) -> String {
    let standing = at(gateway, Method::GET, ALICE, path).await;
    assert_eq!(standing.status(), 200, "it is lost");
    let standing: Value = standing.json().await.expect("JSON");
    standing["state"].as_str().expect("it is in a state").to_owned()
}

#[tokio::test]
async fn what_a_gateway_has_accepted_is_answered_though_it_is_killed_in_its_midst() {
    const CALLS: usize = 40;
    // Nothing is answered before it has died: most of them wait still, and some run.
    let upstream = provider().build();
    let (came, may_go) = (Arc::<AtomicU64>::default(), Arc::new(Semaphore::new(0)));
    let router = {
        let (upstream, came, may_go) = (upstream.router(), Arc::clone(&came), Arc::clone(&may_go));
        Router::new().fallback(move |request: Request<Body>| async move {
            came.fetch_add(1, SeqCst);
            drop(may_go.acquire().await.expect("it is never closed"));
            upstream.oneshot(request).await
        })
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move { axum::serve(listener, router).await });
    let folder = Folder::new("killed");
    let text = ports_of_its_own(&configuration(address, &folder.section()));
    let mut gateway = Gateway::start(&text).await;
    let mut accepted = Vec::new();
    for question in 0..CALLS {
        accepted.push(defer(&gateway, question).await);
    }
    until(|| async { came.load(SeqCst) > 0 }).await;
    gateway.signal("-KILL");
    gateway.ended().await;
    assert!(came.load(SeqCst) <= AT_A_TIME, "more run than may");
    gateway.start_again(&text).await;
    may_go.add_permits(CALLS);

    // What ran when it died waits for the end of its lease.
    for path in &accepted {
        until(|| async { state(&gateway, path).await == "done" }).await;
    }
    for path in &accepted {
        let result = at(&gateway, Method::GET, ALICE, &format!("{path}/result")).await;
        assert_eq!(result.status(), 200);
        let answer: Value = result.json().await.expect("JSON");
        assert_eq!(answer["usage"]["completion_tokens"], 12);
        assert_eq!(state(&gateway, path).await, "done", "it ends once");
    }
    // One that ran when it died may have been carried out twice; no other.
    let asked = came.load(SeqCst);
    assert!((CALLS as u64..=CALLS as u64 + AT_A_TIME).contains(&asked), "{asked} were sent");
}

#[tokio::test]
async fn a_deferred_call_is_canceled_by_its_tenant_and_by_no_other() {
    let upstream = provider().build();
    for _ in 0..2 {
        upstream.inject(Fault::Delay(PATIENCE));
    }
    let gateway = Gateway::start(&configuration(on_a_socket(&upstream).await, "")).await;
    let accepted = join_all([defer(&gateway, 1), defer(&gateway, 2)]).await;
    for (path, is_canceled) in accepted.iter().zip([true, false]) {
        let others = at(&gateway, Method::DELETE, CAROL, path).await;
        assert_eq!(others.status(), StatusCode::NOT_FOUND);
        let unknown = at(&gateway, Method::DELETE, "sk-x", path).await;
        assert_eq!(unknown.status(), StatusCode::UNAUTHORIZED);
        assert!(["waiting", "running"].contains(&&*state(&gateway, path).await));
        if is_canceled {
            let own = at(&gateway, Method::DELETE, ALICE, path).await;
            assert_eq!(own.status(), StatusCode::NO_CONTENT);
            assert_eq!(state(&gateway, path).await, "canceled");
            let result = at(&gateway, Method::GET, ALICE, &format!("{path}/result")).await;
            assert!(result.status().is_client_error(), "{}", result.status());
        }
    }
    until(|| async { state(&gateway, &accepted[1]).await == "running" }).await;
}

#[tokio::test]
async fn a_model_whose_quota_is_used_up_holds_back_no_other_of_its_tenant() {
    let upstream = StrictUpstream::builder()
        .account("one", ["sk-account-one"], [ProviderLimit::requests(1).per(HOUR)])
        .account("two", ["sk-account-two"], [ProviderLimit::requests(100)])
        .build();
    // At one provider, in one language; and who waits at the account when it is told is refused soon.
    let text = configuration(on_a_socket(&upstream).await, "")
        .replace("provider = \"anth\"", "provider = \"open\"")
        .replace("\"ACCOUNT_ONE\"", "\"ACCOUNT_ONE\"\nmax_wait = \"1s\"");
    let gateway = Gateway::start(&text).await;
    let used_up = join_all((0..20).map(|question| defer(&gateway, question))).await;
    let states = || async { join_all(used_up.iter().map(|path| state(&gateway, path))).await };
    until(|| async { states().await.contains(&String::from("done")) }).await;
    // What the provider says of the second stops all.
    until(|| async { states().await.iter().filter(|state| **state == "waiting").count() == 19 })
        .await;
    let other = defer_to(&gateway, "claude", 0).await;
    until(|| async { state(&gateway, &other).await == "done" }).await;
    assert_eq!(states().await.iter().filter(|state| **state == "waiting").count(), 19);
}

const HOUR: Duration = Duration::from_secs(3_600);
/// How many run at a time.
const AT_A_TIME: u64 = 16;
