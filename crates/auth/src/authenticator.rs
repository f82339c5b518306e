//! Who a request comes from: a client certificate, else a bearer token, else nobody.
//!
//! **Invariant (bad-credentials-fail):** credentials that are shown and not good are answered with 401. A request
//! never becomes anonymous because its token was refused.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use pki::{ClientVerifier, Identity};
use rustls_pki_types::CertificateDer;

use crate::token::TokenAuthenticator;
use crate::user::{self, UserInfo};

/// A connection's certificate is checked again after this time, since it may have expired.
const CERTIFICATE_RECHECK: Duration = Duration::from_secs(60);

/// What to do about the protocol that carries a token in a web socket's handshake.
const WEB_SOCKET_TOKEN_PREFIX: &str = "base64url.bearer.authorization.k8s.io.";

const INVALID_TOKEN: &str = "invalid bearer token";

/// An authenticated request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authentication {
    pub user: UserInfo,
    /// For whom the caller's token is; empty where there is none.
    pub audiences: Vec<String>,
    /// A service-account token that should have been replaced before; worth a line in the audit log.
    pub stale_token: bool,
}

impl From<UserInfo> for Authentication {
    fn from(user: UserInfo) -> Self {
        Self { user, audiences: Vec::new(), stale_token: false }
    }
}

/// Answered with 401 and the message `Unauthorized`; what is in here is for the server's log and for TokenReviews.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unauthorized {
    pub errors: Vec<String>,
}

impl std::fmt::Display for Unauthorized {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.errors.as_slice() {
            [error] => f.write_str(error),
            errors => write!(f, "[{}]", errors.join(", ")),
        }
    }
}

impl std::error::Error for Unauthorized {}

/// Takes tokens that are not service-account tokens: bootstrap tokens, OpenID Connect.
pub trait TokenSource: Send + Sync {
    /// The token's user; `Ok(None)` if it is not a token of this source; an error says why it is refused.
    fn authenticate(&self, token: &str, now: SystemTime) -> Result<Option<UserInfo>, String>;
}

/// The certificate chain that a client showed in its handshake. One per connection: what it comes down to is
/// remembered, so that a request on an open connection costs no signature check.
pub struct PeerCertificate {
    chain: Vec<CertificateDer<'static>>,
    checked: Mutex<Option<Checked>>,
}

struct Checked {
    at: SystemTime,
    outcome: Result<UserInfo, String>,
}

impl PeerCertificate {
    /// From the chain that the connection reports, the client's own certificate first; `None` if it showed none.
    pub fn new(chain: &[CertificateDer<'_>]) -> Option<Self> {
        if chain.is_empty() {
            return None;
        }
        let chain = chain.iter().map(|certificate| certificate.clone().into_owned()).collect();
        Some(Self { chain, checked: Mutex::new(None) })
    }

    fn user(&self, clients: &ClientVerifier, now: SystemTime) -> Result<UserInfo, String> {
        let mut checked = self.checked.lock();
        if let Some(checked) = &*checked {
            // A clock that was set back makes the age an error: checked again.
            if now.duration_since(checked.at).is_ok_and(|age| age < CERTIFICATE_RECHECK) {
                return checked.outcome.clone();
            }
        }
        let outcome = clients.verify(&self.chain, now).map(user_of).map_err(|error| error.to_string());
        *checked = Some(Checked { at: now, outcome: outcome.clone() });
        outcome
    }
}

fn user_of(identity: Identity) -> UserInfo {
    UserInfo::new(identity.user)
        .with_uid(identity.uid.unwrap_or_default())
        .with_groups(identity.groups)
        .with_extra(user::CREDENTIAL_ID, identity.credential_id)
        .authenticated()
}

/// What a request shows.
#[derive(Clone, Copy, Default)]
pub struct Credentials<'a> {
    pub certificate: Option<&'a PeerCertificate>,
    /// The header `Authorization`.
    pub authorization: Option<&'a str>,
    /// The token that [`web_socket_token`] found.
    pub web_socket_token: Option<&'a str>,
}

/// The chain of authenticators.
pub struct Authenticator {
    clients: ClientVerifier,
    service_accounts: TokenAuthenticator,
    others: Vec<Arc<dyn TokenSource>>,
    anonymous: bool,
}

impl Authenticator {
    /// Takes client certificates, service-account tokens and anonymous requests.
    pub fn new(clients: ClientVerifier, service_accounts: TokenAuthenticator) -> Self {
        Self { clients, service_accounts, others: Vec::new(), anonymous: true }
    }

    /// Takes tokens of another source too.
    pub fn with_tokens(mut self, source: Arc<dyn TokenSource>) -> Self {
        self.others.push(source);
        self
    }

    /// Refuses requests that show nothing.
    pub fn without_anonymous(mut self) -> Self {
        self.anonymous = false;
        self
    }

