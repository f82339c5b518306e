//! Gangs, behind the gates of upstream: all pods or none, in one domain, and protected while they run.

use std::time::Duration;

use anyhow::ensure;
use interop::{Checks, Folder, Kubectl, Server, eventually};
use serde_json::{Value, json};

use super::{Inputs, SIM_NODES};

const PATIENCE: Duration = Duration::from_secs(60);
const FLAGS: [&str; 2] = [
    "--runtime-config=scheduling.k8s.io/v1alpha2=true",
    "--feature-gates=GenericWorkload=true,GangScheduling=true,TopologyAwareWorkloadScheduling=true",
];

pub(super) fn groups(inputs: &Inputs, checks: &mut Checks) {
    let Inputs { binary, program, version, .. } = inputs;
    let started = Folder::new().and_then(|folder| {
        let server = Server::start_with(binary, &folder, SIM_NODES, &FLAGS)?;
        Ok((folder, server))
    });
    let (folder, server) = match started {
        Ok(started) => started,
        Err(error) => return checks.check("a server with groups starts", || Err(error)),
    };
    let kubectl = Kubectl::new(program, version, &folder);
    checks
        .check("it is ready", || eventually(PATIENCE, || kubectl.ok(&["get", "--raw", "/readyz"])).map(drop));
    checked(&kubectl, checks);
    whole(&kubectl, checks);
    protected(&kubectl, checks);
    checks.check("it stops when asked to", || server.stop());
}

fn create(kubectl: &Kubectl, object: &Value) -> anyhow::Result<String> {
    kubectl.ok_with(&["create", "-f", "-"], &object.to_string())
}

fn group(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "scheduling.k8s.io/v1alpha2", "kind": "PodGroup", "metadata": {"name": name}, "spec": spec})
}

fn pod(name: &str, group: &str, cpu: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"group": group}},
        "spec": {"schedulingGroup": {"podGroupName": group},
            "containers": [{"name": "c", "image": "busybox", "resources": {"requests": {"cpu": cpu}}}]}})
}

fn phases(kubectl: &Kubectl, group: &str) -> anyhow::Result<String> {
    let label = format!("group={group}");
    kubectl.ok(&["get", "pods", "-l", &label, "-o", "jsonpath={.items[*].status.phase}"])
}

fn checked(kubectl: &Kubectl, checks: &mut Checks) {
    checks.check("groups of a workload are checked", || {
        let workload = json!({"apiVersion": "scheduling.k8s.io/v1alpha2", "kind": "Workload",
            "metadata": {"name": "train"},
            "spec": {"podGroupTemplates": [{"name": "workers", "schedulingPolicy": {"gang": {"minCount": 3}}}]}});
        create(kubectl, &workload)?;
        let of = |template: &str| {
            json!({"schedulingPolicy": {"gang": {"minCount": 3}}, "podGroupTemplateRef": {"workload":
                {"workloadName": "train", "podGroupTemplateName": template}}})
        };
        let refused = create(kubectl, &group("drivers", of("drivers"))).err().map(|error| error.to_string());
        let why = "PodGroupTemplate \"drivers\" not found in Workload \"train\"";
        ensure!(refused.as_ref().is_some_and(|said| said.contains(why)), "{refused:?}");
        create(kubectl, &group("workers", of("workers")))?;
        let shown = kubectl.ok(&["get", "podgroups"])?;
        let row = ["workers", "Gang", "train", "Pending"];
        ensure!(row.iter().all(|cell| shown.contains(cell)), "{shown}");
        let patch = r#"{"spec":{"schedulingPolicy":{"gang":{"minCount":2}}}}"#;
        let refused = kubectl.ok(&["patch", "podgroup", "workers", "--type=merge", "-p", patch]);
        let refused = refused.err().map(|error| error.to_string());
        ensure!(refused.as_ref().is_some_and(|said| said.contains("field is immutable")), "{refused:?}");
        Ok(())
    });
}

fn whole(kubectl: &Kubectl, checks: &mut Checks) {
    checks.check("a gang waits for its last pod and then runs", || {
        create(kubectl, &pod("worker-0", "workers", "100m"))?;
        create(kubectl, &pod("worker-1", "workers", "100m"))?;
        // A pod that came later and runs shows that the scheduler has looked.
        kubectl.ok(&["run", "other", "--image=busybox"])?;
        kubectl.ok(&["wait", "--for=condition=ready", "pod/other", "--timeout=60s"])?;
        let waiting = phases(kubectl, "workers")?;
        ensure!(waiting == "Pending Pending", "{waiting}");
        create(kubectl, &pod("worker-2", "workers", "100m"))?;
        kubectl.ok(&["wait", "--for=condition=ready", "pod", "-l", "group=workers", "--timeout=60s"])?;
        kubectl.ok(&["wait", "--for=condition=PodGroupScheduled", "podgroup/workers", "--timeout=60s"])?;
        Ok(())
    });
    checks.check("a gang that does not fit leaves nothing behind", || {
        create(kubectl, &group("huge", json!({"schedulingPolicy": {"gang": {"minCount": 2}}})))?;
        create(kubectl, &pod("huge-0", "huge", "1"))?;
        create(kubectl, &pod("huge-1", "huge", "100k"))?;
        eventually(PATIENCE, || {
            let group = kubectl.json(&["get", "podgroup", "huge"])?;
            let condition = &group["status"]["conditions"][0];
            ensure!(condition["status"] == "False" && condition["reason"] == "Unschedulable", "{group}");
            Ok(())
        })?;
        let waiting = phases(kubectl, "huge")?;
        ensure!(waiting == "Pending Pending", "{waiting}");
        let why = "pod group is unschedulable, waiting for minCount pods from a gang to be scheduled";
        eventually(PATIENCE, || {
            let told = kubectl.ok(&["describe", "pod", "huge-0"])?;
            ensure!(told.contains(why), "{told}");
            Ok(())
        })
    });
}

fn protected(kubectl: &Kubectl, checks: &mut Checks) {
    checks.check("a group stays while pods are in it", || {
        kubectl.ok(&["delete", "podgroup", "workers", "--wait=false"])?;
        kubectl.ok(&["get", "podgroup", "workers"])?;
        kubectl.ok(&["delete", "pods", "-l", "group=workers", "--timeout=60s"])?;
        kubectl.ok(&["wait", "--for=delete", "podgroup/workers", "--timeout=60s"]).map(drop)
    });
}
