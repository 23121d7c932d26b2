//! A real Envoy that asks the quota service before it lets a request through.

use std::{
    env, fs,
    io::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use axum::{Router, http::HeaderMap};
use reqwest::{Response, StatusCode};
use tower_quota::{
    BackendError, BackendErrorKind, Cost, Decision, Key, MaybeReady,
    algorithm::Plan,
    backend::Backend,
    decision::{Charge, Demand},
    quota_service::{BearerTokens, QuotaService, envoy::RateLimitServer},
};

use crate::{
    shared::servers,
    support::{serve, service},
};

const RULES: &str = r#"
    response_headers = "ietf"
    request_headers = "reference"
    denied_body = "problem"
    domain = "edge"
    descriptors = [
        { key = "user", rate_limit = { unit = "minute", requests_per_unit = 3, name = "per-user" } },
        { key = "user", value = "shadow", shadow_mode = true, rate_limit = { unit = "minute", requests_per_unit = 1 } },
        { key = "user", value = "root", rate_limit = { unlimited = true } },
        { key = "user", value = "shaped", rate_limit = { unit = "second", requests_per_unit = 20, algorithm = "leaky-bucket" } },
    ]
"#;

/// An Envoy in front of an upstream that says what it was sent.
struct Envoy {
    child: Child,
    folder: PathBuf,
    /// Lets requests pass if nobody can decide.
    open: SocketAddr,
    /// Refuses them then.
    closed: SocketAddr,
}

impl Envoy {
    async fn asking(quota: SocketAddr) -> Self {
        let upstream = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let upstream_address = upstream.local_addr().expect("an address");
        let told = |headers: HeaderMap| async move {
            headers.get("ratelimit-remaining").map_or_else(
                || "no fields".to_owned(),
                |left| format!("{} left", left.to_str().expect("text")),
            )
        };
        let router = Router::new().fallback(told);
        tokio::spawn(async move { axum::serve(upstream, router).await });

        let [open, closed] = [free_port(), free_port()];
        let listeners = listener(open, false) + &listener(closed, true);
        let config = format!(
            "static_resources:\n  listeners:\n{listeners}  clusters:\n{}{}",
            cluster("upstream", upstream_address, false),
            cluster("quota", quota, true),
        );
        let folder = env::temp_dir().join(format!("tower-quota-envoy-{}", open.port()));
        fs::create_dir_all(&folder).expect("a folder");
        let file = folder.join("envoy.yaml");
        fs::write(&file, config).expect("a file");
        let log = fs::File::create(folder.join("log")).expect("a file");
        // The watcher kills it if this process ends without dropping it, however it ends.
        let watched = "exec 3<&0 </dev/null; ( read -r line <&3 || kill -9 $$ ) >/dev/null 2>&1 & \
                       exec \"$@\" 3<&-";
        let child = Command::new("sh")
            .args(["-c", watched, "envoy"])
            .arg(program())
            .args(["--disable-hot-restart", "--concurrency", "1", "--log-level", "warning", "-c"])
            .arg(&file)
            .stdin(Stdio::piped())
            .stdout(log.try_clone().expect("a file"))
            .stderr(log)
            .spawn()
            .expect("envoy starts");
        let envoy = Self { child, folder, open, closed };
        envoy.wait_until_up().await;
        envoy
    }

    async fn wait_until_up(&self) {
        let begun = tokio::time::Instant::now();
        while begun.elapsed() < servers::PATIENCE {
            // Without the field there is nothing to ask the quota service about.
            if reqwest::get(format!("http://{}/", self.closed)).await.is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        panic!("envoy does not answer: {log}");
    }

    async fn ask(&self, user: &str) -> Response {
        Self::send(self.open, user).await
    }

    async fn ask_closed(&self, user: &str) -> Response {
        Self::send(self.closed, user).await
    }

    async fn send(address: SocketAddr, user: &str) -> Response {
        let request =
            reqwest::Client::new().get(format!("http://{address}/")).header("x-user", user);
        request.send().await.expect("envoy answers")
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        // A line tells the watcher that all is well.
        if let Some(stdin) = &mut self.child.stdin {
            let _ = stdin.write_all(b"\n");
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// The program: what `ENVOY` says, or on the `PATH`, or where `tests/install-servers` puts it.
fn program() -> PathBuf {
    if let Some(path) = env::var_os("ENVOY") {
        return path.into();
    }
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/servers/envoy");
    env::split_paths(&env::var_os("PATH").unwrap_or_default())
        .map(|folder| folder.join("envoy"))
        .chain([installed])
        .find(|path| path.is_file())
        .expect("envoy is missing: `bash tests/install-servers` installs it under target/servers")
}

/// None of those that outgoing connections get: by the time Envoy has started, one of them may have it.
fn free_port() -> SocketAddr {
    ([127, 0, 0, 1], servers::free_port()).into()
}

fn listener(address: SocketAddr, deny: bool) -> String {
    format!(
        r#"
  - address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: edge
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match: {{ prefix: "/" }}
                route:
                  cluster: upstream
                  rate_limits:
                  - actions: [{{ request_headers: {{ header_name: x-user, descriptor_key: user }} }}]
          http_filters:
          - name: envoy.filters.http.ratelimit
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimit
              domain: edge
              timeout: 60s
              failure_mode_deny: {deny}
              enable_x_ratelimit_headers: DRAFT_VERSION_03
              rate_limit_service:
                transport_api_version: V3
                grpc_service:
                  envoy_grpc: {{ cluster_name: quota }}
                  initial_metadata: [{{ key: authorization, value: "Bearer let-me-in" }}]
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
"#,
        port = address.port(),
    )
}

fn cluster(name: &str, address: SocketAddr, grpc: bool) -> String {
    let http2 = r#"
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: { http2_protocol_options: {} }
"#;
    format!(
        r#"
  - name: {name}
    type: STATIC
    load_assignment:
      cluster_name: {name}
      endpoints:
      - lb_endpoints:
        - endpoint:
            address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }}
{options}"#,
        port = address.port(),
        options = if grpc { http2 } else { "" },
    )
}

fn field<'r>(response: &'r Response, name: &str) -> Option<&'r str> {
    response.headers().get(name).map(|value| value.to_str().expect("text"))
}

#[tokio::test(flavor = "multi_thread")]
async fn envoy_lets_pass_what_is_within_the_limit_and_answers_429_above_it() {
    let (service, clock) = service(RULES);
    let tokens = BearerTokens::new(["let-me-in"]);
    let server = RateLimitServer::new(service.clone()).tokens(tokens);
    let envoy = Envoy::asking(serve(server).await).await;

    for left in ["2", "1", "0"] {
        let response = envoy.ask("alice").await;
        assert_eq!(response.status(), StatusCode::OK);
        // Envoy's own fields, ours to the caller, and ours to the upstream.
        assert_eq!(field(&response, "x-ratelimit-remaining"), Some(left));
        assert_eq!(field(&response, "x-ratelimit-reset"), Some("60"));
        let expected = format!("\"per-user\";r={left};t=60");
        assert_eq!(field(&response, "ratelimit"), Some(&*expected));
        assert_eq!(response.text().await.expect("a body"), format!("{left} left"));
    }
    let refused = envoy.ask("alice").await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(field(&refused, "x-envoy-ratelimited"), Some("true"));
    assert_eq!(field(&refused, "x-ratelimit-limit"), Some("3, 3;w=60;name=\"per-user\""));
    assert_eq!(field(&refused, "x-ratelimit-remaining"), Some("0"));
    assert_eq!(field(&refused, "ratelimit"), Some("\"per-user\";r=0;t=60"));
    assert_eq!(field(&refused, "content-type"), Some("application/problem+json"));
    let problem: serde_json::Value = refused.json().await.expect("a problem");
    assert_eq!(problem["violated-policies"], serde_json::json!(["per-user"]));
    assert_eq!(envoy.ask_closed("alice").await.status(), StatusCode::TOO_MANY_REQUESTS);

    // Others are not concerned, unlimited ones never are, and a shadow refuses nobody.
    assert_eq!(envoy.ask("bob").await.status(), StatusCode::OK);
    for user in ["root", "shadow"] {
        for _ in 0..4 {
            assert_eq!(envoy.ask(user).await.status(), StatusCode::OK);
        }
    }
    let counts = service.rules().counts();
    let shadow = counts.iter().find(|counts| counts.rule == "edge/user=shadow");
    assert_eq!(shadow.map(|counts| (counts.admitted, counts.shadowed)), Some((1, 3)));

    // A leaky bucket lets the second wait for its turn, at Envoy's side too.
    for _ in 0..2 {
        assert_eq!(envoy.ask("shaped").await.status(), StatusCode::OK);
    }

    // A higher limit is in force at once, and what was used stays used.
    service.set_rules(
        RULES.replace("requests_per_unit = 3", "requests_per_unit = 5").parse().expect("rules"),
    );
    let response = envoy.ask("alice").await;
    assert_eq!(
        (response.status(), field(&response, "x-ratelimit-remaining")),
        (StatusCode::OK, Some("1"))
    );

    // And the next minute is a new one.
    clock.advance(Duration::from_secs(60));
    let response = envoy.ask("alice").await;
    assert_eq!(field(&response, "x-ratelimit-remaining"), Some("4"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_decided_is_envoys_decision() {
    let broken = QuotaService::new(RULES.parse().expect("rules"), Broken);
    let envoy = Envoy::asking(serve(RateLimitServer::new(broken)).await).await;
    // An answer with the overall code UNKNOWN would pass both.
    assert_eq!(envoy.ask("alice").await.status(), StatusCode::OK);
    assert_eq!(envoy.ask_closed("alice").await.status(), StatusCode::INTERNAL_SERVER_ERROR);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_token_envoy_is_told_nothing() {
    let (service, _) = service(RULES);
    let tokens = BearerTokens::new(["another"]);
    let server = RateLimitServer::new(service).tokens(tokens);
    let envoy = Envoy::asking(serve(server).await).await;
    for _ in 0..5 {
        assert_eq!(envoy.ask("alice").await.status(), StatusCode::OK);
        assert_eq!(envoy.ask_closed("alice").await.status(), StatusCode::INTERNAL_SERVER_ERROR);
    }
}

/// A store that is out of reach.
#[derive(Clone)]
pub(crate) struct Broken;

type Failed<T> = std::future::Ready<Result<T, BackendError>>;

impl Backend<Plan> for Broken {
    type Decide = Failed<Decision>;
    type Settle = Failed<()>;

    fn decide(&self, _: &Plan, _: &Key, _: &Demand) -> MaybeReady<Self::Decide> {
        MaybeReady::ready(Err(BackendError::new(BackendErrorKind::Unreachable)))
    }

    fn settle(&self, _: &Plan, _: &Key, _: &Charge, _: Cost) -> MaybeReady<Self::Settle> {
        MaybeReady::ready(Err(BackendError::new(BackendErrorKind::Unreachable)))
    }
}
