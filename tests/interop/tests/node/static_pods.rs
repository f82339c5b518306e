//! Pods that a folder describes: they come, change and go with their files, and the API shows them.

use std::fs;

use anyhow::{Context, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use interop::{Checks, Kubectl, eventually};
use serde_json::{Value, json};

use crate::pods::{self, PATIENCE, shell};
use crate::world::{Cluster, Inputs};

pub fn run(inputs: &Inputs, checks: &mut Checks) {
    let busybox = match pods::busybox() {
        Ok(busybox) => busybox,
        Err(reason) => return interop::skip(&reason),
    };
    let folder = match interop::Folder::new() {
        Ok(folder) => folder,
        Err(error) => return checks.check("a folder for manifests", || Err(error)),
    };
    let world = World { inputs, manifests: folder.path().to_owned() };
    let cluster = Cluster::start_with(inputs, &world.flags()).and_then(|cluster| {
        pods::build_image(inputs, &cluster, &busybox)?;
        Ok(cluster)
    });
    let cluster = match cluster {
        Ok(cluster) => cluster,
        Err(error) => return checks.check("a cluster with a folder of manifests starts", || Err(error)),
    };
    let kubectl = &cluster.kubectl;
    checks.check("a manifest in the folder is a pod of the node, and its mirror shows it", || {
        world.shown(kubectl)
    });
    checks.check("a mirror that is deleted comes back, and its containers run on", || world.kept(kubectl));
    checks.check("a manifest that cannot be used is nothing to other pods", || world.bad(kubectl));
    checks.check("a manifest that changes is another pod", || world.changed(kubectl));
    checks.check("static pods outlive a crash, and files that went meanwhile end theirs", || {
        world.crashed(cluster)
    });
}

struct World<'a> {
    inputs: &'a Inputs,
    manifests: Utf8PathBuf,
}

/// Name of the pod in the API: with that of its node.
fn name(pod: &str) -> String {
    format!("{pod}-n1")
}

fn container_id(pod: &Value) -> anyhow::Result<String> {
    let id = pod["status"]["containerStatuses"][0]["containerID"].as_str();
    id.map(str::to_owned).with_context(|| format!("no container: {}", pod["status"]))
}

