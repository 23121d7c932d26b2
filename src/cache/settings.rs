use std::{sync::Arc, time::Duration};

use http::HeaderName;

use super::{answer::Answer, flight::Flights, key::Credentials};
use crate::observe::answers::Answers;

/// Which answers are kept.
pub(super) type KeepIf = Arc<dyn Fn(&Answer) -> bool + Send + Sync>;

/// What a layer and its services were told.
#[derive(Clone)]
pub(super) struct Settings<P, K, M> {
    pub(super) concerns: P,
    pub(super) key: K,
    pub(super) store: M,
    pub(super) is_by_credentials: bool,
    pub(super) ttl: Duration,
    pub(super) stale_for: Duration,
    pub(super) join_within: Duration,
    pub(super) headers: Vec<HeaderName>,
    pub(super) ignored: Vec<String>,
    pub(super) is_any_host: bool,
    pub(super) max_request_bytes: usize,
    pub(super) max_answer_bytes: usize,
    pub(super) keep_if: KeepIf,
    pub(super) flights: Arc<Flights>,
    pub(super) observer: Answers,
}

impl<P, K, M> Settings<P, K, M> {
    pub(super) fn with_key<K2>(self, key: K2) -> Settings<P, K2, M> {
        Settings {
            concerns: self.concerns,
            key,
            store: self.store,
            is_by_credentials: false,
            ttl: self.ttl,
            stale_for: self.stale_for,
            join_within: self.join_within,
            headers: self.headers,
            ignored: self.ignored,
            is_any_host: self.is_any_host,
            max_request_bytes: self.max_request_bytes,
            max_answer_bytes: self.max_answer_bytes,
            keep_if: self.keep_if,
            flights: self.flights,
            observer: self.observer,
        }
    }

    pub(super) fn with_store<M2>(self, store: M2) -> Settings<P, K, M2> {
        Settings {
            concerns: self.concerns,
            key: self.key,
            store,
            is_by_credentials: self.is_by_credentials,
            ttl: self.ttl,
            stale_for: self.stale_for,
            join_within: self.join_within,
            headers: self.headers,
            ignored: self.ignored,
            is_any_host: self.is_any_host,
            max_request_bytes: self.max_request_bytes,
            max_answer_bytes: self.max_answer_bytes,
            keep_if: self.keep_if,
            flights: self.flights,
            observer: self.observer,
        }
    }

    /// Whether the key tells requests apart by this header field.
    pub(super) fn tells_apart_by(&self, name: &HeaderName) -> bool {
        self.headers.contains(name) || (self.is_by_credentials && Credentials::contain(name))
    }
}
