use std::fmt;

use serde::{Deserialize, Serialize};

/// What a limit counts.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Dimension {
    /// Requests.
    Requests,
    /// Tokens, of the input and the output together.
    Tokens,
    /// Tokens of the input.
    InputTokens,
    /// Tokens of the output.
    OutputTokens,
    /// Images.
    Images,
    /// Seconds of sound.
    AudioSeconds,
    /// Bytes of content.
    ContentBytes,
    /// Requests in progress.
    Concurrency,
}

impl Dimension {
    /// Whether calls are counted by it: a limit of anything else is read, and not kept.
    pub(super) const fn is_counted(self) -> bool {
        !matches!(self, Self::Images | Self::AudioSeconds | Self::ContentBytes)
    }

    /// Its name in a profile.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Tokens => "tokens",
            Self::InputTokens => "input-tokens",
            Self::OutputTokens => "output-tokens",
            Self::Images => "images",
            Self::AudioSeconds => "audio-seconds",
            Self::ContentBytes => "content-bytes",
            Self::Concurrency => "concurrency",
        }
    }
}

impl fmt::Display for Dimension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
