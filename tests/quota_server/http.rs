//! The plain HTTP interface, asked as any program would.

use std::{net::SocketAddr, time::Duration};

use reqwest::{Client, Method, Response, StatusCode};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tower_quota::quota_service::{BearerTokens, QuotaService, http::QuotaRouter};

use crate::{
    envoy::Broken,
    support::{serve_http, service},
};

const RULES: &str = r#"
    response_headers = "ietf"
    domain = "edge"
    descriptors = [
        { key = "user", rate_limit = { unit = "minute", requests_per_unit = 3, name = "per-user" } },
        { key = "tokens", rate_limit = { quota = "100/min", algorithm = "token-bucket", name = "tokens" } },
        { key = "slow", rate_limit = { quota = "10/s", algorithm = "leaky-bucket" } },
    ]
"#;

struct Api {
    address: SocketAddr,
    client: Client,
}

impl Api {
    async fn start() -> Self {
        Self::of(QuotaRouter::new(service(RULES).0)).await
    }

    async fn of(router: QuotaRouter) -> Self {
        Self { address: serve_http(router).await, client: Client::new() }
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, format!("http://{}{path}", self.address))
    }

    async fn send(&self, method: Method, path: &str, body: &Value) -> Answer {
        Answer::of(self.request(method, path).json(body).send().await.expect("an answer")).await
    }

    async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::POST, path, body).await
    }

    async fn raw(&self, path: &str, body: Vec<u8>) -> Answer {
        let request = self.request(Method::POST, path).body(body);
        Answer::of(request.send().await.expect("an answer")).await
    }
}

struct Answer {
    status: StatusCode,
    headers: reqwest::header::HeaderMap,
    body: Value,
    text: String,
}

impl Answer {
    async fn of(response: Response) -> Self {
        let (status, headers) = (response.status(), response.headers().clone());
        let text = response.text().await.expect("a body");
        let body = serde_json::from_str(&text).unwrap_or_default();
        Self { status, headers, body, text }
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("text"))
    }

    #[track_caller]
    fn is_problem(&self, status: u16) {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        assert_eq!(self.body["status"], status);
        assert!(self.body["title"].is_string() && self.body["type"].is_string());
    }
}

fn of(key: &str, value: &str) -> Value {
    json!({ "entries": [{ "key": key, "value": value }] })
}

fn ask(descriptors: &[Value]) -> Value {
    json!({ "domain": "edge", "descriptors": descriptors })
}

#[tokio::test]
async fn a_decision_is_200_and_a_refusal_429_with_a_problem() {
    let api = Api::start().await;
    let alice = ask(&[of("user", "alice")]);
    for left in [2, 1, 0] {
        let answer = api.post("/v1/decide", &alice).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.header("ratelimit"), Some(&*format!("\"per-user\";r={left};t=60")));
        let expected = json!({
            "allowed": true,
            "delay_ms": 0,
            "descriptors": [{
                "status": "ok",
                "limit": { "requests_per_unit": 3, "unit": "minute", "name": "per-user" },
                "remaining": left,
                "reset_after_ms": 60_000,
            }],
        });
        assert_eq!(answer.body, expected);
    }
    let refused = api.post("/v1/decide", &alice).await;
    refused.is_problem(429);
    assert_eq!(refused.header("retry-after"), Some("60"));
    assert_eq!(refused.body["violated-policies"], json!(["per-user"]));
    assert_eq!(refused.body["retry_after_ms"], 60_000);
    assert_eq!(refused.body["descriptors"][0]["status"], "over_limit");
}

