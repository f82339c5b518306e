//! Making and changing single objects.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, ensure};
use interop::{Checks, Folder, Kubectl};
use serde_json::{Value, json};

use super::World;

pub(super) fn objects(world: &World<'_>, checks: &mut Checks) {
    let kubectl = world.kubectl;
    creating(kubectl, checks);
    marking(kubectl, checks);
    patching(kubectl, checks);
    editing(kubectl, checks);
    applying(kubectl, checks);
    refusing(kubectl, checks);
}

fn creating(kubectl: &Kubectl, checks: &mut Checks) {
    checks.check("config maps and secrets from literals", || {
        kubectl.ok(&[
            "create",
            "configmap",
            "settings",
            "--from-literal=color=red",
            "--from-literal=size=9",
        ])?;
        kubectl.ok(&["create", "secret", "generic", "password", "--from-literal=word=open sesame"])?;
        let map = kubectl.json(&["get", "configmap", "settings"])?;
        ensure!(map["data"] == json!({"color": "red", "size": "9"}), "{}", map["data"]);
        let secret = kubectl.ok(&["get", "secret", "password", "-o", "jsonpath={.data.word} {.type}"])?;
        ensure!(secret == "b3BlbiBzZXNhbWU= Opaque", "{secret}");
        Ok(())
    });
    checks.check("a server dry run creates nothing", || {
        let arguments =
            ["create", "configmap", "dry", "--from-literal=a=b", "--dry-run=server", "-o", "json"];
        let made: Value = serde_json::from_str(&kubectl.ok(&arguments)?)?;
        ensure!(made["metadata"]["uid"].is_string(), "{made}");
        kubectl.refused(&["get", "configmap", "dry"]).map(drop)
    });
    checks.check("a second of the same name is refused", || {
        let said = kubectl.refused(&["create", "configmap", "settings"])?;
        ensure!(said.contains("configmaps \"settings\" already exists"), "{said}");
        Ok(())
    });
    checks.check("generateName makes names", || {
        let manifest =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "made-"}});
        let name = kubectl.ok_with(&["create", "-f", "-", "-o", "name"], &manifest.to_string())?;
        ensure!(name.trim().len() == "configmap/made-".len() + 5, "{name}");
        Ok(())
    });
}

fn marking(kubectl: &Kubectl, checks: &mut Checks) {
    let labels =
        || kubectl.json(&["get", "configmap", "settings"]).map(|map| map["metadata"]["labels"].clone());
    checks.check("label adds, refuses to overwrite, overwrites and removes", || {
        kubectl.ok(&["label", "configmap", "settings", "tier=one"])?;
        let said = kubectl.refused(&["label", "configmap", "settings", "tier=two"])?;
        ensure!(said.contains("--overwrite"), "{said}");
        kubectl.ok(&["label", "--overwrite", "configmap", "settings", "tier=two"])?;
        ensure!(labels()? == json!({"tier": "two"}), "{}", labels()?);
        kubectl.ok(&["label", "configmap", "settings", "tier-"])?;
        ensure!(labels()?.is_null(), "{}", labels()?);
        Ok(())
    });
    checks.check("annotate adds and removes", || {
        kubectl.ok(&["annotate", "configmap", "settings", "example.com/note=a b"])?;
        let map = kubectl.json(&["get", "configmap", "settings"])?;
        ensure!(map["metadata"]["annotations"]["example.com/note"] == "a b", "{}", map["metadata"]);
        kubectl.ok(&["annotate", "configmap", "settings", "example.com/note-"]).map(drop)
    });
}

