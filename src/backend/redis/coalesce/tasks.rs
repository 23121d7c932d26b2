//! Who runs the tasks that carry: a Tokio runtime, or under `cfg(shuttle)` a scheduler that tries
//! many orders.

#[cfg(shuttle)]
pub(super) use shuttle::future::yield_now;
pub(super) use tokio::runtime::RuntimeFlavor;
#[cfg(not(shuttle))]
pub(super) use tokio::{
    runtime::{Handle, Id},
    task::yield_now,
};

/// The scheduler is one runtime of several threads.
#[cfg(shuttle)]
pub(super) struct Handle;

#[cfg(shuttle)]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) struct Id;

#[cfg(shuttle)]
impl Handle {
    pub(super) const fn try_current() -> Result<Self, std::convert::Infallible> {
        Ok(Self)
    }

    pub(super) const fn id(&self) -> Id {
        Id
    }

    pub(super) const fn runtime_flavor(&self) -> RuntimeFlavor {
        RuntimeFlavor::MultiThread
    }

    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        drop(shuttle::future::spawn(task));
    }
}
