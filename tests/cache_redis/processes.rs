//! Real processes: fifty requests over three of them are one call, and the death of the one that
//! asks costs the others a lease.

use std::{
    convert::Infallible,
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::HeaderMap,
    routing::post,
};
use futures::{StreamExt, stream};
use tokio::{net::TcpListener, sync::mpsc};

use crate::{
    instances::{Instance, LEASE},
    servers::{Flavor, Standalone},
    support::unique_name,
};

/// How the model behaves at a call.
type Behavior = fn(usize) -> Body;

#[derive(Clone)]
struct Model {
    calls: Arc<AtomicUsize>,
    /// Who has called.
    callers: mpsc::UnboundedSender<u32>,
    behavior: Behavior,
}

/// A service that all processes ask: its address, its calls, and who called.
async fn model(behavior: Behavior) -> (String, Arc<AtomicUsize>, mpsc::UnboundedReceiver<u32>) {
    let (callers, called) = mpsc::unbounded_channel();
    let model = Model { calls: Arc::default(), callers, behavior };
    let calls = Arc::clone(&model.calls);
    let app = Router::new().route("/", post(answer)).with_state(model);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/", listener.local_addr().expect("it is bound"));
    tokio::spawn(async move { axum::serve(listener, app).await });
    (url, calls, called)
}

async fn answer(State(model): State<Model>, headers: HeaderMap, _: Bytes) -> Body {
    let call = model.calls.fetch_add(1, Ordering::SeqCst) + 1;
    let caller = headers["x-instance"].to_str().expect("text").parse().expect("a number");
    model.callers.send(caller).expect("it is listened to");
    (model.behavior)(call)
}

fn plain(call: usize) -> Body {
    Body::from(format!("answer {call}"))
}

fn events(call: usize) -> Body {
    Body::from_stream(stream::iter(0..5).then(move |event| async move {
        tokio::time::sleep(Duration::from_millis(30)).await;
        Ok::<_, Infallible>(format!("{call}.{event};"))
    }))
}

/// The first call begins to answer and never ends.
fn hanging_once(call: usize) -> Body {
    if call > 1 {
        return events(call);
    }
    let begun = stream::iter(["1.0;", "1.1;"]).map(Ok::<_, Infallible>);
    Body::from_stream(begun.chain(stream::once(pending())))
}

async fn start(upstream: &str) -> Vec<Instance> {
    let (server, name) = (Standalone::shared(Flavor::Redis), unique_name());
    let redis = server.url();
    let instance = |count| Instance::start(&redis, &name, upstream, count);
    let (one, two, three) = tokio::join!(instance(17), instance(17), instance(16));
    vec![one, two, three]
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_over_three_processes_are_one_call() {
    for (behavior, right) in
        [(plain as Behavior, r#"Ok(b"answer 1")"#), (events, r#"Ok(b"1.0;1.1;1.2;1.3;1.4;")"#)]
    {
        let (url, calls, _called) = model(behavior).await;
        let mut instances = start(&url).await;
        for instance in &mut instances {
            instance.go().await;
        }
        let mut answers = Vec::new();
        for (instance, count) in instances.iter_mut().zip([17, 17, 16]) {
            answers.extend(instance.answers(count).await);
        }
        assert_eq!(answers, vec![right; 50]);
        assert_eq!(calls.load(Ordering::SeqCst), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_death_of_the_process_that_asks_leaves_the_others_a_whole_answer() {
    let (url, calls, mut called) = model(hanging_once).await;
    let mut instances = start(&url).await;
    for instance in &mut instances {
        instance.go().await;
    }
    let leader = called.recv().await.expect("one asks");
    let place = instances.iter().position(|instance| instance.id() == leader).expect("one of ours");
    let counts = [17, 17, 16];
    // The others are behind it: their turn has not come, and the answer has begun.
    tokio::time::sleep(3 * LEASE / 2).await;
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    instances.remove(place).kill().await;
    let counts = counts.iter().enumerate().filter(|(at, _)| *at != place).map(|(_, count)| *count);
    let mut answers = Vec::new();
    for (instance, count) in instances.iter_mut().zip(counts) {
        answers.extend(instance.answers(count).await);
    }
    assert!(answers.len() >= 33);
    assert!(answers.iter().all(|answer| answer == r#"Ok(b"2.0;2.1;2.2;2.3;2.4;")"#), "{answers:?}");
    assert_eq!(calls.load(Ordering::SeqCst), 2, "one of them took over");
}
