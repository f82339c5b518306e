//! Small plugins about pods alone.

use apimachinery::{Status, Value, field::go_quote, json};
use registry::Endpoint;
use registry::admission::{Attributes, Operation};

use crate::{Plugin, forbidden, look_up};

/// How long a pod stays on a node that is gone, unless it says otherwise; upstream's default of five minutes.
const TOLERATION_SECONDS: i64 = 300;
const TOLERATED: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];

/// `DefaultTolerationSeconds`: a node that is not ready or unreachable keeps its pods for a while.
pub struct DefaultTolerationSeconds;

impl Plugin for DefaultTolerationSeconds {
    fn name(&self) -> &'static str {
        "DefaultTolerationSeconds"
    }

    fn mutate(&self, attributes: &Attributes<'_>, pod: &mut Value) -> Result<(), Status> {
        let writes = matches!(attributes.operation, Operation::Create | Operation::Update);
        if !writes || !attributes.is("", "pods") {
            return Ok(());
        }
        let tolerations = pod.array_at(&["spec", "tolerations"]);
        let missing: Vec<Value> = TOLERATED
            .into_iter()
            .filter(|key| !tolerations.iter().any(|toleration| tolerates(toleration, key)))
            .map(|key| json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": TOLERATION_SECONDS}))
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        let list =
            pod.ensure_object_at(&["spec"]).get_or_insert_with("tolerations", || Value::Array(Vec::new()));
        if let Some(list) = list.as_array_mut() {
            list.extend(missing);
        }
        Ok(())
    }
}

fn tolerates(toleration: &Value, key: &str) -> bool {
    let (own, effect) = (toleration.str_at(&["key"]), toleration.str_at(&["effect"]));
    (own == key || own.is_empty()) && (effect == "NoExecute" || effect.is_empty())
}

/// `RuntimeClass`: a pod's runtime class exists, and its overhead and scheduling constraints apply.
pub struct RuntimeClass {
    classes: Endpoint,
}

impl RuntimeClass {
    pub fn new(classes: Endpoint) -> Self {
        Self { classes }
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
    fn name(&self) -> &'static str {
        "RuntimeClass"
    }

    fn mutate(&self, attributes: &Attributes<'_>, pod: &mut Value) -> Result<(), Status> {
        if attributes.operation != Operation::Create || !attributes.is("", "pods") {
            return Ok(());
        }
        let Some(class) = self.class(attributes, pod)? else { return Ok(()) };
        if let Some(overhead) = class.at(&["overhead", "podFixed"]) {
            pod.set_at(&["spec", "overhead"], overhead.clone());
        }
        for (key, value) in
            class.at(&["scheduling", "nodeSelector"]).and_then(Value::as_object).into_iter().flatten()
        {
            let selector = pod.ensure_object_at(&["spec", "nodeSelector"]);
            let clash = selector.get(key).is_some_and(|own| own != value);
            if clash {
                let why = "conflict: runtimeClass.scheduling.nodeSelector and pod.spec.nodeSelector disagree on key";
                return Err(forbidden(attributes, format!("{why} {}", go_quote(key))));
            }
            selector.insert(key.clone(), value.clone());
        }
        let wanted = class.array_at(&["scheduling", "tolerations"]);
        if !wanted.is_empty() {
            let list = pod
                .ensure_object_at(&["spec"])
                .get_or_insert_with("tolerations", || Value::Array(Vec::new()));
            if let Some(list) = list.as_array_mut() {
                let missing: Vec<Value> = wanted.iter().filter(|own| !list.contains(own)).cloned().collect();
                list.extend(missing);
            }
        }
        Ok(())
    }

    fn validate(&self, attributes: &Attributes<'_>, object: Option<&Value>) -> Result<(), Status> {
        let Some(pod) =
            object.filter(|_| attributes.operation == Operation::Create && attributes.is("", "pods"))
        else {
            return Ok(());
        };
        let class = self.class(attributes, pod)?;
        let wanted = class.as_ref().and_then(|class| class.at(&["overhead", "podFixed"]));
        let given = pod
            .at(&["spec", "overhead"])
            .filter(|overhead| overhead.as_object().is_some_and(|map| !map.is_empty()));
        if given.is_some() && given != wanted {
            let why = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";
            return Err(forbidden(attributes, why));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_toleration_of_everything_covers_the_defaults() {
        assert!(tolerates(&json!({"operator": "Exists"}), TOLERATED[0]));
        assert!(tolerates(&json!({"key": TOLERATED[1], "effect": "NoExecute"}), TOLERATED[1]));
        assert!(!tolerates(&json!({"key": TOLERATED[1], "effect": "NoSchedule"}), TOLERATED[1]));
        assert!(!tolerates(&json!({"key": "other"}), TOLERATED[0]));
    }
}
