//! What may change in a pod, through the pod itself and through its subresources.

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path};

use super::container::image_whitespace;
use super::spec::{APP_ARMOR, MIRROR_ANNOTATION};
use super::{qos, scheduling};
use crate::validation::diff;
use crate::validation::fields::{Fields, immutable, invalid_each, same};
use crate::validation::{ip, text};

const UPDATABLE: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// An update of the pod itself. Validity of the new state was checked before.
pub fn pod(errors: &mut ErrorList, new: &Value, old: &Value) {
    annotations(errors, new, old);
    let (new, old) = (&new["spec"], &old["spec"]);
    let path = Path::root("spec");
    for list in ["containers", "initContainers"] {
        let list_path = path.child(list);
        if new.list(list).len() != old.list(list).len() {
            errors.push(Error::forbidden(&list_path, "pod updates may not add or remove containers"));
            return;
        }
        for (index, container) in new.list(list).iter().enumerate() {
            let path = list_path.index(index);
            if container.text("image").is_empty() {
                errors.push(Error::required(&path.child("image"), ""));
            }
            image_whitespace(errors, container, &path);
        }
    }
    active_deadline(errors, new, old, &path.child("activeDeadlineSeconds"));
    added_tolerations(errors, new, old, &path.child("tolerations"));
    removed_gates(errors, new, old, &path.child("schedulingGates"));
    if same(new, old) {
        return;
    }
    let mut rest = without_updatable_fields(new, old);
    if !old.list("schedulingGates").is_empty() {
        narrowed_nodes(errors, &mut rest, old, &path);
    }
    if !same(&rest, old) {
        errors.push(Error::forbidden(
            &path,
            format!("{UPDATABLE}\n{}", diff::of_structs("PodSpec", old, &rest)),
        ));
    }
}

/// The new spec with every field that may change put back to what it was.
fn without_updatable_fields(new: &Value, old: &Value) -> Value {
    let mut rest = new.clone();
    for list in ["containers", "initContainers"] {
        let olds = old.list(list);
        for (container, old) in
            rest.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten().zip(olds)
        {
            put_back(container, old, "image");
        }
    }
    for key in ["activeDeadlineSeconds", "schedulingGates", "tolerations"] {
        put_back(&mut rest, old, key);
    }
    if old.int("terminationGracePeriodSeconds") < 0 && rest.int("terminationGracePeriodSeconds") == 1 {
        put_back(&mut rest, old, "terminationGracePeriodSeconds");
    }
    rest
}

fn put_back(new: &mut Value, old: &Value, key: &str) {
    let new = new.ensure_object();
    match old.maybe(key) {
        Some(value) => {
            new.insert(key, value.clone());
        }
        None => {
            new.remove(key);
        }
    }
}

fn active_deadline(errors: &mut ErrorList, new: &Value, old: &Value, path: &Path<'_>) {
    let before = old.maybe_int("activeDeadlineSeconds");
    match (new.maybe_int("activeDeadlineSeconds"), before) {
        (Some(seconds), before) => {
            invalid_each(errors, path, seconds, text::in_range(seconds, 0, i64::from(i32::MAX)));
            if before.is_some_and(|before| before < seconds) {
                errors.push(Error::invalid(path, seconds, "must be less than or equal to previous value"));
            }
        }
        (None, Some(_)) => errors.push(Error::invalid(
            path,
            Value::Null,
            "must not update from a positive integer to nil value",
        )),
        (None, None) => {}
    }
}

/// Tolerations may be added, and of existing ones the seconds may change.
fn added_tolerations(errors: &mut ErrorList, new: &Value, old: &Value, path: &Path<'_>) {
    let (new, old) = (new.list("tolerations"), old.list("tolerations"));
    let equal = |a: &Value, b: &Value| {
        ["key", "operator", "value", "effect"].iter().all(|key| a.text(key) == b.text(key))
    };
    for _ in old.iter().filter(|old| !new.iter().any(|new| equal(new, old))) {
        errors.push(Error::forbidden(
            path,
            "existing toleration can not be modified except its tolerationSeconds",
        ));
    }
    scheduling::tolerations(errors, new, path);
}

