use std::{future::Future, pin::Pin};

use super::Ended;
use crate::observe::deferrals::{CallbackEnd, Deferrals};

/// What a [callback](super::Runner::on_end) says of itself, for metrics and events only: nothing,
/// or whether it succeeded.
pub trait CallbackOutcome {
    /// Whether it has done what it was to do.
    fn is_success(&self) -> bool;
}

impl CallbackOutcome for () {
    fn is_success(&self) -> bool {
        true
    }
}

impl<T, E> CallbackOutcome for Result<T, E> {
    fn is_success(&self) -> bool {
        self.is_ok()
    }
}

/// A callback, whose future says whether it has succeeded.
pub(super) type Callback =
    dyn Fn(Ended) -> Pin<Box<dyn Future<Output = bool> + Send>> + Send + Sync;

/// Calls `callback`, and tells how that ended.
pub(super) async fn call_back(callback: &Callback, ended: Ended, observer: &Deferrals) {
    let watched = Watched(observer);
    let is_success = callback(ended).await;
    let end = if is_success { CallbackEnd::Succeeded } else { CallbackEnd::Failed };
    watched.0.called_back(end);
}

/// A callback that runs.
struct Watched<'o>(&'o Deferrals);

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.called_back(CallbackEnd::Panicked);
        }
    }
}
