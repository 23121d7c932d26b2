//! Callers that mean harm, and what is told of those that do not.

#[path = "../support/events.rs"]
mod events;

use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use prost::Message;
use tonic::{Code as Grpc, Response, Status};
use tonic_prost::ProstCodec;
use tower_quota::quota_service::{
    Ask, BearerTokens, Descriptor,
    envoy::{
        RateLimitServer,
        proto::{Code, RateLimitResponse},
    },
};

use crate::support::{Client, descriptor, request, serve, service, told, with_hits};

const RULES: &str = r#"
    domain = "edge"
    descriptors = [
        { key = "user", rate_limit = { unit = "minute", requests_per_unit = 2 } },
        { key = "path", detailed_metric = true, rate_limit = { unit = "minute", requests_per_unit = 2 } },
    ]
"#;

/// The same message with bytes where texts are.
#[derive(Clone, PartialEq, Message)]
struct Raw {
    #[prost(bytes = "vec", tag = "1")]
    domain: Vec<u8>,
    #[prost(bytes = "vec", repeated, tag = "2")]
    descriptors: Vec<Vec<u8>>,
}

async fn send(client: &Client, raw: Raw) -> Result<RateLimitResponse, Status> {
    let mut grpc = tonic::client::Grpc::new(client.channel());
    grpc.ready().await.expect("a connection");
    let path = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";
    let path = http::uri::PathAndQuery::from_static(path);
    let codec = ProstCodec::<Raw, RateLimitResponse>::default();
    grpc.unary(tonic::Request::new(raw), path, codec).await.map(Response::into_inner)
}

#[tokio::test]
async fn messages_that_cannot_be_read_are_refused_and_the_next_is_answered() {
    let client = Client::of(&service(RULES).0).await;
    let no_text = Raw { domain: vec![0xff, 0xfe], descriptors: vec![] };
    let broken = Raw { domain: b"edge".to_vec(), descriptors: vec![vec![0x0a, 0x7f, 1, 2, 3]] };
    let large = Raw { domain: vec![b'a'; 1_000_000], descriptors: vec![] };
    for raw in [no_text, broken, large] {
        let refused = send(&client, raw).await.expect_err("an error");
        assert!(matches!(refused.code(), Grpc::Internal | Grpc::OutOfRange), "{refused:?}");
    }
    let answer = client.ask(request("edge", [descriptor(&[("user", "alice")])])).await;
    assert_eq!(told(&answer).1, [(Code::Ok, 1)]);
}

#[tokio::test]
async fn what_is_larger_than_any_request_is_an_error_of_its_sender() {
    let client = Client::of(&service(RULES).0).await;
    let long = "x".repeat(5_000);
    let many = vec![descriptor(&[("user", "a")]); 65];
    let deep = vec![("user", "a"); 33];
    let cases = [
        request("edge", [descriptor(&[("user", &long)])]),
        request("edge", [descriptor(&[(&long, "a")])]),
        request("edge", [descriptor(&deep)]),
        {
            let mut wide = request("edge", []);
            wide.descriptors = many;
            wide
        },
    ];
    for asked in cases {
        assert_eq!(client.refused(asked).await, Grpc::InvalidArgument);
    }
}

#[tokio::test]
async fn no_number_of_hits_overflows_or_frees_anything() {
    let client = Client::of(&service(RULES).0).await;
    let all = || request("edge", [with_hits(descriptor(&[("user", "alice")]), u64::MAX)]);
    for _ in 0..3 {
        assert_eq!(told(&client.ask(all()).await).0, Code::OverLimit);
    }
    let back = || {
        let mut back = all();
        back.descriptors[0].is_negative_hits = true;
        back
    };
    for _ in 0..3 {
        assert_eq!(told(&client.ask(back()).await).1, [(Code::Ok, 2)]);
    }
    let one = || request("edge", [descriptor(&[("user", "alice")])]);
    let codes = [client.ask(one()).await, client.ask(one()).await, client.ask(one()).await];
    let codes = codes.map(|answer| told(&answer).0);
    assert_eq!(codes, [Code::Ok, Code::Ok, Code::OverLimit]);
}

