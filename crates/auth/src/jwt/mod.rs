//! Tokens of OpenID Connect providers and other issuers of JSON Web Tokens.
//!
//! Which issuers count, and what their claims mean, is the administrator's [`configuration`]; keys come from the issuer
//! ([`keys`]) and are kept; claims become users by [`mapping`]. A token is bound to its issuer before anything else: the
//! claim `iss` chooses the one authenticator that looks at it.

pub mod configuration;
mod keys;
mod mapping;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use apimachinery::Value;
use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::RwLock;

use crate::anonymous::Anonymous;
use crate::authenticator::{Recognized, TokenSource};
use crate::field_path::PathError;
use crate::kept::Kept;
use crate::secret::fingerprint;
use crate::token::issuer;
use crate::user::UserInfo;
use configuration::AuthenticationConfiguration;
use keys::IssuerKeys;
use mapping::Mapping;

/// A token that was good is taken for so long without another look, as upstream does, unless it ends before.
const KEPT_FOR: Duration = Duration::from_secs(10);
/// By so much may a token be from the future.
const NOT_BEFORE_LEEWAY: Duration = Duration::from_secs(5 * 60);

/// The issuers of a configuration, which may be replaced while the server runs.
pub struct JwtAuthenticators {
    state: RwLock<Arc<State>>,
    /// What service-account tokens are issued as: nobody else may be configured under that name.
    own_issuers: Vec<String>,
}

struct State {
    issuers: Vec<Issuer>,
    anonymous: Option<Anonymous>,
    /// Users of tokens that were good a moment ago: checking a signature costs more than everything else of a request.
    kept: Kept<UserInfo>,
}

/// One issuer.
struct Issuer {
    url: String,
    audiences: Vec<String>,
    mapping: Mapping,
    keys: IssuerKeys,
}

impl JwtAuthenticators {
    /// Checks and takes a configuration. The errors name fields, all that are wrong.
    pub fn new(
        configuration: &AuthenticationConfiguration,
        own_issuers: Vec<String>,
    ) -> Result<Self, Vec<PathError>> {
        let state = State::new(configuration, &own_issuers)?;
        Ok(Self { state: RwLock::new(Arc::new(state)), own_issuers })
    }

    /// Goes on with another configuration; with the present one if that is not good.
    pub fn replace(&self, configuration: &AuthenticationConfiguration) -> Result<(), Vec<PathError>> {
        let state = State::new(configuration, &self.own_issuers)?;
        *self.state.write() = Arc::new(state);
        Ok(())
    }

    /// Whether a path may be asked for without showing anything; `otherwise` decides where the configuration does not.
    pub fn takes_anonymous(&self, path: &str, otherwise: &Anonymous) -> bool {
        self.state.read().anonymous.as_ref().unwrap_or(otherwise).takes(path)
    }
}

impl std::fmt::Debug for JwtAuthenticators {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.state.read();
        f.debug_list().entries(state.issuers.iter().map(|issuer| &issuer.url)).finish()
    }
}

impl State {
    fn new(
        configuration: &AuthenticationConfiguration,
        own_issuers: &[String],
    ) -> Result<Self, Vec<PathError>> {
        let mut errors = configuration.validate(own_issuers);
        let mut issuers = Vec::new();
        for (index, jwt) in configuration.jwt.iter().enumerate() {
            match Mapping::compile(jwt, &format!("jwt[{index}]")) {
                Ok(mapping) => match IssuerKeys::new(&jwt.issuer) {
                    Ok(keys) => issuers.push(Issuer {
                        url: jwt.issuer.url.clone(),
                        audiences: jwt.issuer.audiences.clone(),
                        mapping,
                        keys,
                    }),
                    Err(problem) if errors.is_empty() => {
                        errors.push(PathError::new(format!("jwt[{index}].issuer"), problem));
                    }
                    Err(_) => {}
                },
                Err(wrong) => errors.extend(wrong),
            }
        }
        if errors.is_empty() {
            Ok(Self { issuers, anonymous: configuration.anonymous_rule(), kept: Kept::new() })
        } else {
            Err(errors)
        }
    }
}

#[async_trait]
impl TokenSource for JwtAuthenticators {
    async fn authenticate(
        &self,
        token: &str,
        audiences: &[String],
        now: SystemTime,
    ) -> Result<Option<Recognized>, String> {
        let state = self.state.read().clone();
        let key = fingerprint(token.as_bytes());
        if let Some(user) = state.kept.get(&key, now) {
            return Ok(Some(Recognized::new(user, audiences)));
        }
        let Some(parts) = Parts::split(token) else { return Ok(None) };
        let Some(name) = issuer(&parts.payload) else { return Ok(None) };
        let Some(issuer) = state.issuers.iter().find(|own| own.url == name) else { return Ok(None) };
        let (user, left) = issuer.user(&parts, now).await?;
        state.kept.put(key, user.clone(), left.min(KEPT_FOR), now);
        Ok(Some(Recognized::new(user, audiences)))
    }
}

/// A token in its parts, decoded but not believed.
pub(super) struct Parts<'a> {
    /// What is signed.
    message: &'a str,
    header: Vec<u8>,
    payload: Vec<u8>,
    signature: Vec<u8>,
}

impl<'a> Parts<'a> {
    fn split(token: &'a str) -> Option<Self> {
        let (message, signature) = token.rsplit_once('.')?;
        let (header, payload) = message.split_once('.')?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).ok();
        Some(Self {
            message,
            header: decode(header)?,
            payload: decode(payload)?,
            signature: decode(signature)?,
        })
    }
}

impl Issuer {
    /// Whose token it is, and for how long it is good.
    async fn user(&self, parts: &Parts<'_>, now: SystemTime) -> Result<(UserInfo, Duration), String> {
        let refused = |why: String| format!("oidc: verify token: {why}");
        self.keys.verify(parts, now).await.map_err(refused)?;
        let claims = Value::parse(&parts.payload).map_err(|error| format!("oidc: parse claims: {error}"))?;
        self.check_audience(&claims).map_err(refused)?;
        let left = check_time(&claims, now).map_err(refused)?;
        Ok((self.mapping.user(&claims)?, left))
    }

    fn check_audience(&self, claims: &Value) -> Result<(), String> {
        let own: Vec<&str> = match &claims["aud"] {
            Value::String(one) => vec![one.as_str()],
            Value::Array(many) => many.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        if own.iter().any(|audience| self.audiences.iter().any(|wanted| wanted == audience)) {
            return Ok(());
        }
        Err(format!("oidc: expected audience in {:?} got {own:?}", self.audiences))
    }
}

/// For how long the token is still good. One without an end has ended.
fn check_time(claims: &Value, now: SystemTime) -> Result<Duration, String> {
    let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let expiry = claims["exp"].as_f64().unwrap_or(0.0);
    if expiry < seconds(now) {
        return Err("oidc: token is expired".to_owned());
    }
    let not_before = claims["nbf"].as_f64().unwrap_or(0.0);
    if seconds(now + NOT_BEFORE_LEEWAY) < not_before {
        return Err("oidc: the token is not valid yet".to_owned());
    }
    Ok(Duration::try_from_secs_f64(expiry - seconds(now)).unwrap_or(Duration::MAX))
}
