//! How machines join, and how they do not.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use anyhow::{Context, ensure};
use interop::{Checks, eventually};

use super::{NODES, World};
use crate::pods;

const PATIENCE: Duration = Duration::from_secs(60);
const UNKNOWN: &str = "zzzzzz.0123456789abcdef";

/// What `pintle token create` prints after `pintle node`.
fn invitation(world: &World<'_>, flags: &[&str]) -> anyhow::Result<Vec<String>> {
    let all: Vec<&str> = ["create"].iter().chain(flags).copied().collect();
    let said = world.token(&all)?;
    let words: Vec<String> = said.split_whitespace().map(str::to_owned).collect();
    ensure!(words.starts_with(&["pintle".to_owned(), "node".to_owned()]), "it printed {said:?}");
    ensure!(words.contains(&World::server()), "it printed {said:?}");
    Ok(words[2..].to_vec())
}

/// Makes a good invitation one that is to be refused.
type Spoil = fn(&World<'_>, &mut Vec<String>) -> anyhow::Result<()>;

/// What is refused, under which name, how an invitation becomes that, and what the last line says.
const REFUSALS: [(&str, &str, Spoil, &str); 6] = [
    (
        "an unknown token is refused",
        "n2",
        |_, arguments| replace(arguments, "--token", UNKNOWN),
        "the cluster does not know the token zzzzzz",
    ),
    (
        "a token with another secret is refused",
        "n2",
        |_, arguments| {
            let other = format!("{}.0123456789abcdef", token_id(arguments)?);
            replace(arguments, "--token", &other)
        },
        "signed with another secret",
    ),
    (
        "a token that has expired is refused",
        "n2",
        |world, arguments| {
            *arguments = invitation(world, &["--ttl", "1s"])?;
            let id = token_id(arguments)?;
            eventually(PATIENCE, || {
                let left = world.token(&["list"])?;
                ensure!(!left.contains(&id), "{left}");
                Ok(())
            })
        },
        "has expired",
    ),
    (
        "another authority than that of the hash is refused",
        "n2",
        |_, arguments| {
            let hash = format!("sha256:{}", "0".repeat(64));
            replace(arguments, "--discovery-token-ca-cert-hash", &hash)
        },
        "as --discovery-token-ca-cert-hash says",
    ),
    (
        "a server that is not there is named",
        "n2",
        |_, arguments| {
            arguments.extend(["--discovery-timeout".to_owned(), "1s".to_owned()]);
            replace(arguments, "--server", "https://192.0.2.1:1")
        },
        "--server https://192.0.2.1:1",
    ),
    (
        "the name of a node that is ready is refused",
        NODES[0],
        |world, _| pods::until_node(&world.cluster.kubectl, NODES[0], "True").map(drop),
        "is in the cluster already",
    ),
];

pub fn refusals(world: &World<'_>, checks: &mut Checks) {
    for (name, node, spoil, expected) in REFUSALS {
        checks.check(name, || {
            let mut arguments = invitation(world, &[])?;
            spoil(world, &mut arguments)?;
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            let output = world.machines[0].refused(node, &arguments)?;
            let said = String::from_utf8_lossy(&output.stderr);
            let last = said.lines().last().unwrap_or_default();
            ensure!(last.starts_with("error: ") && last.contains(expected), "it said {said}");
            Ok(())
        });
    }
}

fn position(arguments: &[String], flag: &str) -> anyhow::Result<usize> {
    arguments.iter().position(|own| own == flag).with_context(|| format!("there is no {flag}"))
}

fn replace(arguments: &mut [String], flag: &str, value: &str) -> anyhow::Result<()> {
    let at = position(arguments, flag)?;
    value.clone_into(&mut arguments[at + 1]);
    Ok(())
}

fn token_id(arguments: &[String]) -> anyhow::Result<String> {
    let token = &arguments[position(arguments, "--token")? + 1];
    Ok(token.split('.').next().unwrap_or_default().to_owned())
}

pub fn joins(world: &mut World<'_>, checks: &mut Checks) {
    let kubectl = world.cluster.kubectl.clone();
    checks.check("two machines join with the printed command", || {
        for index in 0..world.machines.len() {
            let mut arguments = invitation(world, &[])?;
            if index == 1 {
                arguments.extend(
                    ["--node-labels", "disk=ssd", "--register-with-taints", "slow=yes:PreferNoSchedule"]
                        .map(str::to_owned),
                );
            }
            world.machines[index].start(&arguments.iter().map(String::as_str).collect::<Vec<_>>())?;
        }
        for node in NODES {
            pods::until_node(&kubectl, node, "True")?;
        }
        Ok(())
    });
    checks.check("a machine has the labels and taints that it came with", || {
        let node = kubectl.json(&["get", "node", "n3"])?;
        ensure!(node["metadata"]["labels"]["disk"] == "ssd", "{}", node["metadata"]);
        let taints = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
        let own = taints.iter().find(|taint| taint["key"] == "slow");
        ensure!(own.is_some_and(|taint| taint["effect"] == "PreferNoSchedule"), "{taints:?}");
        Ok(())
    });
    checks.check("each machine has certificates of its own, which nobody else can read", || {
        for machine in &world.machines {
            let folder = machine.data().join("node/pki");
            for file in ["client.pem", "serving.pem"] {
                let path = folder.join(file);
                let mode = eventually(PATIENCE, || {
                    let metadata = std::fs::metadata(&path).with_context(|| path.to_string())?;
                    Ok(metadata.permissions().mode() & 0o777)
                })?;
                ensure!(mode == 0o600, "{path}: {mode:o}");
            }
        }
        let requests = kubectl.ok(&["get", "csr", "-o", "jsonpath={.items[*].spec.username}"])?;
        for sender in ["system:bootstrap:", "system:node:n2", "system:node:n3"] {
            ensure!(requests.contains(sender), "{requests}");
        }
        Ok(())
    });
    checks.check("a machine may what a node may, and no more", || {
        let kubeconfig = world.machines[0].data().join("node/kubeconfig");
        let own = ["--kubeconfig", kubeconfig.as_str()];
        let asked =
            |arguments: &[&str]| kubectl.run(&own.iter().chain(arguments).copied().collect::<Vec<_>>());
        let node = asked(&["get", "node", "n2", "-o", "name"])?;
        ensure!(node.code == Some(0), "{node:?}");
        for arguments in [
            &["get", "secrets", "-A"][..],
            &["get", "node", "n3"],
            &["label", "node", "n3", "a=b"],
            &["get", "pods", "-A", "--as", "kubernetes-admin"],
            &["create", "service", "clusterip", "x", "--tcp=80", "--as", "system:pintle:network"],
        ] {
            let said = asked(arguments)?;
            ensure!(said.code != Some(0) && said.stderr.contains("orbidden"), "{arguments:?}: {said:?}");
        }
        Ok(())
    });
}

/// On a cluster whose certificates end soon.
pub fn renews(mut world: World<'_>) -> anyhow::Result<()> {
    let kubectl = world.cluster.kubectl.clone();
    let arguments = invitation(&world, &[])?;
    world.machines[0].start(&arguments.iter().map(String::as_str).collect::<Vec<_>>())?;
    pods::create(&kubectl, "web", super::web_on("n2", "web"))?;
    pods::until_ready(&kubectl, "web")?;
    let files =
        ["client.pem", "serving.pem"].map(|file| world.machines[0].data().join("node/pki").join(file));
    let read = || files.iter().map(std::fs::read).collect::<Result<Vec<_>, _>>();
    let mut before = eventually(PATIENCE, || Ok(read()?))?;
    // Twice, so that one that was renewed has renewed another.
    for _ in 0..2 {
        let after = eventually(PATIENCE, || {
            let now = read()?;
            ensure!(
                now.iter().zip(&before).all(|(now, before)| now != before),
                "a certificate is still the same"
            );
            Ok(now)
        })?;
        before = after;
    }
    ensure!(kubectl.ok(&["exec", "web", "--", "hostname"])?.trim() == "web");
    pods::create(&kubectl, "later", super::web_on("n2", "later"))?;
    let pod = pods::until_ready(&kubectl, "later")?;
    ensure!(pod["spec"]["nodeName"] == "n2", "{}", pod["spec"]);
    pods::until_node(&kubectl, "n2", "True").map(drop)
}
