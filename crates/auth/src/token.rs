//! Service-account tokens: JSON Web Tokens (RFC 7519) signed with ES256, with upstream's claims.
//!
//! A token is bound: it names the service account, and often a pod, secret or node, by uid, and is good only while
//! they exist. [`TokenIssuer`] makes them; [`TokenAuthenticator`] takes them back.
//!
//! The signature of a token is checked once and remembered; its time, audience and bound objects are checked at every
//! request, from memory. So a deleted pod's token is refused at once.

pub mod legacy;
pub mod request;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use apimachinery::Object;
use apimachinery::field::go_quote;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use pki::SigningKeys;
use serde::{Deserialize, Deserializer, Serialize};

use crate::kept::Kept;
use crate::rbac::quoted_list;
use crate::secret::fingerprint;
use crate::user::{self, UserInfo};

/// What a TokenRequest gets that does not say how long.
pub const EXPIRATION_SECONDS_DEFAULT: u64 = 60 * 60;
const EXPIRATION_SECONDS_MIN: u64 = 10 * 60;
const EXPIRATION_SECONDS_MAX: u64 = 1 << 32;

/// What admission asks for in the tokens it mounts into pods. As upstream, such a token is really good for
/// [`EXTENDED_EXPIRATION_SECONDS`], and says in `warnafter` when it should have been replaced: clients that do not
/// reload their token keep working, and can be found.
pub const MOUNTED_EXPIRATION_SECONDS: u64 = 60 * 60 + 7;
const EXTENDED_EXPIRATION_SECONDS: u64 = 365 * 24 * 60 * 60;

/// By so much may clocks differ.
const LEEWAY: Duration = Duration::from_secs(60);
/// Tokens are about one KiB; nothing longer is looked at.
const TOKEN_LEN_MAX: usize = 16 * 1024;
/// For so long at most a signature is believed without another look.
const KEPT_FOR: Duration = Duration::from_secs(24 * 60 * 60);

const ALGORITHM: &str = "ES256";

// === What a token says ===

#[derive(Serialize, Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: String,
    /// Extensions that must be understood; there are none that are.
    #[serde(default, skip_serializing)]
    crit: Option<serde_json::Value>,
}

/// The claims, in the order in which upstream's tokens have them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    #[serde(default, deserialize_with = "one_or_many")]
    pub aud: Vec<String>,
    pub exp: i64,
    #[serde(default)]
    pub iat: i64,
    pub iss: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub jti: String,
    #[serde(rename = "kubernetes.io")]
    pub kubernetes: KubernetesClaims,
    #[serde(default)]
    pub nbf: i64,
    #[serde(default)]
    pub sub: String,
}

/// What Kubernetes adds: the service account, and what the token is bound to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KubernetesClaims {
    pub namespace: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Reference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Reference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Reference>,
    pub serviceaccount: Reference,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warnafter: Option<i64>,
}

/// An object by name and uid.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
}

impl Reference {
    pub fn new(name: impl Into<String>, uid: impl Into<String>) -> Self {
        Self { name: name.into(), uid: uid.into() }
    }
}

/// RFC 7519 lets `aud` be a string or a list of them.
fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }
    Ok(match OneOrMany::deserialize(deserializer)? {
        OneOrMany::One(audience) => vec![audience],
        OneOrMany::Many(audiences) => audiences,
    })
}

// === Issuing ===

/// What a token is bound to besides its service account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Binding {
    #[default]
    None,
    /// A pod, and the node it runs on if it is known.
    Pod {
        pod: Reference,
        node: Option<Reference>,
    },
    Secret(Reference),
    Node(Reference),
}

/// A token to be made.
#[derive(Clone, Debug)]
pub struct IssueRequest<'a> {
    pub namespace: &'a str,
    pub service_account: Reference,
    pub binding: Binding,
    /// Empty stands for the API server's own.
    pub audiences: Vec<String>,
    /// Checked by [`validate_expiration_seconds`] before.
    pub expiration_seconds: u64,
}

/// A token, and what the TokenRequest's status and audit say of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuedToken {
    pub token: String,
    /// When the client should have replaced it.
    pub expires_at: SystemTime,
    pub audiences: Vec<String>,
    /// `JTI=` and the token's id.
    pub credential_id: String,
}

