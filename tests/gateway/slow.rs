use std::{net::SocketAddr, sync::LazyLock, time::Duration};

use http::StatusCode;
use reqwest::RequestBuilder;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    time::{Instant, sleep, timeout},
};
use tower_quota::testing::strict_upstream::Fault;

use crate::{
    capture::Capture,
    support::{Gateway, PATIENCE, SECRETS, configuration, on_a_socket, provider, until},
};

const ALICE: &str = SECRETS[2];
const STREAM: &str =
    r#"{"model":"gpt","stream":true,"messages":[{"role":"user","content":"Hello"}]}"#;

const GOOD: &str = r#"{"model":"gpt","messages":[{"role":"user","content":"Hello"}]}"#;

fn head(length: usize) -> String {
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {ALICE}\r\n\
         Content-Length: {length}\r\n\r\n"
    )
}

/// A connection whose own end keeps little.
async fn connect(address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4_096).expect("a small buffer");
    socket.connect(address).await.expect("it listens")
}

/// Reads what comes until it is closed, or there is nothing for a while.
async fn rest(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    drop(timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("it closes"));
    String::from_utf8_lossy(&answer).into_owned()
}

/// Tries again where this side stalls before it has sent its head: it is cut off for that, without a word.
async fn until_told_408<F: Future<Output = String>>(mut ask: impl FnMut() -> F) {
    let mut said = ask().await;
    for _ in 0..4 {
        if said.is_empty() {
            said = ask().await;
        }
    }
    assert_eq!(said, "HTTP/1.1 408");
}

/// Sends so many bytes after each pause until it is told something, or cut off.
async fn drip(address: SocketAddr, length: usize, bytes: usize, pause: Duration) -> String {
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    drop(stream.write_all((head(length) + "{").as_bytes()).await);
    let begun = Instant::now();
    loop {
        let mut answer = [0; 12];
        if let Ok(read) = timeout(pause, stream.read_exact(&mut answer)).await {
            return read.map_or(String::new(), |_| String::from_utf8_lossy(&answer).into_owned());
        }
        assert!(begun.elapsed() < PATIENCE, "it is waited for without end");
        // Who has been told something by now need not be read any more.
        drop(stream.write_all(&vec![b' '; bytes]).await);
    }
}

#[tokio::test]
async fn a_body_that_comes_byte_by_byte_is_not_waited_for() {
    let upstream = provider().build();
    let text = configuration(on_a_socket(&upstream).await, "");
    let gateway =
        Gateway::start(&text.replace("read_timeout = \"60s\"", "read_timeout = \"2s\"")).await;
    // It never pauses for as long as the head may take, and yet.
    until_told_408(|| drip(gateway.tenants, 90_000, 1, Duration::from_millis(50))).await;
    assert_eq!(upstream.record().admitted, 0);
}

#[tokio::test]
async fn a_body_has_the_time_that_it_takes_at_the_least_rate_and_no_more_than_the_longest() {
    let upstream = provider().build();
    let text = configuration(on_a_socket(&upstream).await, "");
    // Twenty times as fast as it has to be, and longer under way than the head may be.
    let fast = text.replace("read_timeout = \"60s\"", "read_timeout = \"1s\"\nleast_rate = 1000");
    let gateway = Gateway::start(&fast).await;
    let body = format!(
        r#"{{"model":"gpt","messages":[{{"role":"user","content":"{}"}}]}}"#,
        "x".repeat(50_000)
    );
    let in_parts = async || {
        let mut stream = TcpStream::connect(gateway.tenants).await.expect("it listens");
        let mut answer = [0; 12];
        let sent = async {
            stream.write_all(head(body.len()).as_bytes()).await?;
            for part in body.as_bytes().chunks(2_000) {
                stream.write_all(part).await?;
                sleep(Duration::from_millis(80)).await;
            }
            stream.read_exact(&mut answer).await
        };
        sent.await.is_ok() && answer == *b"HTTP/1.1 200"
    };
    // Where this side stalls before it has sent its head, it is cut off for that.
    until(in_parts).await;

    let longest = fast.replace("least_rate", "body_timeout = \"2s\"\nleast_rate");
    let gateway = Gateway::start(&longest).await;
    until_told_408(|| drip(gateway.tenants, 99_000, 200, Duration::from_millis(20))).await;
}

/// A gateway before a stream that no buffer between holds, in events that are quickly read.
async fn long_stream(server: &str) -> Gateway {
    static BODY: LazyLock<String> = LazyLock::new(|| {
        let text = "x".repeat(16_384);
        let event = format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n");
        event.repeat(800) + "data: [DONE]\n\n"
    });
    let fields = [("content-type", "text/event-stream")];
    let (_, address) = Capture::start(StatusCode::OK, &fields, &BODY).await;
    let text =
        configuration(address, "").replace("read_timeout", &format!("{server}\nread_timeout"));
    Gateway::start(&text).await
}

/// Whether a call has come, though it may be over.
async fn is_taken(gateway: &Gateway) -> bool {
    gateway.status().await["totals"]["admitted"] != 0
}

async fn is_open(gateway: &Gateway) -> bool {
    gateway.status().await["connections"]["open"] != 0
}