fn patching(kubectl: &Kubectl, checks: &mut Checks) {
    let containers = || -> anyhow::Result<Vec<String>> {
        let deployment = kubectl.json(&["get", "deployment", "patched"])?;
        let list =
            deployment["spec"]["template"]["spec"]["containers"].as_array().cloned().unwrap_or_default();
        Ok(list.iter().map(|one| format!("{} {}", one["name"], one["image"]).replace('"', "")).collect())
    };
    let patch = |kind: &str, patch: Value| {
        kubectl.ok(&["patch", "deployment", "patched", "--type", kind, "-p", &patch.to_string()]).map(drop)
    };
    checks.check("a strategic merge patch merges containers by name", || {
        kubectl.ok(&["create", "deployment", "patched", "--image=registry.example/web:1"])?;
        let added = json!({"name": "logs", "image": "registry.example/logs:1"});
        patch("strategic", json!({"spec": {"template": {"spec": {"containers": [added]}}}}))?;
        let now = containers()?;
        ensure!(now == ["logs registry.example/logs:1", "web registry.example/web:1"], "{now:?}");
        let removed = json!({"name": "logs", "$patch": "delete"});
        patch("strategic", json!({"spec": {"template": {"spec": {"containers": [removed]}}}}))?;
        ensure!(containers()? == ["web registry.example/web:1"], "{:?}", containers()?);
        Ok(())
    });
    checks.check("a merge patch replaces lists and removes with null", || {
        let only = json!({"name": "only", "image": "registry.example/only:1"});
        patch("merge", json!({"metadata": {"labels": {"app": null}}, "spec": {"template": {"spec": {"containers": [only]}}}}))?;
        ensure!(containers()? == ["only registry.example/only:1"], "{:?}", containers()?);
        let labels = kubectl.json(&["get", "deployment", "patched"])?["metadata"]["labels"].clone();
        ensure!(labels.is_null(), "{labels}");
        Ok(())
    });
    checks.check("a JSON patch tests and replaces", || {
        let image = "/spec/template/spec/containers/0/image";
        let test = json!({"op": "test", "path": image, "value": "registry.example/only:1"});
        let replace = json!({"op": "replace", "path": image, "value": "registry.example/only:2"});
        patch("json", json!([test, replace]))?;
        ensure!(containers()? == ["only registry.example/only:2"], "{:?}", containers()?);
        let arguments =
            ["patch", "deployment", "patched", "--type", "json", "-p", &json!([test]).to_string()];
        kubectl.refused(&arguments).map(drop)
    });
    checks.check("the status can be patched apart from the spec", || {
        let status = json!({"status": {"conditions": [{"type": "Checked", "status": "True"}]}, "spec": {"replicas": 7}});
        let arguments = ["patch", "deployment", "patched", "--subresource=status", "--type=merge", "-p", &status.to_string()];
        kubectl.ok(&arguments)?;
        let deployment = kubectl.json(&["get", "deployment", "patched"])?;
        ensure!(deployment["spec"]["replicas"] == 1, "the spec changed: {}", deployment["spec"]["replicas"]);
        Ok(())
    });
    checks.check("set changes what it names", || {
        kubectl.ok(&["set", "env", "deployment/patched", "COLOR=red"])?;
        kubectl.ok(&["set", "resources", "deployment/patched", "--requests=cpu=10m"])?;
        let deployment = kubectl.json(&["get", "deployment", "patched"])?;
        let container = &deployment["spec"]["template"]["spec"]["containers"][0];
        ensure!(container["env"] == json!([{"name": "COLOR", "value": "red"}]), "{container}");
        ensure!(container["resources"]["requests"]["cpu"] == "10m", "{container}");
        Ok(())
    });
}

fn editing(kubectl: &Kubectl, checks: &mut Checks) {
    checks.check("edit saves what the editor leaves", || {
        let folder = Folder::new()?;
        let editor = folder.path().join("editor");
        fs::write(&editor, "#!/bin/sh\nsed -i 's/color: red/color: blue/' \"$1\"\n")
            .context("writing an editor")?;
        fs::set_permissions(&editor, fs::Permissions::from_mode(0o700)).context("making it a program")?;
        let environment = [("EDITOR", editor.as_str()), ("KUBE_EDITOR", editor.as_str())];
        let output = kubectl.run_with(&["edit", "configmap", "settings"], "", &environment)?;
        ensure!(output.stdout.contains("configmap/settings edited"), "{output:?}");
        let color = kubectl.ok(&["get", "configmap", "settings", "-o", "jsonpath={.data.color}"])?;
        ensure!(color == "blue", "{color}");
        Ok(())
    });
    checks.check("replace replaces, and not with an old version", || {
        let mut map = kubectl.json(&["get", "configmap", "settings"])?;
        let old = map.clone();
        map["data"] = json!({"only": "this"});
        kubectl.ok_with(&["replace", "-f", "-"], &map.to_string())?;
        let data = kubectl.json(&["get", "configmap", "settings"])?["data"].clone();
        ensure!(data == json!({"only": "this"}), "{data}");
        let said = kubectl.run_with(&["replace", "-f", "-"], &old.to_string(), &[])?;
        ensure!(
            said.stderr.contains("(Conflict)") && said.stderr.contains("the object has been modified"),
            "{said:?}"
        );
        Ok(())
    });
}

