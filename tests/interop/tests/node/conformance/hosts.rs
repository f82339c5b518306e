//! `/etc/hosts`, `/etc/resolv.conf` and ports of the node.

use std::net::SocketAddr;

use anyhow::{Context, ensure};
use interop::{Checks, Kubectl, eventually};
use serde_json::{Value, json};

use super::World;
use crate::http;
use crate::pods::{self, PATIENCE, shell, shell_with};
use crate::world::{self, ADDRESS};

/// One more of the node's.
const OTHER_ADDRESS: &str = "192.0.2.2";

pub fn run(world: &World<'_>, checks: &mut Checks) {
    let kubectl = world.kubectl;
    checks.check(
        "the node writes a pod's hosts, unless the pod brings its own or is on the node's network",
        || hosts(kubectl),
    );
    checks.check("a pod has name servers and a search list of its own where it says so", || {
        name_servers(kubectl)
    });
    checks.check("a port of the node is one pod's for each address and protocol", || host_ports(kubectl));
}

fn hosts(kubectl: &Kubectl) -> anyhow::Result<()> {
    let spec = json!({
        "hostAliases": [{"ip": "192.0.2.7", "hostnames": ["harbour", "port"]}],
        "containers": [
            shell("c", "cat /etc/hosts"),
            shell_with("own", "sleep 10000", json!({"volumeMounts": [{"name": "d", "mountPath": "/etc/hosts", "subPath": "hosts"}]})),
        ],
        "volumes": [{"name": "d", "configMap": {"name": "own-hosts"}}],
    });
    kubectl.ok(&["create", "configmap", "own-hosts", "--from-literal=hosts=mine alone"])?;
    let said = pods::output(kubectl, "hosts", spec)?;
    ensure!(said.starts_with("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n"), "{said}");
    let ip = kubectl.ok(&["get", "pod", "hosts", "-o", "jsonpath={.status.podIP}"])?;
    ensure!(said.contains(&format!("\n{ip}\thosts\n")), "{said}");
    ensure!(said.ends_with("# Entries added by HostAliases.\n192.0.2.7\tharbour\tport\n"), "{said}");
    let own = kubectl.ok(&["exec", "hosts", "-c", "own", "--", "cat", "/etc/hosts"])?;
    ensure!(own == "mine alone", "{own}");
    let on_node = json!({"hostNetwork": true, "containers": [shell("c", "cat /etc/hosts")]});
    let said = pods::output(kubectl, "node-hosts", on_node)?;
    ensure!(said.starts_with("# Kubernetes-managed hosts file (host network).\n"), "{said}");
    Ok(())
}

fn name_servers(kubectl: &Kubectl) -> anyhow::Result<()> {
    let spec = json!({
        "dnsPolicy": "None",
        "dnsConfig": {
            "nameservers": ["192.0.2.53"], "searches": ["harbour.example"], "options": [{"name": "ndots", "value": "2"}],
        },
        "containers": [shell("c", "cat /etc/resolv.conf")],
    });
    let said = pods::output(kubectl, "own-dns", spec)?;
    ensure!(said == "search harbour.example\nnameserver 192.0.2.53\noptions ndots:2\n", "{said}");
    Ok(())
}

fn host_ports(kubectl: &Kubectl) -> anyhow::Result<()> {
    world::run("ip", &["addr", "replace", &format!("{OTHER_ADDRESS}/24"), "dev", "up0"])?;
    let pod = |port: Value, number: u16| {
        let script = format!("mkdir /page; echo {number} > /page/index.html; exec httpd -f -p 8080 -h /page");
        json!({"containers": [shell_with("c", &script, json!({"ports": [port]}))]})
    };
    let port = |address: &str, protocol: &str| json!({"containerPort": 8080, "hostPort": 54323, "hostIP": address, "protocol": protocol});
    pods::create(kubectl, "host-port-1", pod(port(OTHER_ADDRESS, "TCP"), 1))?;
    pods::create(kubectl, "host-port-2", pod(port(ADDRESS, "TCP"), 2))?;
    pods::create(kubectl, "host-port-3", pod(port(ADDRESS, "UDP"), 3))?;
    for pod in ["host-port-1", "host-port-2", "host-port-3"] {
        pods::until_ready(kubectl, pod)?;
    }
    for (address, page) in [(OTHER_ADDRESS, "1\n"), (ADDRESS, "2\n")] {
        let address: SocketAddr = format!("{address}:54323").parse().context("an address")?;
        eventually(PATIENCE, || {
            let said = http::get(address)?;
            ensure!(said == page, "{address}: {said}");
            Ok(())
        })?;
    }
    let taken = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "host-port-4"},
        "spec": pod(port(ADDRESS, "TCP"), 4)});
    pods::make(kubectl, &[taken])?;
    pods::until(kubectl, "host-port-4", |pod| {
        pod["status"]["conditions"].as_array().is_some_and(|all| {
            all.iter().any(|one| {
                one["reason"] == "Unschedulable" && one["message"].to_string().contains("free ports")
            })
        })
    })?;
    let all = ["delete", "pod", "host-port-1", "host-port-2", "host-port-3", "host-port-4", "--wait=false"];
    kubectl.ok(&all).map(drop)
}
