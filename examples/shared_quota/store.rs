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
        // A port that is free, at least a moment ago.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port().to_string();
        let installed = concat!(env!("CARGO_MANIFEST_DIR"), "/target/servers/redis-server");
        let program = if Path::new(installed).exists() { installed } else { "redis-server" };
        let child = Command::new(program)
            .args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| {
                format!(
                    "{program} does not start ({error}): install Redis, run `bash \
                     tests/install-servers`, or set REDIS_URL"
                )
            })?;
        let store = Self { url: format!("redis://127.0.0.1:{port}"), own: Some(child) };
        for _ in 0..6_000 {
            if tokio::net::TcpStream::connect(format!("127.0.0.1:{port}")).await.is_ok() {
                return Ok(store);
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
