//! A large-model API that holds its callers to their limits, and counts what they do wrong.
//!
//! [`StrictUpstream`] speaks as OpenAI (`/v1/chat/completions`, plain and streaming, and
//! `/v1/models`), as Anthropic (`/v1/messages`, plain and streaming) and as Gemini
//! (`/v1beta/models/m:generateContent`, `:streamGenerateContent` with `alt=sse` or without, and
//! `/v1beta/models`), with the headers and bodies of the real ones. It is an axum [`Router`]: a
//! Tower service for tests in process, with tokio's time paused if they like, and a server for all
//! others.
//!
//! It is a judge, so its books are kept in the plainest way that is exact, and share no code with
//! the algorithms of this crate.

mod answers;
mod anthropic;
mod builder;
mod fault;
mod gemini;
mod ledger;
mod limit;
mod openai;
mod record;
mod reply;
mod serve;
mod state;
mod text;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use ::axum::Router;

use self::state::State;
pub use self::{
    answers::Answers,
    builder::StrictUpstreamBuilder,
    fault::Fault,
    limit::{Admission, Counted, ProviderLimit, Told},
    record::{LimitRecord, Record, Refused},
};
use crate::time::Timestamp;

/// A large-model API that holds its callers to their limits.
///
/// ```
/// use ::axum::{body::Body, http::Request};
/// use tower::ServiceExt as _;
/// use tower_quota::testing::strict_upstream::{ProviderLimit, StrictUpstream};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let upstream = StrictUpstream::builder()
///     .account("org-a", ["sk-first", "sk-second"], [ProviderLimit::requests(1)])
///     .build();
///
/// // A quota belongs to an account, so a second key does not help.
/// for (key, status) in [("sk-first", 200), ("sk-second", 429)] {
///     let question = Request::post("/v1/chat/completions")
///         .header("authorization", format!("Bearer {key}"))
///         .body(Body::from(r#"{"model":"demo","messages":[{"role":"user","content":"Hi"}]}"#))?;
///     let answer = upstream.router().oneshot(question).await?;
///     assert_eq!(answer.status(), status);
/// }
/// assert_eq!(upstream.record().admitted, 1);
/// assert_eq!(upstream.record().refused.len(), 1);
/// # Ok(())
/// # }
/// ```
///
/// # Clone
///
/// Clones are the same API.
#[derive(Clone)]
pub struct StrictUpstream(Arc<Shared>);

struct Shared {
    settings: Settings,
    state: Mutex<State>,
}

struct Settings {
    now: Box<dyn Fn() -> Timestamp + Send + Sync>,
    models: Vec<String>,
    admission: Admission,
    answers: Answers,
    first_token: Duration,
    each_token: Duration,
    max_in_flight: usize,
}

impl StrictUpstream {
    /// An API with no account yet: it refuses everybody.
    pub fn builder() -> StrictUpstreamBuilder {
        StrictUpstreamBuilder::new()
    }

    /// The API as a Tower service, or as an application for `axum::serve`.
    pub fn router(&self) -> Router {
        let upstream = self.clone();
        Router::new().fallback(move |request| serve::serve(upstream.0.clone(), request))
    }

    /// What has happened so far.
    pub fn record(&self) -> Record {
        self.0.state().record(self.0.now())
    }

    /// Gives the next call that has a known key a fault. Faults wait in line.
    pub fn inject(&self, fault: Fault) {
        self.0.state().faults.push_back(fault);
    }

    /// Changes an account's limit; `index` is its place among those declared. What is in use stays.
    ///
    /// # Panics
    ///
    /// If there is no such account or limit.
    pub fn change_limit(&self, account: &str, index: usize, amount: u64, told: Told) {
        let now = self.0.now();
        self.0.state().change_limit(account, index, amount, told, now);
    }
}

impl fmt::Debug for StrictUpstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The keys are secrets, if only in a test.
        f.debug_struct("StrictUpstream").field("record", &self.record()).finish_non_exhaustive()
    }
}

impl Shared {
    fn now(&self) -> Timestamp {
        (self.settings.now)()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
