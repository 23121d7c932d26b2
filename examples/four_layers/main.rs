//! Sends one bursty stream of HTTP requests through each of the four layers, draws what they do
//! with it, and holds them to their promises.
//!
//! ```sh
//! cargo run --example four_layers
//! ```
//!
//! It takes eight seconds, and fails if a promise is broken. The layers are in `server.rs`, what is
//! sent in `stream.rs`, and what is measured in `promises.rs`.

#![expect(clippy::print_stdout, reason = "an example talks to its reader")]

mod client;
mod picture;
mod promises;
mod server;
mod stream;

use std::{error::Error, time::Duration};

use tower_quota::time::{Clock, MonotonicClock, Timestamp};

use self::{picture::Picture, promises::Promise, server::Logbook};

/// What is said of a layer, and what it must keep.
struct Layer {
    route: &'static str,
    title: &'static str,
    character: &'static str,
    promise: Promise,
}

const LAYERS: [Layer; 4] = [
    Layer {
        route: "/token_bucket",
        title: "TokenBucketLayer",
        character: "a burst, then a steady rate",
        promise: Promise::TokenBucket,
    },
    Layer {
        route: "/leaky_bucket",
        title: "LeakyBucketLayer",
        character: "delay instead of refusal",
        promise: Promise::LeakyBucket,
    },
    Layer {
        route: "/fixed_window",
        title: "FixedWindowLayer",
        character: "everything at once, then nothing",
        promise: Promise::FixedWindow,
    },
    Layer {
        route: "/sliding_window",
        title: "SlidingWindowLayer",
        character: "what the last second leaves",
        promise: Promise::SlidingWindow,
    },
];

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let clock = MonotonicClock::new();
    let logbooks = LAYERS.map(|_| Logbook::new(clock.clone()));
    let address = server::start(&logbooks).await?;
    let client = client::connect(address).await?;

    let picture = Picture::for_stdout();
    print!("{}", picture.of_stream());

    // The stream begins with a second of the clock, so that its borders are the fixed window's.
    let start = next_second(clock.now().saturating_add(Duration::from_millis(200)));
    let wait = start.saturating_since(clock.now());
    let answers = client::send_stream(&client, address, LAYERS.map(|layer| layer.route), wait);
    let answers = answers.await?;

    let mut kept = true;
    let visits = logbooks.each_ref().map(Logbook::visits);
    for ((layer, visits), answers) in LAYERS.iter().zip(&visits).zip(&answers) {
        let verdicts = promises::judge(layer.promise, visits);
        kept &= verdicts.iter().all(|verdict| verdict.kept);
        if !promises::is_what_was_told(visits, answers) {
            return Err(format!("{} told its client something else", layer.title).into());
        }
        print!("{}", picture.of_layer(layer, visits, start, &verdicts));
    }
    let verdicts = promises::judge_all(&answers.concat(), &visits);
    kept &= verdicts.iter().all(|verdict| verdict.kept);
    print!("{}", picture.of_all(&verdicts));

    if kept { Ok(()) } else { Err("a promise is broken".into()) }
}

fn next_second(now: Timestamp) -> Timestamp {
    let second = Duration::from_secs(1).as_nanos() as u64;
    Timestamp::from_nanos((now.as_nanos() / second + 1) * second)
}
