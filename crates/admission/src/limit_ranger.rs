//! `LimitRanger`: a namespace's LimitRanges give containers their defaults and bound what pods and claims ask for.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::amounts::Amounts;
use api::gvr;
use api::pod_resources::{self, Counted};
use api::view::ResourceList;
use apimachinery::{Quantity, Status, Str, Value};
use registry::Endpoint;
use registry::admission::{Attributes, Operation};
use serde::Deserialize;

use crate::plugins::{BuildError, Environment};
use crate::{Plugin, aggregate, forbidden};

const ANNOTATION: &str = "kubernetes.io/limit-ranger";

pub struct LimitRanger {
    ranges: Endpoint,
}

/// What this plugin reads of a LimitRange; decoded once per stored state.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct LimitRange {
    spec: Spec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Spec {
    limits: Vec<Limit>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Limit {
    /// `Container`, `Pod` or `PersistentVolumeClaim`.
    #[serde(rename = "type")]
    kind: Str,
    min: ResourceList,
    max: ResourceList,
    default: ResourceList,
    default_request: ResourceList,
    max_limit_request_ratio: ResourceList,
}

impl LimitRanger {
    pub fn new(environment: &Environment<'_>) -> Result<Self, BuildError> {
        Ok(Self { ranges: environment.endpoint(&gvr::LIMIT_RANGES)? })
    }

    /// The ranges that apply; none where the plugin has no business.
    fn ranges(&self, attributes: &Attributes<'_>) -> Vec<Arc<LimitRange>> {
        let is_resize = attributes.operation == Operation::Update && attributes.is_sub("", "pods", "resize");
        let is_pod = attributes.operation == Operation::Create && attributes.is("", "pods");
        let is_claim = matches!(attributes.operation, Operation::Create | Operation::Update)
            && attributes.is("", "persistentvolumeclaims");
        let leaving = attributes.old.is_some_and(apimachinery::Object::is_deleting);
        if !(is_resize || is_pod || is_claim) || leaving || self.ranges.cache.is_empty() {
            return Vec::new();
        }
        let snapshot = self.ranges.cache.snapshot();
        let prefix = self.ranges.resource.key_prefix(attributes.namespace);
        snapshot.range(&prefix, None).filter_map(|(_, range)| range.view::<LimitRange>().ok()).collect()
    }
}

impl Plugin for LimitRanger {
    fn mutate(&self, attributes: &Attributes<'_>, object: &mut Value) -> Result<(), Status> {
        if attributes.resource.plural == "pods" {
            for range in self.ranges(attributes) {
                fill_defaults(&range.spec.limits, object);
            }
        }
        Ok(())
    }

    fn validate(&self, attributes: &Attributes<'_>, object: Option<&Value>) -> Result<(), Status> {
        let Some(object) = object else { return Ok(()) };
        let check = if attributes.resource.plural == "pods" { check_pod } else { check_claim };
        for range in self.ranges(attributes) {
            if let Some(complaint) = aggregate(check(&range.spec.limits, object)) {
                return Err(forbidden(attributes, complaint));
            }
        }
        Ok(())
    }
}

/// Gives containers the requests and limits that they leave open, and notes on the pod which these were.
fn fill_defaults(limits: &[Limit], pod: &mut Value) {
    let (mut requests, mut caps) = (BTreeMap::<&Str, &Str>::new(), BTreeMap::<&Str, &Str>::new());
    for limit in limits.iter().filter(|limit| limit.kind == "Container") {
        requests.extend(&limit.default_request.0);
        caps.extend(&limit.default.0);
    }
    let mut notes = Vec::new();
    for (list, word) in [("containers", "container"), ("initContainers", "init container")] {
        let containers = pod.at_mut(&["spec", list]).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            for (which, of, defaults) in [("request", "requests", &requests), ("limit", "limits", &caps)] {
                let filled = fill(container, of, defaults);
                if !filled.is_empty() {
                    let name = container.str_at(&["name"]);
                    notes.push(format!("{} {which} for {word} {name}", filled.join(", ")));
                }
            }
        }
    }
    if !notes.is_empty() {
        let note = format!("LimitRanger plugin set: {}", notes.join("; "));
        pod.set_at(&["metadata", "annotations", ANNOTATION], note);
    }
}

/// The names of what was filled in, sorted.
fn fill(container: &mut Value, of: &str, defaults: &BTreeMap<&Str, &Str>) -> Vec<String> {
    let mut filled = Vec::new();
    for (name, amount) in defaults {
        let own = container.at(&["resources", of]).and_then(|list| list.get(name));
        if own.is_none_or(Value::is_null) {
            container.set_at(&["resources", of, name.as_str()], amount.as_str());
            filled.push(name.to_string());
        }
    }
    filled
}

