//! [`Extender`]: one webhook, called with its verbs.

use std::sync::Arc;
use std::time::Duration;

use apimachinery::Value;
use apimachinery::field::{Error, Path};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{Method, StatusCode};
use serde::de::DeserializeOwned;
use webhook::{Call, Client, ClientCertificate, ClientConfig, NoServices, ServiceResolver, Target};

use crate::configuration::{self, TlsConfig};
use crate::pod::PodInfo;

/// For one call where the file says nothing; upstream's.
const TIMEOUT: Duration = Duration::from_secs(5);

/// An answer names every node at most, with all that is known of it: 64 MiB are 5000 nodes of 13 KB.
const ANSWER_BYTES_MAX: usize = 64 << 20;

pub struct Extender {
    client: Client,
    timeout: Duration,
    pub url: String,
    pub filter_verb: String,
    pub prioritize_verb: String,
    pub preempt_verb: String,
    pub bind_verb: String,
    pub weight: i64,
    pub node_cache_capable: bool,
    pub ignorable: bool,
    managed_resources: Vec<String>,
}

impl Extender {
    /// An error names the field.
    pub fn new(config: &configuration::Extender, path: &Path<'_>) -> Result<Self, Error> {
        let url = config.url_prefix.as_str();
        let invalid_url = |detail: String| Error::invalid(&path.child("urlPrefix"), url, detail);
        let resolver: Arc<dyn ServiceResolver> = Arc::new(NoServices);
        let client = Client::new(&client_config(config, path)?, &resolver)
            .map_err(|error| invalid_url(error.to_string()))?;
        Ok(Self {
            client,
            timeout: if config.http_timeout.is_zero() { TIMEOUT } else { config.http_timeout },
            url: url.to_owned(),
            filter_verb: config.filter_verb.clone(),
            prioritize_verb: config.prioritize_verb.clone(),
            preempt_verb: config.preempt_verb.clone(),
            bind_verb: config.bind_verb.clone(),
            weight: config.weight,
            node_cache_capable: config.node_cache_capable,
            ignorable: config.ignorable,
            managed_resources: config.managed_resources.iter().map(|own| own.name.clone()).collect(),
        })
    }

    /// Whether the pod wants something that the extender manages; without such, every pod does.
    pub fn is_interested(&self, pod: &PodInfo) -> bool {
        let spec = &pod.pod.spec;
        let mut wanted = spec.containers.iter().chain(&spec.init_containers).flat_map(|container| {
            container.resources.requests.iter().chain(container.resources.limits.iter()).map(|(name, _)| name)
        });
        self.managed_resources.is_empty()
            || wanted.any(|name| self.managed_resources.iter().any(|own| own == name.as_str()))
    }

    /// Posts to a verb and reads the answer.
    pub async fn send<T: DeserializeOwned>(&self, verb: &str, arguments: &Value) -> Result<T, String> {
        let path = format!("/{verb}");
        let call = Call {
            method: Method::POST,
            path: &path,
            query: "",
            body: arguments.to_json_string().into_bytes().into(),
            timeout: self.timeout,
            answer_bytes_max: ANSWER_BYTES_MAX,
        };
        let answer = self.client.call(call).await.map_err(|error| error.to_string())?;
        if answer.status != StatusCode::OK {
            let url = format!("{}{path}", self.url.trim_end_matches('/'));
            let code = answer.status.as_u16();
            return Err(format!("failed {verb} with extender at URL {url}, code {code}"));
        }
        serde_json::from_slice(&answer.body).map_err(|error| error.to_string())
    }
}

fn client_config(config: &configuration::Extender, path: &Path<'_>) -> Result<ClientConfig, Error> {
    let mut client = ClientConfig {
        user_agent: "kube-scheduler",
        ..ClientConfig::new(Target::Url(config.url_prefix.clone()))
    };
    let default = TlsConfig::default();
    let tls = config.tls_config.as_ref().unwrap_or(&default);
    let path = path.child("tlsConfig");
    client.ca_bundle = pem(&tls.ca_data, "caData", &tls.ca_file, "caFile", &path)?;
    let certificate = pem(&tls.cert_data, "certData", &tls.cert_file, "certFile", &path)?;
    let key = pem(&tls.key_data, "keyData", &tls.key_file, "keyFile", &path)?;
    client.client_certificate = match (certificate, key) {
        (Some(certificate_pem), Some(key_pem)) => Some(ClientCertificate { certificate_pem, key_pem }),
        (None, None) => None,
        _ => return Err(Error::required(&path, "a client certificate and its key come together")),
    };
    client.server_name = Some(tls.server_name.clone()).filter(|name| !name.is_empty());
    // Whom nobody vouches for is believed, as upstream.
    client.insecure_skip_verify = tls.insecure || (config.enable_https && client.ca_bundle.is_none());
    if tls.insecure && client.ca_bundle.is_some() {
        let detail = "specifying a root certificates file with the insecure flag is not allowed";
        return Err(Error::forbidden(&path.child("insecure"), detail));
    }
    Ok(client)
}

/// What the file holds, or the data in its place.
fn pem(
    data: &str,
    data_field: &str,
    file: &str,
    file_field: &str,
    path: &Path<'_>,
) -> Result<Option<Vec<u8>>, Error> {
    if !data.is_empty() {
        let decoded = STANDARD.decode(data.trim());
        return decoded.map(Some).map_err(|error| Error {
            shown: None,
            ..Error::invalid(&path.child(data_field), "", format!("not base64: {error}"))
        });
    }
    if file.is_empty() {
        return Ok(None);
    }
    let read = std::fs::read(file);
    read.map(Some).map_err(|error| Error::invalid(&path.child(file_field), file, error.to_string()))
}
