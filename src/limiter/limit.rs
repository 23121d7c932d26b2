use std::{fmt, sync::Arc};

use crate::{
    algorithm::Algorithm,
    name::{Policies, PolicyName},
};

/// An algorithm under a name, as a limiter decides by it: the limit of everybody, or that of one
/// plan. Cheap to clone: make each plan's once, and clone it for each request.
pub struct Limit<A>(Arc<Inner<A>>);

struct Inner<A> {
    name: PolicyName,
    algorithm: A,
    policies: Policies,
}

impl<A: Algorithm> Limit<A> {
    /// `algorithm` under `name`.
    pub fn new(name: PolicyName, algorithm: A) -> Self {
        let policies = Policies::new(algorithm.policies(&name));
        Self(Arc::new(Inner { name, algorithm, policies }))
    }

    /// `algorithm` under the [default name](PolicyName::DEFAULT).
    pub fn unnamed(algorithm: A) -> Self {
        Self::new(PolicyName::DEFAULT, algorithm)
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
