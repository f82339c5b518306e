//! Variables, commands and arguments.

use anyhow::ensure;
use interop::{Checks, Kubectl};
use serde_json::{Value, json};

use super::World;
use crate::pods::{self, IMAGE, shell_with};
use crate::world::ADDRESS;

pub fn run(world: &World<'_>, checks: &mut Checks) {
    let kubectl = world.kubectl;
    checks.check("variables say who and where the pod is", || identity(kubectl));
    checks.check("variables say what the pod's resources are, or the node's where it has none", || {
        resources(kubectl)
    });
    checks.check("variables come from keys and from whole objects, with and without a prefix", || {
        objects(kubectl)
    });
    checks.check("variables are in variables, commands and arguments", || expansion(kubectl));
    checks.check("commands and arguments are the image's, unless the pod has its own", || commands(kubectl));
    checks.check("variables lead to the Services of the namespace", || services(kubectl));
}

/// These lines are what the pod printed, among others.
fn has(said: &str, lines: &[&str]) -> anyhow::Result<()> {
    for line in lines {
        ensure!(said.lines().any(|own| own == *line), "no {line} in\n{said}");
    }
    Ok(())
}

fn field(name: &str, path: &str) -> Value {
    json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}})
}

fn identity(kubectl: &Kubectl) -> anyhow::Result<()> {
    let env = json!({"env": [
        field("NAME", "metadata.name"), field("NAMESPACE", "metadata.namespace"), field("IP", "status.podIP"),
        field("IPS", "status.podIPs"), field("UID", "metadata.uid"), field("HOST", "status.hostIP"),
        field("HOSTS", "status.hostIPs"), field("ACCOUNT", "spec.serviceAccountName"),
    ]});
    let said = pods::output(kubectl, "who", json!({"containers": [shell_with("c", "env", env)]}))?;
    let pod = kubectl.json(&["get", "pod", "who"])?;
    let uid = pod["metadata"]["uid"].as_str().unwrap_or_default();
    let ip = pod["status"]["podIP"].as_str().unwrap_or_default();
    ensure!(pod["status"]["hostIP"] == ADDRESS, "{}", pod["status"]);
    has(
        &said,
        &[
            "NAME=who",
            "NAMESPACE=default",
            "ACCOUNT=default",
            &format!("UID={uid}"),
            &format!("IP={ip}"),
            &format!("IPS={ip}"),
            &format!("HOST={ADDRESS}"),
            &format!("HOSTS={ADDRESS}"),
        ],
    )
}

fn resources(kubectl: &Kubectl) -> anyhow::Result<()> {
    let of = |name: &str, resource: &str| json!({"name": name, "valueFrom": {"resourceFieldRef": {"resource": resource}}});
    let env = json!([
        of("CPU", "limits.cpu"),
        of("MEMORY", "limits.memory"),
        of("CPU_REQUEST", "requests.cpu"),
        of("MEMORY_REQUEST", "requests.memory"),
    ]);
    let limits =
        json!({"limits": {"cpu": "1250m", "memory": "64Mi"}, "requests": {"cpu": "250m", "memory": "32Mi"}});
    let container = shell_with("c", "env", json!({"env": env, "resources": limits}));
    let said = pods::output(kubectl, "limited", json!({"containers": [container]}))?;
    has(&said, &["CPU=2", "MEMORY=67108864", "CPU_REQUEST=1", "MEMORY_REQUEST=33554432"])?;
    let said = pods::output(
        kubectl,
        "unlimited",
        json!({"containers": [shell_with("c", "env", json!({"env": env}))]}),
    )?;
    let cpu = kubectl.ok(&["get", "node", "n1", "-o", "jsonpath={.status.allocatable.cpu}"])?;
    let cpu: u64 = match cpu.strip_suffix('m') {
        Some(thousandths) => thousandths.parse::<u64>()?.div_ceil(1000),
        None => cpu.parse()?,
    };
    has(&said, &[&format!("CPU={cpu}"), "CPU_REQUEST=0", "MEMORY_REQUEST=0"])?;
    ensure!(!said.contains("MEMORY=0\n"), "{said}");
    Ok(())
}