/// Makes service-account tokens.
pub struct TokenIssuer {
    issuer: String,
    api_audiences: Vec<String>,
    keys: SigningKeys,
    lifetimes: Lifetimes,
}

/// How long tokens may be good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    /// No token is good for longer (`--service-account-max-token-expiration`).
    pub seconds_max: Option<u64>,
    /// Tokens that admission mounts are really good for a year (`--service-account-extend-token-expiration`).
    pub extend_mounted: bool,
}

impl Default for Lifetimes {
    fn default() -> Self {
        Self { seconds_max: None, extend_mounted: true }
    }
}

/// Checks the `spec.expirationSeconds` of a TokenRequest. The error is upstream's.
pub fn validate_expiration_seconds(seconds: i64) -> Result<u64, &'static str> {
    match u64::try_from(seconds) {
        Ok(seconds) if seconds > EXPIRATION_SECONDS_MAX => {
            Err("may not specify a duration larger than 2^32 seconds")
        }
        Ok(seconds) if seconds >= EXPIRATION_SECONDS_MIN => Ok(seconds),
        _ => Err("may not specify a duration less than 10 minutes"),
    }
}

impl TokenIssuer {
    /// `issuer` is the URL under which the cluster's tokens are known; `api_audiences` is for whom tokens are made
    /// that do not say otherwise, usually the issuer itself.
    pub fn new(issuer: impl Into<String>, api_audiences: Vec<String>, keys: SigningKeys) -> Self {
        Self { issuer: issuer.into(), api_audiences, keys, lifetimes: Lifetimes::default() }
    }

    pub fn with_lifetimes(self, lifetimes: Lifetimes) -> Self {
        Self { lifetimes, ..self }
    }

    /// For how long a token is made that is to be good for `seconds`.
    pub fn bounded(&self, seconds: u64) -> u64 {
        self.lifetimes.seconds_max.map_or(seconds, |max| seconds.min(max))
    }

    /// Makes and signs a token that is good from `now`.
    pub fn issue(&self, request: &IssueRequest<'_>, now: SystemTime) -> Result<IssuedToken, pki::Error> {
        let audiences =
            if request.audiences.is_empty() { self.api_audiences.clone() } else { request.audiences.clone() };
        let (seconds, warn_after) = self.lifetime(request, &audiences);
        let starts = unix_seconds(now);
        let (pod, secret, node) = match request.binding.clone() {
            Binding::None => (None, None, None),
            Binding::Pod { pod, node } => (Some(pod), None, node),
            Binding::Secret(secret) => (None, Some(secret), None),
            Binding::Node(node) => (None, None, Some(node)),
        };
        let claims = Claims {
            aud: audiences,
            exp: starts.saturating_add_unsigned(seconds),
            iat: starts,
            iss: self.issuer.clone(),
            jti: rt::uuid(),
            kubernetes: KubernetesClaims {
                namespace: request.namespace.to_owned(),
                node,
                pod,
                secret,
                serviceaccount: request.service_account.clone(),
                warnafter: warn_after.map(|after| starts.saturating_add_unsigned(after)),
            },
            nbf: starts,
            sub: user::service_account_name(request.namespace, &request.service_account.name),
        };
        Ok(IssuedToken {
            token: sign_claims(&self.keys, &claims)?,
            expires_at: now + Duration::from_secs(request.expiration_seconds),
            credential_id: credential_id(&claims.jti),
            audiences: claims.aud,
        })
    }

    /// For how long the token is good, and after how long its use is worth a warning, in seconds.
    fn lifetime(&self, request: &IssueRequest<'_>, audiences: &[String]) -> (u64, Option<u64>) {
        let for_pod = matches!(request.binding, Binding::Pod { .. });
        let for_api = audiences.iter().all(|audience| self.api_audiences.contains(audience));
        let mounted = for_pod && for_api && request.expiration_seconds == MOUNTED_EXPIRATION_SECONDS;
        if mounted && self.lifetimes.extend_mounted {
            return (EXTENDED_EXPIRATION_SECONDS, Some(MOUNTED_EXPIRATION_SECONDS));
        }
        (request.expiration_seconds, None)
    }
}

