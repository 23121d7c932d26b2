//! Every source of connections under exactly the rights that the guide prints for it.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use deadpool_redis::{Runtime, cluster, sentinel};
use redis::RedisConnectionInfo;
use tower_quota::{
    BackendErrorKind, Cost, Demand, Key, Limiter, PolicyName, Quota,
    algorithm::TokenBucket,
    backend::{
        Backend as _,
        redis::{Cluster, Redis, RedisBuilder, Sentinel, Server, Source, source::Shared},
    },
};

use super::{
    bucket,
    servers::{self, Flavor},
    sources::{patient_manager, patient_pool},
};

const GUIDE: &str = include_str!("../../src/guide/redis.md");

/// The rights behind the command that begins with `command`, without the password.
fn printed(command: &str) -> &'static str {
    let (_, rest) =
        GUIDE.split_once(command).unwrap_or_else(|| panic!("no {command} in the guide"));
    rest.lines().next().expect("there is a line")
}

/// What every user needs.
pub(crate) fn least_privileges() -> &'static str {
    printed("ACL SETUSER quota on >PASSWORD ")
}

/// What a user of these connections needs besides, by the guide's table.
fn besides(connections: &str) -> Vec<String> {
    let (_, table) = GUIDE.split_once("| connections | rights besides |\n").expect("the table");
    let mut rows = table.lines().take_while(|line| line.starts_with('|'));
    let row = rows.find(|row| row.contains(connections));
    let row = row.unwrap_or_else(|| panic!("no row of {connections}")).replace("\\|", "/");
    let (_, rights) = row.trim_end_matches([' ', '|']).rsplit_once('|').expect("two columns");
    let rights = rights.trim().trim_matches('`').split(' ').filter(|it| it.starts_with('+'));
    rights.map(|right| right.replace('/', "|")).collect()
}

fn rules(connections: &str) -> String {
    let besides: String = besides(connections).iter().map(|right| format!(" {right}")).collect();
    format!("on >right {}{besides}", least_privileges())
}

fn limiter<S: Source>(source: S) -> Limiter<TokenBucket, Redis<TokenBucket, S>> {
    let redis = RedisBuilder::new(source, PolicyName::from_static("rights"))
        .timeout(Duration::from_secs(10))
        .build();
    Limiter::new(bucket(), redis)
}

/// Takes twice, all that there is, more than that, and more than a limit that has fallen has; and checks.
async fn works<S: Source>(source: S) {
    // A key of its own for each source.
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let limiter = limiter(source);
    for _ in 0..2 {
        let decision = limiter.decide(&Key::from("alice"), Cost::ONE).await.expect("it decides");
        assert!(decision.is_allowed());
    }
    let (all, fallen) = (Demand::exactly(Cost::new(100)), TokenBucket::new(Quota::per_hour(7)));
    let key = Key::from(NUMBER.fetch_add(1, Ordering::Relaxed));
    let decide = async |bucket: &TokenBucket, demand: &Demand| {
        limiter.backend().decide(bucket, &key, demand).await.expect("it decides")
    };
    assert!(decide(&bucket(), &all).await.is_allowed());
    for bucket in [bucket(), fallen] {
        assert!(!decide(&bucket, &Demand::exactly(Cost::ONE)).await.is_allowed());
    }
    limiter.backend().check(&bucket()).await.expect("all is well");
}

async fn is_forbidden<S: Source>(source: S) {
    let decision = limiter(source).decide(&Key::from("alice"), Cost::ONE).await;
    assert_eq!(decision.map_err(|error| error.kind()), Err(BackendErrorKind::Unauthorized));
}

