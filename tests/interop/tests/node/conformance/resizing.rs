//! Pods that are resized while they run: what their cgroups say, what their status does, and who is restarted.

use anyhow::{Context, ensure};
use interop::{Checks, Kubectl, eventually};
use serde_json::{Value, json};

use super::World;
use crate::pods::{self, PATIENCE, shell_with};

const SLEEP: &str = "trap exit TERM; sleep 100000 & wait";

pub fn run(world: &World<'_>, checks: &mut Checks) {
    let kubectl = world.kubectl;
    checks.check("running containers of a guaranteed pod are given more and less CPU and memory", || {
        guaranteed(kubectl)
    });
    checks.check("requests and limits are added to and changed in containers of a burstable pod", || {
        burstable(kubectl)
    });
    checks.check("a resize to the same amounts in other words changes nothing", || equivalents(kubectl));
    checks.check("a pod is resized through the replace verb", || replaced(kubectl));
    checks.check("a container is restarted for what its resize policy says", || restarted(kubectl));
    checks.check("a resize that cannot be says why, and may be taken back", || refused(kubectl));
    checks.check("memory that is in use is not taken away", || in_use(kubectl));
}

/// Requests and limits: CPU and memory, where they are not empty.
fn amounts(requests: (&str, &str), limits: (&str, &str)) -> Value {
    let list = |(cpu, memory): (&str, &str)| {
        let all = [("cpu", cpu), ("memory", memory)].into_iter().filter(|(_, amount)| !amount.is_empty());
        all.map(|(name, amount)| (name.to_owned(), Value::from(amount))).collect::<serde_json::Map<_, _>>()
    };
    json!({"requests": list(requests), "limits": list(limits)})
}

fn bound(cpu: &str, memory: &str) -> Value {
    amounts((cpu, memory), (cpu, memory))
}

fn create(kubectl: &Kubectl, name: &str, containers: &[(&str, Value)]) -> anyhow::Result<()> {
    let containers: Vec<Value> = containers
        .iter()
        .map(|(name, resources)| shell_with(name, SLEEP, json!({"resources": resources})))
        .collect();
    pods::create(kubectl, name, json!({"restartPolicy": "Always", "containers": containers}))?;
    pods::until_ready(kubectl, name).map(drop)
}

fn resize(kubectl: &Kubectl, pod: &str, containers: &[(&str, Value)]) -> anyhow::Result<()> {
    let containers: Vec<Value> =
        containers.iter().map(|(name, resources)| json!({"name": name, "resources": resources})).collect();
    let patch = json!({"spec": {"containers": containers}}).to_string();
    kubectl.ok(&["patch", "pod", pod, "--subresource", "resize", "-p", &patch]).map(drop)
}

fn has_condition(pod: &Value, kind: &str) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.is_some_and(|all| all.iter().any(|one| one["type"] == kind))
}

/// Until nothing of a resize is left to do, and the status tells what is asked for.
fn settled(kubectl: &Kubectl, pod: &str) -> anyhow::Result<Value> {
    pods::until(kubectl, pod, |pod| {
        let own = |container: &Value| {
            let statuses = pod["status"]["containerStatuses"].as_array();
            let status = statuses.and_then(|all| all.iter().find(|own| own["name"] == container["name"]));
            status.is_some_and(|own| own["ready"] == true && own["resources"] == container["resources"])
        };
        !has_condition(pod, "PodResizePending")
            && !has_condition(pod, "PodResizeInProgress")
            && pod["status"]["observedGeneration"] == pod["metadata"]["generation"]
            && pod["spec"]["containers"].as_array().is_some_and(|all| all.iter().all(own))
    })
}

/// What the kernel holds a container to: shares or weight, quota, bytes.
fn held_to(kubectl: &Kubectl, pod: &str, container: &str) -> anyhow::Result<(u64, i64, i64)> {
    let script = "cd /sys/fs/cgroup; if [ -d memory ]; then
        cat cpu/cpu.shares cpu/cpu.cfs_quota_us memory/memory.limit_in_bytes
        else cat cpu.weight; cut -d' ' -f1 cpu.max; cat memory.max; fi";
    let said = kubectl.ok(&["exec", pod, "-c", container, "--", "sh", "-c", script])?;
    let mut lines = said.lines();
    let mut next = || lines.next().context("three lines").map(str::trim);
    let number = |text: &str| text.parse::<i64>().unwrap_or(-1);
    let (shares, quota, bytes) = (next()?.parse()?, number(next()?), number(next()?));
    Ok((shares, quota, bytes))
}

/// As the kernel has it: `cpu.shares` of so many thousandths, or the weight that they are.
fn is_weight(seen: u64, milli: u64) -> bool {
    let shares = (milli * 1024 / 1000).max(2);
    seen == shares || seen == 1 + (shares - 2) * 9999 / 262_142
}

