use std::time::Instant;

use super::turn::Turn;
use crate::{
    algorithm::Algorithm,
    backend::Backend,
    decision::{Decision, Demand, Snapshot},
    error::BackendError,
    key::Key,
    limiter::{Limit, Limiter},
    name::Policies,
    observe::Outcome,
    policy::{CostOf, LimitOf, OnBackendError, OnMissingKey, Policy, Subject},
    rejection::{Denial, Rejection},
};

/// What comes of a request at the gate.
pub(super) enum Entry<A: Algorithm, B: Backend<A>> {
    Decided(Verdict<A, B>),
    /// The backend was asked and will answer.
    Asked(B::Decide, Ticket<A, B>),
}

/// What becomes of a request.
pub(super) enum Verdict<A: Algorithm, B: Backend<A>> {
    /// It goes on; its response tells this standing.
    Go(Option<Standing>),
    /// It goes on at its turn.
    Delay(Turn<A, B>, Option<Standing>),
    /// It does not go on.
    Refuse(Rejection),
}

/// What a response tells of the limit.
pub(super) struct Standing {
    pub(super) snapshot: Snapshot,
    pub(super) policies: Policies,
}

/// What the backend was asked.
pub(super) struct Ticket<A: Algorithm, B: Backend<A>> {
    limiter: Limiter<A, B>,
    limit: Limit<A>,
    key: Key,
    asked_at: Instant,
}

/// Takes a request to the limiter. Whether its response is to tell the standing, `annotates` says.
#[inline]
pub(super) fn enter<Req, A, B, K, C, R, L>(
    limiter: &mut Limiter<A, B>,
    policy: &Policy<K, C, R, L>,
    subject: Subject,
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

    let outcome = match (subject, policy.exceptions.on_missing_key) {
        (Subject::Counted(key), _) => Ok(key),
        (Subject::Missing, OnMissingKey::Share) => Ok(Key::anonymous()),
        (Subject::Missing, OnMissingKey::Deny) if !policy.exceptions.dry_run => {
            Err(Outcome::MissingKey)
        }
        (Subject::Denied, _) if !policy.exceptions.dry_run => Err(Outcome::Denied),
        (Subject::Missing, OnMissingKey::Deny) | (Subject::Denied, _) => {
            Err(Outcome::DryRunRefused)
        }
        (Subject::Missing, OnMissingKey::Exempt) | (Subject::Exempt, _) => Err(Outcome::Exempt),
    };
    let key = match outcome {
        Ok(key) => key,
        Err(outcome) => {
            policy.exceptions.observer.decided(limit.name(), outcome);
            return Entry::Decided(match outcome {
                Outcome::MissingKey => Verdict::Refuse(Rejection::NoKey),
                Outcome::Denied => Verdict::Refuse(Rejection::Denied),
                _ => Verdict::Go(None),
            });
        }
    };

    let demand = Demand::exactly(policy.cost.cost_of(request));
    match limiter.demand_under(limit, &key, &demand).try_into_ready() {
        Ok(decision) => Entry::Decided(judge(limiter, policy, limit, key, decision, annotates)),
        Err(decision) => {
            let limit = limit.clone();
            let asked_at = crate::time::now();
            Entry::Asked(decision, Ticket { limiter: limiter.clone(), limit, key, asked_at })
        }
    }
}

impl<A: Algorithm, B: Backend<A>> Ticket<A, B> {
    /// What becomes of the request, now that the backend has answered.
    pub(super) fn judge<K, C, R, L>(
        self,
        policy: &Policy<K, C, R, L>,
        decision: Result<Decision, BackendError>,
        annotates: bool,
    ) -> Verdict<A, B> {
        let Self { limiter, limit, key, asked_at } = self;
        policy.exceptions.observer.waited_for_decision(limit.name(), asked_at.elapsed());
        judge(&limiter, policy, &limit, key, decision, annotates)
    }
}

#[inline]
fn judge<A: Algorithm, B: Backend<A>, K, C, R, L>(
    limiter: &Limiter<A, B>,
    policy: &Policy<K, C, R, L>,
    limit: &Limit<A>,
    key: Key,
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
                key,
                charge,
                policy.exceptions.observer.clone(),
            );
            Verdict::Delay(turn, standing(snapshot))
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
