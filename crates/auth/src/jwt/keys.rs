//! The keys of an issuer: found by discovery, kept, and read again when a token has one that is not known.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::Method;
use parking_lot::RwLock;
use ring::signature::{self, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey};
use serde::Deserialize;
use webhook::{Call, Client, ClientConfig, NoServices, ServiceResolver, Target};

use super::Parts;
use super::configuration::IssuerOptions;

const DISCOVERY_PATH: &str = "/.well-known/openid-configuration";
const TIMEOUT: Duration = Duration::from_secs(30);
const DOCUMENT_BYTES_MAX: usize = 1 << 20;
/// Forged tokens must not make us ask an issuer all the time.
const REFRESH_INTERVAL: Duration = Duration::from_secs(10);

/// Keys of one issuer. Nothing is asked before the first token comes.
pub(super) struct IssuerKeys {
    issuer: String,
    discovery_url: String,
    ca_bundle: Option<Vec<u8>>,
    algorithms: Vec<String>,
    known: RwLock<Arc<[Key]>>,
    /// When the issuer was last asked; held while it is.
    asked: tokio::sync::Mutex<Option<SystemTime>>,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: String,
    /// Extensions that must be understood; there are none that are.
    #[serde(default)]
    crit: Option<serde_json::Value>,
}

/// A key as a JSON Web Key Set has it.
#[derive(Debug, Deserialize)]
struct Key {
    #[serde(default)]
    kid: String,
    #[serde(flatten)]
    material: Material,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "kty")]
enum Material {
    #[serde(rename = "RSA")]
    Rsa { n: String, e: String },
    #[serde(rename = "EC")]
    Curve { crv: String, x: String, y: String },
    #[serde(other)]
    Unknown,
}

/// How the algorithms that asymmetric keys have are checked. There is none for shared secrets: a public key taken for
/// one would let anybody sign.
enum Scheme {
    Rsa(&'static RsaParameters),
    Curve(&'static str, &'static signature::EcdsaVerificationAlgorithm),
}

fn scheme(algorithm: &str) -> Option<Scheme> {
    Some(match algorithm {
        "RS256" => Scheme::Rsa(&signature::RSA_PKCS1_2048_8192_SHA256),
        "RS384" => Scheme::Rsa(&signature::RSA_PKCS1_2048_8192_SHA384),
        "RS512" => Scheme::Rsa(&signature::RSA_PKCS1_2048_8192_SHA512),
        "PS256" => Scheme::Rsa(&signature::RSA_PSS_2048_8192_SHA256),
        "PS384" => Scheme::Rsa(&signature::RSA_PSS_2048_8192_SHA384),
        "PS512" => Scheme::Rsa(&signature::RSA_PSS_2048_8192_SHA512),
        "ES256" => Scheme::Curve("P-256", &signature::ECDSA_P256_SHA256_FIXED),
        "ES384" => Scheme::Curve("P-384", &signature::ECDSA_P384_SHA384_FIXED),
        _ => return None,
    })
}

impl IssuerKeys {
    pub fn new(issuer: &IssuerOptions) -> Result<Self, String> {
        let discovery_url = match issuer.discovery_url.as_str() {
            "" => format!("{}{DISCOVERY_PATH}", issuer.url.trim_end_matches('/')),
            url => url.to_owned(),
        };
        let authority = issuer.certificate_authority.as_bytes();
        let keys = Self {
            issuer: issuer.url.clone(),
            discovery_url,
            ca_bundle: (!authority.is_empty()).then(|| authority.to_vec()),
            algorithms: issuer.signing_algorithms.clone(),
            known: RwLock::new(Arc::new([])),
            asked: tokio::sync::Mutex::new(None),
        };
        keys.client(&keys.discovery_url)?;
        Ok(keys)
    }

