use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tower_quota::testing::strict_upstream::Fault;

use crate::support::{Gateway, PATIENCE, SECRETS, configuration, on_a_socket, provider, until};

const ALICE: &str = SECRETS[2];

/// Sends bytes as they are, and reads until the other side closes.
async fn raw(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    // Who is cut off in the middle of what he sends may find the connection reset.
    drop(stream.write_all(bytes).await);
    let mut answer = Vec::new();
    let read = timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    drop(read.expect("it closes"));
    String::from_utf8_lossy(&answer).into_owned()
}

fn post(path: &str, fields: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {ALICE}\r\n\
         Connection: close\r\nContent-Length: {length}\r\n{fields}\r\n{body}"
    )
    .into_bytes()
}

const GOOD: &str = r#"{"model":"gpt","messages":[{"role":"user","content":"Hello"}]}"#;

#[tokio::test]
async fn a_body_that_is_not_understood_is_refused_and_costs_nothing() {
    let upstream = provider().build();
    let gateway = Gateway::start(&configuration(on_a_socket(&upstream).await, "")).await;
    let twice = r#"{"model":"gpt","model":"claude","messages":[]}"#.to_owned();
    let bodies = [
        Vec::new(),
        b"{".to_vec(),
        b"null".to_vec(),
        b"[]".to_vec(),
        br#"["gpt-secret", 0, 1]"#.to_vec(),
        br#"{"model":7}"#.to_vec(),
        b"{\"model\":\"gpt\",\"messages\":\"\xff\xfe\"}".to_vec(),
        b"\xef\xbb\xbf{}".to_vec(),
        twice.into_bytes(),
    ];
    for body in bodies {
        let shown = String::from_utf8_lossy(&body[..body.len().min(40)]).into_owned();
        let answer = gateway.ask(ALICE, "/v1/chat/completions", body).send().await;
        assert_eq!(answer.expect("an answer").status(), 400, "{shown}");
    }
    assert_eq!(upstream.record().admitted + upstream.record().invalid, 0);
}

#[tokio::test]
async fn a_body_that_is_too_large_or_too_slow_is_not_waited_for() {
    let upstream = provider().build();
    let gateway = Gateway::start(&configuration(on_a_socket(&upstream).await, "")).await;
    // Where this side stalls in the middle of its body, what is left of it is not waited for, and the connection
    // may be reset under the answer.
    let told = async |body: &dyn Fn() -> reqwest::Body| {
        for _ in 0..4 {
            let answer = gateway.ask(ALICE, "/v1/chat/completions", body()).send().await;
            if let Ok(answer) = answer {
                return answer.status().as_u16();
            }
        }
        panic!("there is no answer")
    };
    let large = vec![b' '; 100_001];
    assert_eq!(told(&|| large.clone().into()).await, 413);
    let in_parts = || {
        let parts = large.chunks(10_000).map(|part| Ok::<_, std::io::Error>(part.to_vec()));
        reqwest::Body::wrap_stream(futures::stream::iter(parts.collect::<Vec<_>>()))
    };
    assert_eq!(told(&in_parts).await, 413);

    // One that waits for two seconds.
    let text = configuration(on_a_socket(&upstream).await, "");
    let gateway =
        Gateway::start(&text.replace("read_timeout = \"60s\"", "read_timeout = \"2s\"")).await;
    let head = "POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\n";
    let with_body = format!("{head}Authorization: Bearer {ALICE}\r\nContent-Length: 9\r\n\r\n{{");
    // Where this side stalls before it has sent its head, it is cut off for that.
    let is_told =
        async || raw(gateway.tenants, with_body.as_bytes()).await.starts_with("HTTP/1.1 408");
    until(is_told).await;
    // It closes on who does not even send a head, at both doors.
    for address in [gateway.tenants, gateway.page] {
        let answer = raw(address, head.as_bytes()).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
    }
    assert_eq!(upstream.record().admitted, 0);
}

#[tokio::test]
async fn nothing_gets_to_the_provider_but_what_is_meant_for_it() {
    let upstream = provider().build();
    let gateway = Gateway::start(&configuration(on_a_socket(&upstream).await, "")).await;
    // With these, the provider would take another key, another length, another connection.
    let fields = "X-Api-Key: sk-tenant-alice\r\nCookie: a=b\r\nX-Forwarded-For: 1.2.3.4\r\n\
                  Accept-Encoding: gzip\r\nProxy-Authorization: Basic eDp5\r\nTE: trailers\r\n";
    let answer =
        raw(gateway.tenants, &post("/v1/chat/completions?key=sk-other", fields, GOOD)).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(upstream.record().admitted, 1);

    for path in [
        "/v1/chat/completions/../../admin",
        "/v1/chat/completions%0d%0aX-Evil:%201",
        "/v1//chat/completions",
        "//evil.example/v1/chat/completions",
        "/v1/files",
        "/v1/chat/completions/extra",
    ] {
        let answer = raw(gateway.tenants, &post(path, "", GOOD)).await;
        assert!(answer.starts_with("HTTP/1.1 404"), "{path}: {answer}");
    }
    let lines = [
        // Two lengths, a length and chunks, a bare carriage return in a value, a space before a colon.
        "Content-Length: 5\r\n",
        "X-Evil: a\rX-Worse: b\r\n",
        "X-Evil : a\r\n",
        "X-Evil: a\0b\r\n",
    ];
    for fields in lines {
        let answer = raw(gateway.tenants, &post("/v1/chat/completions", fields, GOOD)).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{fields:?}: {answer}");
    }
    assert_eq!(upstream.record().admitted, 1);
}

