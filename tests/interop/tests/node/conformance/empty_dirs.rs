//! Empty directories: on disk and in memory, for root and others.

use anyhow::ensure;
use interop::{Checks, Kubectl};
use serde_json::json;

use super::World;
use crate::pods::{self, shell_with};

pub fn run(world: &World<'_>, checks: &mut Checks) {
    let kubectl = world.kubectl;
    checks.check("files in an emptyDir on disk have the modes given, by root and others", || {
        modes(kubectl, "disk", "")
    });
    checks.check("files in an emptyDir in memory have the modes given, by root and others", || {
        modes(kubectl, "memory", "Memory")
    });
    checks.check("containers of a pod see the same emptyDir, whose size may be limited", || shared(kubectl));
}

/// The folder is everybody's, on the medium asked for; files have the modes that their owner gives them.
fn modes(kubectl: &Kubectl, what: &str, medium: &str) -> anyhow::Result<()> {
    let script = "stat -c %a /d; grep -c ' /d tmpfs ' /proc/mounts; \
                  for mode in 644 666 777; do echo $mode > /d/$mode; chmod $mode /d/$mode; \
                  stat -c '%a %u' /d/$mode; cat /d/$mode; done";
    for user in [0, 1001] {
        let said = pods::output(
            kubectl,
            &format!("empty-{what}-{user}"),
            json!({
                "securityContext": {"runAsUser": user},
                "containers": [shell_with("c", script, json!({"volumeMounts": [{"name": "d", "mountPath": "/d"}]}))],
                "volumes": [{"name": "d", "emptyDir": {"medium": medium}}],
            }),
        )?;
        let is_memory = u8::from(!medium.is_empty());
        let files: String = [644, 666, 777].map(|mode| format!("{mode} {user}\n{mode}\n")).concat();
        // A tmpfs is sticky to nobody: the mode is that of the folder.
        ensure!(said == format!("777\n{is_memory}\n{files}"), "as {user}: {said}");
    }
    Ok(())
}

fn shared(kubectl: &Kubectl) -> anyhow::Result<()> {
    let mounts = json!({"volumeMounts": [{"name": "d", "mountPath": "/d"}]});
    let reader =
        "until [ -f /d/word ]; do sleep 0.1; done; cat /d/word; df -m /d | tail -1 | awk '{print $2}'";
    let said = pods::output(
        kubectl,
        "empty-shared",
        json!({
            "containers": [
                shell_with("reader", reader, mounts.clone()),
                shell_with("writer", "echo ahoy > /d/word; sleep 10000", mounts),
            ],
            "volumes": [{"name": "d", "emptyDir": {"medium": "Memory", "sizeLimit": "8Mi"}}],
        }),
    )?;
    ensure!(said == "ahoy\n8\n", "{said}");
    Ok(())
}