#[tokio::test]
async fn a_caller_that_does_not_read_its_stream_is_cut_off_and_holds_nothing() {
    let gateway = long_stream("write_timeout = \"1s\"").await;
    let mut stream = connect(gateway.tenants).await;
    stream.write_all((head(STREAM.len()) + STREAM).as_bytes()).await.expect("it reads");
    until(|| is_taken(&gateway)).await;
    until(|| async { !is_open(&gateway).await }).await;
    // What was sent is settled.
    until(|| async { gateway.status().await["totals"]["tokens"].as_u64() > Some(10) }).await;
    assert!(!rest(&mut stream).await.contains("[DONE]"));
}

#[tokio::test]
async fn a_caller_that_reads_too_slowly_is_cut_off_though_it_never_pauses() {
    let settings = "write_timeout = \"1s\"\nleast_rate = 10000000";
    let gateway = long_stream(settings).await;
    let mut stream = connect(gateway.tenants).await;
    stream.write_all((head(STREAM.len()) + STREAM).as_bytes()).await.expect("it reads");
    until(|| is_taken(&gateway)).await;
    let begun = Instant::now();
    // More slowly than an unoptimized gateway writes on a busy machine, so that it has to wait.
    let mut part = vec![0; 1_024];
    while is_open(&gateway).await {
        assert!(begun.elapsed() < PATIENCE, "it is waited for without end");
        // A hundredth of the rate at the most.
        drop(stream.read(&mut part).await);
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_caller_that_pauses_and_goes_on_gets_its_stream() {
    let gateway = long_stream("write_timeout = \"40s\"").await;
    let mut stream = connect(gateway.tenants).await;
    let request = head(STREAM.len()).replace("Host:", "Connection: close\r\nHost:") + STREAM;
    stream.write_all(request.as_bytes()).await.expect("it reads");
    sleep(Duration::from_secs(2)).await;
    assert!(rest(&mut stream).await.contains("data: [DONE]"));
}

#[tokio::test]
async fn a_provider_that_falls_silent_is_left() {
    let upstream = provider().latency(Duration::ZERO, PATIENCE).build();
    let text = configuration(on_a_socket(&upstream).await, "")
        .replace("profile = \"openai\"", "profile = \"openai\"\nidle_timeout = \"1s\"");
    let gateway = Gateway::start(&text).await;
    let answer = gateway.ask(ALICE, "/v1/chat/completions", STREAM).send().await.expect("a head");
    assert_eq!(answer.status(), 200);
    assert!(answer.text().await.is_err(), "what was cut reads as an end");
    until(|| async { upstream.record().abandoned == 1 }).await;
    // One that takes long to begin is another matter.
    upstream.inject(Fault::Delay(Duration::from_secs(2)));
    let models = gateway.client.get(format!("http://{}/v1/models", gateway.tenants));
    assert_eq!(models.bearer_auth(ALICE).send().await.expect("an answer").status(), 200);
}

#[tokio::test]
async fn one_connection_too_many_is_told_so_and_the_others_go_on() {
    let upstream = provider().build();
    let text = configuration(on_a_socket(&upstream).await, "")
        .replace("read_timeout = \"60s\"", "read_timeout = \"600s\"\nmax_connections = 2");
    let gateway = Gateway::start(&text).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(gateway.tenants).await.expect("it listens");
        stream.write_all(b"POST /v1/chat/completions HTTP/1.1\r\nHost:").await.expect("it reads");
        held.push(stream);
    }
    until(|| async { gateway.status().await["connections"]["open"] == 2 }).await;

    // Who stalls for too long after it has connected is not waited for, and is told nothing.
    let mut turned_away = 0;
    let mut asked = async |request: RequestBuilder| loop {
        turned_away += 1;
        match request.try_clone().expect("it is no stream").send().await {
            Ok(answer) => return answer,
            Err(error) => assert!(turned_away < 10, "{error:?}"),
        }
    };
    let large = format!(r#"{{"model":"gpt","messages":["{}"]}}"#, "Hello".repeat(10_000));
    let answer = asked(gateway.ask(ALICE, "/v1/chat/completions", large)).await;
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["retry-after"]),
        (503, &"1".parse().expect("a value"))
    );
    let error: serde_json::Value = answer.json().await.expect("JSON");
    assert_eq!(error["error"]["type"], "overloaded_error");
    let at = |path: &str| gateway.client.get(format!("http://{}{path}", gateway.tenants));
    // It lives, but has no room: nobody should start it anew, nor send it more.
    assert_eq!(asked(at("/healthz")).await.status(), 200);
    assert_eq!(asked(at("/readyz")).await.status(), 503);
    assert_eq!(upstream.record().admitted, 0);
    let metrics = gateway.at_page("/metrics").await;
    assert!(metrics.contains("gateway_connections 2\n"), "{metrics}");
    let refused = format!("gateway_connections_refused_total {turned_away}\n");
    assert!(metrics.contains(&refused), "{turned_away} in {metrics}");

    held.pop();
    let is_let_in = async || {
        let answer = gateway.ask(ALICE, "/v1/chat/completions", GOOD).send().await;
        answer.is_ok_and(|answer| answer.status() == 200)
    };
    until(is_let_in).await;
}
