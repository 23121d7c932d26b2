use std::{num::NonZeroU32, sync::Arc, time::Duration};

use hmac::{Hmac, Mac};
use http::{HeaderName, header, request};
use sha2::Sha256;

use super::{
    ends::Ends,
    id::{Owner, RequestId},
    message::StoredRequest,
    store::Submission,
    terms::Terms,
};
use crate::{key::Key, name::PolicyName, observe::deferrals::Deferrals};

/// What a layer, its results and its runners have in common.
#[derive(Clone)]
pub(super) struct Settings {
    pub(super) terms: Arc<Deal>,
    /// The path under which requests are found, without a slash at its end.
    pub(super) at: String,
    pub(super) headers: Vec<HeaderName>,
    pub(super) max_request_bytes: usize,
    pub(super) max_result_bytes: usize,
    pub(super) expire_after: Duration,
    pub(super) keep: Duration,
    pub(super) max_attempts: NonZeroU32,
    /// The longest that a caller who prefers to is kept waiting for the answer itself.
    pub(super) max_wait: Duration,
    pub(super) ends: Ends,
    pub(super) observer: Deferrals,
    /// Begun with the secret.
    pub(super) hash: Hmac<Sha256>,
}

type Deal = dyn Fn(&request::Parts) -> Option<Terms> + Send + Sync;

impl Settings {
    pub(super) fn new() -> Self {
        Self {
            terms: Arc::new(|_| Some(Terms::new())),
            at: "/deferred".to_owned(),
            headers: KEPT.into(),
            max_request_bytes: 1 << 20,
            max_result_bytes: 8 << 20,
            expire_after: DAY,
            keep: DAY,
            max_attempts: NonZeroU32::new(5).expect("it is not zero"),
            max_wait: Duration::from_secs(10),
            ends: Ends::default(),
            observer: Deferrals::new(PolicyName::DEFAULT),
            hash: hash_under(b"tower-quota deferred"),
        }
    }

    pub(super) fn owner(&self, key: &Key) -> Owner {
        Owner::from_bytes(self.digest(&[b"owner", key.as_bytes()]))
    }

    pub(super) fn submission(
        &self,
        id: RequestId,
        owner: Owner,
        request: StoredRequest,
        terms: Terms,
        idempotency_key: Option<&[u8]>,
    ) -> Submission {
        let mut submission = Submission::new(id, owner, request);
        submission.priority = terms.priority;
        submission.weight = terms.weight;
        submission.delay = terms.delay;
        submission.expire_after = terms.expire_after.unwrap_or(self.expire_after);
        submission.keep = self.keep;
        submission.max_attempts = self.max_attempts;
        submission.dedup =
            idempotency_key.map(|key| self.digest(&[b"idempotency", owner.as_bytes(), key]));
        submission.label = terms.label;
        submission
    }

    /// No part can pass for a piece of another: all but the last have one length for each use.
    fn digest(&self, parts: &[&[u8]]) -> [u8; 16] {
        let mut hash = self.hash.clone();
        for part in parts {
            hash.update(part);
        }
        let mut digest = [0; 16];
        digest.copy_from_slice(&hash.finalize().into_bytes()[..16]);
        digest
    }
}

pub(super) fn hash_under(secret: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(secret).expect("an HMAC takes a secret of any length")
}

/// What a service needs to understand a request, and no credential.
const KEPT: [HeaderName; 7] = [
    header::ACCEPT,
    header::ACCEPT_LANGUAGE,
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::CONTENT_TYPE,
    header::HOST,
    header::USER_AGENT,
];

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
