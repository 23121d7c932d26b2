//! Streams that break off anywhere and come in pieces of any size: what passes is what the provider
//! sent, byte for byte, and what counts is what had passed.

use std::sync::{Arc, Mutex};

use axum::{Router, body::Body};
use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response, header::CONTENT_TYPE};
use http_body_util::BodyExt as _;
use serde_json::Value;
use tower::{BoxError, Layer as _, Service, ServiceExt as _, service_fn};
use tower_quota::{
    Quota,
    backend::LocalBuilder,
    http::PeekedBody,
    testing::strict_upstream::{Answers, Fault, ProviderLimit, StrictUpstream},
    upstream::{Account, UpstreamLayer},
};

use crate::support::{Paused, Store, left, profile};

/// A way in which a provider speaks.
#[derive(Clone, Copy, Debug)]
struct Dialect {
    profile: &'static str,
    path: &'static str,
    /// The limit whose use is looked at.
    limit: &'static str,
    /// What of it counts though nothing has been put out.
    counts_input: bool,
}

const OPENAI: Dialect = Dialect {
    profile: "openai",
    path: "/v1/chat/completions",
    limit: "tokens",
    counts_input: true,
};
const ANTHROPIC: Dialect = Dialect {
    profile: "anthropic",
    path: "/v1/messages",
    limit: "output-tokens",
    counts_input: false,
};

impl Dialect {
    fn question(self) -> &'static str {
        match self.profile {
            "anthropic" => {
                r#"{"model":"m","stream":true,"max_tokens":50,"messages":[{"role":"user","content":"How are you?"}]}"#
            }
            _ => {
                r#"{"model":"m","stream":true,"max_tokens":50,"stream_options":{"include_usage":true},"messages":[{"role":"user","content":"How are you?"}]}"#
            }
        }
    }
}

const TOKENS: u64 = 8;
/// What there is in a minute: in the time of these tests, which stands still, nothing comes back.
const QUOTA: u64 = 1_000_000;

/// A provider behind a network that parts bodies anew, and notes what it carries.
#[derive(Clone)]
struct Parted {
    router: Router,
    random: Arc<Mutex<u64>>,
    carried: Arc<Mutex<Vec<u8>>>,
}

impl Parted {
    async fn carry(self, request: Request<PeekedBody<Body>>) -> Result<Response<Body>, BoxError> {
        let answer = self.router.clone().oneshot(request).await?;
        let (mut parts, mut body) = answer.into_parts();
        // What counts here is what bodies say: the fields tell how the limits stand.
        parts.headers = parts
            .headers
            .remove(CONTENT_TYPE)
            .map(|kind| (CONTENT_TYPE, kind))
            .into_iter()
            .collect();
        let (mut whole, mut is_cut) = (Vec::new(), false);
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(frame) => whole.extend_from_slice(&frame.into_data().expect("data")),
                Err(_) => is_cut = true,
            }
        }
        self.carried.lock().expect("no panic").clone_from(&whole);
        let mut pieces = Vec::new();
        let mut rest = Bytes::from(whole);
        while !rest.is_empty() {
            let piece = rest.split_to(self.below(rest.len().min(40)) + 1);
            pieces.push(Ok(piece));
        }
        if is_cut {
            pieces.push(Err("the connection is gone"));
        }
        Ok(Response::from_parts(parts, Body::from_stream(futures::stream::iter(pieces))))
    }

    fn below(&self, bound: usize) -> usize {
        let mut random = self.random.lock().expect("no panic");
        *random ^= *random << 13;
        *random ^= *random >> 7;
        *random ^= *random << 17;
        (*random >> 11) as usize % bound
    }
}

/// A client, its account, what it asks, and what it has carried.
struct Setting {
    dialect: Dialect,
    upstream: StrictUpstream,
    account: Account<Store>,
    parted: Parted,
}

impl Setting {
    async fn new(dialect: Dialect, seed: u64) -> Self {
        let limits = [ProviderLimit::requests(QUOTA), ProviderLimit::tokens(QUOTA)];
        let upstream = StrictUpstream::builder()
            .account("org", ["sk-a"], limits)
            .answers(Answers::exactly(TOKENS))
            .build();
        let store = LocalBuilder::new().build_with_clock(Paused::new());
        let account = Account::builder(profile(dialect.profile))
            .backend(store)
            .jitter(std::time::Duration::ZERO)
            .limit(dialect.limit, Quota::per_minute(QUOTA))
            .build()
            .expect("the profile has it");
        let (random, carried) = (Arc::new(Mutex::new(seed)), Arc::default());
        let parted = Parted { router: upstream.router(), random, carried };
        let setting = Self { dialect, upstream, account, parted };
        // While nothing is used, which limit is nearest to refusing is of no account.
        setting.stream().await;
        setting
    }

