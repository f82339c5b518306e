//! Where metrics come from: `metrics.k8s.io`, `custom.metrics.k8s.io` and `external.metrics.k8s.io`.
//!
//! The last two are served by API servers behind this one, if anybody installed any, and have no objects: their
//! answers are read as documents. The words of errors are those of upstream's clients.

use std::sync::Arc;
use std::time::Duration;

use api::view::{CrossVersionObjectReference, LabelSelector};
use apimachinery::field::go_quote;
use apimachinery::selector::SelectorError;
use apimachinery::{GroupVersion, Quantity, Selector, Status, Str, Value, duration, time};
use client::{Api, Discovered};
use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::replicas::{PodMetric, PodMetrics};

const CUSTOM: &str = "custom.metrics.k8s.io";
/// Known versions; of those that are served the preferred one is taken, or else the first.
const CUSTOM_VERSIONS: [&str; 2] = ["v1beta2", "v1beta1"];
/// Over which a metric is taken to be measured whose server does not say.
const DEFAULT_WINDOW: Duration = Duration::from_secs(60);

/// Reads metrics, as the autoscaler.
pub(super) struct Metrics {
    pub(super) api: Arc<dyn Api>,
}

impl Metrics {
    /// What the pods, or one container of each, use of a resource. A pod that does not say is left out.
    pub(super) async fn of_resource(
        &self,
        namespace: &str,
        pods: &Selector,
        resource: &str,
        container: Option<&str>,
    ) -> Result<PodMetrics, String> {
        let query = query(&[("labelSelector", &pods.to_string())]);
        let path = format!("/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods{query}");
        let list = self.api.get_raw(&path).await.map_err(|status| {
            let status = about(status, "pods.metrics.k8s.io");
            format!("unable to fetch metrics from resource metrics API: {status}")
        })?;
        let items = list.array_at(&["items"]);
        if items.is_empty() {
            return Err("no metrics returned from resource metrics API".to_owned());
        }
        Ok(items.iter().filter_map(|item| pod_metric(item, resource, container)).collect())
    }

    /// A custom metric of each pod.
    pub(super) async fn of_pods(
        &self,
        namespace: &str,
        pods: &Selector,
        metric: &str,
        selector: &Selector,
    ) -> Result<PodMetrics, String> {
        let items = self.custom(namespace, "pods/*", metric, Some(pods), selector).await?;
        if items.is_empty() {
            return Err("no metrics returned from custom metrics API".to_owned());
        }
        let read = |item: &Value| {
            let window = item["windowSeconds"].as_i64().and_then(|seconds| u64::try_from(seconds).ok());
            let metric = PodMetric {
                at: timestamp(item),
                window: window.map_or(DEFAULT_WINDOW, Duration::from_secs),
                value: milli(&item["value"]),
            };
            (item.str_at(&["describedObject", "name"]).into(), metric)
        };
        Ok(items.iter().map(read).collect())
    }

    /// A custom metric of one object, in thousandths. The namespace itself is the only one that may be meant where
    /// a namespace is.
    pub(super) async fn of_object(
        &self,
        namespace: &str,
        object: &CrossVersionObjectReference,
        metric: &str,
        selector: &Selector,
    ) -> Result<i64, String> {
        let group = GroupVersion::parse(&object.api_version).map(|version| version.group).unwrap_or_default();
        let resource = if group.is_empty() && object.kind == "Namespace" {
            "metrics".to_owned()
        } else {
            format!("{}/{}", self.qualified_resource(&group, &object.kind).await?, escaped(&object.name))
        };
        match self.custom(namespace, &resource, metric, None, selector).await?.as_slice() {
            [only] => Ok(milli(&only["value"])),
            items => Err(format!(
                "unable to fetch metrics from custom metrics API: the custom metrics API server returned {} results \
                 when we asked for exactly one",
                items.len()
            )),
        }
    }

    /// Every value of an external metric, in thousandths.
    pub(super) async fn of_external(
        &self,
        namespace: &str,
        metric: &str,
        selector: &Selector,
    ) -> Result<Vec<i64>, String> {
        let query = query(&[("labelSelector", &selector.to_string())]);
        let path = format!(
            "/apis/external.metrics.k8s.io/v1beta1/namespaces/{namespace}/{}{query}",
            escaped(metric)
        );
        let list = self.api.get_raw(&path).await.map_err(|status| {
            let status = about(status, &format!("{metric}.external.metrics.k8s.io"));
            format!("unable to fetch metrics from external metrics API: {status}")
        })?;
        let items = list.array_at(&["items"]);
        if items.is_empty() {
            return Err("no metrics returned from external metrics API".to_owned());
        }
        Ok(items.iter().map(|item| milli(&item["value"])).collect())
    }

    /// The resources of a kind, in the version that is preferred.
    pub(super) async fn resources(&self, group: &str, kind: &str) -> Result<Vec<Discovered>, Status> {
        let mut served = self.api.discover().await?;
        served.retain(|own| own.gvr.group == group && own.kind == kind);
        Ok(served)
    }

