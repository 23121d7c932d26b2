//! What is compressed cannot be read as it passes.

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{ACCEPT_ENCODING, CONTENT_ENCODING},
};

/// Asks for an answer that is not compressed, if the request asks for another. One that does not
/// ask is left as it is: what comes below may ask, and unpack what it is given.
pub(super) fn ask_for_plain(headers: &mut HeaderMap) {
    if codings(headers, &ACCEPT_ENCODING).next().is_some() {
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    }
}

/// Whether a body is compressed, as its fields say.
pub(super) fn is_packed(headers: &HeaderMap) -> bool {
    codings(headers, &CONTENT_ENCODING).next().is_some()
}

/// The codings that a field names, but for the one that is none.
fn codings<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h [u8]> {
    let values = headers.get_all(name).iter().map(HeaderValue::as_bytes);
    let codings =
        values.flat_map(|value| value.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    codings.filter(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case(b"identity"))
}
