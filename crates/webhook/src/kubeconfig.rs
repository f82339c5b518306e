//! Kubeconfig files: one that says whom to call, the form of `--authentication-token-webhook-config-file` and its like;
//! and one that says who calls, the `kubeConfigFile` of admission webhooks.

use std::collections::BTreeMap;

use apimachinery::Value;
use apimachinery::value::from_value;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use camino::{Utf8Path, Utf8PathBuf};
use http::Uri;
use serde::Deserialize;

use crate::{ClientCertificate, ClientConfig, Credential, ServiceReference, Target};

/// Why a file names nobody to call.
#[derive(Debug, thiserror::Error)]
pub enum KubeconfigError {
    #[error("reading {path}")]
    Read {
        path: Utf8PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{path} is not a kubeconfig: {problem}")]
    Malformed { path: Utf8PathBuf, problem: String },
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Kubeconfig {
    #[serde(default)]
    clusters: Vec<NamedCluster>,
    #[serde(default)]
    users: Vec<NamedUser>,
    #[serde(default)]
    contexts: Vec<NamedContext>,
    #[serde(default)]
    current_context: String,
}

#[derive(Deserialize)]
struct NamedCluster {
    name: String,
    cluster: Cluster,
}

#[derive(Deserialize)]
struct NamedUser {
    name: String,
    #[serde(default)]
    user: User,
}

#[derive(Deserialize)]
struct NamedContext {
    name: String,
    context: Context,
}

#[derive(Deserialize)]
struct Context {
    #[serde(default)]
    cluster: String,
    #[serde(default)]
    user: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    #[serde(default)]
    server: String,
    tls_server_name: Option<String>,
    #[serde(default)]
    insecure_skip_tls_verify: bool,
    certificate_authority: Option<String>,
    certificate_authority_data: Option<String>,
    proxy_url: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct User {
    client_certificate: Option<String>,
    client_certificate_data: Option<String>,
    client_key: Option<String>,
    client_key_data: Option<String>,
    token: Option<String>,
    #[serde(rename = "tokenFile")]
    token_file: Option<String>,
    username: Option<String>,
    password: Option<String>,
    exec: Option<Value>,
    auth_provider: Option<Value>,
    #[serde(rename = "as")]
    impersonate: Option<String>,
}

/// Who this server is towards those that it calls: the users of a kubeconfig, each named for the host and port that it
/// is for, or with `*.` for those below a domain, or `*` for all others.
#[derive(Default)]
pub struct Users {
    folder: Utf8PathBuf,
    users: BTreeMap<String, User>,
    /// That of the current context, for hosts that no name is for.
    other: Option<String>,
}

impl ClientConfig {
    /// Reads the peer of the current context. Files that it names are relative to its own folder.
    pub fn from_kubeconfig(path: &Utf8Path) -> Result<Self, KubeconfigError> {
        let config = Kubeconfig::read(path)?;
        config.into_client_config(folder(path)).map_err(|problem| match problem {
            Problem::Text(problem) => KubeconfigError::Malformed { path: path.to_owned(), problem },
            Problem::Read(path, source) => KubeconfigError::Read { path, source },
        })
    }
}

impl Users {
    /// Files that a kubeconfig names are relative to its own folder; they are read when they are needed.
    pub fn from_kubeconfig(path: &Utf8Path) -> Result<Self, KubeconfigError> {
        let config = Kubeconfig::read(path)?;
        let current = config.contexts.into_iter().find(|own| own.name == config.current_context);
        Ok(Self {
            folder: folder(path).to_owned(),
            users: config.users.into_iter().map(|own| (own.name, own.user)).collect(),
            other: current.map(|own| own.context.user),
        })
    }

    /// The configuration with what proves to its target who calls; as it is, if nobody here is for that target.
    pub fn identify(&self, config: ClientConfig) -> Result<ClientConfig, String> {
        let host_and_port = match &config.target {
            Target::Service(service) => Some((service.server_name(), service.port)),
            Target::Url(url) => url.parse::<Uri>().ok().and_then(|uri| {
                let port = uri.port_u16().unwrap_or(ServiceReference::DEFAULT_PORT);
                Some((uri.host()?.to_owned(), port))
            }),
        };
        let Some(user) = host_and_port.and_then(|(host, port)| self.find(&host, port)) else {
            return Ok(config);
        };
        let proof = || {
            let client_certificate = user.client_certificate(&self.folder)?;
            Ok((client_certificate, user.credential(&self.folder)?))
        };
        let (client_certificate, credential) = proof().map_err(|problem| match problem {
            Problem::Text(problem) => problem,
            Problem::Read(path, source) => format!("open {path}: {source}"),
        })?;
        Ok(ClientConfig { client_certificate, credential, ..config })
    }

    /// The closest name counts, and one with the port before all without; the port of HTTPS need not be named.
    fn find(&self, host: &str, port: u16) -> Option<&User> {
        let with_port = format!("{host}:{port}");
        let without = (port == ServiceReference::DEFAULT_PORT).then_some(host);
        let named = [Some(with_port.as_str()), without].into_iter().flatten().find_map(|name| {
            self.users.get(name).or_else(|| {
                let domains = name.match_indices('.').map(|(dot, _)| format!("*{}", &name[dot..]));
                domains.into_iter().find_map(|domain| self.users.get(&domain))
            })
        });
        named.or_else(|| self.users.get("*")).or_else(|| self.users.get(self.other.as_ref()?))
    }
}

fn folder(path: &Utf8Path) -> &Utf8Path {
    path.parent().unwrap_or(Utf8Path::new("."))
}

enum Problem {
    Text(String),
    Read(Utf8PathBuf, std::io::Error),
}

impl Kubeconfig {
    fn read(path: &Utf8Path) -> Result<Self, KubeconfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| KubeconfigError::Read { path: path.to_owned(), source })?;
        let malformed = |problem: String| KubeconfigError::Malformed { path: path.to_owned(), problem };
        let tree = Value::parse_yaml(&text).map_err(|error| malformed(error.to_string()))?;
        from_value(&tree).map_err(|error| malformed(error.to_string()))
    }

    fn into_client_config(self, folder: &Utf8Path) -> Result<ClientConfig, Problem> {
        let named = |what: &str, name: &str| Problem::Text(format!("there is no {what} called {name:?}"));
        if self.current_context.is_empty() {
            return Err(Problem::Text("current-context is missing".to_owned()));
        }
        let context = self
            .contexts
            .into_iter()
            .find(|own| own.name == self.current_context)
            .ok_or_else(|| named("context", &self.current_context))?
            .context;
        let cluster = self
            .clusters
            .into_iter()
            .find(|own| own.name == context.cluster)
            .ok_or_else(|| named("cluster", &context.cluster))?
            .cluster;
        let user = match context.user.as_str() {
            "" => User::default(),
            name => {
                self.users.into_iter().find(|own| own.name == name).ok_or_else(|| named("user", name))?.user
            }
        };
        if cluster.server.is_empty() {
            return Err(Problem::Text(format!("clusters[{}].cluster.server is missing", context.cluster)));
        }
        if cluster.proxy_url.is_some_and(|url| !url.is_empty()) {
            return Err(Problem::Text(
                "cluster.proxy-url is not supported: the peer is called directly".to_owned(),
            ));
        }
        let data = |what, inline: &Option<String>, file: &Option<String>| content(folder, what, inline, file);
        let ca_bundle = data(
            "cluster.certificate-authority-data",
            &cluster.certificate_authority_data,
            &cluster.certificate_authority,
        )?;
        Ok(ClientConfig {
            ca_bundle,
            client_certificate: user.client_certificate(folder)?,
            credential: user.credential(folder)?,
            server_name: cluster.tls_server_name.filter(|name| !name.is_empty()),
            insecure_skip_verify: cluster.insecure_skip_tls_verify,
            ..ClientConfig::new(Target::Url(cluster.server))
        })
    }
}

impl User {
    fn client_certificate(&self, folder: &Utf8Path) -> Result<Option<ClientCertificate>, Problem> {
        let certificate = content(
            folder,
            "user.client-certificate-data",
            &self.client_certificate_data,
            &self.client_certificate,
        )?;
        let key = content(folder, "user.client-key-data", &self.client_key_data, &self.client_key)?;
        match (certificate, key) {
            (None, None) => Ok(None),
            (Some(certificate_pem), Some(key_pem)) => {
                Ok(Some(ClientCertificate { certificate_pem, key_pem }))
            }
            (Some(_), None) => {
                Err(Problem::Text("user.client-key is missing beside client-certificate".to_owned()))
            }
            (None, Some(_)) => {
                Err(Problem::Text("user.client-certificate is missing beside client-key".to_owned()))
            }
        }
    }

