//! Who is taken at their word. Flags have upstream's names.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use apiserver::authentication::{Authentication, Jwt, ServiceAccountTokens, TokenWebhookOptions};
use auth::jwt::JwtAuthenticators;
use auth::jwt::configuration::{
    AuthenticationConfiguration, ClaimMappings, ClaimValidationRule, IssuerOptions, JwtAuthenticator,
    PrefixedClaim,
};
use auth::token::Lifetimes;
use auth::{Anonymous, RequestHeader, StaticTokens};
use camino::{Utf8Path, Utf8PathBuf};
use clap::{ArgAction, Args};

const HEADING: &str = "Authentication";

#[derive(Args)]
#[command(next_help_heading = HEADING)]
pub struct AuthenticationArguments {
    /// Let requests in that show nothing, as system:anonymous
    #[arg(long, value_name = "BOOL", default_value_t = true, action = ArgAction::Set)]
    pub anonymous_auth: bool,

    /// Certificates of authorities whose client certificates count beside the cluster's own
    #[arg(long, value_name = "FILE")]
    pub client_ca_file: Option<Utf8PathBuf>,

    /// Tokens, one a line: token,user,uid,"group,group"
    #[arg(long, value_name = "FILE")]
    pub token_auth_file: Option<Utf8PathBuf>,

    /// Let machines join by tokens in Secrets of kube-system
    #[arg(long, value_name = "BOOL", default_value_t = true, action = ArgAction::Set)]
    pub enable_bootstrap_token_auth: bool,

    /// Certificates of authorities whose client certificates are those of proxies that name users in headers
    #[arg(long, value_name = "FILE")]
    pub requestheader_client_ca_file: Option<Utf8PathBuf>,

    /// Common names of the proxies' certificates; any if not given
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    pub requestheader_allowed_names: Vec<String>,

    /// Headers with the user's name, tried in order
    #[arg(long, value_name = "HEADER,…", value_delimiter = ',')]
    pub requestheader_username_headers: Vec<String>,

    /// Headers with the user's uid, tried in order
    #[arg(long, value_name = "HEADER,…", value_delimiter = ',')]
    pub requestheader_uid_headers: Vec<String>,

    /// Headers with the user's groups
    #[arg(long, value_name = "HEADER,…", value_delimiter = ',')]
    pub requestheader_group_headers: Vec<String>,

    /// Beginnings of headers with what else is known of the user
    #[arg(long, value_name = "PREFIX,…", value_delimiter = ',')]
    pub requestheader_extra_headers_prefix: Vec<String>,

    /// Issuer of service-account tokens; of several the first makes new ones and all are taken
    #[arg(long, value_name = "URL")]
    pub service_account_issuer: Vec<String>,

    /// Audiences that a token must be for one of; the issuers if not given
    #[arg(long, value_name = "AUDIENCE,…", value_delimiter = ',')]
    pub api_audiences: Vec<String>,

    /// Where others find the keys of service-account tokens, if not at this server
    #[arg(long, value_name = "URL")]
    pub service_account_jwks_uri: Option<String>,

    /// The longest that a service-account token may be good for, such as 24h; between 1h and 2^32s
    #[arg(long, value_name = "DURATION", value_parser = parse_max_expiration)]
    pub service_account_max_token_expiration: Option<u64>,

    /// Let tokens that are mounted into pods live on for a year, so that clients that never read them again go on
    #[arg(long, value_name = "BOOL", default_value_t = true, action = ArgAction::Set)]
    pub service_account_extend_token_expiration: bool,

    /// Issuers of other tokens and what their claims mean: an AuthenticationConfiguration
    /// (apiserver.config.k8s.io/v1). Read again when it changes
    #[arg(long, value_name = "FILE")]
    pub authentication_config: Option<Utf8PathBuf>,

    /// A kubeconfig that names the webhook which is asked about tokens that nobody here knows
    #[arg(long, value_name = "FILE")]
    pub authentication_token_webhook_config_file: Option<Utf8PathBuf>,

    /// The version of the TokenReviews that the webhook is sent
    #[arg(long, value_name = "VERSION", default_value = "v1beta1", value_parser = ["v1", "v1beta1"])]
    pub authentication_token_webhook_version: String,

