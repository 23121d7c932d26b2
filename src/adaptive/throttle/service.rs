use super::gate::Settings;
use crate::adaptive::learning::learning_service;

learning_service! {
    /// The service of [`ClientThrottleLayer`](super::ClientThrottleLayer).
    ///
    /// # Readiness
    ///
    /// It is ready when the inner service is. A request that is refused waits for it too.
    ///
    /// # Clone
    ///
    /// Clones learn together, and so do all services that one layer and its clones make.
    ///
    /// # Cancel safety
    ///
    /// A response future that is dropped is counted as
    /// [`on_drop`](super::ClientThrottleLayer::on_drop) says.
    ClientThrottle by Settings;

    /// The future of [`ClientThrottle`]'s response.
    ///
    /// A request whose key has to be waited for does so in a box of its own.
    ClientThrottleFuture
}