impl World<'_> {
    fn flags(&self) -> [&str; 2] {
        ["--pod-manifest-path", self.manifests.as_str()]
    }

    fn file(&self, pod: &str) -> Utf8PathBuf {
        self.manifests.join(format!("{pod}.json"))
    }

    /// Beside it first, and then at once: nobody reads half of it.
    fn write(&self, pod: &str, script: &str) -> anyhow::Result<()> {
        let manifest = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": pod, "labels": {"app": pod}},
            "spec": {"terminationGracePeriodSeconds": 1, "containers": [shell("c", script)]},
        });
        let next = self.manifests.join(format!(".{pod}"));
        fs::write(&next, manifest.to_string())?;
        fs::rename(&next, self.file(pod)).context("moving a manifest")
    }

    fn shown(&self, kubectl: &Kubectl) -> anyhow::Result<()> {
        self.write("web", "echo begun; sleep 100000")?;
        self.write("other", "sleep 100000")?;
        pods::until_ready(kubectl, &name("other"))?;
        let pod = pods::until_ready(kubectl, &name("web"))?;
        let annotations = &pod["metadata"]["annotations"];
        ensure!(
            annotations["kubernetes.io/config.source"] == "file"
                && annotations["kubernetes.io/config.mirror"] == annotations["kubernetes.io/config.hash"]
                && annotations["kubernetes.io/config.seen"].is_string(),
            "{annotations}"
        );
        let owner = &pod["metadata"]["ownerReferences"][0];
        ensure!(owner["kind"] == "Node" && owner["name"] == "n1" && owner["controller"] == true, "{owner}");
        ensure!(pod["status"]["podIP"].is_string() && pod["spec"]["nodeName"] == "n1", "{}", pod["status"]);
        eventually(PATIENCE, || {
            let log = kubectl.ok(&["logs", &name("web")])?;
            ensure!(log == "begun\n", "{log:?}");
            Ok(())
        })?;
        let said = kubectl.ok(&["exec", &name("web"), "--", "hostname"])?;
        ensure!(said.trim() == name("web"), "{said:?}");
        let described = kubectl.ok(&["describe", "pod", &name("web")])?;
        ensure!(described.contains("Container started"), "{described}");
        // Nobody resizes, through the API, what the API does not have.
        let resources = json!({"requests": {"cpu": "1m"}});
        let patch = json!({"spec": {"containers": [{"name": "c", "resources": resources}]}}).to_string();
        let refused =
            kubectl.refused(&["patch", "pod", &name("web"), "--subresource", "resize", "-p", &patch])?;
        ensure!(refused.contains("static pods cannot be resized"), "{refused}");
        Ok(())
    }

    fn kept(&self, kubectl: &Kubectl) -> anyhow::Result<()> {
        let before = pods::until_ready(kubectl, &name("web"))?;
        kubectl.ok(&["delete", "pod", &name("web"), "--wait=false"])?;
        let after = pods::until(kubectl, &name("web"), |pod| {
            pod["metadata"]["uid"] != before["metadata"]["uid"]
                && pod["status"]["containerStatuses"].is_array()
        })?;
        ensure!(container_id(&before)? == container_id(&after)?, "{}", after["status"]);
        ensure!(after["status"]["containerStatuses"][0]["restartCount"] == 0, "{}", after["status"]);
        Ok(())
    }

    fn bad(&self, kubectl: &Kubectl) -> anyhow::Result<()> {
        let before = pods::until_ready(kubectl, &name("web"))?;
        fs::write(self.manifests.join("nonsense.yaml"), "kind: [")?;
        // What it was described as goes on, too.
        fs::write(self.file("other"), "{\"kind\": \"Pod\"}")?;
        self.write("late", "sleep 100000")?;
        pods::until_ready(kubectl, &name("late"))?;
        pods::until_ready(kubectl, &name("other"))?;
        let after = pods::until_ready(kubectl, &name("web"))?;
        ensure!(container_id(&before)? == container_id(&after)?, "{}", after["status"]);
        Ok(())
    }

    fn changed(&self, kubectl: &Kubectl) -> anyhow::Result<()> {
        let before = pods::until_ready(kubectl, &name("web"))?;
        self.write("web", "echo changed; sleep 100000")?;
        let key = "kubernetes.io/config.hash";
        pods::until(kubectl, &name("web"), |pod| {
            let own = &pod["status"]["containerStatuses"][0];
            pod["metadata"]["annotations"][key] != before["metadata"]["annotations"][key]
                && own["ready"] == true
        })?;
        eventually(PATIENCE, || {
            let log = kubectl.ok(&["logs", &name("web")])?;
            ensure!(log == "changed\n", "{log:?}");
            Ok(())
        })
    }

    fn crashed(&self, cluster: Cluster) -> anyhow::Result<()> {
        let before = pods::until_ready(&cluster.kubectl, &name("web"))?;
        let crashed = cluster.crash()?;
        fs::remove_file(self.file("late"))?;
        let cluster = crashed.restart_with(self.inputs, &self.flags())?;
        let kubectl = &cluster.kubectl;
        until_gone(kubectl, &name("late"))?;
        let after = pods::until_ready(kubectl, &name("web"))?;
        ensure!(container_id(&before)? == container_id(&after)?, "{}", after["status"]);
        ensure!(after["metadata"]["uid"] == before["metadata"]["uid"], "its mirror is another");
        for file in self.manifests.read_dir_utf8()?.flatten() {
            remove(file.path())?;
        }
        for pod in ["web", "other"] {
            until_gone(kubectl, &name(pod))?;
        }
        Ok(())
    }
}

fn until_gone(kubectl: &Kubectl, pod: &str) -> anyhow::Result<()> {
    eventually(PATIENCE, || {
        let said = kubectl.refused(&["get", "pod", pod])?;
        ensure!(said.contains("NotFound"), "{said}");
        Ok(())
    })
}

fn remove(file: &Utf8Path) -> anyhow::Result<()> {
    fs::remove_file(file).with_context(|| format!("removing {file}"))
}
