//! Encrypted connections. The certificates are of an authority that nobody else knows, whose key is
//! gone: they are good for a server of these tests and nothing else.

use std::{net::TcpListener, path::Path, time::Duration};

use redis::{Client, TlsCertificates};
use tokio::time::Instant;
use tower_quota::{
    BackendError, BackendErrorKind, Cost, Decision, Key, Limiter, PolicyName,
    algorithm::TokenBucket,
    backend::redis::{Redis, RedisBuilder, Server},
};

use super::{
    bucket,
    checks::least_privileges,
    servers::{Flavor, Standalone},
};

/// A server that has an encrypted port, too.
struct Encrypted {
    server: Standalone,
    port: u16,
}

impl Encrypted {
    fn start() -> Self {
        let file = |name: &str| {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/redis_faults/tls");
            folder.join(name).display().to_string()
        };
        let free = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
        let port = free.expect("a free port").port();
        let (certificate, key) = (file("server.pem"), file("server.key"));
        let server = Standalone::start_with(
            Flavor::Redis,
            &[
                "--tls-port",
                &port.to_string(),
                "--tls-cert-file",
                &certificate,
                "--tls-key-file",
                &key,
                "--tls-auth-clients",
                "no",
            ],
        );
        Self { server, port }
    }

    fn url(&self, user: &str, database: u8) -> String {
        format!("rediss://{user}localhost:{}/{database}", self.port)
    }
}

fn limiter(server: Server) -> Limiter<TokenBucket, Redis<TokenBucket, Server>> {
    let redis = RedisBuilder::new(server, PolicyName::from_static("tls"))
        .prefix(PolicyName::from_static("ours"))
        .timeout(Duration::from_secs(5))
        .build();
    Limiter::new(bucket(), redis)
}

/// As the guide says it.
fn trusting(url: &str) -> Server {
    let root_cert = include_bytes!("tls/authority.pem").to_vec();
    let certificates = TlsCertificates { client_tls: None, root_cert: Some(root_cert) };
    let client = Client::build_with_tls(url, certificates).expect("a URL, and a certificate");
    Server::open(client.get_connection_info().clone()).expect("a server")
}

async fn take(server: Server) -> Result<Decision, BackendError> {
    limiter(server).decide(&Key::from("alice"), Cost::ONE).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encrypted_server_decides_for_a_user_in_a_database_under_a_prefix() {
    let encrypted = Encrypted::start();
    let privileges = least_privileges().replace("~tq:*", "~ours:*");
    encrypted.server.acl_set_user("quota", &format!("on >right {privileges}"));
    let url = encrypted.url("quota:right@", 2);
    let forbidden = take(trusting(&url)).await.expect_err("it may not choose a database");
    assert_eq!(forbidden.kind(), BackendErrorKind::Unauthorized);
    assert!(include_str!("../../src/guide/redis.md").contains("`+select`"), "the guide says so");
    encrypted.server.acl_set_user("quota", "+select");
    let left = take(trusting(&url)).await.map(|decision| decision.snapshot().remaining);
    assert_eq!(left.expect("it decides"), 99);
    let spaces = encrypted.server.info("keyspace");
    assert_eq!(spaces.keys().collect::<Vec<_>>(), ["db2"], "and in no other");
    let wrong = take(trusting(&encrypted.url("quota:wrong@", 2))).await;
    assert_eq!(wrong.expect_err("a wrong password").kind(), BackendErrorKind::Unauthorized);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_not_trusted_is_told_as_such() {
    let encrypted = Encrypted::start();
    let begun = Instant::now();
    let server = Server::open(encrypted.url("", 0)).expect("a URL");
    let error = take(server).await.expect_err("nobody knows its authority");
    assert_eq!(error.kind(), BackendErrorKind::Unreachable);
    let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
    assert!(source.to_lowercase().contains("certificate"), "{source}");
    assert!(begun.elapsed() < Duration::from_secs(20), "no request hangs");
    assert_eq!(encrypted.server.calls_of("evalsha"), 0);
}
