//! What a Stage does to an object, as calls of the API.

use apimachinery::{GroupVersionResource, Object, Status, Str, Value, json};
use client::events::{Reference, Severity};
use client::{Api, DeleteOptions, ObjectKey, Patch, Recorder, WriteOptions};
use gotemplate::Datum;

use super::functions::Scene;
use super::spec::{FinalizersSpec, PatchKind, PatchStep, Stage, Step};

/// One call, ready to be made.
#[derive(Debug)]
pub enum Action {
    Event { severity: Severity, reason: Str, message: String },
    Patch { patch: Patch, subresource: Str },
    Delete,
}

/// The actions of a stage's steps from `first` on, each with the number of its step.
pub fn actions(
    stage: &Stage,
    first: usize,
    tree: &Value,
    scene: &Scene<'_>,
) -> Result<Vec<(usize, Action)>, String> {
    let mut actions = Vec::new();
    let mut deleted = false;
    for (index, step) in stage.steps.iter().enumerate().skip(first) {
        let action = match step {
            Step::Event(event) => {
                let severity = if event.type_ == "Warning" { Severity::Warning } else { Severity::Normal };
                Some(Action::Event { severity, reason: event.reason.clone(), message: event.message.clone() })
            }
            // Of what is deleted, only events are told.
            _ if deleted => None,
            Step::Delete => {
                deleted = true;
                Some(Action::Delete)
            }
            Step::Finalizers(spec) => finalizers(spec, tree),
            Step::Patch(patch) => Some(patch.action(tree, scene)?),
        };
        actions.extend(action.map(|action| (index, action)));
    }
    Ok(actions)
}

impl PatchStep {
    fn action(&self, tree: &Value, scene: &Scene<'_>) -> Result<Action, String> {
        let text = self.template.render(Datum::from(tree), scene).map_err(|error| error.to_string())?;
        let rendered =
            Value::parse_yaml(&text).map_err(|error| format!("what the template makes: {error}"))?;
        let uid = tree.str_at(&["metadata", "uid"]);
        let patch = match self.kind {
            PatchKind::Json => Patch::Json(json_patch(rendered, &self.root, uid)?),
            PatchKind::Merge => Patch::Merge(merge_patch(rendered, &self.root, uid)?),
            PatchKind::Strategic => Patch::Strategic(merge_patch(rendered, &self.root, uid)?),
        };
        Ok(Action::Patch { patch, subresource: self.subresource.clone() })
    }
}

/// Below the root, and for this object only, not for the next of its name.
fn merge_patch(rendered: Value, root: &str, uid: &str) -> Result<Value, String> {
    let mut patch = match root {
        "" => rendered,
        root => [(Str::from(root), rendered)].into_iter().collect(),
    };
    if !patch.is_object() {
        return Err(format!("what the template makes is no object but {}", patch.json_type()));
    }
    if patch.get("metadata").is_none_or(Value::is_object) {
        patch.set_at(&["metadata", "uid"], uid);
    }
    Ok(patch)
}

fn json_patch(rendered: Value, root: &str, uid: &str) -> Result<Value, String> {
    let Value::Array(mut operations) = rendered else {
        return Err(format!("what the template makes is no list of operations but {}", rendered.json_type()));
    };
    if !root.is_empty() {
        for operation in &mut operations {
            let path = format!("/{root}{}", operation.str_at(&["path"]));
            operation.set_at(&["path"], path);
        }
    }
    operations.insert(0, same_object(uid));
    Ok(operations.into())
}

fn same_object(uid: &str) -> Value {
    json!({"op": "test", "path": "/metadata/uid", "value": uid})
}

/// `None` if there is nothing to change.
fn finalizers(spec: &FinalizersSpec, tree: &Value) -> Option<Action> {
    let present: Vec<&str> =
        tree.array_at(&["metadata", "finalizers"]).iter().filter_map(Value::as_str).collect();
    let is_removed = |own: &str| spec.empty || spec.remove.iter().any(|item| item.value == own);
    let mut wanted: Vec<Str> =
        present.iter().filter(|own| !is_removed(own)).map(|own| Str::from(*own)).collect();
    for item in &spec.add {
        if !wanted.contains(&item.value) {
            wanted.push(item.value.clone());
        }
    }
    if wanted == present {
        return None;
    }
    let mut operations = vec![same_object(tree.str_at(&["metadata", "uid"]))];
    if !present.is_empty() {
        // Somebody else's finalizer that came meanwhile is not lost.
        operations.push(json!({"op": "test", "path": "/metadata/finalizers", "value": present}));
    }
    operations.push(match wanted.is_empty() {
        true => json!({"op": "remove", "path": "/metadata/finalizers"}),
        false => {
            let wanted: Vec<&str> = wanted.iter().map(Str::as_str).collect();
            json!({"op": "add", "path": "/metadata/finalizers", "value": wanted})
        }
    });
    Some(Action::Patch { patch: Patch::Json(operations.into()), subresource: Str::default() })
}

