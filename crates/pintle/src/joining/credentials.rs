//! What a machine keeps of its membership: where the cluster is, what its authority is, and who the machine is there.
//!
//! In the node's folder: `kubeconfig`, which names the files beside it; `pki/ca.crt`; `pki/client.pem` and
//! `pki/serving.pem`, each a certificate with its key; `settings.json`, what the cluster says to its nodes. All of them
//! are the owner's alone.

use std::time::SystemTime;

use anyhow::{Context, anyhow, bail};
use api::gvr::NODES;
use api::view::Node;
use apimachinery::Value;
use camino::{Utf8Path, Utf8PathBuf};
use client::Api;
use node::agent::certificates::{self, Wanted};
use pki::KeyedCertificate;
use remote::RemoteApi;
use webhook::{ClientConfig, Credential, Target};

use super::discovery::{self, Pin};
use super::invitation::Settings;
use super::{Token, member};
use crate::cli::JoinArguments;

const KUBECONFIG: &str = "kubeconfig";
const AUTHORITY: &str = "pki/ca.crt";
const CLIENT: &str = "pki/client.pem";
const SERVING: &str = "pki/serving.pem";
const SETTINGS: &str = "settings.json";

/// How a machine comes into a cluster that it is no member of.
struct Invited<'a> {
    server: &'a str,
    token: &'a Token,
    pins: &'a [Pin],
}

/// A machine's membership of a cluster.
#[derive(Debug)]
pub struct Credentials {
    folder: Utf8PathBuf,
    pub server: String,
    pub authority_pem: String,
    pub client: KeyedCertificate,
}

impl Credentials {
    /// Those that are kept below `folder`, or new ones by the token in `arguments`.
    ///
    /// # Errors
    /// Where there are none and none can be had; the text says what to do.
    pub async fn keep_or_join(
        folder: &Utf8Path,
        node_name: &str,
        arguments: &JoinArguments,
    ) -> anyhow::Result<Self> {
        let kept = Self::load(folder)?;
        let problem = match kept {
            Some(kept) => match kept.problem(node_name, arguments)? {
                None => return Ok(kept),
                Some(problem) => problem,
            },
            None => "this machine is in no cluster yet".to_owned(),
        };
        let invited = invited(arguments).map_err(|missing| anyhow!("{problem}: {missing}"))?;
        Self::join(folder, node_name, &invited, arguments.discovery_timeout).await
    }

    fn load(folder: &Utf8Path) -> anyhow::Result<Option<Self>> {
        let kubeconfig = folder.join(KUBECONFIG);
        if !kubeconfig.exists() {
            return Ok(None);
        }
        let Some(client) = KeyedCertificate::load(&folder.join(CLIENT))? else { return Ok(None) };
        let config = ClientConfig::from_kubeconfig(&kubeconfig)?;
        let Target::Url(server) = config.target else { bail!("{kubeconfig}: it names no server") };
        let authority = String::from_utf8(config.ca_bundle.unwrap_or_default())
            .with_context(|| format!("{kubeconfig}: its authority is no PEM"))?;
        Ok(Some(Self { folder: folder.to_owned(), server, authority_pem: authority, client }))
    }

    /// Why these will not do.
    fn problem(&self, node_name: &str, arguments: &JoinArguments) -> anyhow::Result<Option<String>> {
        let now = SystemTime::from(rt::now());
        if let Some(other) = arguments.server.as_ref().filter(|other| **other != self.server) {
            return Ok(Some(format!("this machine is a node of {}, not of {other}", self.server)));
        }
        if !discovery::are_pinned(&self.authority_pem, &arguments.discovery_token_ca_cert_hash)? {
            return Ok(Some("this machine is a node of a cluster with another authority".to_owned()));
        }
        if self.client.user != format!("system:node:{node_name}") {
            return Ok(Some(format!("this machine is {} there, not the node {node_name}", self.client.user)));
        }
        let is_good = Wanted::client(node_name).is_met_by(&self.client, now);
        Ok((!is_good).then(|| "this machine's certificate has ended".to_owned()))
    }

