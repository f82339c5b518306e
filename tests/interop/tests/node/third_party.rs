//! Software that nobody here wrote, as its distribution builds it: nginx, Redis and PostgreSQL of Debian's packages, and
//! Debian's registry to pull them from.
//!
//! Owns: how their images are made, and the cluster they run on. Each program's checks are in a file of its name.

mod image;
mod load;
mod nginx;
mod postgres;
mod processes;
mod redis;
mod registry;

use std::time::Duration;

use interop::{Checks, Kubectl, eventually};

use crate::world::{Cluster, Inputs};

use image::Images;

const PATIENCE: Duration = Duration::from_secs(60);

pub fn run(inputs: &Inputs, checks: &mut Checks) {
    let images = match Images::new(inputs) {
        Ok(images) => images,
        Err(error) => return interop::skip(&format!("images of Debian's packages: {error:#}")),
    };
    let cluster = match Cluster::start(inputs) {
        Ok(cluster) => cluster,
        Err(error) => return checks.check("a cluster starts", || Err(error)),
    };
    checks.check("the node is ready", || {
        eventually(PATIENCE, || {
            cluster.kubectl.ok(&["wait", "--for=condition=Ready", "node/n1", "--timeout=60s"])
        })?;
        // Without room on the disk no pod is placed, and every other check would fail for that.
        let pressed = cluster.kubectl.ok(&["get", "node", "n1", "-o", "jsonpath={.spec.taints[*].key}"])?;
        anyhow::ensure!(!pressed.contains("pressure"), "{pressed}");
        Ok(())
    });
    if images.make(&image::NGINX, &cluster, checks) {
        registry::run(&cluster, &images, checks);
        nginx::run(&cluster, checks);
    }
    if images.make(&image::REDIS, &cluster, checks) {
        redis::run(&cluster, checks);
    }
    let cluster = if images.make(&image::POSTGRES, &cluster, checks) {
        postgres::run(inputs, cluster, checks)
    } else {
        Some(cluster)
    };
    let Some(cluster) = cluster else { return };
    checks.check("everything goes away when it is deleted", || everything_goes(&cluster.kubectl));
}

/// Deletes what the parts made; containers live longer than the server and must not outlive the suite.
fn everything_goes(kubectl: &Kubectl) -> anyhow::Result<()> {
    for kind in ["deployments", "statefulsets", "pods", "persistentvolumeclaims"] {
        kubectl.ok(&["delete", kind, "--all"])?;
    }
    kubectl.ok(&["delete", "services", "--field-selector=metadata.name!=kubernetes"])?;
    eventually(PATIENCE, || {
        let left = kubectl.ok(&["get", "pods,persistentvolumeclaims,persistentvolumes", "-o", "name"])?;
        anyhow::ensure!(left.trim().is_empty(), "{left}");
        Ok(())
    })
}