    fn credential(&self, folder: &Utf8Path) -> Result<Option<Credential>, Problem> {
        if self.exec.is_some() || self.auth_provider.is_some() || self.impersonate.is_some() {
            let text = "user.exec, user.auth-provider and user.as are not supported; use token, tokenFile, a client \
                        certificate or username and password";
            return Err(Problem::Text(text.to_owned()));
        }
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        // As client-go has it: a file is fresher than what stands beside it.
        if let Some(file) = given(&self.token_file) {
            return Ok(Some(Credential::BearerFile(folder.join(file))));
        }
        let basic = || {
            let password = self.password.clone().unwrap_or_default();
            given(&self.username).map(|username| Credential::Basic { username, password })
        };
        Ok(given(&self.token).map(Credential::Bearer).or_else(basic))
    }
}

/// A field in base64, or else the file beside it.
fn content(
    folder: &Utf8Path,
    what: &str,
    inline: &Option<String>,
    file: &Option<String>,
) -> Result<Option<Vec<u8>>, Problem> {
    if let Some(text) = inline.as_deref().filter(|text| !text.is_empty()) {
        return match STANDARD.decode(text) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) => Err(Problem::Text(format!("{what}: {error}"))),
        };
    }
    let Some(file) = file.as_deref().filter(|file| !file.is_empty()) else { return Ok(None) };
    let path = folder.join(file);
    std::fs::read(&path).map(Some).map_err(|source| Problem::Read(path, source))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<ClientConfig, String> {
        let folder = tempfile::tempdir().unwrap();
        let folder = Utf8Path::from_path(folder.path()).unwrap();
        std::fs::write(folder.join("ca.pem"), "CA").unwrap();
        std::fs::write(folder.join("config"), text).unwrap();
        ClientConfig::from_kubeconfig(&folder.join("config"))
            .map_err(|error| error.to_string().replace(folder.as_str(), "…"))
    }

    const CONTEXT: &str = "contexts: [{name: c, context: {cluster: k, user: u}}]\ncurrent-context: c\n";

    #[test]
    fn the_current_context_names_the_peer() {
        let text = format!(
            "{CONTEXT}clusters: [{{name: k, cluster: {{server: 'https://a:1/x', certificate-authority: ca.pem, \
             tls-server-name: b}}}}]\nusers: [{{name: u, user: {{token: t}}}}]\n"
        );
        let config = load(&text).unwrap();
        assert_eq!(config.target, Target::Url("https://a:1/x".into()));
        assert_eq!(config.ca_bundle.as_deref(), Some(&b"CA"[..]));
        assert_eq!(config.server_name.as_deref(), Some("b"));
        assert_eq!(config.credential, Some(Credential::Bearer("t".into())));
        assert!(!config.insecure_skip_verify && config.client_certificate.is_none());
    }

    #[test]
    fn the_closest_name_says_who_calls() {
        let user = |name: &str| format!("- {{name: '{name}', user: {{token: '{name}'}}}}\n");
        let names = ["a.example:8443", "*.example:8443", "b.example", "*.b.example", "h.ns.svc", "*.svc"];
        let load = |names: &[&str], rest: &str| {
            let folder = tempfile::tempdir().unwrap();
            let path = Utf8Path::from_path(folder.path()).unwrap().join("config");
            let users: String = names.iter().map(|name| user(name)).collect();
            std::fs::write(&path, format!("users:\n{users}{rest}")).unwrap();
            Users::from_kubeconfig(&path).unwrap()
        };
        let caller = |users: &Users, target: Target| match users
            .identify(ClientConfig::new(target))
            .unwrap()
            .credential
        {
            Some(Credential::Bearer(name)) => name,
            None => "nobody".to_owned(),
            other => panic!("{other:?}"),
        };
        let url = |url: &str| Target::Url(url.to_owned());
        let service = |name: &str, port| {
            let (namespace, name, path) = ("ns".to_owned(), name.to_owned(), String::new());
            Target::Service(ServiceReference { namespace, name, port, path })
        };
        let users = load(&names, "");
        for (target, name) in [
            (url("https://a.example:8443/x"), "a.example:8443"),
            (url("https://c.example:8443"), "*.example:8443"),
            (url("https://b.example"), "b.example"),
            (url("https://x.y.b.example:443"), "*.b.example"),
            (url("https://b.example:444"), "nobody"),
            (service("h", 443), "h.ns.svc"),
            (service("i", 443), "*.svc"),
            (service("h", 444), "nobody"),
        ] {
            assert_eq!(caller(&users, target.clone()), name, "{target:?}");
        }
        let current = "current-context: c\ncontexts: [{name: c, context: {user: me}}]";
        assert_eq!(caller(&load(&["me"], current), url("https://a")), "me");
        assert_eq!(caller(&load(&["me", "*"], current), url("https://a")), "*");
        assert_eq!(caller(&Users::default(), url("https://a")), "nobody");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let cluster = "clusters: [{name: k, cluster: {server: 'https://a'}}]\n";
        let with_user = |user: &str| format!("{CONTEXT}{cluster}users: [{{name: u, user: {user}}}]\n");
        for (text, problem) in [
            ("clusters: []".to_owned(), "current-context is missing"),
            ("current-context: x".to_owned(), "there is no context called \"x\""),
            (CONTEXT.to_owned(), "there is no cluster called \"k\""),
            (format!("{CONTEXT}{cluster}"), "there is no user called \"u\""),
            (
                with_user("{exec: {command: a}}"),
                "user.exec, user.auth-provider and user.as are not supported",
            ),
            (with_user("{client-key-data: YQ==}"), "user.client-certificate is missing beside client-key"),
            (with_user("{client-key-data: '?'}"), "user.client-key-data: Invalid symbol"),
            (with_user("{client-key: nowhere}"), "reading …/nowhere"),
        ] {
            let error = load(&text).expect_err(problem);
            assert!(error.contains(problem), "{error}");
        }
    }
}