    async fn join(
        folder: &Utf8Path,
        node_name: &str,
        invited: &Invited<'_>,
        patience: std::time::Duration,
    ) -> anyhow::Result<Self> {
        let server = invited.server;
        let authority_pem = discovery::discover(server, invited.token, invited.pins, patience).await?;
        let api = RemoteApi::new(&ClientConfig {
            ca_bundle: Some(authority_pem.clone().into_bytes()),
            credential: Some(Credential::Bearer(invited.token.to_string())),
            user_agent: member::USER_AGENT,
            ..ClientConfig::new(Target::Url(server.to_owned()))
        })?;
        check_name(&api, node_name).await?;
        let client = certificates::obtain(&api, &Wanted::client(node_name))
            .await
            .with_context(|| format!("asking for the certificate of the node {node_name}"))?;
        let own = Self { folder: folder.to_owned(), server: server.to_owned(), authority_pem, client };
        own.save().context("keeping this node's credentials")?;
        Ok(own)
    }

    fn save(&self) -> anyhow::Result<()> {
        // What is of another cluster, or another name, does not stand beside what is new.
        for file in [KUBECONFIG, SETTINGS, SERVING] {
            let path = self.folder.join(file);
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("removing {path}"));
                }
                _ => {}
            }
        }
        self.client.save(&self.client_path())?;
        let authority = self.folder.join(AUTHORITY);
        pki::write_private(&authority, self.authority_pem.as_bytes())?;
        let kubeconfig = pki::Kubeconfig {
            server: &self.server,
            ca_pem: &self.authority_pem,
            user: &self.client.user,
            credential: pki::Credential::File(CLIENT),
        };
        // Last: where it is, the rest is, too.
        Ok(kubeconfig.write(&self.folder.join(KUBECONFIG))?)
    }

    /// What the cluster said to its nodes when it could last be asked.
    pub fn kept_settings(&self) -> anyhow::Result<Option<Settings>> {
        let path = self.folder.join(SETTINGS);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("reading {path}")),
        };
        let value = Value::parse(&text).map_err(|error| error.to_string());
        let settings = value.and_then(|value| Settings::from_value(&value));
        settings.map(Some).map_err(|problem| anyhow!("{path} is damaged: {problem}; delete it"))
    }

    pub fn keep_settings(&self, settings: &Settings) -> anyhow::Result<()> {
        Ok(pki::write_private(&self.folder.join(SETTINGS), &settings.to_value().to_json())?)
    }

    pub fn client_path(&self) -> Utf8PathBuf {
        self.folder.join(CLIENT)
    }

    pub fn serving_path(&self) -> Utf8PathBuf {
        self.folder.join(SERVING)
    }

    /// How the cluster is called under the certificate that is kept now.
    ///
    /// # Errors
    /// Where a file cannot be read.
    pub fn client_config(folder: &Utf8Path) -> anyhow::Result<ClientConfig> {
        let config = ClientConfig::from_kubeconfig(&folder.join(KUBECONFIG))?;
        Ok(ClientConfig { user_agent: member::USER_AGENT, ..config })
    }
}

fn invited(arguments: &JoinArguments) -> Result<Invited<'_>, &'static str> {
    let missing = "give --server and --token, as `pintle token create` prints them where the cluster runs";
    let (Some(server), Some(token)) = (&arguments.server, &arguments.token) else { return Err(missing) };
    let pins = &arguments.discovery_token_ca_cert_hash;
    if pins.is_empty() && !arguments.discovery_token_unsafe_skip_ca_verification {
        return Err("give --discovery-token-ca-cert-hash, as `pintle token create` prints it, or \
                    --discovery-token-unsafe-skip-ca-verification to believe whoever has the token");
    }
    Ok(Invited { server, token, pins })
}

