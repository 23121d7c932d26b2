//! Where in a file a check is.

use std::borrow::Cow;

use super::{error::RulesError, lines::Step};

/// The way from the top of a file to where the check is.
pub(super) struct Place<'a> {
    pub(super) text: &'a str,
    pub(super) path: Vec<Step<'a>>,
}

impl<'a> Place<'a> {
    /// Runs `then` some steps further down.
    pub(super) fn at<T>(&mut self, steps: &[Step<'a>], then: impl FnOnce(&mut Self) -> T) -> T {
        let before = self.path.len();
        self.path.extend_from_slice(steps);
        let done = then(self);
        self.path.truncate(before);
        done
    }

    /// The error of the value at `steps` from here.
    pub(super) fn wrong<T>(
        &self,
        steps: &[Step<'a>],
        remedy: impl Into<Cow<'static, str>>,
    ) -> Result<T, RulesError> {
        let path = [&self.path, steps].concat();
        Err(RulesError::at(self.text, &path, remedy))
    }
}
