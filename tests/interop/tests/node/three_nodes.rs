//! A cluster of three machines: one with the server, two that joined with the command that `pintle token create`
//! prints. Each is a network namespace; a bridge is the wire between them.

mod connections;
mod joining;
mod losses;
mod machine;

use camino::Utf8Path;
use interop::Checks;
use serde_json::json;

use crate::pods;
use crate::world::{ADDRESS, Cluster, Inputs};
use machine::Machine;

/// Where the server listens. Nobody else is in the suite's namespace.
const PORT: &str = "6443";

/// A cluster and the machines that are in it, beside the one that the server runs on.
struct World<'a> {
    inputs: &'a Inputs,
    cluster: Cluster,
    machines: Vec<Machine>,
}

/// The nodes by name, in the order of their machines.
const NODES: [&str; 3] = ["n1", "n2", "n3"];

impl<'a> World<'a> {
    /// None of its machines has joined.
    fn new(inputs: &'a Inputs, busybox: &Utf8Path, flags: &[&str]) -> anyhow::Result<Self> {
        let listen = format!("0.0.0.0:{PORT}");
        let cluster = Cluster::start_with(inputs, &[&["--listen", &listen], flags].concat())?;
        let machines = vec![Machine::new(inputs, "n2", 102)?, Machine::new(inputs, "n3", 103)?];
        pods::build_image(inputs, &cluster, busybox)?;
        let root = cluster.folder.path().join("busybox");
        for machine in &machines {
            machine.build_image(pods::IMAGE, &root)?;
        }
        Ok(Self { inputs, cluster, machines })
    }

    /// The kubeconfig's cluster, as other machines reach it.
    fn server() -> String {
        format!("https://{ADDRESS}:{PORT}")
    }

    fn token(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let kubeconfig = self.cluster.folder.kubeconfig();
        let all = ["token"].iter().chain(arguments).copied().chain(["--kubeconfig", kubeconfig.as_str()]);
        crate::world::run(self.inputs.binary.as_str(), &all.collect::<Vec<_>>())
    }
}

pub fn run(inputs: &Inputs, checks: &mut Checks) {
    let busybox = match pods::busybox() {
        Ok(busybox) => busybox,
        Err(reason) => return interop::skip(&reason),
    };
    let mut world = match World::new(inputs, &busybox, &[]) {
        Ok(world) => world,
        Err(error) => return checks.check("three machines are there", || Err(error)),
    };
    joining::refusals(&world, checks);
    joining::joins(&mut world, checks);
    connections::run(&world, checks);
    losses::run(&mut world, checks);
    drop(world);
    checks.check("a machine renews its certificates while it runs", || {
        joining::renews(World::new(inputs, &busybox, &["--cluster-signing-duration", "60s"])?)
    });
}

/// A web server on a node, which says where it is.
fn web_on(node: &str, name: &str) -> serde_json::Value {
    let script = format!("echo {name} > /tmp/index.html; exec httpd -f -p 8080 -h /tmp");
    json!({
        "nodeSelector": {"kubernetes.io/hostname": node},
        "containers": [pods::shell_with("c", &script, json!({
            "readinessProbe": {"httpGet": {"port": 8080}, "periodSeconds": 1},
        }))],
    })
}