#[tokio::test]
async fn several_keys_are_charged_together_or_not_at_all() {
    let api = Api::start().await;
    let mut tokens = of("tokens", "red");
    tokens["hits"] = json!(60);
    let both = ask(&[of("user", "alice"), tokens]);
    assert_eq!(api.post("/v1/decide", &both).await.status, StatusCode::OK);
    let refused = api.post("/v1/decide", &both).await;
    refused.is_problem(429);
    assert_eq!(refused.body["descriptors"][0]["status"], "ok");
    assert_eq!(refused.body["descriptors"][0]["remaining"], 2);
    assert_eq!(refused.body["descriptors"][1]["remaining"], 40);
    let user = api.post("/v1/inspect", &ask(&[of("user", "alice"), of("nothing", "")])).await;
    assert_eq!(user.body["descriptors"][0]["remaining"], 2);
    assert_eq!(user.body["descriptors"][1], json!({ "status": "no_rule" }));
}

#[tokio::test]
async fn a_reservation_is_settled_both_ways_or_given_back_and_once_only() {
    let api = Api::start().await;
    let reserve = json!({
        "domain": "edge",
        "descriptors": [{ "entries": [{ "key": "tokens", "value": "red" }], "hits": 40 }],
        "expires_in_ms": 30_000,
    });
    let mut at_once = reserve.clone();
    at_once["expires_in_ms"] = json!(0);
    api.post("/v1/reservations", &at_once).await.is_problem(400);
    let left = async || {
        let answer = api.post("/v1/inspect", &ask(&[of("tokens", "red")])).await;
        answer.body["descriptors"][0]["remaining"].clone()
    };
    let mut paths = Vec::new();
    for _ in 0..2 {
        let answer = api.post("/v1/reservations", &reserve).await;
        assert_eq!(answer.status, StatusCode::CREATED);
        assert_eq!(answer.body["expires_in_ms"], 30_000);
        paths.push(format!("/v1/reservations/{}", answer.body["id"].as_str().expect("an id")));
    }
    assert_eq!(left().await, 20);
    api.post("/v1/reservations", &reserve).await.is_problem(429);

    let settled = api.send(Method::PUT, &paths[0], &json!({ "hits": 10 })).await;
    assert_eq!(settled.status, StatusCode::NO_CONTENT);
    assert_eq!(left().await, 50);
    api.send(Method::PUT, &paths[0], &json!({ "hits": 10 })).await.is_problem(404);
    api.send(Method::DELETE, &paths[0], &json!({})).await.is_problem(404);

    let returned = api.send(Method::DELETE, &paths[1], &json!({})).await;
    assert_eq!(returned.status, StatusCode::NO_CONTENT);
    assert_eq!(left().await, 90);

    // More than was reserved is debt.
    let answer = api.post("/v1/reservations", &reserve).await;
    let path = format!("/v1/reservations/{}", answer.body["id"].as_str().expect("an id"));
    api.send(Method::PUT, &path, &json!({ "hits": [200] })).await;
    api.post("/v1/decide", &ask(&[of("tokens", "red")])).await.is_problem(429);

    for id in [
        "x",
        "0",
        "00000000000000000000000000000000",
        "..%2f..",
        "+0000000000000000000000000000000",
    ] {
        let path = format!("/v1/reservations/{id}");
        api.send(Method::PUT, &path, &json!({ "hits": 0 })).await.is_problem(404);
    }
    let rules = Answer::of(api.request(Method::GET, "/v1/rules").send().await.expect("an answer"));
    assert_eq!(rules.await.body["open_reservations"], 0);
}

#[tokio::test]
async fn a_leaky_bucket_tells_when_the_turn_comes() {
    let api = Api::start().await;
    for delay in [0, 100, 200] {
        let answer = api.post("/v1/decide", &ask(&[of("slow", "")])).await;
        assert_eq!(answer.body["delay_ms"], delay);
    }
    let answer = api.post("/v1/reservations", &ask(&[of("slow", "")])).await;
    assert_eq!(answer.body["delay_ms"], 300);
}

