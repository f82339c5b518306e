//! The server crashes, and containers and Services go on; when it is back, it takes them over as they are.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, ensure};
use interop::{Checks, Kubectl, eventually};
use serde_json::{Value, json};

use crate::http::Load;
use crate::pods::first_id;
use crate::world::{Cluster, Inputs};
use crate::{pods, remains};

const PODS: usize = 50;
/// After the server says that it is ready.
const ADOPTED_WITHIN: Duration = Duration::from_secs(2);
/// How long the server stays away at least, while requests go on.
const AWAY: Duration = Duration::from_secs(3);
/// For the pods to be ready first.
const PATIENCE: Duration = Duration::from_secs(120);

pub fn run(inputs: &Inputs, checks: &mut Checks) {
    let busybox = match pods::busybox() {
        Ok(busybox) => busybox,
        Err(reason) => return interop::skip(&reason),
    };
    checks.check("a crash of the server is nothing to containers", || {
        let cluster = Cluster::start(inputs)?;
        pods::build_image(inputs, &cluster, &busybox)?;
        crash(inputs, cluster)
    });
    checks.check("users of a pod stay its own over a crash of the server", || {
        let cluster = Cluster::start(inputs)?;
        pods::build_image(inputs, &cluster, &busybox)?;
        keep_users(inputs, cluster)
    });
}

fn keep_users(inputs: &Inputs, cluster: Cluster) -> anyhow::Result<()> {
    let pod = |kubectl: &Kubectl, name| {
        let spec = json!({"hostUsers": false, "containers": [pods::shell("c", "exec sleep 10000")]});
        pods::create(kubectl, name, spec)?;
        pods::until_ready(kubectl, name)?;
        first_id(kubectl, name)
    };
    let before = pod(&cluster.kubectl, "before")?;
    let cluster = cluster.crash()?.restart(inputs)?;
    let kubectl = &cluster.kubectl;
    let after = pod(kubectl, "after")?;
    ensure!(first_id(kubectl, "before")? == before, "other users after the server is back");
    ensure!(after != before, "both pods have the users from {before}");
    let restarts = kubectl.ok(&[
        "get",
        "pod",
        "before",
        "-o",
        "jsonpath={.status.containerStatuses[0].restartCount}",
    ])?;
    ensure!(restarts == "0", "{restarts} restarts");
    Ok(())
}

fn crash(inputs: &Inputs, cluster: Cluster) -> anyhow::Result<()> {
    let signals = cluster.folder.path().join("signals");
    fs::create_dir(&signals)?;
    pods::make(&cluster.kubectl, &web())?;
    pods::create(
        &cluster.kubectl,
        "ends",
        json!({
            "containers": [pods::shell_with(
                "c",
                "until [ -f /signals/go ]; do sleep 0.1; done; echo over; touch /signals/gone; exit 3",
                json!({"volumeMounts": [{"name": "signals", "mountPath": "/signals"}]}),
            )],
            "volumes": [{"name": "signals", "hostPath": {"path": signals}}],
        }),
    )?;
    pods::until_ready(&cluster.kubectl, "ends")?;
    cluster.kubectl.ok(&[
        "rollout",
        "status",
        "deployment/web",
        &format!("--timeout={}s", PATIENCE.as_secs()),
    ])?;
    let address = cluster.kubectl.ok(&["get", "service", "web", "-o", "jsonpath={.spec.clusterIP}:80"])?;
    let address: SocketAddr = address.parse().with_context(|| format!("the Service is at {address:?}"))?;
    eventually(PATIENCE, || crate::http::get(address).map(drop))?;

    let containers = containers(&cluster.kubectl)?;
    ensure!(containers.len() == PODS, "{containers:?}");
    let processes = processes(&containers)?;
    let load = Load::start(address);
    let crashed = cluster.crash()?;
    fs::write(signals.join("go"), "")?;
    eventually(PATIENCE, || {
        ensure!(signals.join("gone").is_file(), "the container that is to end does not");
        Ok(())
    })?;
    std::thread::sleep(AWAY);
    ensure!(self::processes(&containers)? == processes, "other processes while the server is away");
    let cluster = crashed.restart(inputs)?;
    let kubectl = &cluster.kubectl;
    eventually(ADOPTED_WITHIN, || {
        let pod = kubectl.json(&["get", "pod", "ends"])?;
        let status = &pod["status"];
        ensure!(status["phase"] == "Failed", "not reported: {status}");
        ensure!(status["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 3, "{status}");
        Ok(())
    })?;
    ensure!(kubectl.ok(&["logs", "ends"])? == "over\n");
    load.stop()?;

    // What it would do to them, it would do by the time that a new pod runs.
    pods::create(kubectl, "later", json!({"containers": [pods::shell("c", "sleep 10000")]}))?;
    pods::until_ready(kubectl, "later")?;
    let adopted = self::containers(kubectl)?;
    ensure!(adopted == containers, "{containers:#?} and then {adopted:#?}");
    ensure!(self::processes(&adopted)? == processes, "other processes after the server is back");
    for pod in containers.keys() {
        let said = kubectl.ok(&["exec", pod, "--", "cat", "/www/index.html"])?;
        ensure!(said == "page\n", "{pod}: {said}");
    }
    Ok(())
}

fn web() -> [Value; 2] {
    let serve = pods::shell_with(
        "c",
        "exec httpd -f -p 8080 -h /www",
        json!({"readinessProbe": {"httpGet": {"port": 8080}, "periodSeconds": 1}}),
    );
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {
            "replicas": PODS,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"terminationGracePeriodSeconds": 1, "containers": [serve]},
            },
        },
    });
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]},
    });
    [deployment, service]
}

/// The container of every pod of the Deployment, all of them ready and never restarted.
fn containers(kubectl: &Kubectl) -> anyhow::Result<BTreeMap<String, String>> {
    let list = kubectl.json(&["get", "pods", "-l", "app=web"])?;
    let pods = list["items"].as_array().context("no list")?;
    let container = |pod: &Value| {
        let status = &pod["status"]["containerStatuses"][0];
        ensure!(pods::is_ready(pod) && status["restartCount"] == 0, "{}", pod["status"]);
        let (_, id) = status["containerID"].as_str().and_then(|id| id.split_once("://")).context("no ID")?;
        Ok((pod["metadata"]["name"].as_str().context("no name")?.to_owned(), id.to_owned()))
    };
    pods.iter().map(container).collect()
}

/// The first process of each of these containers; others come and go with the requests that they answer.
fn processes(containers: &BTreeMap<String, String>) -> anyhow::Result<Vec<u32>> {
    let of = |id: &String| {
        let first = remains::processes_of_container(id).into_iter().min();
        first.with_context(|| format!("container {id} has no process"))
    };
    containers.values().map(of).collect()
}
