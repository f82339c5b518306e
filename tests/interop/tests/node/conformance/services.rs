//! Services: which pods answer, on which ports and protocols, and how often the same one.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use anyhow::{Context, ensure};
use interop::{Checks, Kubectl, eventually};
use serde_json::{Value, json};

use super::World;
use crate::http;
use crate::pods::{self, PATIENCE, shell_with};
use crate::world::ADDRESS;

/// Pods that answer with their names.
const REPLICAS: usize = 3;
const NODE_PORT: u16 = 31_080;

pub fn run(world: &World<'_>, checks: &mut Checks) {
    let kubectl = world.kubectl;
    checks.check("pods that answer with their names", || replicas(kubectl));
    checks.check("every pod of a Service answers, by cluster IP and by node port", || everyone(kubectl));
    checks.check("a pod leaves its Service and another comes", || come_and_go(kubectl));
    checks
        .check("a client stays with a pod where the Service says so, and no longer when it does not", || {
            affinity(kubectl)
        });
    checks.check("a Service has several ports, each with its own target", || ports(kubectl));
    checks.check("endpoints that somebody else names are served", || foreign(kubectl));
    checks.check("a Service changes its type and back", || types(kubectl));
    checks.check("pods and the node reach pods over HTTP", || directly(kubectl));
    checks.check("the server is a proxy to pods and Services, by every verb", || proxy(kubectl));
    checks.check("the API server is a Service itself", || api_server(kubectl));
}

fn replicas(kubectl: &Kubectl) -> anyhow::Result<()> {
    let serve = "mkdir /page; hostname > /page/index.html; exec httpd -f -p 8080 -h /page";
    let probe = json!({"readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1}});
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "names"},
        "spec": {
            "replicas": REPLICAS, "selector": {"matchLabels": {"app": "names"}},
            "template": {
                "metadata": {"labels": {"app": "names"}},
                "spec": {"terminationGracePeriodSeconds": 1, "containers": [shell_with("c", serve, probe)]},
            },
        },
    });
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "names"},
        "spec": {
            "type": "NodePort", "selector": {"app": "names"},
            "ports": [{"port": 80, "targetPort": 8080, "nodePort": NODE_PORT}],
        },
    });
    pods::make(kubectl, &[deployment, service])?;
    kubectl.ok(&["rollout", "status", "deployment/names", "--timeout=60s"]).map(drop)
}

fn cluster_address(kubectl: &Kubectl, service: &str, port: u16) -> anyhow::Result<SocketAddr> {
    let ip = kubectl.ok(&["get", "service", service, "-o", "jsonpath={.spec.clusterIP}"])?;
    format!("{ip}:{port}").parse().with_context(|| format!("{service} is at {ip:?}"))
}

fn addresses(kubectl: &Kubectl) -> anyhow::Result<[SocketAddr; 2]> {
    Ok([
        cluster_address(kubectl, "names", 80)?,
        format!("{ADDRESS}:{NODE_PORT}").parse().context("an address")?,
    ])
}

fn names(kubectl: &Kubectl) -> anyhow::Result<BTreeSet<String>> {
    let said = kubectl.ok(&["get", "pods", "-l", "app=names", "-o", "jsonpath={.items[*].metadata.name}"])?;
    Ok(said.split_whitespace().map(str::to_owned).collect())
}

/// Exactly these answer there.
fn answer(address: SocketAddr, wanted: &BTreeSet<String>) -> anyhow::Result<()> {
    eventually(PATIENCE, || {
        let mut seen = BTreeSet::new();
        for _ in 0..30 {
            seen.insert(http::get(address)?.trim().to_owned());
        }
        ensure!(seen == *wanted, "{address}: {seen:?} and not {wanted:?}");
        Ok(())
    })
}

fn everyone(kubectl: &Kubectl) -> anyhow::Result<()> {
    let wanted = names(kubectl)?;
    ensure!(wanted.len() == REPLICAS, "{wanted:?}");
    addresses(kubectl)?.into_iter().try_for_each(|address| answer(address, &wanted))
}

