//! What is special about Pods: binding to a node. Eviction has a file of its own.

use std::sync::Arc;

use api::conditions::Condition;
use apimachinery::{GroupResource, Object, Status, Str, Value, field};

use crate::modify::Rewrite;
use crate::{Endpoint, Registry, WriteContext, metadata};

/// The last state of a deleted object as its answer shows it: upstream marks a pod before it removes it, also when
/// it removes it at once.
pub fn last_state(
    endpoint: &Endpoint,
    object: Arc<Object>,
    now: jiff::Timestamp,
) -> Result<Arc<Object>, Status> {
    let is_pod = endpoint.resource.group.is_empty() && endpoint.resource.plural == "pods";
    if !is_pod || object.is_deleting() {
        return Ok(object);
    }
    let mut pod = endpoint.served(&object);
    metadata::mark_deleted(&mut pod, now, 0);
    crate::rebuilt(&pod, &object)
}

impl Registry {
    /// Assigns a pod to a node: what a POST to `pods/{name}/binding` does.
    pub async fn bind(
        &self,
        pods: &Endpoint,
        ctx: &WriteContext<'_>,
        name: &str,
        binding: &Value,
    ) -> Result<(), Status> {
        let node = binding.str_at(&["target", "name"]).to_owned();
        let kind = binding.str_at(&["target", "kind"]);
        let mut errors = field::ErrorList::new();
        if !kind.is_empty() && kind != "Node" {
            let path = field::Path::root("target.kind");
            errors.push(field::Error::not_supported(&path, kind, &["Node", "<empty>"]));
        }
        if node.is_empty() {
            errors.push(field::Error::required(&field::Path::root("target.name"), ""));
        }
        if !errors.is_empty() {
            // Upstream hands these on without making them a 422, and so do we.
            let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
            let text =
                if let [only] = texts.as_slice() { only.clone() } else { format!("[{}]", texts.join(", ")) };
            return Err(Status::new(500, "", text));
        }
        let binding_uid: Str = binding.str_at(&["metadata", "uid"]).into();
        let binding_version: Str = binding.str_at(&["metadata", "resourceVersion"]).into();
        let handed_on = ["annotations", "labels"].map(|key| (key, binding["metadata"][key].clone()));
        let mut produce = |pod: Option<&Value>| {
            let pod = pod.expect("modify without create_if_missing always has a state");
            check_bindable(pod, name, &binding_uid, &binding_version)?;
            let mut bound = pod.clone();
            bound.set_at(&["spec", "nodeName"], node.as_str());
            bound.remove_at(&["status", "nominatedNodeName"]);
            for (own, map) in &handed_on {
                for (key, value) in map.as_object().into_iter().flatten() {
                    bound.ensure_object_at(&["metadata", own]).insert(key.clone(), value.clone());
                }
            }
            let generation = pod["metadata"]["generation"].as_i64();
            Condition::new("PodScheduled", true, "", "").at_generation(generation).set(&mut bound, ctx.now);
            Ok(Rewrite { trusted: true, ..Rewrite::of_current(bound, pod) })
        };
        let binding_ctx = WriteContext { subresource: Some("binding"), ..*ctx };
        self.modify(pods, &binding_ctx, name, false, &mut produce).await.map(|_| ())
    }
}

fn check_bindable(pod: &Value, name: &str, uid: &str, version: &str) -> Result<(), Status> {
    let resource = GroupResource::new("", "pods/binding");
    let own_uid = pod.str_at(&["metadata", "uid"]);
    if !uid.is_empty() && uid != own_uid {
        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {own_uid}");
        return Err(Status::conflict(&resource, name, why));
    }
    let own_version = pod.str_at(&["metadata", "resourceVersion"]);
    if !version.is_empty() && version != own_version {
        let why = format!(
            "Precondition failed: ResourceVersion in precondition: {version}, ResourceVersion in object meta: \
             {own_version}"
        );
        return Err(Status::conflict(&resource, name, why));
    }
    if !pod["metadata"]["deletionTimestamp"].is_null() {
        return Err(Status::conflict(
            &resource,
            name,
            format!("pod {name} is being deleted, cannot be assigned to a host"),
        ));
    }
    let node = pod.str_at(&["spec", "nodeName"]);
    if !node.is_empty() {
        let why = format!("pod {name} is already assigned to node {}", field::go_quote(node));
        return Err(Status::conflict(&resource, name, why));
    }
    if !pod.array_at(&["spec", "schedulingGates"]).is_empty() {
        let why = format!("pod {name} has non-empty .spec.schedulingGates");
        return Err(Status::conflict(&resource, name, why));
    }
    Ok(())
}
