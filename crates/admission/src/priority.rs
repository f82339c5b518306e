//! `Priority`: a class's name becomes its number, and there is one default class at most.

use std::sync::Arc;

use api::view::ObjectMeta;
use apimachinery::{Status, Str, Value};
use registry::Endpoint;
use registry::admission::{Attributes, Operation};
use serde::Deserialize;

use crate::plugins::{BuildError, Environment};
use crate::{Plugin, forbidden, look_up};

pub struct Priority {
    classes: Endpoint,
    /// Groups of pods have a priority of their own: gate `WorkloadAwarePreemption`.
    ranks_groups: bool,
}

/// What this plugin reads of a PriorityClass; decoded once per stored state.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Class {
    metadata: ObjectMeta,
    value: i64,
    global_default: bool,
    preemption_policy: Str,
}

struct Computed {
    class: String,
    priority: i64,
    preemption: String,
}

impl Priority {
    pub fn new(environment: &Environment<'_>) -> Result<Self, BuildError> {
        Ok(Self {
            classes: environment.endpoint(&api::gvr::PRIORITY_CLASSES)?,
            ranks_groups: environment.features.enabled("WorkloadAwarePreemption"),
        })
    }

    /// The class for pods that name none: the lowest of those marked so.
    fn default_class(&self) -> Option<Arc<Class>> {
        let snapshot = self.classes.cache.snapshot();
        let classes = snapshot.objects.values().filter_map(|class| class.view::<Class>().ok());
        classes.filter(|class| class.global_default).min_by_key(|class| class.value)
    }

    fn compute(&self, attributes: &Attributes<'_>, pod: &Value) -> Result<Computed, Status> {
        let name = pod.str_at(&["spec", "priorityClassName"]);
        let class = if name.is_empty() {
            self.default_class()
        } else {
            let class = look_up(&self.classes, "", name);
            let class = class.ok_or_else(|| {
                forbidden(attributes, format!("no PriorityClass with name {name} was found"))
            })?;
            Some(class.view::<Class>().map_err(Status::internal)?)
        };
        let Some(class) = class else {
            return Ok(Computed {
                class: String::new(),
                priority: 0,
                preemption: "PreemptLowerPriority".into(),
            });
        };
        let preemption = class.preemption_policy.as_str();
        Ok(Computed {
            class: class.metadata.name.to_string(),
            priority: class.value,
            preemption: if preemption.is_empty() { "PreemptLowerPriority" } else { preemption }.to_owned(),
        })
    }
}

impl Plugin for Priority {
    fn mutate(&self, attributes: &Attributes<'_>, pod: &mut Value) -> Result<(), Status> {
        if self.ranks_groups
            && attributes.operation == Operation::Create
            && attributes.is("scheduling.k8s.io", "podgroups")
        {
            return self.set_group_priority(attributes, pod);
        }
        if !attributes.is("", "pods") {
            return Ok(());
        }
        match attributes.operation {
            Operation::Create => self.set_priority(attributes, pod),
            Operation::Update => {
                keep_priority(pod, attributes);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn validate(&self, attributes: &Attributes<'_>, object: Option<&Value>) -> Result<(), Status> {
        let Some(class) = object.filter(|_| attributes.is("scheduling.k8s.io", "priorityclasses")) else {
            return Ok(());
        };
        if class["globalDefault"].as_bool() != Some(true) {
            return Ok(());
        }
        match self.default_class() {
            Some(other)
                if attributes.operation == Operation::Create || other.metadata.name != attributes.name =>
            {
                let other = &other.metadata.name;
                let why =
                    format!("PriorityClass {other} is already marked as default. Only one default can exist");
                Err(forbidden(attributes, why))
            }
            _ => Ok(()),
        }
    }
}

/// A client that does not know the fields does not clear them.
fn keep_priority(pod: &mut Value, attributes: &Attributes<'_>) {
    let missing = |pod: &Value, key: &str| pod["spec"][key].is_null();
    if !missing(pod, "priority") && !missing(pod, "preemptionPolicy") {
        return;
    }
    let Some(old) = attributes.old_value() else { return };
    for key in ["priority", "preemptionPolicy"] {
        if missing(pod, key) && !missing(&old, key) {
            pod.set_at(&["spec", key], old["spec"][key].clone());
        }
    }
}

impl Priority {
    fn set_priority(&self, attributes: &Attributes<'_>, pod: &mut Value) -> Result<(), Status> {
        let computed = self.compute(attributes, pod)?;
        if let Some(given) = pod["spec"]["priority"].as_i64().filter(|given| *given != computed.priority) {
            return Err(forbidden(
                attributes,
                format!(
                    "the integer value of priority ({given}) must not be provided in pod spec; priority admission \
                     controller computed {} from the given PriorityClass name",
                    computed.priority
                ),
            ));
        }
        let given = pod.str_at(&["spec", "preemptionPolicy"]);
        if !given.is_empty() && given != computed.preemption {
            return Err(forbidden(
                attributes,
                format!(
                    "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority \
                     admission controller computed {} from the given PriorityClass name",
                    computed.preemption
                ),
            ));
        }
        if !computed.class.is_empty() {
            pod.set_at(&["spec", "priorityClassName"], computed.class);
        }
        pod.set_at(&["spec", "priority"], computed.priority);
        pod.set_at(&["spec", "preemptionPolicy"], computed.preemption);
        Ok(())
    }

    fn set_group_priority(&self, attributes: &Attributes<'_>, group: &mut Value) -> Result<(), Status> {
        let Computed { class, priority, .. } = self.compute(attributes, group)?;
        if let Some(given) = group["spec"]["priority"].as_i64().filter(|given| *given != priority) {
            let why = format!(
                "priority set in the pod group ({given}) must match the priority computed ({priority}) based on the \
                 priority class set in the spec"
            );
            return Err(forbidden(attributes, why));
        }
        if !class.is_empty() {
            group.set_at(&["spec", "priorityClassName"], class);
        }
        group.set_at(&["spec", "priority"], priority);
        Ok(())
    }
}
