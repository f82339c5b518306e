//! The OCI configuration of a container: what libcontainer is told to make.
//!
//! Owns: the whole of `config.json`, as a pure function of what the pod wants, what its image says and [`Facts`] of the
//! place; the defaults are containerd's. Never touches: files, but for the numbers of devices.

pub(super) mod capabilities;
pub(super) mod devices;
mod mounts;

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::Result;
use crate::embedded::images::ImageConfig;
use crate::embedded::user::Resolved;
use crate::spec::{ContainerConfig, Resources};

/// Where programs are looked for if neither image nor pod say.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// As everybody has it; this process' own is nobody's business.
const UMASK: u32 = 0o022;

/// What a container's configuration depends on, besides what its pod and its image want.
pub(super) struct Facts<'a> {
    pub root: &'a str,
    pub cgroup: &'a str,
    pub user: &'a Resolved,
    pub capabilities: &'a BTreeSet<String>,
    /// Namespaces: OCI's name of the kind, and where it is held; `None` for a new one.
    pub namespaces: &'a [(&'static str, Option<String>)],
    /// Files that every container has, by their place in it: `/etc/hostname`, `/dev/shm`, ….
    pub files: &'a [(&'static str, String)],
    /// Where each of the pod's mounts lies on the host, in their order.
    pub sources: &'a [String],
    /// Where control groups are, which a container must not write to.
    pub read_only: &'a [String],
    /// Folders of the container's control group on the host, by their place in it; empty where libcontainer finds them.
    pub cgroup_folders: &'a [(String, String)],
    /// Whether this machine limits huge pages.
    pub limits_hugepages: bool,
    /// Whether devices are the host's files, mounted: a user namespace may not make any.
    pub binds_devices: bool,
}

/// What the container runs: the image's entry point and command, as the pod has replaced them.
pub(super) fn command(config: &ContainerConfig, image: &ImageConfig) -> Vec<String> {
    let entrypoint = if config.command.is_empty() { &image.entrypoint } else { &config.command };
    let arguments =
        if config.args.is_empty() && config.command.is_empty() { &image.cmd } else { &config.args };
    entrypoint.iter().chain(arguments).cloned().collect()
}

/// Where it runs.
pub(super) fn working_dir<'a>(config: &'a ContainerConfig, image: &'a ImageConfig) -> &'a str {
    [config.working_dir.as_str(), image.working_dir.as_str(), "/"]
        .into_iter()
        .find(|dir| !dir.is_empty())
        .unwrap_or("/")
}

fn environment(config: &ContainerConfig, image: &ImageConfig, hostname: &str) -> Vec<String> {
    let mut env: Vec<(String, String)> = vec![("PATH".to_owned(), DEFAULT_PATH.to_owned())];
    if config.tty {
        env.push(("TERM".to_owned(), "xterm".to_owned()));
    }
    env.push(("HOSTNAME".to_owned(), hostname.to_owned()));
    let image = image.env.iter().filter_map(|entry| entry.split_once('='));
    for (name, value) in image.chain(config.env.iter().map(|(name, value)| (name.as_str(), value.as_str()))) {
        match env.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => value.clone_into(known),
            None => env.push((name.to_owned(), value.to_owned())),
        }
    }
    env.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}

/// The process of a container; a command in it is the same with other arguments.
pub(super) fn process(
    config: &ContainerConfig,
    image: &ImageConfig,
    facts: &Facts<'_>,
    hostname: &str,
) -> Value {
    let capabilities: Vec<&String> = facts.capabilities.iter().collect();
    let mut env = environment(config, image, hostname);
    if let Some(home) =
        facts.user.home.as_ref().filter(|_| !env.iter().any(|entry| entry.starts_with("HOME=")))
    {
        env.push(format!("HOME={home}"));
    }
    let user = &facts.user.user;
    json!({
        "terminal": config.tty,
        "user": {"uid": user.uid, "gid": user.gid, "additionalGids": user.supplemental_groups, "umask": UMASK},
        "args": command(config, image),
        "env": env,
        "cwd": working_dir(config, image),
        "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities,
            "inheritable": [], "ambient": []},
        "noNewPrivileges": config.security.no_new_privileges,
    })
}