fn removed_gates(errors: &mut ErrorList, new: &Value, old: &Value, path: &Path<'_>) {
    let held = old.list("schedulingGates");
    for (index, gate) in new.list("schedulingGates").iter().enumerate() {
        let name = gate.text("name");
        if !held.iter().any(|old| old.text("name") == name) {
            errors.push(Error::forbidden(
                &path.index(index).child("name"),
                format!("only deletion is allowed, but found new scheduling gate '{name}'"),
            ));
        }
    }
}

/// While a pod is gated, the set of nodes it may run on may shrink. Accepted changes are put back in `rest`.
fn narrowed_nodes(errors: &mut ErrorList, rest: &mut Value, old: &Value, path: &Path<'_>) {
    if !same(&rest["nodeSelector"], &old["nodeSelector"]) {
        let kept = old.entries("nodeSelector").all(|(key, value)| {
            rest.map("nodeSelector").and_then(|selector| selector.get(key)) == Some(value)
        });
        if !kept {
            errors.push(Error::invalid(
                &path.child("nodeSelector"),
                &rest["nodeSelector"],
                "only additions to spec.nodeSelector are allowed (no mutations or deletions)",
            ));
        }
        put_back(rest, old, "nodeSelector");
    }
    let old_affinity = &old["affinity"]["nodeAffinity"];
    if same(&rest["affinity"]["nodeAffinity"], old_affinity) {
        return;
    }
    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    let new_terms = rest["affinity"]["nodeAffinity"][REQUIRED].list("nodeSelectorTerms");
    let old_terms = old_affinity[REQUIRED].list("nodeSelectorTerms");
    let affinity_path = path.child("affinity");
    let affinity_path = affinity_path.child("nodeAffinity");
    let affinity_path = affinity_path.child(REQUIRED);
    let terms_path = affinity_path.child("nodeSelectorTerms");
    if !old_terms.is_empty() && old_terms.len() != new_terms.len() {
        errors.push(Error::invalid(
            &terms_path,
            Value::from(new_terms.to_vec()),
            "no additions/deletions to non-empty NodeSelectorTerms list are allowed",
        ));
    } else {
        for (index, (old, new)) in old_terms.iter().zip(new_terms).enumerate() {
            if !has_only_additions(new, old) {
                errors.push(Error::invalid(
                    &terms_path.index(index),
                    new,
                    "only additions are allowed (no mutations or deletions)",
                ));
            }
        }
    }
    let mut affinity = rest["affinity"].clone();
    put_back(&mut affinity, &old["affinity"], "nodeAffinity");
    let empty = affinity.as_object().is_none_or(apimachinery::Map::is_empty);
    if empty && !old.has("affinity") {
        rest.ensure_object().remove("affinity");
    } else {
        rest.ensure_object().insert("affinity", affinity);
    }
}

fn has_only_additions(new: &Value, old: &Value) -> bool {
    const LISTS: [&str; 2] = ["matchExpressions", "matchFields"];
    // A term without requirements matches nothing; adding one would widen it.
    if LISTS.iter().all(|list| old.list(list).is_empty())
        && LISTS.iter().any(|list| !new.list(list).is_empty())
    {
        return false;
    }
    LISTS.iter().all(|list| {
        let (new, old) = (new.list(list), old.list(list));
        new.len() >= old.len() && new.iter().zip(old).all(|(new, old)| same(new, old))
    })
}

fn annotations(errors: &mut ErrorList, new: &Value, old: &Value) {
    let (new, old) = (&new["metadata"]["annotations"], &old["metadata"]["annotations"]);
    let path = Path::root("metadata");
    let path = path.child("annotations");
    let fixed = |key: &str| {
        if key.starts_with(APP_ARMOR) {
            Some("AppArmor annotations")
        } else {
            (key == MIRROR_ANNOTATION).then_some("mirror pod annotation")
        }
    };
    for (key, _) in old.as_object().into_iter().flatten().filter(|(key, value)| new.get(key) != Some(value)) {
        if let Some(what) = fixed(key) {
            errors.push(Error::forbidden(&path.key(key), format!("may not remove or update {what}")));
        }
    }
    for (key, _) in new.as_object().into_iter().flatten().filter(|(key, _)| old.get(key).is_none()) {
        if let Some(what) = fixed(key) {
            errors.push(Error::forbidden(&path.key(key), format!("may not add {what}")));
        }
    }
}

