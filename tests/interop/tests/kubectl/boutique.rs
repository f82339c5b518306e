//! A real application that nobody here wrote: comes up, changes, goes.

use std::time::Duration;

use anyhow::{Context, ensure};
use interop::{Checks, Kubectl, eventually};
use serde_json::Value;

use super::World;

/// Objects in the manifests, and Deployments and Services among them.
const OBJECTS: usize = 35;
const DEPLOYMENTS: usize = 12;
const SERVICES: usize = 12;
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) fn client_side(world: &World<'_>, checks: &mut Checks) {
    let apply = ["apply", "-f", world.boutique];
    whole_life(world, checks, &apply, ["created", "unchanged", "-        image: registry.example/email:2"]);
}

pub(super) fn server_side(world: &World<'_>, checks: &mut Checks) {
    let apply = ["apply", "--server-side", "-f", world.boutique];
    let conflict = "conflict with \"kubectl-set\"";
    whole_life(world, checks, &apply, ["serverside-applied", "serverside-applied", conflict]);
}

/// `words`: how `apply` says that an object is new, that nothing changed, and how `diff` tells of another's change.
fn whole_life(world: &World<'_>, checks: &mut Checks, apply: &[&str], words: [&str; 3]) {
    let [first, again, difference] = words;
    let kubectl = world.kubectl;
    checks.check("apply creates every object", || {
        let said = kubectl.ok(apply)?;
        let created = said.lines().filter(|line| line.ends_with(first)).count();
        ensure!(created == OBJECTS, "{created} of {OBJECTS} {first}: {said}");
        Ok(())
    });
    checks.check("all Deployments become available", || {
        let arguments = ["wait", "--for=condition=Available", "deployment", "--all", "--timeout=60s"];
        let met = kubectl.ok(&arguments)?.lines().filter(|line| line.ends_with("condition met")).count();
        ensure!(met == DEPLOYMENTS, "{met} of {DEPLOYMENTS}");
        Ok(())
    });
    checks
        .check("every Deployment has all its replicas, observed at its generation", || all_replicas(kubectl));
    checks.check("every pod runs, has an address of its own, and the nodes share them", || pods_run(kubectl));
    checks.check("every Service has ready endpoints", || endpoints(kubectl));
    checks.check("applied again, nothing changes", || {
        let before = versions(kubectl)?;
        let said = kubectl.ok(apply)?;
        let same = said.lines().filter(|line| line.ends_with(again)).count();
        ensure!(same == OBJECTS, "{same} of {OBJECTS} {again}: {said}");
        ensure!(before == versions(kubectl)?, "resourceVersions moved");
        Ok(())
    });
    checks.check("diff finds nothing", || {
        let mut arguments = vec!["diff"];
        arguments.extend(&apply[1..]);
        kubectl.ok(&arguments).map(drop)
    });
    rollout(kubectl, checks);
    scale(kubectl, checks);
    checks.check("diff now shows what others changed, or who applied otherwise", || {
        kubectl.ok(&["set", "image", "deployment/emailservice", "server=registry.example/email:2"])?;
        let mut arguments = vec!["diff"];
        arguments.extend(&apply[1..]);
        let output = kubectl.run(&arguments)?;
        // A conflict is 1 or 2, by version.
        ensure!(matches!(output.code, Some(1 | 2)), "{output:?}");
        let said = format!("{}{}", output.stdout, output.stderr);
        ensure!(said.contains(difference), "no {difference:?} in {said}");
        Ok(())
    });
    checks.check("delete -f removes every object", || {
        let said = kubectl.ok(&["delete", "-f", world.boutique])?;
        let deleted = said.lines().filter(|line| line.contains(" deleted")).count();
        ensure!(deleted == OBJECTS, "{deleted} of {OBJECTS}: {said}");
        Ok(())
    });
    checks.check("nothing is left behind", || eventually(PATIENCE, || nothing_left(kubectl)));
}

