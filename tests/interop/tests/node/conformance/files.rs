//! Files that the node writes for a pod: of ConfigMaps, Secrets, the pod itself, and all of them in one volume.

use std::time::Duration;

use anyhow::ensure;
use interop::{Checks, Kubectl, eventually};
use serde_json::{Value, json};

use super::World;
use crate::pods::{self, shell_with};

/// For a change to be in every volume.
const CHANGED: Duration = Duration::from_secs(100);

pub fn run(world: &World<'_>, checks: &mut Checks) {
    let kubectl = world.kubectl;
    checks.check("objects to make files of", || objects(kubectl));
    checks.check("files of a ConfigMap have names, modes and users as asked", || {
        keys(kubectl, "config-map", |fields| source("configMap", "name", "ship", fields))
    });
    checks.check("files of a Secret have names, modes and users as asked", || {
        keys(kubectl, "secret", |fields| source("secret", "secretName", "ship", fields))
    });
    checks.check("files of a projected ConfigMap have names, modes and users as asked", || {
        keys(kubectl, "projected-config-map", |fields| projected("configMap", fields))
    });
    checks.check("files of a projected Secret have names, modes and users as asked", || {
        keys(kubectl, "projected-secret", |fields| projected("secret", fields))
    });
    checks.check("a Secret is that of the pod's own namespace", || other_namespace(kubectl));
    checks.check("binary data of a ConfigMap is in the volume as it is", || binary(kubectl));
    checks.check("files say what a pod's resources are, or the node's where it has none", || {
        resources(kubectl, "resources", downward)
    });
    checks.check("projected files say what a pod's resources are, or the node's where it has none", || {
        resources(kubectl, "projected-resources", projected_downward)
    });
    checks
        .check("changed labels and annotations are in the files", || metadata(kubectl, "metadata", downward));
    checks.check("changed labels and annotations are in the projected files", || {
        metadata(kubectl, "projected-metadata", projected_downward)
    });
    checks.check("optional objects come, change and go, and so do their files", || optional(kubectl));
    checks.check("one volume has files of every source", || combined(kubectl));
    checks.check("volumes of many kinds stand beside one another", || beside(kubectl));
    checks.check("what is immutable cannot be changed", || immutable(kubectl));
    checks.check("a key cannot be empty", || empty_key(kubectl));
}

fn objects(kubectl: &Kubectl) -> anyhow::Result<()> {
    let data = json!({"mast": "tall", "keel": "deep"});
    pods::make(
        kubectl,
        &[
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "ship"}, "data": data}),
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "ship"}, "stringData": data}),
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "bytes"},
                "data": {"text": "words"}, "binaryData": {"bytes": "AAH+/w=="}}),
        ],
    )
}

/// A volume of one object, with the fields that a projected source has, too.
fn source(kind: &str, key: &str, name: &str, fields: Value) -> Value {
    let mut source = json!({key: name});
    merge(&mut source, fields);
    json!({kind: source})
}

fn projected(kind: &str, mut fields: Value) -> Value {
    let mode = fields.as_object_mut().and_then(|fields| fields.remove("defaultMode"));
    let mut volume = json!({"sources": [source(kind, "name", "ship", fields)]});
    if let Some(mode) = mode {
        volume["defaultMode"] = mode;
    }
    json!({"projected": volume})
}

fn downward(items: Value, mode: u32) -> Value {
    json!({"downwardAPI": {"items": items, "defaultMode": mode}})
}

fn projected_downward(items: Value, mode: u32) -> Value {
    json!({"projected": {"sources": [{"downwardAPI": {"items": items}}], "defaultMode": mode}})
}

fn merge(object: &mut Value, fields: Value) {
    if let (Value::Object(object), Value::Object(fields)) = (object, fields) {
        object.extend(fields);
    }
}

fn volume(name: &str, source: Value) -> Value {
    let mut volume = json!({"name": name});
    merge(&mut volume, source);
    volume
}

fn mount(name: &str) -> Value {
    json!({"name": name, "mountPath": format!("/{name}")})
}

