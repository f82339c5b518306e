//! The ES256 keys of service-account tokens.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use camino::{Utf8Path, Utf8PathBuf};
use parking_lot::RwLock;
use ring::digest;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, UnparsedPublicKey,
};
use serde::{Deserialize, Serialize};

use crate::files::{read_if_present, write_private};
use crate::key::KeyPair;
use crate::{Error, x509};

const FILE: &str = "service-account-keys.json";
/// As many keys are known at once; a rotation drops the oldest beyond.
const KEYS_MAX: usize = 8;
/// An uncompressed P-256 point: 0x04, x, y.
const POINT_LEN: usize = 65;
const COORDINATE_LEN: usize = 32;

const REMEDY: &str = "restore it from a backup; or delete it to sign with a new key, after which every service-account \
                      token given out so far is refused";

/// A set of keys: the newest signs, all verify. Rotation adds one; tokens of the older ones stay good.
///
/// Cheap to clone; clones see each other's rotations.
#[derive(Clone)]
pub struct SigningKeys {
    shared: Arc<Shared>,
}

struct Shared {
    path: Utf8PathBuf,
    set: RwLock<Set>,
}

struct Set {
    signer: EcdsaKeyPair,
    /// Newest first.
    public: Arc<[PublicKey]>,
    stored: Vec<StoredKey>,
}

/// A public key that tokens are verified with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    /// The `kid` of token headers: base64url of the SHA-256 of the key's `SubjectPublicKeyInfo`, as upstream.
    pub key_id: String,
    point: Vec<u8>,
}

impl PublicKey {
    /// Checks a JWS ES256 signature (r and s, 32 bytes each) over `message`.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &self.point).verify(message, signature).is_ok()
    }

    /// The coordinates x and y, 32 bytes each, for a JSON Web Key.
    pub fn coordinates(&self) -> (&[u8], &[u8]) {
        self.point[1..].split_at(COORDINATE_LEN)
    }

    fn from_point(point: &[u8]) -> Self {
        let info = x509::public_key_info(point);
        let key_id = URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, &info));
        Self { key_id, point: point.to_vec() }
    }
}

/// The file: keys, newest first; only the newest has its private half.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct StoredKeys {
    keys: Vec<StoredKey>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct StoredKey {
    key_id: String,
    /// Seconds since 1970.
    created: u64,
    /// The uncompressed point, base64.
    public_key: String,
    /// PKCS #8 in PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    private_key: Option<String>,
}

impl SigningKeys {
    pub(crate) fn load_or_create(directory: &Utf8Path, now: SystemTime) -> Result<Self, Error> {
        let path = directory.join(FILE);
        let stored = match read_if_present(&path)? {
            Some(text) => parse(&text).map_err(|problem| damaged(&path, problem))?,
            None => {
                let keys = vec![new_key(now)?];
                store(&path, &keys)?;
                keys
            }
        };
        let set = Set::open(stored).map_err(|problem| damaged(&path, problem))?;
        Ok(Self { shared: Arc::new(Shared { path, set: RwLock::new(set) }) })
    }

    /// The `kid` of the key that signs.
    pub fn current_key_id(&self) -> String {
        self.shared.set.read().public[0].key_id.clone()
    }

    /// All keys that verify, newest first.
    pub fn public_keys(&self) -> Arc<[PublicKey]> {
        Arc::clone(&self.shared.set.read().public)
    }

    /// Signs with the newest key: `message` is given the key's id, so that it can stand in the signed text.
    ///
    /// Returns the text and its JWS ES256 signature.
    pub fn sign(&self, message: impl FnOnce(&str) -> String) -> Result<(String, Vec<u8>), Error> {
        let set = self.shared.set.read();
        let message = message(&set.public[0].key_id);
        let signature = set
            .signer
            .sign(&SystemRandom::new(), message.as_bytes())
            .map_err(|_| Error::Crypto { operation: "signing a token" })?;
        Ok((message, signature.as_ref().to_vec()))
    }

    /// Signs with a new key from now on. Tokens of the older keys stay good; of the very old ones (beyond eight
    /// rotations) they do not.
    pub fn rotate(&self, now: SystemTime) -> Result<(), Error> {
        let mut set = self.shared.set.write();
        let retired = set.stored.iter().map(|key| StoredKey { private_key: None, ..key.clone() });
        let mut stored = vec![new_key(now)?];
        stored.extend(retired.take(KEYS_MAX - 1));
        store(&self.shared.path, &stored)?;
        *set = Set::open(stored).map_err(|problem| damaged(&self.shared.path, problem))?;
        Ok(())
    }
}

