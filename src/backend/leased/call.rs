use crate::{
    decision::{Decision, Demand},
    error::BackendError,
};

/// The place of a request that waits.
pub type Ticket = u64;

/// What became of a request that waited.
pub type Decided = (Ticket, Result<Decision, BackendError>);

/// A call to the backend, to be made once: if its outcome is unknown, what it drew is lost.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Call {
    /// Tells this call's answer from those of others.
    pub id: u64,
    /// What to ask the backend, by [`Terms::drawn_from`](super::Terms::drawn_from).
    pub demand: Demand,
    pub(super) sent: u64,
}
