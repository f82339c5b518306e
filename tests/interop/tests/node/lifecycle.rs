//! What a pod may ask of its node, from its first container to its last word.

mod contents;
mod course;
mod failures;
mod network;
mod probes;
mod security;
mod users;

use interop::{Checks, Kubectl};

use crate::pods;
use crate::world::{Cluster, Inputs};

/// What the checks of a group share.
struct World<'a> {
    kubectl: &'a Kubectl,
    cluster: &'a Cluster,
    has_containerd: bool,
}

pub fn run(inputs: &Inputs, checks: &mut Checks) {
    let busybox = match pods::busybox() {
        Ok(busybox) => busybox,
        Err(reason) => return interop::skip(&reason),
    };
    let cluster = Cluster::start(inputs).and_then(|cluster| {
        pods::build_image(inputs, &cluster, &busybox)?;
        Ok(cluster)
    });
    let cluster = match cluster {
        Ok(cluster) => cluster,
        Err(error) => return checks.check("a cluster starts", || Err(error)),
    };
    let world =
        World { kubectl: &cluster.kubectl, cluster: &cluster, has_containerd: inputs.containerd.is_some() };
    for group in
        [course::run, probes::run, contents::run, security::run, users::run, network::run, failures::run]
    {
        group(&world, checks);
    }
}
