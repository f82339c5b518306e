//! From a server's address and a token to an authority that can be trusted, as kubeadm does it.
//!
//! The cluster says who it is in the ConfigMap `kube-public/cluster-info`, which anybody may read. It is believed if it
//! is signed with the token, and if its authority is the one that the hash is of. Then it is read again under that
//! authority.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use api::gvr::CONFIG_MAPS;
use apimachinery::{Status, Value};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use client::Api;
use node::agent::certificates::is_no_answer;
use remote::RemoteApi;
use webhook::{ClientConfig, Target};

use super::Token;
use super::invitation::{CLUSTER_INFO, CLUSTER_INFO_NAMESPACE, KUBECONFIG};

/// How soon a server that did not answer is asked again.
const RETRY: Duration = Duration::from_secs(1);

/// A token that was just made is not yet among the signatures, and a server that has just started may say something new
/// that is not signed yet. After this time it counts.
const SIGNATURE_PATIENCE: Duration = Duration::from_secs(5);

/// The hash of an authority's public key: `sha256:` and hex.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin(String);

impl FromStr for Pin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let lower = text.to_ascii_lowercase();
        let is_hash = |hex: &str| hex.len() == 64 && hex.bytes().all(|c| c.is_ascii_hexdigit());
        match lower.strip_prefix("sha256:") {
            Some(hex) if is_hash(hex) => Ok(Self(lower)),
            _ => Err("a hash has the form sha256:<64 hexadecimal digits>".to_owned()),
        }
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why the cluster is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Distrust {
    #[error(
        "the cluster does not know the token {id}.…: it is mistyped, has expired, or may not sign; `pintle token \
         create` makes another one"
    )]
    NotSigned { id: String },
    #[error(
        "what the server says is signed with another secret than that of the token {id}.…: the token is mistyped, or \
         somebody else answers in the cluster's place"
    )]
    WrongSignature { id: String },
    #[error(
        "the cluster's authority is {found}, not {pinned} as --discovery-token-ca-cert-hash says: it is another \
         cluster, or somebody else answers in its place"
    )]
    AnotherAuthority { found: String, pinned: String },
    #[error("{CLUSTER_INFO_NAMESPACE}/{CLUSTER_INFO} is malformed: {0}")]
    Malformed(String),
}

/// The authority of the cluster at `server`, in PEM.
///
/// # Errors
/// Where the server does not answer within `patience`, or is not the cluster that is meant.
pub async fn discover(
    server: &str,
    token: &Token,
    pins: &[Pin],
    patience: Duration,
) -> anyhow::Result<String> {
    let unverified = ClientConfig { insecure_skip_verify: true, ..config(server) };
    let api = RemoteApi::new(&unverified).with_context(|| format!("--server {server}"))?;
    let began = rt::instant();
    let mut answered = None;
    let ca_pem = loop {
        match read(&api).await {
            Ok(map) => {
                let since = *answered.get_or_insert_with(rt::instant);
                match trusted(&map, token, pins) {
                    Ok(ca_pem) => break ca_pem,
                    Err(Distrust::NotSigned { .. } | Distrust::WrongSignature { .. })
                        if since.elapsed() < SIGNATURE_PATIENCE => {}
                    Err(distrust) => return Err(distrust.into()),
                }
            }
            Err(status) if is_no_answer(&status) && began.elapsed() < patience => {
                tracing::warn!(error = %status, "The server does not answer; trying again");
            }
            Err(status) if is_no_answer(&status) => {
                bail!(
                    "--server {server}: {status}; it has to be the address at which this machine reaches the API"
                )
            }
            Err(status) => {
                return Err(anyhow!(status).context(format!(
                    "--server {server}: it does not say which cluster it is \
                     ({CLUSTER_INFO_NAMESPACE}/{CLUSTER_INFO})"
                )));
            }
        }
        rt::sleep(RETRY).await;
    };
    let verified = ClientConfig { ca_bundle: Some(ca_pem.clone().into_bytes()), ..config(server) };
    let again = read(&RemoteApi::new(&verified)?).await.with_context(|| {
        format!("--server {server}: its certificate is not one of the cluster for this address (--tls-san adds one)")
    })?;
    if trusted(&again, token, pins)? != ca_pem {
        bail!("--server {server}: it says different things under its own authority and without");
    }
    Ok(ca_pem)
}

fn config(server: &str) -> ClientConfig {
    ClientConfig {
        user_agent: super::member::USER_AGENT,
        ..ClientConfig::new(Target::Url(server.to_owned()))
    }
}

async fn read(api: &RemoteApi) -> Result<Value, Status> {
    Ok(api.get(&CONFIG_MAPS, CLUSTER_INFO_NAMESPACE, CLUSTER_INFO).await?.to_value())
}

/// The authority in what a cluster says of itself, if it is to be believed.
fn trusted(map: &Value, token: &Token, pins: &[Pin]) -> Result<String, Distrust> {
    let id = token.id.clone();
    let data = &map["data"];
    let kubeconfig = data.str_at(&[KUBECONFIG]);
    let signature = data.str_at(&[&format!("{}{id}", controllers::CLUSTER_INFO_SIGNATURE_PREFIX)]);
    if signature.is_empty() {
        return Err(Distrust::NotSigned { id });
    }
    if !controllers::is_cluster_info_signed(signature, kubeconfig, &id, &token.secret) {
        return Err(Distrust::WrongSignature { id });
    }
    let ca_pem = authority(kubeconfig).map_err(Distrust::Malformed)?;
    let hashes = pki::public_key_hashes(&ca_pem).map_err(|error| Distrust::Malformed(error.to_string()))?;
    // Every one of them is trusted from now on, so every one has to be meant.
    match stranger(&hashes, pins) {
        Some(found) => {
            let pinned: Vec<String> = pins.iter().map(Pin::to_string).collect();
            Err(Distrust::AnotherAuthority { found: found.clone(), pinned: pinned.join(" or ") })
        }
        None => Ok(ca_pem),
    }
}

