//! The task that tells instances what tenants have had elsewhere.
//!
//! It is beside the calls, never before them: what is counted here counts here at once, and is told
//! to the others a moment later. While the server is away each instance goes on with what it knows.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use redis::{FromRedisValue, Value};
use sha2::{Digest as _, Sha256};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout},
};

use super::{Board, Inner};
use crate::{
    backend::redis::{Call, Source},
    error::{BackendError, BackendErrorKind},
    key::Key,
    queue::shares::{Heard, Report, Shares},
};

/// What the tenants of each quota have had.
#[derive(Default)]
pub(super) struct Table {
    of: Mutex<BTreeMap<Box<str>, Arc<Shares>>>,
    /// There is something to report.
    news: Arc<Notify>,
}

pub(super) struct Keeper<S> {
    pub(super) inner: Weak<Inner>,
    pub(super) call: Call<S>,
    pub(super) name: Arc<str>,
}

impl Board {
    /// What tenants have had of a quota, if other instances are told.
    pub(in crate::upstream) fn shares(&self, quota: &str) -> Option<Arc<Shares>> {
        let table = self.0.shares.as_ref()?;
        let mut all = table.of.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = || {
            let news = Arc::clone(&table.news);
            Arc::new(Shares::telling(move || news.notify_one()))
        };
        Some(Arc::clone(all.entry(quota.into()).or_insert_with(fresh)))
    }
}

impl<S: Source> Keeper<S> {
    /// Until the board is gone.
    pub(super) async fn run(self) {
        let mut goes_on = false;
        while let Some(news) =
            self.inner.upgrade().and_then(|inner| Some(inner.shares.as_ref()?.news.clone()))
        {
            if !goes_on {
                let _ = timeout(REFRESH, news.notified()).await;
            }
            sleep(PERIOD).await;
            goes_on = self.exchange_all().await;
        }
    }

    /// Tells and asks, and says whether to do so again though nothing is new: somebody waits.
    async fn exchange_all(&self) -> bool {
        let mut goes_on = false;
        for (quota, shares) in self.all() {
            if let Some(report) = shares.report() {
                match self.exchange(&quota, &report).await {
                    Ok(heard) => shares.heard(&report, &heard, Instant::now()),
                    // That is of this quota alone.
                    Err(error) if error.kind() == BackendErrorKind::Malformed => {}
                    Err(error) => {
                        // What may have been counted is not counted again.
                        if error.kind() != BackendErrorKind::TimedOut {
                            shares.unheard(report);
                        }
                        sleep(PAUSE).await;
                        return true;
                    }
                }
                goes_on |= shares.is_contended(Instant::now());
            }
        }
        goes_on
    }

    fn all(&self) -> Vec<(Box<str>, Arc<Shares>)> {
        let Some(inner) = self.inner.upgrade() else { return Vec::new() };
        let Some(table) = &inner.shares else { return Vec::new() };
        let all = table.of.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().map(|(quota, shares)| (quota.clone(), Arc::clone(shares))).collect()
    }

    async fn exchange(&self, quota: &str, report: &Report) -> Result<Heard, BackendError> {
        let hash = Sha256::new().chain_update(self.name.as_bytes()).chain_update([0]);
        let hash = hash.chain_update(quota).chain_update([0]);
        let text = |bytes: &[u8]| bytes[..16].iter().map(|byte| format!("{byte:02x}")).collect();
        let of_quota: String = text(&hash.clone().finalize());
        let flow =
            |key: &Key| -> String { text(&hash.clone().chain_update(key.as_bytes()).finalize()) };
        let (start, size) = report
            .behind
            .map_or_else(Default::default, |(start, size)| (start.to_string(), size.to_string()));
        let head = [
            of_quota,
            KEEP.as_millis().to_string(),
            FRESH.as_millis().to_string(),
            format!("{:016x}", report.own),
            format!("{:016x}", report.frame),
            report.time.to_string(),
            start,
            size,
        ];
        let flows = report
            .flows
            .iter()
            .flat_map(|part| [flow(&part.flow), part.since.to_string(), part.length.to_string()]);
        let arguments: Vec<_> = head.into_iter().chain(flows).map(String::into_bytes).collect();
        let reply = self.call.run(self.name.as_bytes(), &arguments, PATIENCE).await?;
        read(reply).ok_or_else(|| BackendError::new(BackendErrorKind::Malformed))
    }
}

/// What the script returns.
fn read(reply: Value) -> Option<Heard> {
    let values = Vec::<String>::from_redis_value(reply).ok()?;
    let [frame, time, start, size, starts @ ..] = values.as_slice() else { return None };
    Some(Heard {
        frame: u64::from_str_radix(frame, 16).ok()?,
        time: time.parse().ok()?,
        behind: start.parse().ok().zip(size.parse().ok()),
        starts: starts.iter().map(|start| start.parse().ok()).collect(),
    })
}

/// Between two reports, and so how old what others had may be.
const PERIOD: Duration = Duration::from_millis(100);
/// How often it is looked whether the board is there.
const REFRESH: Duration = Duration::from_secs(5);
/// How long the server may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// Between two tries to reach it.
const PAUSE: Duration = Duration::from_secs(1);
/// How long the server knows what was told last.
const KEEP: Duration = Duration::from_secs(60);
/// How long one is believed to wait who did: the one who told it may have died.
const FRESH: Duration = Duration::from_millis(500);