fn applying(kubectl: &Kubectl, checks: &mut Checks) {
    let manifest = |data: Value| {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "applied"}, "data": data})
            .to_string()
    };
    let data = || kubectl.json(&["get", "configmap", "applied"]).map(|map| map["data"].clone());
    checks.check("apply removes what the manifest no longer has, and nothing else", || {
        kubectl.ok_with(&["apply", "-f", "-"], &manifest(json!({"a": "1", "b": "2"})))?;
        kubectl.ok(&["patch", "configmap", "applied", "--type=merge", "-p", r#"{"data":{"c":"3"}}"#])?;
        let said = kubectl.ok_with(&["apply", "-f", "-"], &manifest(json!({"a": "1"})))?;
        ensure!(said.contains("configured"), "{said}");
        ensure!(data()? == json!({"a": "1", "c": "3"}), "{}", data()?);
        kubectl.ok(&["delete", "configmap", "applied"]).map(drop)
    });
    checks.check("server-side apply tells of a conflict, and takes over when forced", || {
        let apply = |manager: &str, more: &[&str], value: &str| {
            let manager = format!("--field-manager={manager}");
            let mut arguments = vec!["apply", "--server-side", manager.as_str(), "-f", "-"];
            arguments.extend(more);
            kubectl.run_with(&arguments, &manifest(json!({ "a": value })), &[])
        };
        ensure!(apply("one", &[], "1")?.code == Some(0), "the first apply failed");
        let refused = apply("two", &[], "2")?;
        let said = &refused.stderr;
        ensure!(said.contains("conflict with \"one\"") && said.contains(".data.a"), "{refused:?}");
        ensure!(apply("two", &["--force-conflicts"], "2")?.code == Some(0), "the forced apply failed");
        let map = kubectl.json(&["get", "configmap", "applied", "--show-managed-fields"])?;
        ensure!(map["data"] == json!({"a": "2"}), "{}", map["data"]);
        let managers: Vec<_> = map["metadata"]["managedFields"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|one| one["manager"].clone())
            .collect();
        ensure!(managers.contains(&json!("two")), "{managers:?}");
        Ok(())
    });
    checks.check("what only one manager applied goes when that manager drops it", || {
        let arguments = ["apply", "--server-side", "--field-manager=two", "-f", "-"];
        kubectl.ok_with(&arguments, &manifest(json!({})))?;
        let now = data()?;
        ensure!(now.is_null() || now == json!({}), "{now}");
        Ok(())
    });
}

fn refusing(kubectl: &Kubectl, checks: &mut Checks) {
    let complains = |manifest: &str, wanted: &str| -> anyhow::Result<()> {
        let output = kubectl.run_with(&["create", "-f", "-"], manifest, &[])?;
        ensure!(output.code != Some(0) && output.stderr.contains(wanted), "no {wanted:?} in {output:?}");
        Ok(())
    };
    checks.check("an unknown field is refused by name", || {
        let manifest = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x"},"dato":{}}"#;
        complains(manifest, "unknown field \"dato\"")
    });
    checks.check("a bad name is refused with what is allowed", || {
        let manifest = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"Bad_Name"}}"#;
        complains(manifest, "a lowercase RFC 1123 subdomain must consist of")
    });
    checks.check("an invalid deployment is refused with every complaint", || {
        let manifest = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "bad"},
            "spec": {
                "replicas": -1,
                "selector": {"matchLabels": {"app": "one"}},
                "template": {"metadata": {"labels": {"app": "two"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
            },
        });
        complains(&manifest.to_string(), "spec.replicas: Invalid value: -1: must be greater than or equal to 0")?;
        complains(&manifest.to_string(), "`selector` does not match template `labels`")
    });
    checks.check("an immutable field stays", || {
        let patch = r#"{"spec":{"selector":{"matchLabels":{"app":"other"}}}}"#;
        let said = kubectl.refused(&["patch", "deployment", "patched", "-p", patch])?;
        ensure!(said.contains("field is immutable"), "{said}");
        Ok(())
    });
    checks.check("a namespace that is not there is named", || {
        let said = kubectl.refused(&["create", "configmap", "lost", "-n", "nowhere"])?;
        ensure!(said.contains("namespaces \"nowhere\" not found"), "{said}");
        Ok(())
    });
    checks.check("a pod that fits nowhere says why", || {
        let manifest = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "huge"},
            "spec": {"containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "100000"}}}]},
        });
        kubectl.ok_with(&["create", "-f", "-"], &manifest.to_string())?;
        interop::eventually(std::time::Duration::from_secs(30), || {
            let said = kubectl.ok(&["describe", "pod", "huge"])?;
            let wanted = "0/3 nodes are available: 3 Insufficient cpu.";
            ensure!(said.contains("FailedScheduling") && said.contains(wanted), "{said}");
            Ok(())
        })
    });
}
