//! Who reaches whom across machines: by address, Service and name, and what NetworkPolicies make of it.

use anyhow::ensure;
use interop::{Checks, Kubectl, eventually};
use serde_json::{Value, json};

use super::{NODES, World, web_on};
use crate::pods;

/// What busybox' wget is given to answer.
const ANSWER: &str = "timeout 3 wget -q -O -";

pub fn run(world: &World<'_>, checks: &mut Checks) {
    let kubectl = &world.cluster.kubectl;
    checks.check("a pod on each machine becomes ready", || {
        for node in NODES {
            pods::create(kubectl, &format!("web-{node}"), web_on(node, node))?;
        }
        for node in NODES {
            let pod = pods::until_ready(kubectl, &format!("web-{node}"))?;
            ensure!(pod["spec"]["nodeName"] == node, "{}", pod["spec"]["nodeName"]);
        }
        Ok(())
    });
    checks.check("every pod reaches every pod by its address", || {
        for to in NODES {
            let address = address(kubectl, &format!("web-{to}"))?;
            for from in NODES {
                answers(kubectl, &format!("web-{from}"), &format!("{address}:8080"), to)?;
            }
        }
        Ok(())
    });
    checks.check("every pod reaches every Service, by its name, too", || {
        let services: Vec<Value> = NODES.iter().map(|node| service(node)).collect();
        pods::make(kubectl, &services)?;
        for to in NODES {
            // Not the pod's name, by which it knows itself.
            let name = format!("at-{to}");
            let ip = kubectl.ok(&["get", "service", &name, "-o", "jsonpath={.spec.clusterIP}"])?;
            for from in NODES {
                for host in [ip.as_str(), &name, &format!("{name}.default.svc.cluster.local")] {
                    answers(kubectl, &format!("web-{from}"), host, to)?;
                }
            }
        }
        Ok(())
    });
    checks.check("every pod reaches the API", || {
        for from in NODES {
            let script = "nc -w 3 kubernetes.default.svc.cluster.local 443 < /dev/null";
            kubectl.ok(&["exec", &format!("web-{from}"), "--", "sh", "-c", script])?;
        }
        Ok(())
    });
    checks.check("logs, exec and figures come from every machine", || {
        for node in NODES {
            pods::create(
                kubectl,
                &format!("says-{node}"),
                json!({"nodeSelector": {"kubernetes.io/hostname": node}, "containers": [pods::shell("c", "echo I am here; sleep 1000")]}),
            )?;
            let name = format!("says-{node}");
            pods::until_ready(kubectl, &name)?;
            ensure!(kubectl.ok(&["logs", &name])? == "I am here\n", "logs of {name}");
            ensure!(kubectl.ok(&["exec", &name, "--", "hostname"])?.trim() == name, "exec in {name}");
            eventually(pods::PATIENCE, || {
                let path = format!("/api/v1/nodes/{node}/proxy/stats/summary");
                let summary = kubectl.ok(&["get", "--raw", &path])?;
                ensure!(summary.contains(&name), "{summary}");
                Ok(())
            })?;
        }
        Ok(())
    });
    policies(kubectl, checks);
}

fn address(kubectl: &Kubectl, pod: &str) -> anyhow::Result<String> {
    kubectl.ok(&["get", "pod", pod, "-o", "jsonpath={.status.podIP}"])
}

fn service(node: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": format!("at-{node}")},
        "spec": {"selector": {"app": format!("web-{node}")}, "ports": [{"port": 80, "targetPort": 8080}]},
    })
}

/// Waits until a pod gets the page of another one from `host`.
fn answers(kubectl: &Kubectl, from: &str, host: &str, expected: &str) -> anyhow::Result<()> {
    eventually(pods::PATIENCE, || {
        let said = kubectl.ok(&["exec", from, "--", "sh", "-c", &format!("{ANSWER} http://{host}/")])?;
        ensure!(said.trim() == expected, "{from} got {said:?} from {host}");
        Ok(())
    })
}

/// Pods of the table, by the machine that each is on.
const ACTORS: [(&str, &str); 4] = [("front", "n1"), ("back", "n2"), ("store", "n3"), ("guest", "n2")];

/// From whom to whom, and whether the policies let it pass.
const TABLE: [(&str, &str, bool); 12] = [
    ("front", "back", true),
    ("front", "store", false),
    ("front", "guest", false),
    ("back", "front", false),
    ("back", "store", true),
    ("back", "guest", false),
    ("store", "front", false),
    ("store", "back", false),
    ("store", "guest", false),
    ("guest", "front", true),
    ("guest", "back", false),
    ("guest", "store", false),
];

fn policies(kubectl: &Kubectl, checks: &mut Checks) {
    let kubectl = &kubectl.within("guarded");
    checks.check("pods for policies are ready on every machine", || {
        kubectl.ok(&["create", "namespace", "guarded"])?;
        for (name, node) in ACTORS {
            pods::create(kubectl, name, web_on(node, name))?;
        }
        ACTORS.iter().try_for_each(|(name, _)| pods::until_ready(kubectl, name).map(drop))
    });
    checks.check("without a policy everybody reaches everybody", || {
        TABLE.iter().try_for_each(|(from, to, _)| {
            let address = address(kubectl, to)?;
            answers(kubectl, from, &format!("{address}:8080"), to)
        })
    });
    checks.check("with policies they reach whom they may, across machines", || {
        pods::make(kubectl, &rules())?;
        for (from, to, passes) in TABLE {
            let address = address(kubectl, to)?;
            let host = format!("{address}:8080");
            if passes {
                answers(kubectl, from, &host, to)?;
            } else {
                eventually(pods::PATIENCE, || {
                    let script = format!("{ANSWER} http://{host}/");
                    let said = kubectl.run(&["exec", from, "--", "sh", "-c", &script])?;
                    ensure!(said.code != Some(0) && said.stdout.is_empty(), "{from} reaches {to}");
                    Ok(())
                })?;
            }
        }
        Ok(())
    });
    checks.check("when policies go, everybody reaches everybody again", || {
        kubectl.ok(&["delete", "networkpolicy", "--all"])?;
        TABLE.iter().try_for_each(|(from, to, _)| {
            let address = address(kubectl, to)?;
            answers(kubectl, from, &format!("{address}:8080"), to)
        })
    });
}

/// Nobody is let in; but guests to the front, the front to the back, and the back to the store. Guests may go nowhere
/// but to the front.
fn rules() -> [Value; 5] {
    let policy = |name: &str, spec: Value| json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": name}, "spec": spec});
    let of = |app: &str| json!({"matchLabels": {"app": app}});
    let lets_in = |to: &str, from: &str| {
        policy(
            &format!("{from}-to-{to}"),
            json!({"podSelector": of(to), "policyTypes": ["Ingress"], "ingress": [
                {"from": [{"podSelector": of(from)}], "ports": [{"port": 8080}]},
            ]}),
        )
    };
    [
        policy("nobody", json!({"podSelector": {}, "policyTypes": ["Ingress"]})),
        lets_in("front", "guest"),
        lets_in("back", "front"),
        lets_in("store", "back"),
        policy(
            "guests-stay",
            json!({"podSelector": of("guest"), "policyTypes": ["Egress"], "egress": [
                {"to": [{"podSelector": of("front")}]},
            ]}),
        ),
    ]
}