    /// Checks a token's signature, if need be with keys that the issuer has now.
    pub async fn verify(&self, parts: &Parts<'_>, now: SystemTime) -> Result<(), String> {
        let header: Header =
            serde_json::from_slice(&parts.header).map_err(|error| format!("oidc: malformed jwt: {error}"))?;
        let allowed = self.algorithms.is_empty() || self.algorithms.contains(&header.alg);
        let scheme = scheme(&header.alg).filter(|_| allowed && header.crit.is_none());
        let Some(scheme) = scheme else {
            return Err(format!("oidc: id token signed with unsupported algorithm, got {:?}", header.alg));
        };
        if self.is_signed(&header, &scheme, parts) {
            return Ok(());
        }
        self.refresh(now).await?;
        if self.is_signed(&header, &scheme, parts) {
            return Ok(());
        }
        Err("failed to verify signature: failed to verify id token signature".to_owned())
    }

    fn is_signed(&self, header: &Header, scheme: &Scheme, parts: &Parts<'_>) -> bool {
        let known = self.known.read().clone();
        known
            .iter()
            .filter(|key| header.kid.is_empty() || key.kid == header.kid)
            .any(|key| key.material.verify(scheme, parts.message.as_bytes(), &parts.signature))
    }

    /// Reads the issuer's keys, unless that was done just now.
    async fn refresh(&self, now: SystemTime) -> Result<(), String> {
        let mut asked = self.asked.lock().await;
        let recently =
            asked.is_some_and(|last| now.duration_since(last).is_ok_and(|passed| passed < REFRESH_INTERVAL));
        if recently {
            return Ok(());
        }
        *asked = Some(now);
        let keys = self.fetch().await.map_err(|why| format!("fetching keys {why}"))?;
        *self.known.write() = keys.into();
        Ok(())
    }

    async fn fetch(&self) -> Result<Vec<Key>, String> {
        #[derive(Deserialize)]
        struct Discovery {
            issuer: String,
            jwks_uri: String,
        }
        #[derive(Deserialize)]
        struct KeySet {
            keys: Vec<serde_json::Value>,
        }
        let found: Discovery = self.get(&self.discovery_url).await?;
        if found.issuer != self.issuer {
            let (own, other) = (&self.issuer, &found.issuer);
            return Err(format!(
                "oidc: issuer did not match the issuer returned by provider, expected {own:?} got {other:?}"
            ));
        }
        let set: KeySet = self.get(&found.jwks_uri).await?;
        // Keys of kinds that are not known are no reason to lose the others.
        Ok(set.keys.into_iter().filter_map(|key| serde_json::from_value(key).ok()).collect())
    }

    async fn get<T: for<'de> Deserialize<'de>>(&self, url: &str) -> Result<T, String> {
        let call = Call {
            method: Method::GET,
            path: "",
            query: "",
            body: Bytes::new(),
            timeout: TIMEOUT,
            answer_bytes_max: DOCUMENT_BYTES_MAX,
        };
        let bytes =
            self.client(url)?.post(call).await.map_err(|error| telemetry::chain(&error).to_string())?;
        serde_json::from_slice(&bytes).map_err(|error| format!("the answer of {url}: {error}"))
    }

    fn client(&self, url: &str) -> Result<Client, String> {
        if !url.starts_with("https://") {
            return Err(format!("{url}: keys are taken over https alone"));
        }
        let resolver: Arc<dyn ServiceResolver> = Arc::new(NoServices);
        let config = ClientConfig {
            ca_bundle: self.ca_bundle.clone(),
            ..ClientConfig::new(Target::Url(url.to_owned()))
        };
        Client::new(&config, &resolver).map_err(|error| error.to_string())
    }
}

impl Material {
    /// False also where the key is not of the sort that the algorithm needs.
    fn verify(&self, scheme: &Scheme, message: &[u8], signature: &[u8]) -> bool {
        let decode = |text: &str| URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).unwrap_or_default();
        match (self, scheme) {
            (Self::Rsa { n, e }, Scheme::Rsa(parameters)) => {
                let key = RsaPublicKeyComponents { n: decode(n), e: decode(e) };
                key.verify(parameters, message, signature).is_ok()
            }
            (Self::Curve { crv, x, y }, Scheme::Curve(curve, algorithm)) if crv == curve => {
                let point: Vec<u8> = std::iter::once(4).chain(decode(x)).chain(decode(y)).collect();
                UnparsedPublicKey::new(*algorithm, point).verify(message, signature).is_ok()
            }
            _ => false,
        }
    }
}
