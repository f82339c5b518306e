//! Pods that CNI plugins of others connect: a bridge with addresses of the node's range, and ports of the host.

use std::fs;

use anyhow::{Context, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use interop::{Checks, Folder, Kubectl, eventually};
use serde_json::{Value, json};

use crate::http;
use crate::pods::{self, PATIENCE, shell, shell_with};
use crate::remains;
use crate::world::{self, ADDRESS, Cluster, Inputs};

/// Where distributions put plugins.
const FOLDERS: [&str; 2] = ["/opt/cni/bin", "/usr/lib/cni"];

const PLUGINS: [&str; 3] = ["bridge", "host-local", "portmap"];

const HOST_PORT: u16 = 18_080;

const BRIDGE: &str = "suite0";

/// In the folder of configurations.
const NETWORK: &str = "50-suite.conflist";

/// What configures the network, and where the plugins keep their book.
struct World {
    folder: Folder,
    programs: &'static str,
}

pub fn run(inputs: &Inputs, checks: &mut Checks) {
    let busybox = match pods::busybox() {
        Ok(busybox) => busybox,
        Err(reason) => return interop::skip(&reason),
    };
    let has_all = |folder: &&str| PLUGINS.iter().all(|plugin| Utf8Path::new(folder).join(plugin).is_file());
    let Some(programs) = FOLDERS.into_iter().find(has_all) else {
        return interop::skip(&format!("there are no CNI plugins {} on this machine", PLUGINS.join(", ")));
    };
    if world::run("iptables", &["--version"]).is_err() {
        return interop::skip("there is no iptables on this machine, which the plugin portmap needs");
    }
    let started = World::new(programs).and_then(|world| {
        let cluster = Cluster::start_with(inputs, &words(&world.flags()))?;
        pods::build_image(inputs, &cluster, &busybox)?;
        Ok((world, cluster))
    });
    let (world, cluster) = match started {
        Ok(started) => started,
        Err(error) => return checks.check("a cluster starts", || Err(error)),
    };
    let kubectl = cluster.kubectl.clone();
    checks.check("a node without a network is not ready, and says so", || none(&kubectl));
    checks
        .check("pods run once there is one, with addresses of the node's range", || comes(&world, &kubectl));
    checks.check("pods reach each other, a Service and its name", || reach(&kubectl));
    checks.check("a port of the host leads to its pod", || host_port(&kubectl));
    checks.check("policies hold for pods of one bridge", || policies(&kubectl));
    checks.check("a plugin that fails is told of, and disturbs nobody", || fails(&world, &kubectl));
    checks.check("pods that end leave nothing, also after a crash of the node", || {
        let cluster = cluster.crash()?.restart_with(inputs, &words(&world.flags()))?;
        ends(&world, &cluster)
    });
}

fn words(flags: &[String]) -> Vec<&str> {
    flags.iter().map(String::as_str).collect()
}

impl World {
    fn new(programs: &'static str) -> anyhow::Result<Self> {
        let folder = Folder::new()?;
        fs::create_dir(folder.path().join("net.d")).context("making the folder of networks")?;
        Ok(Self { folder, programs })
    }

    fn flags(&self) -> [String; 10] {
        [
            "--network-plugin".to_owned(),
            "cni".to_owned(),
            "--cni-conf-dir".to_owned(),
            self.configurations().into_string(),
            "--cni-bin-dir".to_owned(),
            format!("{}/none,{}", self.folder.path(), self.programs),
            // Given here, since a node that takes no pods is what it begins with.
            "--eviction-hard".to_owned(),
            "memory.available<100Mi".to_owned(),
            "--image-gc-high-threshold".to_owned(),
            "100".to_owned(),
        ]
    }

    fn configurations(&self) -> Utf8PathBuf {
        self.folder.path().join("net.d")
    }

    /// The book of the plugin that gives addresses.
    fn leases(&self) -> Utf8PathBuf {
        self.folder.path().join("leases")
    }

    fn configure(&self, name: &str, plugins: &Value) -> anyhow::Result<()> {
        let list = json!({"cniVersion": "1.0.0", "name": "suite", "plugins": plugins});
        let path = self.configurations().join(name);
        fs::write(&path, list.to_string()).with_context(|| format!("writing {path}"))
    }
}

fn ready(kubectl: &Kubectl) -> anyhow::Result<Value> {
    let node = kubectl.json(&["get", "node", "n1"])?;
    let conditions = node["status"]["conditions"].as_array().context("the node has no conditions")?;
    conditions.iter().find(|one| one["type"] == "Ready").cloned().context("no condition Ready")
}

fn none(kubectl: &Kubectl) -> anyhow::Result<()> {
    let said = "NetworkReady=false reason:NetworkPluginNotReady message:Network plugin returns error: cni plugin \
                not initialized";
    eventually(PATIENCE, || {
        let ready = ready(kubectl)?;
        ensure!(ready["message"] == format!("container runtime network not ready: {said}"), "{ready}");
        ensure!(ready["status"] == "False" && ready["reason"] == "KubeletNotReady", "{ready}");
        Ok(())
    })?;
    // What brings the network may be a pod.
    let everywhere = json!([{"operator": "Exists"}]);
    let spec = |host: bool| json!({"hostNetwork": host, "tolerations": everywhere, "containers": [shell("c", "exec sleep 10000")]});
    pods::create(kubectl, "host", spec(true))?;
    pods::create(kubectl, "client", spec(false))?;
    pods::until_ready(kubectl, "host")?;
    pods::event(kubectl, "client", "NetworkNotReady", said)
}

fn comes(world: &World, kubectl: &Kubectl) -> anyhow::Result<()> {
    world.configure(
        NETWORK,
        &json!([
            {
                "type": "bridge", "bridge": BRIDGE, "isDefaultGateway": true, "hairpinMode": true,
                "capabilities": {"ipRanges": true},
                "ipam": {"type": "host-local", "dataDir": world.leases()},
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ]),
    )?;
    pods::until_node(kubectl, "n1", "True")?;
    let probe = json!({
        "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
        "ports": [{"containerPort": 8080, "hostPort": HOST_PORT}],
    });
    let web = shell_with("c", "exec httpd -f -p 8080 -h /www", probe);
    pods::create(kubectl, "web", json!({"containers": [web]}))?;
    let range = kubectl.ok(&["get", "node", "n1", "-o", "jsonpath={.spec.podCIDR}"])?;
    let prefix = range.strip_suffix("0/24").with_context(|| format!("the range is {range}"))?;
    for pod in ["client", "web"] {
        let pod = pods::until_ready(kubectl, pod)?;
        let address = pod["status"]["podIP"].as_str().unwrap_or_default();
        ensure!(address.starts_with(prefix), "{address} of {range}");
        let leases = remains::entries(&world.leases().join("suite"));
        ensure!(leases.iter().any(|lease| lease == address), "{leases:?}");
    }
    Ok(())
}

fn page(kubectl: &Kubectl, at: &str) -> anyhow::Result<()> {
    let page = kubectl.ok(&[
        "exec",
        "client",
        "--",
        "timeout",
        "5",
        "wget",
        "-q",
        "-O",
        "-",
        &format!("http://{at}/"),
    ])?;
    ensure!(page == "page\n", "{at}: {page}");
    Ok(())
}

fn reach(kubectl: &Kubectl) -> anyhow::Result<()> {
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]},
    });
    pods::make(kubectl, &[service])?;
    let address = kubectl.ok(&["get", "pod", "web", "-o", "jsonpath={.status.podIP}"])?;
    let cluster_ip = kubectl.ok(&["get", "service", "web", "-o", "jsonpath={.spec.clusterIP}"])?;
    for at in [format!("{address}:8080"), cluster_ip, "web.default.svc.cluster.local".to_owned()] {
        eventually(PATIENCE, || page(kubectl, &at))?;
    }
    Ok(())
}

