use std::process::Command;

use tower_quota::testing::strict_upstream::Fault;

use crate::support::{Gateway, PATIENCE, SECRETS, configuration, on_a_socket, provider};

#[tokio::test(flavor = "multi_thread")]
async fn the_python_sdks_work_with_another_base_url() {
    let upstream = provider().build();
    upstream.inject(Fault::Delay(PATIENCE));
    let gateway = Gateway::start(&configuration(on_a_socket(&upstream).await, "")).await;
    let url = format!("http://{}", gateway.tenants);
    let output = Command::new("python3")
        .env("PYTHONPATH", "target/servers/sdks")
        .args(["tests/gateway/sdks.py", &url, SECRETS[2], SECRETS[3]])
        .output()
        .expect("python3 is missing");
    let (said, wrong) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(
        said.contains("as they should"),
        "{said}{wrong} Run tests/install-servers where the SDKs are missing."
    );
}
