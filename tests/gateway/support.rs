#[path = "../support/example.rs"]
mod example;

use std::{
    fs,
    future::IntoFuture as _,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

use reqwest::{Client, RequestBuilder, Response};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tower_quota::{
    testing::strict_upstream::{Answers, ProviderLimit, StrictUpstream, StrictUpstreamBuilder},
    time::{Clock as _, SystemClock},
};

use crate::servers;

/// Keys that must be seen nowhere.
pub(crate) const SECRETS: [&str; 5] =
    ["sk-account-one", "sk-account-two", "sk-tenant-alice", "sk-tenant-bob", "sk-tenant-carol"];

/// How long anything may take on a machine that does other things too.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// An API with one account for each language.
pub(crate) fn provider() -> StrictUpstreamBuilder {
    StrictUpstream::builder()
        .account("one", ["sk-account-one"], [ProviderLimit::requests(1_000)])
        .account("two", ["sk-account-two"], [ProviderLimit::requests(1_000)])
        .answers(Answers::exactly(12))
}

/// Puts an API on a socket.
pub(crate) async fn on_a_socket(upstream: &StrictUpstream) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(axum::serve(listener, upstream.router()).into_future());
    address
}

/// Counts on a server, and takes none for failed that has stalled with the machine.
pub(crate) fn on_a_server(instances: usize) -> String {
    format!("[state]\nredis_env = \"REDIS_URL\"\ninstances = {instances}\ntimeout = \"60s\"\n")
}

/// A configuration with three tenants before a provider; `more` goes before its tables. It waits for callers, and
/// leaves room at the accounts for calls that are late, for longer than a busy machine stalls.
pub(crate) fn configuration(provider: SocketAddr, more: &str) -> String {
    format!(
        r#"
[server]
listen = "127.0.0.1:0"
page = "127.0.0.1:0"
max_body_bytes = 100000
read_timeout = "60s"
drain_delay = "0s"
drain = "30s"

{more}

[[provider]]
name = "open"
profile = "openai"
speaks = "openai"
base_url = "http://{provider}"

[[provider]]
name = "anth"
profile = "anthropic"
speaks = "anthropic"
base_url = "http://{provider}"

[[account]]
name = "one"
provider = "open"
key_env = "ACCOUNT_ONE"
jitter = "5s"

[[account]]
name = "two"
provider = "anth"
key_env = "ACCOUNT_TWO"
jitter = "5s"

[[model]]
name = "gpt"
accounts = ["one"]

[[model]]
name = "gpt-secret"
accounts = ["one"]
upstream = "gpt"

[[model]]
name = "claude"
accounts = ["two"]

[[plan]]
name = "large"

[[plan]]
name = "small"
requests = "2 per hour"

[[tenant]]
name = "alice"
plan = "large"
key_env = "TENANT_ALICE"

[[tenant]]
name = "bob"
plan = "small"
key_env = "TENANT_BOB"
models = ["gpt", "claude"]

[[tenant]]
name = "carol"
plan = "large"
key_env = "TENANT_CAROL"
models = ["gpt"]
"#
    )
}

/// The configuration with ports that no outgoing connection is given while the gateway is gone.
pub(crate) fn ports_of_its_own(configuration: &str) -> String {
    let address = || format!("\"127.0.0.1:{}\"", servers::free_port());
    configuration
        .replace("listen = \"127.0.0.1:0\"", &format!("listen = {}", address()))
        .replace("page = \"127.0.0.1:0\"", &format!("page = {}", address()))
}

/// A gateway that runs as a process of its own. Dropped, it is killed.
pub(crate) struct Gateway {
    child: Child,
    pub(crate) tenants: SocketAddr,
    pub(crate) page: SocketAddr,
    pub(crate) file: PathBuf,
    folder: PathBuf,
    said: Arc<Mutex<String>>,
    pub(crate) client: Client,
}

impl Gateway {
    pub(crate) async fn start(configuration: &str) -> Self {
        Self::start_with(configuration, &[]).await
    }

    /// Starts one with more in its environment.
    pub(crate) async fn start_with(configuration: &str, more: &[(&str, &str)]) -> Self {
        let folder = folder();
        let file = folder.join("gateway.toml");
        fs::write(&file, configuration).expect("a folder that can be written to");
        let mut child =
            command().envs(more.iter().copied()).arg(&file).spawn().expect("the gateway was built");
        let said = Arc::new(Mutex::new(String::new()));
        let errors = child.stderr.take().expect("it is piped");
        listen(BufReader::new(errors), Arc::clone(&said));
        let mut output = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut first = String::new();
        output.read_line(&mut first).expect("it says where it listens");
        let said_first = || said.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let address = |name: &str| -> SocketAddr {
            let (_, after) =
                first.split_once(name).unwrap_or_else(|| panic!("{first}{}", said_first()));
            let address = after.trim_start_matches(": http://").split_whitespace().next();
            address.and_then(|address| address.parse().ok()).expect("an address")
        };
        let (tenants, page) = (address("tenants"), address("page"));
        said.lock().unwrap_or_else(PoisonError::into_inner).push_str(&first);
        listen(output, Arc::clone(&said));
        Self { child, tenants, page, file, folder, said, client: client() }
    }

