use std::time::Duration;

/// What a provider counts.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Counted {
    /// Calls.
    Requests,
    /// Tokens read and written.
    Tokens,
    /// Tokens read.
    InputTokens,
    /// Tokens written.
    OutputTokens,
}

/// A limit of an account.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ProviderLimit {
    pub(super) counted: Counted,
    pub(super) amount: u64,
    pub(super) period: Duration,
    pub(super) fixed: bool,
    pub(super) model: Option<String>,
}

impl ProviderLimit {
    /// `amount` requests a minute, refilled continuously.
    pub fn requests(amount: u64) -> Self {
        Self::new(Counted::Requests, amount)
    }

    /// `amount` tokens a minute, read and written together, refilled continuously.
    pub fn tokens(amount: u64) -> Self {
        Self::new(Counted::Tokens, amount)
    }

    /// `amount` tokens read a minute, refilled continuously.
    pub fn input_tokens(amount: u64) -> Self {
        Self::new(Counted::InputTokens, amount)
    }

    /// `amount` tokens written a minute, refilled continuously.
    pub fn output_tokens(amount: u64) -> Self {
        Self::new(Counted::OutputTokens, amount)
    }

    /// The same amount in another period.
    ///
    /// # Panics
    ///
    /// If `period` is zero.
    #[must_use]
    pub fn per(mut self, period: Duration) -> Self {
        assert!(!period.is_zero(), "a period is not zero");
        self.period = period;
        self
    }

    /// Counts in fixed windows that begin at multiples of the period since the Unix epoch, so that
    /// a day begins at midnight, UTC.
    #[must_use]
    pub fn fixed(mut self) -> Self {
        self.fixed = true;
        self
    }

    /// Counts only the calls for `model`.
    #[must_use]
    pub fn model(mut self, model: impl Into<String>) -> Self {
        self.model = Some(model.into());
        self
    }

    fn new(counted: Counted, amount: u64) -> Self {
        Self { counted, amount, period: Duration::from_secs(60), fixed: false, model: None }
    }
}

/// What of a call is charged when it is admitted.
///
/// Providers differ in it, and so must whoever wants to stay inside their limits.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Admission {
    /// The estimated prompt. What was really used is charged when the answer is complete, or when
    /// the caller goes. So OpenAI by its recorded answers, and Anthropic.
    #[default]
    Prompt,
    /// The estimated prompt and the largest answer that the caller allows; what was not used is
    /// given back. So Bedrock.
    PromptAndCap,
    /// The same, and nothing is given back. So Azure.
    PromptAndCapKept,
}

/// How callers learn that a limit has changed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Told {
    /// Each answer says it from now on.
    #[default]
    AtOnce,
    /// The first refusal says it, and answers say it from then on.
    AtRefusal,
    /// Nothing does: refusals say only how long to wait.
    Never,
}