    /// For how long its answers hold
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = super::parse_duration)]
    pub authentication_token_webhook_cache_ttl: Duration,

    #[command(flatten)]
    pub oidc: OidcArguments,
}

/// One issuer by flags.
#[derive(Args)]
#[command(next_help_heading = HEADING)]
pub struct OidcArguments {
    /// An OpenID Connect issuer whose tokens are taken; https alone
    #[arg(long, value_name = "URL", requires = "oidc_client_id", conflicts_with = "authentication_config")]
    pub oidc_issuer_url: Option<String>,

    /// The audience that its tokens must be for
    #[arg(long, value_name = "ID", requires = "oidc_issuer_url")]
    pub oidc_client_id: Option<String>,

    /// The claim that is the user's name
    #[arg(long, value_name = "CLAIM", default_value = "sub")]
    pub oidc_username_claim: String,

    /// What stands before the name; the issuer and # if not given and the claim is not email; - for nothing
    #[arg(long, value_name = "PREFIX", requires = "oidc_issuer_url")]
    pub oidc_username_prefix: Option<String>,

    /// The claim with the user's groups
    #[arg(long, value_name = "CLAIM", requires = "oidc_issuer_url")]
    pub oidc_groups_claim: Option<String>,

    /// What stands before each group
    #[arg(long, value_name = "PREFIX", requires = "oidc_issuer_url")]
    pub oidc_groups_prefix: Option<String>,

    /// Algorithms that tokens may be signed with
    #[arg(long, value_name = "ALG,…", value_delimiter = ',', default_value = "RS256",
          value_parser = ["RS256", "RS384", "RS512", "ES256", "ES384", "PS256", "PS384", "PS512"])]
    pub oidc_signing_algs: Vec<String>,

    /// Claims that must be there with this value; repeatable
    #[arg(long, value_name = "CLAIM=VALUE,…", value_delimiter = ',', value_parser = parse_pair)]
    pub oidc_required_claim: Vec<(String, String)>,

    /// Certificates of authorities that the issuer's own must lead to; the machine's if not given
    #[arg(long, value_name = "FILE", requires = "oidc_issuer_url")]
    pub oidc_ca_file: Option<Utf8PathBuf>,
}

fn parse_pair(text: &str) -> Result<(String, String), String> {
    let (claim, value) = text.split_once('=').ok_or("it must be claim=value")?;
    Ok((claim.to_owned(), value.to_owned()))
}

impl OidcArguments {
    fn issuer(&self) -> anyhow::Result<Option<JwtAuthenticator>> {
        let Some(url) = &self.oidc_issuer_url else { return Ok(None) };
        let prefix = match self.oidc_username_prefix.as_deref() {
            None if self.oidc_username_claim == "email" => String::new(),
            None => format!("{url}#"),
            Some("-") => String::new(),
            Some(prefix) => prefix.to_owned(),
        };
        let username = PrefixedClaim {
            claim: self.oidc_username_claim.clone(),
            prefix: Some(prefix),
            ..PrefixedClaim::default()
        };
        let groups = self.oidc_groups_claim.clone().map(|claim| PrefixedClaim {
            claim,
            prefix: Some(self.oidc_groups_prefix.clone().unwrap_or_default()),
            ..PrefixedClaim::default()
        });
        let authority = self.oidc_ca_file.as_deref().map(|file| read("--oidc-ca-file", file)).transpose()?;
        let required = self.oidc_required_claim.iter().map(|(claim, value)| ClaimValidationRule {
            claim: claim.clone(),
            required_value: value.clone(),
            ..ClaimValidationRule::default()
        });
        Ok(Some(JwtAuthenticator {
            issuer: IssuerOptions {
                url: url.clone(),
                audiences: self.oidc_client_id.iter().cloned().collect(),
                certificate_authority: String::from_utf8(authority.unwrap_or_default())
                    .context("--oidc-ca-file: it is no text")?,
                signing_algorithms: self.oidc_signing_algs.clone(),
                ..IssuerOptions::default()
            },
            claim_validation_rules: required.collect(),
            claim_mappings: ClaimMappings {
                username,
                groups: groups.unwrap_or_default(),
                ..ClaimMappings::default()
            },
            ..JwtAuthenticator::default()
        }))
    }
}