fn expect(kubectl: &Kubectl, pod: &str, container: &str, wanted: (u64, i64, i64)) -> anyhow::Result<()> {
    let (milli, quota, mebibytes) = wanted;
    let (weight, seen_quota, bytes) = held_to(kubectl, pod, container)?;
    let is_unlimited = |bytes: i64| !(0..1 << 60).contains(&bytes);
    ensure!(
        is_weight(weight, milli)
            && seen_quota == quota
            && if mebibytes < 0 { is_unlimited(bytes) } else { bytes == mebibytes << 20 },
        "{pod}/{container}: weight {weight}, quota {seen_quota}, {bytes} bytes; want {wanted:?}"
    );
    Ok(())
}

fn restarts(pod: &Value) -> Vec<u64> {
    let statuses = pod["status"]["containerStatuses"].as_array();
    statuses.into_iter().flatten().filter_map(|own| own["restartCount"].as_u64()).collect()
}

fn guaranteed(kubectl: &Kubectl) -> anyhow::Result<()> {
    let all = |amounts: [(&str, &str); 3]| {
        let names = ["c1", "c2", "c3"];
        names
            .into_iter()
            .zip(amounts)
            .map(|(name, (cpu, memory))| (name, bound(cpu, memory)))
            .collect::<Vec<_>>()
    };
    create(kubectl, "resize-all", &all([("50m", "50Mi"), ("60m", "60Mi"), ("70m", "70Mi")]))?;
    for wanted in [
        // More for two, less for one: more together, less together, and each resource its own way.
        [("80m", "80Mi"), ("90m", "90Mi"), ("40m", "40Mi")],
        [("90m", "90Mi"), ("40m", "40Mi"), ("30m", "30Mi")],
        [("95m", "90Mi"), ("35m", "60Mi"), ("45m", "50Mi")],
    ] {
        resize(kubectl, "resize-all", &all(wanted))?;
        let pod = settled(kubectl, "resize-all")?;
        ensure!(
            restarts(&pod) == [0, 0, 0] && pod["status"]["qosClass"] == "Guaranteed",
            "{}",
            pod["status"]
        );
        for (name, (cpu, memory)) in ["c1", "c2", "c3"].into_iter().zip(wanted) {
            let milli: u64 = cpu.trim_end_matches('m').parse()?;
            let mebibytes: i64 = memory.trim_end_matches("Mi").parse()?;
            expect(kubectl, "resize-all", name, (milli, i64::try_from(milli)? * 100, mebibytes))?;
        }
    }
    for reason in ["ResizeStarted", "ResizeCompleted"] {
        eventually(PATIENCE, || {
            let filter = format!("involvedObject.name=resize-all,reason={reason}");
            let events = kubectl.json(&["get", "events", "--field-selector", &filter])?;
            ensure!(events["items"].as_array().is_some_and(|all| all.len() == 3), "{reason}: {events}");
            Ok(())
        })?;
    }
    Ok(())
}

fn burstable(kubectl: &Kubectl) -> anyhow::Result<()> {
    let none = ("", "");
    let before = [
        ("c1", amounts(("50m", ""), none)),
        ("c2", amounts(("", "40Mi"), none)),
        ("c3", amounts(none, none)),
        ("c4", amounts(("50m", "40Mi"), ("80m", "80Mi"))),
    ];
    let after = [
        ("c1", amounts(("60m", "30Mi"), ("90m", "90Mi"))),
        ("c2", amounts(("20m", "50Mi"), none)),
        ("c3", amounts(("10m", ""), ("40m", ""))),
        ("c4", amounts(("30m", "20Mi"), ("70m", "60Mi"))),
    ];
    create(kubectl, "resize-some", &before)?;
    expect(kubectl, "resize-some", "c3", (0, -1, -1))?;
    resize(kubectl, "resize-some", &after)?;
    let pod = settled(kubectl, "resize-some")?;
    ensure!(restarts(&pod) == [0, 0, 0, 0] && pod["status"]["qosClass"] == "Burstable", "{}", pod["status"]);
    for (name, wanted) in
        [("c1", (60, 9_000, 90)), ("c2", (20, -1, -1)), ("c3", (10, 4_000, -1)), ("c4", (30, 7_000, 60))]
    {
        expect(kubectl, "resize-some", name, wanted)?;
    }
    Ok(())
}

fn equivalents(kubectl: &Kubectl) -> anyhow::Result<()> {
    create(kubectl, "resize-same", &[("c", amounts(("2m", "32Mi"), ("10m", "64Mi")))])?;
    // Below the least that the kernel knows, all is the same to it.
    resize(kubectl, "resize-same", &[("c", amounts(("1m", "32768Ki"), ("5m", "0.0625Gi")))])?;
    let pod = pods::until(kubectl, "resize-same", |pod| {
        pod["status"]["observedGeneration"] == pod["metadata"]["generation"]
            && !has_condition(pod, "PodResizePending")
            && !has_condition(pod, "PodResizeInProgress")
            && pod["status"]["containerStatuses"][0]["resources"]["limits"]["cpu"] == "5m"
    })?;
    ensure!(restarts(&pod) == [0], "{}", pod["status"]);
    expect(kubectl, "resize-same", "c", (2, 1_000, 64))
}

