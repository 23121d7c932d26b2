use std::{future::Future, sync::Arc, time::Duration};

use super::{answer::Answer, key::AnswerKey};
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
}

/// An answer that was kept.
#[derive(Clone, Debug)]
pub struct Found {
    answer: Arc<Answer>,
    age: Duration,
}

impl Found {
    /// An answer that was put `age` ago.
    pub const fn new(answer: Arc<Answer>, age: Duration) -> Self {
        Self { answer, age }
    }

    /// The answer.
    pub const fn answer(&self) -> &Arc<Answer> {
        &self.answer
    }

    /// How long ago it was put.
    pub const fn age(&self) -> Duration {
        self.age
    }

    pub(super) fn is_fresh(&self) -> bool {
        self.age < self.answer.fresh_for()
    }
}
