//! A provider and tenants for the demonstration.

use std::{future::IntoFuture as _, net::SocketAddr, sync::Mutex, time::Duration};

use axum::body::Body;
use http::{
    HeaderValue, Request,
    header::{CONTENT_TYPE, RETRY_AFTER},
};
use http_body_util::BodyExt as _;
use tokio::{net::TcpListener, task::JoinSet, time::sleep};
use tower::BoxError;
use tower_quota::testing::strict_upstream::{Answers, ProviderLimit, StrictUpstream, Told};

use crate::{
    config::Config,
    live::Gateway,
    numbers::{Outcome, lock},
    upstream::{Client, client},
};

pub(crate) struct Demo {
    upstream: StrictUpstream,
    address: SocketAddr,
    tasks: Mutex<JoinSet<()>>,
}

/// A tenant of the demonstration, and how it asks.
#[derive(Clone, Copy)]
struct Habits {
    key: &'static str,
    model: &'static str,
    /// Callers that ask at the same time, and the mean pause between two questions of one.
    callers: u64,
    pause: Duration,
    /// Of a hundred questions so many are one that was asked before.
    repeats: u64,
}

impl Demo {
    pub(crate) async fn start() -> Result<Self, BoxError> {
        let upstream = StrictUpstream::builder()
            .account(
                "north",
                ["sk-north"],
                [ProviderLimit::requests(60), ProviderLimit::tokens(24_000)],
            )
            .account(
                "south",
                ["sk-south"],
                [ProviderLimit::requests(40), ProviderLimit::tokens(16_000)],
            )
            .account(
                "west",
                ["sk-west"],
                [
                    ProviderLimit::requests(30),
                    ProviderLimit::input_tokens(10_000),
                    ProviderLimit::output_tokens(6_000),
                ],
            )
            .answers(Answers::heavy_tailed(40, 1_200, 7))
            .latency(Duration::from_millis(250), Duration::from_millis(4))
            .build();
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let mut tasks = JoinSet::new();
        let server = axum::serve(listener, upstream.router()).into_future();
        tasks.spawn(async move { drop(server.await) });
        Ok(Self { upstream, address, tasks: Mutex::new(tasks) })
    }

    /// The same form as a file's.
    pub(crate) fn config(&self) -> Result<Config, BoxError> {
        let text = include_str!("demo.toml").replace("UPSTREAM", &self.address.to_string());
        let mut config = Config::of_text("demo.toml", &text, &|name| {
            // The demonstration's secrets are none.
            Some(format!("sk-{}", name.strip_prefix("DEMO_")?.to_ascii_lowercase()))
        })?;
        // Somebody else may be there already.
        for address in [&mut config.server.listen, &mut config.server.page] {
            if std::net::TcpListener::bind(*address).is_err() {
                address.set_port(0);
            }
        }
        Ok(config)
    }

    /// Lets the tenants ask, and the provider change its mind from time to time.
    pub(crate) fn ask(&self, gateway: SocketAddr) {
        let mut tasks = lock(&self.tasks);
        let client = client();
        for habits in HABITS {
            for caller in 0..habits.callers {
                tasks.spawn(caller_of(habits, caller, gateway, client.clone()));
            }
        }
        let upstream = self.upstream.clone();
        tasks.spawn(async move {
            for round in 0_u64.. {
                sleep(Duration::from_secs(40)).await;
                let (amount, told) =
                    if round % 2 == 0 { (12_000, Told::AtOnce) } else { (24_000, Told::AtOnce) };
                upstream.change_limit("north", 1, amount, told);
            }
        });
    }

    /// The tenants leave.
    pub(crate) fn quiet(&self) {
        lock(&self.tasks).abort_all();
    }

    pub(crate) fn sum_up(&self, gateway: &Gateway) {
        let (all, record) = (&gateway.numbers.all, self.upstream.record());
        println!("\nWhat tenants had:");
        for (outcome, name) in Outcome::ALL {
            println!("  {name:9} {:5}", all.of(outcome));
        }
        println!("What the provider saw:");
        println!("  admitted  {:5}", record.admitted);
        println!("  over a limit (429) {:5}", record.refused.len());
    }
}

async fn caller_of(habits: Habits, caller: u64, gateway: SocketAddr, client: Client) {
    let mut random =
        Random(caller ^ (habits.key.len() as u64) << 32 ^ habits.pause.as_nanos() as u64);
    // Not all at once.
    sleep(habits.pause.mul_f64(random.below(1_000) as f64 / 1_000.0)).await;
    for number in 0_u64.. {
        let question = if random.below(100) < habits.repeats {
            String::from("What is a token bucket?")
        } else {
            let words = 10 + random.below(300);
            format!("{caller}.{number} {}", "why ".repeat(words as usize))
        };
        let is_stream = random.below(2) == 0;
        let (path, more) = if habits.model == "claude-demo" {
            ("/v1/messages", r#","max_tokens":600"#)
        } else {
            ("/v1/chat/completions", r#","stream_options":{"include_usage":true}"#)
        };
        let body = format!(
            r#"{{"model":"{}","stream":{is_stream},"messages":[{{"role":"user","content":"{question}"}}]{more}}}"#,
            habits.model
        );
        let request = Request::post(format!("http://{gateway}{path}"))
            .header(CONTENT_TYPE, "application/json")
            .header("x-api-key", habits.key)
            .body(Body::from(body));
        let Ok(mut request) = request else { continue };
        if habits.key == "sk-night" && number % 2 == 0 {
            // Nobody waits for half of the answers of the night.
            request.headers_mut().insert("prefer", HeaderValue::from_static("respond-async"));
        }
        if let Ok(response) = client.request(request).await {
            let after = response.headers().get(RETRY_AFTER).and_then(|after| after.to_str().ok());
            let after = after.and_then(|after| after.parse().ok()).unwrap_or(0);
            drop(response.into_body().collect().await);
            sleep(Duration::from_secs(after)).await;
        }
        sleep(habits.pause.mul_f64(0.2 + random.below(1_600) as f64 / 1_000.0)).await;
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

const HABITS: [Habits; 4] = [
    Habits {
        key: "sk-alice",
        model: "gpt-demo",
        callers: 3,
        pause: Duration::from_millis(2_500),
        repeats: 30,
    },
    Habits {
        key: "sk-bob",
        model: "gpt-demo",
        callers: 4,
        pause: Duration::from_millis(3_500),
        repeats: 10,
    },
    Habits {
        key: "sk-carol",
        model: "claude-demo",
        callers: 3,
        pause: Duration::from_millis(3_000),
        repeats: 20,
    },
    Habits {
        key: "sk-night",
        model: "gpt-demo",
        callers: 8,
        pause: Duration::from_millis(2_000),
        repeats: 0,
    },
];