fn keys(kubectl: &Kubectl, name: &str, source: impl Fn(Value) -> Value) -> anyhow::Result<()> {
    let mapped = json!([{"key": "mast", "path": "way/to/mast"}]);
    let mapped_mode = json!([{"key": "mast", "path": "way/to/mast", "mode": 0o400}]);
    let volumes = json!([
        volume("plain", source(json!({}))),
        volume("again", source(json!({}))),
        volume("strict", source(json!({"defaultMode": 0o400}))),
        volume("mapped", source(json!({"items": mapped}))),
        volume("closed", source(json!({"items": mapped_mode}))),
        volume("shared", source(json!({"defaultMode": 0o440}))),
    ]);
    let mounts =
        json!({"volumeMounts": (["plain", "again", "strict", "mapped", "closed", "shared"].map(mount))});
    let script = "cd /; cat plain/mast again/keel mapped/way/to/mast shared/mast; echo; ls plain mapped; \
                  stat -L -c %a plain/mast strict/mast mapped/way/to/mast closed/way/to/mast shared/mast; \
                  cat strict/mast closed/way/to/mast 2>/dev/null; echo; id -u";
    let modes = "644\n400\n644\n400\n440\n";
    let files = "talldeeptalltall\nmapped:\nway\n\nplain:\nkeel\nmast\n";
    let pod = |user: u32, group: Option<u32>| {
        json!({
            "securityContext": {"runAsUser": user, "fsGroup": group},
            "containers": [shell_with("c", script, mounts.clone())],
            "volumes": volumes,
        })
    };
    let said = pods::output(kubectl, &format!("{name}-root"), pod(0, None))?;
    ensure!(said == format!("{files}{modes}talltall\n0\n"), "as root: {said}");
    // The group of the volumes may read where only root could.
    let said = pods::output(kubectl, &format!("{name}-user"), pod(1000, Some(1001)))?;
    let modes = "644\n440\n644\n440\n440\n";
    ensure!(said == format!("{files}{modes}talltall\n1000\n"), "as another: {said}");
    let readable = shell_with(
        "c",
        "cat /plain/mast /mapped/way/to/mast",
        json!({"volumeMounts": [mount("plain"), mount("mapped")]}),
    );
    let spec = json!({
        "securityContext": {"runAsUser": 1000}, "containers": [readable],
        "volumes": [volumes[0], volumes[3]],
    });
    let said = pods::output(kubectl, &format!("{name}-groupless"), spec)?;
    ensure!(said == "talltall", "without a group: {said}");
    Ok(())
}

fn other_namespace(kubectl: &Kubectl) -> anyhow::Result<()> {
    kubectl.ok(&["create", "namespace", "elsewhere"])?;
    kubectl.ok(&["create", "secret", "generic", "ship", "--from-literal=mast=broken", "-n", "elsewhere"])?;
    let container =
        shell_with("c", "cat /s/mast", json!({"volumeMounts": [{"name": "s", "mountPath": "/s"}]}));
    let volumes = json!([{"name": "s", "secret": {"secretName": "ship"}}]);
    let said = pods::output(kubectl, "own-secret", json!({"containers": [container], "volumes": volumes}))?;
    ensure!(said == "tall", "{said}");
    Ok(())
}

fn binary(kubectl: &Kubectl) -> anyhow::Result<()> {
    let container = shell_with(
        "c",
        "cat /b/text; echo; od -An -tx1 /b/bytes",
        json!({"volumeMounts": [{"name": "b", "mountPath": "/b"}]}),
    );
    let volumes = json!([{"name": "b", "configMap": {"name": "bytes"}}]);
    let said = pods::output(kubectl, "binary", json!({"containers": [container], "volumes": volumes}))?;
    ensure!(said.split_whitespace().eq(["words", "00", "01", "fe", "ff"]), "{said}");
    Ok(())
}

