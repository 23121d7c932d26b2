//! The server that instances share, as this one finds it: asked, or away, and then each decides by its part.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};
use tower_quota::{
    Cost, Key, PolicyName, Quota,
    algorithm::{Algorithm, Plan, TokenBucket},
    backend::{
        Backend as _, DynBackend,
        guarded::{BreakerState, Counts, Guarded},
    },
    decision::Demand,
    time::Timestamp,
};

use crate::numbers::{lock, millis};

/// What is known of the server by the guards before it: there is one for each account, and one for all plans.
#[derive(Debug, Default)]
pub(crate) struct Store {
    ledgers: Mutex<BTreeMap<String, Ledger>>,
    away_since: Mutex<Option<Timestamp>>,
}

#[derive(Clone)]
struct Ledger {
    stands: Arc<dyn Fn() -> (BreakerState, Counts) + Send + Sync>,
    backend: DynBackend<Plan>,
}

/// How it stands with the server.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Standing {
    ledgers: u64,
    /// Those that are decided on here.
    away: u64,
    counts: Counts,
}

impl Store {
    /// Looks after a ledger from now on. One of the same name, which a wrong configuration had begun, is
    /// nobody's.
    pub(crate) fn watch<A: Algorithm, B, C>(
        &self,
        name: &str,
        guarded: Guarded<A, B, C>,
        backend: DynBackend<Plan>,
    ) where
        Guarded<A, B, C>: Send + Sync + 'static,
    {
        let stands = Arc::new(move || (guarded.state(), guarded.counts()));
        lock(&self.ledgers).insert(name.to_owned(), Ledger { stands, backend });
    }

    pub(crate) fn standing(&self) -> Standing {
        let mut all = Standing::default();
        for ledger in lock(&self.ledgers).values() {
            let (state, counts) = (ledger.stands)();
            all.ledgers += 1;
            all.away += u64::from(state != BreakerState::Closed);
            all.counts.decided_otherwise += counts.decided_otherwise;
            all.counts.timed_out += counts.timed_out;
            all.counts.openings += counts.openings;
        }
        all
    }

    /// What there is to tell since it was looked at: that it is away, or back.
    pub(crate) fn news(&self, now: Timestamp) -> Option<String> {
        let is_away = self.standing().is_away();
        let mut since = lock(&self.away_since);
        match (is_away, *since) {
            (true, None) => {
                *since = Some(now);
                Some("the server does not answer: this instance decides by its part".into())
            }
            (false, Some(before)) => {
                *since = None;
                let away = now.saturating_since(before).as_secs();
                Some(format!("the server is back after {away} s"))
            }
            _ => None,
        }
    }

    /// Tries what nobody else may try for long: an account that is not called would stay away for ever.
    pub(crate) async fn try_again(&self) {
        let ledgers: Vec<_> = lock(&self.ledgers).values().cloned().collect();
        let away = ledgers.into_iter().filter(|own| (own.stands)().0 != BreakerState::Closed);
        let tries = away.map(|ledger| async move {
            let plan = Plan::new().limit(PROBE, TokenBucket::new(Quota::per_second(1)));
            let Ok(plan) = plan.build() else { return };
            // Its breaker lets one in when it is time, and hears how it went.
            drop(ledger.backend.decide(&plan, &Key::GLOBAL, &Demand::peek(Cost::ZERO)).await);
        });
        futures::future::join_all(tries).await;
    }

    pub(crate) fn json(&self) -> Value {
        let standing = self.standing();
        let Standing { ledgers, away, counts } = standing;
        let state = match (ledgers, away) {
            (0, _) => "in process",
            (_, 0) => "reached",
            _ => "away",
        };
        json!({
            "state": state,
            "away_since": lock(&self.away_since).map(millis),
            "ledgers": ledgers,
            "ledgers_away": away,
            "errors": counts.decided_otherwise,
            "timed_out": counts.timed_out,
            "openings": counts.openings,
        })
    }
}

const PROBE: PolicyName = PolicyName::from_static("probe");

impl Standing {
    pub(crate) fn is_away(&self) -> bool {
        self.away > 0
    }
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger").field("backend", &self.backend).finish_non_exhaustive()
    }
}
