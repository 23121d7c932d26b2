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
    /// What of it is a guess.
    pub(super) unseen: Unseen,
}

/// The end of a request that is too long to be looked at before it is sent.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Unseen {
    pub(super) bytes: u64,
    /// What it is taken to be of the input.
    pub(super) tokens: u64,
}

impl Estimate {
    /// Without what is a guess.
    pub(super) fn seen(&self) -> Self {
        let input = self.input.saturating_sub(self.unseen.tokens);
        Self { input, unseen: Unseen::default(), ..*self }
    }
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
    /// // Who sends tokens in place of a text has counted them.
    /// let estimate = openai.estimate(br#"{"input": [[9906, 0], [1917]]}"#);
    /// assert_eq!(estimate.input, 3 + 1);
    /// ```
    pub fn estimate(&self, request: &[u8]) -> Estimate {
        let mut estimating = Estimating::new(self);
        estimating.data(request);
        estimating.whole()
    }

    /// The same with a tokenizer, as far as it knows the model; of other models characters are
    /// counted. It keeps one text at a time.
    pub fn estimate_with(
        &self,
        model: &str,
        request: &[u8],
        tokenizer: &(impl Tokenizer + ?Sized),
    ) -> Estimate {
        let mut parts = Parts::default();
        let mut take = |target, value: Value<'_>| {
            if let (EstimateTarget::TEXT, Value::Text { text, .. }) = (target, value)
                && let Some(counted) = tokenizer.count(model, &String::from_utf8_lossy(text))
            {
                parts.tokens = parts.tokens.saturating_add(counted);
            } else {
                parts.take(target, value);
            }
        };
        let mut scanner = Scanner::keeping(request.len());
        scanner.data(self.estimate_paths(), request, &mut take);
        scanner.end(self.estimate_paths(), &mut take);
        let around =
            Around { message: tokenizer.per_message(model), request: tokenizer.per_request(model) };
        parts.estimate(self.estimate_shape(), around)
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

/// Reads what a request is estimated by, part by part as it comes, and keeps nothing of it.
pub(super) struct Estimating<'p> {
    profile: &'p Profile,
    scanner: Scanner,
    parts: Parts,
    seen: u64,
    /// The first byte that is not blank.
    first: Option<u8>,
}

impl<'p> Estimating<'p> {
    pub(super) fn new(profile: &'p Profile) -> Self {
        let (scanner, parts) = (Scanner::default(), Parts::default());
        Self { profile, scanner, parts, seen: 0, first: None }
    }

    /// Reads what comes next.
    pub(super) fn data(&mut self, data: &[u8]) {
        let Self { profile, scanner, parts, seen, first } = self;
        *seen = seen.saturating_add(data.len() as u64);
        *first = first.or_else(|| data.iter().copied().find(|byte| !byte.is_ascii_whitespace()));
        scanner.data(profile.estimate_paths(), data, &mut |target, value| {
            parts.take(target, value);
        });
    }

    /// Nothing more comes.
    pub(super) fn whole(mut self) -> Estimate {
        let Self { profile, scanner, parts, .. } = &mut self;
        scanner.end(profile.estimate_paths(), &mut |target, value| parts.take(target, value));
        parts.estimate(profile.estimate_shape(), Around::default())
    }

    /// So many bytes more come, which nobody sees before the request is sent. They are taken for
    /// more of the same, and for no less than data have; where they begin inside of a text, for
    /// one. What is no JSON is not read however short it is.
    pub(super) fn with_rest(self, bytes: u64) -> Estimate {
        let shape = self.profile.estimate_shape();
        let open = self.scanner.open_text(self.profile.estimate_paths());
        let is_text = open.contains(&EstimateTarget::TEXT);
        let (is_json, seen) = (matches!(self.first, Some(b'{' | b'[')), self.seen.max(1));
        let estimate = self.whole();
        if !is_json {
            return estimate;
        }
        let alike = u128::from(estimate.input) * u128::from(bytes) / u128::from(seen);
        let alike = u64::try_from(alike).unwrap_or(u64::MAX);
        let text = if is_text { bytes.div_ceil(shape.characters_per_token) } else { 0 };
        let tokens = alike.max(text).max(bytes.div_ceil(BYTES_OF_DATA));
        let input = estimate.input.saturating_add(tokens);
        Estimate { input, unseen: Unseen { bytes, tokens }, ..estimate }
    }
}

/// What a request has.
#[derive(Default)]
struct Parts {
    /// Those that a tokenizer counted, or that came as such.
    tokens: u64,
    characters: u64,
    messages: u64,
    images: u64,
    cap: Option<u64>,
    choices: Option<u64>,
}

/// Tokens that are not of a text, where a tokenizer knows them.
#[derive(Default)]
struct Around {
    message: Option<u64>,
    request: Option<u64>,
}

impl Parts {
    fn take(&mut self, target: usize, value: Value<'_>) {
        match (target, value) {
            (EstimateTarget::TEXT, Value::Text { characters, .. }) => {
                self.characters = self.characters.saturating_add(characters);
            }
            // A text that was made into tokens.
            (EstimateTarget::TEXT, Value::Number(_)) => self.tokens += 1,
            (EstimateTarget::MESSAGE, Value::Object) => self.messages += 1,
            (EstimateTarget::IMAGE, Value::Object | Value::Text { .. }) => self.images += 1,
            (EstimateTarget::CAP, Value::Number(number)) => {
                self.cap = self.cap.max(floored(number));
            }
            (EstimateTarget::CHOICES, Value::Number(number)) => {
                self.choices = self.choices.max(floored(number));
            }
            _ => {}
        }
    }

    fn estimate(&self, shape: &EstimateShape, around: Around) -> Estimate {
        let parts = [
            self.tokens,
            self.characters.div_ceil(shape.characters_per_token),
            self.messages.saturating_mul(around.message.unwrap_or(shape.per_message)),
            self.images.saturating_mul(shape.per_image),
            around.request.unwrap_or(shape.per_request),
        ];
        let input = parts.into_iter().fold(0, u64::saturating_add);
        let choices = self.choices.unwrap_or(1).max(1);
        let output_cap = self.cap.map(|cap| cap.saturating_mul(choices));
        Estimate { input, output_cap, unseen: Unseen::default() }
    }
}

/// Of pictures and sounds in base64 a token is seldom fewer bytes: 765 for a picture of 200
/// kilobytes, 32 for a second of sound.
const BYTES_OF_DATA: u64 = 256;
