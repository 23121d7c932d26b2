use std::{sync::Arc, time::Duration};

use super::{age::age_of, answer::Answer};

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

    /// How old it is: what it was when it came, and since then.
    pub(super) fn whole_age(&self) -> Duration {
        age_of(self.answer.headers()).saturating_add(self.age)
    }

    pub(super) fn is_fresh(&self) -> bool {
        self.age < self.answer.fresh_for()
    }
}
