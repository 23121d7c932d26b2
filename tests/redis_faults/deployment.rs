//! The servers that we tell people to start.

use std::{
    net::{Ipv4Addr, TcpListener},
    time::Duration,
};

use redis::RedisConnectionInfo;
use tower_quota::{
    BackendErrorKind, Key, Limiter, PolicyName, Quota,
    algorithm::TokenBucket,
    backend::redis::{Cluster, Eviction, Redis, RedisBuilder, Sentinel, Source},
};

use super::{
    checks::check,
    servers::{Flavor, Standalone},
};

/// The quoted words of the command in the compose file, without the program.
fn arguments_of_the_compose_file() -> Vec<&'static str> {
    let file = include_str!("../../examples/shared_quota/compose.yaml");
    let (_, list) = file.split_once("command: [").expect("it has a command");
    let (list, _) = list.split_once("\n    ]").expect("the list ends");
    let lines = list.lines().filter(|line| !line.trim_start().starts_with('#'));
    let mut words = lines.flat_map(|line| line.split('"').skip(1).step_by(2));
    assert_eq!(words.next(), Some("redis-server"));
    words.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_of_the_compose_file_decides_and_keeps_its_keys() {
    for flavor in Flavor::ALL {
        let server = Standalone::start_with(flavor, &arguments_of_the_compose_file());
        let checked = check(&server.url_of("quota", "change-me")).await.expect("it decides");
        assert_eq!(checked.eviction, Eviction::Unknown, "its user may not ask");
        let checked = check(&server.url()).await.expect("it decides");
        assert_eq!(checked.eviction, Eviction::Never);
        let setting = |name| server.ask::<Vec<String>>(&["CONFIG", "GET", name])[1].clone();
        assert_eq!(setting("maxmemory"), (256 << 20).to_string());
        assert_eq!(
            (setting("appendonly"), setting("appendfsync")),
            ("yes".into(), "everysec".into())
        );
        assert_eq!(setting("save"), "");
        let forbidden = server.url_of("quota", "another");
        assert_eq!(check(&forbidden).await, Err(BackendErrorKind::Unauthorized));
    }
}

/// The servers that a shell block of the guide starts, on ports of this process's own.
struct OfTheGuide {
    base: u16,
    ports: Vec<u16>,
}

impl OfTheGuide {
    /// Runs the block in which `part` stands.
    fn start(part: &str) -> Self {
        let guide = include_str!("../../src/guide/redis.md");
        let blocks = guide.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
        let block = blocks.into_iter().find(|block| block.contains(part)).expect("it is there");
        let numbers = block.split(|letter: char| !letter.is_ascii_digit());
        let mut named: Vec<u16> = numbers
            .filter(|number| number.len() == 4 && number.starts_with("70"))
            .map(|number| number.parse().expect("a port"))
            .collect();
        named.sort_unstable();
        named.dedup();
        let base = free_base(&named);
        let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
        let folder = folder.join(format!("guide-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let mut script = block.replace("/tmp", &folder.display().to_string());
        let mut ports = Vec::new();
        for port in named {
            ports.push(base + (port - 7_000));
            script = script.replace(&port.to_string(), &(base + (port - 7_000)).to_string());
        }
        let servers = Self { base, ports };
        // Where the tests have it installed, unless the machine has it.
        let installed = concat!(env!("CARGO_MANIFEST_DIR"), "/target/servers");
        let path = std::env::var("PATH").unwrap_or_default();
        let done = std::process::Command::new("bash")
            .args(["-euc", &script])
            .current_dir(&folder)
            .env("PATH", format!("{path}:{installed}"))
            .stdin(std::process::Stdio::null())
            .output()
            .expect("bash runs");
        assert!(done.status.success(), "{script}\n{}", String::from_utf8_lossy(&done.stderr));
        servers
    }

    fn url(&self, port: u16) -> String {
        format!("redis://127.0.0.1:{}", self.base + (port - 7_000))
    }
}

impl Drop for OfTheGuide {
    fn drop(&mut self) {
        for port in &self.ports {
            let port = port.to_string();
            let mut end = std::process::Command::new("redis-cli");
            let _ended = end.args(["-p", &port, "shutdown", "nosave"]).output();
        }
    }
}

/// What stands for 7000 where nobody listens on any of these ports yet: below those of outgoing
/// connections, the ones of the cluster's bus too.
fn free_base(named: &[u16]) -> u16 {
    let is_free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    // Test processes that run at the same time begin at different places.
    let places = (0..90).map(|number| (std::process::id() + number) % 90);
    let mut bases = places.map(|place| 12_000 + 100 * u16::try_from(place).expect("it is small"));
    let base = bases.find(|base| {
        let mut ports = named.iter().map(|port| base + (port - 7_000));
        ports.all(|port| is_free(port) && is_free(port + 10_000))
    });
    base.expect("some ports are free")
}

/// Whether it decides before long: a cluster has to find itself, and sentinels each other.
async fn decides<S: Source>(source: S) {
    let redis: Redis<TokenBucket, S> =
        RedisBuilder::new(source, PolicyName::from_static("guide")).build();
    let limiter = Limiter::new(TokenBucket::new(Quota::per_day(10)), redis);
    let mut last = None;
    for _ in 0..300 {
        match limiter.decide(&Key::GLOBAL, 1).await {
            Ok(decision) => return assert!(decision.is_allowed()),
            Err(error) => last = Some(error),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("it does not decide: {last:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cluster_of_the_guide_decides() {
    let servers = OfTheGuide::start("--cluster create");
    decides(Cluster::open([servers.url(7_002)]).expect("a URL")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sentinels_of_the_guide_lead_to_a_server_that_decides() {
    let servers = OfTheGuide::start("sentinel monitor");
    let urls = [servers.url(7_021)];
    decides(Sentinel::open(urls, "quota", &RedisConnectionInfo::default()).expect("a URL")).await;
}