    pub fn api_audiences(&self) -> &[String] {
        self.service_accounts.api_audiences()
    }

    /// Who the request comes from. Credentials are tried in order; the first good ones count.
    pub fn authenticate(
        &self,
        credentials: Credentials<'_>,
        now: SystemTime,
    ) -> Result<Authentication, Unauthorized> {
        let mut errors = Vec::new();
        if let Some(certificate) = credentials.certificate {
            match certificate.user(&self.clients, now) {
                Ok(user) => return Ok(user.into()),
                Err(error) => errors.push(error),
            }
        }
        let tokens = [credentials.authorization.and_then(bearer_token), credentials.web_socket_token];
        for token in tokens.into_iter().flatten() {
            match self.authenticate_token(token, None, now) {
                Ok(authentication) => return Ok(authentication),
                Err(error) => errors.extend(error.errors),
            }
        }
        if errors.is_empty() && self.anonymous {
            return Ok(UserInfo::anonymous().into());
        }
        Err(Unauthorized { errors })
    }

    /// Who bears `token`, for `audiences` or else for the API server.
    pub fn authenticate_token(
        &self,
        token: &str,
        audiences: Option<&[String]>,
        now: SystemTime,
    ) -> Result<Authentication, Unauthorized> {
        let mut errors = vec![INVALID_TOKEN.to_owned()];
        match self.service_accounts.authenticate(token, audiences, now) {
            Ok(Some(verified)) => {
                let (user, audiences) = (verified.user, verified.audiences);
                return Ok(Authentication { user, audiences, stale_token: verified.stale });
            }
            Ok(None) => {}
            Err(error) => errors.push(error.to_string()),
        }
        for source in &self.others {
            match source.authenticate(token, now) {
                Ok(Some(user)) => {
                    let audiences = audiences.unwrap_or(self.api_audiences()).to_vec();
                    return Ok(Authentication { user: user.authenticated(), audiences, stale_token: false });
                }
                Ok(None) => {}
                Err(error) => errors.push(error),
            }
        }
        Err(Unauthorized { errors })
    }
}

/// The token of an `Authorization: Bearer` header. Other schemes, and `Bearer` without a token, show nothing.
pub fn bearer_token(authorization: &str) -> Option<&str> {
    let mut parts = authorization.trim().split(' ');
    let scheme = parts.next()?;
    let token = parts.next().filter(|token| !token.is_empty())?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token)
}