    async fn custom(
        &self,
        namespace: &str,
        described: &str,
        metric: &str,
        objects: Option<&Selector>,
        selector: &Selector,
    ) -> Result<Vec<Value>, String> {
        let failed = |why: String| format!("unable to fetch metrics from custom metrics API: {why}");
        let version = self.custom_version().await.map_err(failed)?;
        let objects = objects.map(Selector::to_string).unwrap_or_default();
        let query = query(&[("labelSelector", &objects), ("metricLabelSelector", &selector.to_string())]);
        let metric = escaped(metric);
        let path = format!("/apis/{CUSTOM}/{version}/namespaces/{namespace}/{described}/{metric}{query}");
        let list = self.api.get_raw(&path).await.map_err(|status| {
            let (resource, name) = described.split_once('/').unwrap_or((described, &metric));
            failed(about(status, &format!("{resource}.{CUSTOM} {name}")).to_string())
        })?;
        Ok(list.array_at(&["items"]).to_vec())
    }

    async fn custom_version(&self) -> Result<&'static str, String> {
        let group = match self.api.get_raw(&format!("/apis/{CUSTOM}")).await {
            Ok(group) => group,
            Err(status) if status.is_not_found() => {
                return Err(format!("no custom metrics API ({CUSTOM}) registered"));
            }
            Err(status) => return Err(status.to_string()),
        };
        let known = |version: &Value| {
            let version = version.str_at(&["version"]);
            CUSTOM_VERSIONS.into_iter().find(|known| *known == version)
        };
        known(&group["preferredVersion"])
            .or_else(|| group.array_at(&["versions"]).iter().find_map(known))
            .ok_or_else(|| "no known available metric versions found".to_owned())
    }

    async fn qualified_resource(&self, group: &str, kind: &str) -> Result<String, String> {
        let failed = |why: String| {
            let kind = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
            format!(
                "unable to fetch metrics from custom metrics API: unable to map kind {kind} to resource: {why}"
            )
        };
        let found = self.resources(group, kind).await.map_err(|status| failed(status.to_string()))?;
        let found = found.first().ok_or_else(|| failed(no_matches(group, kind)))?;
        Ok(found.gvr.group_resource().to_string())
    }
}

/// A kind that is not served, in the words of upstream's mapper.
pub(super) fn no_matches(group: &str, kind: &str) -> String {
    format!("no matches for kind {} in group {}", go_quote(kind), go_quote(group))
}

/// What a metric's selector chooses; without one the server has the choice.
pub(super) fn metric_selector(selector: Option<&LabelSelector>) -> Result<Selector, SelectorError> {
    selector.map_or_else(|| Ok(Selector::nothing()), LabelSelector::selector)
}

/// A `LabelSelector` as it appears in upstream's messages.
pub(super) fn shown(selector: Option<&LabelSelector>) -> String {
    let Some(selector) = selector else { return "nil".to_owned() };
    let labels: String =
        selector.match_labels.iter().map(|(key, value)| format!("{key}: {value},")).collect();
    let requirement = |own: &api::view::LabelSelectorRequirement| {
        let values: Vec<&str> = own.values.iter().map(Str::as_str).collect();
        let (key, operator, values) = (&own.key, &own.operator, values.join(" "));
        format!("LabelSelectorRequirement{{Key:{key},Operator:{operator},Values:[{values}],}},")
    };
    let expressions: String = selector.match_expressions.iter().map(requirement).collect();
    format!(
        "&LabelSelector{{MatchLabels:map[string]string{{{labels}}},\
         MatchExpressions:[]LabelSelectorRequirement{{{expressions}}},}}"
    )
}

/// The status of a server that did not say what it is about, as upstream's clients complete it.
fn about(mut status: Status, what: &str) -> Status {
    let is_told = status.details.as_ref().is_some_and(|details| !details.kind.is_empty());
    if !is_told && status.message.starts_with("the server ") {
        status.message = format!("{} (get {what})", status.message);
    }
    status
}

/// One pod of a `PodMetricsList`: all its containers together, or the one that is asked for.
fn pod_metric(item: &Value, resource: &str, container: Option<&str>) -> Option<(Str, PodMetric)> {
    let containers = item.array_at(&["containers"]);
    let mut counted =
        containers.iter().filter(|own| container.is_none_or(|name| own.str_at(&["name"]) == name)).peekable();
    counted.peek()?;
    let value = counted.try_fold(0_i64, |sum, own| {
        let usage = own.at(&["usage", resource])?;
        Some(sum.saturating_add(milli(usage)))
    })?;
    let window = duration::parse(item.str_at(&["window"])).ok().and_then(|nanos| u64::try_from(nanos).ok());
    let metric =
        PodMetric { at: timestamp(item), window: Duration::from_nanos(window.unwrap_or_default()), value };
    Some((item.str_at(&["metadata", "name"]).into(), metric))
}

fn timestamp(item: &Value) -> Timestamp {
    time::parse(item.str_at(&["timestamp"])).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Thousandths of a quantity, which may be written as a number.
fn milli(value: &Value) -> i64 {
    let quantity = match value {
        Value::String(text) => Quantity::parse(text),
        number => Quantity::parse(&number.to_json_string()),
    };
    quantity.unwrap_or(Quantity::ZERO).milli_value()
}

fn escaped(segment: &str) -> String {
    /// All but what a segment of a path may hold as it is.
    const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    utf8_percent_encode(segment, SEGMENT).to_string()
}

/// A query without what is empty.
fn query(parameters: &[(&str, &str)]) -> String {
    let given = parameters.iter().filter(|(_, value)| !value.is_empty());
    let pairs: Vec<String> = given.map(|(name, value)| format!("{name}={}", escaped(value))).collect();
    if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) }
}
