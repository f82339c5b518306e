//! Who decides. Flags have upstream's names.

use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use apiserver::authorization::Authorization;
use auth::authorization::{AUTHORIZED_TTL, Link, UNAUTHORIZED_TTL, of_mode, parse, webhook};
use auth::remote::access::AccessWebhookOptions;
use camino::Utf8PathBuf;
use clap::Args;

const TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Args)]
#[command(next_help_heading = "Authorization")]
pub struct AuthorizationArguments {
    /// Authorizers in the order in which they are asked [default: Node,RBAC]
    #[arg(long, value_name = "MODE,…", value_delimiter = ',', conflicts_with = "authorization_config",
          value_parser = ["AlwaysAllow", "AlwaysDeny", "Node", "RBAC", "Webhook"])]
    pub authorization_mode: Vec<String>,

    /// Authorizers and how they are asked: an AuthorizationConfiguration (apiserver.config.k8s.io/v1)
    #[arg(long, value_name = "FILE")]
    pub authorization_config: Option<Utf8PathBuf>,

    /// A kubeconfig that names the webhook of the mode Webhook
    #[arg(long, value_name = "FILE")]
    pub authorization_webhook_config_file: Option<Utf8PathBuf>,

    /// The version of the SubjectAccessReviews that the webhook is sent
    #[arg(long, value_name = "VERSION", default_value = "v1beta1", value_parser = ["v1", "v1beta1"])]
    pub authorization_webhook_version: String,

    /// For how long what the webhook allows holds [default: 5m]
    #[arg(long, value_name = "DURATION", value_parser = super::parse_duration)]
    pub authorization_webhook_cache_authorized_ttl: Option<Duration>,

    /// For how long what it does not allow holds [default: 30s]
    #[arg(long, value_name = "DURATION", value_parser = super::parse_duration)]
    pub authorization_webhook_cache_unauthorized_ttl: Option<Duration>,
}

impl AuthorizationArguments {
    /// Reads the files that are named.
    pub fn options(&self) -> anyhow::Result<Authorization> {
        if let Some(file) = &self.authorization_config {
            let flag = || format!("--authorization-config {file}");
            let text = std::fs::read_to_string(file).with_context(flag)?;
            let chain = parse(&text).map_err(|errors| {
                let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
                anyhow!("{}: {}", flag(), errors.join("; "))
            })?;
            return Ok(Authorization { chain });
        }
        let asks_webhook = self.authorization_mode.iter().any(|mode| mode == "Webhook");
        if !asks_webhook && self.authorization_webhook_config_file.is_some() {
            bail!("--authorization-webhook-config-file needs Webhook in --authorization-mode");
        }
        if self.authorization_mode.is_empty() {
            return Ok(Authorization::default());
        }
        let links =
            self.authorization_mode.iter().map(|mode| of_mode(mode).map_or_else(|| self.webhook(), Ok));
        Ok(Authorization { chain: links.collect::<Result<_, _>>()? })
    }

    fn webhook(&self) -> anyhow::Result<Link> {
        let Some(file) = &self.authorization_webhook_config_file else {
            bail!("--authorization-mode Webhook needs --authorization-webhook-config-file");
        };
        let options = AccessWebhookOptions {
            version: self.authorization_webhook_version.clone(),
            authorized_ttl: self.authorization_webhook_cache_authorized_ttl.unwrap_or(AUTHORIZED_TTL),
            unauthorized_ttl: self.authorization_webhook_cache_unauthorized_ttl.unwrap_or(UNAUTHORIZED_TTL),
            timeout: TIMEOUT,
            deny_on_error: false,
        };
        webhook("default", file, options, Vec::new())
            .map_err(|problem| anyhow!("--authorization-webhook-config-file {file}: {problem}"))
    }
}