fn replaced(kubectl: &Kubectl) -> anyhow::Result<()> {
    create(kubectl, "resize-put", &[("c", bound("50m", "32Mi"))])?;
    let mut pod = kubectl.json(&["get", "pod", "resize-put"])?;
    pod["spec"]["containers"][0]["resources"] = bound("70m", "48Mi");
    kubectl.ok_with(&["replace", "--subresource", "resize", "-f", "-"], &pod.to_string())?;
    let pod = settled(kubectl, "resize-put")?;
    ensure!(restarts(&pod) == [0], "{}", pod["status"]);
    expect(kubectl, "resize-put", "c", (70, 7_000, 48))
}

fn restarted(kubectl: &Kubectl) -> anyhow::Result<()> {
    let policy = json!([{"resourceName": "memory", "restartPolicy": "RestartContainer"},
        {"resourceName": "cpu", "restartPolicy": "NotRequired"}]);
    let container =
        shell_with("c", SLEEP, json!({"resources": bound("50m", "32Mi"), "resizePolicy": policy}));
    pods::create(kubectl, "resize-anew", json!({"restartPolicy": "Always", "containers": [container]}))?;
    pods::until_ready(kubectl, "resize-anew")?;
    resize(kubectl, "resize-anew", &[("c", bound("60m", "32Mi"))])?;
    let pod = settled(kubectl, "resize-anew")?;
    ensure!(restarts(&pod) == [0], "{}", pod["status"]);
    resize(kubectl, "resize-anew", &[("c", bound("60m", "24Mi"))])?;
    let pod = settled(kubectl, "resize-anew")?;
    ensure!(restarts(&pod) == [1], "{}", pod["status"]);
    expect(kubectl, "resize-anew", "c", (60, 6_000, 24))?;
    pods::event(kubectl, "resize-anew", "Killing", "Container c resize requires restart")
}

fn pending(pod: &Value) -> String {
    let conditions = pod["status"]["conditions"].as_array();
    let own = conditions.and_then(|all| all.iter().find(|one| one["type"] == "PodResizePending"));
    own.map(|own| format!("{} {}", own["reason"], own["message"])).unwrap_or_default()
}

fn refused(kubectl: &Kubectl) -> anyhow::Result<()> {
    let node = kubectl.json(&["get", "node", "n1"])?;
    let cpus: u64 = node["status"]["allocatable"]["cpu"].as_str().context("an amount")?.parse()?;
    create(kubectl, "resize-not", &[("c", amounts(("50m", "32Mi"), ("", "")))])?;
    // The server itself refuses what the node has not in all: the node is told only what others have meanwhile.
    let most = format!("{}m", cpus * 1000);
    resize(kubectl, "resize-not", &[("c", amounts((&most, "32Mi"), ("", "")))])?;
    let pod = pods::until(kubectl, "resize-not", |pod| !pending(pod).is_empty())?;
    let wanted = format!("\"Deferred\" \"Node didn't have enough resource: cpu, requested: {}", cpus * 1000);
    ensure!(pending(&pod).starts_with(&wanted), "{}", pod["status"]);
    let own = &pod["status"]["containerStatuses"][0];
    ensure!(own["resources"]["requests"]["cpu"] == "50m", "{own}");
    expect(kubectl, "resize-not", "c", (50, -1, -1))?;
    resize(kubectl, "resize-not", &[("c", amounts(("60m", "32Mi"), ("", "")))])?;
    settled(kubectl, "resize-not")?;
    expect(kubectl, "resize-not", "c", (60, -1, -1))
}

fn in_use(kubectl: &Kubectl) -> anyhow::Result<()> {
    let script = "x=$(head -c 20m /dev/zero | tr '\\0' x); touch /tmp/full; sleep 100000; true";
    let probe = json!({"exec": {"command": ["test", "-f", "/tmp/full"]}, "periodSeconds": 1});
    let fields = json!({"resources": bound("100m", "128Mi"), "readinessProbe": probe});
    pods::create(
        kubectl,
        "resize-used",
        json!({"restartPolicy": "Always", "containers": [shell_with("c", script, fields)]}),
    )?;
    pods::until_ready(kubectl, "resize-used")?;
    resize(kubectl, "resize-used", &[("c", bound("100m", "8Mi"))])?;
    let pod = pods::until(kubectl, "resize-used", |pod| {
        let conditions = pod["status"]["conditions"].as_array();
        conditions.is_some_and(|all| {
            all.iter().any(|one| {
                one["type"] == "PodResizeInProgress"
                    && one["reason"] == "Error"
                    && one["message"]
                        .as_str()
                        .is_some_and(|text| text.starts_with("cannot decrease memory limits: "))
            })
        })
    })?;
    ensure!(restarts(&pod) == [0], "{}", pod["status"]);
    resize(kubectl, "resize-used", &[("c", bound("100m", "256Mi"))])?;
    settled(kubectl, "resize-used")?;
    expect(kubectl, "resize-used", "c", (100, 10_000, 256))
}