impl Set {
    /// The error is what is wrong with the keys.
    fn open(stored: Vec<StoredKey>) -> Result<Self, String> {
        let public: Arc<[PublicKey]> = stored.iter().map(open_public).collect::<Result<_, _>>()?;
        let newest = stored.first().ok_or("it holds no key")?;
        let private = newest.private_key.as_deref().ok_or("its first key has no privateKey")?;
        let pair = KeyPair::from_pem(private).map_err(|problem| format!("keys[0].privateKey: {problem}"))?;
        if pair.public_key() != public[0].point {
            return Err("keys[0].privateKey does not belong to its publicKey".to_owned());
        }
        let signer =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pair.pkcs8(), &SystemRandom::new())
                .map_err(|error| format!("keys[0].privateKey: {error}"))?;
        Ok(Self { signer, public, stored })
    }
}

fn open_public(stored: &StoredKey) -> Result<PublicKey, String> {
    let point = STANDARD
        .decode(&stored.public_key)
        .map_err(|error| format!("the publicKey of {} is no base64 ({error})", stored.key_id))?;
    if point.len() != POINT_LEN {
        return Err(format!("the publicKey of {} is no P-256 point", stored.key_id));
    }
    let key = PublicKey::from_point(&point);
    if key.key_id != stored.key_id {
        return Err(format!("keyId {} should be {}", stored.key_id, key.key_id));
    }
    Ok(key)
}

fn new_key(now: SystemTime) -> Result<StoredKey, Error> {
    let pair = KeyPair::generate()?;
    Ok(StoredKey {
        key_id: PublicKey::from_point(pair.public_key()).key_id,
        created: now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
        public_key: STANDARD.encode(pair.public_key()),
        private_key: Some(pair.to_pem()),
    })
}

fn parse(text: &str) -> Result<Vec<StoredKey>, String> {
    let file: StoredKeys = serde_json::from_str(text).map_err(|error| error.to_string())?;
    Ok(file.keys)
}

fn store(path: &Utf8Path, keys: &[StoredKey]) -> Result<(), Error> {
    let text = serde_json::to_string_pretty(&StoredKeys { keys: keys.to_vec() })
        .expect("strings and numbers always have a JSON form");
    write_private(path, (text + "\n").as_bytes())
}

fn damaged(path: &Utf8Path, problem: String) -> Error {
    Error::Damaged { path: path.to_owned(), problem, remedy: REMEDY }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> (tempfile::TempDir, SigningKeys) {
        let directory = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(directory.path()).unwrap();
        let keys = SigningKeys::load_or_create(path, UNIX_EPOCH).unwrap();
        (directory, keys)
    }

    #[test]
    fn tokens_of_a_retired_key_stay_good_also_after_a_restart() {
        let (directory, keys) = keys();
        let (message, signature) = keys.sign(|key_id| format!("signed by {key_id}")).unwrap();
        keys.rotate(UNIX_EPOCH).unwrap();
        let path = Utf8Path::from_path(directory.path()).unwrap();
        let reloaded = SigningKeys::load_or_create(path, UNIX_EPOCH).unwrap();
        let public = reloaded.public_keys();
        assert_eq!(public.len(), 2);
        assert!(public[1].verify(message.as_bytes(), &signature));
        assert!(!public[0].verify(message.as_bytes(), &signature));
        assert!(!public[1].verify(b"something else", &signature));
        assert_eq!(reloaded.current_key_id(), keys.current_key_id());
        assert!(message.ends_with(&public[1].key_id));
    }

    #[test]
    fn the_oldest_key_goes_once_there_are_too_many() {
        let (_directory, keys) = keys();
        let first = keys.current_key_id();
        for _ in 0..KEYS_MAX {
            keys.rotate(UNIX_EPOCH).unwrap();
        }
        let public = keys.public_keys();
        assert_eq!(public.len(), KEYS_MAX);
        assert!(public.iter().all(|key| key.key_id != first));
    }

    #[test]
    fn only_the_newest_private_key_is_kept() {
        let (directory, keys) = keys();
        keys.rotate(UNIX_EPOCH).unwrap();
        let text = std::fs::read_to_string(directory.path().join(FILE)).unwrap();
        assert_eq!(text.matches("BEGIN PRIVATE KEY").count(), 1);
    }
}
