use http::{HeaderMap, HeaderName, HeaderValue};

/// The largest integer of a structured field, 10^15 - 1 (RFC 9651, section 3.3.1).
const MAX_INTEGER: u64 = crate::Quota::MAX_LIMIT;

/// A field value in the making: on the stack while it is short, so that the value is its only
/// allocation.
pub(crate) struct FieldText {
    near: [u8; Self::NEAR],
    near_len: usize,
    /// All of the text, once it is too long for `near`.
    far: Vec<u8>,
}

impl FieldText {
    /// Holds a `RateLimit` item with the longest name and the largest integers.
    const NEAR: usize = 112;

    pub(crate) const fn new() -> Self {
        Self { near: [0; Self::NEAR], near_len: 0, far: Vec::new() }
    }

    #[inline]
    pub(crate) fn push(&mut self, text: &str) {
        self.push_bytes(text.as_bytes());
    }

    /// Writes `number`, lowered to the largest integer that a structured field can hold.
    #[inline]
    pub(crate) fn push_integer(&mut self, number: u64) {
        self.push_bytes(Decimal::new(number).digits());
    }

    #[inline]
    fn push_bytes(&mut self, bytes: &[u8]) {
        let end = self.near_len + bytes.len();
        match self.near.get_mut(self.near_len..end) {
            Some(room) if self.far.is_empty() => {
                room.copy_from_slice(bytes);
                self.near_len = end;
            }
            _ => self.push_far(bytes),
        }
    }

    #[cold]
    fn push_far(&mut self, bytes: &[u8]) {
        if self.far.is_empty() {
            self.far.reserve(4 * Self::NEAR);
            self.far.extend_from_slice(&self.near[..self.near_len]);
        }
        self.far.extend_from_slice(bytes);
    }

    /// Adds the field to those of the same name: a list may be spread over several lines.
    pub(crate) fn append_to(&self, headers: &mut HeaderMap, name: &'static HeaderName) {
        if let Some(value) = self.value() {
            append(headers, name, value);
        }
    }

    /// Puts the field in the place of those of the same name.
    pub(crate) fn insert_into(&self, headers: &mut HeaderMap, name: &'static HeaderName) {
        if let Some(value) = self.value() {
            insert(headers, name, value);
        }
    }

    /// The text as a field value; `None` if it holds what no field may.
    pub(crate) fn value(&self) -> Option<HeaderValue> {
        let text = if self.far.is_empty() { &self.near[..self.near_len] } else { &self.far };
        HeaderValue::from_bytes(text).ok()
    }
}

/// The digits of a number that a structured field can hold.
struct Decimal {
    digits: [u8; Self::WIDTH],
    first: usize,
}

impl Decimal {
    const WIDTH: usize = 15;

    #[inline]
    fn new(number: u64) -> Self {
        let mut number = number.min(MAX_INTEGER);
        let mut decimal = Self { digits: [b'0'; Self::WIDTH], first: Self::WIDTH - 1 };
        while number > 9 {
            decimal.digits[decimal.first] += (number % 10) as u8;
            decimal.first -= 1;
            number /= 10;
        }
        decimal.digits[decimal.first] += number as u8;
        decimal
    }

    fn digits(&self) -> &[u8] {
        &self.digits[self.first..]
    }
}

/// Adds a field. A map that holds as many as it can (32,768) is left as it is: the infallible
/// method would panic.
pub(crate) fn append(headers: &mut HeaderMap, name: &'static HeaderName, value: HeaderValue) {
    let _ = headers.try_append(name, value);
}

/// Sets a field, under the same reservation as [`append`].
pub(crate) fn insert(headers: &mut HeaderMap, name: &'static HeaderName, value: HeaderValue) {
    let _ = headers.try_insert(name, value);
}

/// The field value that is `number` in digits, lowered as by [`FieldText::push_integer`].
pub(crate) fn integer(number: u64) -> Option<HeaderValue> {
    HeaderValue::from_bytes(Decimal::new(number).digits()).ok()
}
