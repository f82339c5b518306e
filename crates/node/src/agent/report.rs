//! What users are told of pods on this node: events with the kubelet's reasons.

use client::Recorder;
use client::events::{Reference, Severity};
use k8s_openapi::api::core::v1::Pod;

/// Records events about pods and their containers. Cloning shares the recorder.
#[derive(Clone)]
pub struct Reporter {
    recorder: Recorder,
}

/// One subject, and who tells of it.
pub struct About<'a> {
    reporter: &'a Reporter,
    reference: Reference,
}

impl Reporter {
    pub fn new(recorder: Recorder) -> Self {
        Self { recorder }
    }

    /// An event about anything.
    pub fn of(&self, about: &Reference, severity: Severity, reason: &str, message: impl Into<String>) {
        self.recorder.event(about, severity, reason, message);
    }

    pub fn pod(&self, pod: &Pod) -> About<'_> {
        About { reporter: self, reference: reference(pod, String::new()) }
    }

    pub fn container(&self, pod: &Pod, name: &str) -> About<'_> {
        let spec = pod.spec.as_ref();
        let is_in = |list: Option<&[k8s_openapi::api::core::v1::Container]>| {
            list.unwrap_or_default().iter().any(|container| container.name == name)
        };
        let list = if is_in(spec.map(|spec| spec.containers.as_slice())) {
            "containers"
        } else if is_in(spec.and_then(|spec| spec.init_containers.as_deref())) {
            "initContainers"
        } else {
            "ephemeralContainers"
        };
        About { reporter: self, reference: reference(pod, format!("spec.{list}{{{name}}}")) }
    }
}

impl About<'_> {
    pub fn normal(&self, reason: &str, message: impl Into<String>) {
        self.reporter.recorder.event(&self.reference, Severity::Normal, reason, message);
    }

    pub fn warning(&self, reason: &str, message: impl Into<String>) {
        self.reporter.recorder.event(&self.reference, Severity::Warning, reason, message);
    }
}

fn reference(pod: &Pod, field_path: String) -> Reference {
    let metadata = &pod.metadata;
    Reference {
        api_version: "v1".into(),
        kind: "Pod".into(),
        namespace: metadata.namespace.as_deref().unwrap_or_default().into(),
        name: metadata.name.as_deref().unwrap_or_default().into(),
        uid: metadata.uid.as_deref().unwrap_or_default().into(),
        revision: metadata.resource_version.as_deref().and_then(|rv| rv.parse().ok()).unwrap_or(0),
        field_path: field_path.into(),
    }
}
