//! Nodes and pods as the flags and templates describe them.

use anyhow::{Context, bail};
use api::view::{SIMULATED, SIMULATED_ANNOTATION};
use apimachinery::{Value, json};
use camino::Utf8Path;

use crate::cli::{NodeArguments, PodArguments};

const ZONE: &str = "topology.kubernetes.io/zone";
const HOST: &str = "kubernetes.io/hostname";
const DEFAULT_RESOURCES: [(&str, &str); 3] = [("cpu", "32"), ("memory", "256Gi"), ("pods", "110")];

/// The node that all are made from, as yet without a name.
pub(super) fn node(arguments: &NodeArguments) -> anyhow::Result<Value> {
    let mut node = match &arguments.template {
        Some(file) => read(file, "Node")?,
        None => json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"labels": {
                "beta.kubernetes.io/arch": "amd64", "beta.kubernetes.io/os": "linux",
                "kubernetes.io/arch": "amd64", "kubernetes.io/os": "linux",
                "type": "kwok",
            }},
        }),
    };
    annotate(&mut node);
    for (key, value) in &arguments.labels {
        node.set_at(&["metadata", "labels", key], value.as_str());
    }
    for taint in &arguments.taints {
        let value = json!({"key": taint.key.as_str(), "value": taint.value.as_str(), "effect": taint.effect.as_str()});
        push(&mut node, &["spec", "taints"], value);
    }
    let mut flags = vec![
        ("cpu", arguments.cpu.clone()),
        ("memory", arguments.memory.clone()),
        ("pods", arguments.pods.map(|pods| pods.to_string())),
    ];
    flags.push((arguments.gpu_resource.as_str(), arguments.gpu.map(|gpu| gpu.to_string())));
    for field in ["capacity", "allocatable"] {
        let resources = node.ensure_object_at(&["status", field]);
        for (resource, amount) in DEFAULT_RESOURCES {
            resources.get_or_insert_with(resource, || amount.into());
        }
        for (resource, amount) in &flags {
            if let Some(amount) = amount {
                resources.insert(*resource, amount.as_str());
            }
        }
    }
    Ok(node)
}

fn annotate(node: &mut Value) {
    node.set_at(&["metadata", "annotations", SIMULATED_ANNOTATION], SIMULATED);
}

/// Node `number` by its name; zones take turns.
pub(super) fn named_node(template: &Value, name: &str, number: u64, zones: u64) -> Value {
    let mut node = named(template, name);
    node.set_at(&["metadata", "labels", HOST], name);
    if let Some(zone) = number.checked_rem(zones) {
        node.set_at(&["metadata", "labels", ZONE], format!("zone-{}", zone + 1));
    }
    node
}

/// The pod that all are made from, as yet without a name.
pub(super) fn pod(arguments: &PodArguments) -> anyhow::Result<Value> {
    let mut pod = match &arguments.template {
        Some(file) => read(file, "Pod")?,
        None => json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"labels": {"app": arguments.prefix.as_str()}},
            "spec": {"containers": [{"name": "main", "image": "registry.example/simulated:1"}]},
        }),
    };
    for (key, value) in &arguments.labels {
        pod.set_at(&["metadata", "labels", key], value.as_str());
    }
    let flags = [
        ("cpu", arguments.cpu.clone()),
        ("memory", arguments.memory.clone()),
        (arguments.gpu_resource.as_str(), arguments.gpu.map(|gpu| gpu.to_string())),
    ];
    for (resource, amount) in flags {
        let Some(amount) = amount else { continue };
        let Some(container) =
            pod.at_mut(&["spec", "containers"]).and_then(|list| list.as_array_mut()?.first_mut())
        else {
            bail!("spec.containers: Required value: a pod to ask for {resource} needs a container");
        };
        container.set_at(&["resources", "requests", resource], amount.as_str());
        // What no node can overcommit is asked for and limited alike.
        if resource == arguments.gpu_resource {
            container.set_at(&["resources", "limits", resource], amount.as_str());
        }
    }
    Ok(pod)
}

/// A Deployment of such pods.
pub(super) fn deployment(name: &str, pod: &Value, replicas: u64) -> Value {
    let mut labels = pod.at(&["metadata", "labels"]).cloned().unwrap_or_else(Value::object);
    labels.set_at(&["app"], name);
    let mut template = json!({"metadata": {}});
    template.set_at(&["metadata", "labels"], labels);
    if let Some(annotations) = pod.at(&["metadata", "annotations"]) {
        template.set_at(&["metadata", "annotations"], annotations.clone());
    }
    template.set_at(&["spec"], pod["spec"].clone());
    let mut deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {"selector": {"matchLabels": {"app": name}}},
    });
    deployment.set_at(&["spec", "replicas"], i64::try_from(replicas).unwrap_or(i64::MAX));
    deployment.set_at(&["spec", "template"], template);
    deployment
}

pub(super) fn named(template: &Value, name: &str) -> Value {
    let mut object = template.clone();
    object.remove_at(&["metadata", "generateName"]);
    object.set_at(&["metadata", "name"], name);
    object
}

fn push(object: &mut Value, path: &[&str], item: Value) {
    match object.at_mut(path).and_then(Value::as_array_mut) {
        Some(list) => list.push(item),
        None => object.set_at(path, Value::from_iter([item])),
    }
}

