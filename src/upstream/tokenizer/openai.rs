use std::fmt;

use super::Tokenizer;

/// Counts tokens as the models of OpenAI do: with the vocabulary `o200k_base` from GPT-4o on, with
/// `cl100k_base` before it and for embeddings. Both are in the program; nothing is loaded from
/// anywhere.
///
/// It knows a model by the beginning of its name, behind `ft:` or a provider's name and a slash
/// too. Of other models the characters are counted.
///
/// # Cost
///
/// Time in proportion to the text, whatever the text is. Both vocabularies are in the program, some
/// megabytes, and are unpacked when the first of these is made.
///
/// ```
/// use tower_quota::upstream::{OpenAiTokenizer, Tokenizer as _};
///
/// let tokenizer = OpenAiTokenizer::new();
/// assert_eq!(tokenizer.count("gpt-4o-mini", "tiktoken is great!"), Some(6));
/// assert_eq!(tokenizer.count("claude-x", "tiktoken is great!"), None);
/// ```
///
/// # Right and wrong
///
/// It says what a request will use, and so what is paid for. Whether that is what the provider
/// takes from a *limit* when the request comes is another question: OpenAI was seen to take a
/// quarter of the characters, and the profile `openai` does without a tokenizer what is right
/// there.
#[derive(Clone, Copy)]
pub struct OpenAiTokenizer {
    o200k: &'static bpe_openai::Tokenizer,
    cl100k: &'static bpe_openai::Tokenizer,
}

impl OpenAiTokenizer {
    /// Unpacks the vocabularies if that has not been done: a good tenth of a second once, so that
    /// no request waits for it. Make it when the program starts.
    pub fn new() -> Self {
        Self { o200k: bpe_openai::o200k_base(), cl100k: bpe_openai::cl100k_base() }
    }

    fn of(&self, model: &str) -> Option<&'static bpe_openai::Tokenizer> {
        let model = model.strip_prefix("ft:").unwrap_or(model);
        let model = model.rsplit_once('/').map_or(model, |(_, model)| model);
        let is_of = |beginnings: &[&str]| beginnings.iter().any(|it| model.starts_with(it));
        if is_of(O200K) {
            Some(self.o200k)
        } else if is_of(CL100K) {
            Some(self.cl100k)
        } else {
            None
        }
    }
}

impl Tokenizer for OpenAiTokenizer {
    fn count(&self, model: &str, text: &str) -> Option<u64> {
        Some(self.of(model)?.count(text) as u64)
    }

    /// A role is a token, and there are three marks.
    fn per_message(&self, model: &str) -> Option<u64> {
        self.of(model).map(|_| 4)
    }

    /// The marks at which the answer begins.
    fn per_request(&self, model: &str) -> Option<u64> {
        self.of(model).map(|_| 3)
    }
}

impl Default for OpenAiTokenizer {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for OpenAiTokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenAiTokenizer").finish_non_exhaustive()
    }
}

/// How the models begin that have each vocabulary.
const O200K: &[&str] = &["gpt-4o", "gpt-4.", "gpt-5", "gpt-oss", "chatgpt-4o", "o1", "o3", "o4-"];
/// Azure writes `gpt-35`.
const CL100K: &[&str] =
    &["gpt-4", "gpt-3.5", "gpt-35", "text-embedding-3", "text-embedding-ada-002"];
