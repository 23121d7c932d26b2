//! What the gateway costs: against going direct, against a reverse proxy that does nothing, and against
//! LiteLLM's proxy, which it installs. And what it keeps after a long load. Prints Markdown.
//!
//! `cargo bench --all-features --bench gateway`, three minutes; for a moment only, without LiteLLM: add
//! `-- --quick`. `-- --without-litellm` leaves it out of the rest too. `-- --soak --minutes 20` is the load.
#![expect(clippy::print_stdout, reason = "a program that prints tables")]

mod bare;
mod callers;
mod litellm;
mod load;
mod provider;
#[path = "../../tests/support/servers/mod.rs"]
mod servers;
mod soak;
#[path = "../../tests/gateway/support.rs"]
#[allow(dead_code, reason = "the tests of the gateway use the rest of it")]
mod support;
mod table;

use std::{env, net::SocketAddr, time::Duration};

use self::{
    bare::Bare,
    callers::{Kind, Run},
    litellm::LiteLlm,
    servers::Standalone,
    support::{Gateway, SECRETS},
    table::Rounds,
};

/// A tenant of the gateway, and LiteLLM's master.
const KEY: &str = SECRETS[2];

fn main() {
    let arguments: Vec<_> = env::args().collect();
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    if let Some(provider) = bare::provider() {
        return runtime.block_on(bare::serve(provider));
    }
    // Without `--bench` it is cargo's test run.
    let is_quick = !has("--bench") || has("--quick");
    let minutes = arguments.iter().skip_while(|argument| *argument != "--minutes").nth(1);
    let minutes = minutes.map_or(1, |minutes| minutes.parse().expect("whole minutes"));
    runtime.block_on(async {
        if is_quick {
            compare(Duration::from_millis(200), 1, false).await;
            soak::run(soak::Extent::QUICK).await;
        } else if has("--soak") {
            soak::run(soak::Extent::minutes(minutes)).await;
        } else {
            compare(Duration::from_millis(1_500), 7, !has("--without-litellm")).await;
        }
    });
}

/// Runs all ways in turn, round after round, and prints the medians of what each round says.
async fn compare(time: Duration, rounds: u32, has_litellm: bool) {
    let provider = provider::start();
    let redis = Standalone::start();
    let bare = Bare::start(provider);
    let gateway = Gateway::start(&configuration(provider, "")).await;
    let shared = configuration(provider, "[state]\nredis_env = \"REDIS_URL\"");
    let shared = Gateway::start_with(&shared, &[("REDIS_URL", &redis.url())]).await;
    let litellm = match has_litellm {
        true => Some(LiteLlm::start(provider, KEY).await),
        false => None,
    };
    let mut ways: Vec<(&str, SocketAddr)> = vec![
        ("direct", provider),
        ("a bare proxy", bare.address),
        ("the gateway", gateway.tenants),
        ("the gateway, on Redis", shared.tenants),
    ];
    ways.extend(litellm.as_ref().map(|litellm| ("LiteLLM's proxy", litellm.address)));
    for kind in [Kind::Plain, Kind::Streaming] {
        let mut alone: Vec<_> = ways.iter().map(|_| Rounds::default()).collect();
        let mut crowded: Vec<_> = ways.iter().map(|_| Rounds::default()).collect();
        for _ in 0..rounds {
            for (way, (_, address)) in ways.iter().enumerate() {
                alone[way].push(Run::of(*address, KEY, kind, 1, time).await);
                crowded[way].push(Run::of(*address, KEY, kind, CROWD, time).await);
            }
        }
        let names = ways.iter().map(|(name, _)| *name);
        table::print(kind, &names.collect::<Vec<_>>(), &alone, &crowded);
    }
}

/// One model of one account, whose limits nobody reaches, and one tenant whose limits neither.
fn configuration(provider: SocketAddr, more: &str) -> String {
    format!(
        r#"
[server]
listen = "127.0.0.1:0"
page = "127.0.0.1:0"

{more}

[[provider]]
name = "open"
profile = "openai"
speaks = "openai"
base_url = "http://{provider}"

[[account]]
name = "one"
provider = "open"
key_env = "ACCOUNT_ONE"
limits = {{ requests = "1_000_000_000 per minute", tokens = "1_000_000_000_000 per minute" }}

[[model]]
name = "gpt"
accounts = ["one"]

[[plan]]
name = "all"
requests = "100_000_000 per minute"
tokens = "100_000_000_000 per minute"

[[tenant]]
name = "alice"
plan = "all"
key_env = "TENANT_ALICE"
"#
    )
}

/// Callers at the same time.
pub(crate) const CROWD: usize = 32;
