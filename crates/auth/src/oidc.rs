//! The documents by which others can check service-account tokens (OpenID Connect Discovery).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use pki::PublicKey;
use serde_json::{Value, json};

pub const CONFIGURATION_PATH: &str = "/.well-known/openid-configuration";
pub const KEYS_PATH: &str = "/openid/v1/jwks";

/// For how long clients may keep both documents: the `max-age` of their `Cache-Control: public`.
pub const MAX_AGE_SECONDS: u32 = 3600;
pub const CONFIGURATION_CONTENT_TYPE: &str = "application/json";
pub const KEYS_CONTENT_TYPE: &str = "application/jwk-set+json";

/// The discovery document of `issuer`, whose keys are at `jwks_uri`.
pub fn configuration(issuer: &str, jwks_uri: &str) -> Value {
    json!({
        "issuer": issuer,
        "jwks_uri": jwks_uri,
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    })
}

/// The JSON Web Key Set (RFC 7517) of the keys that tokens are signed with.
pub fn key_set(keys: &[PublicKey]) -> Value {
    let keys: Vec<Value> = keys.iter().map(key).collect();
    json!({ "keys": keys })
}

fn key(key: &PublicKey) -> Value {
    let (x, y) = key.coordinates();
    json!({
        "use": "sig",
        "kty": "EC",
        "kid": key.key_id,
        "crv": "P-256",
        "alg": "ES256",
        "x": URL_SAFE_NO_PAD.encode(x),
        "y": URL_SAFE_NO_PAD.encode(y),
    })
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn the_discovery_document_leads_to_the_keys() {
        let keys = "https://127.0.0.1:6443/openid/v1/jwks";
        let document = configuration("https://kubernetes.default.svc.cluster.local", keys);
        assert_eq!(document["jwks_uri"], "https://127.0.0.1:6443/openid/v1/jwks");
        assert_eq!(document["id_token_signing_alg_values_supported"], json!(["ES256"]));
    }

    #[test]
    fn the_key_set_has_every_key_with_its_coordinates() {
        let directory = tempfile::tempdir().unwrap();
        let path = camino::Utf8Path::from_path(directory.path()).unwrap();
        let authority = pki::Authority::load_or_create(path, UNIX_EPOCH).unwrap();
        authority.signing_keys().rotate(UNIX_EPOCH).unwrap();
        let set = key_set(&authority.signing_keys().public_keys());
        let keys = set["keys"].as_array().unwrap();
        assert_eq!(keys.len(), 2);
        assert_eq!(keys[0]["kid"], authority.signing_keys().current_key_id());
        for key in keys {
            for coordinate in ["x", "y"] {
                assert_eq!(URL_SAFE_NO_PAD.decode(key[coordinate].as_str().unwrap()).unwrap().len(), 32);
            }
        }
    }
}
