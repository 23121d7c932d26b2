use std::{fmt, sync::Arc, time::Duration};

use futures::future::BoxFuture;

use super::{Backend, Joint};
use crate::{
    algorithm::Algorithm,
    cost::Cost,
    decision::{Charge, Decision, Demand},
    error::BackendError,
    key::Key,
    maybe_ready::MaybeReady,
    time::Timestamp,
};

/// Any backend of an algorithm, chosen at run time.
///
/// A decision that is ready at once passes through without an allocation; a pending one is boxed.
///
/// ```
/// use tower_quota::{Quota, TokenBucketLayer};
/// use tower_quota::backend::{DynBackend, Local};
///
/// let backend = DynBackend::new(Local::new());
/// let layer = TokenBucketLayer::new(Quota::per_second(100)).backend(backend);
/// # let _ = layer;
/// ```
pub struct DynBackend<A: Algorithm>(Arc<dyn ErasedBackend<A>>);

impl<A: Algorithm> DynBackend<A> {
    /// Hides the type of `backend`.
    pub fn new(backend: impl Backend<A>) -> Self {
        Self(Arc::new(backend))
    }
}

impl<A: Algorithm> Backend<A> for DynBackend<A> {
    type Decide = BoxFuture<'static, Result<Decision, BackendError>>;
    type Settle = BoxFuture<'static, Result<(), BackendError>>;

    fn decide(&self, algorithm: &A, key: &Key, demand: &Demand) -> MaybeReady<Self::Decide> {
        self.0.decide(algorithm, key, demand)
    }

    fn admit(
        &self,
        algorithm: &A,
        key: &Key,
        demand: &Demand,
    ) -> Result<(), MaybeReady<Self::Decide>> {
        self.0.admit(algorithm, key, demand)
    }

    fn settle(
        &self,
        algorithm: &A,
        key: &Key,
        charge: &Charge,
        actual: Cost,
    ) -> MaybeReady<Self::Settle> {
        self.0.settle(algorithm, key, charge, actual)
    }

    fn joint(&self, algorithm: &A, key: &Key, cost: Cost) -> Option<Joint> {
        self.0.joint(algorithm, key, cost)
    }

    fn answers_within(&self) -> Option<Duration> {
        self.0.answers_within()
    }

    fn state_id(&self) -> Option<usize> {
        self.0.state_id()
    }

    fn state_of(&self, algorithm: &A, key: &Key) -> Option<(A::State, Timestamp)> {
        self.0.state_of(algorithm, key)
    }
}

impl<A: Algorithm> Clone for DynBackend<A> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<A: Algorithm> fmt::Debug for DynBackend<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DynBackend").finish_non_exhaustive()
    }
}

type BoxReady<T> = MaybeReady<BoxFuture<'static, Result<T, BackendError>>>;

/// The object-safe twin of [`Backend`].
trait ErasedBackend<A: Algorithm>: Send + Sync {
    fn decide(&self, algorithm: &A, key: &Key, demand: &Demand) -> BoxReady<Decision>;
    fn admit(&self, algorithm: &A, key: &Key, demand: &Demand) -> Result<(), BoxReady<Decision>>;
    fn settle(&self, algorithm: &A, key: &Key, charge: &Charge, actual: Cost) -> BoxReady<()>;
    fn joint(&self, algorithm: &A, key: &Key, cost: Cost) -> Option<Joint>;
    fn answers_within(&self) -> Option<Duration>;
    fn state_id(&self) -> Option<usize>;
    fn state_of(&self, algorithm: &A, key: &Key) -> Option<(A::State, Timestamp)>;
}

impl<A: Algorithm, B: Backend<A>> ErasedBackend<A> for B {
    fn decide(&self, algorithm: &A, key: &Key, demand: &Demand) -> BoxReady<Decision> {
        boxed(Backend::decide(self, algorithm, key, demand))
    }

    fn admit(&self, algorithm: &A, key: &Key, demand: &Demand) -> Result<(), BoxReady<Decision>> {
        Backend::admit(self, algorithm, key, demand).map_err(boxed)
    }

    fn settle(&self, algorithm: &A, key: &Key, charge: &Charge, actual: Cost) -> BoxReady<()> {
        boxed(Backend::settle(self, algorithm, key, charge, actual))
    }

    fn joint(&self, algorithm: &A, key: &Key, cost: Cost) -> Option<Joint> {
        Backend::joint(self, algorithm, key, cost)
    }

    fn answers_within(&self) -> Option<Duration> {
        Backend::answers_within(self)
    }

    fn state_id(&self) -> Option<usize> {
        Backend::state_id(self)
    }

    fn state_of(&self, algorithm: &A, key: &Key) -> Option<(A::State, Timestamp)> {
        Backend::state_of(self, algorithm, key)
    }
}

fn boxed<T, F>(output: MaybeReady<F>) -> BoxReady<T>
where
    F: Future<Output = Result<T, BackendError>> + Send + 'static,
{
    match output.try_into_ready() {
        Ok(output) => MaybeReady::ready(output),
        Err(future) => MaybeReady::pending(Box::pin(future)),
    }
}
