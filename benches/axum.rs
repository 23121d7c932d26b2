//! A whole server: axum on loopback, the server on one thread and the callers on another, in turn
//! without a limiter, with ours and with the peer's. Prints Markdown.
//!
//! `cargo bench --features axum,coarse-clock --bench axum`, under a minute; for a moment only: add
//! `-- --quick`. Without `coarse-clock` it cannot read the server's processor time.
#![expect(clippy::disallowed_methods, reason = "a bench measures real time")]
#![expect(clippy::print_stdout, reason = "a program that prints a table")]

#[path = "support/callers.rs"]
mod callers;
#[path = "support/server.rs"]
mod server;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{Router, routing::get};
use tower_governor::{GovernorLayer, governor::GovernorConfigBuilder};
use tower_quota::{
    Quota, TokenBucketLayer,
    http::{ClientAddr, FieldStyles, TooManyRequests},
};

use self::{callers::Callers, server::Server};

/// A server's app, and the status with which it answers.
struct Variant {
    name: &'static str,
    app: Router,
    status: u16,
}

fn variants() -> Vec<Variant> {
    let app = || Router::new().route("/", get(|| async { "hello" }));
    let variant = |name, app, status| Variant { name, app, status };

    let ours = |quota, answer: TooManyRequests| {
        TokenBucketLayer::new(quota).key(ClientAddr::new()).answer(answer)
    };
    let unreached = Quota::per_second(1_000_000_000);
    let quiet = TooManyRequests::new().fields(FieldStyles::NONE);

    let mut config = GovernorConfigBuilder::default();
    config.per_nanosecond(1).burst_size(u32::MAX);
    let governor = config.finish().expect("the quota is not zero");
    let with_fields = config.use_headers().finish().expect("the quota is not zero");
    let mut config = GovernorConfigBuilder::default();
    let spent = config.per_second(86_400).burst_size(1).finish().expect("the quota is not zero");
    let (governor, with_fields, spent) =
        (Arc::new(governor), Arc::new(with_fields), Arc::new(spent));

    vec![
        variant("no limiter", app(), 200),
        variant("no limiter again: the noise", app(), 200),
        variant("tower-quota, admits", app().layer(ours(unreached, quiet.clone())), 200),
        variant("tower_governor, admits", app().layer(GovernorLayer::new(governor)), 200),
        variant(
            "tower-quota, admits, with fields",
            app().layer(ours(unreached, TooManyRequests::new())),
            200,
        ),
        variant(
            "tower_governor, admits, with fields",
            app().layer(GovernorLayer::new(with_fields)),
            200,
        ),
        variant(
            "tower-quota, refuses, problem and fields",
            app().layer(ours(Quota::per_day(1), TooManyRequests::new())),
            429,
        ),
        variant(
            "tower-quota, refuses, `Retry-After` alone",
            app().layer(
                TokenBucketLayer::new(Quota::per_day(1))
                    .key(ClientAddr::new())
                    .answer(quiet.empty_body()),
            ),
            429,
        ),
        variant("tower_governor, refuses", app().layer(GovernorLayer::new(spent)), 429),
    ]
}

/// What one round of one variant showed.
#[derive(Clone, Copy)]
struct Round {
    per_second: f64,
    /// The server's processor time for a request, in nanoseconds. Only Linux tells it.
    server: Option<f64>,
}

fn main() {
    // Without `--bench` it is cargo's test run.
    let is_bench = std::env::args().any(|argument| argument == "--bench");
    let is_quick = !is_bench || std::env::args().any(|argument| argument == "--quick");
    let (rounds, length) = if is_quick { (3, 100) } else { (21, 250) };
    let length = Duration::from_millis(length);

    let variants = variants();
    let server = Server::start(variants.iter().map(|variant| variant.app.clone()).collect());
    let mut callers: Vec<Callers> = server.addresses().iter().map(Callers::connect).collect();

    let mut results = vec![Vec::new(); variants.len()];
    // The first round warms up, and spends the quotas that are to be spent.
    for round in 0..=rounds {
        for (at, callers) in callers.iter_mut().enumerate() {
            let result = run(&server, callers, length);
            if round > 0 {
                assert_eq!(callers.last_status(), variants[at].status, "{}", variants[at].name);
                results[at].push(result);
            }
        }
    }
    print(&variants, &results);
}

fn run(server: &Server, callers: &mut Callers, length: Duration) -> Round {
    let used_before = server.processor_time();
    let begin = Instant::now();
    let mut requests = 0;
    while begin.elapsed() < length {
        requests += callers.call();
    }
    let elapsed = begin.elapsed();
    let used = server.processor_time().zip(used_before).map(|(after, before)| after - before);
    Round {
        per_second: requests as f64 / elapsed.as_secs_f64(),
        server: used.map(|used| used.as_nanos() as f64 / requests as f64),
    }
}

/// Each figure is the median of the rounds; ratios and differences are taken round by round, with
/// the first variant of the same round.
fn print(variants: &[Variant], results: &[Vec<Round>]) {
    let rounds = results[0].len();
    println!("Requests over {} connections, medians of {rounds} rounds.\n", callers::CONNECTIONS);
    println!(
        "| server | requests/s | × no limiter (10th to 90th percentile) | server µs a request \
         | ns above no limiter |"
    );
    println!("|---|---:|---:|---:|---:|");
    for (variant, own) in variants.iter().zip(results) {
        let pairs = || own.iter().zip(&results[0]);
        let per_second = quantiles(own.iter().map(|round| round.per_second));
        let ratio = quantiles(pairs().map(|(own, bare)| own.per_second / bare.per_second));
        let server = quantiles(own.iter().filter_map(|round| round.server));
        let above = pairs().filter_map(|(own, bare)| Some(own.server? - bare.server?));
        let above = quantiles(above);
        let shown = |figure: Option<[f64; 3]>, unit: f64, digits: usize| {
            figure
                .map_or_else(|| "-".into(), |[_, median, _]| format!("{:.digits$}", median / unit))
        };
        let [low, _, high] = ratio.unwrap_or_default();
        println!(
            "| {} | {} | {} ({low:.3}–{high:.3}) | {} | {} |",
            variant.name,
            shown(per_second, 1.0, 0),
            shown(ratio, 1.0, 3),
            shown(server, 1_000.0, 2),
            shown(above, 1.0, 0),
        );
    }
}

/// The 10th percentile, the median and the 90th percentile.
fn quantiles(figures: impl Iterator<Item = f64>) -> Option<[f64; 3]> {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_unstable_by(f64::total_cmp);
    let last = figures.len().checked_sub(1)?;
    Some([0.1, 0.5, 0.9].map(|part| figures[(last as f64 * part).round() as usize]))
}