impl AuthenticationArguments {
    /// Reads the files that are named.
    pub fn options(&self) -> anyhow::Result<Authentication> {
        let client_ca = self.client_ca_file.as_deref().map(|file| read("--client-ca-file", file));
        let client_ca = client_ca.transpose()?.unwrap_or_default();
        if let Some(file) = self.client_ca_file.as_deref() {
            pki::ClientVerifier::from_pem(&client_ca).with_context(|| format!("--client-ca-file {file}"))?;
        }
        let service_accounts = self.service_accounts()?;
        Ok(Authentication {
            client_ca,
            request_header: self.request_header()?,
            static_tokens: self.static_tokens()?,
            bootstrap_tokens: self.enable_bootstrap_token_auth,
            jwt: self.jwt(service_accounts.issuers())?,
            webhook: self.webhook()?,
            anonymous: if self.anonymous_auth { Anonymous::Everywhere } else { Anonymous::Nowhere },
            service_accounts,
        })
    }

    fn webhook(&self) -> anyhow::Result<Option<TokenWebhookOptions>> {
        let Some(file) = &self.authentication_token_webhook_config_file else { return Ok(None) };
        let client = webhook::ClientConfig::from_kubeconfig(file)
            .with_context(|| format!("--authentication-token-webhook-config-file {file}"))?;
        let version = self.authentication_token_webhook_version.clone();
        Ok(Some(TokenWebhookOptions { client, version, ttl: self.authentication_token_webhook_cache_ttl }))
    }

    fn jwt(&self, own_issuers: Vec<String>) -> anyhow::Result<Option<Jwt>> {
        let (configuration, flag) = match (&self.authentication_config, self.oidc.issuer()?) {
            (None, None) => return Ok(None),
            (None, Some(issuer)) => {
                (AuthenticationConfiguration::of_issuer(issuer), "--oidc-issuer-url".to_owned())
            }
            (Some(file), _) => {
                let flag = format!("--authentication-config {file}");
                let text = String::from_utf8(read("--authentication-config", file)?)
                    .with_context(|| flag.clone())?;
                let parsed = AuthenticationConfiguration::parse(&text);
                (parsed.map_err(|error| anyhow!("{flag}: {error}"))?, flag)
            }
        };
        if configuration.anonymous.is_some() && !self.anonymous_auth {
            bail!("{flag}: anonymous: it is set by --anonymous-auth as well; leave one out");
        }
        let authenticators = JwtAuthenticators::new(&configuration, own_issuers).map_err(|errors| {
            let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
            anyhow!("{flag}: {}", errors.join("; "))
        })?;
        let file = self.authentication_config.clone().map(Utf8PathBuf::into_std_path_buf);
        Ok(Some(Jwt { authenticators: Arc::new(authenticators), file }))
    }

    fn request_header(&self) -> anyhow::Result<Option<RequestHeader>> {
        let lists = [
            ("--requestheader-allowed-names", &self.requestheader_allowed_names),
            ("--requestheader-username-headers", &self.requestheader_username_headers),
            ("--requestheader-uid-headers", &self.requestheader_uid_headers),
            ("--requestheader-group-headers", &self.requestheader_group_headers),
            ("--requestheader-extra-headers-prefix", &self.requestheader_extra_headers_prefix),
        ];
        let Some(file) = self.requestheader_client_ca_file.as_deref() else {
            match lists.into_iter().find(|(_, list)| !list.is_empty()) {
                Some((flag, _)) => bail!("{flag} needs --requestheader-client-ca-file"),
                None => return Ok(None),
            }
        };
        if let Some((flag, _)) = lists.into_iter().find(|(_, list)| list.iter().any(|v| v.trim().is_empty()))
        {
            bail!("{flag}: it has an empty item");
        }
        if self.requestheader_username_headers.is_empty() {
            bail!("--requestheader-client-ca-file needs --requestheader-username-headers");
        }
        let flag = "--requestheader-client-ca-file";
        let proxies = pki::ClientVerifier::from_pem(&read(flag, file)?);
        Ok(Some(RequestHeader {
            proxies: proxies.with_context(|| format!("{flag} {file}"))?,
            allowed_names: self.requestheader_allowed_names.clone(),
            user_headers: trimmed(&self.requestheader_username_headers),
            uid_headers: trimmed(&self.requestheader_uid_headers),
            group_headers: trimmed(&self.requestheader_group_headers),
            extra_header_prefixes: trimmed(&self.requestheader_extra_headers_prefix),
        }))
    }

