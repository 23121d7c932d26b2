//! What has happened: counts by tenant and in all, what was learned, and a few minutes of history.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tower_quota::time::{Clock as _, SystemClock, Timestamp};

/// What a call came to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Outcome {
    /// It was sent to a provider, and answered.
    Admitted,
    /// It was answered from memory, or by the answer to another's like it.
    Cached,
    /// It was accepted for later.
    Deferred,
    /// A limit of its tenant or of the accounts refused it.
    Refused,
    /// The provider or the way to it failed.
    Failed,
}

impl Outcome {
    /// In the order in which they are counted.
    pub(crate) const ALL: [(Self, &'static str); 5] = [
        (Self::Admitted, "admitted"),
        (Self::Cached, "cached"),
        (Self::Deferred, "deferred"),
        (Self::Refused, "refused"),
        (Self::Failed, "failed"),
    ];
}

/// What came of the turn of a deferred call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Run {
    /// It has its answer.
    Answered,
    /// A limit refused it: its turn comes again.
    Refused,
    /// It failed, or its answer is an error: it is tried again where that may help.
    Failed,
}

impl Run {
    /// In the order in which they are counted.
    pub(crate) const ALL: [(Self, &'static str); 3] =
        [(Self::Answered, "answered"), (Self::Refused, "refused"), (Self::Failed, "failed")];
}

/// Counts of calls.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    outcomes: [AtomicU64; Outcome::ALL.len()],
    pub(crate) tokens: AtomicU64,
    /// Calls that are not answered to their end, and what is reserved for them not settled.
    pub(crate) under_way: AtomicU64,
    /// Calls that wait for a limit now.
    pub(crate) waiting: AtomicU64,
    waited_micros: AtomicU64,
    /// Waits by their length: those up to each of [`WAITS`], and longer ones.
    waits: [AtomicU64; WAITS.len() + 1],
    longest_wait_micros: AtomicU64,
    sent: AtomicU64,
    /// Deferred calls whose turn came, by what came of it.
    runs: [AtomicU64; Run::ALL.len()],
}

impl Tally {
    pub(crate) fn count(&self, outcome: Outcome) {
        self.outcomes[outcome as usize].fetch_add(1, Relaxed);
    }

    pub(crate) fn waited(&self, wait: Duration) {
        let micros = u64::try_from(wait.as_micros()).unwrap_or(u64::MAX);
        self.sent.fetch_add(1, Relaxed);
        let place = WAITS.iter().position(|most| wait.as_secs_f64() <= *most);
        self.waits[place.unwrap_or(WAITS.len())].fetch_add(1, Relaxed);
        self.waited_micros.fetch_add(micros, Relaxed);
        self.longest_wait_micros.fetch_max(micros, Relaxed);
    }

    pub(crate) fn ran(&self, run: Run) {
        self.runs[run as usize].fetch_add(1, Relaxed);
    }

    pub(crate) fn of(&self, outcome: Outcome) -> u64 {
        self.outcomes[outcome as usize].load(Relaxed)
    }

    /// How many calls waited no longer than so many seconds, for each of [`WAITS`].
    pub(crate) fn waits_up_to(&self) -> Vec<Value> {
        let mut calls = 0;
        let counted = WAITS.iter().zip(&self.waits).map(|(seconds, count)| {
            calls += count.load(Relaxed);
            json!({ "seconds": seconds, "calls": calls })
        });
        counted.collect()
    }

    /// Calls that were sent on, and the seconds that they waited together.
    pub(crate) fn waits(&self) -> (u64, f64) {
        (self.sent.load(Relaxed), self.waited_micros.load(Relaxed) as f64 / 1e6)
    }

    pub(crate) fn json(&self) -> Value {
        let (sent, waited) = self.waits();
        let mut json = json!({
            "tokens": self.tokens.load(Relaxed),
            "under_way": self.under_way.load(Relaxed),
            "waiting": self.waiting.load(Relaxed),
            "sent": sent,
            "waited_seconds": waited,
            "longest_wait_seconds": self.longest_wait_micros.load(Relaxed) as f64 / 1e6,
        });
        for (outcome, name) in Outcome::ALL {
            json[name] = self.of(outcome).into();
        }
        for (run, name) in Run::ALL {
            json["runs"][name] = self.runs[run as usize].load(Relaxed).into();
        }
        json
    }
}

/// One that waits, as long as it is held.
#[derive(Debug)]
pub(crate) struct WaitingNow(Vec<Arc<Tally>>);

impl WaitingNow {
    pub(crate) fn new(tallies: impl IntoIterator<Item = Arc<Tally>>) -> Self {
        let tallies: Vec<_> = tallies.into_iter().collect();
        for tally in &tallies {
            tally.waiting.fetch_add(1, Relaxed);
        }
        Self(tallies)
    }
}

impl Drop for WaitingNow {
    fn drop(&mut self) {
        for tally in &self.0 {
            tally.waiting.fetch_sub(1, Relaxed);
        }
    }
}

/// The connections of a door.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    open: AtomicU64,
    turned_away: AtomicU64,
}

