//! The example as somebody starts it: by a file of settings.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, Output, Stdio},
    sync::OnceLock,
    time::Duration,
};

use reqwest::StatusCode;
use serde_json::json;
use tokio::time::Instant;
use tonic::Code;
use tower_quota::quota_service::envoy::proto;

use crate::{
    example,
    support::{Client, descriptor, request, told},
};

const SETTINGS: &str = r#"
http = "127.0.0.1:0"
grpc = "127.0.0.1:0"
rules = "rules.toml"
tokens_from = "QUOTA_TOKENS"
grpc_needs_token = true
"#;

const RULES: &str = r#"
domain = "edge"
descriptors = [{ key = "user", rate_limit = { unit = "year", requests_per_unit = 2 } }]
"#;

/// A server that runs as a process of its own. Dropped, it is killed.
struct Program {
    child: Child,
    says: BufReader<ChildStderr>,
    http: SocketAddr,
    grpc: SocketAddr,
    folder: Folder,
}

/// A folder with settings and rules in it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str, settings: &str) -> Self {
        let name = format!("tower-quota-quota-server-{}-{name}", std::process::id());
        let folder = Self(std::env::temp_dir().join(name));
        fs::create_dir_all(&folder.0).expect("a folder for temporary files");
        fs::write(folder.settings(), settings).expect("it can be written to");
        fs::write(folder.rules(), RULES).expect("it can be written to");
        folder
    }

    fn settings(&self) -> PathBuf {
        self.0.join("server.toml")
    }

    fn rules(&self) -> PathBuf {
        self.0.join("rules.toml")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

fn command() -> Command {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    let mut command = Command::new(BINARY.get_or_init(|| example::build("quota_server")));
    command.env("QUOTA_TOKENS", "right, other").stdin(Stdio::null());
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

fn fail(settings: &Path, more: &[&str]) -> Output {
    command().arg("--config").arg(settings).args(more).output().expect("it was built")
}

impl Program {
    fn start(name: &str) -> Self {
        let folder = Folder::new(name, SETTINGS);
        let mut child =
            command().arg("--config").arg(folder.settings()).spawn().expect("it was built");
        let mut says = BufReader::new(child.stderr.take().expect("it is piped"));
        let mut first = String::new();
        says.read_line(&mut first).expect("it says where it listens");
        let address = |after: &str| {
            let (_, rest) = first.split_once(after).unwrap_or_else(|| panic!("{first}"));
            let address = rest.split([',', '\n']).next().and_then(|address| address.parse().ok());
            address.expect("an address")
        };
        let (http, grpc) = (address("HTTP at "), address("gRPC at "));
        Self { child, says, http, grpc, folder }
    }

    async fn decide(&self, token: Option<&str>) -> StatusCode {
        let entries = json!([{ "key": "user", "value": "alice" }]);
        let body = json!({ "domain": "edge", "descriptors": [{ "entries": entries }] });
        let url = format!("http://{}/v1/decide", self.http);
        let mut request = reqwest::Client::new().post(url).json(&body);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        request.send().await.expect("an answer").status()
    }

    /// Waits until it says something that has this in it.
    fn says(&mut self, text: &str) {
        let mut line = String::new();
        while !line.contains(text) {
            line.clear();
            let length = self.says.read_line(&mut line).expect("it can be read");
            assert_ne!(length, 0, "it ends, and has not said {text:?}");
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_with_settings_serves_both_protocols_to_who_has_a_token_and_ends_when_it_is_told()
{
    let mut program = Program::start("serves");
    assert_eq!(program.decide(None).await, StatusCode::UNAUTHORIZED);
    assert_eq!(program.decide(Some("wrong")).await, StatusCode::UNAUTHORIZED);
    assert_eq!(program.decide(Some("right")).await, StatusCode::OK);
    let alice = || request("edge", [descriptor(&[("user", "alice")])]);
    let grpc = Client::to(program.grpc);
    assert_eq!(grpc.refused(alice()).await, Code::Unauthenticated);
    // Both count the same: two a year, which does not end meanwhile as an hour would.
    let answer = grpc.clone().token("other").ask(alice()).await;
    assert_eq!(told(&answer).0, proto::Code::Ok);
    assert_eq!(program.decide(Some("right")).await, StatusCode::TOO_MANY_REQUESTS);

    // Its rules change, and then are no rules.
    let more = RULES.replace("requests_per_unit = 2", "requests_per_unit = 5");
    fs::write(program.folder.rules(), more).expect("it can be written to");
    program.says("new rules are in force");
    assert_eq!(program.decide(Some("right")).await, StatusCode::OK);
    fs::write(program.folder.rules(), "domain = 7").expect("it can be written to");
    program.says("the rules in force stay");
    assert_eq!(program.decide(Some("right")).await, StatusCode::OK);

    drop(grpc);
    let pid = program.child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("a kill").success());
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = program.child.try_wait().expect("it is ours") {
            break status;
        }
        assert!(begun.elapsed() < PATIENCE, "it does not end");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(status.success(), "{status}");
}

#[test]
fn settings_that_are_wrong_are_told_and_it_ends() {
    let wrong = [
        ("tokens_from = \"QUOTA_TOKENS\"", "", "say in `tokens_from` where the tokens are"),
        ("QUOTA_TOKENS", "NO_TOKENS", "set the environment variable NO_TOKENS"),
        ("grpc_needs_token", "grpc_needs_tokens", "grpc_needs_tokens"),
        ("rules.toml", "none.toml", "none.toml"),
    ];
    for (number, (from, to, says)) in wrong.into_iter().enumerate() {
        let folder = Folder::new(&format!("wrong-{number}"), &SETTINGS.replace(from, to));
        let output = fail(&folder.settings(), &[]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(says), "{says} is not in: {said}");
    }
    let folder = Folder::new("usage", SETTINGS);
    let output = fail(&folder.settings(), &["--what"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("usage: quota_server"));
}

/// How long anything may take on a machine that does other things too.
const PATIENCE: Duration = Duration::from_secs(60);