/// Reads a template. What else is wrong with it the server says, when the first object is made.
fn read(file: &Utf8Path, kind: &str) -> anyhow::Result<Value> {
    let text = std::fs::read_to_string(file).with_context(|| format!("--template {file}"))?;
    let template = Value::parse_yaml(&text).with_context(|| format!("--template {file}"))?;
    if !template.is_object() {
        bail!("--template {file}: Invalid value: it must be one {kind}, as YAML or JSON");
    }
    for (field, wanted) in [("apiVersion", "v1"), ("kind", kind)] {
        let found = template.str_at(&[field]);
        if found != wanted {
            bail!("--template {file}: {field}: Unsupported value: {found:?}: supported values: {wanted:?}");
        }
    }
    Ok(template)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command, SimCommand};
    use clap::Parser;

    fn command(arguments: &str) -> SimCommand {
        let words = ["pintle", "sim"].into_iter().chain(arguments.split_whitespace());
        match Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{error}")).command {
            Command::Sim(command) => *command,
            _ => unreachable!("it was a sim command"),
        }
    }

    fn node_of(arguments: &str) -> anyhow::Result<Value> {
        match command(&format!("nodes --count 1 {arguments}")) {
            SimCommand::Nodes(arguments) => node(&arguments),
            _ => unreachable!("nodes were asked for"),
        }
    }

    fn pod_of(arguments: &str) -> anyhow::Result<Value> {
        match command(&format!("pods --count 1 {arguments}")) {
            SimCommand::Pods(arguments) => pod(&arguments),
            _ => unreachable!("pods were asked for"),
        }
    }

    fn template(text: &str) -> (tempfile::TempDir, String) {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("template.yaml");
        std::fs::write(&file, text).expect("a file");
        let name = file.to_str().expect("a UTF-8 name").to_owned();
        (folder, name)
    }

    #[test]
    fn a_node_is_what_the_flags_say_and_simulated() {
        let node = node_of("--cpu 4 --gpu 8 --zones 3 --labels a=b --taints c=d:NoSchedule,e:NoExecute")
            .expect("good");
        assert_eq!(node["metadata"]["annotations"][SIMULATED_ANNOTATION], SIMULATED.into());
        let resources = json!({"cpu": "4", "memory": "256Gi", "pods": "110", "nvidia.com/gpu": "8"});
        assert_eq!((&node["status"]["capacity"], &node["status"]["allocatable"]), (&resources, &resources));
        assert_eq!(node["metadata"]["labels"]["a"], "b".into());
        assert_eq!(node["spec"]["taints"].as_array().map(Vec::len), Some(2));
        let zones: Vec<_> = (0..4)
            .map(|number| {
                named_node(&node, "n", number, 3)["metadata"]["labels"][ZONE].as_str().map(str::to_owned)
            })
            .collect();
        assert_eq!(zones, ["zone-1", "zone-2", "zone-3", "zone-1"].map(|zone| Some(zone.to_owned())));
        assert!(named_node(&node, "n", 0, 0)["metadata"]["labels"][ZONE].is_null());
    }

    #[test]
    fn a_template_is_the_beginning_and_flags_come_on_top() {
        let (_folder, file) = template(
            "apiVersion: v1\nkind: Node\nmetadata: {generateName: x-, labels: {pool: a}}\nstatus: {capacity: {cpu: 2, \
             memory: 1Gi}}\n",
        );
        let node = node_of(&format!("--template {file} --memory 2Gi")).expect("good");
        let capacity = json!({"cpu": 2, "memory": "2Gi", "pods": "110"});
        assert_eq!(node["status"]["capacity"], capacity);
        assert_eq!(node["metadata"]["labels"]["pool"], "a".into());
        let named = named(&node, "sim-0");
        assert_eq!(named["metadata"]["name"], "sim-0".into());
        assert!(named["metadata"]["generateName"].is_null());
    }

    #[test]
    fn what_is_wrong_with_a_template_names_file_and_field() {
        let (_folder, file) = template("apiVersion: v1\nkind: Pod\n");
        let error = node_of(&format!("--template {file}")).expect_err("a pod is no node").to_string();
        assert_eq!(
            error,
            format!("--template {file}: kind: Unsupported value: \"Pod\": supported values: \"Node\"")
        );
        let error =
            pod_of(&format!("--template {file} --cpu 1")).expect_err("nothing can ask for it").to_string();
        assert!(error.contains("spec.containers"), "{error}");
        let (_folder, file) = template("- a\n");
        let error = node_of(&format!("--template {file}")).expect_err("a list is no node").to_string();
        assert!(error.contains(&file) && error.contains("one Node"), "{error}");
        assert!(
            node_of("--template nowhere.yaml")
                .expect_err("nothing there")
                .to_string()
                .contains("nowhere.yaml")
        );
    }

    #[test]
    fn a_deployment_selects_the_pods_that_it_makes() {
        let pod = pod_of("--cpu 100m --gpu 1 --labels tier=web").expect("good");
        let container = &pod["spec"]["containers"][0]["resources"];
        assert_eq!(container["limits"], json!({"nvidia.com/gpu": "1"}));
        assert_eq!(container["requests"], json!({"cpu": "100m", "nvidia.com/gpu": "1"}));
        let deployment = deployment("web", &pod, 5);
        let labels = &deployment["spec"]["template"]["metadata"]["labels"];
        assert_eq!(labels, &json!({"app": "web", "tier": "web"}));
        assert_eq!(deployment["spec"]["replicas"], json!(5));
        assert_eq!(deployment["spec"]["template"]["spec"], pod["spec"]);
    }
}
