//! Proving to a registry who asks.
//!
//! Credentials are tried in order, anonymity last. Those that a registry, or the token server it names, did not take
//! are not shown again in the same session.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use http::uri::{Scheme, Uri};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use parking_lot::Mutex;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use super::Credential;
use super::challenge::Challenge;
use super::request::{self, Ask, Peer};
use crate::{Error, Result};

/// Of a token server's answer.
const TOKEN_BYTES_MAX: usize = 1 << 20;
/// Tokens live for a minute at least; a refusal of a younger one means who asks.
const TOKEN_AGE_MIN: Duration = Duration::from_secs(50);
const CLIENT_ID: &str = "pintle";

/// What is shown to one host.
pub(super) struct Authorizer {
    candidates: Vec<Option<Credential>>,
    state: Mutex<State>,
    /// Only one asks for tokens at a time; the others then have it too.
    asking: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    shown: Shown,
    /// Which candidate is tried.
    candidate: usize,
    since: Option<rt::Instant>,
    /// As the host said it last.
    challenges: Vec<Challenge>,
}

/// What is shown, and how often that changed.
#[derive(Clone, Default)]
pub(super) struct Shown {
    pub(super) header: Option<HeaderValue>,
    version: u64,
}

/// A token server's answer; some call it the one, some the other.
#[derive(Deserialize)]
struct Token {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
}

impl Authorizer {
    pub(super) fn new(credentials: &[Credential]) -> Self {
        let candidates = credentials.iter().cloned().map(Some).chain([None]).collect();
        Self { candidates, state: Mutex::default(), asking: tokio::sync::Mutex::default() }
    }

    pub(super) fn shown(&self) -> Shown {
        self.state.lock().shown.clone()
    }

    /// After a host refused what was shown: finds the next thing to show. False when there is none.
    pub(super) async fn refused(
        &self,
        peer: &Peer<'_>,
        shown: &Shown,
        challenges: Vec<Challenge>,
        scope: &str,
    ) -> Result<bool> {
        let _asking = self.asking.lock().await;
        let (mut candidate, challenges) = {
            let mut state = self.state.lock();
            if state.shown.version != shown.version {
                // Somebody else found something in the meantime.
                return Ok(true);
            }
            if !challenges.is_empty() {
                state.challenges = challenges;
            }
            let is_old = state.since.is_some_and(|since| since.elapsed() > TOKEN_AGE_MIN);
            let next = if shown.header.is_some() && !is_old { state.candidate + 1 } else { state.candidate };
            (next, state.challenges.clone())
        };
        let mut found = None;
        while found.is_none() && candidate < self.candidates.len() {
            found = self.header(peer, &challenges, self.candidates[candidate].as_ref(), scope).await?;
            if found.is_none() {
                candidate += 1;
            }
        }
        let is_found = found.is_some();
        let mut state = self.state.lock();
        state.candidate = candidate;
        state.since = Some(rt::instant());
        state.shown = Shown { header: found, version: shown.version + 1 };
        Ok(is_found)
    }

    /// What a candidate can show; none where that is nothing, or is not believed.
    async fn header(
        &self,
        peer: &Peer<'_>,
        challenges: &[Challenge],
        candidate: Option<&Credential>,
        scope: &str,
    ) -> Result<Option<HeaderValue>> {
        if let Some(token) =
            candidate.map(|own| own.registry_token.as_str()).filter(|token| !token.is_empty())
        {
            return secret(&format!("Bearer {token}")).map(Some);
        }
        for challenge in challenges {
            match (challenge, candidate) {
                (Challenge::Bearer { realm, service, scope: wanted, .. }, candidate) => {
                    let scope = if wanted.is_empty() { scope } else { wanted };
                    if let Some(token) = token(peer, realm, service, scope, candidate).await? {
                        return secret(&format!("Bearer {token}")).map(Some);
                    }
                }
                (Challenge::Basic, Some(own)) if !own.username.is_empty() => return basic(own).map(Some),
                (Challenge::Basic, _) => {}
            }
        }
        Ok(None)
    }
}

fn basic(own: &Credential) -> Result<HeaderValue> {
    secret(&format!("Basic {}", STANDARD.encode(format!("{}:{}", own.username, own.password))))
}

fn secret(text: &str) -> Result<HeaderValue> {
    let mut value = HeaderValue::from_str(text).map_err(|_| {
        Error::Unauthorized("a credential cannot be sent: it has a line end in it".to_owned())
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// Asks a token server. None when it does not know who asks.
async fn token(
    peer: &Peer<'_>,
    realm: &str,
    service: &str,
    scope: &str,
    candidate: Option<&Credential>,
) -> Result<Option<String>> {
    let uri: Uri = realm
        .parse()
        .map_err(|_| Error::Invalid(format!("the registry's token server {realm:?} is no URL")))?;
    let is_plain = uri.scheme() == Some(&Scheme::HTTP);
    if uri.scheme().is_none() || (is_plain && *peer.scheme != Scheme::HTTP) {
        return Err(Error::Unauthorized(format!(
            "the registry's token server {realm:?} would be told credentials without TLS"
        )));
    }
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(USER_AGENT, HeaderValue::from_static(request::USER_AGENT_TEXT));
    let identity = candidate.map(|own| own.identity_token.as_str()).filter(|token| !token.is_empty());
    let query = [("service", service), ("scope", scope)];
    let ask = if let Some(identity) = identity {
        let form = [
            ("grant_type", "refresh_token"),
            ("client_id", CLIENT_ID),
            ("refresh_token", identity),
            query[0],
            query[1],
        ];
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        Ask { method: Method::POST, uri, headers, body: Bytes::from(encode(&form)) }
    } else {
        if let Some(own) = candidate.filter(|own| !own.username.is_empty()) {
            headers.insert(AUTHORIZATION, basic(own)?);
        }
        let separator = if realm.contains('?') { '&' } else { '?' };
        let uri: Uri = format!("{realm}{separator}{}", encode(&query))
            .parse()
            .map_err(|_| Error::Invalid(format!("the registry's token server {realm:?} is no URL")))?;
        Ask { method: Method::GET, uri, headers, body: Bytes::new() }
    };
    let response = peer.exchange(ask).await?.response;
    let status = response.status();
    let body = peer.read(response.into_body(), TOKEN_BYTES_MAX).await?;
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => return Ok(None),
        status if !status.is_success() => {
            let problem =
                format!("failed to fetch a token from {realm}: {}", request::refusal(status, &body));
            return Err(request::by_status(status, problem));
        }
        _ => {}
    }
    let token: Token = serde_json::from_slice(&body).map_err(|error| {
        Error::Invalid(format!("the answer of the token server {realm} cannot be read: {error}"))
    })?;
    let token = if token.token.is_empty() { token.access_token } else { token.token };
    if token.is_empty() {
        return Err(Error::Invalid(format!("the token server {realm} answered without a token")));
    }
    Ok(Some(token))
}

fn encode(pairs: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (name, value) in pairs.iter().filter(|(_, value)| !value.is_empty()) {
        if !text.is_empty() {
            text.push('&');
        }
        text.push_str(name);
        text.push('=');
        text.extend(utf8_percent_encode(value, NON_ALPHANUMERIC));
    }
    text
}
