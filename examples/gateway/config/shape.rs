use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    num::{NonZeroU32, NonZeroUsize},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use rustls::RootCertStore;
use serde::Deserialize;
use toml::Spanned;
use tower_quota::{Quota, backend::GuardedBuilder, deferred::Bounds, queue::Priority};

use super::text;

/// The whole file. `gateway.toml` says what each key means.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    #[serde(default)]
    pub(crate) server: Server,
    #[serde(default)]
    pub(crate) state: State,
    #[serde(default)]
    pub(crate) cache: Cache,
    #[serde(default)]
    pub(crate) deferred: Deferred,
    #[serde(default, rename = "provider")]
    pub(crate) providers: Vec<Provider>,
    #[serde(default, rename = "account")]
    pub(crate) accounts: Vec<Account>,
    #[serde(default, rename = "model")]
    pub(crate) models: Vec<Model>,
    #[serde(default, rename = "plan")]
    pub(crate) plans: Vec<Plan>,
    #[serde(default, rename = "tenant")]
    pub(crate) tenants: Vec<Tenant>,
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Server {
    pub(crate) listen: SocketAddr,
    pub(crate) page: SocketAddr,
    /// Under which operators may ask for the page, beside addresses.
    pub(crate) page_names: Vec<String>,
    #[serde(deserialize_with = "text::number")]
    pub(crate) max_connections: NonZeroUsize,
    pub(crate) max_body_bytes: usize,
    #[serde(deserialize_with = "text::timeout")]
    pub(crate) read_timeout: Duration,
    #[serde(deserialize_with = "text::timeout")]
    pub(crate) body_timeout: Duration,
    #[serde(deserialize_with = "text::timeout")]
    pub(crate) write_timeout: Duration,
    /// Bytes a second.
    pub(crate) least_rate: NonZeroU32,
    #[serde(deserialize_with = "text::duration")]
    pub(crate) drain_delay: Duration,
    #[serde(deserialize_with = "text::duration")]
    pub(crate) drain: Duration,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct State {
    /// The environment variable that holds the server's URL: it may hold a password.
    pub(crate) redis_env: Option<Spanned<String>>,
    pub(crate) instance: Option<String>,
    /// How many instances share the server: while it fails, each decides by its part.
    pub(crate) instances: u32,
    /// How long a decision may take there.
    #[serde(deserialize_with = "text::timeout")]
    pub(crate) timeout: Duration,
    #[serde(skip)]
    pub(crate) redis: Option<Secret>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Cache {
    #[serde(deserialize_with = "text::duration")]
    pub(crate) ttl: Duration,
    #[serde(deserialize_with = "text::duration")]
    pub(crate) stale_for: Duration,
    pub(crate) max_bytes: u64,
    /// Answers are on a server, for all instances: that of the state, or one of their own.
    pub(crate) shared: Option<Spanned<bool>>,
    pub(crate) redis_env: Option<Spanned<String>>,
    /// Names and answers on the server are hashed and tagged under it.
    pub(crate) secret_env: Option<Spanned<String>>,
    #[serde(skip)]
    pub(crate) server: Option<Secret>,
    #[serde(skip)]
    pub(crate) secret: Option<Secret>,
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Deferred {
    pub(crate) path: Option<PathBuf>,
    #[serde(deserialize_with = "text::duration")]
    pub(crate) expire_after: Duration,
    #[serde(deserialize_with = "text::duration")]
    pub(crate) keep: Duration,
    /// How many run at a time, in this process.
    #[serde(deserialize_with = "text::number")]
    pub(crate) concurrency: NonZeroUsize,
    /// How long one that a process has in hand is its own when it dies.
    #[serde(deserialize_with = "text::timeout")]
    pub(crate) lease: Duration,
    pub(crate) max_calls: u64,
    pub(crate) max_bytes: u64,
    /// Of one tenant for one model.
    pub(crate) max_calls_in_line: u64,
    pub(crate) max_bytes_in_line: u64,
}

/// Whose language a provider speaks.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Wire {
    OpenAi,
    Anthropic,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Provider {
    pub(crate) name: Spanned<String>,
    pub(crate) profile: Spanned<String>,
    pub(crate) base_url: Spanned<String>,
    pub(crate) speaks: Wire,
    /// The authorities that it is trusted by, in place of those that browsers trust.
    pub(crate) ca_file: Option<Spanned<PathBuf>>,
    #[serde(default = "ten_minutes", deserialize_with = "text::timeout")]
    pub(crate) timeout: Duration,
    #[serde(default = "two_minutes", deserialize_with = "text::timeout")]
    pub(crate) idle_timeout: Duration,
    #[serde(skip)]
    pub(crate) roots: Option<Arc<RootCertStore>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Account {
    pub(crate) name: Spanned<String>,
    pub(crate) provider: Spanned<String>,
    /// One key,
    pub(crate) key_env: Option<Spanned<String>>,
    /// or several, which share its limits.
    #[serde(default)]
    pub(crate) key_envs: Vec<Spanned<String>>,
    #[serde(default)]
    pub(crate) limits: BTreeMap<String, Spanned<String>>,
    /// By the model, as the provider calls it.
    #[serde(default)]
    pub(crate) model_limits: BTreeMap<Spanned<String>, BTreeMap<String, Spanned<String>>>,
    #[serde(default = "two_minutes", deserialize_with = "text::duration")]
    pub(crate) max_wait: Duration,
    #[serde(default = "a_fifth_of_a_second", deserialize_with = "text::duration")]
    pub(crate) jitter: Duration,
    #[serde(default = "a_thousand")]
    pub(crate) max_waiting: Spanned<usize>,
    pub(crate) max_waiting_per_tenant: Option<Spanned<usize>>,
    /// Nothing: as the provider is known to do.
    pub(crate) per_model: Option<Spanned<bool>>,
    /// Never none.
    #[serde(skip)]
    pub(crate) keys: Vec<Secret>,
    #[serde(skip)]
    pub(crate) quotas: Vec<(String, Quota)>,
    #[serde(skip)]
    pub(crate) model_quotas: Vec<(String, String, Quota)>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Model {
    pub(crate) name: Spanned<String>,
    pub(crate) accounts: Vec<Spanned<String>>,
    /// What the provider calls it.
    pub(crate) upstream: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Plan {
    pub(crate) name: Spanned<String>,
    #[serde(default)]
    pub(crate) priority: PriorityName,
    #[serde(default = "one")]
    pub(crate) weight: u32,
    pub(crate) requests: Option<Spanned<String>>,
    pub(crate) tokens: Option<Spanned<String>>,
    pub(crate) budget: Option<Spanned<String>>,
    #[serde(default = "thirty_seconds", deserialize_with = "text::duration")]
    pub(crate) max_wait: Duration,
    #[serde(skip)]
    pub(crate) quotas: Vec<(&'static str, usize, Quota)>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tenant {
    pub(crate) name: Spanned<String>,
    pub(crate) plan: Spanned<String>,
    pub(crate) key_env: Option<Spanned<String>>,
    pub(crate) key_sha256: Option<Spanned<String>>,
    #[serde(default)]
    pub(crate) models: Vec<Spanned<String>>,
    #[serde(skip)]
    pub(crate) hash: [u8; 32],
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PriorityName {
    Low,
    #[default]
    Normal,
    High,
}

/// A text that no log shows.
#[derive(Clone, Default, Eq, PartialEq)]
pub(crate) struct Secret(pub(super) String);

impl Secret {
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

impl State {
    /// Whether both mean the same, wherever it stands in the file.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let of = |state: &Self| {
            let Self { redis, instance, instances, timeout, .. } = state.clone();
            (redis, instance, instances, timeout)
        };
        of(self) == of(other)
    }
}

impl Cache {
    /// Whether both keep answers at one place.
    pub(crate) fn is_at(&self, other: &Self) -> bool {
        let of = |cache: &Self| (cache.max_bytes, cache.server.clone(), cache.secret.clone());
        of(self) == of(other)
    }
}

impl Model {
    /// What the provider calls it.
    pub(crate) fn at_provider(&self) -> &str {
        self.upstream.as_deref().unwrap_or(self.name.get_ref())
    }
}

impl From<PriorityName> for Priority {
    fn from(name: PriorityName) -> Self {
        match name {
            PriorityName::Low => Self::LOW,
            PriorityName::Normal => Self::NORMAL,
            PriorityName::High => Self::HIGH,
        }
    }
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: ([127, 0, 0, 1], 8080).into(),
            page: ([127, 0, 0, 1], 8081).into(),
            page_names: Vec::new(),
            max_connections: NonZeroUsize::new(1_024).unwrap_or(NonZeroUsize::MIN),
            max_body_bytes: 8 << 20,
            read_timeout: Duration::from_secs(10),
            body_timeout: two_minutes(),
            write_timeout: thirty_seconds(),
            least_rate: NonZeroU32::new(4_096).unwrap_or(NonZeroU32::MIN),
            drain_delay: Duration::from_secs(5),
            drain: thirty_seconds(),
        }
    }
}

impl Default for State {
    fn default() -> Self {
        let timeout = GuardedBuilder::DEFAULT_TIMEOUT;
        Self { redis_env: None, instance: None, instances: 1, timeout, redis: None }
    }
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            ttl: Duration::ZERO,
            stale_for: Duration::ZERO,
            max_bytes: 64 << 20,
            shared: None,
            redis_env: None,
            secret_env: None,
            server: None,
            secret: None,
        }
    }
}

impl Default for Deferred {
    fn default() -> Self {
        let (day, bounds) = (Duration::from_secs(86_400), Bounds::DEFAULT);
        Self {
            path: None,
            expire_after: day,
            keep: day,
            concurrency: NonZeroUsize::new(16).unwrap_or(NonZeroUsize::MIN),
            lease: thirty_seconds(),
            max_calls: bounds.requests,
            max_bytes: bounds.bytes,
            max_calls_in_line: bounds.owner_requests,
            max_bytes_in_line: bounds.owner_bytes,
        }
    }
}

fn one() -> u32 {
    1
}

fn a_fifth_of_a_second() -> Duration {
    Duration::from_millis(200)
}

fn a_thousand() -> Spanned<usize> {
    Spanned::new(0..0, 1_000)
}

fn thirty_seconds() -> Duration {
    Duration::from_secs(30)
}

fn ten_minutes() -> Duration {
    Duration::from_secs(600)
}

fn two_minutes() -> Duration {
    Duration::from_secs(120)
}