fn sign_claims(keys: &SigningKeys, claims: &impl Serialize) -> Result<String, pki::Error> {
    let (message, signature) = keys.sign(|key_id| {
        let header = Header { alg: ALGORITHM.to_owned(), kid: key_id.to_owned(), crit: None };
        format!("{}.{}", encode(&header), encode(claims))
    })?;
    Ok(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

fn encode(part: &impl Serialize) -> String {
    let json = serde_json::to_vec(part).expect("strings and numbers always have a JSON form");
    URL_SAFE_NO_PAD.encode(json)
}

fn credential_id(jti: &str) -> String {
    format!("JTI={jti}")
}

fn unix_seconds(time: SystemTime) -> i64 {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

// === Authenticating ===

/// What a token can be bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BoundKind {
    ServiceAccount,
    Pod,
    Secret,
    Node,
}

/// As much of an object as tokens are checked against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundObject {
    pub uid: String,
    /// `metadata.deletionTimestamp`
    pub deletion: Option<SystemTime>,
}

/// Where a token's objects are looked up; the API server answers from its cache.
pub trait BoundObjects: Send + Sync {
    /// The object if it exists now. The namespace of a node is `""`.
    fn find(&self, kind: BoundKind, namespace: &str, name: &str) -> Option<BoundObject>;

    /// The whole of it, for tokens that are kept in a Secret.
    fn object(&self, kind: BoundKind, namespace: &str, name: &str) -> Option<Arc<Object>>;

    /// A token that is kept in this Secret was used today, and the Secret does not say so yet.
    fn legacy_token_used(&self, secret: &Arc<Object>);
}

/// A token that was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The service account, with what the token is bound to as extra, in `system:authenticated`.
    pub user: UserInfo,
    /// Those of the wanted audiences that the token is for.
    pub audiences: Vec<String>,
    pub notes: Notes,
}

/// What a token's use is worth telling about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// For the client, as a `Warning` header.
    pub warnings: Vec<&'static str>,
    /// For the audit log: annotation and value.
    pub annotations: Vec<(&'static str, String)>,
}

