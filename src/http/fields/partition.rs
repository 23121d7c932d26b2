use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::Method;

use crate::name::PolicyName;

/// Separates the values of a partition key that is made of several.
const SEPARATOR: char = '\u{1f}';

/// Says which part of a quota the callers of a layer share: the `pk` parameter of the `RateLimit`
/// fields, and the `RateLimit-Partition` field of their next revision.
///
/// The bytes are sent to the caller, and through it to whatever logs responses. What identifies a
/// person must not be among them in clear, nor under an unkeyed hash, which can be searched.
///
/// ```
/// use tower_quota::{PolicyName, http::Partition};
///
/// let tenant = Partition::new("trial121323");
/// let of_next_draft = Partition::of_values(&[("user_id", "alice"), ("method", "GET")])
///     .map(|partition| partition.dimension(&PolicyName::from_static("user_id")));
/// # assert!(of_next_draft.is_some());
/// ```
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Partition {
    /// The parameter as it stands in the field, `;pk=:…:`.
    key: Box<str>,
    /// The parameters of `RateLimit-Partition`, `;user_id;method`.
    dimensions: String,
}

impl Partition {
    /// Takes `key` as an opaque key.
    pub fn new(key: impl AsRef<[u8]>) -> Self {
        let key = format!(";pk=:{}:", STANDARD.encode(key)).into();
        Self { key, dimensions: String::new() }
    }

    /// Makes the key of the values of the dimensions, as the next revision prescribes: sorted by
    /// dimension and joined by the byte 0x1F.
    ///
    /// Returns `None` if a value holds that byte.
    #[must_use]
    pub fn of_values(values: &[(&str, &str)]) -> Option<Self> {
        if values.iter().any(|(_, value)| value.contains(SEPARATOR)) {
            return None;
        }
        let mut sorted = values.to_vec();
        sorted.sort_unstable();
        let mut key = String::new();
        for (place, (_, value)) in sorted.into_iter().enumerate() {
            if place > 0 {
                key.push(SEPARATOR);
            }
            key.push_str(value);
        }
        Some(Self::new(key))
    }

    /// Names a dimension by which the quota is divided, such as `user_id`.
    #[must_use]
    pub fn dimension(mut self, name: &PolicyName) -> Self {
        self.dimensions.push(';');
        self.dimensions.push_str(name.as_str());
        self
    }

    /// Says that the policies cover requests of this method only.
    ///
    /// A method that the field cannot hold (it begins with a sign) is left out.
    #[must_use]
    pub fn only_method(mut self, method: &Method) -> Self {
        if method.as_str().starts_with(|first: char| first.is_ascii_alphabetic() || first == '*') {
            self.dimensions.push_str(";method=");
            self.dimensions.push_str(method.as_str());
        }
        self
    }

    pub(super) fn key(&self) -> &str {
        &self.key
    }

    pub(super) fn dimensions(&self) -> &str {
        &self.dimensions
    }
}