fn login() -> RedisConnectionInfo {
    RedisConnectionInfo::default().set_username("quota").set_password("right")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_needs_what_the_guide_prints_and_nothing_besides() {
    for flavor in Flavor::ALL {
        let server = servers::Standalone::start_with(flavor, &[]);
        let url = server.url_of("quota", "right");
        for connections in ["`Server`", "`MultiplexedConnection`", "`ConnectionManager`"] {
            assert_eq!(besides(connections), [""; 0], "{connections}");
        }
        server.acl_set_user("quota", &rules("`Server`"));
        let client = redis::Client::open(url.clone()).expect("a URL");
        let connection = client
            .get_multiplexed_async_connection_with_config(&servers::patient())
            .await
            .expect("a connection");
        works(Server::open(url).expect("a URL")).await;
        works(connection.clone()).await;
        works(Shared(connection)).await;
        let manager = client.get_connection_manager_with_config(patient_manager()).await;
        works(manager.expect("a connection")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_keeps_its_connections_with_the_rights_of_the_guide() {
    const POOL: &str = "`deadpool_redis::Pool`";

    let server = servers::Standalone::start();
    let url = server.url_of("quota", "right");
    let pool = || patient_pool(&url);
    let opened = async || {
        let count = || server.info("stats")["total_connections_received"].parse::<u64>();
        let before = count().expect("a number");
        let limiter = limiter(pool());
        for _ in 0..10 {
            assert!(limiter.decide(&Key::from("bob"), Cost::ONE).await.is_ok());
        }
        // One of them asks.
        count().expect("a number") - before - 1
    };
    server.acl_set_user("quota", &rules(POOL));
    works(pool()).await;
    assert_eq!(opened().await, 1);
    for missing in besides(POOL) {
        server.acl_set_user("quota", &missing.replace('+', "-"));
        assert_eq!(opened().await, 10, "without {missing} each call opens a connection");
        server.acl_set_user("quota", &missing);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_needs_what_the_guide_prints() {
    let cluster = servers::Cluster::start(3, 0);
    let set = |rules: &str| cluster.nodes().iter().for_each(|it| it.acl_set_user("quota", rules));
    let urls: Vec<_> = cluster.nodes().iter().map(|node| node.url_of("quota", "right")).collect();
    set(&rules("`Cluster`"));
    works(Cluster::open(urls.clone()).expect("URLs")).await;
    let client = redis::cluster::ClusterClientBuilder::new(urls.clone())
        .retries(0)
        .connection_timeout(servers::PATIENCE)
        .response_timeout(servers::PATIENCE)
        .build();
    let connection = client.expect("URLs").get_async_connection().await;
    works(connection.expect("a connection")).await;
    set("reset");
    set(&rules("`deadpool_redis::cluster::Pool`"));
    let pool = cluster::Config::from_urls(urls.clone()).create_pool(Some(Runtime::Tokio1));
    works(pool.expect("a pool")).await;
    for missing in besides("`Cluster`") {
        set(&missing.replace('+', "-"));
        let limiter = limiter(Cluster::open(urls.clone()).expect("URLs"));
        assert!(limiter.decide(&Key::GLOBAL, Cost::ONE).await.is_err(), "{missing}");
    }
}

/// Sentinels that want a user of theirs, by the guide's other command, and lead to a server that wants one.
#[tokio::test(flavor = "multi_thread")]
async fn sentinels_and_what_they_lead_to_need_what_the_guide_prints() {
    let trio = servers::Sentinel::start();
    trio.nobody_takes_over_unasked();
    let rights = format!("on >other {}", printed("ACL SETUSER watcher on >OTHER "));
    trio.sentinels().iter().for_each(|it| it.acl_set_user("watcher", &rights));
    // Nobody else may ask them who the primary is.
    trio.sentinels().iter().for_each(|it| it.acl_set_user("default", "-role"));
    let set = |rules: &str| trio.servers().iter().for_each(|it| it.acl_set_user("quota", rules));
    let urls: Vec<_> = trio.sentinels().iter().map(|it| it.url_of("watcher", "other")).collect();

    set(&rules("`Sentinel`"));
    let source = || Sentinel::open(urls.clone(), "quota", &login()).expect("URLs");
    works(source()).await;
    is_forbidden(Sentinel::open(trio.urls(), "quota", &login()).expect("URLs")).await;
    for missing in besides("`Sentinel`") {
        set(&missing.replace('+', "-"));
        is_forbidden(source()).await;
        set(&missing);
    }

    set("reset");
    set(&rules("`deadpool_redis::sentinel::Pool`"));
    let node = sentinel::SentinelNodeConnectionInfo {
        tls_mode: None,
        redis_connection_info: Some(deadpool_redis::RedisConnectionInfo::from(login())),
    };
    let master = sentinel::SentinelServerType::Master;
    let pool = sentinel::Config::from_urls(urls, "quota".to_owned(), master)
        .with_node_connection_info(Some(node));
    works(pool.create_pool(Some(Runtime::Tokio1)).expect("a pool")).await;
}

/// A password and no user, as `requirepass` of a sentinel sets it.
#[tokio::test(flavor = "multi_thread")]
async fn sentinels_with_a_password_are_asked_with_it() {
    let trio = servers::Sentinel::start();
    trio.nobody_takes_over_unasked();
    let port = trio.sentinels()[0].port();
    // Those who are in stay in: the sentinels go on.
    trio.sentinels().iter().for_each(|it| it.acl_set_user("default", "resetpass >secret"));
    let open = |password: &str| {
        let url = format!("redis://:{password}@127.0.0.1:{port}");
        Sentinel::open([url], "quota", &RedisConnectionInfo::default()).expect("a URL")
    };
    works(open("secret")).await;
    is_forbidden(open("wrong")).await;
}
