use std::{future::Future, time::Duration};

use super::{
    answer::Answer,
    found::Found,
    key::AnswerKey,
    turn::{Asking, Claim, Turn},
};
use crate::error::BackendError;

/// Keeps answers: in this process, or elsewhere.
///
/// # Contract
///
/// - Clones keep the same answers.
/// - What is put can be got for `keep`, or less long: a store is free to forget.
/// - It tells no answer as younger than it is.
/// - A future that is dropped has done all or nothing.
pub trait AnswerStore: Clone + Send + Sync + 'static {
    /// The answer under `key`, if there is one.
    ///
    /// # Errors
    ///
    /// It cannot be told. The request goes on as if there were none.
    fn get(
        &self,
        key: &AnswerKey,
    ) -> impl Future<Output = Result<Option<Found>, BackendError>> + Send;

    /// Keeps `answer` under `key`, in place of an earlier one, for `keep`.
    ///
    /// # Errors
    ///
    /// It was not kept. Nobody is told: the answer has been given all the same.
    fn put(
        &self,
        key: &AnswerKey,
        answer: Answer,
        keep: Duration,
    ) -> impl Future<Output = Result<(), BackendError>> + Send;

    /// Looks once more for an answer, and otherwise for leave to ask: of those who ask the same in
    /// one process, one calls this, and again for as long as it is told to wait.
    ///
    /// A store that several processes share makes all but one of them wait, and lets them go after
    /// a time, come what may. Unless written otherwise, nobody waits.
    ///
    /// # Errors
    ///
    /// It cannot be told. The request goes on to the service.
    fn claim(
        &self,
        key: &AnswerKey,
        asking: Asking,
    ) -> impl Future<Output = Result<Claim, BackendError>> + Send {
        async move {
            Ok(match self.get(key).await? {
                Some(found) if asking.is_met_by(&found) => Claim::Found(found),
                _ => Claim::Ask(Turn::free()),
            })
        }
    }

    /// What the store holds by now, where that is known without asking around.
    fn size(&self) -> Option<StoreSize> {
        None
    }
}

/// How much a store holds.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct StoreSize {
    /// Answers.
    pub entries: u64,
    /// What they weigh.
    pub bytes: u64,
}

impl StoreSize {
    /// So many answers that weigh so much.
    pub const fn new(entries: u64, bytes: u64) -> Self {
        Self { entries, bytes }
    }
}
