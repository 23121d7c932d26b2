use std::{fmt, sync::Arc};

use http::{HeaderMap, header::AUTHORIZATION};
use sha2::{Digest as _, Sha256};

/// Bearer tokens that open the quota service.
///
/// Only their hashes are kept, and hashes are compared, so neither memory nor time tells a token.
///
/// ```
/// use http::{HeaderMap, HeaderValue, header::AUTHORIZATION};
/// use tower_quota::quota_service::BearerTokens;
///
/// let tokens = BearerTokens::new(["s3cret"]);
/// let mut headers = HeaderMap::new();
/// assert!(!tokens.permit(&headers));
/// headers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer s3cret"));
/// assert!(tokens.permit(&headers));
/// ```
#[derive(Clone)]
pub struct BearerTokens(Arc<[[u8; 32]]>);

impl BearerTokens {
    /// Any of these tokens opens. Empty ones are left out: they would be no secret.
    pub fn new<T: AsRef<str>>(tokens: impl IntoIterator<Item = T>) -> Self {
        let tokens = tokens.into_iter().filter(|token| !token.as_ref().is_empty());
        Self(tokens.map(|token| Sha256::digest(token.as_ref()).into()).collect())
    }

    /// Whether a request with these fields has one of the tokens.
    pub fn permit(&self, headers: &HeaderMap) -> bool {
        let mut given = headers.get_all(AUTHORIZATION).iter();
        let (Some(given), None) = (given.next(), given.next()) else { return false };
        let Some((scheme, token)) = given.as_bytes().split_at_checked(7) else { return false };
        if !scheme.eq_ignore_ascii_case(b"bearer ") {
            return false;
        }
        let given: [u8; 32] = Sha256::digest(token.trim_ascii()).into();
        self.0.contains(&given)
    }
}

impl fmt::Debug for BearerTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BearerTokens").finish_non_exhaustive()
    }
}