/// An update through `ephemeralcontainers`: they may be added, never changed or removed.
pub fn ephemeral_containers(errors: &mut ErrorList, new: &Value, old: &Value) {
    annotations(errors, new, old);
    if old["metadata"]["annotations"].has(MIRROR_ANNOTATION) {
        *errors = vec![Error::forbidden(&Path::root(""), "static pods do not support ephemeral containers")];
        return;
    }
    let path = Path::root("spec");
    let path = path.child("ephemeralContainers");
    let news = new["spec"].list("ephemeralContainers");
    for old in old["spec"].list("ephemeralContainers") {
        let name = old.text("name");
        let quoted = apimachinery::field::go_quote(name);
        match news.iter().rfind(|new| new.text("name") == name) {
            None => errors.push(Error::forbidden(
                &path,
                format!("existing ephemeral containers {quoted} may not be removed\n"),
            )),
            Some(new) if !same(new, old) => errors.push(Error::forbidden(
                &path,
                format!(
                    "existing ephemeral containers {quoted} may not be changed\n{}",
                    diff::of_structs("EphemeralContainer", old, new)
                ),
            )),
            Some(_) => {}
        }
    }
}

/// An update through `resize`: CPU and memory of containers, without a change of the pod's class.
pub fn resize(errors: &mut ErrorList, new: &Value, old: &Value) {
    let only = |complaint: &str| vec![Error::forbidden(&Path::root(""), complaint)];
    if old["metadata"]["annotations"].has(MIRROR_ANNOTATION) {
        *errors = only("static pods cannot be resized");
        return;
    }
    if old["spec"]["os"].text("name") == "windows" {
        *errors = only("windows pods cannot be resized");
        return;
    }
    let path = Path::root("spec");
    let before = match old["status"].text("qosClass") {
        "" => qos::class(&old["spec"]),
        class => class,
    };
    if before != qos::class(&new["spec"]) {
        errors.push(Error::invalid(
            &path,
            new["status"].text("qosClass"),
            "Pod QOS Class may not change as a result of resizing",
        ));
    }
    let mut rest = new["spec"].clone();
    for list in ["containers", "initContainers"] {
        let olds = old["spec"].list(list);
        let news = rest.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten();
        for (index, (container, old)) in news.zip(olds).enumerate() {
            let list_path = path.child(list);
            resized_container(errors, container, old, &list_path.index(index));
        }
    }
    put_back_compute(&mut rest, &old["spec"]);
    if !same(&rest, &old["spec"]) {
        errors.push(Error::forbidden(&path, "only cpu and memory resources are mutable"));
    }
}

fn resized_container(errors: &mut ErrorList, container: &mut Value, old: &Value, path: &Path<'_>) {
    for list in ["requests", "limits"] {
        let (new, old) = (&container["resources"], &old["resources"]);
        for (name, _) in old.entries(list).filter(|(name, _)| matches!(*name, "cpu" | "memory")) {
            if !new.map(list).is_some_and(|map| map.contains_key(name)) {
                errors.push(Error::forbidden(
                    &path.child("resources").child(list),
                    "resource requests/limits cannot be removed",
                ));
            }
        }
    }
    put_back_compute(container, old);
    put_back(container, old, "resizePolicy");
}

/// Undoes changes of CPU and memory in the `resources` of a container or pod.
fn put_back_compute(holder: &mut Value, old: &Value) {
    for list in ["requests", "limits"] {
        for name in ["cpu", "memory"] {
            match old["resources"].map(list).and_then(|map| map.get(name)) {
                Some(value) => {
                    holder.ensure_object_at(&["resources", list]).insert(name, value.clone());
                }
                None => {
                    holder.remove_at(&["resources", list, name]);
                }
            }
        }
    }
}