fn resources(kubectl: &Kubectl, name: &str, source: fn(Value, u32) -> Value) -> anyhow::Result<()> {
    let of = |path: &str, container: &str, resource: &str, divisor: &str| json!({"path": path, "resourceFieldRef": {"containerName": container, "resource": resource, "divisor": divisor}});
    let items = json!([
        of("cpu-limit", "c", "limits.cpu", "1m"),
        of("cpu-request", "c", "requests.cpu", "1m"),
        of("memory-limit", "c", "limits.memory", "1Mi"),
        of("memory-request", "c", "requests.memory", "1Mi"),
        of("node-cpu", "free", "limits.cpu", "1m"),
        of("node-memory", "free", "limits.memory", "1"),
        {"path": "name", "fieldRef": {"fieldPath": "metadata.name"}, "mode": 0o444},
    ]);
    let script = "cd /d; for file in cpu-limit cpu-request memory-limit memory-request node-cpu node-memory name; \
                  do cat $file; echo; done; stat -L -c %a name cpu-limit";
    let limits = json!({
        "resources": {"limits": {"cpu": "250m", "memory": "64Mi"}, "requests": {"cpu": "100m", "memory": "32Mi"}},
        "volumeMounts": [{"name": "d", "mountPath": "/d"}],
    });
    let said = pods::output(
        kubectl,
        name,
        json!({
            "containers": [shell_with("c", script, limits), pods::shell("free", "true")],
            "volumes": [volume("d", source(items, 0o400))],
        }),
    )?;
    let node = kubectl.json(&["get", "node", "n1"])?;
    let amount =
        |resource: &str| node["status"]["allocatable"][resource].as_str().unwrap_or_default().to_owned();
    let cpu: u64 = match amount("cpu").strip_suffix('m') {
        Some(thousandths) => thousandths.parse()?,
        None => amount("cpu").parse::<u64>()? * 1000,
    };
    let memory = match amount("memory").strip_suffix("Ki") {
        Some(kilobytes) => kilobytes.parse::<u64>()? * 1024,
        None => amount("memory").parse()?,
    };
    let wanted = format!("250\n100\n64\n32\n{cpu}\n{memory}\n{name}\n444\n400\n");
    ensure!(said == wanted, "{said} and not {wanted}");
    Ok(())
}

