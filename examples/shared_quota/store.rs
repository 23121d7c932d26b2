//! The Redis server: one that is there, or one of our own.

use std::{
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use super::Error;

pub(super) struct Store {
    pub(super) url: String,
    /// Ends with this value.
    own: Option<Child>,
}

impl Store {
    pub(super) async fn find_or_start() -> Result<Self, Error> {
        if let Ok(url) = std::env::var("REDIS_URL") {
            return Ok(Self { url, own: None });
        }
        let installed = concat!(env!("CARGO_MANIFEST_DIR"), "/target/servers/redis-server");
        let program = if Path::new(installed).exists() { installed } else { "redis-server" };
        // Somebody may take a port that was free a moment ago: then it ends, and another port is tried.
        for attempt in 0..20 {
            let port = free_port(attempt)?;
            let child = Command::new(program)
                .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
                .args(["--save", "", "--appendonly", "no"])
                .stdout(Stdio::null())
                .spawn()
                .map_err(|error| {
                    format!(
                        "{program} does not start ({error}): install Redis, run `bash \
                         tests/install-servers`, or set REDIS_URL"
                    )
                })?;
            let mut store = Self { url: format!("redis://127.0.0.1:{port}"), own: Some(child) };
            if store.comes_up(port).await? {
                return Ok(store);
            }
        }
        Err("redis-server does not find a port".into())
    }

    /// Whether it answers: not if it has ended before.
    async fn comes_up(&mut self, port: u16) -> Result<bool, Error> {
        for _ in 0..6_000 {
            let answers = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok();
            if let Some(own) = &mut self.own
                && own.try_wait()?.is_some()
            {
                return Ok(false);
            }
            if answers {
                return Ok(true);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Err("redis-server does not answer".into())
    }

    pub(super) fn describe(&self) -> String {
        match self.own {
            Some(_) => format!("a redis-server of our own, {}", self.url),
            None => "the server at REDIS_URL".to_owned(),
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if let Some(own) = &mut self.own {
            let _ended = own.kill().and_then(|()| own.wait());
        }
    }
}

/// A port that nobody listens on, of those that no system gives to outgoing connections. Programs that run at the
/// same time begin to look at different places.
fn free_port(attempt: u32) -> std::io::Result<u16> {
    let first = std::process::id().wrapping_mul(7_919).wrapping_add(attempt * 100);
    let ports = (0..100).map(|next| (11_000 + first.wrapping_add(next) % 10_000) as u16);
    let mut free = ports.filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    free.next().ok_or_else(|| std::io::Error::other("a hundred ports are taken"))
}
