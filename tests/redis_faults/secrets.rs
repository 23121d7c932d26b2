//! An API key on its way through everything that this crate puts before a server, watched from all
//! sides.

use std::{
    convert::Infallible,
    error::Error,
    fmt::{self, Write as _},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{Request, Response};
use metrics_util::debugging::DebuggingRecorder;
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_quota::{
    Key, Limiter, PolicyName, Quota, QuotaLayer, TokenBucketLayer,
    algorithm::{FixedWindow, Plan, TokenBucket},
    backend::{
        GuardedBuilder, Leased,
        guarded::Fallback,
        redis::{RedisBuilder, Server},
    },
    concurrency::{ConcurrencyLayer, SharedConcurrencyBuilder},
    http::{TooManyRequests, header},
    limiter::{All, AllDecision},
};

use super::{events, servers::Standalone};

const SECRET: &str = "sk-live-Zm9v/YmFyL3RvcA+31415926535";

const fn named(name: &'static str) -> PolicyName {
    PolicyName::from_static(name)
}

fn builder(server: &Server, name: &'static str) -> RedisBuilder<Server> {
    RedisBuilder::new(server.clone(), named(name)).timeout(Duration::from_millis(300))
}

/// Whatever was told, of which no part may be the secret.
#[derive(Debug, Default)]
struct Told(Vec<String>);

impl Told {
    fn error(&mut self, error: &(dyn Error + 'static)) {
        let mut line = format!("{error:?} {error}");
        let mut cause = error.source();
        while let Some(error) = cause {
            let _written = write!(line, ": {error:?} {error}");
            cause = error.source();
        }
        self.0.push(line);
    }

    fn debug(&mut self, value: &impl fmt::Debug) {
        self.0.push(format!("{value:?}"));
    }

    /// Asserts that what was told has neither the secret nor one of its usual codings in it.
    fn assert_keeps_the_secret(&self) {
        let mut codings = vec![SECRET.to_owned()];
        let hex: String = SECRET.bytes().map(|byte| format!("{byte:02x}")).collect();
        codings.push(SECRET.bytes().map(|byte| format!("\\x{byte:02x}")).collect());
        codings.push(format!("{:?}", SECRET.as_bytes()).trim_matches(['[', ']']).to_owned());
        codings.extend([hex.to_uppercase(), hex]);
        for before in 0..3 {
            // With so many bytes before it; those at the ends depend on their neighbors.
            let text = STANDARD.encode([vec![0; before], SECRET.into()].concat());
            let text = &text[4..text.len() - 4];
            codings.extend([text.to_owned(), text.replace('+', "-").replace('/', "_")]);
        }
        for line in &self.0 {
            let tells = codings.iter().find(|coding| line.contains(*coding));
            assert_eq!(tells, None, "{line}");
        }
    }
}

/// Sends three requests with the key, and tells what came back.
async fn send<S>(told: &mut Told, service: S)
where
    S: Service<Request<()>, Response = Response<String>, Error = Infallible> + Clone,
{
    for _ in 0..3 {
        let request = Request::builder().header("x-api-key", SECRET).body(()).expect("a request");
        let Ok(response) = service.clone().oneshot(request).await;
        told.debug(&response);
    }
}

/// What stands before a server, asked with the key.
struct Everything {
    server: Server,
}

impl Everything {
    async fn ask(&self, told: &mut Told) {
        let answer = service_fn(|_: Request<()>| async {
            Ok::<_, Infallible>(Response::new(String::from("hello")))
        });
        let hour = Quota::per_hour(2);
        let leased =
            Leased::new(builder(&self.server, "leased").build(), Duration::from_millis(100));
        let guarded = GuardedBuilder::new(Fallback::Refuse).name(named("redis")).build(leased);
        let layer = TokenBucketLayer::new(Quota::per_minute(6_000))
            .backend(guarded.clone())
            .key(header("x-api-key"))
            .answer(TooManyRequests::new());
        send(told, layer.layer(answer)).await;
        told.debug(&guarded);

        let plan = Plan::new().limit(named("one"), FixedWindow::new(hour));
        let plan = plan.limit(named("two"), TokenBucket::new(hour)).build().expect("a plan");
        let redis = builder(&self.server, "plan").strict_start().build();
        let layer = QuotaLayer::new(plan)
            .backend(redis.clone())
            .key(header("x-api-key"))
            .answer(TooManyRequests::new());
        send(told, layer.layer(answer)).await;
        told.debug(&redis);

        let slots = SharedConcurrencyBuilder::new(self.server.clone(), named("slots"), 1).build();
        let key = Key::secret(SECRET);
        // The second has none.
        let held = slots.try_acquire(&key, 1).await;
        let layer =
            ConcurrencyLayer::of(slots).key(header("x-api-key")).answer(TooManyRequests::new());
        send(told, layer.layer(answer)).await;
        told.debug(&held);

        let limiter = |name| {
            Limiter::new(TokenBucket::new(hour), builder(&self.server, name).build::<TokenBucket>())
        };
        let (one, two) = (limiter("one"), limiter("two"));
        let joined = Key::join([&Key::from("team"), &key]);
        for _ in 0..3 {
            match All::new().and(&one, &key, 1).and(&two, &joined, 1).decide().await {
                Ok(decision) => {
                    told.debug(&decision);
                    if let AllDecision::Allow(charges) = decision
                        && let Err(error) = charges.give_back().await
                    {
                        told.error(&error);
                    }
                }
                Err(error) => told.error(&error),
            }
            match one.decide(&joined, 1).await {
                Ok(decision) => told.debug(&decision),
                Err(error) => told.error(&error),
            }
        }
        told.debug(&(&key, &joined, &one));
    }
}

async fn watched(told: &mut Told) {
    let server = Standalone::start();
    let monitor = server.monitor();
    let everything = Everything { server: Server::open(server.url()).expect("a URL") };
    everything.ask(told).await;
    // Nothing of ours is where it was: each call fails, and says at which name.
    let names: Vec<String> = server.ask(&["KEYS", "*"]);
    assert!(names.len() >= 5, "{names:?}");
    for name in names {
        server.ask::<()>(&["SET", &name, "short"]);
    }
    everything.ask(told).await;
    told.0.extend(monitor.lines());
    drop(monitor);
    server.stop();
    everything.ask(told).await;
    server.kill();
    everything.ask(told).await;
}

#[test]
fn an_api_key_reaches_no_server_log_metric_error_or_answer() {
    events::listen();
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let mut told = Told::default();
    // In one thread: what its tasks tell is heard.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime without threads");
    metrics::with_local_recorder(&recorder, || runtime.block_on(watched(&mut told)));
    let (events, metrics) = (events::told(), snapshotter.snapshot().into_vec());
    assert!(!events.is_empty() && !metrics.is_empty(), "they were heard");
    told.0.extend(events);
    metrics.iter().for_each(|metric| told.debug(metric));
    told.assert_keeps_the_secret();
    assert!(told.0.iter().any(|line| line.contains("{h.")), "the server was told of a hash");
}