fn rollout(kubectl: &Kubectl, checks: &mut Checks) {
    let image = |wanted: &str| -> anyhow::Result<()> {
        let pods = kubectl.json(&["get", "pods", "-l", "app=frontend"])?;
        let images: Vec<_> = items(&pods)
            .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null())
            .map(|pod| pod["spec"]["containers"][0]["image"].as_str().unwrap_or_default().to_owned())
            .collect();
        ensure!(!images.is_empty() && images.iter().all(|image| image.contains(wanted)), "{images:?}");
        Ok(())
    };
    let status = ["rollout", "status", "deployment/frontend", "--timeout=60s"];
    checks.check("a new image rolls out", || {
        kubectl.ok(&["set", "image", "deployment/frontend", "server=registry.example/frontend:2"])?;
        let said = kubectl.ok(&status)?;
        ensure!(said.contains("successfully rolled out"), "{said}");
        eventually(PATIENCE, || image("registry.example/frontend:2"))
    });
    checks.check("the history has both revisions, in two replica sets", || {
        let history = kubectl.ok(&["rollout", "history", "deployment/frontend"])?;
        let revisions: Vec<_> =
            history.lines().filter_map(|line| line.split_whitespace().next()?.parse::<u32>().ok()).collect();
        ensure!(revisions == [1, 2], "{history}");
        let sets = kubectl.json(&["get", "replicasets", "-l", "app=frontend"])?;
        let mut replicas: Vec<_> = items(&sets).map(|set| set["spec"]["replicas"].as_i64()).collect();
        replicas.sort_unstable();
        ensure!(replicas == [Some(0), Some(1)], "{replicas:?}");
        Ok(())
    });
    checks.check("rollout undo goes back", || {
        kubectl.ok(&["rollout", "undo", "deployment/frontend"])?;
        kubectl.ok(&status)?;
        eventually(PATIENCE, || image("microservices-demo/frontend"))
    });
    checks.check("rollout restart replaces the pods", || {
        let before = names(kubectl, "app=adservice")?;
        kubectl.ok(&["rollout", "restart", "deployment/adservice"])?;
        kubectl.ok(&["rollout", "status", "deployment/adservice", "--timeout=60s"])?;
        eventually(PATIENCE, || {
            let after = names(kubectl, "app=adservice")?;
            ensure!(after.len() == 1 && after != before, "{before:?} and then {after:?}");
            Ok(())
        })
    });
    checks.check("a paused rollout waits", || {
        kubectl.ok(&["rollout", "pause", "deployment/adservice"])?;
        let before = names(kubectl, "app=adservice")?;
        kubectl.ok(&["set", "image", "deployment/adservice", "server=registry.example/ad:3"])?;
        let deployment = kubectl.json(&["get", "deployment", "adservice"])?;
        ensure!(deployment["spec"]["paused"] == true, "it is not paused");
        ensure!(names(kubectl, "app=adservice")? == before, "pods changed while it was paused");
        kubectl.ok(&["rollout", "resume", "deployment/adservice"])?;
        kubectl.ok(&["rollout", "status", "deployment/adservice", "--timeout=60s"]).map(drop)
    });
}

fn scale(kubectl: &Kubectl, checks: &mut Checks) {
    let until = |replicas: usize| {
        eventually(PATIENCE, || {
            let pods = names(kubectl, "app=cartservice")?;
            let deployment = kubectl.json(&["get", "deployment", "cartservice"])?;
            let ready = deployment["status"]["readyReplicas"].as_u64().unwrap_or_default();
            ensure!(pods.len() == replicas && ready == replicas as u64, "{} pods, {ready} ready", pods.len());
            Ok(())
        })
    };
    checks.check("a Deployment scales up", || {
        kubectl.ok(&["scale", "deployment/cartservice", "--replicas=5"])?;
        until(5)
    });
    checks.check("and down again", || {
        kubectl.ok(&["scale", "deployment/cartservice", "--current-replicas=5", "--replicas=1"])?;
        until(1)
    });
    checks.check("a scale from a wrong number is refused", || {
        let said =
            kubectl.refused(&["scale", "deployment/cartservice", "--current-replicas=7", "--replicas=1"])?;
        ensure!(said.contains("Expected replicas to be 7, was 1"), "{said}");
        Ok(())
    });
}

