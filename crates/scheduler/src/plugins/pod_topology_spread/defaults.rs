//! The constraints of pods that have none of their own, and which pods those count.

use api::gvr::{REPLICA_SETS, REPLICATION_CONTROLLERS, SERVICES, STATEFUL_SETS};
use api::view::{Service, TopologySpreadConstraint};
use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::selector::Selector;
use apimachinery::{GroupVersionResource, Object, Str, Value};
use serde::Deserialize;

use crate::framework::{ArgumentError, Arguments, Handle};
use crate::pod::PodInfo;

const DEFAULTING_TYPES: [&str; 2] = ["System", "List"];
const ACTIONS: [&str; 2] = ["DoNotSchedule", "ScheduleAnyway"];

/// What pods belong to.
static OWNERS: [GroupVersionResource; 4] = [SERVICES, REPLICATION_CONTROLLERS, REPLICA_SETS, STATEFUL_SETS];

/// `PodTopologySpreadArgs`, with where the owners of pods are read.
pub struct Defaults {
    handle: Handle,
    constraints: Vec<TopologySpreadConstraint>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct PodTopologySpreadArguments {
    default_constraints: Vec<TopologySpreadConstraint>,
    defaulting_type: String,
}

impl Default for PodTopologySpreadArguments {
    fn default() -> Self {
        Self { default_constraints: Vec::new(), defaulting_type: DEFAULTING_TYPES[0].to_owned() }
    }
}

impl PodTopologySpreadArguments {
    fn check(&self, errors: &mut ErrorList) {
        let (path, kind) = (Path::root("defaultingType"), self.defaulting_type.as_str());
        if !DEFAULTING_TYPES.contains(&kind) {
            errors.push(Error::not_supported(&path, kind, &DEFAULTING_TYPES));
        } else if kind == "System" && !self.default_constraints.is_empty() {
            errors.push(Error::invalid(&path, kind, "when .defaultConstraints are not empty"));
        }
        let all = Path::root("defaultConstraints");
        for (index, constraint) in self.default_constraints.iter().enumerate() {
            let path = all.index(index);
            check_constraint(errors, constraint, &path);
            let (key, action) = (&constraint.topology_key, &constraint.when_unsatisfiable);
            let same = |other: &TopologySpreadConstraint| {
                other.topology_key == *key && other.when_unsatisfiable == *action
            };
            if self.default_constraints[..index].iter().any(same) {
                errors.push(Error::duplicate(&path, format!("{{{key}, {action}}}")));
            }
        }
    }
}

fn check_constraint(errors: &mut ErrorList, constraint: &TopologySpreadConstraint, path: &Path<'_>) {
    if constraint.max_skew <= 0 {
        errors.push(Error::invalid(
            &path.child("maxSkew"),
            constraint.max_skew,
            "not in valid range (0, inf)",
        ));
    }
    let key = path.child("topologyKey");
    match constraint.topology_key.is_empty() {
        true => errors.push(Error::required(&key, "can not be empty")),
        false => api::validation::selector::label_name(errors, &constraint.topology_key, &key),
    }
    let (action, path_of_action) = (constraint.when_unsatisfiable.as_str(), path.child("whenUnsatisfiable"));
    if action.is_empty() {
        errors.push(Error::required(&path_of_action, "can not be empty"));
    } else if !ACTIONS.contains(&action) {
        errors.push(Error::not_supported(&path_of_action, action, &ACTIONS));
    }
    if constraint.label_selector.is_some() {
        let detail = "constraint must not define a selector, as they deduced for each pod";
        errors.push(Error::forbidden(&path.child("labelSelector"), detail));
    }
}

// === impl Defaults ===

impl Defaults {
    pub fn new(handle: &Handle, arguments: &Arguments) -> Result<Self, ArgumentError> {
        let PodTopologySpreadArguments { default_constraints, .. } =
            arguments.validated(PodTopologySpreadArguments::check)?;
        Ok(Self { handle: handle.clone(), constraints: default_constraints })
    }

    pub fn constraints(&self) -> &[TopologySpreadConstraint] {
        &self.constraints
    }

    pub fn reads(&self) -> &'static [GroupVersionResource] {
        if self.constraints.is_empty() { &[] } else { &OWNERS }
    }

    /// Selects what the Services of a pod and its workload select; everything where it has neither.
    pub fn selector(&self, pod: &PodInfo) -> Selector {
        let owner = self.owner(pod);
        let selector_of = |owner: &Object| owner.to_value().get("spec")?.get("selector").cloned();
        let selector = owner.as_deref().and_then(selector_of);
        let services = self.services(pod);
        match selector {
            None => services,
            // A ReplicationController's is a map of labels.
            Some(labels) if owner.is_some_and(|owner| owner.kind() == "ReplicationController") => {
                services.and(of_labels(&labels))
            }
            Some(selector) => match Selector::from_value(&selector) {
                Ok(selector) => services.and(selector),
                Err(_) => services,
            },
        }
    }

    fn services(&self, pod: &PodInfo) -> Selector {
        let labels = &pod.pod.metadata.labels;
        let mut selector = Selector::default();
        for object in self.handle.informers.of(&SERVICES).list_namespace(pod.namespace()) {
            let Ok(service) = object.view::<Service>() else { continue };
            let wanted = &service.spec.selector;
            let selects =
                !wanted.is_empty() && wanted.iter().all(|(key, value)| labels.get(key) == Some(value));
            if selects {
                let wanted = wanted.iter().map(|(key, value)| (key.as_str(), value.as_str()));
                selector = selector.and(Selector::of_labels(wanted));
            }
        }
        selector
    }

    /// The workload that controls the pod, if it is of a kind that counts.
    fn owner(&self, pod: &PodInfo) -> Option<std::sync::Arc<Object>> {
        let owner = pod.pod.metadata.controller()?;
        let resource = match (owner.api_version.as_str(), owner.kind.as_str()) {
            ("v1", "ReplicationController") => &REPLICATION_CONTROLLERS,
            ("apps/v1", "ReplicaSet") => &REPLICA_SETS,
            ("apps/v1", "StatefulSet") => &STATEFUL_SETS,
            _ => return None,
        };
        self.handle.informers.of(resource).get(pod.namespace(), &owner.name)
    }
}

fn of_labels(labels: &Value) -> Selector {
    let labels = labels.as_object().into_iter().flat_map(|labels| labels.iter());
    let pairs: Vec<(&Str, &str)> = labels.filter_map(|(key, value)| Some((key, value.as_str()?))).collect();
    Selector::of_labels(pairs.iter().map(|(key, value)| (key.as_str(), *value)))
}
