//! Who may ask: tenants by their keys, and what their plans allow.

use std::{collections::BTreeSet, num::NonZeroU32, sync::Arc, time::Duration};

use http::{HeaderMap, header::AUTHORIZATION};
use sha2::{Digest as _, Sha256};
use tower_quota::{Key, algorithm::Plan, queue::Priority};

use crate::numbers::Tally;

#[derive(Debug)]
pub(crate) struct Tenant {
    pub(crate) name: String,
    /// What its use is counted by: its name, so that a new API key does not bring a new budget.
    pub(crate) key: Key,
    pub(crate) plan: Arc<PlanTerms>,
    /// None: all.
    pub(crate) models: BTreeSet<String>,
    pub(crate) tally: Arc<Tally>,
}

/// What a plan promises at the accounts.
#[derive(Debug)]
pub(crate) struct PlanTerms {
    pub(crate) name: String,
    pub(crate) priority: Priority,
    pub(crate) weight: NonZeroU32,
    pub(crate) max_wait: Duration,
    /// Its limits, each by itself, for those who look.
    pub(crate) limits: Vec<(&'static str, Plan)>,
}

impl Tenant {
    pub(crate) fn may_use(&self, model: &str) -> bool {
        self.models.is_empty() || self.models.contains(model)
    }
}

/// The SHA-256 of the API key that a request carries, as either language has it.
pub(crate) fn key_hash(headers: &HeaderMap) -> Option<[u8; 32]> {
    let bearer = headers.get(AUTHORIZATION).map(|value| value.as_bytes());
    let bearer = bearer.and_then(|value| match value.split_at_checked(7) {
        Some((scheme, key)) if scheme.eq_ignore_ascii_case(b"bearer ") => Some(key.trim_ascii()),
        _ => None,
    });
    let own = headers.get("x-api-key").map(|value| value.as_bytes());
    let key = own.or(bearer)?;
    Some(Sha256::digest(key).into())
}
