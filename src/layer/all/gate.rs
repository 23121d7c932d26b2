use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt};

use crate::{
    limiter::{All, Charges},
    maybe_ready::MaybeReady,
    name::PolicyName,
    observe::{Observer, Outcome},
    policy::{OnBackendError, Subject},
    queue::{AllQueue, QueueError},
    rejection::{Denial, Rejection},
    service::gated::Gate,
};

/// Lets requests through that meet all of their limits. A clone is a handle.
pub(super) struct AllGate<F, R> {
    pub(super) limits: Arc<F>,
    pub(super) settings: Arc<Settings<R>>,
}

#[derive(Clone)]
pub(super) struct Settings<R> {
    pub(super) answer: R,
    pub(super) on_backend_error: OnBackendError,
    pub(super) queue: AllQueue,
    pub(super) observer: Observer,
}

impl<Req, F, R> Gate<Req> for AllGate<F, R>
where
    F: Fn(&Req) -> All,
{
    /// What was charged, unless it passes without being counted.
    type Pass = Option<Charges>;
    type Wait = BoxFuture<'static, Result<Self::Pass, Rejection>>;

    /// Whom it is counted against, the limits say.
    fn enter(&mut self, _: Subject, request: &Req) -> MaybeReady<Self::Wait> {
        let all = (self.limits)(request);
        let Settings { queue, observer, on_backend_error, .. } = &*self.settings;
        let (queue, observer, on_error) = (queue.clone(), observer.clone(), *on_backend_error);
        let passed = async move {
            let names: Vec<PolicyName> = all.names().cloned().collect();
            let waited = queue.acquire(all).await;
            passed(waited, &names, on_error, &observer)
        };
        MaybeReady::pending(passed.boxed())
    }
}

/// How a wait ended, and the word of it under the limits' names.
fn passed(
    waited: Result<Charges, QueueError>,
    names: &[PolicyName],
    on_error: OnBackendError,
    observer: &Observer,
) -> Result<Option<Charges>, Rejection> {
    let all = |outcome| names.iter().for_each(|name| observer.decided(name, outcome));
    match waited {
        Ok(charges) => {
            all(Outcome::Allowed);
            Ok(Some(charges))
        }
        Err(QueueError::Backend(error)) => {
            all(Outcome::Errored);
            match on_error {
                OnBackendError::Allow => Ok(None),
                OnBackendError::Deny => Err(Rejection::Backend(error)),
            }
        }
        Err(error) => {
            // The others would have let it through, or were not asked.
            if let Some(policy) = error.denial().and_then(Denial::policy) {
                observer.decided(&policy.name, Outcome::Refused);
            }
            Err(error.into())
        }
    }
}

impl<F, R> Clone for AllGate<F, R> {
    fn clone(&self) -> Self {
        Self { limits: Arc::clone(&self.limits), settings: Arc::clone(&self.settings) }
    }
}