fn all_replicas(kubectl: &Kubectl) -> anyhow::Result<()> {
    let deployments = kubectl.json(&["get", "deployments"])?;
    let count = items(&deployments).count();
    ensure!(count == DEPLOYMENTS, "{count} of {DEPLOYMENTS}");
    for deployment in items(&deployments) {
        let (spec, status) = (&deployment["spec"], &deployment["status"]);
        let same =
            status["readyReplicas"] == spec["replicas"] && status["updatedReplicas"] == spec["replicas"];
        ensure!(same, "{}: {status}", deployment["metadata"]["name"]);
        ensure!(status["observedGeneration"] == deployment["metadata"]["generation"], "{status}");
    }
    Ok(())
}

fn pods_run(kubectl: &Kubectl) -> anyhow::Result<()> {
    let pods = kubectl.json(&["get", "pods"])?;
    let mut addresses = Vec::new();
    let mut nodes = Vec::new();
    for pod in items(&pods) {
        let name = &pod["metadata"]["name"];
        ensure!(pod["status"]["phase"] == "Running", "{name} is {}", pod["status"]["phase"]);
        addresses.push(pod["status"]["podIP"].as_str().with_context(|| format!("{name} has no address"))?);
        nodes.push(pod["spec"]["nodeName"].as_str().with_context(|| format!("{name} has no node"))?);
    }
    ensure!(addresses.len() == DEPLOYMENTS, "{} pods", addresses.len());
    addresses.sort_unstable();
    addresses.dedup();
    ensure!(addresses.len() == DEPLOYMENTS, "two pods share an address");
    nodes.sort_unstable();
    nodes.dedup();
    ensure!(nodes.len() == super::SIM_NODES as usize, "pods are on {nodes:?} only");
    Ok(())
}

fn endpoints(kubectl: &Kubectl) -> anyhow::Result<()> {
    eventually(PATIENCE, || {
        let services = kubectl.json(&["get", "services"])?;
        let count = items(&services).count();
        ensure!(count == SERVICES, "{count} of {SERVICES}");
        for service in items(&services) {
            let name = service["metadata"]["name"].as_str().unwrap_or_default();
            let selector = format!("kubernetes.io/service-name={name}");
            let slices = kubectl.json(&["get", "endpointslices", "-l", &selector])?;
            let ready = items(&slices)
                .flat_map(|slice| slice["endpoints"].as_array().into_iter().flatten())
                .filter(|endpoint| endpoint["conditions"]["ready"] == true)
                .count();
            ensure!(ready >= 1, "{name} has no ready endpoint");
        }
        Ok(())
    })
}

/// Names and resourceVersions of everything that nobody but us writes to.
fn versions(kubectl: &Kubectl) -> anyhow::Result<Vec<String>> {
    let all = kubectl.json(&["get", "deployments,services,serviceaccounts"])?;
    let version =
        |object: &Value| format!("{} {}", object["metadata"]["name"], object["metadata"]["resourceVersion"]);
    Ok(items(&all).map(version).collect())
}

fn names(kubectl: &Kubectl, selector: &str) -> anyhow::Result<Vec<String>> {
    let pods = kubectl.json(&["get", "pods", "-l", selector])?;
    let alive = items(&pods).filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
    Ok(alive.map(|pod| pod["metadata"]["name"].to_string()).collect())
}

fn nothing_left(kubectl: &Kubectl) -> anyhow::Result<()> {
    let kinds = "deployments,replicasets,pods,services,endpoints,endpointslices,serviceaccounts";
    let left = kubectl.ok(&["get", kinds, "-o", "name"])?;
    let left: Vec<_> = left.lines().filter(|name| *name != "serviceaccount/default").collect();
    ensure!(left.is_empty(), "{left:?} are left");
    Ok(())
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list["items"].as_array().into_iter().flatten()
}
