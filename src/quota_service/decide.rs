//! Several descriptors decided as one.

use futures::future::{join_all, try_join_all};

use super::resolve::{Act, Limited, Resolved};
use crate::{
    algorithm::Plan,
    backend::{Backend as _, DynBackend},
    cost::Cost,
    decision::{Charge, Decision, Demand},
    error::BackendError,
    limiter::{All, AllDecision, Limiter},
    seen_through::{SeenThrough, Undo},
    time::{Clock as _, SystemClock},
};

type Backend = DynBackend<Plan>;

/// The decision on one descriptor.
#[derive(Clone, Copy)]
pub(super) struct Decided {
    pub(super) decision: Decision,
    /// Whether it was carried out, or only would be.
    pub(super) taken: bool,
}

/// The decisions, one for each descriptor that has a limit.
pub(super) struct Decisions {
    pub(super) allowed: bool,
    pub(super) each: Vec<Option<Decided>>,
}

/// Takes the hits of all descriptors, or those of none.
///
/// Those are asked first that can refuse the request, then those that cannot, since they are to
/// count what passes. Hits that are given back are so at the end, whatever became of the others:
/// that cannot be undone. If the backend fails on the way, what was taken by then is given back.
/// So it is too if nobody waits for the verdict any more.
pub(super) async fn take(backend: &Backend, resolved: Vec<Resolved>) -> Took {
    let hung_up = HungUp { backend: backend.clone() };
    let backend = backend.clone();
    let taking = async move {
        let mut each = vec![None; resolved.len()];
        let decided = match take_each(&backend, &resolved, &mut each).await {
            Ok(allowed) => Ok(Decisions { allowed, each }),
            Err(error) => {
                undo(&backend, &resolved, &each);
                Err(error)
            }
        };
        (resolved, decided)
    };
    SeenThrough::new(taking, hung_up).await.0
}

/// What was to be taken, and what became of it.
type Took = (Vec<Resolved>, Result<Decisions, BackendError>);

/// Whoever asked has gone.
struct HungUp {
    backend: Backend,
}

impl Undo<Took> for HungUp {
    async fn undo(self, (resolved, decided): Took) {
        if let Ok(Decisions { each, .. }) = decided {
            undo(&self.backend, &resolved, &each);
        }
    }
}

async fn take_each(
    backend: &Backend,
    resolved: &[Resolved],
    each: &mut [Option<Decided>],
) -> Result<bool, BackendError> {
    let allowed = if limited(resolved, Act::Quota).next().is_none() {
        enforce(backend, resolved, each).await?
    } else {
        enforce_with_quotas(backend, resolved, each).await?
    };
    if allowed {
        charge(backend, resolved, Act::Shadow, each).await?;
    } else {
        look(backend, resolved, Act::Shadow, each).await?;
    }
    for (one, decided) in resolved.iter().zip(&*each) {
        if let Resolved::Limited(limited) = one
            && let Some(decided) = decided
            && limited.counts_refused()
            && (!allowed || !decided.decision.is_allowed())
        {
            count(backend, limited).await?;
        }
    }
    for (place, limited) in limited(resolved, Act::Refund) {
        give_back(backend, limited).await?;
        each[place] = Some(standing(backend, limited).await?);
    }
    Ok(allowed)
}

/// Gives back what was taken for a request that has no verdict. Its caller does not wait for a
/// backend that has just failed.
fn undo(backend: &Backend, resolved: &[Resolved], each: &[Option<Decided>]) {
    for (one, decided) in resolved.iter().zip(each) {
        if let Resolved::Limited(limited) = one
            && let Some(Decided { decision: Decision::Allow { charge, .. }, taken: true }) = decided
            && limited.act != Act::Refund
        {
            let algorithm = limited.limit.limit.algorithm();
            backend.settle(algorithm, &limited.key, charge, Cost::ZERO).detach();
        }
    }
}

/// Says what [`take`] would say, and takes nothing.
pub(super) async fn inspect(
    backend: &Backend,
    resolved: &[Resolved],
) -> Result<Decisions, BackendError> {
    let mut each = vec![None; resolved.len()];
    for (place, limited) in limited(resolved, Act::Refund) {
        each[place] = Some(standing(backend, limited).await?);
    }
    for act in [Act::Quota, Act::Enforce, Act::Shadow] {
        look(backend, resolved, act, &mut each).await?;
    }
    let enforced = limited(resolved, Act::Enforce).all(|(place, _)| is_allowed(each[place]));
    Ok(Decisions { allowed: enforced && has_quota(resolved, &each), each })
}

fn limited(resolved: &[Resolved], act: Act) -> impl Iterator<Item = (usize, &Limited)> {
    let all = resolved.iter().enumerate();
    let all = all.filter_map(|(place, one)| Some((place, one.limited()?)));
    all.filter(move |(_, limited)| limited.act == act)
}

fn is_allowed(decided: Option<Decided>) -> bool {
    decided.is_some_and(|decided| decided.decision.is_allowed())
}

/// Whether one of the rules in quota mode has room, if there are any.
fn has_quota(resolved: &[Resolved], each: &[Option<Decided>]) -> bool {
    let mut quotas = limited(resolved, Act::Quota).map(|(place, _)| each[place]).peekable();
    quotas.peek().is_none() || quotas.any(is_allowed)
}

