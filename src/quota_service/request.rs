use super::rule::Unit;

/// What a caller asks of the quota service: may this request pass?
///
/// ```
/// use tower_quota::quota_service::{Ask, Descriptor};
///
/// let ask = Ask::new("edge", [Descriptor::new([("plan", "free"), ("user", "alice")])]);
/// assert_eq!(ask.descriptors[0].entries[1].value, "alice");
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Ask {
    /// Whose rules apply.
    pub domain: String,
    /// What the request is counted under. All of them must have room.
    pub descriptors: Vec<Descriptor>,
    /// What each descriptor is charged that does not say it itself. Zero counts as one.
    pub hits: u64,
}

/// One thing that a request is counted under: a path into the rules.
#[derive(Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Descriptor {
    /// The steps of the path.
    pub entries: Vec<Entry>,
    /// What it is charged. Zero looks and takes nothing.
    pub hits: Option<u64>,
    /// Whether the hits are given back instead of taken.
    pub refund: bool,
    /// The limit that applies instead of the rule's.
    pub limit: Option<LimitOverride>,
}

/// A step of a descriptor's path.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub struct Entry {
    /// What it is: `plan`, `user`.
    pub key: String,
    /// Which: `free`, `alice`.
    pub value: String,
}

/// A limit that comes with a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "it is that of the protocol")]
pub struct LimitOverride {
    /// The requests in each unit.
    pub requests_per_unit: u64,
    /// The unit.
    pub unit: Unit,
}

impl Ask {
    /// The most descriptors in a request.
    pub const MAX_DESCRIPTORS: usize = 64;

    /// A request of one hit for each of these descriptors.
    pub fn new(
        domain: impl Into<String>,
        descriptors: impl IntoIterator<Item = Descriptor>,
    ) -> Self {
        Self { domain: domain.into(), descriptors: descriptors.into_iter().collect(), hits: 1 }
    }

    /// The same, charged so much.
    #[must_use]
    pub fn hits(self, hits: u64) -> Self {
        Self { hits, ..self }
    }
}

impl Descriptor {
    /// The most entries in a descriptor.
    pub const MAX_ENTRIES: usize = 32;
    /// The most bytes in a key or a value of an entry.
    pub const MAX_TEXT: usize = 4096;

    /// A descriptor with these entries.
    pub fn new<K: Into<String>, V: Into<String>>(
        entries: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        let entries = entries.into_iter().map(|(key, value)| Entry::new(key, value)).collect();
        Self { entries, ..Self::default() }
    }

    /// The same, charged so much; zero looks and takes nothing.
    #[must_use]
    pub fn hits(self, hits: u64) -> Self {
        Self { hits: Some(hits), ..self }
    }

    /// The same, but the hits are given back.
    #[must_use]
    pub fn refund(self) -> Self {
        Self { refund: true, ..self }
    }

    /// The same by another limit than the rule's.
    #[must_use]
    pub fn limit(self, limit: LimitOverride) -> Self {
        Self { limit: Some(limit), ..self }
    }
}

impl Entry {
    /// An entry of this key and value.
    pub fn new(key: impl Into<String>, value: impl Into<String>) -> Self {
        Self { key: key.into(), value: value.into() }
    }
}

/// Values may be API keys, so they are not shown.
impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entry").field("key", &self.key).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Descriptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { entries, hits, refund, limit } = self;
        f.debug_struct("Descriptor")
            .field("entries", entries)
            .field("hits", hits)
            .field("refund", refund)
            .field("limit", limit)
            .finish()
    }
}
