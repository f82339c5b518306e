//! Pods come and go, and the machine is as it was.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, ensure};
use camino::Utf8Path;
use interop::{Checks, Kubectl, eventually};
use serde_json::json;

use crate::pods;
use crate::remains;
use crate::world::{self, Cluster, Inputs};

/// Pods at once, and how often so many are made and deleted.
const PODS: usize = 50;
const ROUNDS: usize = 10;
/// For a round's pods to be ready, and to be gone.
const PATIENCE: Duration = Duration::from_secs(120);

pub fn run(inputs: &Inputs, checks: &mut Checks) {
    let busybox = match pods::busybox() {
        Ok(busybox) => busybox,
        Err(reason) => return interop::skip(&reason),
    };
    let cluster = match Cluster::start(inputs) {
        Ok(cluster) => cluster,
        Err(error) => return checks.check("a cluster starts", || Err(error)),
    };
    checks.check("five hundred pods leave nothing behind", || {
        pods::build_image(inputs, &cluster, &busybox)?;
        come_and_go(&cluster)
    });
}

fn come_and_go(cluster: &Cluster) -> anyhow::Result<()> {
    let kubectl = &cluster.kubectl;
    // One stays all the time, so that what every node has anyway is there before and after.
    pods::create(kubectl, "stays", json!({"containers": [pods::shell("c", "sleep 10000")]}))?;
    pods::until_ready(kubectl, "stays")?;
    let claims = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"key": "value"}});
    pods::make(kubectl, &[claims, deployment()])?;
    let state = remains::state(&cluster.data()).context("a container runs, but has no folder")?;
    let before = Seen::now(cluster, &state, &[])?;
    let mut uids = Vec::new();
    for _ in 0..ROUNDS {
        kubectl.ok(&["scale", "deployment/many", &format!("--replicas={PODS}")])?;
        kubectl.ok(&[
            "rollout",
            "status",
            "deployment/many",
            &format!("--timeout={}s", PATIENCE.as_secs()),
        ])?;
        let made =
            kubectl.ok(&["get", "pods", "-l", "app=many", "-o", "jsonpath={.items[*].metadata.uid}"])?;
        uids.extend(made.split(' ').map(str::to_owned));
        kubectl.ok(&["scale", "deployment/many", "--replicas=0"])?;
        none_left(kubectl)?;
    }
    ensure!(uids.len() == PODS * ROUNDS, "{} pods were made", uids.len());
    eventually(PATIENCE, || {
        let after = Seen::now(cluster, &state, &uids)?;
        let more = after.beyond(&before);
        ensure!(more.is_empty(), "more than before: {more:#?}");
        ensure!(before.beyond(&after).is_empty(), "less than before: {:#?}", before.beyond(&after));
        Ok(())
    })
}

fn none_left(kubectl: &Kubectl) -> anyhow::Result<()> {
    eventually(PATIENCE, || {
        let left = kubectl.ok(&["get", "pods", "-l", "app=many", "-o", "name"])?;
        ensure!(left.is_empty(), "{left}");
        Ok(())
    })
}

/// Pods with a volume of each common kind, two containers and an init container.
fn deployment() -> serde_json::Value {
    let mounts = json!({"volumeMounts": [
        {"name": "scratch", "mountPath": "/scratch"},
        {"name": "fast", "mountPath": "/fast"},
        {"name": "settings", "mountPath": "/settings"},
        {"name": "settings", "mountPath": "/key", "subPath": "key"},
    ]});
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "many"},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": {"app": "many"}},
            "template": {
                "metadata": {"labels": {"app": "many"}},
                "spec": {
                    "terminationGracePeriodSeconds": 1,
                    "initContainers": [pods::shell_with("first", "echo first > /scratch/first", mounts.clone())],
                    "containers": [pods::shell_with("c", "sleep 10000", mounts)],
                    "volumes": [
                        {"name": "scratch", "emptyDir": {}},
                        {"name": "fast", "emptyDir": {"medium": "Memory"}},
                        {"name": "settings", "configMap": {"name": "settings"}},
                    ],
                },
            },
        },
    })
}

/// What containers of a cluster use of the machine.
struct Seen(BTreeMap<&'static str, Vec<String>>);

impl Seen {
    /// As it is now; control groups are those of these pods, since other clusters have theirs in the same place.
    fn now(cluster: &Cluster, state: &Utf8Path, uids: &[String]) -> anyhow::Result<Self> {
        let data = cluster.data();
        let groups = remains::cgroups(|name| uids.iter().any(|uid| name.strip_prefix("pod") == Some(uid)));
        let links = world::run("ip", &["-o", "link"])?;
        Ok(Self(BTreeMap::from([
            ("mounts", remains::mounts_below(&[state, &data])?),
            ("control groups", groups.into_iter().map(String::from).collect()),
            ("links", links.lines().filter_map(|line| line.split(": ").nth(1)).map(str::to_owned).collect()),
            ("network namespaces", remains::entries(&state.join("runtime/sandboxes"))),
            ("attached pods", remains::entries(&state.join("network"))),
            ("containers", remains::entries(&state.join("runtime/containers"))),
            ("kept containers", remains::entries(&data.join("node/runtime/containers"))),
            ("sandboxes", remains::entries(&data.join("node/runtime/sandboxes"))),
            ("exec sessions", remains::entries(&state.join("runtime/execs"))),
            ("processes", remains::processes_of(state).iter().map(u32::to_string).collect()),
            ("pods", remains::entries(&data.join("node/pods"))),
            ("snapshots", remains::entries(&data.join("images/snapshots"))),
            ("leases", remains::entries(&data.join("images/leases"))),
        ])))
    }

    /// What is here and not there.
    fn beyond(&self, other: &Self) -> Vec<String> {
        let of = |(what, names): (&&'static str, &Vec<String>)| {
            let there = other.0.get(*what).cloned().unwrap_or_default();
            names
                .iter()
                .filter(|name| !there.contains(name))
                .map(|name| format!("{what}: {name}"))
                .collect::<Vec<_>>()
        };
        self.0.iter().flat_map(of).collect()
    }
}
