use std::{
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use super::{
    Settings, Shared, StrictUpstream,
    answers::Answers,
    limit::{Admission, ProviderLimit},
    state::{Account, State},
};
use crate::time::{Clock, SystemClock, Timestamp, timer_now};

/// Builds a [`StrictUpstream`].
#[must_use = "a builder does nothing until it is built"]
pub struct StrictUpstreamBuilder {
    accounts: Vec<(String, Vec<String>, Vec<ProviderLimit>)>,
    settings: Settings,
}

impl StrictUpstreamBuilder {
    pub(super) fn new() -> Self {
        Self {
            accounts: Vec::new(),
            settings: Settings {
                now: Box::new(tokio_time(SystemClock.now())),
                models: Vec::new(),
                admission: Admission::default(),
                answers: Answers::exactly(16),
                first_token: Duration::ZERO,
                each_token: Duration::ZERO,
                max_in_flight: usize::MAX,
            },
        }
    }

    /// An account, its keys and its limits. All must have room for a call.
    pub fn account<K>(
        mut self,
        name: impl Into<String>,
        keys: impl IntoIterator<Item = K>,
        limits: impl IntoIterator<Item = ProviderLimit>,
    ) -> Self
    where
        K: Into<String>,
    {
        let keys = keys.into_iter().map(Into::into).collect();
        self.accounts.push((name.into(), keys, limits.into_iter().collect()));
        self
    }

    /// The models that there are. By default, whatever is asked for.
    pub fn models<M: Into<String>>(mut self, models: impl IntoIterator<Item = M>) -> Self {
        self.settings.models = models.into_iter().map(Into::into).collect();
        self
    }

    /// What of a call is charged when it is admitted. By default, the prompt.
    pub fn admission(mut self, admission: Admission) -> Self {
        self.settings.admission = admission;
        self
    }

    /// How long answers are. By default, 16 tokens.
    pub fn answers(mut self, answers: Answers) -> Self {
        self.settings.answers = answers;
        self
    }

    /// How long the first token takes, and each one after it. By default, no time.
    pub fn latency(mut self, first_token: Duration, each_token: Duration) -> Self {
        self.settings.first_token = first_token;
        self.settings.each_token = each_token;
        self
    }

    /// How many calls may be in flight; more are told that the API is overloaded. By default, any
    /// number.
    pub fn max_in_flight(mut self, calls: usize) -> Self {
        self.settings.max_in_flight = calls;
        self
    }

    /// Lets the books begin at `now` and follow tokio's time, which a test can pause. By default,
    /// they begin at the present.
    pub fn starting_at(mut self, now: Timestamp) -> Self {
        self.settings.now = Box::new(tokio_time(now));
        self
    }

    /// Keeps the books by `clock`. Latencies are tokio's all the same.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.settings.now = Box::new(move || clock.now());
        self
    }

    /// The API.
    pub fn build(self) -> StrictUpstream {
        let now = (self.settings.now)();
        let accounts = self
            .accounts
            .into_iter()
            .map(|(name, keys, limits)| Account::new(name, keys, limits, now))
            .collect();
        let state = Mutex::new(State::new(accounts));
        StrictUpstream(Arc::new(Shared { settings: self.settings, state }))
    }
}

impl fmt::Debug for StrictUpstreamBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let accounts: Vec<_> =
            self.accounts.iter().map(|(name, _, limits)| (name, limits)).collect();
        f.debug_struct("StrictUpstreamBuilder").field("accounts", &accounts).finish_non_exhaustive()
    }
}

fn tokio_time(start: Timestamp) -> impl Fn() -> Timestamp + Send + Sync {
    let origin = timer_now();
    move || start.saturating_add(timer_now().saturating_duration_since(origin))
}
