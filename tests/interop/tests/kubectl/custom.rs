//! Definitions of others and what they define: large ones applied twice, explained, and a small one lived with.

use anyhow::{Context, ensure};
use camino::Utf8Path;
use interop::{Checks, Kubectl};
use serde_json::json;

use super::World;

const DEFINITION: &str = r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: ponds.suite.pintle.dev}
spec:
  group: suite.pintle.dev
  scope: Namespaced
  names: {plural: ponds, singular: pond, kind: Pond, shortNames: [pd]}
  versions:
    - name: v1
      served: true
      storage: true
      subresources: {status: {}, scale: {specReplicasPath: .spec.frogs, statusReplicasPath: .status.frogs}}
      additionalPrinterColumns:
        - {name: Frogs, type: integer, jsonPath: .spec.frogs}
        - {name: Depth, type: string, jsonPath: .spec.depth, priority: 1}
      schema:
        openAPIV3Schema:
          type: object
          description: A pond with frogs in it
          properties:
            spec:
              type: object
              properties:
                frogs: {type: integer, minimum: 0, maximum: 12, default: 1, description: How many live in it}
                depth: {type: string, enum: [shallow, deep]}
              x-kubernetes-validations:
                - {rule: "self.frogs < 10 || self.depth == 'deep'", message: many frogs need a deep pond}
            status: {type: object, properties: {frogs: {type: integer}}}
"#;

pub(super) fn custom(world: &World<'_>, checks: &mut Checks) {
    let kubectl = world.kubectl;
    if let Some(manifests) = Utf8Path::new(world.boutique).parent() {
        large(kubectl, manifests, checks);
    }
    own(kubectl, checks);
}

/// What Argo CD and the Prometheus operator install: definitions of hundreds of kilobytes.
fn large(kubectl: &Kubectl, manifests: &Utf8Path, checks: &mut Checks) {
    for (what, path, resource, field) in [
        (
            "Argo CD",
            "argo-cd-install.yaml",
            "applications.argoproj.io",
            "applications.spec.syncPolicy.automated",
        ),
        (
            "the Prometheus operator's definitions",
            "prometheus-operator-crds",
            "prometheuses.monitoring.coreos.com",
            "prometheuses.spec.alerting.alertmanagers",
        ),
    ] {
        let path = manifests.join(path);
        let apply = ["apply", "--server-side", "--force-conflicts", "-f", path.as_str()];
        checks.check(&format!("{what} is applied"), || {
            let said = kubectl.ok(&apply)?;
            ensure!(said.contains("serverside-applied"), "{said}");
            kubectl.ok(&["wait", "--for=condition=Established", "--timeout=30s", "crd", resource]).map(drop)
        });
        checks.check(&format!("{what} applied again changes nothing"), || {
            let versions = || -> anyhow::Result<String> {
                let arguments = [
                    "get",
                    "crd",
                    "-o",
                    "jsonpath={range .items[*]}{.metadata.name}={.metadata.resourceVersion} {end}",
                ];
                kubectl.ok(&arguments)
            };
            let before = versions()?;
            kubectl.ok(&apply)?;
            let after = versions()?;
            ensure!(before == after, "{before}\nbecame\n{after}");
            Ok(())
        });
        checks.check(&format!("{what} is explained"), || {
            let said = kubectl.ok(&["explain", field])?;
            let (kind, wanted) = (field.split('.').next().unwrap_or_default(), "FIELD");
            ensure!(said.contains(wanted), "nothing about {kind}: {said}");
            Ok(())
        });
    }
}

fn own(kubectl: &Kubectl, checks: &mut Checks) {
    checks.check("a definition is served", || {
        kubectl.ok_with(&["apply", "-f", "-"], DEFINITION)?;
        kubectl.ok(&[
            "wait",
            "--for=condition=Established",
            "--timeout=30s",
            "crd/ponds.suite.pintle.dev",
        ])?;
        let listed = kubectl.ok(&["api-resources", "--api-group=suite.pintle.dev", "--no-headers"])?;
        ensure!(listed.contains("ponds") && listed.contains("pd") && listed.contains("Pond"), "{listed}");
        Ok(())
    });
    let pond = |frogs: i64, depth: &str| {
        json!({"apiVersion": "suite.pintle.dev/v1", "kind": "Pond", "metadata": {"name": "small"},
            "spec": {"frogs": frogs, "depth": depth}})
        .to_string()
    };
    checks.check("an object of it is made, with columns and defaults", || {
        kubectl.ok_with(&["apply", "-f", "-"], &pond(3, "shallow"))?;
        let table = kubectl.ok(&["get", "pd"])?;
        let mut lines = table.lines();
        let (head, row) = (lines.next().context("a head")?, lines.next().context("a row")?);
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        ensure!(words(head) == ["NAME", "FROGS"] && words(row) == ["small", "3"], "{table}");
        let wide = kubectl.ok(&["get", "ponds", "-o", "wide"])?;
        ensure!(wide.contains("DEPTH") && wide.contains("shallow"), "{wide}");
        Ok(())
    });
    checks.check("what the schema and its rules refuse is refused", || {
        let said = kubectl.ok_with(&["apply", "-f", "-"], &pond(13, "deep")).err().context("accepted")?;
        ensure!(format!("{said:#}").contains("should be less than or equal to 12"), "{said:#}");
        let said = kubectl.ok_with(&["apply", "-f", "-"], &pond(11, "shallow")).err().context("accepted")?;
        ensure!(format!("{said:#}").contains("many frogs need a deep pond"), "{said:#}");
        Ok(())
    });
    checks.check("it is scaled, patched and labelled", || {
        kubectl.ok(&["scale", "pond/small", "--replicas=5"])?;
        kubectl.ok(&["patch", "pond", "small", "--type=merge", "-p", r#"{"spec":{"depth":"deep"}}"#])?;
        kubectl.ok(&["label", "pond", "small", "kept=yes"])?;
        let now = kubectl.json(&["get", "pond", "small"])?;
        ensure!(now["spec"] == json!({"frogs": 5, "depth": "deep"}), "{}", now["spec"]);
        ensure!(
            kubectl.ok(&["get", "ponds", "-l", "kept=yes", "-o", "name"])?.trim()
                == "pond.suite.pintle.dev/small"
        );
        Ok(())
    });
    checks.check("its schema is explained", || {
        let said = kubectl.ok(&["explain", "pond.spec.frogs"])?;
        ensure!(said.contains("How many live in it"), "{said}");
        Ok(())
    });
    checks.check("a definition goes with what it defines", || {
        kubectl.ok(&["delete", "crd", "ponds.suite.pintle.dev", "--timeout=30s"])?;
        let said = kubectl.refused(&["get", "ponds"])?;
        // A client that remembers what was served asks for it, and is told that it is not.
        let unknown =
            ["the server doesn't have a resource type", "the server could not find the requested resource"];
        ensure!(unknown.iter().any(|text| said.contains(text)), "{said}");
        Ok(())
    });
    checks.check("top shows what simulated nodes are said to use", || {
        let said = kubectl.ok(&["top", "nodes", "--no-headers"])?;
        ensure!(said.lines().count() == super::SIM_NODES as usize, "{said}");
        Ok(())
    });
    checks.check("group versions have their APIServices", || {
        let said = kubectl.ok(&["get", "apiservices", "v1.apps", "--no-headers"])?;
        ensure!(said.contains("Local") && said.contains("True"), "{said}");
        Ok(())
    });
}
