use std::{
    fmt,
    sync::{Arc, Mutex},
};

use tower::{Layer, ServiceExt};
use tower_quota::{PolicyName, Quota, TokenBucketLayer};
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

use crate::support::Strict;

#[tokio::test]
async fn a_request_that_is_counted_twice_is_reported_once() {
    let layer = TokenBucketLayer::new(Quota::per_day(100)).name(PolicyName::from_static("api"));
    let nested = layer.layer(layer.layer(Strict::new()));
    let reports = reported(async {
        for request in 0..5_u32 {
            nested.clone().oneshot(request).await.expect("there is room");
        }
    })
    .await;
    assert_eq!(reports.len(), 1, "{reports:?}");
    assert!(reports[0].contains("named `api`") && reports[0].contains("twice"), "{reports:?}");
}

#[tokio::test]
async fn services_side_by_side_and_stores_of_their_own_are_not_reported() {
    let layer = TokenBucketLayer::new(Quota::per_day(100));
    let (one, other) = (layer.layer(Strict::new()), layer.layer(Strict::new()));
    let nested = TokenBucketLayer::new(Quota::per_day(100)).layer(layer.layer(Strict::new()));
    let reports = reported(async {
        for request in 0..5_u32 {
            one.clone().oneshot(request).await.expect("there is room");
            other.clone().oneshot(request).await.expect("there is room");
            nested.clone().oneshot(request).await.expect("there is room");
        }
    })
    .await;
    assert_eq!(reports, Vec::<String>::new());
}

#[test]
fn a_layer_that_cannot_be_meant_is_reported_when_it_wraps_a_service() {
    let errors = Errors::default();
    let _here = tracing::subscriber::set_default(errors.clone());
    let _ = TokenBucketLayer::new(Quota::per_day(10)).largest_cost(11).layer(Strict::new());
    let reports = errors.0.lock().expect("the list").clone();
    assert!(reports.len() == 1 && reports[0].contains("refused for ever"), "{reports:?}");
}

async fn reported(run: impl Future<Output = ()>) -> Vec<String> {
    let errors = Errors::default();
    let here = tracing::subscriber::set_default(errors.clone());
    run.await;
    drop(here);

    errors.0.lock().expect("the list").clone()
}

/// Keeps the text of error events.
#[derive(Clone, Default)]
struct Errors(Arc<Mutex<Vec<String>>>);

impl Subscriber for Errors {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == tracing::Level::ERROR
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = Text(String::new());
        event.record(&mut text);
        self.0.lock().expect("the list").push(text.0);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.push_str(&format!("{field}={value:?} "));
    }
}
