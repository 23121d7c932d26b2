use std::{fmt, future::Ready};

use http::{
    HeaderMap, HeaderName, Request,
    header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, COOKIE, HOST, PROXY_AUTHORIZATION},
    request,
    uri::PathAndQuery,
};
use sha2::{Digest, Sha256};

use super::canonical::{NotCanonical, canonical_json_without};
use crate::{
    key::Key,
    maybe_ready::MaybeReady,
    policy::{KeyOf, Subject},
};

/// What a question is known by: SHA-256 over all that makes it another question.
///
/// That is whose it is, its method, its target, the chosen header fields, and its body: its type
/// and JSON in its [canonical form](super::canonical_json), anything else byte by byte. Each part
/// stands with its length, so that none can pass for a piece of another.
#[derive(Clone, Copy, Eq, Hash, PartialEq)]
pub struct AnswerKey([u8; 32]);

impl AnswerKey {
    /// No question has it, unless somebody inverts SHA-256.
    #[cfg(feature = "redis")]
    pub(super) const RESERVED: Self = Self([0; 32]);

    /// Its bytes, for a store elsewhere.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// # Errors
    ///
    /// A body that says that it is JSON and is not, or could be read in two ways.
    pub(super) fn new(
        scope: &Key,
        request: &request::Parts,
        headers: &[HeaderName],
        body: &[u8],
        ignored: &[String],
        is_any_host: bool,
    ) -> Result<Self, NotCanonical> {
        // Short pieces one by one would cost more to hash than to bring together before.
        let mut text = Text(Vec::with_capacity(AROUND + scope.as_bytes().len()));
        text.part(b"tower-quota answer 1");
        text.part(scope.as_bytes());
        text.part(request.method.as_str().as_bytes());
        let target = request.uri.path_and_query().map_or("", PathAndQuery::as_str);
        if is_any_host {
            text.part(target.as_bytes());
        } else {
            let is_target_all = request.uri.scheme().is_none()
                && request.uri.authority().is_none()
                && target.starts_with('/');
            if is_target_all {
                text.part(target.as_bytes());
            } else {
                text.part(request.uri.to_string().as_bytes());
            }
            text.field(&request.headers, &HOST);
        }
        for name in headers {
            text.field(&request.headers, name);
        }
        let mut hash = Sha256::new();
        if let Some(media_type) = json_type(&request.headers) {
            text.part(b"json");
            text.part(media_type.as_bytes());
            let canonical = canonical_json_without(body, ignored)?;
            text.length(canonical.len());
            hash.update(&text.0);
            hash.update(&canonical);
        } else {
            text.part(b"bytes");
            text.field(&request.headers, &CONTENT_TYPE);
            text.field(&request.headers, &CONTENT_ENCODING);
            text.length(body.len());
            hash.update(&text.0);
            hash.update(body);
        }
        Ok(Self(hash.finalize().into()))
    }
}

/// Shows the key in hexadecimal digits.
impl fmt::Display for AnswerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for AnswerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AnswerKey({self})")
    }
}

/// What is hashed, but for the body.
struct Text(Vec<u8>);

impl Text {
    fn part(&mut self, bytes: &[u8]) {
        self.length(bytes.len());
        self.0.extend_from_slice(bytes);
    }

    fn length(&mut self, length: usize) {
        self.0.extend_from_slice(&(length as u64).to_be_bytes());
    }

    /// A header field: its name, the number of its lines, and they.
    fn field(&mut self, headers: &HeaderMap, name: &HeaderName) {
        let lines = headers.get_all(name);
        self.part(name.as_str().as_bytes());
        self.length(lines.iter().count());
        lines.iter().for_each(|line| self.part(line.as_bytes()));
    }
}

/// The type of a body that is JSON text, and not compressed: `application/json` or one that ends in
/// `+json`. Its parameters are part of it but for `charset=utf-8`, which all JSON has.
fn json_type(headers: &HeaderMap) -> Option<String> {
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let (Some(one), None) = (types.next(), types.next()) else { return None };
    let mut parts = one.to_str().ok()?.split(';').map(str::trim);
    let mut media_type = parts.next()?.to_ascii_lowercase();
    let is_json = media_type == "application/json" || media_type.ends_with("+json");
    if !is_json || headers.contains_key(CONTENT_ENCODING) {
        return None;
    }
    let is_quoted = one.as_bytes().contains(&b'"');
    for part in parts {
        // A semicolon in quotes ends no parameter: what has quotes is taken as it is.
        if is_quoted || !(part.is_empty() || part.eq_ignore_ascii_case("charset=utf-8")) {
            media_type.push(';');
            media_type.push_str(part);
        }
    }
    Some(media_type)
}

/// Tells tenants apart by everything in a request that can be a credential: `Authorization`,
/// `Proxy-Authorization`, `Cookie`, `X-Api-Key`, `Api-Key`, `X-Goog-Api-Key`, `X-Auth-Token`. Those
/// who have none of them are one tenant.
///
/// It does not see who is known otherwise: by address, by a client certificate, by a header of
/// yours. There, [say who it is](super::AnswerCacheLayer::key).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Credentials;

impl Credentials {
    pub(super) fn contain(name: &HeaderName) -> bool {
        CREDENTIALS.contains(name)
    }
}

impl<B> KeyOf<Request<B>> for Credentials {
    type Future = Ready<Subject>;

    fn key_of(&self, request: &Request<B>) -> MaybeReady<Self::Future> {
        let mut parts = Vec::new();
        for name in &CREDENTIALS {
            for line in request.headers().get_all(name) {
                parts.push(Key::new(name.as_str()));
                parts.push(Key::secret(line));
            }
        }
        MaybeReady::ready(Subject::Counted(Key::join(&parts)))
    }
}

/// What stands around a body, mostly.
const AROUND: usize = 512;

static CREDENTIALS: [HeaderName; 7] = [
    AUTHORIZATION,
    PROXY_AUTHORIZATION,
    COOKIE,
    HeaderName::from_static("x-api-key"),
    HeaderName::from_static("api-key"),
    HeaderName::from_static("x-goog-api-key"),
    HeaderName::from_static("x-auth-token"),
];
