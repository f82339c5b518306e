//! Drivers and plugins of the node: what they give to containers, while they come, go and hang.
//!
//! They are this suite's own ([`csi`], [`devices`], [`dynamic_resources`]): one that somebody else wrote would have to be
//! fetched. Their messages are written down anew here ([`messages`]), so that a wrong number is found.

mod cdi;
mod csi;
mod devices;
mod dynamic_resources;
mod messages;
mod service;

use interop::Checks;

use crate::pods;
use crate::world::{Cluster, Inputs};

pub fn run(inputs: &Inputs, checks: &mut Checks) {
    let busybox = match pods::busybox() {
        Ok(busybox) => busybox,
        Err(reason) => return interop::skip(&reason),
    };
    let start = || {
        let cluster = Cluster::start(inputs)?;
        pods::build_image(inputs, &cluster, &busybox)?;
        anyhow::Ok(cluster)
    };
    let cluster = match start() {
        Ok(cluster) => cluster,
        Err(error) => return checks.check("a cluster starts", || Err(error)),
    };
    // Kept until the last container that names its device was made.
    let file = cdi::CdiFile::write();
    checks.check("a file of CDI devices is written", || {
        file.as_ref().map(drop).map_err(|own| anyhow::anyhow!("{own:#}"))
    });
    let driver = match csi::Driver::begin(&cluster) {
        Ok(driver) => driver,
        Err(error) => return checks.check("a driver starts", || Err(error)),
    };
    devices::run(&cluster, checks);
    dynamic_resources::run(&cluster, checks);
    csi::run(inputs, cluster, &driver, checks);
}