    /// Asks for a stream: the bytes that came, whether it broke off, and what counted in the end.
    async fn stream(&self) -> (Vec<u8>, bool, u64) {
        let parted = self.parted.clone();
        let network = service_fn(move |request| -> BoxFuture<'static, _> {
            Box::pin(parted.clone().carry(request))
        });
        let mut client = UpstreamLayer::new(self.account.clone()).layer(network);
        let request = Request::post(self.dialect.path)
            .header("authorization", "Bearer sk-a")
            .header("x-api-key", "sk-a")
            .body(Body::from(self.dialect.question()))
            .expect("a valid request");
        let before = left(&self.account).await;
        let answer = client.ready().await.expect("always").call(request).await;
        let answer = answer.expect("an answer");
        assert_eq!(answer.status(), 200);
        let (mut body, mut came, mut is_cut) = (answer.into_body(), Vec::new(), false);
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(frame) => came.extend_from_slice(&frame.into_data().expect("data")),
                Err(_) => is_cut = true,
            }
        }
        drop(body);
        (came, is_cut, before - left(&self.account).await)
    }
}

/// What counts by the events of a stream that are whole, of which the input was estimated at so
/// much: what was told, and no less than a token for each text.
fn by_rule(dialect: Dialect, stream: &[u8], estimated: u64) -> u64 {
    let end = stream.windows(2).rposition(|pair| pair == b"\n\n").map_or(0, |end| end + 2);
    let (mut input, mut told, mut texts) = (estimated, 0, 0);
    let events = std::str::from_utf8(&stream[..end]).expect("whole events are text");
    for data in events.lines().filter_map(|line| line.strip_prefix("data: ")) {
        let Ok(event) = serde_json::from_str::<Value>(data) else { continue };
        let text = [&event["choices"][0]["delta"]["content"], &event["delta"]["text"]];
        texts +=
            u64::from(text.iter().any(|text| text.as_str().is_some_and(|text| !text.is_empty())));
        for usage in [&event["usage"], &event["message"]["usage"]] {
            let number = |names: [&str; 2]| names.iter().find_map(|name| usage[*name].as_u64());
            input = number(["prompt_tokens", "input_tokens"]).unwrap_or(input);
            told = number(["completion_tokens", "output_tokens"]).unwrap_or(told);
        }
    }
    told.max(texts) + if dialect.counts_input { input } else { 0 }
}

async fn is_settled_at_every_cut(dialect: Dialect) {
    let setting = Setting::new(dialect, 1).await;
    let (whole, is_cut, whole_counted) = setting.stream().await;
    assert!(!is_cut);
    assert_eq!(whole, *setting.parted.carried.lock().expect("no panic"));
    assert_eq!(whole_counted, by_rule(dialect, &whole, 0), "the whole tells all");
    let estimated = match dialect.counts_input {
        true => profile(dialect.profile).estimate(dialect.question().as_bytes()).input,
        false => 0,
    };
    assert!(estimated + TOKENS <= whole_counted, "what is told is no less than was estimated");
    for cut in 0..whole.len() + 40 {
        setting.upstream.inject(Fault::CutAt(cut));
        let (came, is_cut, counted) = setting.stream().await;
        assert_eq!(came, *setting.parted.carried.lock().expect("no panic"), "at byte {cut}");
        // Those that have shorter words are over where others break off.
        assert!(came.len() <= cut && (!is_cut || came.len() == cut), "at byte {cut}");
        let least = by_rule(dialect, &came, estimated);
        // Of an event that is not whole a text may have passed; of the one that tells the usage, a
        // number.
        let most = if least < estimated + TOKENS { least + 1 } else { whole_counted };
        let place = format!("{dialect:?} at byte {cut}: {counted} of {least}");
        assert!((least..=most).contains(&counted), "{place}");
        assert!(is_cut || counted == least, "{place}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_openai_that_is_cut_at_any_byte_passes_and_counts_as_far_as_it_came() {
    is_settled_at_every_cut(OPENAI).await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_anthropic_that_is_cut_at_any_byte_passes_and_counts_as_far_as_it_came() {
    is_settled_at_every_cut(ANTHROPIC).await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_in_pieces_of_any_size_passes_and_counts_as_one_in_one_piece() {
    for dialect in [OPENAI, ANTHROPIC] {
        let mut counts = Vec::new();
        for seed in 1..=200 {
            let setting = Setting::new(dialect, 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed)).await;
            let (came, is_cut, counted) = setting.stream().await;
            assert_eq!(came, *setting.parted.carried.lock().expect("no panic"), "seed {seed}");
            assert!(!is_cut && !came.is_empty());
            counts.push(counted);
        }
        assert!(counts.iter().all(|counted| *counted == counts[0]), "{dialect:?}: {counts:?}");
    }
}
