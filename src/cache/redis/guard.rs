use std::{future::Future, sync::Arc, time::Duration};

use crate::{
    backend::guarded::{
        BreakerState,
        breaker::{Breaker, Entry, ProbeEnd, Settings},
    },
    error::{BackendError, BackendErrorKind},
    name::PolicyName,
    observe::outages::Outages,
};

/// Keeps callers from a server that fails: what it cannot say is a miss, and so nobody waits for
/// it.
#[derive(Clone, Debug)]
pub(super) struct Guard {
    breaker: Arc<Breaker>,
}

impl Guard {
    /// `timeout` is how long a call may take.
    pub(super) fn new(name: PolicyName, timeout: Duration) -> Self {
        let settings = Settings {
            failures: FAILURES,
            first_back_off: FIRST_BACK_OFF,
            longest_back_off: LONGEST_BACK_OFF,
            longest_probe: timeout * 2,
        };
        Self { breaker: Arc::new(Breaker::new(settings, Outages::new(name, "miss"))) }
    }

    pub(super) fn state(&self) -> BreakerState {
        self.breaker.state()
    }

    /// Makes the call, unless the server has failed and is left alone.
    pub(super) async fn call<T>(
        &self,
        call: impl Future<Output = Result<T, BackendError>>,
    ) -> Result<T, BackendError> {
        let probe = match self.breaker.enter() {
            Entry::Closed => None,
            Entry::Probe(number) => Some(Probe { breaker: &self.breaker, number, ended: false }),
            Entry::Open => return Err(self.breaker.refusal()),
        };
        let answer = call.await;
        let error = answer.as_ref().err();
        if let Some(error) = error
            && probe.is_none()
        {
            self.breaker.complain(error);
        }
        match (probe, error.filter(|error| is_outage(error.kind()))) {
            (None, None) => self.breaker.answered(),
            (None, Some(error)) => self.breaker.failed(error),
            (Some(probe), None) => probe.end(ProbeEnd::Answered),
            (Some(probe), Some(error)) => probe.end(ProbeEnd::Failed(error)),
        }
        answer
    }
}

/// Whether the server does not answer, rather than what it answers: a full one has answers still,
/// and one key that is wrong is not the others' fault.
const fn is_outage(kind: BackendErrorKind) -> bool {
    !matches!(
        kind,
        BackendErrorKind::StoreFull | BackendErrorKind::Malformed | BackendErrorKind::Rejected
    )
}

/// The one call that a half-open breaker lets through. Dropped without an end, it is given back.
struct Probe<'b> {
    breaker: &'b Breaker,
    number: u64,
    ended: bool,
}

impl Probe<'_> {
    fn end(mut self, end: ProbeEnd<'_>) {
        self.ended = true;
        self.breaker.probe_ended(self.number, end);
    }
}

impl Drop for Probe<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.breaker.probe_ended(self.number, ProbeEnd::Dropped);
        }
    }
}

/// As those of [`Guarded`](crate::backend::Guarded).
const FAILURES: u32 = 5;
const FIRST_BACK_OFF: Duration = Duration::from_millis(500);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(10);
