use super::{gate::Settings, learning::learning_service};

learning_service! {
    /// The service of [`AdaptiveLayer`](super::AdaptiveLayer).
    ///
    /// # Readiness
    ///
    /// It is ready when the inner service is. A request that waits does so with the service that
    /// was made ready; a clone takes its place.
    ///
    /// # Clone
    ///
    /// Clones learn together, and so do all services that one layer and its clones make.
    ///
    /// # Cancel safety
    ///
    /// A response future that is dropped while it waits gives up its place, and those behind move
    /// up. Once the inner service has been called the token is spent; what is dropped then teaches
    /// nothing.
    Adaptive by Settings;

    /// The future of [`Adaptive`]'s response.
    ///
    /// A request that has to wait does so in a box of its own.
    AdaptiveFuture
}
