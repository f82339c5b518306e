//! `TaintNodesByCondition`: a new node takes no pods until it is known to be ready.

use apimachinery::{Status, Value, json};
use registry::admission::{Attributes, Operation};

use crate::Plugin;

const NOT_READY: &str = "node.kubernetes.io/not-ready";

pub struct TaintNodesByCondition;

impl Plugin for TaintNodesByCondition {
    fn mutate(&self, attributes: &Attributes<'_>, node: &mut Value) -> Result<(), Status> {
        if attributes.operation != Operation::Create || !attributes.is("", "nodes") {
            return Ok(());
        }
        let taints =
            node.ensure_object_at(&["spec"]).get_or_insert_with("taints", || Value::Array(Vec::new()));
        if let Some(taints) = taints.as_array_mut()
            && !taints
                .iter()
                .any(|taint| taint.str_at(&["key"]) == NOT_READY && taint.str_at(&["effect"]) == "NoSchedule")
        {
            taints.push(json!({"key": NOT_READY, "effect": "NoSchedule"}));
        }
        Ok(())
    }
}