/// One that is not meant; without pins all are.
fn stranger<'a>(hashes: &'a [String], pins: &[Pin]) -> Option<&'a String> {
    hashes.iter().find(|hash| !pins.is_empty() && !pins.iter().any(|pin| pin.0 == **hash))
}

/// Whether every authority in a bundle is meant; without pins all are.
pub(super) fn are_pinned(bundle_pem: &str, pins: &[Pin]) -> Result<bool, pki::Error> {
    Ok(stranger(&pki::public_key_hashes(bundle_pem)?, pins).is_none())
}

/// The authority in the kubeconfig of `cluster-info`, which has one cluster and nobody as its user.
fn authority(kubeconfig: &str) -> Result<String, String> {
    let tree = Value::parse_yaml(kubeconfig).map_err(|error| error.to_string())?;
    let clusters = tree.array_at(&["clusters"]);
    let [cluster] = clusters else { return Err(format!("it names {} clusters", clusters.len())) };
    let pem = STANDARD
        .decode(cluster["cluster"].str_at(&["certificate-authority-data"]))
        .map_err(|error| format!("certificate-authority-data: {error}"))?;
    String::from_utf8(pem).map_err(|_| "certificate-authority-data is no PEM".to_owned())
}

#[cfg(test)]
mod tests {
    use apimachinery::json;
    use camino::Utf8Path;

    use super::super::invitation;
    use super::*;

    struct World {
        ca_pem: String,
        token: Token,
        map: Value,
    }

    fn world() -> World {
        let folder = tempfile::tempdir().expect("a folder");
        let path = Utf8Path::from_path(folder.path()).expect("text");
        let authority = pki::Authority::load_or_create(path, rt::now().into()).expect("an authority");
        let token: Token = "abcdef.0123456789abcdef".parse().expect("a token");
        let kubeconfig = invitation::kubeconfig("https://192.0.2.1:6443", authority.ca_pem());
        let signature = controllers::cluster_info_signature(&kubeconfig, &token.id, &token.secret);
        let map = json!({"data": {"kubeconfig": kubeconfig, "jws-kubeconfig-abcdef": signature}});
        World { ca_pem: authority.ca_pem().to_owned(), token, map }
    }

    #[test]
    fn a_cluster_is_believed_by_its_signature_and_its_hash() {
        let own = world();
        let pin: Pin = pki::public_key_hashes(&own.ca_pem).expect("hashes")[0].parse().expect("a hash");
        let stranger: Pin = format!("sha256:{}", "0".repeat(64)).parse().expect("a hash");
        assert_eq!(trusted(&own.map, &own.token, std::slice::from_ref(&pin)).as_ref(), Ok(&own.ca_pem));
        assert_eq!(trusted(&own.map, &own.token, &[stranger.clone(), pin.clone()]).as_ref(), Ok(&own.ca_pem));
        assert_eq!(trusted(&own.map, &own.token, &[]).as_ref(), Ok(&own.ca_pem), "by the token alone");
        let refused = trusted(&own.map, &own.token, &[stranger]);
        assert!(matches!(refused, Err(Distrust::AnotherAuthority { .. })), "{refused:?}");

        let unknown: Token = "ghijkl.0123456789abcdef".parse().expect("a token");
        let refused = trusted(&own.map, &unknown, std::slice::from_ref(&pin));
        assert_eq!(refused, Err(Distrust::NotSigned { id: "ghijkl".into() }));
        let mistyped: Token = "abcdef.0123456789abcdee".parse().expect("a token");
        let refused = trusted(&own.map, &mistyped, std::slice::from_ref(&pin));
        assert_eq!(refused, Err(Distrust::WrongSignature { id: "abcdef".into() }));

        // Somebody puts their own authority in the place of the cluster's.
        let mut changed = own.map.clone();
        changed.set_at(
            &["data", "kubeconfig"],
            invitation::kubeconfig("https://192.0.2.1:6443", &world().ca_pem),
        );
        let refused = trusted(&changed, &own.token, &[]);
        assert_eq!(refused, Err(Distrust::WrongSignature { id: "abcdef".into() }));
    }

    #[test]
    fn a_hash_is_of_sha256() {
        let hex = "0123456789ABCDEF".repeat(4);
        assert_eq!(
            format!("sha256:{hex}").parse::<Pin>().map(|pin| pin.0),
            Ok(format!("sha256:{}", hex.to_lowercase()))
        );
        for wrong in ["", "sha256:", &hex, &format!("sha1:{hex}"), "sha256:xyz"] {
            assert!(wrong.parse::<Pin>().is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_named() {
        let token = world().token;
        let error =
            discover("https://127.0.0.1:1", &token, &[], Duration::ZERO).await.expect_err("nobody is there");
        assert!(format!("{error:#}").contains("--server https://127.0.0.1:1"), "{error:#}");
    }
}
