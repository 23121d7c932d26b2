//! Under which names the page is shown.

use reqwest::StatusCode;

use crate::support::{Gateway, configuration};

/// What is answered to who asks for this path of the page under that name.
async fn under(gateway: &Gateway, name: &str, path: &str) -> StatusCode {
    let request = gateway.client.get(format!("http://{}{path}", gateway.page));
    request.header("host", name).send().await.expect("an answer").status()
}

#[tokio::test]
async fn the_page_is_shown_under_addresses_and_names_that_are_known_and_no_others() {
    let text = configuration(([127, 0, 0, 1], 9).into(), "");
    let text = text.replacen("[server]", "[server]\npage_names = [\"gateway.internal\"]", 1);
    let gateway = Gateway::start(&text).await;
    let (known, unknown) = (
        ["localhost:8081", "127.0.0.1:8081", "10.1.2.3", "[::1]:8081", "Gateway.Internal:80"],
        ["evil.example:8081", "localhost.evil.example", "127.0.0.1.evil.example", "", "gateway"],
    );
    for path in ["/", "/status", "/metrics"] {
        for name in known {
            assert_eq!(under(&gateway, name, path).await, 200, "{name}{path}");
        }
        for name in unknown {
            assert_eq!(under(&gateway, name, path).await, 421, "{name}{path}");
        }
    }
    assert_eq!(under(&gateway, "evil.example", "/events").await, 421);
    let resume = gateway.client.post(format!("http://{}/accounts/one/resume", gateway.page));
    let resumed = resume.header("host", "evil.example").send().await.expect("an answer");
    assert_eq!(resumed.status(), 421);
    // Who looks after processes asks by any name, and is told nothing else.
    assert_eq!(under(&gateway, "pod-7.gateway", "/healthz").await, 200);
}