    fn static_tokens(&self) -> anyhow::Result<Option<StaticTokens>> {
        let Some(file) = self.token_auth_file.as_deref() else { return Ok(None) };
        let named = || format!("--token-auth-file {file}");
        let text = String::from_utf8(read("--token-auth-file", file)?).with_context(named)?;
        StaticTokens::parse(&text).map(Some).with_context(named)
    }

    fn service_accounts(&self) -> anyhow::Result<ServiceAccountTokens> {
        for issuer in &self.service_account_issuer {
            if issuer.is_empty() {
                bail!("--service-account-issuer: it is empty; give a URL such as https://issuer.example");
            }
            if issuer.contains(':') && issuer.parse::<http::Uri>().is_err() {
                bail!("--service-account-issuer {issuer}: it contains a ':' but is no URL");
            }
        }
        if let Some(uri) = &self.service_account_jwks_uri
            && !uri.starts_with("https://")
        {
            bail!("--service-account-jwks-uri {uri}: it must be a URL with the scheme https");
        }
        Ok(ServiceAccountTokens {
            issuers: self.service_account_issuer.clone(),
            api_audiences: self.api_audiences.clone(),
            jwks_uri: self.service_account_jwks_uri.clone(),
            lifetimes: Lifetimes {
                seconds_max: self.service_account_max_token_expiration,
                extend_mounted: self.service_account_extend_token_expiration,
            },
        })
    }
}

fn trimmed(values: &[String]) -> Vec<String> {
    values.iter().map(|value| value.trim().to_owned()).collect()
}

fn read(flag: &str, file: &Utf8Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(file).with_context(|| format!("{flag} {file}"))
}

const HOUR: u64 = 3600;

/// A duration in Go's form, in seconds, within upstream's limits.
fn parse_max_expiration(text: &str) -> Result<u64, String> {
    match super::parse_duration(text)?.as_secs() {
        seconds if (HOUR..=1 << 32).contains(&seconds) => Ok(seconds),
        _ => Err("the maximum token expiration must be between 1 hour and 2^32 seconds".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        authentication: AuthenticationArguments,
    }

    fn outcome(arguments: &[&str]) -> String {
        let arguments = std::iter::once("pintle").chain(arguments.iter().copied());
        match Line::try_parse_from(arguments) {
            Err(error) => error.to_string(),
            Ok(line) => match line.authentication.options() {
                Ok(_) => "fine".to_owned(),
                Err(error) => format!("{error:#}"),
            },
        }
    }

    #[test]
    fn bad_choices_are_named_with_what_is_allowed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "t,jane").unwrap();
        let file = path.to_str().unwrap();
        let cases = [
            (&["--anonymous-auth=false"][..], "fine"),
            (&["--anonymous-auth=no"], "--anonymous-auth"),
            (&["--token-auth-file", "/nowhere/tokens"], "--token-auth-file /nowhere/tokens: No such file"),
            (&["--token-auth-file", file], "line 1: it must have at least 3 columns"),
            (&["--client-ca-file", file], "no PEM section CERTIFICATE"),
            (
                &["--requestheader-username-headers", "X-User"],
                "--requestheader-username-headers needs --requestheader-client-ca-file",
            ),
            (
                &["--requestheader-client-ca-file", file],
                "--requestheader-client-ca-file needs --requestheader-username-headers",
            ),
            (&["--service-account-max-token-expiration", "24h"], "fine"),
            (&["--service-account-max-token-expiration", "59m"], "between 1 hour and 2^32 seconds"),
            (&["--service-account-jwks-uri", "http://x"], "the scheme https"),
            (&["--oidc-issuer-url", "https://issuer.example"], "--oidc-client-id"),
            (&["--oidc-issuer-url", "https://issuer.example", "--oidc-client-id", "me"], "fine"),
            (
                &["--oidc-issuer-url", "http://issuer.example", "--oidc-client-id", "me"],
                "scheme must be https",
            ),
            (&["--oidc-signing-algs", "HS256"], "HS256"),
            (&["--authentication-config", file], "--authentication-config"),
        ];
        for (arguments, expected) in cases {
            let outcome = outcome(arguments);
            assert!(outcome.contains(expected), "{arguments:?}: {outcome}");
        }
    }
}
