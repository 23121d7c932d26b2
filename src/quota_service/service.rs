use std::{
    fmt, mem,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use http::HeaderMap;
use tokio::runtime::Handle;

use super::{
    ask_error::AskError,
    decide::{self, Decided, Decisions},
    fields::HeaderFields,
    request::{Ask, LimitOverride},
    reservations::{Open, ReservationId, Reservations, SettleError},
    resolve::{self, Resolved},
    rule::{RuleLimit, Unit},
    rules::Rules,
    verdict::{LimitStatus, Part, Status, Taken, Verdict},
};
use crate::{
    algorithm::Plan,
    backend::{Backend, DynBackend},
    cost::Cost,
    decision::{Decision, Demand},
    error::{BackendError, BackendErrorKind},
    key::Key,
    name::PolicyName,
    observe::{Observer, Outcome},
};

/// Answers whether requests may pass, by [`Rules`] over any backend.
///
/// A request is charged for all of its descriptors or for none: one that is over its limit does
/// not use up the others. Rules can be [changed](Self::set_rules) at any time; what was used stays
/// used.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use tower_quota::{backend::LocalBuilder, time::SystemClock};
/// use tower_quota::quota_service::{Ask, Descriptor, QuotaService};
///
/// let rules = r#"
///     domain = "edge"
///     [[descriptors]]
///     key = "user"
///     rate_limit = { unit = "minute", requests_per_unit = 2, algorithm = "token-bucket" }
/// "#.parse()?;
/// // The system's clock: its minutes are everybody's minutes.
/// let service = QuotaService::new(rules, LocalBuilder::new().build_with_clock(SystemClock));
///
/// let ask = Ask::new("edge", [Descriptor::new([("user", "alice")])]);
/// assert!(service.ask(&ask).await?.allowed);
/// assert!(service.ask(&ask).await?.allowed);
/// assert!(!service.ask(&ask).await?.allowed);
/// # Ok(()) }
/// ```
///
/// # Clone
///
/// A clone is a handle: it has the same rules and the same states.
#[derive(Clone)]
pub struct QuotaService {
    shared: Arc<Shared>,
}

/// By which metrics and events know a service that has no verdict.
const NAME: PolicyName = PolicyName::from_static("quota-service");

struct Shared {
    rules: RwLock<Rules>,
    backend: DynBackend<Plan>,
    reservations: Reservations,
    observer: Observer,
}

impl QuotaService {
    /// The longest time that a reservation is open.
    pub const LONGEST_RESERVATION: Duration = Duration::from_secs(3_600);

    /// A service by these rules, with the states in `backend`. Whatever the algorithm of a rule, it
    /// is decided as a [`Plan`] of one limit.
    pub fn new(rules: Rules, backend: impl Backend<Plan>) -> Self {
        let (rules, backend) = (RwLock::new(rules), DynBackend::new(backend));
        let reservations = Reservations::new();
        let observer = Observer::default();
        Self { shared: Arc::new(Shared { rules, backend, reservations, observer }) }
    }

    /// The rules in force.
    pub fn rules(&self) -> Rules {
        self.shared.rules.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts other rules in force, for every request from now on. States belong to descriptors, not
    /// to rules: what was used stays used, as long as the kind of algorithm is the same. Where it
    /// is another, a count of its own begins, and with the feature `tracing` a warning says so.
    /// (The two buckets are one kind.) A rule's counts go on where it stands at the same place.
    pub fn set_rules(&self, rules: Rules) {
        let mut current = self.shared.rules.write().unwrap_or_else(PoisonError::into_inner);
        rules.go_on_from(&current);
        *current = rules;
    }

    /// Charges a request for all of its descriptors, or for none.
    ///
    /// # Errors
    ///
    /// The request is not well-formed, or the backend failed. What was charged by then is given
    /// back, as far as the backend can be reached.
    ///
    /// # Cancel safety
    ///
    /// Dropped before its end, it goes on in a task of the Tokio runtime, which gives back what was
    /// charged. Without a runtime, or if that ends before, it stays charged.
    pub async fn ask(&self, ask: &Ask) -> Result<Verdict, AskError> {
        resolve::check(ask)?;
        let rules = self.rules();
        let resolved = resolve::resolve(&rules, ask);
        let (resolved, decided) = decide::take(self.backend(), resolved).await;
        if decided.is_err() {
            self.shared.observer.decided(&NAME, Outcome::Errored);
        }
        let decisions = decided?;
        for (one, decided) in resolved.iter().zip(&decisions.each) {
            if let (Resolved::Limited(limited), Some(decided)) = (one, decided) {
                limited.note(&decided.decision, decisions.allowed);
            }
        }
        Ok(verdict(&rules, resolved, &decisions))
    }

    /// Says what a request would be told now, and takes nothing.
    ///
    /// # Errors
    ///
    /// As [`ask`](Self::ask).
    pub async fn inspect(&self, ask: &Ask) -> Result<Verdict, AskError> {
        resolve::check(ask)?;
        let rules = self.rules();
        let resolved = resolve::resolve(&rules, ask);
        let decisions = decide::inspect(self.backend(), &resolved).await?;
        Ok(verdict(&rules, resolved, &decisions))
    }

    /// Charges a request as [`ask`](Self::ask) does, and keeps what was charged open for so long,
    /// [an hour](Self::LONGEST_RESERVATION) at the most, to be [settled](Self::settle) when the
    /// true cost is known. None is open if the request was refused.
    ///
    /// A reservation that is not settled in time counts as it was charged. So whoever reserves and
    /// is gone leaks nothing: what it took comes back by its limit, as everything does.
    ///
    /// Reservations are kept in this process, 100,000 of them and about 64 MiB at the most. One
    /// that was charged nothing has no place there: it can be settled like any other, and as often.
    ///
    /// # Errors
    ///
    /// As [`ask`](Self::ask), and [`TooManyReservations`](AskError::TooManyReservations).
    pub async fn reserve(
        &self,
        ask: &Ask,
        lasting: Duration,
    ) -> Result<(Verdict, Option<ReservationId>), AskError> {
        let place = self.shared.reservations.place().ok_or(AskError::TooManyReservations)?;
        let mut verdict = self.ask(ask).await?;
        let id = verdict.allowed.then(|| {
            let taken = mem::take(&mut verdict.taken);
            place.open(taken, lasting.min(Self::LONGEST_RESERVATION))
        });
        Ok((verdict, id))
    }

    /// Corrects a reservation to what was in fact used: `actual` says the hits by the place of a
    /// descriptor in the request. Those that it says nothing of count as they were charged. What is
    /// above the charge is taken even into debt, what is below comes back.
    ///
    /// # Errors
    ///
    /// The reservation is not known, or the backend failed: [`SettleError`] says when it is open
    /// again.
    ///
    /// # Cancel safety
    ///
    /// Once polled, it goes on by itself if it is dropped, in a Tokio runtime.
    pub async fn settle(
        &self,
        id: ReservationId,
        actual: impl Fn(usize) -> Option<u64>,
    ) -> Result<(), SettleError> {
        let open = self.shared.reservations.close(id).ok_or(SettleError::Unknown)?;
        let (settled, expires) = (open.taken.settle(self.backend(), actual), open.expires);
        let shared = Arc::clone(&self.shared);
        let corrected = async move {
            let (taken, result) = settled.await;
            shared.reservations.open_again(id, Open { taken, expires });
            result
        };
        let result = match Handle::try_current() {
            // A runtime that ends in the middle of it leaves open what was done.
            Ok(runtime) => runtime
                .spawn(corrected)
                .await
                .unwrap_or_else(|_| Err(BackendError::new(BackendErrorKind::TimedOut))),
            Err(_) => corrected.await,
        };
        result.map_err(SettleError::Backend)
    }

    /// Gives all of a reservation back: the request did not take place.
    ///
    /// # Errors
    ///
    /// As [`settle`](Self::settle).
    pub async fn give_back(&self, id: ReservationId) -> Result<(), SettleError> {
        self.settle(id, |_| Some(0)).await
    }

    /// How many reservations are open.
    pub fn open_reservations(&self) -> usize {
        self.shared.reservations.len()
    }

    /// Asks the backend for the standing of a key that nobody has: whether it can decide.
    ///
    /// # Errors
    ///
    /// It cannot.
    pub async fn check(&self) -> Result<(), BackendError> {
        let limit = RuleLimit::of(LimitOverride { requests_per_unit: 1, unit: Unit::Second }, None);
        let demand = Demand::peek(Cost::ZERO);
        self.backend().decide(limit.limit.algorithm(), &Key::anonymous(), &demand).await.map(drop)
    }

    pub(super) fn backend(&self) -> &DynBackend<Plan> {
        &self.shared.backend
    }
}

/// Puts together what is told and what was taken.
fn verdict(rules: &Rules, resolved: Vec<Resolved>, decisions: &Decisions) -> Verdict {
    let allowed = decisions.allowed;
    let mut statuses = Vec::with_capacity(resolved.len());
    let mut taken = Taken::default();
    for (descriptor, (one, decided)) in resolved.into_iter().zip(&decisions.each).enumerate() {
        let (limited, decided) = match (one, decided) {
            (Resolved::Limited(limited), Some(decided)) => (limited, decided),
            (Resolved::Unlimited(_), _) => {
                statuses.push(Status::Unlimited);
                continue;
            }
            _ => {
                statuses.push(Status::Unmatched);
                continue;
            }
        };
        let Decided { decision, taken: was_taken } = decided;
        statuses.push(Status::Limited(LimitStatus::new(&limited, decision, *was_taken)));
        if let Decision::Allow { charge, .. } = decision
            && *was_taken
            && !charge.cost.is_zero()
        {
            taken.parts.push(Part { descriptor, limited, charge: *charge });
        }
    }
    Verdict {
        allowed,
        response_headers: headers(rules.inner.response_headers, &statuses),
        request_headers: headers(rules.inner.request_headers, &statuses),
        denied_body: rules.inner.denied_body,
        statuses,
        delay: taken.delay(),
        taken,
    }
}

/// The fields of the limit that has least left.
fn headers(fields: HeaderFields, statuses: &[Status]) -> HeaderMap {
    let limited = statuses.iter().filter_map(Status::limited);
    let nearest =
        limited.min_by_key(|status| (!status.over_limit, status.told_remaining(), status.wait()));
    nearest.map_or_else(HeaderMap::new, |status| {
        let mut snapshot = status.snapshot;
        (snapshot.remaining, snapshot.reset_after) = (status.told_remaining(), status.wait());
        fields.of(&snapshot, status.limit.limit.policies())
    })
}

impl fmt::Debug for QuotaService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuotaService").field("rules", &self.rules()).finish_non_exhaustive()
    }
}
