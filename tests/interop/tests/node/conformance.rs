//! What upstream's conformance tests of nodes, networks and volumes ask for, beyond the other parts.
//!
//! Which check covers which of those tests is in the table of `crates/xtask/tests/conformance`.

mod empty_dirs;
mod environment;
mod files;
mod hosts;
mod images;
mod names;
mod outcomes;
mod probing;
mod resizing;
mod services;
mod sub_paths;
mod users;

use interop::{Checks, Kubectl};

use crate::pods;
use crate::world::{Cluster, Inputs};

/// What the checks of a group share.
struct World<'a> {
    kubectl: &'a Kubectl,
    cluster: &'a Cluster,
    inputs: &'a Inputs,
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
    let world = World { kubectl: &cluster.kubectl, cluster: &cluster, inputs };
    let groups = [
        empty_dirs::run,
        files::run,
        sub_paths::run,
        environment::run,
        hosts::run,
        images::run,
        outcomes::run,
        users::run,
        probing::run,
        resizing::run,
        services::run,
        names::run,
    ];
    for group in groups {
        group(&world, checks);
    }
}
