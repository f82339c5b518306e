//! What is of an image beside its programs.

use anyhow::ensure;
use interop::Checks;
use serde_json::json;

use super::World;
use crate::pods::{self, shell_with};
use crate::world;

/// An image with nothing but a file.
const CARGO: &str = "test.pintle.dev/cargo:1";

pub fn run(world: &World<'_>, checks: &mut Checks) {
    if world.inputs.containerd.is_some() {
        return interop::skip("containerd has volumes of images from 2.1 on");
    }
    checks.check("an image is a volume, whole and in part", || volume(world));
}

fn volume(world: &World<'_>) -> anyhow::Result<()> {
    let folder = world.cluster.folder.path().join("cargo");
    std::fs::create_dir_all(folder.join("hold"))?;
    std::fs::write(folder.join("hold/tea"), "tea\n")?;
    world::build_image(world.inputs, world.cluster, CARGO, &folder, &[])?;
    let mounts = json!({"volumeMounts": [
        {"name": "cargo", "mountPath": "/cargo"}, {"name": "cargo", "mountPath": "/hold", "subPath": "hold"},
    ]});
    let said = pods::output(
        world.kubectl,
        "image-volume",
        json!({
            "containers": [shell_with("c", "cat /cargo/hold/tea /hold/tea; touch /cargo/new 2>&1; true", mounts)],
            "volumes": [{"name": "cargo", "image": {"reference": CARGO, "pullPolicy": "IfNotPresent"}}],
        }),
    )?;
    ensure!(said == "tea\ntea\ntouch: /cargo/new: Read-only file system\n", "{said}");
    Ok(())
}
