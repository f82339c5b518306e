//! Pods of busybox: making them, and waiting for what becomes of them.

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::Duration;
use std::{env, fs};

use anyhow::{Context, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use interop::{Kubectl, eventually};
use serde_json::{Value, json};

use crate::remains;
use crate::world::{self, Cluster, Inputs};

/// The image of [`build_image`].
pub const IMAGE: &str = "test.pintle.dev/busybox:1";

pub const PATIENCE: Duration = Duration::from_secs(60);

/// A node's silence is noticed after 50 s.
const NODE_PATIENCE: Duration = Duration::from_secs(120);

/// Why there is no busybox to make an image of, or where it is.
pub fn busybox() -> Result<Utf8PathBuf, String> {
    let path = env::var("PATH").unwrap_or_default();
    let found =
        path.split(':').map(|folder| Utf8Path::new(folder).join("busybox")).find(|file| file.is_file());
    let found = found.ok_or("there is no busybox on this machine")?;
    let program = fs::read(&found).map_err(|error| format!("{found} cannot be read: {error}"))?;
    // A dynamic program names its loader.
    let is_static = !program.windows(LOADER.len()).any(|bytes| bytes == LOADER);
    if is_static { Ok(found) } else { Err(format!("{found} is not linked statically")) }
}

const LOADER: &[u8] = b"/ld-linux";

/// Makes the image: busybox and its applets, a `/tmp` for everybody.
pub fn build_image(inputs: &Inputs, cluster: &Cluster, busybox: &Utf8Path) -> anyhow::Result<()> {
    let root = cluster.folder.path().join("busybox");
    let programs = root.join("bin");
    for folder in [&programs, &root.join("etc"), &root.join("root"), &root.join("www")] {
        fs::create_dir_all(folder).with_context(|| format!("making {folder}"))?;
    }
    let scratch = root.join("tmp");
    fs::create_dir_all(&scratch).with_context(|| format!("making {scratch}"))?;
    fs::set_permissions(&scratch, Permissions::from_mode(0o1777))?;
    fs::write(root.join("www/index.html"), "page\n")?;
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nsailor:x:1000:1000::/tmp:/bin/sh\n")?;
    fs::copy(busybox, programs.join("busybox")).context("copying busybox")?;
    for applet in world::run(busybox.as_str(), &["--list"])?.lines().filter(|applet| *applet != "busybox") {
        symlink("busybox", programs.join(applet)).with_context(|| format!("linking {applet}"))?;
    }
    world::build_image(inputs, cluster, IMAGE, &root, &["sh"])
}

/// A container that runs a script.
pub fn shell(name: &str, script: &str) -> Value {
    json!({"name": name, "image": IMAGE, "command": ["sh", "-c", script]})
}

/// A container that runs a script, with more fields.
pub fn shell_with(name: &str, script: &str, fields: Value) -> Value {
    with(shell(name, script), fields)
}

/// An object and the fields of another.
fn with(mut object: Value, fields: Value) -> Value {
    if let (Value::Object(object), Value::Object(fields)) = (&mut object, fields) {
        object.extend(fields);
    }
    object
}

/// Makes a pod that runs once, gets a second to end, and has the label `app` with its name.
pub fn create(kubectl: &Kubectl, name: &str, spec: Value) -> anyhow::Result<()> {
    let spec = with(json!({"restartPolicy": "Never", "terminationGracePeriodSeconds": 1}), spec);
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}}, "spec": spec});
    kubectl.ok_with(&["create", "-f", "-"], &pod.to_string()).map(drop)
}

/// Makes objects of any kind.
pub fn make(kubectl: &Kubectl, objects: &[Value]) -> anyhow::Result<()> {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
    kubectl.ok_with(&["create", "-f", "-"], &list.to_string()).map(drop)
}

/// Waits until a pod satisfies; with its status if it never does.
pub fn until(kubectl: &Kubectl, name: &str, satisfies: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
    eventually(PATIENCE, || {
        let pod = kubectl.json(&["get", "pod", name])?;
        ensure!(satisfies(&pod), "{}", pod["status"]);
        Ok(pod)
    })
}

pub fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.is_some_and(|all| all.iter().any(|one| one["type"] == "Ready" && one["status"] == "True"))
}

pub fn until_ready(kubectl: &Kubectl, name: &str) -> anyhow::Result<Value> {
    until(kubectl, name, is_ready)
}

pub fn until_phase(kubectl: &Kubectl, name: &str, phase: &str) -> anyhow::Result<Value> {
    until(kubectl, name, |pod| pod["status"]["phase"] == phase)
}

/// How the only container of a pod ended.
pub fn until_ended(kubectl: &Kubectl, name: &str) -> anyhow::Result<Value> {
    let ended = |pod: &Value| pod["status"]["containerStatuses"][0]["state"]["terminated"].clone();
    Ok(ended(&until(kubectl, name, |pod| ended(pod).is_object())?))
}

/// What a pod of one container printed until its end, which must be good.
pub fn output(kubectl: &Kubectl, name: &str, spec: Value) -> anyhow::Result<String> {
    create(kubectl, name, spec)?;
    let ended = until_ended(kubectl, name)?;
    let said = kubectl.ok(&["logs", name])?;
    ensure!(ended["exitCode"] == 0, "{ended}; it printed {said}");
    Ok(said)
}

/// Waits until a node's condition `Ready` has this status.
pub fn until_node(kubectl: &Kubectl, name: &str, status: &str) -> anyhow::Result<Value> {
    eventually(NODE_PATIENCE, || {
        let node = kubectl.json(&["get", "node", name])?;
        let conditions = node["status"]["conditions"].as_array();
        let ready = conditions.and_then(|all| all.iter().find(|one| one["type"] == "Ready"));
        ensure!(ready.is_some_and(|ready| ready["status"] == status), "{}", node["status"]["conditions"]);
        Ok(node)
    })
}

/// Waits for an event about an object with this reason and a message that contains this.
pub fn event(kubectl: &Kubectl, object: &str, reason: &str, message: &str) -> anyhow::Result<()> {
    let about = format!("involvedObject.name={object},reason={reason}");
    eventually(PATIENCE, || {
        let events = kubectl.ok(&[
            "get",
            "events",
            "--field-selector",
            &about,
            "-o",
            "jsonpath={.items[*].message}",
        ])?;
        ensure!(events.contains(message), "events with {reason}: {events}");
        Ok(())
    })
}

/// How many users a pod has that has its own, and how many the host keeps for itself.
pub const IDS: u32 = 65_536;

/// Where the IDs of a pod begin on the host, as the pod itself and its first process tell.
pub fn first_id(kubectl: &Kubectl, name: &str) -> anyhow::Result<u32> {
    let map = kubectl.ok(&["exec", name, "--", "cat", "/proc/self/uid_map", "/proc/self/gid_map"])?;
    let numbers: Vec<u32> = map.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    let [0, first, IDS, ..] = numbers[..] else { anyhow::bail!("{map}") };
    ensure!(numbers == [0, first, IDS, 0, first, IDS] && first >= IDS, "{map}");
    let pod = kubectl.json(&["get", "pod", name])?;
    let pid = container(&pod)
        .and_then(|id| remains::processes_of_container(id).into_iter().min())
        .context("the container has no process")?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    ensure!(status.contains(&format!("\nUid:\t{first}\t{first}\t{first}\t{first}\n")), "{status}");
    Ok(first)
}

/// The ID of a pod's first container.
pub fn container(pod: &Value) -> Option<&str> {
    let id = pod["status"]["containerStatuses"][0]["containerID"].as_str()?;
    Some(id.split_once("://")?.1)
}
