//! The ways in which kubectl shows objects.

use std::time::Duration;

use anyhow::ensure;
use interop::{Checks, Kubectl, eventually};

use super::World;

const PATIENCE: Duration = Duration::from_secs(60);

pub(super) fn output(world: &World<'_>, checks: &mut Checks) {
    let kubectl = world.kubectl;
    checks.check("create deployment and expose", || {
        kubectl.ok(&[
            "create",
            "deployment",
            "web",
            "--image=registry.example/web:1",
            "--replicas=3",
            "--port=8080",
        ])?;
        kubectl.ok(&["expose", "deployment", "web", "--port=80", "--target-port=8080"])?;
        kubectl.ok(&["rollout", "status", "deployment/web", "--timeout=60s"]).map(drop)
    });
    forms(kubectl, checks);
    selections(kubectl, checks);
    descriptions(kubectl, checks);
    streams(kubectl, checks);
}

fn forms(kubectl: &Kubectl, checks: &mut Checks) {
    let header = |arguments: &[&str], wanted: &[&str]| -> anyhow::Result<()> {
        let said = kubectl.ok(arguments)?;
        let first: Vec<_> = said.lines().next().unwrap_or_default().split_whitespace().collect();
        ensure!(first == wanted, "{first:?} instead of {wanted:?}");
        Ok(())
    };
    checks.check("pods have upstream's columns", || {
        header(&["get", "pods"], &["NAME", "READY", "STATUS", "RESTARTS", "AGE"])
    });
    checks.check("and more of them when wide", || {
        let wide = [
            "NAME",
            "READY",
            "STATUS",
            "RESTARTS",
            "AGE",
            "IP",
            "NODE",
            "NOMINATED",
            "NODE",
            "READINESS",
            "GATES",
        ];
        header(&["get", "pods", "-o", "wide"], &wide)
    });
    checks.check("deployments have upstream's columns", || {
        let columns = ["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE", "CONTAINERS", "IMAGES", "SELECTOR"];
        header(&["get", "deployments", "-o", "wide"], &columns)
    });
    checks.check("services have upstream's columns", || {
        let columns = ["NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "AGE", "SELECTOR"];
        header(&["get", "services", "-o", "wide"], &columns)
    });
    checks.check("replica sets show their counts", || {
        let said = kubectl.ok(&["get", "replicasets", "--no-headers"])?;
        let fields: Vec<_> = said.split_whitespace().skip(1).take(3).collect();
        ensure!(fields == ["3", "3", "3"], "{said}");
        Ok(())
    });
    checks.check("a row says what is so", || {
        let said = kubectl.ok(&["get", "pods", "--no-headers"])?;
        ensure!(said.lines().count() == 3, "{said}");
        for line in said.lines() {
            let fields: Vec<_> = line.split_whitespace().collect();
            ensure!(fields[1..4] == ["1/1", "Running", "0"], "{line}");
        }
        Ok(())
    });
    checks.check("get all puts kinds together", || {
        let said = kubectl.ok(&["get", "all", "-o", "name"])?;
        for kind in ["pod/web-", "service/web", "deployment.apps/web", "replicaset.apps/web-"] {
            ensure!(said.contains(kind), "no {kind} in {said}");
        }
        Ok(())
    });
    checks.check("name", || {
        let said = kubectl.ok(&["get", "deployments", "-o", "name"])?;
        ensure!(said == "deployment.apps/web\n", "{said}");
        Ok(())
    });
    checks.check("json and yaml say the same", || {
        let json = kubectl.json(&["get", "deployment", "web"])?;
        let yaml = kubectl.ok(&["get", "deployment", "web", "-o", "yaml"])?;
        let uid = json["metadata"]["uid"].as_str().unwrap_or_default();
        ensure!(!uid.is_empty() && yaml.contains(&format!("uid: {uid}")), "{yaml}");
        ensure!(yaml.starts_with("apiVersion: apps/v1\nkind: Deployment\n"), "{yaml}");
        Ok(())
    });
    checks.check("jsonpath", || {
        let path = "jsonpath={range .items[*]}{.status.phase}{\"\\n\"}{end}";
        let said = kubectl.ok(&["get", "pods", "-o", path])?;
        ensure!(said == "Running\nRunning\nRunning\n", "{said}");
        Ok(())
    });
    checks.check("custom-columns", || {
        let columns = "custom-columns=WHO:.metadata.name,HOW-MANY:.spec.replicas";
        let said = kubectl.ok(&["get", "deployments", "-o", columns])?;
        let words: Vec<_> = said.split_whitespace().collect();
        ensure!(words == ["WHO", "HOW-MANY", "web", "3"], "{said}");
        Ok(())
    });
    checks.check("go-template", || {
        let said = kubectl.ok(&["get", "deployment", "web", "-o", "go-template={{.spec.replicas}}"])?;
        ensure!(said == "3", "{said}");
        Ok(())
    });
}

fn selections(kubectl: &Kubectl, checks: &mut Checks) {
    let count = |arguments: &[&str], wanted: usize| -> anyhow::Result<()> {
        let said = kubectl.ok(arguments)?;
        ensure!(
            said.lines().count() == wanted,
            "{} lines instead of {wanted}:\n{said}",
            said.lines().count()
        );
        Ok(())
    };
    checks.check("label selectors choose", || {
        count(&["get", "pods", "-l", "app=web", "-o", "name"], 3)?;
        count(&["get", "pods", "-l", "app in (web,other)", "-o", "name"], 3)?;
        count(&["get", "pods", "-l", "app!=web", "-o", "name"], 0)?;
        count(&["get", "pods", "-l", "!app", "-o", "name"], 0)
    });
    checks.check("field selectors choose", || {
        count(&["get", "pods", "--field-selector", "status.phase=Running", "-o", "name"], 3)?;
        count(&["get", "pods", "--field-selector", "status.phase!=Running", "-o", "name"], 0)?;
        count(&["get", "deployments", "--field-selector", "metadata.name=web", "-o", "name"], 1)
    });
    checks.check("a field that cannot be selected is refused", || {
        let said = kubectl.refused(&["get", "pods", "--field-selector", "spec.color=red"])?;
        ensure!(said.contains("field label not supported: spec.color"), "{said}");
        Ok(())
    });
    checks.check("small pages make the same list", || {
        count(&["get", "pods", "--chunk-size=1", "-o", "name"], 3)
    });
    checks.check("labels can be shown", || {
        let said = kubectl.ok(&["get", "pods", "--show-labels", "--no-headers"])?;
        ensure!(said.lines().count() == 3 && said.lines().all(|line| line.contains("app=web")), "{said}");
        Ok(())
    });
    checks.check("any field can be sorted by", || {
        for (name, rank) in [("first", "3"), ("second", "1"), ("third", "2")] {
            kubectl.ok(&["create", "configmap", name, &format!("--from-literal=rank={rank}")])?;
            kubectl.ok(&["label", "configmap", name, "ranked=yes"])?;
        }
        let said =
            kubectl.ok(&["get", "configmaps", "-l", "ranked", "--sort-by=.data.rank", "--no-headers"])?;
        let shown: Vec<_> = said.lines().filter_map(|line| line.split_whitespace().next()).collect();
        ensure!(shown == ["second", "third", "first"], "{said}");
        Ok(())
    });
    checks.check("all namespaces at once", || {
        let said = kubectl.ok(&["get", "pods", "--all-namespaces", "--no-headers"])?;
        let own = said.lines().filter(|line| line.starts_with(kubectl.namespace())).count();
        ensure!(own == 3, "{said}");
        Ok(())
    });
    checks.check("what is not there is said to be not there", || {
        let said = kubectl.refused(&["get", "pod", "nobody"])?;
        ensure!(said.contains("Error from server (NotFound): pods \"nobody\" not found"), "{said}");
        kubectl.ok(&["get", "pod", "nobody", "--ignore-not-found"]).map(drop)
    });
}

fn descriptions(kubectl: &Kubectl, checks: &mut Checks) {
    let describes = |arguments: &[&str], wanted: &[&str]| {
        eventually(PATIENCE, || {
            let said = kubectl.ok(arguments)?;
            for part in wanted {
                ensure!(said.contains(part), "no {part:?} in:\n{said}");
            }
            Ok(())
        })
    };
    checks.check("describe a pod, with its events", || {
        let wanted = ["Controlled By:", "ReplicaSet/web-", "Scheduled", "Successfully assigned", "Started"];
        describes(&["describe", "pods", "-l", "app=web"], &wanted)
    });
    checks.check("describe a deployment, with its events", || {
        let wanted = [
            "3 desired | 3 updated | 3 total | 3 available | 0 unavailable",
            "ScalingReplicaSet",
            "Scaled up replica set web-",
        ];
        describes(&["describe", "deployment", "web"], &wanted)
    });
    checks.check("describe a replica set, with its events", || {
        describes(&["describe", "replicasets"], &["SuccessfulCreate", "Created pod: web-", "3 Running"])
    });
    checks.check("describe a service, with its endpoints", || {
        describes(&["describe", "service", "web"], &["Endpoints:", ":8080", "TargetPort:", "8080/TCP"])
    });
    checks.check("describe a node, with its pods", || {
        describes(&["describe", "nodes"], &["Allocated resources:", "Non-terminated Pods:", "web-", "Ready"])
    });
    checks.check("events can be listed", || {
        describes(&["get", "events"], &["LAST SEEN", "Scheduled", "pod/web-"])
    });
}

fn streams(kubectl: &Kubectl, checks: &mut Checks) {
    checks.check("get -w streams what happens", || {
        let watch = kubectl.stream(&["get", "pods", "-w"])?;
        watch.line(PATIENCE, |line| line.starts_with("web-"))?;
        kubectl.ok(&["run", "watched", "--image=registry.example/watched:1"])?;
        watch.line(PATIENCE, |line| line.starts_with("watched") && line.contains("Pending"))?;
        watch.line(PATIENCE, |line| line.starts_with("watched") && line.contains("Running"))?;
        kubectl.ok(&["delete", "pod", "watched", "--now"])?;
        watch.line(PATIENCE, |line| line.starts_with("watched") && line.contains("Terminating")).map(drop)
    });
    checks.check("wait sees a deletion", || {
        kubectl.ok(&["run", "waited", "--image=registry.example/waited:1"])?;
        kubectl.ok(&["wait", "--for=condition=Ready", "pod/waited", "--timeout=60s"])?;
        kubectl.ok(&["delete", "pod", "waited", "--wait=false"])?;
        kubectl.ok(&["wait", "--for=delete", "pod/waited", "--timeout=60s"]).map(drop)
    });
    checks.check("wait understands a jsonpath", || {
        let condition = "--for=jsonpath={.status.readyReplicas}=3";
        kubectl.ok(&["wait", condition, "deployment/web", "--timeout=60s"]).map(drop)
    });
}
