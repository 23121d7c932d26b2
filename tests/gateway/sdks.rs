//! The Python SDKs, unchanged.

use tokio::process::Command;

use crate::support::{Gateway, SECRETS, configuration, on_a_socket, provider};

#[tokio::test(flavor = "multi_thread")]
async fn the_sdks_of_openai_and_anthropic_do_not_notice_that_it_is_a_gateway() {
    let upstream = provider().build();
    let gateway = Gateway::start(&configuration(on_a_socket(&upstream).await, "")).await;
    let root = env!("CARGO_MANIFEST_DIR");
    let output = Command::new("python3")
        .arg(format!("{root}/tests/gateway/sdks.py"))
        .args([&format!("http://{}", gateway.tenants), SECRETS[2], SECRETS[3]])
        // Where tests/install-servers puts them.
        .env("PYTHONPATH", format!("{root}/target/servers/sdks"))
        .env("NO_PROXY", "127.0.0.1")
        .output()
        .await
        .expect("there is a python3");
    let (said, errors) = (&output.stdout, &output.stderr);
    let (said, errors) = (String::from_utf8_lossy(said), String::from_utf8_lossy(errors));
    assert!(output.status.success(), "{said}{errors}\n{}", gateway.said());
    assert_eq!(said, "openai_sdk ok\nanthropic_sdk ok\nrefusals ok\n");
}
