/// How long answers are, in tokens.
///
/// The length of the n-th answer depends on the seed and n only. Where an OpenAI question has a
/// `seed`, that is its n, whoever is answered before.
#[derive(Clone, Copy, Debug)]
pub struct Answers {
    shortest: u64,
    longest: u64,
    seed: u64,
}

impl Answers {
    /// All answers have `tokens` tokens.
    pub fn exactly(tokens: u64) -> Self {
        Self { shortest: tokens, longest: tokens, seed: 0 }
    }

    /// Lengths with a heavy tail: half of the answers are shorter than twice the shortest, one in a
    /// hundred is a hundred times as long (Pareto's law with exponent one, cut at `longest`).
    pub fn heavy_tailed(shortest: u64, longest: u64, seed: u64) -> Self {
        let shortest = shortest.max(1);
        Self { shortest, longest: longest.max(shortest), seed }
    }

    pub(super) fn longest(&self) -> u64 {
        self.longest
    }

    /// The length of answer `number`, if the caller allows so many tokens.
    ///
    /// ```
    /// use tower_quota::testing::strict_upstream::Answers;
    ///
    /// assert_eq!(Answers::exactly(16).length(7), 16);
    /// assert!((10..=600).contains(&Answers::heavy_tailed(10, 600, 3).length(7)));
    /// ```
    pub fn length(&self, number: u64) -> u64 {
        // From 1 to 2^32, each as likely.
        let uniform = (mix(self.seed, number) >> 32) + 1;
        let length = (u128::from(self.shortest) << 32) / u128::from(uniform);
        u64::try_from(length).unwrap_or(u64::MAX).min(self.longest)
    }

    /// What token `index` of answer `number` reads.
    pub(super) fn word(&self, number: u64, index: u64) -> &'static str {
        let words = WORDS.len() as u64;
        WORDS[(mix(self.seed ^ number, index) % words) as usize]
    }
}

/// SplitMix64 at a place of its sequence.
fn mix(seed: u64, place: u64) -> u64 {
    let mut mixed = seed.wrapping_add(place.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Some take more than one byte a character, so that a cut can fall inside one.
const WORDS: &[&str] = &[
    "the ", "quota ", "of ", "a ", "bucket ", "drains ", "slowly, ", "and ", "what ", "waits ",
    "comes ", "in ", "turn. ", "café ", "naïve ", "東京 ", "— ", "🪣 ", "limit ", "again. ",
];
