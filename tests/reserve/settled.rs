//! However requests end in a service, the limit holds what an independent ledger says, in this process
//! and on a server.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{future::pending, stream};
use http::Response;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use tokio::sync::Notify;
use tower::{BoxError, Layer, ServiceExt, service_fn};
use tower_quota::{
    Cost, Limiter, PolicyName, Quota, Rejection,
    algorithm::FixedWindow,
    backend::{
        Backend, LocalBuilder,
        redis::{RedisBuilder, Server},
    },
    http::{FromBody, MeasuredBody},
    limiter::OnDrop,
    reserve::{End, Reading, ReserveLayer},
    time::{ManualClock, Timestamp},
};

use crate::{left, servers::Standalone};

type Body = UnsyncBoxBody<Bytes, std::io::Error>;

const LIMIT: i64 = 1_000;

/// One unit for each byte that passed, whether or not more were to come.
#[derive(Default)]
struct Passed(u64);

impl Reading for Passed {
    fn data(&mut self, data: &[u8]) {
        self.0 += data.len() as u64;
    }

    fn cost(&mut self, _: End) -> Option<Cost> {
        Some(Cost::new(self.0))
    }
}

/// `LIMIT` in each window of a minute; debt is paid off by as much for each that ends.
#[derive(Default)]
struct Ledger {
    window: u64,
    used: i64,
}

impl Ledger {
    fn left(&self, now: u64) -> i64 {
        LIMIT - (self.used - LIMIT * (now / 60 - self.window) as i64).max(0)
    }

    /// `units` more (or fewer) of what was charged at `charged` are used at `now`.
    fn add(&mut self, now: u64, charged: u64, units: i64) {
        self.used = LIMIT - self.left(now);
        self.window = now / 60;
        if units > 0 || charged / 60 == self.window {
            self.used = (self.used + units).max(0);
        }
    }
}

/// How the inner service answers.
#[derive(Clone, Copy, Debug)]
enum Answer {
    /// So many frames of ten bytes, of which the last may be a failure.
    Frames(u64, bool),
    Error,
    Never,
}

#[derive(Clone)]
struct Request {
    cost: u64,
    answer: Answer,
    /// The inner service has been called.
    called: Arc<Notify>,
}

