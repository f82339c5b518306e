//! One metric of an autoscaler: what it asks for, and what is said about it in the status.

use api::view::{
    Amount, ExternalMetricSource, LabelSelector, MetricIdentifier, MetricSpec, MetricTarget,
    ObjectMetricSource, PodsMetricSource,
};
use apimachinery::field::go_quote;
use apimachinery::quantity::Format;
use apimachinery::value::to_value;
use apimachinery::{Quantity, Selector, Value, json};

use super::Settings;
use super::metrics::{Metrics, metric_selector, shown};
use super::replicas::{self, Goal, PodMetrics, Proposal, Tolerances};
use crate::pods::PodOf;

/// About what a metric is asked.
pub(super) struct Asked<'a> {
    pub(super) namespace: &'a str,
    pub(super) selector: &'a Selector,
    pub(super) pods: &'a [PodOf],
    /// That the target is told to have.
    pub(super) replicas: i32,
    /// That it says it has.
    pub(super) status_replicas: i32,
    pub(super) tolerances: Tolerances,
    pub(super) settings: &'a Settings,
}

/// What a metric asks for.
pub(super) struct Computed {
    pub(super) replicas: i32,
    /// As events and conditions name it.
    pub(super) name: String,
    /// Its `MetricStatus`.
    pub(super) status: Value,
}

/// Why a metric asks for nothing.
pub(super) struct Unable {
    pub(super) reason: &'static str,
    /// For the event and the condition.
    pub(super) why: String,
    /// The same, as the autoscaler's error names it.
    pub(super) error: String,
    pub(super) is_spec: bool,
}

impl Unable {
    fn new(reason: &'static str, why: impl Into<String>, error: impl FnOnce(&str) -> String) -> Self {
        let why = why.into();
        let error = error(&why);
        Self { reason, why, error, is_spec: false }
    }
}

impl Metrics {
    pub(super) async fn compute(&self, spec: &MetricSpec, asked: &Asked<'_>) -> Result<Computed, Unable> {
        match spec.type_.as_str() {
            "Object" => self.object(&spec.object, asked).await,
            "Pods" => self.pods(&spec.pods, asked).await,
            "Resource" => {
                let own = &spec.resource;
                let (replicas, name, current) =
                    self.resource(&own.name, None, &own.target, asked).await.map_err(|why| {
                        Unable::new("FailedGetResourceMetric", why, |why| {
                            format!("failed to get {} resource metric value: {why}", own.name)
                        })
                    })?;
                let status = json!({"name": own.name.as_str(), "current": current});
                Ok(Computed { replicas, name, status: json!({"type": "Resource", "resource": status}) })
            }
            "ContainerResource" => {
                let own = &spec.container_resource;
                let (replicas, name, current) = self
                    .resource(&own.name, Some(&own.container), &own.target, asked)
                    .await
                    .map_err(|why| {
                        Unable::new("FailedGetContainerResourceMetric", why, |why| {
                            format!("failed to get {} container metric value: {why}", own.container)
                        })
                    })?;
                let status = json!({"name": own.name.as_str(), "container": own.container.as_str(), "current": current});
                let status = json!({"type": "ContainerResource", "containerResource": status});
                Ok(Computed { replicas, name, status })
            }
            "External" => self.external(&spec.external, asked).await,
            other => {
                let why = format!("unknown metric source type {}", go_quote(other));
                let unable = Unable::new("InvalidMetricSourceType", why, str::to_owned);
                Err(Unable { is_spec: true, ..unable })
            }
        }
    }