fn check_pod(limits: &[Limit], pod: &Value) -> Vec<String> {
    let mut complaints = Vec::new();
    for limit in limits {
        match limit.kind.as_str() {
            "Container" => {
                for container in ["containers", "initContainers"]
                    .into_iter()
                    .flat_map(|list| pod.array_at(&["spec", list]))
                {
                    let of = |which: &str| Amounts::of(container.at(&["resources", which]));
                    limit.check(&of("requests"), &of("limits"), &mut complaints);
                }
            }
            "Pod" => {
                let counted = Counted::default();
                let (requests, caps) =
                    (pod_resources::requests(pod, counted), pod_resources::limits(pod, counted));
                limit.check(&requests, &caps, &mut complaints);
            }
            _ => {}
        }
    }
    complaints
}

/// Claims have requests only.
fn check_claim(limits: &[Limit], claim: &Value) -> Vec<String> {
    let requests = Amounts::of(claim.at(&["spec", "resources", "requests"]));
    let mut complaints = Vec::new();
    for limit in limits.iter().filter(|limit| limit.kind == "PersistentVolumeClaim") {
        for (name, least) in bounds(&limit.min) {
            complaints.extend(limit.below(name, least, requests.get(name), None));
        }
        for (name, most) in bounds(&limit.max) {
            complaints.extend(match requests.get(name) {
                None => Some(limit.refusal("maximum", name, most, ".  No request is specified")),
                Some(asked) if asked > most => {
                    Some(limit.refusal("maximum", name, most, &format!(", but request is {asked}")))
                }
                Some(_) => None,
            });
        }
    }
    complaints
}

fn bounds(list: &ResourceList) -> impl Iterator<Item = (&str, Quantity)> {
    list.0.iter().filter_map(|(name, text)| Some((name.as_str(), Quantity::parse(text).ok()?)))
}

impl Limit {
    fn check(&self, requests: &Amounts, limits: &Amounts, complaints: &mut Vec<String>) {
        for (name, least) in bounds(&self.min) {
            complaints.extend(self.below(name, least, requests.get(name), limits.get(name)));
        }
        for (name, most) in bounds(&self.max) {
            complaints.extend(self.above(name, most, requests.get(name), limits.get(name)));
        }
        for (name, ratio) in bounds(&self.max_limit_request_ratio) {
            complaints.extend(self.out_of_ratio(name, ratio, requests.get(name), limits.get(name)));
        }
    }

    fn below(
        &self,
        name: &str,
        least: Quantity,
        request: Option<Quantity>,
        limit: Option<Quantity>,
    ) -> Option<String> {
        let Some(request) = request else {
            return Some(self.refusal("minimum", name, least, ".  No request is specified"));
        };
        if request < least {
            return Some(self.refusal("minimum", name, least, &format!(", but request is {request}")));
        }
        let limit = limit.filter(|limit| *limit < least)?;
        Some(self.refusal("minimum", name, least, &format!(", but limit is {limit}")))
    }

    fn above(
        &self,
        name: &str,
        most: Quantity,
        request: Option<Quantity>,
        limit: Option<Quantity>,
    ) -> Option<String> {
        let Some(limit) = limit else {
            return Some(self.refusal("maximum", name, most, ".  No limit is specified"));
        };
        if limit > most {
            return Some(self.refusal("maximum", name, most, &format!(", but limit is {limit}")));
        }
        let request = request.filter(|request| *request > most)?;
        Some(self.refusal("maximum", name, most, &format!(", but request is {request}")))
    }

    fn out_of_ratio(
        &self,
        name: &str,
        ratio: Quantity,
        request: Option<Quantity>,
        limit: Option<Quantity>,
    ) -> Option<String> {
        let most = format!("{name} max limit to request ratio per {} is {ratio}, but ", self.kind);
        let Some(request) = request.filter(|request| !request.is_zero()) else {
            return Some(most + "no request is specified or request is 0");
        };
        let Some(limit) = limit.filter(|limit| !limit.is_zero()) else {
            return Some(most + "no limit is specified or limit is 0");
        };
        let own = precise(limit, request);
        (own > precise(ratio, Quantity::new(1, ratio.format)))
            .then(|| format!("{most}provided ratio is {own:.6}"))
    }

    fn refusal(&self, which: &str, name: &str, bound: Quantity, why: &str) -> String {
        format!("{which} {name} usage per {} is {bound}{why}", self.kind)
    }
}

