//! Comparing what only its owner knows.

use ring::digest::{SHA256, digest};

/// Whether two secrets are the same. How long it takes tells nothing of how alike they are.
pub(crate) fn same_secret(a: &[u8], b: &[u8]) -> bool {
    // Digests of what an attacker does not know cannot be approached byte by byte.
    digest(&SHA256, a).as_ref() == digest(&SHA256, b).as_ref()
}

/// What a secret is remembered by.
pub(crate) fn fingerprint(secret: &[u8]) -> [u8; 32] {
    let mut key = [0; 32];
    key.copy_from_slice(digest(&SHA256, secret).as_ref());
    key
}
