use super::Limiter;
use crate::{
    algorithm::Algorithm,
    backend::{Local, local::KeyUsage},
    cost::Cost,
    decision::{Decision, Demand},
    error::BackendError,
    key::Key,
    time::Clock,
};

/// What only a backend in this process can do.
impl<A: Algorithm, C: Clock> Limiter<A, Local<A, C>> {
    /// Decides at once, without a future in between.
    ///
    /// # Errors
    ///
    /// The store is full and was told to [refuse](crate::backend::local::WhenFull::Refuse) new
    /// keys then.
    #[inline(always)]
    pub fn decide_now(&self, key: &Key, cost: impl Into<Cost>) -> Result<Decision, BackendError> {
        let cost = cost.into();
        match self.current() {
            Some(limit) => self.backend.decide_now(limit.algorithm(), key, &Demand::exactly(cost)),
            None => self.decide_by_changed(key, cost.rebuilt()),
        }
    }

    /// Takes `cost` from the quota of `key` and says only whether it could: the cheapest decision,
    /// where nobody asks what is left or when to come back.
    ///
    /// # Errors
    ///
    /// As [`decide_now`](Self::decide_now).
    #[inline(always)]
    pub fn allows_now(&self, key: &Key, cost: impl Into<Cost>) -> Result<bool, BackendError> {
        let cost = cost.into();
        match self.current() {
            Some(limit) => self.backend.allows_now(limit.algorithm(), key, &Demand::exactly(cost)),
            None => self.allows_by_changed(key, cost.rebuilt()),
        }
    }

    #[cold]
    fn allows_by_changed(&self, key: &Key, cost: Cost) -> Result<bool, BackendError> {
        let limit = self.changed_limit();
        self.backend.allows_now(limit.algorithm(), key, &Demand::exactly(cost))
    }

    #[cold]
    fn decide_by_changed(&self, key: &Key, cost: Cost) -> Result<Decision, BackendError> {
        let limit = self.changed_limit();
        self.backend.decide_now(limit.algorithm(), key, &Demand::exactly(cost))
    }

    /// The keys that have the least of their limit left, at most `count`, busiest first.
    pub fn busiest(&self, count: usize) -> Vec<KeyUsage> {
        self.backend.busiest(self.limit().algorithm(), count)
    }
}