/// Takes the hits of those that can refuse the request, where some are in quota mode.
///
/// That one of these has room is known only when it is charged: others may ask at the same time.
/// So they are charged first, and given back if somebody came between at another limit.
async fn enforce_with_quotas(
    backend: &Backend,
    resolved: &[Resolved],
    each: &mut [Option<Decided>],
) -> Result<bool, BackendError> {
    look(backend, resolved, Act::Enforce, each).await?;
    if !limited(resolved, Act::Enforce).all(|(place, _)| is_allowed(each[place])) {
        look(backend, resolved, Act::Quota, each).await?;
        return Ok(false);
    }
    charge(backend, resolved, Act::Quota, each).await?;
    if !has_quota(resolved, each) {
        return Ok(false);
    }
    let allowed = enforce(backend, resolved, each).await?;
    if !allowed {
        for (place, limited) in limited(resolved, Act::Quota) {
            let Some(decided) = &mut each[place] else { continue };
            if let Some(charge) = decided.decision.charge() {
                let algorithm = limited.limit.limit.algorithm();
                backend.settle(algorithm, &limited.key, &charge, Cost::ZERO).await?;
                decided.taken = false;
            }
        }
    }
    Ok(allowed)
}

/// Takes the hits of those that have room, each by itself.
async fn charge(
    backend: &Backend,
    resolved: &[Resolved],
    act: Act,
    each: &mut [Option<Decided>],
) -> Result<(), BackendError> {
    let asked = limited(resolved, act).map(|(place, limited)| async move {
        (place, one(backend, limited, Demand::exactly).await)
    });
    let mut failed = Ok(());
    for (place, decision) in join_all(asked).await {
        match decision {
            Ok(decision) => each[place] = Some(Decided { decision, taken: true }),
            Err(error) => failed = Err(error),
        }
    }
    failed
}

/// Takes the hits of those that can refuse the request, together or not at all.
async fn enforce(
    backend: &Backend,
    resolved: &[Resolved],
    each: &mut [Option<Decided>],
) -> Result<bool, BackendError> {
    let enforced: Vec<_> = limited(resolved, Act::Enforce).collect();
    if let [(place, limited)] = *enforced {
        // There is nothing to be given back, so it is one step.
        let decision = one(backend, limited, Demand::exactly).await?;
        each[place] = Some(Decided { decision, taken: true });
        return Ok(decision.is_allowed());
    }
    let all = enforced.iter().fold(All::new(), |all, (_, limited)| {
        let limiter = Limiter::of(limited.limit.limit.clone(), backend.clone());
        all.and(&limiter, &limited.key, limited.hits)
    });
    let decision = all.decide().await?;
    let allowed = decision.is_allowed();
    let standings = match &decision {
        AllDecision::Allow(charges) => charges.standings(),
        AllDecision::Deny { standings, .. } => standings,
    };
    for ((place, _), standing) in enforced.iter().zip(standings) {
        each[*place] = Some(Decided { decision: standing.decision, taken: allowed });
    }
    Ok(allowed)
}

/// What those would be told.
async fn look(
    backend: &Backend,
    resolved: &[Resolved],
    act: Act,
    each: &mut [Option<Decided>],
) -> Result<(), BackendError> {
    let asked = limited(resolved, act).map(|(place, limited)| async move {
        Ok((place, one(backend, limited, Demand::peek).await?))
    });
    for (place, decision) in try_join_all(asked).await? {
        each[place] = Some(Decided { decision, taken: false });
    }
    Ok(())
}

async fn one(
    backend: &Backend,
    limited: &Limited,
    mode: fn(Cost) -> Demand,
) -> Result<Decision, BackendError> {
    let demand = mode(Cost::new(limited.hits));
    backend.decide(limited.limit.limit.algorithm(), &limited.key, &demand).await
}

/// How a limit stands whose hits were given back. It refuses nothing, even if there is debt left.
async fn standing(backend: &Backend, limited: &Limited) -> Result<Decided, BackendError> {
    let demand = Demand::peek(Cost::ZERO);
    let decision = backend.decide(limited.limit.limit.algorithm(), &limited.key, &demand).await?;
    let decision = match decision {
        Decision::Allow { .. } => decision,
        Decision::Deny { snapshot, .. } => {
            Decision::Allow { snapshot, charge: Charge::new(SystemClock.now(), Cost::ZERO) }
        }
    };
    Ok(Decided { decision, taken: true })
}

/// Gives hits back to the present window: who gives them back has no receipt of the past one.
async fn give_back(backend: &Backend, limited: &Limited) -> Result<(), BackendError> {
    let algorithm = limited.limit.limit.algorithm();
    let peeked = backend.decide(algorithm, &limited.key, &Demand::peek(Cost::ZERO)).await?;
    // A key in debt is told no time. Then this machine's will do.
    let at = peeked.charge().map_or_else(|| SystemClock.now(), |charge| charge.at);
    let charge = Charge::new(at, Cost::new(limited.hits));
    backend.settle(algorithm, &limited.key, &charge, Cost::ZERO).await
}

/// Counts hits that were refused, as debt.
async fn count(backend: &Backend, limited: &Limited) -> Result<(), BackendError> {
    let nothing = Charge::new(SystemClock.now(), Cost::ZERO);
    let algorithm = limited.limit.limit.algorithm();
    backend.settle(algorithm, &limited.key, &nothing, Cost::new(limited.hits)).await
}