fn host_port(kubectl: &Kubectl) -> anyhow::Result<()> {
    for address in [ADDRESS, "127.0.0.1"] {
        let at = format!("{address}:{HOST_PORT}").parse()?;
        let page = http::get(at).with_context(|| format!("at {at}"))?;
        ensure!(page == "page\n", "{at}: {page}");
    }
    page(kubectl, &format!("{ADDRESS}:{HOST_PORT}"))
}

fn policies(kubectl: &Kubectl) -> anyhow::Result<()> {
    let closed = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "closed"},
        "spec": {"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Ingress"]},
    });
    pods::make(kubectl, &[closed])?;
    eventually(PATIENCE, || {
        ensure!(page(kubectl, "web").is_err(), "the pod still answers");
        Ok(())
    })?;
    kubectl.ok(&["delete", "networkpolicy", "closed"])?;
    eventually(PATIENCE, || page(kubectl, "web"))
}

fn fails(world: &World, kubectl: &Kubectl) -> anyhow::Result<()> {
    world.configure("10-first.conflist", &json!([{"type": "nowhere"}]))?;
    pods::create(kubectl, "late", json!({"containers": [shell("c", "exec sleep 10000")]}))?;
    let said = "failed to find plugin \"nowhere\" in path";
    pods::event(kubectl, "late", "FailedCreatePodSandBox", said)?;
    page(kubectl, "web")?;
    let path = world.configurations().join("10-first.conflist");
    fs::remove_file(&path).with_context(|| format!("removing {path}"))?;
    pods::until_ready(kubectl, "late").map(drop)
}

fn ends(world: &World, cluster: &Cluster) -> anyhow::Result<()> {
    let kubectl = &cluster.kubectl;
    eventually(PATIENCE, || page(kubectl, "web"))?;
    kubectl.ok(&["delete", "pod", "--all", "--timeout=60s"])?;
    eventually(PATIENCE, || {
        let leases = remains::entries(&world.leases().join("suite"));
        let given = leases.iter().filter(|lease| lease.parse::<std::net::IpAddr>().is_ok()).count();
        ensure!(given == 0, "addresses that nobody has: {leases:?}");
        let links = world::run("ip", &["-o", "link", "show", "master", BRIDGE])?;
        ensure!(links.is_empty(), "links that nobody has: {links}");
        let rules = world::run("iptables", &["-t", "nat", "-S"])?;
        ensure!(!rules.contains("-N CNI-DN-"), "rules that nobody has: {rules}");
        let known = remains::entries(&cluster.data().join("node/cni"));
        ensure!(known.is_empty(), "connections that nobody has: {known:?}");
        Ok(())
    })
}
