use std::{collections::BTreeSet, fs};

use tower_quota::testing::strict_upstream::{ProviderLimit, StrictUpstream};

use crate::{
    servers::Standalone,
    support::{Gateway, SECRETS, configuration, on_a_socket, provider},
};

/// The blocks of one language in a page of the guide.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let text = fs::read_to_string(format!("src/guide/{page}")).expect("it is there");
    let begin = format!("```{language}\n");
    let parts = text.split(&begin).skip(1);
    let blocks: Vec<_> =
        parts.map(|part| part.split("```").next().unwrap_or_default().to_owned()).collect();
    assert!(!blocks.is_empty(), "{page} has no {language}");
    blocks
}

/// What the page says, but for the addresses.
fn as_written(text: &str, provider: std::net::SocketAddr) -> String {
    let written = text
        .replace("127.0.0.1:8080", "127.0.0.1:0")
        .replace("127.0.0.1:8081", "127.0.0.1:0")
        .replace(
            "https://generativelanguage.googleapis.com/v1beta/openai",
            &format!("http://{provider}"),
        );
    assert!(written.contains(&provider.to_string()), "the page has another provider by now");
    written
}

const KEYS: [(&str, &str); 2] = [("FREE_API_KEY", "sk-free"), ("ALICE_KEY", "sk-alice")];

#[tokio::test]
async fn the_gateway_and_the_fleet_of_the_page_on_free_apis_are_as_it_says() {
    let blocks = blocks("free_api.md", "toml");
    let [gateway, fleet] = blocks.as_slice() else { panic!("{blocks:?}") };
    let upstream = StrictUpstream::builder()
        .account("ours", ["sk-free"], [ProviderLimit::requests(15)])
        .models(["gemini-flash-lite-latest"])
        .build();
    let text = as_written(gateway, on_a_socket(&upstream).await);
    let alone = Gateway::start_with(&text, &KEYS).await;
    for expected in [("sk-alice", 200), ("sk-free", 401)] {
        assert_eq!(alone.chat(expected.0, "small", "Hello").await.status(), expected.1);
    }
    drop(alone);

    // A hundred a day are each tenant's, wherever they come, and fifteen a minute the account's.
    let server = Standalone::start();
    let url = server.url();
    let text = format!("{text}\n{fleet}")
        .replace("100 per day", "10 per day")
        // However busy the machine is that this runs on.
        .replace("instances = 2", "instances = 2\ntimeout = \"20s\"");
    let environment = [KEYS[0], KEYS[1], ("REDIS_URL", &*url)];
    let fleet = [
        Gateway::start_with(&text, &environment).await,
        Gateway::start_with(&text, &environment).await,
    ];
    let mut admitted = 0;
    for number in 0..12 {
        let status =
            fleet[number % 2].chat("sk-alice", "small", &format!("{number}")).await.status();
        admitted += usize::from(status == 200);
    }
    assert_eq!((admitted, upstream.record().admitted, upstream.record().refused), (10, 11, vec![]));
}

#[tokio::test]
async fn the_two_tenants_of_the_gateways_page_are_let_in_by_their_keys_alone() {
    let upstream = StrictUpstream::builder()
        .account("ours", ["sk-ours"], [ProviderLimit::requests(500)])
        .models(["gpt-5-nano"])
        .build();
    let provider = format!("http://{}", on_a_socket(&upstream).await);
    let page = blocks("gateway.md", "toml").concat();
    let text = page.replace("https://api.openai.com", &provider);
    assert_ne!(text, page, "the page has another provider by now");
    // By default it listens on ports that may be taken.
    let text = format!("[server]\nlisten = \"127.0.0.1:0\"\npage = \"127.0.0.1:0\"\n\n{text}");
    let keys = [("OPENAI_API_KEY", "sk-ours"), ("ALICE_KEY", "sk-alice"), ("BOB_KEY", "sk-bob")];
    let gateway = Gateway::start_with(&text, &keys).await;
    for (key, status) in [("sk-alice", 200), ("sk-bob", 200), ("sk-ours", 401)] {
        assert_eq!(gateway.chat(key, "gpt-5-nano", "Hello").await.status(), status, "{key}");
    }
}

#[tokio::test]
async fn the_metrics_that_the_guide_tells_to_watch_are_there() {
    let upstream = provider().build();
    let text = configuration(on_a_socket(&upstream).await, "");
    // A limit that is known before it is told.
    let text = text
        .replace("\"ACCOUNT_ONE\"", "\"ACCOUNT_ONE\"\nlimits = { requests = \"1000 per minute\" }");
    let gateway = Gateway::start(&text).await;
    assert_eq!(gateway.chat(SECRETS[2], "gpt", "Hello").await.status(), 200);
    let metrics = gateway.at_page("/metrics").await;
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let mut names = BTreeSet::new();
    for page in ["gateway.md", "operations.md"] {
        let text = fs::read_to_string(format!("src/guide/{page}")).expect("it is there");
        let words = text.split(|letter| !is_part(letter));
        names.extend(words.filter(|word| word.starts_with("gateway_")).map(str::to_owned));
    }
    assert!(names.len() > 10, "{names:?}");
    for name in names {
        let is_it =
            |line: &str| line.strip_prefix(&*name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        assert!(metrics.lines().any(is_it), "{name} is not in {metrics}");
    }
}
