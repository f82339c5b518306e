//! Bearer tokens: a header in the first line and claims in the rest, signed by the cluster; and whatever comes unsigned.
#![no_main]

use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use apimachinery::Object;
use auth::TokenAuthenticator;
use auth::token::{BoundKind, BoundObject, BoundObjects};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use pintle_fuzz::halves;
use pki::SigningKeys;

const ISSUER: &str = "https://kubernetes.default.svc";

/// Nothing exists.
struct Nothing;

impl BoundObjects for Nothing {
    fn find(&self, _: BoundKind, _: &str, _: &str) -> Option<BoundObject> {
        None
    }

    fn object(&self, _: BoundKind, _: &str, _: &str) -> Option<Arc<Object>> {
        None
    }

    fn legacy_token_used(&self, _: &Arc<Object>) {}
}

struct Cluster {
    keys: SigningKeys,
    authenticator: TokenAuthenticator,
}

static CLUSTER: LazyLock<Cluster> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a folder");
    let path = camino::Utf8Path::from_path(folder.path()).expect("a UTF-8 path");
    let keys = pki::Authority::load_or_create(path, now()).expect("keys").signing_keys().clone();
    let issuer = vec![ISSUER.to_owned()];
    let authenticator = TokenAuthenticator::new(issuer.clone(), issuer, keys.clone(), Arc::new(Nothing));
    Cluster { keys, authenticator }
});

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    if let Ok(token) = std::str::from_utf8(input) {
        let accepted = CLUSTER.authenticator.authenticate(token, None, now());
        assert!(!matches!(accepted, Ok(Some(_))), "nobody has signed it");
    }
    let Some((header, claims)) = halves(input) else { return };
    let accepted = CLUSTER.authenticator.authenticate(&signed(header, claims), None, now());
    assert!(!matches!(accepted, Ok(Some(_))), "there is no account that it could be of");
});

fn signed(header: &[u8], claims: &[u8]) -> String {
    let claims = URL_SAFE_NO_PAD.encode(claims);
    let message = |key: &str| {
        // The key's name is made with the cluster, and no input can know it.
        let header = String::from_utf8_lossy(header).replace("KEY", key);
        format!("{}.{claims}", URL_SAFE_NO_PAD.encode(header))
    };
    let (message, signature) = CLUSTER.keys.sign(message).expect("a signature");
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}