/// Makes the calls in order. Returns the revision after the last patch, 0 if there was none or the object is gone; of a
/// failure, the step.
pub async fn perform(
    api: &dyn Api,
    resource: &GroupVersionResource,
    object: &Object,
    actions: Vec<(usize, Action)>,
    recorder: &Recorder,
) -> Result<u64, (usize, Status)> {
    let ObjectKey { namespace, name } = &ObjectKey::from(object);
    let mut revision = 0;
    for (step, action) in actions {
        let done = match action {
            Action::Event { severity, reason, message } => {
                recorder.event(&Reference::of(object), severity, &reason, message);
                continue;
            }
            Action::Patch { patch, subresource } => {
                let subresource = Some(subresource.as_str()).filter(|subresource| !subresource.is_empty());
                let options = WriteOptions::default();
                let patched = api.patch(resource, namespace, name, subresource, patch, &options).await;
                patched.map(|patched| patched.revision())
            }
            Action::Delete => {
                let options = DeleteOptions {
                    grace_period_seconds: Some(0),
                    uid: Some(object.uid().into()),
                    ..DeleteOptions::default()
                };
                api.delete(resource, namespace, name, &options).await.map(|()| 0)
            }
        };
        revision = done.map_err(|status| (step, status))?;
    }
    Ok(revision)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(spec: Value, present: &[&str]) -> String {
        let spec: FinalizersSpec = apimachinery::value::from_value(&spec).unwrap();
        let tree = match present {
            [] => json!({"metadata": {"uid": "u"}}),
            present => json!({"metadata": {"uid": "u", "finalizers": present}}),
        };
        match finalizers(&spec, &tree) {
            Some(Action::Patch { patch: Patch::Json(operations), .. }) => {
                let last = operations.array_at(&[]).last().cloned().unwrap_or_default();
                format!("{} {}", last.str_at(&["op"]), last["value"])
            }
            _ => "nothing".into(),
        }
    }

    #[test]
    fn finalizers_are_added_removed_and_emptied() {
        let add = json!({"add": [{"value": "a"}]});
        assert_eq!(changed(add.clone(), &[]), "add [\"a\"]");
        assert_eq!(changed(add.clone(), &["b"]), "add [\"b\",\"a\"]");
        assert_eq!(changed(add, &["a"]), "nothing");
        let remove = json!({"remove": [{"value": "a"}]});
        assert_eq!(changed(remove.clone(), &["a", "b"]), "add [\"b\"]");
        assert_eq!(changed(remove.clone(), &["a"]), "remove null");
        assert_eq!(changed(remove, &["b"]), "nothing");
        assert_eq!(changed(json!({"empty": true}), &["a", "b"]), "remove null");
        assert_eq!(changed(json!({"empty": true}), &[]), "nothing");
        assert_eq!(changed(json!({"empty": true, "add": [{"value": "c"}]}), &["a"]), "add [\"c\"]");
    }

    #[test]
    fn patches_stand_below_their_root_and_name_the_object() {
        let status = merge_patch(json!({"phase": "Running"}), "status", "u").unwrap();
        assert_eq!(status, json!({"metadata": {"uid": "u"}, "status": {"phase": "Running"}}));
        let metadata = merge_patch(json!({"labels": {"a": "b"}}), "metadata", "u").unwrap();
        assert_eq!(metadata, json!({"metadata": {"labels": {"a": "b"}, "uid": "u"}}));
        assert!(merge_patch(json!("text"), "", "u").is_err());
        let operations =
            json_patch(json!([{"op": "add", "path": "/phase", "value": 1}]), "status", "u").unwrap();
        assert_eq!(operations[1]["path"], json!("/status/phase"));
        assert!(json_patch(json!({}), "", "u").unwrap_err().contains("no list of operations"));
    }
}