/// `a / b`, in thousandths as long as these fit, as upstream calculates.
fn precise(a: Quantity, b: Quantity) -> f64 {
    /// Values beyond this would overflow when counted in thousandths.
    const WHOLE_MAX: i64 = i64::MAX / 1000;
    if a.value() <= WHOLE_MAX && b.value() <= WHOLE_MAX {
        a.milli_value() as f64 / b.milli_value() as f64
    } else {
        a.value() as f64 / b.value() as f64
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    fn limits(limits: Value) -> Vec<Limit> {
        let range = json!({"spec": {"limits": limits}}).to_json_string();
        serde_json::from_str::<LimitRange>(&range).expect("a LimitRange").spec.limits
    }

    fn pod(requests: Value, limits: Value) -> Value {
        json!({"metadata": {}, "spec": {"containers": [
            {"name": "c", "resources": {"requests": requests, "limits": limits}}
        ]}})
    }

    #[test]
    fn bounds_are_told_in_upstreams_words() {
        let bounds = limits(json!([{
            "type": "Container", "min": {"cpu": "50m"}, "max": {"cpu": "1"}, "maxLimitRequestRatio": {"cpu": "5"}
        }]));
        for (requests, caps, complaints) in [
            (json!({"cpu": "100m"}), json!({"cpu": "500m"}), vec![]),
            (json!({"cpu": "50m"}), json!({"cpu": "250m"}), vec![]),
            (
                json!({"cpu": "500m"}),
                json!({"cpu": "2"}),
                vec!["maximum cpu usage per Container is 1, but limit is 2"],
            ),
            (
                json!({"cpu": "10m"}),
                json!({"cpu": "40m"}),
                vec!["minimum cpu usage per Container is 50m, but request is 10m"],
            ),
            (
                json!({"cpu": "100m"}),
                json!({"cpu": "700m"}),
                vec!["cpu max limit to request ratio per Container is 5, but provided ratio is 7.000000"],
            ),
            (
                json!({}),
                json!({}),
                vec![
                    "minimum cpu usage per Container is 50m.  No request is specified",
                    "maximum cpu usage per Container is 1.  No limit is specified",
                    "cpu max limit to request ratio per Container is 5, but no request is specified or request \
                     is 0",
                ],
            ),
        ] {
            assert_eq!(check_pod(&bounds, &pod(requests, caps)), complaints);
        }
    }

    #[test]
    fn pods_are_bound_as_a_whole() {
        let bounds = limits(json!([{"type": "Pod", "max": {"cpu": "1"}}]));
        let two = json!({"name": "c", "resources": {"limits": {"cpu": "600m"}}});
        let pod = json!({"spec": {"containers": [two, two]}});
        assert_eq!(check_pod(&bounds, &pod), ["maximum cpu usage per Pod is 1, but limit is 1200m"]);
    }

    #[test]
    fn claims_are_bound_by_what_they_request() {
        let bounds = limits(json!([{
            "type": "PersistentVolumeClaim", "min": {"storage": "1Gi"}, "max": {"storage": "5Gi"}
        }]));
        let claim = |size: &str| json!({"spec": {"resources": {"requests": {"storage": size}}}});
        assert_eq!(check_claim(&bounds, &claim("5Gi")), Vec::<String>::new());
        assert_eq!(
            check_claim(&bounds, &claim("6Gi")),
            ["maximum storage usage per PersistentVolumeClaim is 5Gi, but request is 6Gi"]
        );
        assert_eq!(
            check_claim(&bounds, &claim("1Mi")),
            ["minimum storage usage per PersistentVolumeClaim is 1Gi, but request is 1Mi"]
        );
    }

    #[test]
    fn defaults_fill_what_is_open_and_are_noted() {
        let defaults = limits(json!([{
            "type": "Container", "default": {"cpu": "500m", "memory": "1Gi"}, "defaultRequest": {"cpu": "100m"}
        }]));
        let mut filled = pod(json!({}), json!({"memory": "2Gi"}));
        fill_defaults(&defaults, &mut filled);
        assert_eq!(
            filled["spec"]["containers"][0]["resources"],
            json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "500m", "memory": "2Gi"}})
        );
        let note = filled["metadata"]["annotations"].str_at(&[ANNOTATION]);
        assert_eq!(note, "LimitRanger plugin set: cpu request for container c; cpu limit for container c");
        let before = filled.clone();
        fill_defaults(&defaults, &mut filled);
        assert_eq!(filled, before, "nothing is open any more");
    }
}