/// The token that a web socket's handshake carries in `Sec-WebSocket-Protocol`, since browsers can not set other
/// headers; and the protocols without it, one of which is to be answered with.
///
/// The error is upstream's and means 401.
pub fn web_socket_token(header: &str) -> Result<Option<(String, String)>, &'static str> {
    let (tokens, protocols): (Vec<&str>, Vec<&str>) = header
        .split(',')
        .map(str::trim)
        .filter(|protocol| !protocol.is_empty())
        .partition(|protocol| protocol.starts_with(WEB_SOCKET_TOKEN_PREFIX));
    let encoded = match tokens.as_slice() {
        [] => return Ok(None),
        [token] => &token[WEB_SOCKET_TOKEN_PREFIX.len()..],
        _ => return Err("multiple base64.bearer.authorization tokens specified"),
    };
    let token =
        URL_SAFE_NO_PAD.decode(encoded).map_err(|_| "invalid base64.bearer.authorization token encoding")?;
    let token = String::from_utf8(token).map_err(|_| "invalid base64.bearer.authorization token")?;
    match (token.is_empty(), protocols.is_empty()) {
        (true, _) => Ok(None),
        (false, true) => Err("missing additional subprotocol"),
        (false, false) => Ok(Some((token, protocols.join(",")))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::Binding;
    use crate::token::tests::{World, noon};

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    struct Fixed;

    impl TokenSource for Fixed {
        fn authenticate(&self, token: &str, _: SystemTime) -> Result<Option<UserInfo>, String> {
            match token {
                "good" => Ok(Some(UserInfo::new("tom"))),
                "bad" => Err("bad on purpose".to_owned()),
                _ => Ok(None),
            }
        }
    }

    fn authenticator(world: &World) -> Authenticator {
        Authenticator::new(world.authority.client_verifier().unwrap(), world.authenticator())
            .with_tokens(Arc::new(Fixed))
    }

    fn certificate(world: &World, user: &str) -> PeerCertificate {
        let issued = world.authority.issue_client(user, &["dev", "ops"], DAY, noon()).unwrap();
        PeerCertificate::new(&[issued.certificate_der().clone()]).unwrap()
    }

    fn outcome(
        authenticator: &Authenticator,
        certificate: Option<&PeerCertificate>,
        authorization: Option<&str>,
        now: SystemTime,
    ) -> String {
        let credentials = Credentials { certificate, authorization, web_socket_token: None };
        match authenticator.authenticate(credentials, now) {
            Ok(authentication) => {
                format!("{} [{}]", authentication.user.name(), authentication.user.groups().join(" "))
            }
            Err(error) => format!("401: {error}"),
        }
    }

    #[test]
    fn credentials_are_tried_in_order_and_bad_ones_never_count_as_none() {
        let world = World::new();
        let authenticator = authenticator(&world);
        let jane = certificate(&world, "jane");
        let stranger = certificate(&World::new(), "eve");
        let token = format!("Bearer {}", world.issue(Binding::None));
        let of_jane = "jane [dev ops system:authenticated]";
        let of_sa = "system:serviceaccount:ns:sa [system:serviceaccounts system:serviceaccounts:ns system:authenticated]";
        let nobody = "system:anonymous [system:unauthenticated]";
        let cases = [
            (None, None, nobody),
            (None, Some(""), nobody),
            (None, Some("Basic amFuZTp4"), nobody),
            (None, Some("Bearer "), nobody),
            (None, Some(token.as_str()), of_sa),
            (Some(&jane), None, of_jane),
            (Some(&jane), Some(token.as_str()), of_jane),
            (Some(&jane), Some("Bearer x"), of_jane),
            (Some(&stranger), Some(token.as_str()), of_sa),
            (None, Some("Bearer x"), "401: invalid bearer token"),
            (None, Some("bearer good"), "tom [system:authenticated]"),
            (None, Some("Bearer bad"), "401: [invalid bearer token, bad on purpose]"),
        ];
        for (certificate, authorization, expected) in cases {
            assert_eq!(
                outcome(&authenticator, certificate, authorization, noon()),
                expected,
                "{authorization:?}"
            );
        }
        assert!(
            outcome(&authenticator, Some(&stranger), None, noon()).starts_with("401: the client certificate")
        );
    }

    #[test]
    fn a_certificate_that_expires_on_an_open_connection_is_noticed() {
        let world = World::new();
        let authenticator = authenticator(&world);
        let jane = certificate(&world, "jane");
        let at = |now| outcome(&authenticator, Some(&jane), None, now).starts_with("jane");
        assert!(at(noon()) && at(noon() + DAY - Duration::from_secs(1)));
        assert!(!at(noon() + DAY + CERTIFICATE_RECHECK));
        // The clock goes back: valid again, not remembered as expired.
        assert!(at(noon()));
    }

    #[test]
    fn a_serving_certificate_is_no_client() {
        let world = World::new();
        let names = pki::ServerNames::in_cluster();
        let serving = world.authority.serving_certificate(names, noon()).unwrap();
        assert!(serving.renew_at() > noon());
        let authority = PeerCertificate::new(&[world.authority.ca_der().clone()]).unwrap();
        assert!(outcome(&authenticator(&world), Some(&authority), None, noon()).starts_with("401"));
    }

    #[test]
    fn anonymous_requests_can_be_turned_off() {
        let world = World::new();
        let authenticator = authenticator(&world).without_anonymous();
        assert_eq!(outcome(&authenticator, None, None, noon()), "401: []");
    }

    #[test]
    fn a_certificate_names_its_fingerprint() {
        let world = World::new();
        let jane = certificate(&world, "jane");
        let credentials = Credentials { certificate: Some(&jane), ..Credentials::default() };
        let user = authenticator(&world).authenticate(credentials, noon()).unwrap().user;
        let id = &user.extra()[user::CREDENTIAL_ID][0];
        assert!(id.starts_with("X509SHA256=") && id.len() == "X509SHA256=".len() + 64, "{id}");
    }

    #[test]
    fn web_sockets_carry_tokens_as_a_protocol() {
        let token = |text: &str| format!("{WEB_SOCKET_TOKEN_PREFIX}{}", URL_SAFE_NO_PAD.encode(text));
        let ok = |token: &str, rest: &str| Ok(Some((token.to_owned(), rest.to_owned())));
        let cases = [
            ("v5.channel.k8s.io".to_owned(), Ok(None)),
            (format!("{}, v5.channel.k8s.io,v4", token("abc")), ok("abc", "v5.channel.k8s.io,v4")),
            (token("abc"), Err("missing additional subprotocol")),
            (
                format!("{},{},v4", token("a"), token("b")),
                Err("multiple base64.bearer.authorization tokens specified"),
            ),
            (
                format!("{WEB_SOCKET_TOKEN_PREFIX}&,v4"),
                Err("invalid base64.bearer.authorization token encoding"),
            ),
            (format!("{},v4", token("")), Ok(None)),
        ];
        for (header, expected) in cases {
            assert_eq!(web_socket_token(&header), expected, "{header}");
        }
    }
}
