//! Who is taken at their word: the authenticators, put together as the administrator wants them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use auth::jwt::JwtAuthenticators;
use auth::jwt::configuration::AuthenticationConfiguration;
use auth::remote::tokens::TokenWebhook;
use auth::token::{BoundObjects, Lifetimes};
use auth::{
    Anonymous, Authenticator, BootstrapTokens, RequestHeader, StaticTokens, TokenAuthenticator, TokenIssuer,
};
use pki::{Authority, ClientVerifier};
use webhook::{NoServices, ServiceResolver};

/// Issuer and audience of service-account tokens; upstream's default name.
const TOKEN_ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// What can be chosen about authentication.
#[derive(Clone, Debug)]
pub struct Authentication {
    /// Authorities, in PEM, whose client certificates count beside the cluster's own.
    pub client_ca: Vec<u8>,
    pub request_header: Option<RequestHeader>,
    pub static_tokens: Option<StaticTokens>,
    pub bootstrap_tokens: bool,
    /// Issuers of other tokens.
    pub jwt: Option<Jwt>,
    /// Somebody to ask about tokens that nobody here knows.
    pub webhook: Option<TokenWebhookOptions>,
    pub anonymous: Anonymous,
    pub service_accounts: ServiceAccountTokens,
}

/// How the token webhook is asked.
#[derive(Clone, Debug)]
pub struct TokenWebhookOptions {
    pub client: webhook::ClientConfig,
    /// `v1` or `v1beta1`.
    pub version: String,
    /// For how long an answer holds.
    pub ttl: Duration,
}

/// Issuers of other tokens, and the file that says which.
#[derive(Clone, Debug)]
pub struct Jwt {
    pub authenticators: Arc<JwtAuthenticators>,
    /// Looked at from time to time; what is wrong in it then is logged, and what was there before stays.
    pub file: Option<PathBuf>,
}

/// How service-account tokens are made and which are taken.
#[derive(Clone, Debug, Default)]
pub struct ServiceAccountTokens {
    /// Tokens of all are taken, and the first makes new ones; empty stands for the default name.
    pub issuers: Vec<String>,
    /// For whom tokens are that the server takes; empty stands for the issuers.
    pub api_audiences: Vec<String>,
    /// Where others find the public keys, if not at this server.
    pub jwks_uri: Option<String>,
    pub lifetimes: Lifetimes,
}

impl Default for Authentication {
    fn default() -> Self {
        Self {
            client_ca: Vec::new(),
            request_header: None,
            static_tokens: None,
            bootstrap_tokens: true,
            jwt: None,
            webhook: None,
            anonymous: Anonymous::default(),
            service_accounts: ServiceAccountTokens::default(),
        }
    }
}

impl ServiceAccountTokens {
    /// The issuers of service-account tokens.
    pub fn issuers(&self) -> Vec<String> {
        match self.issuers.as_slice() {
            [] => vec![TOKEN_ISSUER.to_owned()],
            issuers => issuers.to_vec(),
        }
    }

    fn api_audiences(&self) -> Vec<String> {
        if self.api_audiences.is_empty() { self.issuers() } else { self.api_audiences.clone() }
    }

    /// Makes tokens.
    pub(crate) fn issuer(&self, authority: &Authority) -> TokenIssuer {
        let (issuer, keys) = (self.issuers().swap_remove(0), authority.signing_keys().clone());
        TokenIssuer::new(issuer, self.api_audiences(), keys).with_lifetimes(self.lifetimes)
    }
}

impl Authentication {
    /// Checks client certificates of users.
    pub fn clients(&self, authority: &Authority) -> Result<ClientVerifier, pki::Error> {
        match self.client_ca.as_slice() {
            [] => authority.client_verifier(),
            bundle => ClientVerifier::with_bundle(authority.ca_der(), bundle),
        }
    }

    /// Whose certificates count for something else than their own user, for the listener to ask for.
    pub fn proxies(&self) -> Vec<ClientVerifier> {
        self.request_header.iter().map(|header| header.proxies.clone()).collect()
    }

    pub(crate) fn authenticator(
        &self,
        authority: &Authority,
        objects: Arc<dyn BoundObjects>,
    ) -> Result<Authenticator, pki::Error> {
        let tokens = TokenAuthenticator::new(
            self.service_accounts.issuers(),
            self.service_accounts.api_audiences(),
            authority.signing_keys().clone(),
            objects.clone(),
        );
        let mut authenticator = Authenticator::new(self.clients(authority)?, tokens)
            .with_proxies(self.request_header.clone())
            .with_anonymous(self.anonymous.clone());
        if let Some(tokens) = &self.static_tokens {
            authenticator = authenticator.with_tokens(Arc::new(tokens.clone()));
        }
        if self.bootstrap_tokens {
            authenticator = authenticator.with_tokens(Arc::new(BootstrapTokens::new(objects)));
        }
        if let Some(Jwt { authenticators, .. }) = &self.jwt {
            let (authenticators, otherwise) = (authenticators.clone(), self.anonymous.clone());
            authenticator = authenticator.with_tokens(authenticators.clone()).with_anonymous_where(Arc::new(
                move |path: &str| authenticators.takes_anonymous(path, &otherwise),
            ));
        }
        if let Some(options) = &self.webhook {
            let resolver: Arc<dyn ServiceResolver> = Arc::new(NoServices);
            let client = webhook::Client::new(&options.client, &resolver)
                .map_err(|error| pki::Error::Tls(error.to_string()))?;
            let audiences = self.service_accounts.api_audiences();
            let webhook = TokenWebhook::new(client, &options.version, options.ttl, audiences);
            authenticator = authenticator.with_tokens(Arc::new(webhook));
        }
        Ok(authenticator)
    }
}

/// How often the configuration file is looked at, as upstream.
const FILE_INTERVAL: Duration = Duration::from_secs(60);

/// Takes changes of the configuration file until `shutdown`.
pub(crate) async fn follow_file(jwt: Jwt, shutdown: rt::Shutdown) {
    let Some(file) = &jwt.file else { return };
    let mut known = std::fs::read_to_string(file).ok();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = rt::sleep(FILE_INTERVAL) => {}
        }
        let now = std::fs::read_to_string(file).ok();
        if now == known || now.is_none() {
            continue;
        }
        let text = now.as_deref().unwrap_or_default();
        match load(&jwt.authenticators, text) {
            Ok(()) => tracing::info!(file = %file.display(), "Took the changed authentication configuration"),
            Err(problem) => {
                tracing::error!(file = %file.display(), problem, "Kept the authentication configuration");
            }
        }
        known = now;
    }
}

fn load(authenticators: &JwtAuthenticators, text: &str) -> Result<(), String> {
    let configuration = AuthenticationConfiguration::parse(text).map_err(|error| error.to_string())?;
    authenticators.replace(&configuration).map_err(|errors| {
        let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
        errors.join("; ")
    })
}
