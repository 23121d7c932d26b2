use super::{
    number::floored,
    profile::{EstimateShape, Profile, ReserveOutput},
    scan::{Scanner, Value},
    tokenizer::Tokenizer,
    usage::Usage,
};
use crate::cost::Cost;

/// What a request is estimated to use, before it is sent.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Estimate {
    /// Tokens of the input.
    pub input: u64,
    /// The most tokens of output that the request allows, for all the answers that it asks for.
    /// `None`: it does not say.
    pub output_cap: Option<u64>,
}

/// What the paths of estimates lead to, as the scanner numbers it.
pub(super) struct EstimateTarget;

impl EstimateTarget {
    const TEXT: usize = 0;
    const MESSAGE: usize = 1;
    const IMAGE: usize = 2;
    const CAP: usize = 3;
    const CHOICES: usize = 4;

    /// The paths of a profile.
    pub(super) fn paths(shape: &EstimateShape) -> impl Iterator<Item = (&str, usize)> {
        let lists = [
            (&shape.texts, Self::TEXT),
            (&shape.messages, Self::MESSAGE),
            (&shape.images, Self::IMAGE),
            (&shape.caps, Self::CAP),
            (&shape.choices, Self::CHOICES),
        ];
        lists
            .into_iter()
            .flat_map(|(paths, target)| paths.iter().map(move |path| (path.as_str(), target)))
    }
}

impl Profile {
    /// Estimates what a request uses, from its JSON. It reads the bytes once and keeps nothing. A
    /// text that comes as numbers has as many tokens.
    ///
    /// ```
    /// use tower_quota::upstream::Profile;
    ///
    /// let openai = Profile::ready("openai").expect("it is ready-made");
    /// let estimate = openai.estimate(
    ///     br#"{"messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 50, "n": 2}"#,
    /// );
    /// // Six characters, a message, a request; what it may put out is twice fifty.
    /// assert_eq!((estimate.input, estimate.output_cap), (2 + 1 + 1, Some(100)));
    /// ```
    pub fn estimate(&self, request: &[u8]) -> Estimate {
        let (parts, characters) = self.characters(request);
        parts.estimate(self.estimate_shape(), 0, characters, Around::default())
    }

    /// Estimates a request of which only the beginning is here, by its length. What of it is in a
    /// text that nobody reads, as a picture's, says nothing of its tokens.
    pub(super) fn estimate_beginning(&self, beginning: &[u8], length: u64) -> Estimate {
        let (parts, characters) = self.characters(beginning);
        let shape = self.estimate_shape();
        let estimate = parts.estimate(shape, 0, characters, Around::default());
        if parts.ends_in_data {
            return estimate;
        }
        // A text of that length: what it really is nobody can tell before it is sent.
        Estimate { input: length.div_ceil(4), ..estimate }
    }

    fn characters(&self, request: &[u8]) -> (Parts, u64) {
        let mut characters = 0_u64;
        let mut count = |_: &[u8], more| characters = characters.saturating_add(more);
        let parts = self.parts(request, Scanner::default(), &mut count);
        (parts, characters)
    }

    /// The same with a tokenizer, as far as it knows the model; of other models characters are
    /// counted. It keeps one text at a time.
    pub fn estimate_with(
        &self,
        model: &str,
        request: &[u8],
        tokenizer: &(impl Tokenizer + ?Sized),
    ) -> Estimate {
        let (mut tokens, mut characters) = (0_u64, 0_u64);
        let mut count =
            |text: &[u8], more| match tokenizer.count(model, &String::from_utf8_lossy(text)) {
                Some(counted) => tokens = tokens.saturating_add(counted),
                None => characters = characters.saturating_add(more),
            };
        let parts = self.parts(request, Scanner::keeping(request.len()), &mut count);
        let around =
            Around { message: tokenizer.per_message(model), request: tokenizer.per_request(model) };
        parts.estimate(self.estimate_shape(), tokens, characters, around)
    }

    /// Reads what there is but the texts, which `count` gets with the number of their characters.
    fn parts(
        &self,
        request: &[u8],
        mut scanner: Scanner,
        count: &mut dyn FnMut(&[u8], u64),
    ) -> Parts {
        let mut parts =
            Parts { messages: 0, images: 0, tokens: 0, cap: None, choices: 1, ends_in_data: false };
        let mut take = |target, value: Value<'_>| match (target, value) {
            (EstimateTarget::TEXT, Value::Text { text, characters }) => count(text, characters),
            // A text may come as tokens: as what is to be embedded does from some clients.
            (EstimateTarget::TEXT, Value::Number(_)) => parts.tokens += 1,
            (EstimateTarget::MESSAGE, Value::Object) => parts.messages += 1,
            (EstimateTarget::IMAGE, Value::Object | Value::Text { .. }) => parts.images += 1,
            (EstimateTarget::CAP, Value::Number(number)) => {
                parts.cap = parts.cap.max(floored(number));
            }
            (EstimateTarget::CHOICES, Value::Number(number)) => {
                parts.choices = parts.choices.max(floored(number).unwrap_or(1));
            }
            _ => {}
        };
        scanner.data(self.estimate_paths(), request, &mut take);
        let ends_in_data = scanner.is_in_text_beside(self.estimate_paths(), EstimateTarget::TEXT);
        scanner.end(self.estimate_paths(), &mut take);
        Parts { ends_in_data, ..parts }
    }

    /// What the provider takes at admission for such a request: the input, and the output that it
    /// allows where that is reserved. A request without a cap is normal: then it is what the
    /// profile says.
    pub fn reserved(&self, estimate: &Estimate) -> Cost {
        let shape = self.estimate_shape();
        let output = match shape.reserve_output {
            ReserveOutput::Nothing => 0,
            ReserveOutput::Cap => estimate.output_cap.unwrap_or(shape.absent_cap),
        };
        let usage = Usage { input: Some(estimate.input), output: Some(output), ..Usage::default() };
        self.cost(&usage)
    }
}

/// What a request has beside its texts.
struct Parts {
    messages: u64,
    images: u64,
    /// Of a text that comes as such.
    tokens: u64,
    cap: Option<u64>,
    choices: u64,
    /// It has no end here, and breaks off in a text that is not read, as that of a picture.
    ends_in_data: bool,
}

/// Tokens that are not of a text, where a tokenizer knows them.
#[derive(Default)]
struct Around {
    message: Option<u64>,
    request: Option<u64>,
}

impl Parts {
    fn estimate(
        &self,
        shape: &EstimateShape,
        tokens: u64,
        characters: u64,
        around: Around,
    ) -> Estimate {
        let parts = [
            tokens,
            self.tokens,
            characters.div_ceil(shape.characters_per_token),
            self.messages.saturating_mul(around.message.unwrap_or(shape.per_message)),
            self.images.saturating_mul(shape.per_image),
            around.request.unwrap_or(shape.per_request),
        ];
        let input = parts.into_iter().fold(0, u64::saturating_add);
        Estimate { input, output_cap: self.cap.map(|cap| cap.saturating_mul(self.choices)) }
    }
}
