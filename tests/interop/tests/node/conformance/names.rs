//! What names mean inside a pod.

use anyhow::ensure;
use interop::{Checks, Kubectl, eventually};
use serde_json::json;

use super::World;
use crate::pods::{self, PATIENCE, shell};

pub fn run(world: &World<'_>, checks: &mut Checks) {
    let kubectl = world.kubectl;
    checks.check("Services have addresses, named ports and names back", || services(kubectl));
    checks.check("a pod with a hostname and subdomain has a name, which its own hosts know", || {
        own_names(kubectl)
    });
    checks.check("a name outside follows its Service", || outside(kubectl));
}

fn look(kubectl: &Kubectl, kind: &str, name: &str) -> anyhow::Result<String> {
    kubectl.ok(&["exec", "looks", "--", "nslookup", &format!("-type={kind}"), name])
}

/// Until the answer has this.
fn shows(kubectl: &Kubectl, kind: &str, name: &str, wanted: &str) -> anyhow::Result<()> {
    eventually(PATIENCE, || {
        let said = look(kubectl, kind, name)?;
        ensure!(said.contains(wanted), "{kind} of {name}: no {wanted} in {said}");
        Ok(())
    })
}

fn services(kubectl: &Kubectl) -> anyhow::Result<()> {
    pods::create(
        kubectl,
        "looks",
        json!({"hostname": "querier", "subdomain": "loft", "containers": [shell("c", "exec sleep 10000")]}),
    )?;
    let service = |name: &str, address: serde_json::Value| {
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
            "spec": {"clusterIP": address, "selector": {"app": "looks"}, "ports": [{"name": "http", "port": 80}]},
        })
    };
    pods::make(kubectl, &[service("look", serde_json::Value::Null), service("loft", json!("None"))])?;
    pods::until_ready(kubectl, "looks")?;
    let ip = kubectl.ok(&["get", "service", "look", "-o", "jsonpath={.spec.clusterIP}"])?;
    let pod = kubectl.ok(&["get", "pod", "looks", "-o", "jsonpath={.status.podIP}"])?;
    shows(kubectl, "a", "kubernetes.default.svc.cluster.local", "Address: 10.96.0.1")?;
    shows(kubectl, "a", "look.default.svc.cluster.local", &format!("Address: {ip}"))?;
    shows(kubectl, "a", "loft.default.svc.cluster.local", &format!("Address: {pod}"))?;
    shows(kubectl, "srv", "_http._tcp.look.default.svc.cluster.local", "look.default.svc.cluster.local")?;
    shows(
        kubectl,
        "srv",
        "_http._tcp.loft.default.svc.cluster.local",
        "querier.loft.default.svc.cluster.local",
    )?;
    for (address, name) in
        [(&ip, "look.default.svc.cluster.local"), (&pod, "querier.loft.default.svc.cluster.local")]
    {
        let mut parts: Vec<&str> = address.split('.').collect();
        parts.reverse();
        shows(kubectl, "ptr", &format!("{}.in-addr.arpa", parts.join(".")), name)?;
    }
    // In part: the search list makes it whole.
    let ping = |name: &str| kubectl.ok(&["exec", "looks", "--", "ping", "-c", "1", "-W", "2", name]);
    for name in ["loft", "loft.default", "loft.default.svc", "querier.loft"] {
        let said = ping(name)?;
        ensure!(said.contains(&format!("({pod})")), "{name}: {said}");
    }
    Ok(())
}

fn own_names(kubectl: &Kubectl) -> anyhow::Result<()> {
    let pod = kubectl.ok(&["get", "pod", "looks", "-o", "jsonpath={.status.podIP}"])?;
    shows(kubectl, "a", "querier.loft.default.svc.cluster.local", &format!("Address: {pod}"))?;
    let hosts = kubectl.ok(&["exec", "looks", "--", "cat", "/etc/hosts"])?;
    let line = format!("{pod}\tquerier.loft.default.svc.cluster.local\tquerier\n");
    ensure!(hosts.ends_with(&line), "{hosts}");
    Ok(())
}

fn outside(kubectl: &Kubectl) -> anyhow::Result<()> {
    kubectl.ok(&["create", "service", "externalname", "far", "--external-name=foo.example.com"])?;
    shows(kubectl, "cname", "far.default.svc.cluster.local", "foo.example.com")?;
    kubectl.ok(&["patch", "service", "far", "-p", r#"{"spec": {"externalName": "bar.example.com"}}"#])?;
    shows(kubectl, "cname", "far.default.svc.cluster.local", "bar.example.com")?;
    let turned = r#"{"spec": {"type": "ClusterIP", "externalName": null, "ports": [{"port": 80, "protocol": "TCP"}]}}"#;
    kubectl.ok(&["patch", "service", "far", "-p", turned])?;
    let ip = kubectl.ok(&["get", "service", "far", "-o", "jsonpath={.spec.clusterIP}"])?;
    shows(kubectl, "a", "far.default.svc.cluster.local", &format!("Address: {ip}"))
}
