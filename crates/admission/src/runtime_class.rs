//! `RuntimeClass`: a pod's runtime class exists, and its overhead and scheduling constraints apply.

use api::validation::fields::same;
use apimachinery::{Status, Value, field::go_quote};
use registry::Endpoint;
use registry::admission::{Attributes, Operation};

use crate::plugins::{BuildError, Environment};
use crate::{Plugin, forbidden, look_up, tolerations};

pub struct RuntimeClass {
    classes: Endpoint,
}

impl RuntimeClass {
    pub fn new(environment: &Environment<'_>) -> Result<Self, BuildError> {
        Ok(Self { classes: environment.named("node.k8s.io", "v1", "runtimeclasses")? })
    }

    fn class(&self, attributes: &Attributes<'_>, pod: &Value) -> Result<Option<Value>, Status> {
        let name = pod.str_at(&["spec", "runtimeClassName"]);
        if name.is_empty() {
            return Ok(None);
        }
        match look_up(&self.classes, "", name) {
            Some(class) => Ok(Some(class.to_value())),
            None => {
                let why = format!("pod rejected: RuntimeClass {} not found", go_quote(name));
                Err(forbidden(attributes, why))
            }
        }
    }
}

impl Plugin for RuntimeClass {
    fn mutate(&self, attributes: &Attributes<'_>, pod: &mut Value) -> Result<(), Status> {
        if attributes.operation != Operation::Create || !attributes.is("", "pods") {
            return Ok(());
        }
        let Some(class) = self.class(attributes, pod)? else { return Ok(()) };
        set_overhead(&class, pod)
            .and_then(|()| set_scheduling(&class, pod))
            .map_err(|why| forbidden(attributes, why))
    }

    fn validate(&self, attributes: &Attributes<'_>, object: Option<&Value>) -> Result<(), Status> {
        let creates = attributes.operation == Operation::Create && attributes.is("", "pods");
        let Some(pod) = object.filter(|_| creates) else { return Ok(()) };
        let class = self.class(attributes, pod)?;
        check_overhead(class.as_ref(), pod).map_err(|why| forbidden(attributes, why))
    }
}

const OTHER_OVERHEAD: &str = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";

fn set_overhead(class: &Value, pod: &mut Value) -> Result<(), String> {
    if class["overhead"].is_null() {
        return Ok(());
    }
    let fixed = &class["overhead"]["podFixed"];
    let given = &pod["spec"]["overhead"];
    if given.as_object().is_some_and(|map| !map.is_empty()) && !same(fixed, given) {
        return Err(OTHER_OVERHEAD.to_owned());
    }
    if !fixed.is_null() {
        pod.set_at(&["spec", "overhead"], fixed.clone());
    }
    Ok(())
}

fn set_scheduling(class: &Value, pod: &mut Value) -> Result<(), String> {
    for (key, value) in class["scheduling"]["nodeSelector"].as_object().into_iter().flatten() {
        let selector = pod.ensure_object_at(&["spec", "nodeSelector"]);
        if let Some(own) = selector.get(key).filter(|own| *own != value) {
            let (own, value) = (own.as_str().unwrap_or_default(), value.as_str().unwrap_or_default());
            return Err(format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {value}; pod.spec.nodeSelector[{key}] = {own}"
            ));
        }
        selector.insert(key.clone(), value.clone());
    }
    let wanted = class.array_at(&["scheduling", "tolerations"]);
    if !wanted.is_empty() {
        let merged = tolerations::merge(pod.array_at(&["spec", "tolerations"]), wanted);
        pod.set_at(&["spec", "tolerations"], merged);
    }
    Ok(())
}

fn check_overhead(class: Option<&Value>, pod: &Value) -> Result<(), String> {
    let given = &pod["spec"]["overhead"];
    match class.map(|class| &class["overhead"]).filter(|overhead| !overhead.is_null()) {
        Some(overhead) if same(&overhead["podFixed"], given) => Ok(()),
        Some(_) => Err(OTHER_OVERHEAD.to_owned()),
        None if given.is_null() => Ok(()),
        None => {
            Err("pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"
                .to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    #[test]
    fn overhead_is_the_classes_or_none() {
        let class = json!({"overhead": {"podFixed": {"cpu": "1"}}});
        let with = |overhead: Value| json!({"spec": {"overhead": overhead}});
        let mut pod = json!({"spec": {}});
        assert_eq!(set_overhead(&class, &mut pod), Ok(()));
        assert_eq!(pod, with(json!({"cpu": "1"})));
        assert_eq!(set_overhead(&class, &mut with(json!({"cpu": "2"}))), Err(OTHER_OVERHEAD.to_owned()));
        assert_eq!(check_overhead(Some(&class), &pod), Ok(()));
        assert_eq!(check_overhead(Some(&class), &json!({"spec": {}})), Err(OTHER_OVERHEAD.to_owned()));
        assert!(check_overhead(None, &pod).is_err_and(|why| why.contains("without corresponding")));
        assert_eq!(check_overhead(None, &json!({"spec": {}})), Ok(()));
    }

    #[test]
    fn scheduling_is_joined_and_may_not_contradict() {
        let class = json!({"scheduling": {
            "nodeSelector": {"a": "1"}, "tolerations": [{"key": "k", "operator": "Exists"}]
        }});
        let mut pod = json!({"spec": {"nodeSelector": {"b": "2"}}});
        assert_eq!(set_scheduling(&class, &mut pod), Ok(()));
        assert_eq!(pod["spec"]["nodeSelector"], json!({"a": "1", "b": "2"}));
        assert_eq!(pod["spec"].array_at(&["tolerations"]).len(), 1);
        let mut other = json!({"spec": {"nodeSelector": {"a": "2"}}});
        assert_eq!(
            set_scheduling(&class, &mut other),
            Err("conflict: runtimeClass.scheduling.nodeSelector[a] = 1; pod.spec.nodeSelector[a] = 2"
                .to_owned())
        );
    }
}