/// An update through `status`.
pub fn status(errors: &mut ErrorList, new_pod: &Value, old_pod: &Value) {
    annotations(errors, new_pod, old_pod);
    let (spec, new, old) = (&old_pod["spec"], &new_pod["status"], &old_pod["status"]);
    let path = Path::root("status");
    conditions(errors, new.list("conditions"), &path.child("conditions"));
    let nominated = new.text("nominatedNodeName");
    let nominated_path = path.child("nominatedNodeName");
    if nominated != old.text("nominatedNodeName") && !nominated.is_empty() {
        invalid_each(errors, &nominated_path, nominated, text::dns1123_subdomain(nominated));
        if !spec.text("nodeName").is_empty() {
            errors.push(Error::forbidden(
                &nominated_path,
                "may not be set on pods that are already bound to a node",
            ));
        }
    }
    let generation = new.int("observedGeneration");
    if generation < 0 {
        errors.push(Error::invalid(
            &path.child("observedGeneration"),
            generation,
            "must be a non-negative integer",
        ));
    }
    immutable(errors, new, old, "qosClass", &path.child("qosClass"));
    for list in ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"] {
        state_transitions(errors, new.list(list), old.list(list), spec, list, &path.child(list));
    }
    claim_statuses(errors, new, spec, &path.child("resourceClaimStatuses"));
    addresses(errors, new, old, "podIPs", &path);
    if let Some(first) = new.list("hostIPs").first()
        && first.text("ip") != new.text("hostIP")
    {
        errors.push(Error::invalid(
            &path.child("hostIPs").index(0).child("ip"),
            first.text("ip"),
            "must be equal to `hostIP`",
        ));
    }
    addresses(errors, new, old, "hostIPs", &path);
}

fn conditions(errors: &mut ErrorList, conditions: &[Value], path: &Path<'_>) {
    for (index, condition) in conditions.iter().enumerate() {
        let path = path.index(index);
        let generation = condition.int("observedGeneration");
        if generation < 0 {
            errors.push(Error::invalid(
                &path.child("observedGeneration"),
                generation,
                "must be a non-negative integer",
            ));
        }
        let kind = condition.text("type");
        if !matches!(kind, "PodScheduled" | "Ready" | "Initialized") {
            // Upstream spells the field with a capital.
            invalid_each(errors, &path.child("Type"), kind, text::qualified_name(kind));
        }
    }
}

/// A container that ended stays ended unless its policies restart it.
fn state_transitions(
    errors: &mut ErrorList,
    new: &[Value],
    old: &[Value],
    spec: &Value,
    list: &str,
    path: &Path<'_>,
) {
    for (index, old) in old.iter().enumerate() {
        let Some(ended) = old["state"].maybe("terminated") else { continue };
        let name = old.text("name");
        let runs_again = new.iter().any(|new| new.text("name") == name && !new["state"].has("terminated"));
        if runs_again && !may_restart(spec, list, name, ended.int("exitCode")) {
            errors.push(Error::forbidden(
                &path.index(index).child("state"),
                "may not be transitioned to non-terminated state",
            ));
        }
    }
}

fn may_restart(spec: &Value, list: &str, name: &str, exit_code: i64) -> bool {
    let containers = match list {
        "containerStatuses" => spec.list("containers"),
        "initContainerStatuses" => spec.list("initContainers"),
        _ => return false,
    };
    let rules = |container: &Value| container.list("restartPolicyRules").to_vec();
    let restarts_all = ["containers", "initContainers"]
        .iter()
        .flat_map(|list| spec.list(list))
        .any(|container| rules(container).iter().any(|rule| rule.text("action") == "RestartAllContainers"));
    let Some(container) = containers.iter().find(|container| container.text("name") == name) else {
        return restarts_all;
    };
    let matched = rules(container).iter().any(|rule| {
        let codes = &rule["exitCodes"];
        let listed = codes.list("values").iter().any(|code| code.as_i64() == Some(exit_code));
        if codes.text("operator") == "NotIn" { !listed } else { listed }
    });
    let policy = container.maybe_text("restartPolicy").unwrap_or(spec.text("restartPolicy"));
    restarts_all
        || matched
        || match policy {
            "Always" => true,
            "OnFailure" => exit_code != 0,
            _ => false,
        }
}

