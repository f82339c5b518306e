//! Whom to call, and how to prove who calls.

use std::net::IpAddr;

use apimachinery::Value;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use camino::Utf8PathBuf;
use http::Uri;

/// The port of a Service or URL that names none.
const HTTPS_PORT: u16 = 443;

/// A peer and the terms on which it is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientConfig {
    pub target: Target,
    /// PEM; the machine's own roots are used where there is none.
    pub ca_bundle: Option<Vec<u8>>,
    pub client_certificate: Option<ClientCertificate>,
    pub credential: Option<Credential>,
    /// The name that the peer's certificate must carry, if it is not the one in the address.
    pub server_name: Option<String>,
    pub insecure_skip_verify: bool,
    /// Offer HTTP/2. Upstream does not to webhooks, since one connection ends at one of many endpoints.
    pub http2: bool,
    pub user_agent: &'static str,
}

/// Where the peer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Scheme, host, port and path.
    Url(String),
    Service(ServiceReference),
}

/// A port of a Service of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceReference {
    pub namespace: String,
    pub name: String,
    pub port: u16,
    /// With its leading slash, or empty.
    pub path: String,
}

/// A client certificate with its key, both PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    pub certificate_pem: Vec<u8>,
    pub key_pem: Vec<u8>,
}

/// What goes into `Authorization`.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    Bearer(String),
    /// Read again from time to time, as tokens in files are replaced.
    BearerFile(Utf8PathBuf),
    Basic {
        username: String,
        password: String,
    },
}

/// Why nothing can be called with a configuration. The words are those of upstream.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("webhook configuration must have either service or URL")]
    NoTarget,
    #[error("Unparsable URL: {0}")]
    Url(String),
    #[error("unable to load root certificates: {0}")]
    Roots(String),
    #[error("specifying a root certificates file with the insecure flag is not allowed")]
    InsecureRoots,
    #[error("{0}")]
    ClientCertificate(String),
    #[error("{0:?} is no name that a certificate can carry")]
    ServerName(String),
}

impl ClientConfig {
    pub fn new(target: Target) -> Self {
        Self {
            target,
            ca_bundle: None,
            client_certificate: None,
            credential: None,
            server_name: None,
            insecure_skip_verify: false,
            http2: true,
            user_agent: "kube-apiserver",
        }
    }

    /// Reads the `clientConfig` of a webhook's configuration, as it is stored.
    pub fn of_hook(config: &Value) -> Result<Self, String> {
        let bundle =
            STANDARD.decode(config.str_at(&["caBundle"])).map_err(|error| format!("caBundle: {error}"))?;
        let target = match config.get("service").filter(|service| service.is_object()) {
            None => Target::Url(config.str_at(&["url"]).to_owned()),
            Some(service) => Target::Service(ServiceReference::of(service)),
        };
        // A bundle of white space is none.
        Ok(Self::hook(target, bundle.trim_ascii()))
    }

    /// A webhook at a Service or a URL, and the authority to trust.
    pub fn hook(target: Target, ca_bundle: &[u8]) -> Self {
        let http2 = matches!(&target, Target::Url(url) if is_local(url));
        let ca_bundle = (!ca_bundle.is_empty()).then(|| ca_bundle.to_vec());
        Self { ca_bundle, http2, user_agent: "kube-apiserver-admission", ..Self::new(target) }
    }
}

impl ServiceReference {
    /// From an object with `namespace`, `name` and, maybe, `port` and `path`.
    fn of(service: &Value) -> Self {
        let port = service["port"].as_i64().and_then(|port| u16::try_from(port).ok());
        Self {
            namespace: service.str_at(&["namespace"]).to_owned(),
            name: service.str_at(&["name"]).to_owned(),
            port: port.unwrap_or(Self::DEFAULT_PORT),
            path: service.str_at(&["path"]).to_owned(),
        }
    }

    /// The name that the Service's certificate must carry.
    pub fn server_name(&self) -> String {
        format!("{}.{}.svc", self.name, self.namespace)
    }

    /// The port that stands for a missing one.
    pub const DEFAULT_PORT: u16 = HTTPS_PORT;
}

/// Whether a URL names this machine by its loopback.
fn is_local(url: &str) -> bool {
    let Ok(uri) = url.parse::<Uri>() else { return false };
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

// Secrets stay out of logs.
impl std::fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientCertificate").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Bearer(_) => "Bearer(…)",
            Self::BearerFile(_) => "BearerFile(…)",
            Self::Basic { .. } => "Basic(…)",
        })
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    #[test]
    fn only_loopback_is_offered_http2_as_a_webhook() {
        let offered = |url: &str| ClientConfig::hook(Target::Url(url.into()), b"").http2;
        for local in
            ["https://localhost:8443/x", "https://LOCALHOST/", "https://127.1.2.3:1", "https://[::1]:9/a"]
        {
            assert!(offered(local), "{local}");
        }
        for remote in ["https://example.com/localhost", "https://10.0.0.1", "not a url", ""] {
            assert!(!offered(remote), "{remote}");
        }
    }

    #[test]
    fn a_client_config_names_a_service_or_a_url() {
        let service =
            |port: Value| json!({"service": {"namespace": "n", "name": "s", "path": "/p", "port": port}});
        let target = |config: &Value| ClientConfig::of_hook(config).map(|config| config.target);
        let reference = |port| {
            Target::Service(ServiceReference {
                namespace: "n".into(),
                name: "s".into(),
                port,
                path: "/p".into(),
            })
        };
        assert_eq!(target(&service(Value::Null)), Ok(reference(443)));
        assert_eq!(target(&service(8443.into())), Ok(reference(8443)));
        assert_eq!(target(&json!({"url": "https://a/b"})), Ok(Target::Url("https://a/b".into())));
        assert!(target(&json!({"url": "https://a", "caBundle": "!"})).is_err());
        let bundle = |text: &str| {
            ClientConfig::of_hook(&json!({"url": "https://a", "caBundle": text})).unwrap().ca_bundle
        };
        assert_eq!((bundle("Cgo="), bundle("eA==")), (None, Some(b"x".to_vec())));
    }

    #[test]
    fn a_secret_is_not_printed() {
        let mut config = ClientConfig::new(Target::Url("https://a".into()));
        config.credential = Some(Credential::Basic { username: "u".into(), password: "hunter2".into() });
        config.client_certificate =
            Some(ClientCertificate { certificate_pem: b"c".to_vec(), key_pem: b"hunter2".to_vec() });
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
