//! One server by itself.

use std::{ops::Deref, sync::OnceLock};

use super::{Flavor, Server};

/// One server by itself; see [`Server`] for what it can do.
#[derive(Debug)]
pub struct Standalone {
    server: Server,
}

impl Standalone {
    /// Starts a Redis server. It takes about 30 ms.
    pub fn start() -> Self {
        Self::start_with(Flavor::Redis, &[])
    }

    /// Starts a server with settings of its own: `["--maxmemory", "10mb"]`.
    pub fn start_with(flavor: Flavor, arguments: &[&str]) -> Self {
        Self { server: Server::start(flavor, arguments) }
    }

    /// The one that all tests of this process share. Use a [`unique_prefix`](super::unique_prefix),
    /// and no faults.
    pub fn shared(flavor: Flavor) -> &'static Self {
        static SHARED: [OnceLock<Standalone>; 2] = [const { OnceLock::new() }; 2];
        SHARED[flavor as usize].get_or_init(|| Self::start_with(flavor, &[]))
    }
}

impl Deref for Standalone {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}