fn objects(kubectl: &Kubectl) -> anyhow::Result<()> {
    let env = json!({
        "env": [
            {"name": "MAST", "valueFrom": {"configMapKeyRef": {"name": "ship", "key": "mast"}}},
            {"name": "KEEL", "valueFrom": {"secretKeyRef": {"name": "ship", "key": "keel"}}},
            {"name": "NONE", "valueFrom": {"configMapKeyRef": {"name": "none", "key": "none", "optional": true}}},
        ],
        "envFrom": [
            {"configMapRef": {"name": "ship"}}, {"configMapRef": {"name": "ship"}, "prefix": "map_"},
            {"secretRef": {"name": "ship"}, "prefix": "secret_"}, {"secretRef": {"name": "none", "optional": true}},
        ],
    });
    let said = pods::output(kubectl, "objects", json!({"containers": [shell_with("c", "env", env)]}))?;
    has(&said, &["MAST=tall", "KEEL=deep", "mast=tall", "map_keel=deep", "secret_mast=tall"])?;
    ensure!(!said.contains("NONE="), "{said}");
    Ok(())
}

fn expansion(kubectl: &Kubectl) -> anyhow::Result<()> {
    let container = json!({
        "name": "c", "image": IMAGE,
        "command": ["sh", "-c", "echo $(ONE) \"$0\" \"$1\"; env"], "args": ["$(BOTH)", "$$(ONE)"],
        "env": [
            {"name": "ONE", "value": "one"}, {"name": "BOTH", "value": "$(ONE);;$(LATER)"},
            {"name": "LATER", "value": "later"},
        ],
    });
    let said = pods::output(kubectl, "expansion", json!({"containers": [container]}))?;
    has(&said, &["one one;;$(LATER) $(ONE)", "BOTH=one;;$(LATER)"])
}

/// The image's command is a shell, which ends at once without input.
fn commands(kubectl: &Kubectl) -> anyhow::Result<()> {
    for (name, fields, wanted) in [
        ("as-image", json!({}), ""),
        ("own-arguments", json!({"args": ["echo", "arguments"]}), "arguments\n"),
        ("own-command", json!({"command": ["echo"]}), "\n"),
        ("own-both", json!({"command": ["echo"], "args": ["both", "of them"]}), "both of them\n"),
    ] {
        let mut container = json!({"name": "c", "image": IMAGE});
        if let (Some(container), Some(fields)) = (container.as_object_mut(), fields.as_object()) {
            container.extend(fields.clone());
        }
        let said = pods::output(kubectl, name, json!({"containers": [container]}))?;
        ensure!(said == wanted, "{name}: {said:?}");
    }
    Ok(())
}

fn services(kubectl: &Kubectl) -> anyhow::Result<()> {
    kubectl.ok(&["create", "service", "clusterip", "tea-house", "--tcp=8765:8080"])?;
    let address = kubectl.ok(&["get", "service", "tea-house", "-o", "jsonpath={.spec.clusterIP}"])?;
    let said = interop::eventually(pods::PATIENCE, || {
        // The node may hear of the Service after the pod.
        kubectl.run(&["delete", "pod", "links", "--grace-period=0", "--force"])?;
        let spec = json!({"containers": [pods::shell("c", "env")]});
        let said = pods::output(kubectl, "links", spec)?;
        ensure!(said.contains("TEA_HOUSE_SERVICE_HOST="), "{said}");
        Ok(said)
    })?;
    has(
        &said,
        &[
            &format!("TEA_HOUSE_SERVICE_HOST={address}"),
            "TEA_HOUSE_SERVICE_PORT=8765",
            &format!("TEA_HOUSE_PORT=tcp://{address}:8765"),
            &format!("TEA_HOUSE_PORT_8765_TCP=tcp://{address}:8765"),
            "TEA_HOUSE_PORT_8765_TCP_PROTO=tcp",
            "TEA_HOUSE_PORT_8765_TCP_PORT=8765",
            &format!("TEA_HOUSE_PORT_8765_TCP_ADDR={address}"),
        ],
    )?;
    let quiet = json!({"enableServiceLinks": false, "containers": [pods::shell("c", "env")]});
    let said = pods::output(kubectl, "no-links", quiet)?;
    ensure!(!said.contains("TEA_HOUSE") && said.contains("KUBERNETES_SERVICE_HOST="), "{said}");
    Ok(())
}