#[tokio::test]
async fn without_a_token_only_health_is_told() {
    let tokens = BearerTokens::new(["right", "other", ""]);
    let api = Api::of(QuotaRouter::new(service(RULES).0).tokens(tokens)).await;
    let alice = ask(&[of("user", "alice")]);
    let denied = api.post("/v1/decide", &alice).await;
    denied.is_problem(401);
    assert_eq!(denied.header("www-authenticate"), Some("Bearer"));
    let by = async |value: &str| {
        let request = api.request(Method::POST, "/v1/decide").header("authorization", value);
        request.json(&alice).send().await.expect("an answer").status().as_u16()
    };
    for wrong in ["Bearer wrong", "Bearer ", "Bearer", "Basic right", "right", "Bearer right2"] {
        assert_eq!(by(wrong).await, 401, "{wrong}");
    }
    for right in ["Bearer right", "bearer other"] {
        assert_eq!(by(right).await, 200, "{right}");
    }
    for (path, status) in [("/healthz", 200), ("/readyz", 200), ("/v1/rules", 401)] {
        let answer = api.request(Method::GET, path).send().await.expect("an answer");
        assert_eq!(answer.status(), status, "{path}");
    }
}

#[tokio::test]
async fn bad_requests_are_refused_cleanly_and_nothing_of_them_is_repeated() {
    let api = Api::start().await;
    let secret = "sk-very-secret";
    let bodies: [Vec<u8>; 8] = [
        b"".to_vec(),
        b"{".to_vec(),
        format!("{{\"domain\": \"{secret}\"}}").into(),
        format!("{{\"domain\": \"edge\", \"descriptors\": [], \"{secret}\": 1}}").into(),
        format!("{{\"domain\": \"edge\", \"descriptors\": \"{secret}\"}}").into(),
        [b"{\"domain\": \"".as_slice(), &[0xff, 0xfe], b"\", \"descriptors\": []}"].concat(),
        b"[".repeat(30_000),
        json!({ "domain": "edge", "descriptors": [], "hits": -1 }).to_string().into(),
    ];
    for body in bodies {
        let told = String::from_utf8_lossy(&body).chars().take(80).collect::<String>();
        let answer = api.raw("/v1/decide", body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{told}");
        answer.is_problem(400);
        assert!(!answer.text.contains(secret), "{}", answer.text);
    }
    let wrong = [
        json!({ "domain": "", "descriptors": [of("user", "a")] }),
        ask(&[]),
        ask(&[json!({ "entries": [] })]),
        ask(&[of("", "a")]),
        ask(&[of("user", &"a".repeat(5_000))]),
        ask(&vec![of("user", "a"); 65]),
        ask(&[json!({ "entries": vec![json!({ "key": "a", "value": "b" }); 33] })]),
        ask(&[
            json!({ "entries": [{ "key": "a" }], "limit": { "unit": "eon", "requests_per_unit": 1 } }),
        ]),
    ];
    for body in wrong {
        api.post("/v1/decide", &body).await.is_problem(400);
    }
    api.raw("/v1/decide", vec![b' '; 70_000]).await.is_problem(413);
    api.post("/v1/nothing", &json!({})).await.is_problem(404);
    api.post("/", &json!({})).await.is_problem(404);
    api.send(Method::GET, "/v1/decide", &json!({})).await.is_problem(405);
    // It still serves.
    assert_eq!(api.post("/v1/decide", &ask(&[of("user", "a")])).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_body_that_comes_too_slowly_is_not_waited_for() {
    let router = QuotaRouter::new(service(RULES).0).read_timeout(Duration::from_millis(20));
    let address = serve_http(router).await;
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    let head = "POST /v1/decide HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.expect("it is sent");
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 408");
}

#[tokio::test]
async fn a_store_that_fails_is_503_and_not_ready() {
    let broken = QuotaService::new(RULES.parse().expect("rules"), Broken);
    let api = Api::of(QuotaRouter::new(broken)).await;
    api.post("/v1/decide", &ask(&[of("user", "alice")])).await.is_problem(503);
    let answer = api.request(Method::GET, "/readyz").send().await.expect("an answer");
    Answer::of(answer).await.is_problem(503);
    let alive = api.request(Method::GET, "/healthz").send().await.expect("an answer");
    assert_eq!(alive.status(), StatusCode::OK);
}
