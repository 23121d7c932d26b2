use std::time::Duration;

use crate::{
    algorithm::Algorithm,
    backend::Backend,
    cost::Cost,
    decision::Charge,
    key::Key,
    limiter::{Limit, Limiter},
    observe::Observer,
};

/// A place in a leaky bucket. Dropped before it is used, it is given back.
pub(crate) struct Turn<A: Algorithm, B: Backend<A>> {
    limiter: Limiter<A, B>,
    limit: Limit<A>,
    key: Key,
    charge: Charge,
    observer: Observer,
    used: bool,
}

impl<A: Algorithm, B: Backend<A>> Turn<A, B> {
    pub(super) const fn new(
        limiter: Limiter<A, B>,
        limit: Limit<A>,
        key: Key,
        charge: Charge,
        observer: Observer,
    ) -> Self {
        Self { limiter, limit, key, charge, observer, used: false }
    }

    /// How long it is until the turn comes.
    pub(crate) const fn delay(&self) -> Duration {
        self.charge.delay
    }

    /// The turn has come.
    pub(crate) const fn take(&mut self) {
        self.used = true;
    }
}

impl<A: Algorithm, B: Backend<A>> Drop for Turn<A, B> {
    fn drop(&mut self) {
        self.observer.unqueued(self.limit.name());
        if !self.used {
            let backend = self.limiter.backend();
            backend.settle(self.limit.algorithm(), &self.key, &self.charge, Cost::ZERO).detach();
        }
    }
}
