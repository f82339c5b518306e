//! Plugins about groups of pods. Both have nothing to do where the API of groups is not served.

use api::gvr;
use apimachinery::{Status, Value};
use registry::Endpoint;
use registry::admission::{Attributes, Operation};

use crate::plugins::Environment;
use crate::{Plugin, forbidden, look_up, protect};

const GROUP: &str = "scheduling.k8s.io";
const FINALIZER: &str = "scheduling.k8s.io/podgroup-protection";

/// `PodGroupProtection`: a group stays while pods are in it; a controller takes the finalizer off.
pub struct PodGroupProtection;

impl Plugin for PodGroupProtection {
    fn mutate(&self, attributes: &Attributes<'_>, group: &mut Value) -> Result<(), Status> {
        if attributes.operation == Operation::Create && attributes.is(GROUP, "podgroups") {
            protect(group, FINALIZER);
        }
        Ok(())
    }
}

/// `PodGroupWorkloadExists`: a group that says which template it was made of says something true.
pub struct PodGroupWorkloadExists {
    /// `None` where there are no groups either.
    workloads: Option<Endpoint>,
}

impl PodGroupWorkloadExists {
    pub fn new(environment: &Environment<'_>) -> Self {
        Self { workloads: (environment.endpoint)(&gvr::WORKLOADS) }
    }
}

impl Plugin for PodGroupWorkloadExists {
    fn validate(&self, attributes: &Attributes<'_>, object: Option<&Value>) -> Result<(), Status> {
        let creates = attributes.operation == Operation::Create && attributes.is(GROUP, "podgroups");
        let (Some(group), Some(workloads)) = (object.filter(|_| creates), &self.workloads) else {
            return Ok(());
        };
        let Some(reference) = group.at(&["spec", "podGroupTemplateRef", "workload"]) else { return Ok(()) };
        let name = reference.str_at(&["workloadName"]);
        let Some(workload) = look_up(workloads, attributes.namespace, name) else {
            return Err(forbidden(attributes, format!("PodGroup rejected: Workload {name:?} not found")));
        };
        if workload.is_deleting() {
            let why = format!("PodGroup rejected: Workload {name:?} is being deleted");
            return Err(forbidden(attributes, why));
        }
        let template = reference.str_at(&["podGroupTemplateName"]);
        let tree = workload.to_value();
        let templates = tree.array_at(&["spec", "podGroupTemplates"]);
        if templates.iter().any(|own| own.str_at(&["name"]) == template) {
            return Ok(());
        }
        let why = format!("PodGroup rejected: PodGroupTemplate {template:?} not found in Workload {name:?}");
        Err(forbidden(attributes, why))
    }
}