#[tokio::test]
async fn a_provider_that_breaks_off_is_not_a_crash() {
    // Slow enough that the head is out before it breaks off.
    let upstream = provider().latency(Duration::ZERO, Duration::from_millis(20)).build();
    let gateway = Gateway::start(&configuration(on_a_socket(&upstream).await, "")).await;
    upstream.inject(Fault::Broken);
    assert_eq!(gateway.chat(ALICE, "gpt", "Hello").await.status(), 500);
    upstream.inject(Fault::CutAt(700));
    let stream = r#"{"model":"gpt","stream":true,"messages":[{"role":"user","content":"Hello"}]}"#;
    let answer = gateway.ask(ALICE, "/v1/chat/completions", stream).send().await;
    // What was cut reads as cut, not as an end.
    let answer = answer.expect("a head");
    assert_eq!(answer.status(), 200);
    assert!(answer.text().await.is_err());
    assert_eq!(gateway.chat(ALICE, "gpt", "Hello").await.status(), 200);
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused_and_what_is_odd_in_one_does_no_harm() {
    let upstream = provider().build();
    let gateway = Gateway::start(&configuration(on_a_socket(&upstream).await, "")).await;
    let long = "x".repeat(300_000);
    let many = (0..200).map(|number| format!("x-{number}: y\r\n")).collect::<String>();
    for (path, fields, expected) in [
        ("/v1/chat/completions", format!("X-Long: {long}\r\n"), 431),
        ("/v1/chat/completions", many, 431),
        (&*format!("/v1/{}", "x".repeat(60_000)), String::new(), 404),
        (&*format!("/v1/{}", &long[..66_000]), String::new(), 414),
    ] {
        let answer = raw(gateway.tenants, &post(path, &fields, GOOD)).await;
        // A head that does not fit is not read to its end: the connection may be reset under the answer.
        let is_told = answer.starts_with(&format!("HTTP/1.1 {expected}"));
        assert!(is_told || (answer.is_empty() && expected != 404), "{expected}: {answer}");
    }
    // Bytes that are no text: as a key, and as what a client calls itself.
    let mut odd = post("/v1/chat/completions", "User-Agent: \u{fc}\r\n", GOOD);
    assert!(raw(gateway.tenants, &odd).await.starts_with("HTTP/1.1 200"));
    let place = odd.windows(ALICE.len()).position(|part| part == ALICE.as_bytes());
    odd[place.expect("it is there")] = 0xff;
    assert!(raw(gateway.tenants, &odd).await.starts_with("HTTP/1.1 401"));
    assert_eq!(upstream.record().admitted, 1);
}

#[tokio::test]
async fn json_that_is_deep_long_or_named_oddly_is_a_question_or_is_refused() {
    let upstream = provider().build();
    let gateway = Gateway::start(&configuration(on_a_socket(&upstream).await, "")).await;
    let nested = |model: &str, levels: usize| {
        let (open, close) = ("[".repeat(levels), "]".repeat(levels));
        format!(r#"{{"model":"{model}","messages":{open}"]\"]"{close}}}"#)
    };
    let deep = ["gpt", "gpt-secret"].map(|model| (nested(model, 40_000), 400));
    let names = ["gpt\\u0000", "gpt\\r\\nX: y", "../gpt", "GPT", " gpt", &"g".repeat(50_000)];
    for (body, expected) in deep
        .into_iter()
        .chain(names.map(|name| (format!(r#"{{"model":"{name}","messages":[]}}"#), 404)))
    {
        let shown = body[..body.len().min(60)].to_owned();
        let answer = gateway.ask(ALICE, "/v1/chat/completions", body).send().await;
        assert_eq!(answer.expect("an answer").status(), expected, "{shown}");
    }
    assert_eq!(upstream.record().admitted + upstream.record().invalid, 0);
    // As deep as readers go, it is the provider's to understand.
    let answer = gateway.ask(ALICE, "/v1/chat/completions", nested("gpt-secret", 126)).send().await;
    drop(answer.expect("an answer"));
    assert_eq!(upstream.record().admitted, 1);
}

#[tokio::test]
async fn a_request_within_a_request_is_not_one_of_its_own() {
    let upstream = provider().build();
    let gateway = Gateway::start(&configuration(on_a_socket(&upstream).await, "")).await;
    // What one of two believes who believe the length, and the other who believes the chunks.
    let inner = String::from_utf8(post("/v1/chat/completions", "", GOOD)).expect("text");
    for fields in [
        "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: \x0bchunked\r\n",
        "Transfer-Encoding: identity\r\nContent-Length: 4\r\n",
    ] {
        let request = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer sk-x\r\n\
             {fields}\r\n0\r\n\r\n{inner}"
        );
        let answer = raw(gateway.tenants, request.as_bytes()).await;
        assert!(answer.matches("HTTP/1.1").count() <= 1, "{fields}: {answer}");
        assert!(!answer.starts_with("HTTP/1.1 200"), "{fields}: {answer}");
    }
    // The connection ends with the first, so that nobody's next request is taken from its body.
    assert_eq!(upstream.record().admitted, 0);
    assert_eq!(upstream.record().invalid, 0);
}
