//! The example shop, for real: pages made by containers that ask one another over Services.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use camino::Utf8Path;
use interop::{Checks, Kubectl, Server, eventually};

use crate::http::{self, Load};
use crate::world::{ADDRESS, Cluster, Inputs};

/// Making the image of an unoptimised program takes most of it.
const ROLLOUT: &str = "--timeout=170s";
const PATIENCE: Duration = Duration::from_secs(60);
/// It takes tens of milliseconds; parts that do not end are waited for longer than this.
const STOPPED_WITHIN: Duration = Duration::from_secs(3);

const DEPLOYMENTS: [&str; 5] = ["catalog", "cart", "orders", "cache", "storefront"];

pub fn run(inputs: &Inputs, checks: &mut Checks) {
    let mut cluster = match Cluster::start(inputs) {
        Ok(cluster) => cluster,
        Err(error) => return checks.check("a cluster starts", || Err(error)),
    };
    let kubectl = &cluster.kubectl.within("shop");
    checks.check("every deployment becomes ready", || deploy(kubectl));
    checks.check("the page shows a line of every backend", || page(kubectl));
    checks.check("more replicas all answer", || scale(kubectl));
    checks.check("a rolling update loses no request", || update(kubectl));
    checks.check("a server that stops does so at once and leaves its pods be", || {
        stop(kubectl, &mut cluster.server)
    });
}

fn deploy(kubectl: &Kubectl) -> anyhow::Result<()> {
    let shop = Utf8Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/shop");
    kubectl.ok(&["apply", "-f", shop.as_str()])?;
    for deployment in DEPLOYMENTS {
        rolled_out(kubectl, deployment)?;
    }
    Ok(())
}

fn stop(kubectl: &Kubectl, server: &mut Server) -> anyhow::Result<()> {
    let address = address(kubectl)?;
    let began = Instant::now();
    server.shut_down()?;
    let took = began.elapsed();
    ensure!(took < STOPPED_WITHIN, "it took {took:?}");
    // Names are the server's to answer, so that it knows the others no more.
    let page = http::get(address).unwrap_or_else(|error| error.to_string());
    ensure!(page.contains("storefront on storefront-"), "{page}");
    Ok(())
}

fn rolled_out(kubectl: &Kubectl, deployment: &str) -> anyhow::Result<()> {
    kubectl.ok(&["rollout", "status", &format!("deployment/{deployment}"), ROLLOUT]).map(drop)
}

fn address(kubectl: &Kubectl) -> anyhow::Result<SocketAddr> {
    let port = kubectl.ok(&["get", "service", "storefront", "-o", "jsonpath={.spec.ports[0].nodePort}"])?;
    format!("{ADDRESS}:{port}").parse().with_context(|| format!("the node port is {port:?}"))
}

fn page(kubectl: &Kubectl) -> anyhow::Result<()> {
    let address = address(kubectl)?;
    eventually(PATIENCE, || {
        let page = http::get(address)?;
        for line in [
            "storefront on storefront-",
            "\n  catalog on catalog-",
            "\n  cart on cart-",
            "\n  orders on orders-",
            "\n    cache on cache-",
        ] {
            ensure!(page.contains(line), "no {line:?} in {page}");
        }
        Ok(())
    })
}

fn scale(kubectl: &Kubectl) -> anyhow::Result<()> {
    kubectl.ok(&["scale", "deployment/storefront", "--replicas=5"])?;
    rolled_out(kubectl, "storefront")?;
    let names = kubectl.ok(&[
        "get",
        "pods",
        "-l",
        "app.kubernetes.io/name=storefront",
        "-o",
        "jsonpath={.items[*].metadata.name}",
    ])?;
    ensure!(names.split(' ').count() == 5, "{names}");
    let address = address(kubectl)?;
    for name in names.split(' ') {
        let line = format!("storefront on {name}\n");
        eventually(PATIENCE, || {
            let page = http::get(address)?;
            ensure!(page.starts_with(&line), "never {line:?}, at last {page}");
            Ok(())
        })?;
    }
    Ok(())
}

fn update(kubectl: &Kubectl) -> anyhow::Result<()> {
    let load = Load::start(address(kubectl)?);
    let updated = kubectl
        .ok(&["set", "image", "deployment/storefront", "storefront=pintle.dev/pintle:1.1.0"])
        .and_then(|_| rolled_out(kubectl, "storefront"))
        .and_then(|()| gone(kubectl));
    let answers = load.stop();
    updated?;
    answers.map(drop)
}

/// Waits until no pod of before is left.
fn gone(kubectl: &Kubectl) -> anyhow::Result<()> {
    eventually(PATIENCE, || {
        let images = kubectl.ok(&[
            "get",
            "pods",
            "-l",
            "app.kubernetes.io/name=storefront",
            "-o",
            "jsonpath={.items[*].spec.containers[0].image}",
        ])?;
        ensure!(images.split(' ').all(|image| image == "pintle.dev/pintle:1.1.0"), "{images}");
        Ok(())
    })
}
