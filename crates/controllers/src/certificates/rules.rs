//! What a request must look like to be one for a signer. The texts of the complaints are upstream's.

use std::collections::BTreeSet;
use std::fmt;

use pki::SigningRequest;

/// The signers whose certificates the cluster issues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signer {
    /// Clients of the API server.
    Client,
    /// Kubelets as clients of the API server.
    KubeletClient,
    /// Kubelets' own listeners.
    KubeletServing,
    /// What was before signers had names; takes everything.
    LegacyUnknown,
}

/// Why a request is none for its signer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unfit {
    #[error("subject organization is not system:nodes")]
    Organization,
    #[error("subject common name does not begin with system:node:")]
    CommonName,
    #[error("DNS or IP subjectAltName is required")]
    NoAddress,
    #[error("{0} subjectAltNames are not allowed")]
    AltNames(&'static str),
    #[error("usages did not match {0}")]
    Usages(UsageList),
    #[error("invalid usage for client certificate: {0}")]
    InvalidUsage(String),
    #[error("missing required usage for client certificate: client auth")]
    NoClientAuth,
}

/// Usages as Go prints a list of strings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct UsageList([&'static str; 3]);

impl fmt::Display for UsageList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}]", self.0.join(" "))
    }
}

/// In alphabetical order.
const CLIENT_USAGES: [&str; 3] = ["client auth", "digital signature", KEY_ENCIPHERMENT];
const SERVING_USAGES: [&str; 3] = ["digital signature", KEY_ENCIPHERMENT, "server auth"];
/// Keys that cannot encipher do not ask for it.
const KEY_ENCIPHERMENT: &str = "key encipherment";

pub(super) const NODES: &str = "system:nodes";
pub(super) const NODE_PREFIX: &str = "system:node:";

impl Signer {
    pub fn of_name(name: &str) -> Option<Self> {
        Some(match name {
            "kubernetes.io/kube-apiserver-client" => Self::Client,
            "kubernetes.io/kube-apiserver-client-kubelet" => Self::KubeletClient,
            "kubernetes.io/kubelet-serving" => Self::KubeletServing,
            "kubernetes.io/legacy-unknown" => Self::LegacyUnknown,
            _ => return None,
        })
    }

    pub fn check(self, request: &SigningRequest, usages: &[String]) -> Result<(), Unfit> {
        match self {
            Self::Client => client(usages),
            Self::KubeletClient => kubelet_client(request, usages),
            Self::KubeletServing => kubelet_serving(request, usages),
            Self::LegacyUnknown => Ok(()),
        }
    }
}

fn client(usages: &[String]) -> Result<(), Unfit> {
    let mut client_auth = false;
    for usage in usages {
        match usage.as_str() {
            "client auth" => client_auth = true,
            "digital signature" | KEY_ENCIPHERMENT => {}
            other => return Err(Unfit::InvalidUsage(other.to_owned())),
        }
    }
    require(client_auth, Unfit::NoClientAuth)
}

fn kubelet_client(request: &SigningRequest, usages: &[String]) -> Result<(), Unfit> {
    require(request.groups == [NODES], Unfit::Organization)?;
    require(request.dns_names.is_empty(), Unfit::AltNames("DNS"))?;
    require(request.emails.is_empty(), Unfit::AltNames("Email"))?;
    require(request.ips.is_empty(), Unfit::AltNames("IP"))?;
    require(request.uris.is_empty(), Unfit::AltNames("URI"))?;
    require(request.user.starts_with(NODE_PREFIX), Unfit::CommonName)?;
    exactly(usages, CLIENT_USAGES)
}

fn kubelet_serving(request: &SigningRequest, usages: &[String]) -> Result<(), Unfit> {
    require(request.groups == [NODES], Unfit::Organization)?;
    require(!request.dns_names.is_empty() || !request.ips.is_empty(), Unfit::NoAddress)?;
    require(request.emails.is_empty(), Unfit::AltNames("Email"))?;
    require(request.uris.is_empty(), Unfit::AltNames("URI"))?;
    exactly(usages, SERVING_USAGES)?;
    require(request.user.starts_with(NODE_PREFIX), Unfit::CommonName)
}

/// All of `wanted` and nothing else, with or without the encipherment of keys.
fn exactly(usages: &[String], wanted: [&'static str; 3]) -> Result<(), Unfit> {
    let usages: BTreeSet<&str> = usages.iter().map(String::as_str).collect();
    let all: BTreeSet<&str> = wanted.into();
    let fewer: BTreeSet<&str> = wanted.into_iter().filter(|usage| *usage != KEY_ENCIPHERMENT).collect();
    require(usages == all || usages == fewer, Unfit::Usages(UsageList(wanted)))
}

fn require(holds: bool, otherwise: Unfit) -> Result<(), Unfit> {
    if holds { Ok(()) } else { Err(otherwise) }
}