    /// Replicas, the metric's name and its `MetricValueStatus`.
    async fn resource(
        &self,
        resource: &str,
        container: Option<&str>,
        target: &MetricTarget,
        asked: &Asked<'_>,
    ) -> Result<(i32, String, Value), String> {
        let (goal, what, name) = match (target.average_value, target.average_utilization) {
            (Some(Amount(value)), _) => {
                let goal = Goal::Average { milli: value.milli_value(), resource: Some(resource) };
                (goal, "usage", format!("{resource} resource"))
            }
            (None, Some(percent)) => {
                let of = if container.is_some() { "container resource" } else { "resource" };
                let name = format!("{resource} {of} utilization (percentage of request)");
                (Goal::Utilization { percent, resource, container }, "utilization", name)
            }
            (None, None) => {
                return Err(
                    "invalid resource metric source: neither an average utilization target nor an average \
                            value (usage) target was set"
                        .to_owned(),
                );
            }
        };
        let proposal = async {
            let metrics = self.of_resource(asked.namespace, asked.selector, resource, container).await;
            asked.propose(
                goal,
                metrics.map_err(|why| format!("unable to get metrics for resource {resource}: {why}"))?,
            )
        };
        let Proposal { replicas, usage } =
            proposal.await.map_err(|why| format!("failed to get {resource} {what}: {why}"))?;
        let mut current = json!({"averageValue": resource_amount(resource, usage.average)});
        if let Some(percent) = usage.utilization_percent {
            current.set_at(&["averageUtilization"], i64::from(percent));
        }
        Ok((replicas, name, current))
    }

    async fn pods(&self, own: &PodsMetricSource, asked: &Asked<'_>) -> Result<Computed, Unable> {
        let name = own.metric.name.as_str();
        let proposal = async {
            let selector =
                metric_selector(own.metric.selector.as_ref()).map_err(|error| error.to_string())?;
            let metrics = self.of_pods(asked.namespace, asked.selector, name, &selector).await;
            let metrics = metrics.map_err(|why| format!("unable to get metric {name}: {why}"))?;
            let milli = own.target.average_value.map_or(0, |value| value.0.milli_value());
            asked.propose(Goal::Average { milli, resource: None }, metrics)
        };
        let Proposal { replicas, usage } = proposal.await.map_err(|why| {
            Unable::new("FailedGetPodsMetric", why, |why| format!("failed to get pods metric value: {why}"))
        })?;
        let current = json!({"averageValue": amount(usage.average)});
        let status = json!({"type": "Pods", "pods": {"metric": identifier(&own.metric), "current": current}});
        Ok(Computed { replicas, name: format!("pods metric {name}"), status })
    }

    async fn object(&self, own: &ObjectMetricSource, asked: &Asked<'_>) -> Result<Computed, Unable> {
        const REASON: &str = "FailedGetObjectMetric";
        let failed = |why: &str| format!("failed to get object metric value: {why}");
        let (metric, described) = (own.metric.name.as_str(), &own.described_object);
        let selector = metric_selector(own.metric.selector.as_ref())
            .map_err(|error| Unable::new(REASON, error.to_string(), failed))?;
        let read = async {
            self.of_object(asked.namespace, described, metric, &selector).await.map_err(|why| {
                let (kind, namespace, name) = (&described.kind, asked.namespace, &described.name);
                format!("unable to get metric {metric}: {why} on {kind} {namespace}/{name}")
            })
        };
        let (replicas, current, name) = match (
            own.target.type_.as_str(),
            own.target.value,
            own.target.average_value,
        ) {
            ("Value", Some(Amount(value)), _) => {
                let proposal = async { asked.by_value(read.await?, value.milli_value()) };
                let (replicas, usage) = proposal.await.map_err(|why| Unable::new(REASON, why, failed))?;
                (replicas, json!({"value": amount(usage)}), format!("{} metric {metric}", described.kind))
            }
            ("AverageValue", _, Some(Amount(share))) => {
                let usage = read.await.map_err(|why| {
                    Unable::new(REASON, why, |why| {
                        failed(&format!("failed to get {metric} object metric: {why}"))
                    })
                })?;
                let (replicas, average) = asked.by_share(usage, share.milli_value());
                (replicas, json!({"averageValue": amount(average)}), external_name(&own.metric))
            }
            _ => {
                let why = "invalid object metric source: neither a value target nor an average value target was set";
                return Err(Unable::new(REASON, why, failed));
            }
        };
        let reference = json!({
            "apiVersion": described.api_version.as_str(), "kind": described.kind.as_str(),
            "name": described.name.as_str(),
        });
        let status =
            json!({"metric": identifier(&own.metric), "describedObject": reference, "current": current});
        Ok(Computed { replicas, name, status: json!({"type": "Object", "object": status}) })
    }

