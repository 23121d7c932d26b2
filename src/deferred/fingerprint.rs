use sha2::{Digest, Sha256};

/// By what a request is told from another one under the same idempotency key.
pub(super) fn fingerprint(request: &[u8]) -> [u8; 16] {
    let mut fingerprint = [0; 16];
    fingerprint.copy_from_slice(&Sha256::digest(request)[..16]);
    fingerprint
}