async fn answer(request: Request) -> Result<Response<Body>, BoxError> {
    request.called.notify_one();
    let (frames, breaks) = match request.answer {
        Answer::Frames(frames, breaks) => (frames, breaks),
        Answer::Error => return Err("it failed".into()),
        Answer::Never => pending().await,
    };
    let data = |_| Ok(Frame::data(Bytes::from_static(b"ten bytes.")));
    let broken = breaks.then(|| Err(std::io::Error::other("the line broke")));
    let frames: Vec<_> = (0..frames).map(data).chain(broken).collect();
    Ok(Response::new(StreamBody::new(stream::iter(frames)).boxed_unsync()))
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

/// A response that is on its way to its client.
struct Open {
    body: MeasuredBody<Body, Passed>,
    reserved: i64,
    charged: u64,
    passed: i64,
}

async fn agrees<B: Backend<FixedWindow>>(
    limiter: Limiter<FixedWindow, B>,
    clock: &ManualClock,
    seed: u64,
) {
    let mut random = Random(seed);
    let on_drop = if seed.is_multiple_of(2) { OnDrop::Keep } else { OnDrop::GiveBack };
    let layer = ReserveLayer::new(limiter.clone())
        .cost(|request: &Request| request.cost)
        .unsettled(on_drop)
        .settle(FromBody(|_: &Response<Body>| Passed::default()));
    let service = layer.layer(service_fn(answer));
    let (mut now, mut ledger, mut open) = (6_000_000, Ledger::default(), Vec::<Open>::new());
    let mut ends = [0; 6];
    for step in 0..150 {
        now += [0, 0, 0, 1, 20, 61][random.below(6) as usize];
        clock.set(Timestamp::from_secs(now));
        if !open.is_empty() && random.below(2) == 0 {
            // A body goes on to its end, breaks off, or its client goes away.
            let mut of = open.swap_remove(random.below(open.len() as u64) as usize);
            let mut patience = random.below(60);
            while patience > 0
                && let Some(Ok(frame)) = of.body.frame().await
            {
                of.passed += frame.data_ref().map_or(0, Bytes::len) as i64;
                patience -= 1;
            }
            ends[usize::from(patience > 0)] += 1;
            drop(of.body);
            if of.passed != of.reserved {
                ledger.add(now, of.charged, of.passed - of.reserved);
            }
        } else {
            let cost = random.below(400);
            let answer = match random.below(6) {
                0 => Answer::Error,
                1 | 2 => Answer::Never,
                _ => Answer::Frames(random.below(70), random.below(3) == 0),
            };
            let request = Request { cost, answer, called: Arc::default() };
            let room = ledger.left(now);
            let fits = room >= 0 && cost as i64 <= room;
            let called = Arc::clone(&request.called);
            let result = if !matches!(answer, Answer::Never) || !fits {
                service.clone().oneshot(request).await
            } else if random.below(2) == 0 {
                // The client goes away while it is worked on.
                ends[2] += 1;
                let gone = tokio::spawn(service.clone().oneshot(request));
                called.notified().await;
                gone.abort();
                Err("gone".into())
            } else {
                // It takes too long; on a server the reservation itself may: it is asked for before.
                ends[3] += 1;
                let slow = service.clone().oneshot(request.clone());
                let mut slow = std::pin::pin!(slow);
                tokio::select! {
                    _ = &mut slow => unreachable!("it never answers"),
                    () = called.notified() => {}
                }
                let timed_out = tokio::time::timeout(Duration::from_millis(1), slow).await;
                timed_out.expect_err("it never answers");
                Err("timed out".into())
            };
            match result {
                Ok(response) => {
                    assert!(fits, "step {step}: {cost} of {room}");
                    ledger.add(now, now, cost as i64);
                    let (reserved, charged) = (cost as i64, now);
                    open.push(Open { body: response.into_body(), reserved, charged, passed: 0 });
                }
                Err(error) if Rejection::of(&*error).is_some() => {
                    ends[4] += 1;
                    assert!(!fits, "step {step}: {cost} of {room}");
                }
                // It ended without a body: what was reserved counts, unless it was told otherwise.
                Err(_) => {
                    ends[5] += 1;
                    assert!(fits, "step {step}: {cost} of {room}");
                    ledger.add(now, now, cost as i64);
                    if on_drop == OnDrop::GiveBack && cost > 0 {
                        ledger.add(now, now, -(cost as i64));
                    }
                }
            }
        }
        // A correction of a server is on its way behind the client's back.
        let expected = ledger.left(now).max(0);
        let arrives = async {
            while left(&limiter).await as i64 != expected {
                tokio::task::yield_now().await;
            }
        };
        if tokio::time::timeout(Duration::from_secs(60), arrives).await.is_err() {
            let left = left(&limiter).await;
            panic!("seed {seed}, step {step}: {left} are left, and it should be {expected}");
        }
    }
    assert!(ends.iter().all(|&count| count > 0), "not all ends were met: {ends:?}");
}

fn windows() -> FixedWindow {
    FixedWindow::new(Quota::per_minute(LIMIT as u64))
}

#[tokio::test]
async fn any_mix_of_ends_leaves_the_ledger_of_this_process_right() {
    for seed in 0..20 {
        let clock = ManualClock::new();
        let store = LocalBuilder::new().build_with_clock(clock.clone());
        agrees(Limiter::new(windows(), store), &clock, seed).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_mix_of_ends_leaves_the_ledger_of_a_server_right() {
    let server = Standalone::start();
    for seed in 0..6 {
        let clock = ManualClock::new();
        let name = PolicyName::new(format!("settled-{seed}")).expect("a name");
        let redis = RedisBuilder::new(Server::open(server.url()).expect("a URL"), name)
            .timeout(Duration::from_secs(60))
            .remember_refusals(Duration::ZERO)
            .clock(clock.clone())
            .build();
        agrees(Limiter::new(windows(), redis), &clock, seed).await;
    }
}