/// One connection, as long as it is held.
pub(crate) struct Connected(Arc<Connections>);

impl Connections {
    pub(crate) fn one(all: &Arc<Self>) -> Connected {
        all.open.fetch_add(1, Relaxed);
        Connected(Arc::clone(all))
    }

    pub(crate) fn turn_away(&self) {
        self.turned_away.fetch_add(1, Relaxed);
    }

    pub(crate) fn json(&self) -> Value {
        json!({ "open": self.open.load(Relaxed), "turned_away": self.turned_away.load(Relaxed) })
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}

/// Everything that the page, the metrics and the status tell.
#[derive(Debug)]
pub(crate) struct Numbers {
    pub(crate) all: Arc<Tally>,
    tenants: Mutex<BTreeMap<String, Arc<Tally>>>,
    news: Mutex<VecDeque<Value>>,
    history: Mutex<VecDeque<Value>>,
    pub(crate) upstream_429: AtomicU64,
    /// Of the tenants' door.
    pub(crate) connections: Arc<Connections>,
    pub(crate) started: Timestamp,
    draining: AtomicBool,
}

impl Numbers {
    pub(crate) fn new() -> Self {
        Self {
            all: Arc::default(),
            tenants: Mutex::default(),
            news: Mutex::default(),
            history: Mutex::default(),
            upstream_429: AtomicU64::new(0),
            connections: Arc::default(),
            started: SystemClock.now(),
            draining: AtomicBool::new(false),
        }
    }

    /// Whether this instance is about to end, and calls had better go to another.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Relaxed)
    }

    pub(crate) fn drain(&self) {
        self.draining.store(true, Relaxed);
    }

    /// Waits until no call is under way.
    pub(crate) async fn idle(&self) {
        while self.all.under_way.load(Relaxed) > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The tally of a tenant, or a new one, which is shown once it is [kept](Self::keep).
    pub(crate) fn tally(&self, tenant: &str) -> Arc<Tally> {
        lock(&self.tenants).get(tenant).cloned().unwrap_or_default()
    }

    pub(crate) fn keep(&self, tenant: &str, tally: Arc<Tally>) {
        lock(&self.tenants).insert(tenant.to_owned(), tally);
    }

    pub(crate) fn tenants(&self) -> Vec<(String, Arc<Tally>)> {
        lock(&self.tenants).iter().map(|(name, tally)| (name.clone(), Arc::clone(tally))).collect()
    }

    /// Notes what was learned from an upstream. No text of a caller or a provider goes in here.
    pub(crate) fn learn(&self, account: &str, kind: &str, what: String) {
        let mut news = lock(&self.news);
        news.push_back(json!({
            "at": millis(SystemClock.now()), "account": account, "kind": kind, "what": what,
        }));
        if news.len() > MAX_NEWS {
            news.pop_front();
        }
    }

    pub(crate) fn news(&self) -> Vec<Value> {
        lock(&self.news).iter().rev().cloned().collect()
    }

    pub(crate) fn remember(&self, sample: Value) {
        let mut history = lock(&self.history);
        history.push_back(sample);
        if history.len() > MAX_HISTORY {
            history.pop_front();
        }
    }

    pub(crate) fn history(&self) -> Vec<Value> {
        lock(&self.history).iter().cloned().collect()
    }
}

/// Milliseconds since the Unix epoch.
pub(crate) fn millis(instant: Timestamp) -> u64 {
    instant.as_nanos() / 1_000_000
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Seconds: from what nobody notices to as long as an account lets calls wait.
const WAITS: [f64; 12] = [0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0];
const MAX_NEWS: usize = 50;
/// Samples, one a second.
const MAX_HISTORY: usize = 300;
