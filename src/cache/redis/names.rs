//! Names of keys, and the tags that bind what stands under them.
//!
//! ```text
//! tq:answers:{nB3XbZkq4q…}         an answer
//! tq:answers:{nB3XbZkq4q…}:turn    whose turn it is to ask for it
//! ```
//!
//! What stands between the braces is a hash of tenant and question, so that neither can be read
//! from it, and both keys are in one slot of a cluster.

use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::{cache::key::AnswerKey, name::PolicyName};

/// Makes the names of a store's keys.
pub(super) struct Names {
    /// The prefix and the store: `tq:answers:`.
    base: String,
    /// Begun with the secret.
    hash: Hmac<Sha256>,
}

/// The two keys of a question.
#[derive(Clone)]
pub(super) struct Keys {
    pub(super) answer: Vec<u8>,
    pub(super) turn: Vec<u8>,
}

/// The bytes of a tag.
pub(super) const TAG: usize = 16;

impl Names {
    pub(super) fn new(prefix: &PolicyName, name: &PolicyName, secret: Option<&[u8]>) -> Self {
        let base = format!("{prefix}:{name}:");
        let secret = secret.unwrap_or(base.as_bytes());
        let hash = Hmac::new_from_slice(secret).expect("an HMAC takes a secret of any length");
        Self { base, hash }
    }

    pub(super) fn of(&self, key: &AnswerKey) -> Keys {
        let digest = self.hash.clone().chain_update(b"name").chain_update(key.as_bytes());
        let hash = URL_SAFE_NO_PAD.encode(digest.finalize().into_bytes());
        let answer = format!("{}{{{hash}}}", self.base);
        let turn = format!("{answer}:turn");
        Keys { answer: answer.into_bytes(), turn: turn.into_bytes() }
    }

    /// What says that `parts` stand under this name because somebody with the secret put them
    /// there.
    pub(super) fn tag(&self, name: &[u8], parts: [&[u8]; 2]) -> [u8; TAG] {
        let mut hash = self.hash.clone().chain_update(b"value");
        for part in [name, parts[0], parts[1]] {
            hash.update(&(part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let digest = hash.finalize().into_bytes();
        let mut tag = [0; TAG];
        tag.copy_from_slice(&digest[..TAG]);
        tag
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Names").field("base", &self.base).finish_non_exhaustive()
    }
}