    /// One that comes back at the addresses of another that is gone, if these are [its own](ports_of_its_own).
    pub(crate) async fn start_again(&mut self, configuration: &str) {
        *self = Self::start(configuration).await;
    }

    pub(crate) fn ask(
        &self,
        key: &str,
        path: &str,
        body: impl Into<reqwest::Body>,
    ) -> RequestBuilder {
        let url = format!("http://{}{path}", self.tenants);
        let request = self.client.post(url).header("content-type", "application/json");
        request.bearer_auth(key).body(body)
    }

    pub(crate) async fn chat(&self, key: &str, model: &str, question: &str) -> Response {
        let body = json!({ "model": model, "messages": [{ "role": "user", "content": question }] });
        let request = self.ask(key, "/v1/chat/completions", body.to_string());
        request.send().await.expect("an answer")
    }

    pub(crate) async fn at_page(&self, path: &str) -> String {
        let response = self.client.get(format!("http://{}{path}", self.page)).send().await;
        response.expect("an answer").text().await.expect("text")
    }

    pub(crate) async fn status(&self) -> Value {
        serde_json::from_str(&self.at_page("/status").await).expect("JSON")
    }

    /// Everything that it has printed.
    pub(crate) fn said(&self) -> String {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until it has printed this.
    pub(crate) async fn says(&self, text: &str) {
        until(|| async { self.said().contains(text) }).await;
    }

    /// Puts a configuration in force, and waits until it is.
    pub(crate) async fn reload(&self, text: &str) {
        let before = self.said().matches("reloaded ").count();
        fs::write(&self.file, text).expect("its folder is there");
        until(|| async { self.said().matches("reloaded ").count() > before }).await;
    }

    /// Asks it politely to end.
    pub(crate) fn terminate(&self) {
        self.signal("-TERM");
    }

    pub(crate) fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.pid().to_string()]).status();
        assert!(sent.expect("there is a kill").success());
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let begun = tokio::time::Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("it is ours") {
                return status;
            }
            assert!(begun.elapsed() < PATIENCE, "it does not end: {}", self.said());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        drop(fs::remove_dir_all(&self.folder));
    }
}

/// Runs it with a configuration that is wrong.
pub(crate) fn fail(configuration: &str) -> Output {
    let folder = folder();
    let file = folder.join("gateway.toml");
    fs::write(&file, configuration).expect("a folder that can be written to");
    let output = command().arg(&file).output().expect("the gateway was built");
    drop(fs::remove_dir_all(folder));
    output
}

/// Waits until something is so.
pub(crate) async fn until<F: Future<Output = bool>>(mut is_so: impl FnMut() -> F) {
    let begun = tokio::time::Instant::now();
    while !is_so().await {
        assert!(begun.elapsed() < PATIENCE, "it does not come to pass");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits where a day of an account is over within a minute: at midnight in Greenwich, or in California by either of
/// its times. What is used up on one day is not on the next.
pub(crate) async fn away_from_midnight() {
    loop {
        let now = SystemClock.now().as_nanos() / 1_000_000_000 % DAY;
        let is_near = |hour: u64| (hour * 3_600 + DAY - now) % DAY < 60;
        if ![0, 7, 8].into_iter().any(is_near) {
            return;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

const DAY: u64 = 86_400;

fn client() -> Client {
    Client::builder().no_proxy().timeout(PATIENCE).build().expect("a client")
}

fn command() -> Command {
    let mut command = Command::new(binary());
    command
        .env("ACCOUNT_ONE", SECRETS[0])
        .env("ACCOUNT_TWO", SECRETS[1])
        .env("TENANT_ALICE", SECRETS[2])
        .env("TENANT_BOB", SECRETS[3])
        .env("TENANT_CAROL", SECRETS[4])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// The example, built once.
fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| example::build("gateway"))
}

fn folder() -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = format!("tower-quota-gateway-{}-{number}", std::process::id());
    let folder = std::env::temp_dir().join(name);
    fs::create_dir_all(&folder).expect("a folder for temporary files");
    folder
}

/// Keeps what a process prints.
fn listen(mut output: impl std::io::BufRead + Send + 'static, said: Arc<Mutex<String>>) {
    thread::spawn(move || {
        let mut line = Vec::new();
        while output.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            let text = String::from_utf8_lossy(&line).into_owned();
            said.lock().unwrap_or_else(PoisonError::into_inner).push_str(&text);
            line.clear();
        }
    });
}