/// Two machines of one name would fight for one Node object.
async fn check_name(api: &RemoteApi, node_name: &str) -> anyhow::Result<()> {
    match api.get(&NODES, "", node_name).await {
        Ok(object) if object.view::<Node>().is_ok_and(|node| node.is_ready()) => bail!(
            "a node {node_name} is in the cluster already, and ready: choose another name with --node-name, or \
             `kubectl delete node {node_name}` if it is gone"
        ),
        Ok(_) => Ok(()),
        Err(status) if status.is_not_found() => Ok(()),
        Err(status) if status.code == 401 => bail!(
            "--token: the cluster does not take it; it may have expired, or not be for authentication: `pintle token \
             create` makes another one"
        ),
        Err(status) if status.code == 403 => {
            Err(anyhow!(status).context("--token: its bearer may not join; is it of another group?"))
        }
        Err(status) => Err(anyhow!(status).context(format!("looking for a node {node_name}"))),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use pki::{Authority, CertificateRequest, ServerNames, SigningRequest, Usages};

    use super::*;
    use crate::cli::{Cli, Command};

    fn arguments(text: &str) -> JoinArguments {
        let all = ["pintle", "node"].into_iter().chain(text.split_whitespace());
        match Cli::try_parse_from(all).map(|cli| cli.command) {
            Ok(Command::Node(arguments)) => *arguments,
            Ok(_) => panic!("another command"),
            Err(error) => panic!("{error}"),
        }
    }

    fn kept(folder: &Utf8Path, life: std::time::Duration) -> Credentials {
        let now = SystemTime::from(rt::now());
        let authority = Authority::load_or_create(&folder.join("ca"), now).expect("an authority");
        let request = CertificateRequest::new("system:node:n", &["system:nodes"], &ServerNames::default())
            .expect("a request");
        let read = SigningRequest::from_pem(request.request_pem.as_bytes()).expect("it can be read");
        let usages = Usages::from_names(["client auth"]).expect("usages");
        let pem = authority.sign_request(&read, &usages, life, now).expect("a certificate");
        Credentials {
            folder: folder.to_owned(),
            server: "https://192.0.2.1:6443".into(),
            authority_pem: authority.ca_pem().into(),
            client: KeyedCertificate::new(pem, request.key_pem).expect("a pair"),
        }
    }

    #[tokio::test]
    async fn a_member_stays_one_without_a_token() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = Utf8Path::from_path(folder.path()).expect("text");
        kept(folder, std::time::Duration::from_secs(3600)).save().expect("saved");
        let again = Credentials::keep_or_join(folder, "n", &arguments("")).await.expect("it is a member");
        assert_eq!(again.server, "https://192.0.2.1:6443");
        assert_eq!(again.kept_settings().expect("nothing is damaged"), None);
        let settings = Settings { cluster_domain: "cluster.local".into(), ..Settings::default() };
        again.keep_settings(&settings).expect("kept");
        assert_eq!(again.kept_settings().expect("nothing is damaged"), Some(settings));
        let config = Credentials::client_config(folder).expect("a configuration");
        assert!(config.client_certificate.is_some() && config.ca_bundle.is_some());
        for (text, name, expected) in [
            ("--server https://192.0.2.9:6443", "n", "is a node of https://192.0.2.1:6443, not of"),
            ("", "m", "this machine is system:node:n there, not the node m"),
            (
                &format!("--discovery-token-ca-cert-hash sha256:{}", "0".repeat(64)),
                "n",
                "with another authority",
            ),
        ] {
            let error =
                Credentials::keep_or_join(folder, name, &arguments(text)).await.expect_err(text).to_string();
            assert!(error.contains(expected) && error.contains("--token"), "{error}");
        }
    }

    #[tokio::test]
    async fn who_is_no_member_is_told_what_to_do() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = Utf8Path::from_path(folder.path()).expect("text");
        let join = |text: &'static str| async move {
            Credentials::keep_or_join(folder, "n", &arguments(text)).await.expect_err("no member").to_string()
        };
        let error = join("").await;
        assert!(error.contains("in no cluster yet") && error.contains("pintle token create"), "{error}");
        let error = join("--server https://127.0.0.1:1 --token abcdef.0123456789abcdef").await;
        assert!(error.contains("--discovery-token-ca-cert-hash"), "{error}");
        let ended = kept(folder, std::time::Duration::from_secs(1));
        let mut ended = ended;
        ended.client.not_after = SystemTime::UNIX_EPOCH;
        let problem = ended.problem("n", &arguments("")).expect("hashes").expect("it has ended");
        assert!(problem.contains("has ended"), "{problem}");
    }
}
