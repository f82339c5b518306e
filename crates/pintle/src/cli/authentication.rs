//! Who is taken at their word. Flags have upstream's names.

use anyhow::{Context, bail};
use apiserver::authentication::{Authentication, ServiceAccountTokens};
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
}

impl AuthenticationArguments {
    /// Reads the files that are named.
    pub fn options(&self) -> anyhow::Result<Authentication> {
        let client_ca = self.client_ca_file.as_deref().map(|file| read("--client-ca-file", file));
        let client_ca = client_ca.transpose()?.unwrap_or_default();
        if let Some(file) = self.client_ca_file.as_deref() {
            pki::ClientVerifier::from_pem(&client_ca).with_context(|| format!("--client-ca-file {file}"))?;
        }
        Ok(Authentication {
            client_ca,
            request_header: self.request_header()?,
            static_tokens: self.static_tokens()?,
            bootstrap_tokens: self.enable_bootstrap_token_auth,
            anonymous: if self.anonymous_auth { Anonymous::Everywhere } else { Anonymous::Nowhere },
            service_accounts: self.service_accounts()?,
        })
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
    let duration: jiff::SignedDuration =
        text.parse().map_err(|_| "it is no duration such as 24h".to_owned())?;
    match u64::try_from(duration.as_secs()) {
        Ok(seconds) if (HOUR..=1 << 32).contains(&seconds) => Ok(seconds),
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
        ];
        for (arguments, expected) in cases {
            let outcome = outcome(arguments);
            assert!(outcome.contains(expected), "{arguments:?}: {outcome}");
        }
    }
}