fn come_and_go(kubectl: &Kubectl) -> anyhow::Result<()> {
    let [address, _] = addresses(kubectl)?;
    let one = names(kubectl)?.into_iter().next().context("no pod")?;
    kubectl.ok(&["label", "pod", &one, "app=left", "--overwrite"])?;
    kubectl.ok(&["rollout", "status", "deployment/names", "--timeout=60s"])?;
    let wanted = names(kubectl)?;
    ensure!(wanted.len() == REPLICAS && !wanted.contains(&one), "{wanted:?}");
    answer(address, &wanted)?;
    kubectl.ok(&["delete", "pod", &one, "--wait=false"]).map(drop)
}

fn affinity(kubectl: &Kubectl) -> anyhow::Result<()> {
    let wanted = names(kubectl)?;
    kubectl.ok(&["patch", "service", "names", "-p", r#"{"spec": {"sessionAffinity": "ClientIP"}}"#])?;
    for address in addresses(kubectl)? {
        eventually(PATIENCE, || {
            let mut seen = BTreeSet::new();
            for _ in 0..20 {
                seen.insert(http::get(address)?);
            }
            ensure!(seen.len() == 1, "{address}: {seen:?}");
            Ok(())
        })?;
    }
    kubectl.ok(&["patch", "service", "names", "-p", r#"{"spec": {"sessionAffinity": "None"}}"#])?;
    addresses(kubectl)?.into_iter().try_for_each(|address| answer(address, &wanted))
}

fn service(name: &str, app: &str, ports: Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"selector": {"app": app}, "ports": ports},
    })
}

fn ports(kubectl: &Kubectl) -> anyhow::Result<()> {
    let script = "mkdir /a /b; echo a > /a/index.html; echo b > /b/index.html; httpd -p 8081 -h /a; exec httpd -f -p 8082 -h /b";
    let fields = json!({"ports": [{"name": "first", "containerPort": 8081}, {"name": "other", "containerPort": 8082}]});
    pods::create(kubectl, "two-ports", json!({"containers": [shell_with("c", script, fields)]}))?;
    let both = json!([{"name": "a", "port": 80, "targetPort": "first"}, {"name": "b", "port": 81, "targetPort": "other"}]);
    pods::make(kubectl, &[service("two-ports", "two-ports", both)])?;
    pods::until_ready(kubectl, "two-ports")?;
    for (port, page) in [(80, "a\n"), (81, "b\n")] {
        let address = cluster_address(kubectl, "two-ports", port)?;
        eventually(PATIENCE, || {
            let said = http::get(address)?;
            ensure!(said == page, "{address}: {said}");
            Ok(())
        })?;
    }
    let slices = kubectl.json(&["get", "endpointslices", "-l", "kubernetes.io/service-name=two-ports"])?;
    ensure!(slices["items"][0]["ports"].as_array().is_some_and(|ports| ports.len() == 2), "{slices}");
    Ok(())
}

/// Two slices of two addresses, one of which is nobody's pod.
fn foreign(kubectl: &Kubectl) -> anyhow::Result<()> {
    let ips = kubectl.ok(&["get", "pods", "-l", "app=names", "-o", "jsonpath={.items[*].status.podIP}"])?;
    let ips: Vec<&str> = ips.split_whitespace().collect();
    let slice = |number: usize, ips: &[&str]| {
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": format!("foreign-{number}"), "labels": {"kubernetes.io/service-name": "foreign"}},
            "ports": [{"name": "web", "port": 8080, "protocol": "TCP"}, {"name": "again", "port": 8080, "protocol": "TCP"}],
            "endpoints": [{"addresses": ips[..1], "conditions": {"ready": true}}],
        })
    };
    let without_selector = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "foreign"},
        "spec": {"ports": [{"name": "web", "port": 80}, {"name": "again", "port": 81}]},
    });
    ensure!(ips.len() >= 2, "{ips:?}");
    pods::make(kubectl, &[without_selector, slice(1, &ips[..1]), slice(2, &ips[1..2])])?;
    let wanted = eventually(PATIENCE, || {
        let mut wanted = BTreeSet::new();
        for ip in &ips[..2] {
            let address: SocketAddr = format!("{ip}:8080").parse().context("an address")?;
            wanted.insert(http::get(address)?.trim().to_owned());
        }
        Ok(wanted)
    })?;
    for port in [80, 81] {
        answer(cluster_address(kubectl, "foreign", port)?, &wanted)?;
    }
    Ok(())
}

