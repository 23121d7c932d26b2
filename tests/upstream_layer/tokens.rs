use std::{
    sync::{Arc, Condvar, Mutex},
    thread::{self, ThreadId},
};

use http_body_util::BodyExt as _;
use tower::{Layer as _, ServiceExt as _};
use tower_quota::upstream::{Tokenizer, UpstreamLayer};

use crate::support::{Answer, Provider, left, question, with_tokens};

/// Says seven of every text, and notes on which threads it was asked.
#[derive(Clone, Default)]
struct Seven(Arc<Mutex<Vec<ThreadId>>>);

impl Tokenizer for Seven {
    fn count(&self, model: &str, _: &str) -> Option<u64> {
        self.0.lock().expect("no panic").push(thread::current().id());
        (model == "m").then_some(7)
    }
}

const TOKENS: u64 = 100_000;

/// What is reserved for a question of so many tokens, as a quarter of its characters is.
async fn reserved(
    tokenizer: impl Tokenizer + 'static,
    question: http::Request<axum::body::Body>,
) -> u64 {
    let account = with_tokens(TOKENS);
    let provider = Provider::new([Answer::new(400, "{}")]);
    let layer = UpstreamLayer::new(account.clone()).tokenizer(tokenizer);
    let answer = layer.layer(provider).oneshot(question).await.expect("an answer");
    answer.into_body().collect().await.expect("a whole body");
    TOKENS - left(&account).await
}

#[tokio::test(start_paused = true)]
async fn a_short_text_is_counted_where_it_is_and_a_long_one_elsewhere() {
    let seven = Seven::default();
    // A message, a request, and the one token of output that it allows.
    assert_eq!(reserved(seven.clone(), question(100)).await, 7 + 1 + 1 + 1);
    assert_eq!(reserved(seven.clone(), question(10_000)).await, 7 + 1 + 1 + 1);
    let own = thread::current().id();
    let threads = seven.0.lock().expect("no panic").clone();
    assert_eq!(threads.iter().map(|thread| *thread == own).collect::<Vec<_>>(), [true, false]);
}

#[tokio::test(start_paused = true)]
async fn a_tokenizer_that_panics_is_one_that_does_not_know_however_long_the_text_is() {
    struct Panics;
    impl Tokenizer for Panics {
        fn count(&self, _: &str, _: &str) -> Option<u64> {
            panic!("as it is asked to")
        }
    }
    assert_eq!(reserved(Panics, question(100)).await, 100 + 1);
    assert_eq!(reserved(Panics, question(10_000)).await, 10_000 + 1);
}

/// Says seven when it may.
#[derive(Clone, Default)]
struct Held(Arc<(Mutex<bool>, Condvar)>);

impl Held {
    fn release(&self) {
        *self.0.0.lock().expect("no panic") = true;
        self.0.1.notify_all();
    }
}

impl Tokenizer for Held {
    fn count(&self, _: &str, _: &str) -> Option<u64> {
        let released = self.0.0.lock().expect("no panic");
        let _released = self.0.1.wait_while(released, |released| !*released).expect("no panic");
        Some(7)
    }
}

#[tokio::test(start_paused = true)]
async fn no_more_long_texts_are_counted_at_a_time_than_there_are_processors() {
    let account = with_tokens(TOKENS);
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let answers = (0..=processors).map(|_| Answer::new(400, "{}"));
    let held = Held::default();
    let layer = UpstreamLayer::new(account.clone()).tokenizer(held.clone());
    let client = layer.layer(Provider::new(answers));
    let ask = || async {
        let answer = client.clone().oneshot(question(10_000)).await.expect("an answer");
        answer.into_body().collect().await.expect("a whole body");
    };
    let counted = futures::future::join_all((0..processors).map(|_| ask()));
    let guessed = async {
        ask().await;
        assert_eq!(TOKENS - left(&account).await, 10_000 + 1, "nobody waits for the others");
        held.release();
    };
    tokio::join!(biased; counted, guessed);
    let counted = u64::try_from(processors).expect("few") * (7 + 1 + 1 + 1);
    assert_eq!(TOKENS - left(&account).await, 10_000 + 1 + counted);
}