/// The process of a command in a container, from the container's own.
pub(super) fn exec_process(process: &Value, command: &[String], tty: bool) -> Value {
    let mut process = process.clone();
    process["args"] = json!(command);
    process["terminal"] = json!(tty);
    if tty && let Some(env) = process["env"].as_array_mut() {
        let given = env.iter().any(|entry| entry.as_str().is_some_and(|entry| entry.starts_with("TERM=")));
        if !given {
            env.push(json!("TERM=xterm"));
        }
    }
    process
}

/// The whole configuration.
pub(super) fn container(
    config: &ContainerConfig,
    image: &ImageConfig,
    facts: &Facts<'_>,
    hostname: &str,
) -> Result<Value> {
    let devices = devices::decide(config)?;
    let mut read_only: Vec<&str> = facts.read_only.iter().map(String::as_str).collect();
    let unmasked = config.security.privileged || config.security.unmasked_proc;
    if !unmasked {
        read_only.extend(mounts::READ_ONLY);
    }
    let mut mounts = mounts::decide(config, facts);
    let files = if facts.binds_devices {
        mounts.extend(devices.binds());
        Vec::new()
    } else {
        devices.files
    };
    let mut resources = resources(&config.resources, facts.limits_hugepages);
    resources["devices"] = json!(devices.rules);
    let namespaces: Vec<Value> = facts
        .namespaces
        .iter()
        .map(|(kind, path)| match path {
            Some(path) => json!({"type": kind, "path": path}),
            None => json!({"type": kind}),
        })
        .collect();
    Ok(json!({
        "ociVersion": "1.0.2",
        "process": process(config, image, facts, hostname),
        "root": {"path": facts.root, "readonly": config.security.read_only_root},
        "mounts": mounts,
        "annotations": config.annotations,
        "linux": {
            "namespaces": namespaces,
            "cgroupsPath": facts.cgroup,
            "resources": resources,
            "devices": files,
            "rootfsPropagation": propagation(config),
            "maskedPaths": if unmasked { json!([]) } else { json!(mounts::MASKED) },
            "readonlyPaths": read_only,
        },
    }))
}

/// The root must let through what some mount wants to pass.
fn propagation(config: &ContainerConfig) -> &'static str {
    use crate::spec::Propagation;
    if config.mounts.iter().any(|mount| mount.propagation == Propagation::Bidirectional) {
        "shared"
    } else {
        "slave"
    }
}

fn resources(resources: &Resources, limits_hugepages: bool) -> Value {
    let mut cpu = json!({});
    if resources.cpu_shares != 0 {
        cpu["shares"] = json!(resources.cpu_shares);
    }
    if resources.cpu_quota != 0 {
        cpu["quota"] = json!(resources.cpu_quota);
    }
    if resources.cpu_period != 0 {
        cpu["period"] = json!(resources.cpu_period);
    }
    if !resources.cpuset_cpus.is_empty() {
        cpu["cpus"] = json!(resources.cpuset_cpus);
    }
    let mut value = json!({"cpu": cpu});
    if resources.memory_limit != 0 {
        value["memory"] = json!({"limit": resources.memory_limit});
    }
    if resources.pids_limit > 0 {
        value["pids"] = json!({"limit": resources.pids_limit});
    }
    if limits_hugepages && !resources.hugepages.is_empty() {
        value["hugepageLimits"] = resources
            .hugepages
            .iter()
            .map(|(size, limit)| json!({"pageSize": size, "limit": limit}))
            .collect();
    }
    if !resources.unified.is_empty() {
        value["unified"] = json!(resources.unified);
    }
    value
}

#[cfg(test)]
mod tests;
