use futures::future::{BoxFuture, FutureExt, join_all};

#[cfg(feature = "local")]
use crate::key::Key;
use crate::{
    algorithm::Algorithm,
    backend::{Backend, Joint},
    cost::Cost,
    decision::{Charge, Decision, Demand},
    error::BackendError,
    limiter::permit::Held,
    name::{Policies, PolicyName},
};

/// What one limit says of a request.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Standing {
    /// The name of the limit.
    pub name: PolicyName,
    /// What it says of itself.
    pub policies: Policies,
    /// Its own verdict. Of a limit that would allow what another refuses, it is how it would stand.
    pub decision: Decision,
}

/// A limiter that is asked for one key, whatever its algorithm and its backend.
pub(super) trait Asked: Send + Sync {
    fn name(&self) -> &PolicyName;

    fn demand(
        &self,
        mode: fn(Cost) -> Demand,
    ) -> BoxFuture<'static, Result<Decision, BackendError>>;

    fn joint(&self) -> Option<Joint>;

    fn settle(&self, charge: &Charge, actual: Cost)
    -> BoxFuture<'static, Result<(), BackendError>>;

    fn standing(&self, decision: Decision) -> Standing;

    /// The same, to be asked once more.
    fn again(&self) -> Box<dyn Asked>;

    #[cfg(feature = "local")]
    fn place(&self) -> Place;
}

/// What somebody waits for: a limit, for a key. Limits that have one name are one here, and
/// those who wait for them wait for each other.
#[cfg(feature = "local")]
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Place {
    name: PolicyName,
    key: Key,
}

#[cfg(feature = "local")]
impl Place {
    /// The limit's name.
    pub(crate) const fn name(&self) -> &PolicyName {
        &self.name
    }
}

pub(super) struct One<A, B> {
    pub(super) held: Held<A, B>,
    pub(super) cost: Cost,
}

impl<A: Algorithm, B: Backend<A>> Asked for One<A, B> {
    fn name(&self) -> &PolicyName {
        self.held.limit.name()
    }

    fn demand(
        &self,
        mode: fn(Cost) -> Demand,
    ) -> BoxFuture<'static, Result<Decision, BackendError>> {
        let Held { backend, limit, key } = &self.held;
        backend.decide(limit.algorithm(), key, &mode(self.cost)).boxed()
    }

    fn joint(&self) -> Option<Joint> {
        let Held { backend, limit, key } = &self.held;
        backend.joint(limit.algorithm(), key, self.cost)
    }

    fn settle(
        &self,
        charge: &Charge,
        actual: Cost,
    ) -> BoxFuture<'static, Result<(), BackendError>> {
        self.held.settle(charge, actual).boxed()
    }

    fn standing(&self, decision: Decision) -> Standing {
        let limit = &self.held.limit;
        let (name, policies) = (limit.name().clone(), limit.policies().clone());
        Standing { name, policies, decision }
    }

    fn again(&self) -> Box<dyn Asked> {
        let Held { backend, limit, key } = &self.held;
        let held = Held { backend: backend.clone(), limit: limit.clone(), key: key.clone() };
        Box::new(Self { held, cost: self.cost })
    }

    #[cfg(feature = "local")]
    fn place(&self) -> Place {
        Place { name: self.name().clone(), key: self.held.key.clone() }
    }
}

/// Gives back what was taken of each.
pub(super) fn give_back(asked: &[Box<dyn Asked>], taken: &[Charge]) -> Settled {
    all_of(asked.iter().zip(taken).map(|(one, charge)| one.settle(charge, Cost::ZERO)))
}

/// Makes all corrections, whether others fail or not: the first error, if there is one.
pub(super) fn all_of(settled: impl Iterator<Item = Settled>) -> Settled {
    let all = join_all(settled);
    async move { all.await.into_iter().collect() }.boxed()
}

/// A correction on its way.
pub(super) type Settled = BoxFuture<'static, Result<(), BackendError>>;