#[tokio::test]
async fn values_that_look_like_something_else_are_values() {
    let client = Client::of(&service(RULES).0).await;
    let values =
        ["", "*", "a*", "a\0", "a\r\nb", "{a}", "../a", "a_b", "é", "e\u{301}", "a", "A", "a "];
    for _ in 0..2 {
        for value in values {
            let answer = client.ask(request("edge", [descriptor(&[("user", value)])])).await;
            assert_eq!(told(&answer).0, Code::Ok, "{value:?}");
        }
    }
    for value in values {
        let answer = client.ask(request("edge", [descriptor(&[("user", value)])])).await;
        assert_eq!(told(&answer).0, Code::OverLimit, "{value:?}");
    }
}

#[tokio::test]
async fn only_who_has_the_token_is_answered() {
    let tokens = BearerTokens::new(["right"]);
    let address = serve(RateLimitServer::new(service(RULES).0).tokens(tokens)).await;
    let asked = || request("edge", [descriptor(&[("user", "alice")])]);
    let client = Client::to(address);
    assert_eq!(client.refused(asked()).await, Grpc::Unauthenticated);
    assert_eq!(client.clone().token("wrong").refused(asked()).await, Grpc::Unauthenticated);
    assert_eq!(told(&client.token("right").ask(asked()).await).0, Code::Ok);
}

#[tokio::test]
async fn another_method_is_not_implemented() {
    let client = Client::of(&service(RULES).0).await;
    let mut grpc = tonic::client::Grpc::new(client.channel());
    grpc.ready().await.expect("a connection");
    let path =
        http::uri::PathAndQuery::from_static("/envoy.service.ratelimit.v3.RateLimitService/Other");
    let codec = ProstCodec::<Raw, RateLimitResponse>::default();
    let refused = grpc.unary(tonic::Request::new(Raw::default()), path, codec).await;
    assert_eq!(refused.map(|_| ()).map_err(|status| status.code()), Err(Grpc::Unimplemented));
}

#[test]
fn values_and_tokens_are_in_no_event_no_metric_and_no_debug_text() {
    const SECRET: &str = "sk-very-secret";
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    events::listen();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let told = metrics::with_local_recorder(&recorder, || {
        runtime.expect("a runtime").block_on(async {
            let (service, _) = service(RULES);
            let ask = Ask::new("edge", [Descriptor::new([("user", SECRET)])]);
            let mut told = Vec::new();
            for _ in 0..3 {
                told.push(format!("{:?}", service.ask(&ask).await));
            }
            let (verdict, id) =
                service.reserve(&ask, std::time::Duration::from_secs(1)).await.expect("a verdict");
            told.push(format!("{verdict:?} {id:?} {ask:?} {service:?}"));
            told.push(format!("{:?}", BearerTokens::new([SECRET])));
            let server = RateLimitServer::new(service.clone()).tokens(BearerTokens::new([SECRET]));
            told.push(format!("{server:?}"));
            let seen = Ask::new("edge", [Descriptor::new([("path", "/seen")])]);
            service.ask(&seen).await.expect("a verdict");
            told
        })
    });
    let metrics: Vec<_> = snapshotter
        .snapshot()
        .into_vec()
        .into_iter()
        .map(|(key, _, _, value)| {
            let DebugValue::Counter(value) = value else { panic!("a counter") };
            (format!("{}", key.key()), value)
        })
        .collect();
    let all = format!("{told:?} {:?} {metrics:?}", events::told());
    assert!(!all.contains(SECRET), "{all}");
    // What a rule was told to tell is told.
    let of = |rule: &str, result: &str| {
        let found = metrics.iter().find(|(key, _)| key.contains(rule) && key.contains(result));
        found.map(|(_, value)| *value)
    };
    assert_eq!(of("edge/user", "admitted"), Some(2), "{metrics:?}");
    assert_eq!(of("edge/user", "refused"), Some(2), "{metrics:?}");
    assert_eq!(of("edge/path=/seen", "admitted"), Some(1), "{metrics:?}");
}

#[tokio::test(start_paused = true)]
async fn a_message_that_does_not_come_is_not_waited_for() {
    let mut server = RateLimitServer::new(service(RULES).0);
    let never = futures::stream::pending::<Result<bytes::Bytes, std::io::Error>>();
    let request =
        http::Request::post("/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit")
            .header("content-type", "application/grpc")
            .body(axum::body::Body::from_stream(never))
            .expect("a request");
    let answer = tower::Service::call(&mut server, request).await.expect("an answer");
    let status = Status::from_header_map(answer.headers()).expect("a status");
    assert_eq!(status.code(), Grpc::DeadlineExceeded);
}
