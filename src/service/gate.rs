use std::time::Instant;

pub(crate) use super::turn::Turn;
use crate::{
    algorithm::Algorithm,
    backend::Backend,
    decision::{Decision, Demand, Snapshot},
    error::BackendError,
    key::Key,
    limiter::{Held, Limit, Limiter},
    maybe_ready::MaybeReady,
    name::Policies,
    observe::Outcome,
    policy::{CostOf, Exceptions, LimitOf, OnBackendError, Policy, Subject},
    rejection::{Denial, Rejection},
    seen_through::{SeenThrough, Undo},
};

/// What comes of a request at the gate.
pub(crate) enum Entry<A: Algorithm, B: Backend<A>> {
    Decided(Verdict<A, B>),
    /// The backend was asked and will answer.
    Asked(Asked<A, B>),
}

/// A decision that has to be waited for.
pub(crate) type Asked<A, B> = SeenThrough<<B as Backend<A>>::Decide, Box<Ticket<A, B>>>;

/// What becomes of a request.
pub(crate) enum Verdict<A: Algorithm, B: Backend<A>> {
    /// It goes on; its response tells this standing.
    Go(Option<Standing>),
    /// It goes on at its turn.
    Delay(Box<Turn<A, B>>, Option<Standing>),
    /// It does not go on.
    Refuse(Rejection),
}

/// What a response tells of the limit.
pub(crate) struct Standing {
    pub(super) snapshot: Snapshot,
    pub(super) policies: Policies,
}

/// What the backend was asked.
pub(crate) struct Ticket<A: Algorithm, B: Backend<A>> {
    limiter: Limiter<A, B>,
    limit: Limit<A>,
    key: Key,
    asked_at: Instant,
}

/// Takes a request to the limiter. Whether its response is to tell the standing, `annotates` says.
#[inline(always)]
pub(crate) fn enter<Req, A, B, K, C, R, L>(
    limiter: &mut Limiter<A, B>,
    policy: &Policy<K, C, R, L>,
    subject: &Subject,
    request: &Req,
    annotates: bool,
) -> Entry<A, B>
where
    A: Algorithm,
    B: Backend<A>,
    C: CostOf<Req>,
    L: LimitOf<Req, A>,
{
    limiter.refresh();
    let own = policy.limit.limit_of(request);
    let limit = own.as_ref().unwrap_or_else(|| limiter.known_limit());
    let Subject::Counted(key) = subject else {
        return enter_uncounted(limiter, policy, limit, subject, request, annotates);
    };
    let demand = Demand::exactly(policy.cost.cost_of(request));
    let observer = &policy.exceptions.observer;
    let decision = if annotates {
        let decision = limiter.demand_under(limit, key, &demand);
        // As with the key: the usual answer is looked at where it is.
        if let Some(Ok(Decision::Allow { snapshot, charge })) = decision.as_ready()
            && charge.delay.is_zero()
        {
            observer.decided(limit.name(), Outcome::Allowed);
            let standing = Standing { snapshot: *snapshot, policies: limit.policies().clone() };
            return Entry::Decided(Verdict::Go(Some(standing)));
        }
        decision
    } else {
        match limiter.admit_under(limit, key, &demand) {
            Ok(()) => {
                observer.decided(limit.name(), Outcome::Allowed);
                return Entry::Decided(Verdict::Go(None));
            }
            Err(decision) => decision,
        }
    };
    otherwise(limiter, policy, limit, key, decision, annotates)
}

/// What comes of a demand that was not simply met.
#[cold]
fn otherwise<A: Algorithm, B: Backend<A>, K, C, R, L>(
    limiter: &Limiter<A, B>,
    policy: &Policy<K, C, R, L>,
    limit: &Limit<A>,
    key: &Key,
    decision: MaybeReady<B::Decide>,
    annotates: bool,
) -> Entry<A, B> {
    match decision.try_into_ready() {
        Ok(decision) => Entry::Decided(judge(limiter, policy, limit, key, decision, annotates)),
        Err(decision) => Entry::Asked(SeenThrough::new(decision, Ticket::new(limiter, limit, key))),
    }
}

