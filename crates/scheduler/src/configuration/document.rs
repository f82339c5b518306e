//! The file as it is written: `KubeSchedulerConfiguration` of `kubescheduler.config.k8s.io/v1`. What is absent has
//! upstream's default; what is not known is refused.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Document {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    pub parallelism: Option<i32>,
    pub leader_election: LeaderElection,
    #[serde(rename = "clientConnection")]
    _client_connection: ClientConnection,
    #[serde(rename = "enableProfiling")]
    _enable_profiling: Option<bool>,
    #[serde(rename = "enableContentionProfiling")]
    _enable_contention_profiling: Option<bool>,
    pub percentage_of_nodes_to_score: Option<i32>,
    pub pod_initial_backoff_seconds: Option<i64>,
    pub pod_max_backoff_seconds: Option<i64>,
    pub profiles: Vec<Profile>,
    pub extenders: Vec<Extender>,
    #[serde(rename = "delayCacheUntilActive")]
    _delay_cache_until_active: bool,
}

/// There is one scheduler; it need not be elected.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct LeaderElection {
    pub leader_elect: Option<bool>,
    pub resource_lock: String,
    #[serde(rename = "leaseDuration", with = "go_duration")]
    _lease_duration: Duration,
    #[serde(rename = "renewDeadline", with = "go_duration")]
    _renew_deadline: Duration,
    #[serde(rename = "retryPeriod", with = "go_duration")]
    _retry_period: Duration,
    #[serde(rename = "resourceName")]
    _resource_name: String,
    #[serde(rename = "resourceNamespace")]
    _resource_namespace: String,
}

/// The scheduler is in one process with the API server and needs no connection.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct ClientConnection {
    #[serde(rename = "kubeconfig")]
    _kubeconfig: String,
    #[serde(rename = "acceptContentTypes")]
    _accept_content_types: String,
    #[serde(rename = "contentType")]
    _content_type: String,
    #[serde(rename = "qps")]
    _qps: f32,
    #[serde(rename = "burst")]
    _burst: i32,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Profile {
    pub scheduler_name: Option<String>,
    pub percentage_of_nodes_to_score: Option<i32>,
    pub plugins: Plugins,
    pub plugin_config: Vec<PluginConfig>,
}

/// Which plugins run where, beside and in place of the default ones.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Plugins {
    pub pre_enqueue: PluginSet,
    pub queue_sort: PluginSet,
    pub pre_filter: PluginSet,
    pub filter: PluginSet,
    pub post_filter: PluginSet,
    pub pre_score: PluginSet,
    pub score: PluginSet,
    pub reserve: PluginSet,
    pub permit: PluginSet,
    pub pre_bind: PluginSet,
    pub bind: PluginSet,
    pub post_bind: PluginSet,
    pub multi_point: PluginSet,
    pub placement_generate: PluginSet,
    pub placement_score: PluginSet,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PluginSet {
    pub enabled: Vec<Plugin>,
    pub disabled: Vec<Plugin>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Plugin {
    pub name: String,
    pub weight: i32,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PluginConfig {
    pub name: String,
    pub args: Map<String, Value>,
}

/// A webhook that takes part in scheduling.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Extender {
    pub url_prefix: String,
    pub filter_verb: String,
    pub preempt_verb: String,
    pub prioritize_verb: String,
    pub weight: i64,
    pub bind_verb: String,
    #[serde(rename = "enableHTTPS")]
    pub enable_https: bool,
    pub tls_config: Option<TlsConfig>,
    /// For one call; zero stands for the default.
    #[serde(with = "go_duration")]
    pub http_timeout: Duration,
    pub node_cache_capable: bool,
    pub managed_resources: Vec<ManagedResource>,
    pub ignorable: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct ManagedResource {
    pub name: String,
    pub ignored_by_scheduler: bool,
}

/// Data wins over files; it is in base64.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct TlsConfig {
    pub insecure: bool,
    pub server_name: String,
    pub cert_file: String,
    pub key_file: String,
    pub ca_file: String,
    pub cert_data: String,
    pub key_data: String,
    pub ca_data: String,
}

/// Removes nulls, which stand for absence.
pub fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(kept.map(|(key, value)| (key, without_nulls(value))).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(without_nulls).collect()),
        plain => plain,
    }
}

/// Go's form of a duration, `1m30s`.
mod go_duration {
    use std::time::Duration;

    use serde::de::Error;
    use serde::{Deserialize, Deserializer};

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        let nanoseconds = apimachinery::duration::parse(&text).map_err(D::Error::custom)?;
        let nanoseconds = u64::try_from(nanoseconds)
            .map_err(|_| D::Error::custom(format!("{text:?}: must be zero or more, such as 5s or 1m30s")))?;
        Ok(Duration::from_nanos(nanoseconds))
    }
}
