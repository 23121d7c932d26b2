//! LiteLLM's proxy, as its documentation says to run it: a worker for each processor.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use tokio::time::{Instant, sleep};

/// A process of its own. Dropped, it is told to end, with its workers.
pub(crate) struct LiteLlm {
    child: Child,
    configuration: PathBuf,
    pub(crate) address: SocketAddr,
}

impl LiteLlm {
    pub(crate) async fn start(provider: SocketAddr, key: &str) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let install = root.join("benches/gateway/install-litellm");
        let installed = Command::new("bash").arg(install).status().expect("there is a bash");
        assert!(installed.success(), "without LiteLLM: add -- --without-litellm");

        let name = format!("tower-quota-litellm-{}.yaml", std::process::id());
        let configuration = std::env::temp_dir().join(name);
        let text = format!(
            "model_list:
  - model_name: gpt
    litellm_params:
      model: openai/gpt
      api_base: http://{provider}/v1
      api_key: sk-account
general_settings:
  master_key: {key}
litellm_settings:
  telemetry: false
"
        );
        fs::write(&configuration, text).expect("a folder that can be written to");
        let free = TcpListener::bind("127.0.0.1:0").expect("loopback has a port");
        let address = free.local_addr().expect("it is bound");
        drop(free);
        let workers = thread::available_parallelism().map_or(1, usize::from);
        let child = Command::new(root.join("target/servers/litellm/bin/litellm"))
            .args(["--host", "127.0.0.1", "--telemetry", "False"])
            .args(["--port", &address.port().to_string()])
            .args(["--num_workers", &workers.to_string()])
            .arg("--config")
            .arg(&configuration)
            // Or it asks the internet what models cost.
            .env("LITELLM_LOCAL_MODEL_COST_MAP", "True")
            .env("LITELLM_LOG", "ERROR")
            .env("LITELLM_MODE", "PRODUCTION")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it is installed");
        let this = Self { child, configuration, address };
        this.is_up().await;
        this
    }

    async fn is_up(&self) {
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let begun = Instant::now();
        let url = format!("http://{}/health/liveliness", self.address);
        loop {
            let answer = client.get(&url).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "LiteLLM does not come up in {PATIENCE:?}");
            sleep(Duration::from_millis(200)).await;
        }
    }
}

impl Drop for LiteLlm {
    fn drop(&mut self) {
        // Killed, it would leave its workers behind.
        let told = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        drop(told);
        drop(self.child.wait());
        drop(fs::remove_file(&self.configuration));
    }
}

const PATIENCE: Duration = Duration::from_secs(600);