/// Takes a request to the limiter that has no key of its own.
#[cold]
fn enter_uncounted<Req, A, B, K, C, R, L>(
    limiter: &Limiter<A, B>,
    policy: &Policy<K, C, R, L>,
    limit: &Limit<A>,
    subject: &Subject,
    request: &Req,
    annotates: bool,
) -> Entry<A, B>
where
    A: Algorithm,
    B: Backend<A>,
    C: CostOf<Req>,
{
    let Exceptions { on_missing_key, dry_run, observer, .. } = &policy.exceptions;
    let verdict = match subject.clone().counted(*on_missing_key) {
        Ok(Some(key)) => {
            let demand = Demand::exactly(policy.cost.cost_of(request));
            let decision = limiter.demand_under(limit, &key, &demand);
            return otherwise(limiter, policy, limit, &key, decision, annotates);
        }
        Ok(None) => {
            observer.decided(limit.name(), Outcome::Exempt);
            Verdict::Go(None)
        }
        Err(_) if *dry_run => {
            observer.decided(limit.name(), Outcome::DryRunRefused);
            Verdict::Go(None)
        }
        Err(rejection) => {
            observer.decided(limit.name(), Outcome::of(&rejection));
            Verdict::Refuse(rejection)
        }
    };
    Entry::Decided(verdict)
}

impl<A: Algorithm, B: Backend<A>> Ticket<A, B> {
    #[cold]
    fn new(limiter: &Limiter<A, B>, limit: &Limit<A>, key: &Key) -> Box<Self> {
        let (limiter, limit, asked_at) = (limiter.clone(), limit.clone(), crate::time::now());
        Box::new(Self { limiter, limit, key: key.clone(), asked_at })
    }

    /// What becomes of the request, now that the backend has answered.
    pub(crate) fn judge<K, C, R, L>(
        self,
        policy: &Policy<K, C, R, L>,
        decision: Result<Decision, BackendError>,
        annotates: bool,
    ) -> Verdict<A, B> {
        let Self { limiter, limit, key, asked_at } = self;
        policy.exceptions.observer.waited_for_decision(limit.name(), asked_at.elapsed());
        judge(&limiter, policy, &limit, &key, decision, annotates)
    }
}

/// The request does not go on, so whatever was taken for it comes back.
impl<A: Algorithm, B: Backend<A>> Undo<Result<Decision, BackendError>> for Box<Ticket<A, B>> {
    async fn undo(self, decision: Result<Decision, BackendError>) {
        let Ticket { limiter, limit, key, .. } = *self;
        Held { backend: limiter.backend().clone(), limit, key }.undo(decision).await;
    }
}

/// What becomes of a request that the usual path did not let through.
#[cold]
#[inline(never)]
fn judge<A: Algorithm, B: Backend<A>, K, C, R, L>(
    limiter: &Limiter<A, B>,
    policy: &Policy<K, C, R, L>,
    limit: &Limit<A>,
    key: &Key,
    decision: Result<Decision, BackendError>,
    annotates: bool,
) -> Verdict<A, B> {
    let name = limit.name();
    let standing =
        |snapshot| annotates.then(|| Standing { snapshot, policies: limit.policies().clone() });
    match decision {
        Ok(Decision::Allow { snapshot, charge }) => {
            policy.exceptions.observer.decided(name, Outcome::Allowed);
            if charge.delay.is_zero() || policy.exceptions.dry_run {
                return Verdict::Go(standing(snapshot));
            }
            policy.exceptions.observer.queued(name, charge.delay);
            let turn = Turn::new(
                limiter.clone(),
                limit.clone(),
                key.clone(),
                charge,
                policy.exceptions.observer.clone(),
            );
            Verdict::Delay(Box::new(turn), standing(snapshot))
        }
        Ok(Decision::Deny { snapshot, .. }) if policy.exceptions.dry_run => {
            policy.exceptions.observer.decided(name, Outcome::DryRunRefused);
            Verdict::Go(standing(snapshot))
        }
        Ok(Decision::Deny { snapshot, retry_after, violated }) => {
            policy.exceptions.observer.decided(name, Outcome::Refused);
            let policies = limit.policies().clone();
            let denial = Denial::new(retry_after, snapshot, violated, policies);
            Verdict::Refuse(Rejection::OverLimit(denial))
        }
        Err(error) => {
            policy.exceptions.observer.decided(name, Outcome::Errored);
            if policy.exceptions.on_backend_error == OnBackendError::Allow
                || policy.exceptions.dry_run
            {
                Verdict::Go(None)
            } else {
                Verdict::Refuse(Rejection::Backend(error))
            }
        }
    }
}