    async fn external(&self, own: &ExternalMetricSource, asked: &Asked<'_>) -> Result<Computed, Unable> {
        const REASON: &str = "FailedGetExternalMetric";
        let metric = own.metric.name.as_str();
        let failed = |why: &str| format!("failed to get {metric} external metric value: {why}");
        let read = async {
            let selector =
                metric_selector(own.metric.selector.as_ref()).map_err(|error| error.to_string())?;
            let values = self.of_external(asked.namespace, metric, &selector).await.map_err(|why| {
                let selector = shown(own.metric.selector.as_ref());
                format!("unable to get external metric {}/{metric}/{selector}: {why}", asked.namespace)
            })?;
            Ok::<_, String>(values.into_iter().fold(0_i64, i64::saturating_add))
        };
        let (replicas, current) = match (own.target.average_value, own.target.value) {
            (Some(Amount(share)), _) => {
                let usage = read.await.map_err(|why| {
                    Unable::new(REASON, why, |why| {
                        failed(&format!("failed to get {metric} external metric: {why}"))
                    })
                })?;
                let (replicas, average) = asked.by_share(usage, share.milli_value());
                (replicas, json!({"averageValue": amount(average)}))
            }
            (None, Some(Amount(value))) => {
                let proposal = async { asked.by_value(read.await?, value.milli_value()) };
                let (replicas, usage) = proposal.await.map_err(|why| {
                    Unable::new(REASON, why, |why| {
                        failed(&format!("failed to get external metric {metric}: {why}"))
                    })
                })?;
                (replicas, json!({"value": amount(usage)}))
            }
            (None, None) => {
                let why = "invalid external metric source: neither a value target nor an average value target was set";
                return Err(Unable::new(REASON, why, failed));
            }
        };
        let status = json!({"metric": identifier(&own.metric), "current": current});
        let status = json!({"type": "External", "external": status});
        Ok(Computed { replicas, name: external_name(&own.metric), status })
    }
}

impl Asked<'_> {
    fn propose(&self, goal: Goal<'_>, metrics: PodMetrics) -> Result<Proposal, String> {
        replicas::propose(goal, metrics, self.pods, self.replicas, self.tolerances, self.settings)
    }

    fn by_value(&self, usage: i64, target: i64) -> Result<(i32, i64), String> {
        let ratio = usage as f64 / target as f64;
        Ok((replicas::by_ratio(ratio, self.pods, self.replicas, self.tolerances)?, usage))
    }

    fn by_share(&self, usage: i64, share: i64) -> (i32, i64) {
        replicas::by_share(usage, share, self.status_replicas, self.tolerances)
    }
}

/// What upstream calls also an object's metric that is shared among the pods.
fn external_name(metric: &MetricIdentifier) -> String {
    format!("external metric {}({})", metric.name, shown(metric.selector.as_ref()))
}

fn identifier(metric: &MetricIdentifier) -> Value {
    let mut identifier = json!({"name": metric.name.as_str()});
    if let Some(selector) = &metric.selector {
        identifier.set_at(&["selector"], selector_tree(selector));
    }
    identifier
}

fn selector_tree(selector: &LabelSelector) -> Value {
    let mut tree = Value::object();
    for (key, value) in selector.match_labels.iter() {
        tree.set_at(&["matchLabels", key.as_str()], value.as_str());
    }
    if !selector.match_expressions.is_empty() {
        let expression = |own: &api::view::LabelSelectorRequirement| {
            let mut tree = json!({"key": own.key.as_str(), "operator": own.operator.as_str()});
            if !own.values.is_empty() {
                tree.set_at(&["values"], to_value(&own.values).unwrap_or_default());
            }
            tree
        };
        let all: Vec<Value> = selector.match_expressions.iter().map(expression).collect();
        tree.set_at(&["matchExpressions"], all);
    }
    tree
}

fn amount(milli: i64) -> String {
    Quantity::from_milli(milli).to_string()
}

/// Memory is told in powers of two where it is whole bytes, as metrics-server does.
fn resource_amount(resource: &str, milli: i64) -> String {
    if resource == "memory" && milli % 1000 == 0 {
        return Quantity::new(milli / 1000, Format::BinarySi).to_string();
    }
    amount(milli)
}