fn types(kubectl: &Kubectl) -> anyhow::Result<()> {
    let wanted = names(kubectl)?;
    let replace = |spec: Value| {
        let object =
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "turns"}, "spec": spec});
        kubectl.ok_with(&["apply", "-f", "-"], &object.to_string()).map(drop)
    };
    let ports = json!([{"port": 80, "targetPort": 8080}]);
    let outside = || replace(json!({"type": "ExternalName", "externalName": "harbour.example.com"}));
    for kind in ["ClusterIP", "NodePort"] {
        outside()?;
        let ip = kubectl.ok(&["get", "service", "turns", "-o", "jsonpath={.spec.clusterIP}"])?;
        ensure!(ip.is_empty(), "{ip}");
        replace(json!({"type": kind, "selector": {"app": "names"}, "ports": ports}))?;
        answer(cluster_address(kubectl, "turns", 80)?, &wanted)?;
        if kind == "NodePort" {
            let port =
                kubectl.ok(&["get", "service", "turns", "-o", "jsonpath={.spec.ports[0].nodePort}"])?;
            answer(format!("{ADDRESS}:{port}").parse().context("an address")?, &wanted)?;
        }
        outside()?;
    }
    Ok(())
}

fn directly(kubectl: &Kubectl) -> anyhow::Result<()> {
    let said = kubectl.ok(&[
        "get",
        "pods",
        "-l",
        "app=names",
        "-o",
        "jsonpath={.items[0].status.podIP} {.items[0].metadata.name}",
    ])?;
    let (ip, name) = said.split_once(' ').with_context(|| said.clone())?;
    let said = http::get(format!("{ip}:8080").parse().context("an address")?)?;
    ensure!(said.trim() == name, "{said}");
    let script = format!("wget -q -O - http://{ip}:8080/");
    let said = pods::output(kubectl, "asks-directly", json!({"containers": [pods::shell("c", &script)]}))?;
    ensure!(said.trim() == name, "{said}");
    Ok(())
}

fn proxy(kubectl: &Kubectl) -> anyhow::Result<()> {
    let one = names(kubectl)?.into_iter().next().context("no pod")?;
    for path in [
        format!("pods/{one}:8080/proxy/"),
        format!("pods/http:{one}:8080/proxy/"),
        "services/names:80/proxy/".to_owned(),
        "services/http:names:80/proxy/index.html".to_owned(),
        "services/two-ports:a/proxy/".to_owned(),
    ] {
        let said = kubectl.ok(&["get", "--raw", &format!("/api/v1/namespaces/default/{path}")])?;
        ensure!(!said.trim().is_empty(), "{path}: {said}");
    }
    // The server of the page knows GET and HEAD only, and says so itself.
    let said = kubectl.refused(&[
        "delete",
        "--raw",
        &format!("/api/v1/namespaces/default/pods/{one}:8080/proxy/"),
    ])?;
    ensure!(said.contains("501") || said.to_lowercase().contains("not implemented"), "{said}");
    Ok(())
}

fn api_server(kubectl: &Kubectl) -> anyhow::Result<()> {
    let service = kubectl.json(&["get", "service", "kubernetes", "-n", "default"])?;
    ensure!(service["spec"]["ports"][0]["port"] == 443, "{service}");
    let slices = kubectl.json(&["get", "endpointslices", "kubernetes", "-n", "default"])?;
    ensure!(slices["endpoints"][0]["addresses"][0].is_string(), "{slices}");
    let endpoints = kubectl.json(&["get", "endpoints", "kubernetes", "-n", "default"])?;
    ensure!(endpoints["subsets"][0]["addresses"][0]["ip"].is_string(), "{endpoints}");
    // From within, with what every pod is given; the shell has no TLS, so that the port's opening is what is seen.
    let script = "nc -w 5 $KUBERNETES_SERVICE_HOST $KUBERNETES_SERVICE_PORT < /dev/null && echo open; \
                  ls /var/run/secrets/kubernetes.io/serviceaccount";
    let said = pods::output(kubectl, "asks-server", json!({"containers": [pods::shell("c", script)]}))?;
    ensure!(said == "open\nca.crt\nnamespace\ntoken\n", "{said}");
    Ok(())
}
