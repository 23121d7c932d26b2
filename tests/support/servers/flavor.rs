//! Which server, and where its program is.

use std::{
    env,
    path::{Path, PathBuf},
};

/// The two servers that speak the protocol.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Flavor {
    /// `redis-server`.
    Redis,
    /// `valkey-server`.
    Valkey,
}

impl Flavor {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Redis, Self::Valkey];

    /// The program: what the environment says (`REDIS_SERVER`, `VALKEY_SERVER`), or on the `PATH`, or
    /// where `tests/run` puts it.
    ///
    /// # Panics
    ///
    /// If there is none, with the command that installs it.
    pub(super) fn program(self) -> PathBuf {
        if let Some(path) = env::var_os(self.variable()).filter(|path| !path.is_empty()) {
            let path = PathBuf::from(path);
            assert!(path.is_file(), "{} = {}: no such file", self.variable(), path.display());
            return path;
        }
        let installed =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("target/servers").join(self.name());
        env::split_paths(&env::var_os("PATH").unwrap_or_default())
            .map(|folder| folder.join(self.name()))
            .chain([installed])
            .find(|path| path.is_file())
            .unwrap_or_else(|| {
                panic!(
                    "{} is missing. `bash tests/install-servers` installs it under target/servers \
                     (or set {} to its path)",
                    self.name(),
                    self.variable(),
                )
            })
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Redis => "redis-server",
            Self::Valkey => "valkey-server",
        }
    }

    const fn variable(self) -> &'static str {
        match self {
            Self::Redis => "REDIS_SERVER",
            Self::Valkey => "VALKEY_SERVER",
        }
    }
}
