//! Who a request comes from: client certificate, bearer token, or nobody; and whom it wants to act as.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use apimachinery::Status;
use auth::authenticator::{Credentials, web_socket_token};
use auth::impersonation::Impersonation;
use auth::{Attributes, Authentication, Authenticator, UserInfo, oidc};
use http::{HeaderMap, Response, header};
use pki::SigningKeys;

use super::body::ResponseBody;
use super::handler::Peer;
use super::render;
use crate::authentication::ServiceAccountTokens;
use crate::door::Door;

/// Turns connections and headers into users.
pub struct Identifier {
    authenticator: Arc<Authenticator>,
    keys: SigningKeys,
    tokens: ServiceAccountTokens,
    address: SocketAddr,
}

impl Identifier {
    pub fn new(
        authenticator: Arc<Authenticator>,
        keys: SigningKeys,
        tokens: ServiceAccountTokens,
        address: SocketAddr,
    ) -> Self {
        Self { authenticator, keys, tokens, address }
    }

    /// `path` is that of the request, decoded.
    pub(super) async fn identify(
        &self,
        peer: &Peer,
        headers: &HeaderMap,
        path: &str,
        now: SystemTime,
    ) -> Result<Authentication, Status> {
        let protocols = text(headers, header::SEC_WEBSOCKET_PROTOCOL)?;
        let web_socket = protocols.map(web_socket_token).transpose().map_err(Status::bad_request)?.flatten();
        let credentials = Credentials {
            certificate: peer.certificate.as_ref(),
            authorization: text(headers, header::AUTHORIZATION)?,
            web_socket_token: web_socket.as_ref().map(|(token, _)| token.as_str()),
            headers: Some(headers),
            path,
        };
        let began = rt::instant();
        let outcome = self.authenticator.authenticate(credentials, now).await;
        let metrics = &telemetry::metrics().access;
        match &outcome {
            Ok(known) => metrics.authenticated(known.user.name(), began.elapsed()),
            Err(refused) if refused.errors.is_empty() => metrics.unauthenticated("failure", began.elapsed()),
            Err(_) => metrics.unauthenticated("error", began.elapsed()),
        }
        outcome.map_err(|error| {
            tracing::debug!(peer = %peer.address, %error, "Refused credentials");
            Status::unauthorized()
        })
    }

    /// The user that the request goes on as: the requester, or whom the headers name if the requester may.
    pub(super) fn impersonate(
        &self,
        door: &Door,
        request: &Attributes<'_>,
        headers: &HeaderMap,
    ) -> Result<UserInfo, Status> {
        if !headers.keys().any(|name| name.as_str().starts_with("impersonate-")) {
            return Ok(request.user.clone());
        }
        let mut pairs = Vec::new();
        for (name, value) in headers.iter().filter(|(name, _)| name.as_str().starts_with("impersonate-")) {
            // A value that cannot be read must not count as absent: the request would go on as the impersonator.
            let value = std::str::from_utf8(value.as_bytes())
                .map_err(|_| Status::bad_request(format!("header {name} is not valid UTF-8")))?;
            if name.as_str() == "impersonate-user" && value.is_empty() {
                return Err(Status::bad_request("header impersonate-user is empty"));
            }
            pairs.push((name.as_str(), value));
        }
        match Impersonation::from_headers(pairs)? {
            Some(impersonation) => impersonation.authorize(door.authorizer().as_ref(), request),
            None => Ok(request.user.clone()),
        }
    }

    /// `host:port` at which clients find the server.
    pub(super) fn address(&self) -> String {
        self.address.to_string()
    }

    pub(super) fn jwks(&self) -> Response<ResponseBody> {
        let keys = oidc::key_set(&self.keys.public_keys());
        render::bytes(200, oidc::KEYS_CONTENT_TYPE, serde_json::to_vec(&keys).unwrap_or_default())
    }

    pub(super) fn openid_configuration(&self) -> Response<ResponseBody> {
        let own = format!("https://{}{}", self.address, oidc::KEYS_PATH);
        let keys = self.tokens.jwks_uri.as_deref().unwrap_or(&own);
        let document = oidc::configuration(&self.tokens.issuers()[0], keys);
        render::bytes(
            200,
            oidc::CONFIGURATION_CONTENT_TYPE,
            serde_json::to_vec(&document).unwrap_or_default(),
        )
    }
}

/// A header's text, if it is there. One that cannot be read must not count as absent, or a request with bad
/// credentials would pass as one without.
fn text(headers: &HeaderMap, name: header::HeaderName) -> Result<Option<&str>, Status> {
    headers.get(name).map(|value| value.to_str().map_err(|_| Status::unauthorized())).transpose()
}