fn claim_statuses(errors: &mut ErrorList, status: &Value, spec: &Value, path: &Path<'_>) {
    let statuses = status.list("resourceClaimStatuses");
    for (index, status) in statuses.iter().enumerate() {
        let path = path.index(index);
        let name = status.text("name");
        if !spec.list("resourceClaims").iter().any(|claim| claim.text("name") == name) {
            errors.push(Error::invalid(
                &path.child("name"),
                name,
                "must match the name of an entry in `spec.resourceClaims`",
            ));
        }
        if statuses[..index].iter().any(|other| other.text("name") == name) {
            errors.push(Error::duplicate(&path.child("name"), name));
        }
        if let Some(claim) = status.maybe_text("resourceClaimName") {
            invalid_each(errors, &path.child("resourceClaimName"), claim, text::dns1123_subdomain(claim));
        }
    }
}

fn addresses(errors: &mut ErrorList, new: &Value, old: &Value, key: &str, path: &Path<'_>) {
    let path = path.child(key);
    let held: Vec<&str> = old.list(key).iter().map(|address| address.text("ip")).collect();
    let list = new.list(key);
    for (index, address) in list.iter().enumerate() {
        ip::check_ip(errors, address.text("ip"), &path.index(index), &held);
    }
    if list.len() > 1 && (list.len() > 2 || !ip::is_dual_stack(list.iter().map(|address| address.text("ip"))))
    {
        errors.push(Error::invalid(&path, &new[key], "may specify no more than one IP for each IP family"));
    }
}

/// Puts a status update's spec and owners back, and fills what an old client does not know about.
pub fn prepare_status(new: &mut Value, old: &Value) {
    let new_map = new.ensure_object();
    match old.maybe("spec") {
        Some(spec) => {
            new_map.insert("spec", spec.clone());
        }
        None => {
            new_map.remove("spec");
        }
    }
    put_back(
        new.ensure_object().get_or_insert_with("metadata", Value::object),
        &old["metadata"],
        "ownerReferences",
    );
    let old_status = &old["status"];
    let status = new.ensure_object().get_or_insert_with("status", Value::object);
    if status.text("qosClass").is_empty() {
        put_back(status, old_status, "qosClass");
    }
    if status.int("observedGeneration") == 0 {
        put_back(status, old_status, "observedGeneration");
    }
    for condition in status.get_mut("conditions").and_then(Value::as_array_mut).into_iter().flatten() {
        let kind = condition.text("type").to_owned();
        if condition.int("observedGeneration") == 0
            && let Some(old) = old_status.list("conditions").iter().find(|old| old.text("type") == kind)
        {
            put_back(condition, old, "observedGeneration");
        }
    }
}

/// Keeps of an update through `ephemeralcontainers` only those.
pub fn prepare_ephemeral_containers(new: &mut Value, old: &Value) {
    let containers = new.at_mut(&["spec", "ephemeralContainers"]).map(Value::take);
    keep_all_but_spec(new, old);
    let mut spec = old["spec"].clone();
    match containers {
        Some(containers) => {
            spec.ensure_object().insert("ephemeralContainers", containers);
        }
        None => {
            spec.ensure_object().remove("ephemeralContainers");
        }
    }
    new.ensure_object().insert("spec", spec);
}

/// Keeps of an update through `resize` only resources and resize policies.
pub fn prepare_resize(new: &mut Value, old: &Value) {
    let mut spec = old["spec"].clone();
    for list in ["containers", "initContainers"] {
        let news = new["spec"].list(list);
        let same_containers = news.len() == old["spec"].list(list).len()
            && news.iter().zip(old["spec"].list(list)).all(|(new, old)| new.text("name") == old.text("name"));
        if !same_containers {
            // Left as it is, so that validation reports it.
            if let Some(list_of) = new["spec"].maybe(list) {
                spec.ensure_object().insert(list, list_of.clone());
            }
            continue;
        }
        for (kept, new) in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten().zip(news) {
            put_back(kept, new, "resources");
            put_back(kept, new, "resizePolicy");
        }
    }
    put_back(&mut spec, &new["spec"], "resources");
    keep_all_but_spec(new, old);
    new.ensure_object().insert("spec", spec);
}

/// Puts back the status and the metadata that such updates may not touch.
fn keep_all_but_spec(new: &mut Value, old: &Value) {
    put_back(new, old, "status");
    let metadata = new.ensure_object().get_or_insert_with("metadata", Value::object);
    for key in ["labels", "annotations", "finalizers", "ownerReferences"] {
        put_back(metadata, &old["metadata"], key);
    }
}
