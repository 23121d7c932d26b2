//! Encrypted connections. The certificates are of an authority that nobody else knows, whose key is
//! gone: they are good for a server of these tests and nothing else.

use std::{collections::HashMap, path::Path, time::Duration};

use redis::{Client, RedisConnectionInfo, TlsCertificates};
use tokio::time::Instant;
use tower_quota::{
    BackendError, BackendErrorKind, Cost, Decision, Key, Limiter, PolicyName,
    algorithm::TokenBucket,
    backend::redis::{Cluster, Redis, RedisBuilder, Sentinel, Server, Source},
};

use super::{
    bucket,
    privileges::least_privileges,
    servers::{self, Flavor, Standalone, free_port},
};

/// A server that has an encrypted port, too.
struct Encrypted {
    server: Standalone,
    port: u16,
}

fn file(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/redis_faults/tls");
    folder.join(name).display().to_string()
}

impl Encrypted {
    fn start() -> Self {
        Self::start_with(&[])
    }

    fn start_with(arguments: &[&str]) -> Self {
        let port = free_port();
        let (tls_port, authority) = (port.to_string(), file("authority.pem"));
        let (certificate, key) = (file("server.pem"), file("server.key"));
        let encrypted = [
            "--tls-port",
            &tls_port,
            "--tls-cert-file",
            &certificate,
            "--tls-key-file",
            &key,
            "--tls-ca-cert-file",
            &authority,
            "--tls-auth-clients",
            "no",
        ];
        let arguments: Vec<_> = encrypted.iter().chain(arguments).copied().collect();
        Self { server: Standalone::start_with(Flavor::Redis, &arguments), port }
    }

    fn url(&self, user: &str, database: u8) -> String {
        format!("rediss://{user}localhost:{}/{database}", self.port)
    }
}

fn limiter<S: Source>(server: S) -> Limiter<TokenBucket, Redis<TokenBucket, S>> {
    let redis = RedisBuilder::new(server, PolicyName::from_static("tls"))
        .prefix(PolicyName::from_static("ours"))
        .timeout(Duration::from_secs(10))
        .build();
    Limiter::new(bucket(), redis)
}

fn certificates() -> TlsCertificates {
    let root_cert = include_bytes!("tls/authority.pem").to_vec();
    TlsCertificates { client_tls: None, root_cert: Some(root_cert) }
}

/// As the guide says it.
fn trusting(url: &str) -> Server {
    let client = Client::build_with_tls(url, certificates()).expect("a URL, and a certificate");
    Server::open(client.get_connection_info().clone()).expect("a server")
}

async fn take<S: Source>(server: S) -> Result<Decision, BackendError> {
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
    assert!(begun.elapsed() < Duration::from_secs(30), "no request hangs");
    assert_eq!(encrypted.server.calls_of("evalsha"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encrypted_cluster_decides_by_an_authority_of_its_own() {
    let bus = free_port().to_string();
    let encrypted = Encrypted::start_with(&[
        "--cluster-enabled",
        "yes",
        "--cluster-announce-ip",
        "127.0.0.1",
        "--cluster-port",
        &bus,
        "--tls-cluster",
        "yes",
    ]);
    let server = &encrypted.server;
    server.ask::<()>(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    servers::until("it serves", || {
        let info: String = server.ask(&["CLUSTER", "INFO"]);
        info.contains("cluster_state:ok").then_some(())
    });
    let url = encrypted.url("", 0);
    let source = Cluster::encrypted([url.as_str()], HashMap::new(), &certificates());
    assert!(take(source.expect("a URL")).await.expect("it decides").is_allowed());
    let error = take(Cluster::open([url]).expect("a URL")).await.expect_err("nobody trusts it");
    assert_eq!(error.kind(), BackendErrorKind::Unreachable);
    let open = Cluster::encrypted([server.url()], HashMap::new(), &certificates());
    assert!(open.is_err(), "its URL says that it is not encrypted");
}

#[tokio::test(flavor = "multi_thread")]
async fn encrypted_sentinels_lead_to_a_server_that_is_encrypted_too() {
    let encrypted = Encrypted::start();
    encrypted.server.acl_set_user("quota", "on >right ~* +@all");
    let port = free_port();
    let settings = format!(
        "tls-port {port}\n\
         tls-cert-file {}\n\
         tls-key-file {}\n\
         tls-ca-cert-file {}\n\
         tls-auth-clients no\n\
         tls-replication yes\n\
         sentinel monitor quota 127.0.0.1 {} 1\n",
        file("server.pem"),
        file("server.key"),
        file("authority.pem"),
        encrypted.port,
    );
    let sentinel = servers::Server::start_sentinel(Flavor::Redis, &settings);
    // As in `Sentinel::start`.
    sentinel.ask::<()>(&["SENTINEL", "DEBUG", "tilt-trigger", "600000"]);
    servers::until("the sentinel has found it", || {
        sentinel.try_ask::<String>(&["SENTINEL", "CKQUORUM", "quota"]).ok()
    });
    let login = RedisConnectionInfo::default().set_username("quota").set_password("right");
    for url in [format!("rediss://localhost:{port}"), sentinel.url()] {
        let source = Sentinel::encrypted([url], "quota", &login, &certificates());
        assert!(take(source.expect("a URL")).await.expect("it decides").is_allowed());
    }
    // It is not spoken to in the clear because nobody said so.
    let url = format!("rediss://localhost:{port}");
    let error = take(Sentinel::open([url], "quota", &login).expect("a URL")).await;
    assert!(error.is_err(), "nobody trusts it");
}
