//! The server's own settings, apart from the rules: they are read once.

use std::{
    env, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
use tower_quota::quota_service::BearerTokens;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    pub(crate) http: SocketAddr,
    pub(crate) grpc: SocketAddr,
    pub(crate) rules: PathBuf,
    #[serde(default = "one")]
    reload_every_secs: u64,
    /// The environment variable that has the tokens, with commas between.
    #[serde(default)]
    tokens_from: Option<String>,
    #[serde(default)]
    pub(crate) grpc_needs_token: bool,
    #[serde(default)]
    pub(crate) redis: Option<Redis>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Redis {
    /// The environment variable that has the URL: there may be a password in it.
    url_from: String,
    /// How many quota servers there are at the most. Should Redis fail, each decides by so small
    /// a part of every limit.
    pub(crate) servers: u32,
}

const fn one() -> u64 {
    1
}

impl Settings {
    pub(crate) fn read(path: &str) -> Result<Self, String> {
        let text = fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
        let mut settings: Self =
            toml::from_str(&text).map_err(|error| format!("{path}: {error}"))?;
        // Beside the file that names it.
        let folder = Path::new(path).parent().unwrap_or_else(|| Path::new(""));
        settings.rules = folder.join(&settings.rules);
        if settings.grpc_needs_token && settings.tokens_from.is_none() {
            let remedy = "say in `tokens_from` where the tokens are, or remove it";
            return Err(format!("{path}: `grpc_needs_token`: {remedy}"));
        }
        Ok(settings)
    }

    pub(crate) const fn reload_every(&self) -> Duration {
        Duration::from_secs(if self.reload_every_secs == 0 { 1 } else { self.reload_every_secs })
    }

    pub(crate) fn tokens(&self) -> Result<Option<BearerTokens>, String> {
        let Some(name) = &self.tokens_from else { return Ok(None) };
        let tokens = variable("tokens_from", name)?;
        Ok(Some(BearerTokens::new(tokens.split(',').map(str::trim))))
    }
}

impl Redis {
    pub(crate) fn url(&self) -> Result<String, String> {
        variable("redis.url_from", &self.url_from)
    }
}

fn variable(key: &str, name: &str) -> Result<String, String> {
    let value = env::var(name).ok().filter(|value| !value.is_empty());
    value.ok_or_else(|| format!("`{key}`: set the environment variable {name}, or remove the key"))
}