fn metadata(kubectl: &Kubectl, name: &str, source: fn(Value, u32) -> Value) -> anyhow::Result<()> {
    let items = json!([
        {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
        {"path": "annotations", "fieldRef": {"fieldPath": "metadata.annotations"}},
    ]);
    let mounts = json!({"volumeMounts": [{"name": "d", "mountPath": "/d"}]});
    let spec = json!({
        "containers": [shell_with("c", "exec sleep 10000", mounts)],
        "volumes": [volume("d", source(items, 0o644))],
    });
    pods::create(kubectl, name, spec)?;
    pods::until_ready(kubectl, name)?;
    let shows = |file: &str, wanted: &str| {
        eventually(CHANGED, || {
            let said = kubectl.ok(&["exec", name, "--", "cat", &format!("/d/{file}")])?;
            ensure!(said.lines().any(|line| line == wanted), "{said}");
            Ok(())
        })
    };
    shows("labels", &format!("app=\"{name}\""))?;
    kubectl.ok(&["label", "pod", name, "cargo=tea"])?;
    kubectl.ok(&["annotate", "pod", name, "captain=Ann"])?;
    shows("labels", "cargo=\"tea\"")?;
    shows("annotations", "captain=\"Ann\"")?;
    kubectl.ok(&["delete", "pod", name, "--wait=false"]).map(drop)
}

fn optional(kubectl: &Kubectl) -> anyhow::Result<()> {
    kubectl.ok(&["create", "configmap", "goes", "--from-literal=key=1"])?;
    kubectl.ok(&["create", "secret", "generic", "goes", "--from-literal=key=1"])?;
    let volumes: Vec<Value> = ["goes", "comes"]
        .iter()
        .flat_map(|object| {
            let source = |kind: &str, key: &str| source(kind, key, object, json!({"optional": true}));
            [
                volume(&format!("map-{object}"), source("configMap", "name")),
                volume(&format!("secret-{object}"), source("secret", "secretName")),
                volume(
                    &format!("all-{object}"),
                    json!({"projected": {"sources": [source("configMap", "name")]}}),
                ),
                volume(
                    &format!("hid-{object}"),
                    json!({"projected": {"sources": [source("secret", "name")]}}),
                ),
            ]
        })
        .collect();
    let mounts: Vec<Value> = volumes.iter().filter_map(|volume| volume["name"].as_str()).map(mount).collect();
    let container = shell_with("c", "exec sleep 10000", json!({"volumeMounts": mounts}));
    pods::create(kubectl, "optional", json!({"containers": [container], "volumes": volumes}))?;
    pods::until_ready(kubectl, "optional")?;
    let shows = |object: &str, wanted: &str| {
        let script = format!(
            "cat /map-{object}/key /secret-{object}/key /all-{object}/key /hid-{object}/key 2>/dev/null; true"
        );
        eventually(CHANGED, || {
            let said = kubectl.ok(&["exec", "optional", "--", "sh", "-c", &script])?;
            ensure!(said == wanted, "{object}: {said:?} and not {wanted:?}");
            Ok(())
        })
    };
    shows("goes", "1111")?;
    shows("comes", "")?;
    kubectl.ok(&["create", "configmap", "comes", "--from-literal=key=2"])?;
    kubectl.ok(&["create", "secret", "generic", "comes", "--from-literal=key=2"])?;
    shows("comes", "2222")?;
    kubectl.ok(&["patch", "configmap", "comes", "-p", r#"{"data": {"key": "3"}}"#])?;
    kubectl.ok(&["patch", "secret", "comes", "-p", r#"{"stringData": {"key": "3"}}"#])?;
    shows("comes", "3333")?;
    kubectl.ok(&["delete", "configmap/goes", "secret/goes"])?;
    shows("goes", "")?;
    kubectl.ok(&["delete", "pod", "optional", "--wait=false"]).map(drop)
}

fn combined(kubectl: &Kubectl) -> anyhow::Result<()> {
    let sources = json!([
        {"configMap": {"name": "ship", "items": [{"key": "mast", "path": "from/map"}]}},
        {"secret": {"name": "ship", "items": [{"key": "keel", "path": "from/secret"}]}},
        {"downwardAPI": {"items": [{"path": "from/pod", "fieldRef": {"fieldPath": "metadata.name"}}]}},
        {"serviceAccountToken": {"path": "from/token"}},
    ]);
    let container = shell_with(
        "c",
        "cd /all/from; cat map secret pod; test -s token && echo; ls",
        json!({"volumeMounts": [{"name": "all", "mountPath": "/all"}]}),
    );
    let volumes = json!([{"name": "all", "projected": {"sources": sources}}]);
    let said = pods::output(kubectl, "combined", json!({"containers": [container], "volumes": volumes}))?;
    ensure!(said == "talldeepcombined\nmap\npod\nsecret\ntoken\n", "{said}");
    Ok(())
}

/// Wrapped in folders of their own, they neither hide nor race with one another.
fn beside(kubectl: &Kubectl) -> anyhow::Result<()> {
    let mut volumes: Vec<Value> =
        (0..20).map(|n| volume(&format!("map-{n}"), json!({"configMap": {"name": "ship"}}))).collect();
    volumes.push(volume("hidden", json!({"secret": {"secretName": "ship"}})));
    volumes.push(volume("scratch", json!({"emptyDir": {}})));
    let mounts: Vec<Value> = volumes.iter().filter_map(|volume| volume["name"].as_str()).map(mount).collect();
    let container = shell_with(
        "c",
        "cat /map-*/mast | wc -c; cat /hidden/keel; echo; ls -A /scratch",
        json!({"volumeMounts": mounts}),
    );
    for round in 0..3 {
        let spec = json!({"containers": [container], "volumes": volumes});
        let said = pods::output(kubectl, &format!("beside-{round}"), spec)?;
        ensure!(said == "80\ndeep\n", "{said}");
    }
    Ok(())
}

fn immutable(kubectl: &Kubectl) -> anyhow::Result<()> {
    for (kind, data) in [("ConfigMap", "data"), ("Secret", "stringData")] {
        let object = json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": "stone"}, "immutable": true, data: {"a": "1"}});
        pods::make(kubectl, &[object])?;
        let resource = kind.to_lowercase();
        let said = kubectl.refused(&[
            "patch",
            &resource,
            "stone",
            "-p",
            &format!(r#"{{"{data}": {{"a": "2"}}}}"#),
        ])?;
        ensure!(said.contains("field is immutable when `immutable` is set"), "{said}");
        let said = kubectl.refused(&["patch", &resource, "stone", "-p", r#"{"immutable": false}"#])?;
        ensure!(said.contains("field is immutable when `immutable` is set"), "{said}");
        kubectl.ok(&["delete", &resource, "stone"])?;
    }
    Ok(())
}

fn empty_key(kubectl: &Kubectl) -> anyhow::Result<()> {
    for (kind, data) in [("ConfigMap", "data"), ("Secret", "stringData")] {
        let object =
            json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": "nameless"}, data: {"": "value"}});
        let output = kubectl.run_with(&["create", "-f", "-"], &object.to_string(), &[])?;
        ensure!(output.code != Some(0) && output.stderr.contains("is invalid: data[]"), "{output:?}");
    }
    Ok(())
}
