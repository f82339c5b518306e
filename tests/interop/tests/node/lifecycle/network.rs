//! Names and policies, as a pod sees them.

use anyhow::{Context, ensure};
use interop::{Checks, Kubectl, eventually};
use serde_json::{Value, json};

use super::World;
use crate::http;
use crate::pods::{self, PATIENCE, shell, shell_with};
use crate::world::ADDRESS;

/// The next one is taken, too.
const HOST_PORT: u16 = 18_090;

pub fn run(world: &World<'_>, checks: &mut Checks) {
    let kubectl = &world.kubectl.within("net");
    checks.check("a server and a client are there", || parties(kubectl));
    checks.check("names of a Service, its pods and the cluster are known", || names(kubectl));
    checks.check("a port of the host leads to its pod, also on the loopback", || host_port(kubectl));
    checks.check("a pod's hostname and search list are its own", || own_name(kubectl));
    checks.check("a policy closes a pod, another opens it to some", || policies(kubectl));
}

fn parties(kubectl: &Kubectl) -> anyhow::Result<()> {
    kubectl.ok(&["create", "namespace", "net"])?;
    eventually(PATIENCE, || kubectl.ok(&["get", "serviceaccount", "default"]).map(drop))?;
    let service = |name: &str, address: Value| {
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
            "spec": {"clusterIP": address, "selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
        })
    };
    pods::make(kubectl, &[service("web", Value::Null), service("headless", json!("None"))])?;
    let probe = json!({"readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1}});
    pods::create(
        kubectl,
        "web",
        json!({
            "hostname": "first", "subdomain": "headless",
            "containers": [shell_with("c", "exec httpd -f -p 8080 -h /www", probe)],
        }),
    )?;
    pods::create(kubectl, "client", json!({"containers": [shell("c", "exec sleep 10000")]}))?;
    pods::until_ready(kubectl, "web")?;
    pods::until_ready(kubectl, "client").map(drop)
}

/// Debian's static busybox crashes in the time limit of its own `wget`: `timeout` is the limit here.
fn within(kubectl: &Kubectl, command: &[&str]) -> anyhow::Result<String> {
    let mut all = vec!["exec", "client", "--"];
    all.extend(command);
    kubectl.ok(&all)
}

fn field(kubectl: &Kubectl, object: &str, path: &str) -> anyhow::Result<String> {
    kubectl.ok(&["get", object, "-o", &format!("jsonpath={path}")])
}

fn names(kubectl: &Kubectl) -> anyhow::Result<()> {
    let service = field(kubectl, "service/web", "{.spec.clusterIP}")?;
    let pod = field(kubectl, "pod/web", "{.status.podIP}")?;
    let dashed = format!("{}.net.pod.cluster.local", pod.replace('.', "-"));
    for (name, address) in [
        ("web.net.svc.cluster.local", &service),
        ("headless.net.svc.cluster.local", &pod),
        ("first.headless.net.svc.cluster.local", &pod),
        (dashed.as_str(), &pod),
        ("kubernetes.default.svc.cluster.local", &"10.96.0.1".to_owned()),
    ] {
        eventually(PATIENCE, || {
            let said = within(kubectl, &["nslookup", "-type=a", name])?;
            ensure!(said.contains(&format!("Name:\t{name}\nAddress: {address}")), "{name}: {said}");
            Ok(())
        })?;
    }
    for name in ["web", "web.net", "web.net.svc", "first.headless:8080"] {
        let page = within(kubectl, &["timeout", "5", "wget", "-q", "-O", "-", &format!("http://{name}/")])?;
        ensure!(page == "page\n", "{name}: {page}");
    }
    let unknown =
        kubectl.refused(&["exec", "client", "--", "nslookup", "-type=a", "nobody.net.svc.cluster.local"])?;
    ensure!(unknown.contains("exit code 1"), "{unknown}");
    Ok(())
}

fn host_port(kubectl: &Kubectl) -> anyhow::Result<()> {
    let ports = json!({"ports": [
        {"containerPort": 8080, "hostPort": HOST_PORT},
        {"containerPort": 8080, "hostPort": HOST_PORT + 1, "hostIP": "127.0.0.1"},
    ]});
    let web = shell_with("c", "exec httpd -f -p 8080 -h /www", ports);
    pods::create(kubectl, "ported", json!({"containers": [web]}))?;
    pods::until_ready(kubectl, "ported")?;
    let page = |address: &str, port: u16| http::get(format!("{address}:{port}").parse()?);
    for (address, port) in [(ADDRESS, HOST_PORT), ("127.0.0.1", HOST_PORT), ("127.0.0.1", HOST_PORT + 1)] {
        eventually(PATIENCE, || {
            let page = page(address, port).with_context(|| format!("{address}:{port}"))?;
            ensure!(page == "page\n", "{address}:{port}: {page}");
            Ok(())
        })?;
    }
    ensure!(page(ADDRESS, HOST_PORT + 1).is_err(), "the port of the loopback is elsewhere, too");
    kubectl.ok(&["delete", "pod", "ported"]).map(drop)
}

fn own_name(kubectl: &Kubectl) -> anyhow::Result<()> {
    let said = kubectl.ok(&["exec", "web", "--", "hostname", "-f"])?;
    ensure!(said == "first.headless.net.svc.cluster.local\n", "{said}");
    let said = within(kubectl, &["cat", "/etc/resolv.conf"])?;
    let search = said.lines().find(|line| line.starts_with("search ")).context("no search list")?;
    ensure!(search.starts_with("search net.svc.cluster.local svc.cluster.local cluster.local"), "{said}");
    ensure!(said.contains("options ndots:5"), "{said}");
    Ok(())
}

fn policies(kubectl: &Kubectl) -> anyhow::Result<()> {
    let policy = |name: &str, ingress: Value| {
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": name},
            "spec": {"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Ingress"], "ingress": ingress},
        })
    };
    let page = || within(kubectl, &["timeout", "1", "wget", "-q", "-O", "-", "http://web/"]);
    page()?;
    pods::make(kubectl, &[policy("closed", json!([]))])?;
    eventually(PATIENCE, || {
        ensure!(page().is_err(), "the pod still answers");
        Ok(())
    })?;
    let from =
        json!([{"from": [{"podSelector": {"matchLabels": {"app": "client"}}}], "ports": [{"port": 8080}]}]);
    pods::make(kubectl, &[policy("open", from)])?;
    eventually(PATIENCE, || page().map(drop))?;
    kubectl.ok(&["label", "pod", "client", "app=stranger", "--overwrite"])?;
    eventually(PATIENCE, || {
        ensure!(page().is_err(), "the pod answers a stranger");
        Ok(())
    })?;
    kubectl.ok(&["delete", "networkpolicy", "--all"])?;
    eventually(PATIENCE, || page().map(drop))
}
