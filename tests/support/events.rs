//! What this crate tells by `tracing`, thread by thread.
//!
//! One subscriber for the whole process. With one for each test, an event that another test's thread
//! comes to first, without a subscriber, is taken for one that nobody wants, and is lost.

use std::{cell::RefCell, fmt, mem, sync::Once};

use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

thread_local! {
    static TOLD: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Begins to listen to this thread.
pub(crate) fn listen() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        tracing::subscriber::set_global_default(Listener).expect("nobody else listens");
        // For those that came before.
        tracing::callsite::rebuild_interest_cache();
    });
    TOLD.take();
}

/// What this thread has told since it was listened to, each with its level.
pub(crate) fn told() -> Vec<String> {
    TOLD.with_borrow_mut(mem::take)
}

struct Listener;

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("tower_quota")
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(event.metadata().level().to_string());
        event.record(&mut line);
        TOLD.with_borrow_mut(|told| told.push(line.0));
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.push_str(&format!(" {field}={value:?}"));
    }
}
