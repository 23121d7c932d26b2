use std::{fmt, sync::Arc};

use crate::{
    algorithm::Algorithm,
    name::{Policies, PolicyName},
    sync::{AtomicBool, Ordering},
};

/// An algorithm under a name, as a limiter decides by it: the limit of everybody, or that of one
/// plan. Cheap to clone: make each plan's once, and clone it for each request.
pub struct Limit<A>(Arc<Inner<A>>);

struct Inner<A> {
    name: PolicyName,
    algorithm: A,
    policies: Policies,
    /// Whether a limiter has another one in its place.
    is_replaced: AtomicBool,
}

impl<A: Algorithm> Limit<A> {
    /// `algorithm` under `name`.
    pub fn new(name: PolicyName, algorithm: A) -> Self {
        let policies = Policies::new(algorithm.policies(&name));
        Self::of(name, algorithm, policies)
    }

    /// `algorithm` under the [default name](PolicyName::DEFAULT).
    pub fn unnamed(algorithm: A) -> Self {
        Self::new(PolicyName::DEFAULT, algorithm)
    }

    /// The same limit apart from this one, which may be another limiter's too: to replace it says
    /// nothing about that.
    pub(super) fn own(&self) -> Self {
        let Inner { name, algorithm, policies, .. } = &*self.0;
        Self::of(name.clone(), algorithm.clone(), policies.clone())
    }

    fn of(name: PolicyName, algorithm: A, policies: Policies) -> Self {
        let is_replaced = AtomicBool::new(false);
        Self(Arc::new(Inner { name, algorithm, policies, is_replaced }))
    }
}

impl<A> Limit<A> {
    /// The algorithm.
    #[inline]
    pub fn algorithm(&self) -> &A {
        &self.0.algorithm
    }

    /// The name.
    pub fn name(&self) -> &PolicyName {
        &self.0.name
    }

    /// Tells whoever decides by it that another limit has taken its place, which must be there by
    /// then.
    pub(super) fn mark_replaced(&self) {
        self.0.is_replaced.store(true, Ordering::Release);
    }

    /// Whether another limit has [taken its place](Self::mark_replaced).
    #[inline(always)]
    pub(super) fn is_replaced(&self) -> bool {
        self.0.is_replaced.load(Ordering::Acquire)
    }

    /// What the limit says of itself.
    pub fn policies(&self) -> &Policies {
        &self.0.policies
    }
}

impl<A> Clone for Limit<A> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<A: fmt::Debug> fmt::Debug for Limit<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Limit").field(self.name()).field(self.algorithm()).finish()
    }
}