/// Why a token of this cluster is refused. The texts are upstream's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("invalid signature, no keys found")]
    UnknownKey,
    #[error("invalid signature")]
    Signature,
    #[error("malformed claims: {0}")]
    Claims(String),
    #[error("token audiences {} is invalid for the target audiences {}", quoted_list(.token), quoted_list(.wanted))]
    Audience { token: Vec<String>, wanted: Vec<String> },
    #[error("service account token has expired")]
    Expired,
    #[error("service account token is not valid yet")]
    NotYetValid,
    #[error("serviceaccounts {} not found", go_quote(.0))]
    ServiceAccountNotFound(String),
    #[error("service account {namespace}/{name} has been deleted")]
    ServiceAccountDeleted { namespace: String, name: String },
    #[error("service account UID ({actual}) does not match claim ({claimed})")]
    ServiceAccountUid { actual: String, claimed: String },
    #[error("service account token has been invalidated")]
    Invalidated,
    #[error(transparent)]
    Legacy(#[from] legacy::LegacyError),
    #[error("{kind} UID ({actual}) does not match service account {kind} ref claim ({claimed})")]
    BoundUid { kind: &'static str, actual: String, claimed: String },
}

/// Takes service-account tokens back.
pub struct TokenAuthenticator {
    issuers: Vec<String>,
    api_audiences: Vec<String>,
    keys: SigningKeys,
    objects: Arc<dyn BoundObjects>,
    /// Signature and issuer are checked; nothing else is.
    verified: Kept<Arc<Signed>>,
}

/// A token whose signature is good.
#[expect(clippy::large_enum_variant, reason = "each is behind an Arc of its own, and nearly all are bound")]
enum Signed {
    Bound { claims: Claims, user: UserInfo },
    Legacy(legacy::LegacyClaims),
}

impl Signed {
    /// How long it is worth keeping.
    fn kept_for(&self, now: SystemTime) -> Duration {
        let Self::Bound { claims, .. } = self else { return KEPT_FOR };
        let left = claims.exp.saturating_sub(unix_seconds(now)).saturating_add_unsigned(LEEWAY.as_secs());
        Duration::from_secs(u64::try_from(left).unwrap_or_default()).min(KEPT_FOR)
    }
}

impl TokenAuthenticator {
    /// Takes tokens of `issuers`, the first being the one that makes new tokens.
    pub fn new(
        issuers: Vec<String>,
        api_audiences: Vec<String>,
        keys: SigningKeys,
        objects: Arc<dyn BoundObjects>,
    ) -> Self {
        Self { issuers, api_audiences, keys, objects, verified: Kept::new() }
    }

    pub fn api_audiences(&self) -> &[String] {
        &self.api_audiences
    }

    /// Checks a token at the time `now`, for `audiences` or, without, for the API server's own.
    ///
    /// `Ok(None)` if it is not a token of this cluster, but perhaps of somebody else.
    pub fn authenticate(
        &self,
        token: &str,
        audiences: Option<&[String]>,
        now: SystemTime,
    ) -> Result<Option<Verified>, TokenError> {
        let Some(signed) = self.signed(token, now)? else { return Ok(None) };
        let wanted = audiences.unwrap_or(&self.api_audiences);
        match &*signed {
            Signed::Bound { claims, user } => {
                let audiences = self.shared_audiences(&claims.aud, wanted)?;
                check_time(claims, now)?;
                self.check_bound_objects(&claims.kubernetes, now)?;
                Ok(Some(Verified { user: user.clone(), audiences, notes: notes_on(claims, now) }))
            }
            Signed::Legacy(claims) => {
                let audiences = self.shared_audiences(&[], wanted)?;
                let (user, notes) = legacy::check(claims, token, self.objects.as_ref(), now)?;
                Ok(Some(Verified { user, audiences, notes }))
            }
        }
    }

    fn signed(&self, token: &str, now: SystemTime) -> Result<Option<Arc<Signed>>, TokenError> {
        if token.len() > TOKEN_LEN_MAX {
            return Ok(None);
        }
        let key = fingerprint(token.as_bytes());
        if let Some(signed) = self.verified.get(&key, now) {
            return Ok(Some(signed));
        }
        let Some(signed) = self.check_signature(token)?.map(Arc::new) else { return Ok(None) };
        self.verified.put(key, signed.clone(), signed.kept_for(now), now);
        Ok(Some(signed))
    }

    /// `None` for what is no token of this cluster: another form, another algorithm (`none` as well), another issuer.
    fn check_signature(&self, token: &str) -> Result<Option<Signed>, TokenError> {
        let Some((message, signature)) = token.rsplit_once('.') else { return Ok(None) };
        let Some((header, payload)) = message.split_once('.') else { return Ok(None) };
        let (Ok(header), Ok(payload), Ok(signature)) = (
            URL_SAFE_NO_PAD.decode(header),
            URL_SAFE_NO_PAD.decode(payload),
            URL_SAFE_NO_PAD.decode(signature),
        ) else {
            return Ok(None);
        };
        let Some(issuer) = issuer(&payload).filter(|issuer| self.is_from_here(issuer)) else {
            return Ok(None);
        };
        let Ok(header) = serde_json::from_slice::<Header>(&header) else { return Ok(None) };
        if header.alg != ALGORITHM || header.crit.is_some() {
            return Ok(None);
        }
        let keys = self.keys.public_keys();
        let mut candidates =
            keys.iter().filter(|key| header.kid.is_empty() || header.kid == key.key_id).peekable();
        if candidates.peek().is_none() {
            return Err(TokenError::UnknownKey);
        }
        if !candidates.any(|key| key.verify(message.as_bytes(), &signature)) {
            return Err(TokenError::Signature);
        }
        let malformed = |error: serde_json::Error| TokenError::Claims(error.to_string());
        let signed = if issuer == legacy::ISSUER {
            Signed::Legacy(serde_json::from_slice(&payload).map_err(malformed)?)
        } else {
            let claims: Claims = serde_json::from_slice(&payload).map_err(malformed)?;
            Signed::Bound { user: user_of(&claims), claims }
        };
        Ok(Some(signed))
    }

    fn is_from_here(&self, issuer: &str) -> bool {
        issuer == legacy::ISSUER || self.issuers.iter().any(|own| own == issuer)
    }

    fn shared_audiences(&self, own: &[String], wanted: &[String]) -> Result<Vec<String>, TokenError> {
        // Tokens from before audiences are for the API server.
        let own = if own.is_empty() { &self.api_audiences } else { own };
        let shared: Vec<_> = own.iter().filter(|audience| wanted.contains(audience)).cloned().collect();
        if shared.is_empty() {
            return Err(TokenError::Audience { token: own.to_vec(), wanted: wanted.to_vec() });
        }
        Ok(shared)
    }

    fn check_bound_objects(&self, claims: &KubernetesClaims, now: SystemTime) -> Result<(), TokenError> {
        self.check_service_account(claims, now)?;
        if let Some(secret) = &claims.secret {
            self.check_bound(BoundKind::Secret, "secret", &claims.namespace, secret, now)?;
        }
        match (&claims.pod, &claims.node) {
            // A pod's node is information; the pod itself is what counts.
            (Some(pod), _) => self.check_bound(BoundKind::Pod, "pod", &claims.namespace, pod, now),
            (None, Some(node)) => self.check_bound(BoundKind::Node, "node", "", node, now),
            (None, None) => Ok(()),
        }
    }

    fn check_service_account(&self, claims: &KubernetesClaims, now: SystemTime) -> Result<(), TokenError> {
        let (namespace, claimed) = (&claims.namespace, &claims.serviceaccount);
        let found = self
            .objects
            .find(BoundKind::ServiceAccount, namespace, &claimed.name)
            .ok_or_else(|| TokenError::ServiceAccountNotFound(claimed.name.clone()))?;
        if is_gone(&found, now) {
            let (namespace, name) = (namespace.clone(), claimed.name.clone());
            return Err(TokenError::ServiceAccountDeleted { namespace, name });
        }
        if found.uid != claimed.uid {
            return Err(TokenError::ServiceAccountUid { actual: found.uid, claimed: claimed.uid.clone() });
        }
        Ok(())
    }

    fn check_bound(
        &self,
        kind: BoundKind,
        kind_name: &'static str,
        namespace: &str,
        claimed: &Reference,
        now: SystemTime,
    ) -> Result<(), TokenError> {
        let found = self.objects.find(kind, namespace, &claimed.name).ok_or(TokenError::Invalidated)?;
        if is_gone(&found, now) {
            return Err(TokenError::Invalidated);
        }
        if found.uid != claimed.uid {
            let (actual, claimed) = (found.uid, claimed.uid.clone());
            return Err(TokenError::BoundUid { kind: kind_name, actual, claimed });
        }
        Ok(())
    }
}

/// An object that waits for its finalizers counts as there for a little while.
fn is_gone(object: &BoundObject, now: SystemTime) -> bool {
    object.deletion.is_some_and(|deletion| deletion + LEEWAY < now)
}

/// Looked at before anything is verified, to tell other clusters' tokens from forged ones of this one.
pub(crate) fn issuer(payload: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Unverified {
        iss: String,
    }
    serde_json::from_slice::<Unverified>(payload).ok().map(|claims| claims.iss)
}

/// A token that should have been replaced before is good, and worth a line in the audit log.
fn notes_on(claims: &Claims, now: SystemTime) -> Notes {
    let after = claims.kubernetes.warnafter.map(|after| unix_seconds(now) - after);
    let Some(late) = after.filter(|late| *late > 0) else { return Notes::default() };
    let text = format!("subject: {}, seconds after warning threshold: {late}", claims.sub);
    Notes { annotations: vec![("authentication.k8s.io/stale-token", text)], ..Notes::default() }
}

fn check_time(claims: &Claims, now: SystemTime) -> Result<(), TokenError> {
    let (now, leeway) = (unix_seconds(now), LEEWAY.as_secs());
    if now.saturating_add_unsigned(leeway) < claims.nbf.max(claims.iat) {
        return Err(TokenError::NotYetValid);
    }
    if now.saturating_sub_unsigned(leeway) > claims.exp {
        return Err(TokenError::Expired);
    }
    Ok(())
}

fn user_of(claims: &Claims) -> UserInfo {
    let KubernetesClaims { namespace, node, pod, serviceaccount, .. } = &claims.kubernetes;
    let mut user = UserInfo::service_account(namespace, &serviceaccount.name, &serviceaccount.uid);
    if !claims.jti.is_empty() {
        user = user.with_extra(user::CREDENTIAL_ID, credential_id(&claims.jti));
    }
    if let Some(pod) = pod {
        user = user.with_extra(user::POD_NAME, &*pod.name).with_extra(user::POD_UID, &*pod.uid);
    }
    if let Some(node) = node {
        user = user.with_extra(user::NODE_NAME, &*node.name);
        if !node.uid.is_empty() {
            user = user.with_extra(user::NODE_UID, &*node.uid);
        }
    }
    user.authenticated()
}

#[cfg(test)]
pub(crate) mod tests;
