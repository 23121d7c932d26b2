#[cfg(feature = "tokenizer")]
mod openai;

use std::sync::Arc;

#[cfg(feature = "tokenizer")]
pub use self::openai::OpenAiTokenizer;

/// Counts the tokens of texts as models do, where a quarter of the characters is not near enough:
/// other languages than English, code, limits that are tight.
///
/// `OpenAiTokenizer` (feature `tokenizer`) is one for the models of OpenAI. One of your own has
/// whatever vocabulary you give it:
///
/// ```
/// use tower_quota::upstream::{Profile, Tokenizer};
///
/// /// Counts words.
/// struct Words;
///
/// impl Tokenizer for Words {
///     fn count(&self, model: &str, text: &str) -> Option<u64> {
///         // Of other models it knows nothing: their characters are counted.
///         (model == "parrot").then(|| text.split_whitespace().count() as u64)
///     }
/// }
///
/// let profile = Profile::ready("cerebras").expect("it is ready-made");
/// let question = br#"{"model": "parrot", "messages": [{"content": "Why is the sky blue?"}]}"#;
/// let (counted, guessed) =
///     (profile.estimate_with("parrot", question, &Words), profile.estimate(question));
/// assert_eq!((counted.input, guessed.input), (5 + 2, 5 + 2));
/// ```
pub trait Tokenizer: Send + Sync {
    /// The tokens of a text, for this model. `None`: it does not know the model.
    fn count(&self, model: &str, text: &str) -> Option<u64>;

    /// The tokens around each message: its role, the marks of its beginning and end. `None`: as
    /// many as the profile says.
    fn per_message(&self, model: &str) -> Option<u64> {
        let _ = model;
        None
    }

    /// The tokens around the whole request. `None`: as many as the profile says.
    fn per_request(&self, model: &str) -> Option<u64> {
        let _ = model;
        None
    }
}

impl<T: Tokenizer + ?Sized> Tokenizer for Arc<T> {
    fn count(&self, model: &str, text: &str) -> Option<u64> {
        (**self).count(model, text)
    }

    fn per_message(&self, model: &str) -> Option<u64> {
        (**self).per_message(model)
    }

    fn per_request(&self, model: &str) -> Option<u64> {
        (**self).per_request(model)
    }
}
