//! Who a request comes from: whom a trusted proxy names, else a client certificate, else a bearer token, else nobody.
//!
//! **Invariant (bad-credentials-fail):** credentials that are shown and not good are answered with 401. A request
//! never becomes anonymous because its token was refused.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderMap;
use parking_lot::Mutex;
use pki::{ClientVerifier, Identity};
use rustls_pki_types::CertificateDer;

use crate::anonymous::Anonymous;
use crate::request_header::RequestHeader;
use crate::token::{Notes, TokenAuthenticator};
use crate::user::{self, UserInfo};

/// A connection's certificate is checked again after this time, since it may have expired.
const CERTIFICATE_RECHECK: Duration = Duration::from_secs(60);

/// How the protocol begins that carries a token in a web socket's handshake.
pub const WEB_SOCKET_TOKEN_PREFIX: &str = "base64url.bearer.authorization.k8s.io.";

/// Nothing longer is handed to anybody.
const TOKEN_LEN_MAX: usize = 64 * 1024;

const INVALID_TOKEN: &str = "invalid bearer token";

/// An authenticated request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authentication {
    pub user: UserInfo,
    /// For whom the caller's token is; empty where there is none.
    pub audiences: Vec<String>,
    pub notes: Notes,
}

impl From<UserInfo> for Authentication {
    fn from(user: UserInfo) -> Self {
        Self { user, audiences: Vec::new(), notes: Notes::default() }
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

/// Takes tokens that are not service-account tokens.
#[async_trait]
pub trait TokenSource: Send + Sync {
    /// The token's user, for `audiences`; `Ok(None)` if it is not a token of this source, or not for them; an error
    /// says why it is refused.
    async fn authenticate(
        &self,
        token: &str,
        audiences: &[String],
        now: SystemTime,
    ) -> Result<Option<Recognized>, String>;

    /// Whether tokens of this source say for whom they are. All others are for the API server.
    fn knows_audiences(&self) -> bool {
        false
    }
}

/// Whose token it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recognized {
    pub user: UserInfo,
    /// Those of the wanted audiences that the token is for.
    pub audiences: Vec<String>,
}

impl Recognized {
    pub fn new(user: UserInfo, audiences: &[String]) -> Self {
        Self { user, audiences: audiences.to_vec() }
    }
}

/// The certificate chain that a client showed in its handshake. One per connection: what it comes down to is
/// remembered, so that a request on an open connection costs no signature check.
pub struct PeerCertificate {
    chain: Vec<CertificateDer<'static>>,
    user: Remembered<UserInfo>,
    /// The common name, if it is a proxy's.
    proxy: Remembered<String>,
}

/// An outcome that holds for a while.
struct Remembered<T>(Mutex<Option<(SystemTime, Result<T, String>)>>);

impl<T: Clone> Remembered<T> {
    fn get_or(&self, now: SystemTime, check: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
        let mut remembered = self.0.lock();
        if let Some((at, outcome)) = &*remembered {
            // A clock that was set back makes the age an error: checked again.
            if now.duration_since(*at).is_ok_and(|age| age < CERTIFICATE_RECHECK) {
                return outcome.clone();
            }
        }
        let outcome = check();
        *remembered = Some((now, outcome.clone()));
        outcome
    }
}

impl PeerCertificate {
    /// From the chain that the connection reports, the client's own certificate first; `None` if it showed none.
    pub fn new(chain: &[CertificateDer<'_>]) -> Option<Self> {
        if chain.is_empty() {
            return None;
        }
        let chain = chain.iter().map(|certificate| certificate.clone().into_owned()).collect();
        let (user, proxy) = (Remembered(Mutex::new(None)), Remembered(Mutex::new(None)));
        Some(Self { chain, user, proxy })
    }

    fn user(&self, clients: &ClientVerifier, now: SystemTime) -> Result<UserInfo, String> {
        let check = || clients.verify(&self.chain, now).map(user_of).map_err(|error| error.to_string());
        self.user.get_or(now, check)
    }

    /// Who the certificate speaks for if it is one of `proxies`.
    pub(crate) fn proxy_name(&self, proxies: &ClientVerifier, now: SystemTime) -> Result<String, String> {
        let check = || {
            let verified = proxies.verify(&self.chain, now);
            verified.map(|identity| identity.user).map_err(|error| error.to_string())
        };
        self.proxy.get_or(now, check)
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
    /// Looked at only if proxies are believed.
    pub headers: Option<&'a HeaderMap>,
    pub path: &'a str,
}

/// The chain of authenticators.
pub struct Authenticator {
    proxies: Option<RequestHeader>,
    clients: ClientVerifier,
    service_accounts: TokenAuthenticator,
    others: Vec<Arc<dyn TokenSource>>,
    anonymous: Arc<dyn Fn(&str) -> bool + Send + Sync>,
}

impl Authenticator {
    /// Takes client certificates, service-account tokens and anonymous requests.
    pub fn new(clients: ClientVerifier, service_accounts: TokenAuthenticator) -> Self {
        let anonymous = Arc::new(|_: &str| true);
        Self { proxies: None, clients, service_accounts, others: Vec::new(), anonymous }
    }

    /// Believes proxies.
    pub fn with_proxies(mut self, proxies: Option<RequestHeader>) -> Self {
        self.proxies = proxies;
        self
    }

    /// Takes tokens of another source too.
    pub fn with_tokens(mut self, source: Arc<dyn TokenSource>) -> Self {
        self.others.push(source);
        self
    }

    /// Takes requests that show nothing only where it says so.
    pub fn with_anonymous(self, anonymous: Anonymous) -> Self {
        self.with_anonymous_where(Arc::new(move |path| anonymous.takes(path)))
    }

    /// As [`Authenticator::with_anonymous`], with a rule that may change: whether a path may be asked for.
    pub fn with_anonymous_where(mut self, takes: Arc<dyn Fn(&str) -> bool + Send + Sync>) -> Self {
        self.anonymous = takes;
        self
    }

    pub fn api_audiences(&self) -> &[String] {
        self.service_accounts.api_audiences()
    }

    /// Who the request comes from. Credentials are tried in order; the first good ones count.
    pub async fn authenticate(
        &self,
        credentials: Credentials<'_>,
        now: SystemTime,
    ) -> Result<Authentication, Unauthorized> {
        let mut errors = Vec::new();
        if let (Some(proxies), Some(certificate), Some(headers)) =
            (&self.proxies, credentials.certificate, credentials.headers)
        {
            match proxies.user(certificate, headers, now) {
                Ok(Some(user)) => return Ok(user.into()),
                Ok(None) => {}
                Err(error) => errors.push(error),
            }
        }
        if let Some(certificate) = credentials.certificate {
            match certificate.user(&self.clients, now) {
                Ok(user) => return Ok(user.into()),
                Err(error) => errors.push(error),
            }
        }
        let tokens = [credentials.authorization.and_then(bearer_token), credentials.web_socket_token];
        for token in tokens.into_iter().flatten() {
            match self.authenticate_token(token, None, now).await {
                Ok(authentication) => return Ok(authentication),
                Err(error) => errors.extend(error.errors),
            }
        }
        if errors.is_empty() && (self.anonymous)(credentials.path) {
            return Ok(UserInfo::anonymous().into());
        }
        Err(Unauthorized { errors })
    }

    /// Who bears `token`, for `audiences` or else for the API server.
    pub async fn authenticate_token(
        &self,
        token: &str,
        audiences: Option<&[String]>,
        now: SystemTime,
    ) -> Result<Authentication, Unauthorized> {
        let mut errors = vec![INVALID_TOKEN.to_owned()];
        match self.service_accounts.authenticate(token, audiences, now) {
            Ok(Some(verified)) => {
                let (user, audiences, notes) = (verified.user, verified.audiences, verified.notes);
                return Ok(Authentication { user, audiences, notes });
            }
            Ok(None) => {}
            Err(error) => errors.push(error.to_string()),
        }
        let wanted = audiences.unwrap_or(self.api_audiences());
        let own: Vec<_> = self.api_audiences().iter().filter(|own| wanted.contains(own)).cloned().collect();
        for source in self.others.iter().filter(|_| token.len() <= TOKEN_LEN_MAX) {
            let audiences = if source.knows_audiences() { wanted } else { &own };
            if audiences.is_empty() {
                continue;
            }
            match source.authenticate(token, audiences, now).await {
                Ok(Some(Recognized { user, audiences })) => {
                    let user = user.authenticated();
                    return Ok(Authentication { user, audiences, notes: Notes::default() });
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

    #[async_trait]
    impl TokenSource for Fixed {
        async fn authenticate(
            &self,
            token: &str,
            audiences: &[String],
            _: SystemTime,
        ) -> Result<Option<Recognized>, String> {
            match token {
                "good" => Ok(Some(Recognized::new(UserInfo::new("tom"), audiences))),
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

    async fn outcome(
        authenticator: &Authenticator,
        certificate: Option<&PeerCertificate>,
        authorization: Option<&str>,
        now: SystemTime,
    ) -> String {
        let credentials = Credentials { certificate, authorization, ..Credentials::default() };
        match authenticator.authenticate(credentials, now).await {
            Ok(authentication) => {
                format!("{} [{}]", authentication.user.name(), authentication.user.groups().join(" "))
            }
            Err(error) => format!("401: {error}"),
        }
    }

    #[tokio::test]
    async fn credentials_are_tried_in_order_and_bad_ones_never_count_as_none() {
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
                outcome(&authenticator, certificate, authorization, noon()).await,
                expected,
                "{authorization:?}"
            );
        }
        assert!(
            outcome(&authenticator, Some(&stranger), None, noon())
                .await
                .starts_with("401: the client certificate")
        );
    }

    #[tokio::test]
    async fn a_certificate_that_expires_on_an_open_connection_is_noticed() {
        let world = World::new();
        let authenticator = authenticator(&world);
        let jane = certificate(&world, "jane");
        let at = async |now| outcome(&authenticator, Some(&jane), None, now).await.starts_with("jane");
        assert!(at(noon()).await && at(noon() + DAY - Duration::from_secs(1)).await);
        assert!(!at(noon() + DAY + CERTIFICATE_RECHECK).await);
        // The clock goes back: valid again, not remembered as expired.
        assert!(at(noon()).await);
    }

    #[tokio::test]
    async fn a_serving_certificate_is_no_client() {
        let world = World::new();
        let names = pki::ServerNames::in_cluster();
        let serving = world.authority.serving_certificate(names, noon()).unwrap();
        assert!(serving.renew_at() > noon());
        let authority = PeerCertificate::new(&[world.authority.ca_der().clone()]).unwrap();
        assert!(outcome(&authenticator(&world), Some(&authority), None, noon()).await.starts_with("401"));
    }

    #[tokio::test]
    async fn anonymous_requests_can_be_narrowed_and_turned_off() {
        let world = World::new();
        let health = || vec!["/healthz".to_owned()];
        for (rule, path, taken) in [
            (Anonymous::Everywhere, "/api", true),
            (Anonymous::Nowhere, "/healthz", false),
            (Anonymous::Paths(health()), "/healthz", true),
            (Anonymous::Paths(health()), "/healthz/", false),
            (Anonymous::Paths(health()), "/api", false),
            (Anonymous::Paths(Vec::new()), "/healthz", false),
        ] {
            let shown = format!("{rule:?} {path}");
            let authenticator = authenticator(&world).with_anonymous(rule);
            let credentials = Credentials { path, ..Credentials::default() };
            assert_eq!(authenticator.authenticate(credentials, noon()).await.is_ok(), taken, "{shown}");
        }
    }

    #[tokio::test]
    async fn a_certificate_names_its_fingerprint() {
        let world = World::new();
        let jane = certificate(&world, "jane");
        let credentials = Credentials { certificate: Some(&jane), ..Credentials::default() };
        let user = authenticator(&world).authenticate(credentials, noon()).await.unwrap().user;
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
