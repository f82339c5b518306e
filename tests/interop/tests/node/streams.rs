//! What flows between a container and kubectl, with every kubectl there is.

use std::fs;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use interop::{Checks, Kubectl, eventually};
use serde_json::json;

use crate::pods::{self, IMAGE, PATIENCE, shell, shell_with};
use crate::world::{Cluster, Inputs};

/// Usage is known once it was looked at twice.
const USAGE: Duration = Duration::from_secs(120);

pub fn run(inputs: &Inputs, checks: &mut Checks) {
    let busybox = match pods::busybox() {
        Ok(busybox) => busybox,
        Err(reason) => return interop::skip(&reason),
    };
    let cluster = Cluster::start(inputs).and_then(|cluster| {
        pods::build_image(inputs, &cluster, &busybox)?;
        make_pods(&cluster.kubectl)?;
        Ok(cluster)
    });
    let cluster = match cluster {
        Ok(cluster) => cluster,
        Err(error) => return checks.check("a cluster and its pods start", || Err(error)),
    };
    for (program, version) in &inputs.kubectls {
        let mut own = Checks::new(version.clone());
        let kubectl = Kubectl::new(program, version, &cluster.folder);
        with(&kubectl, &cluster, inputs.containerd.is_some(), &mut own);
        checks.add(own);
    }
}

fn with(kubectl: &Kubectl, cluster: &Cluster, is_containerd: bool, checks: &mut Checks) {
    checks.check("logs end, begin and are dated as asked", || log_ranges(kubectl));
    checks.check("logs of the container before", || log_before(kubectl));
    checks.check("logs are followed until the container's end", || log_followed(kubectl));
    checks.check("logs of several containers and pods", || log_of_several(kubectl));
    checks.check("exec passes standard input, output, error and the exit code", || exec(kubectl));
    checks.check("exec of what is not there", || exec_nothing(kubectl));
    checks.check("exec on a terminal", || terminal(kubectl, is_containerd));
    checks.check("cp there and back", || copy(kubectl, cluster));
    checks.check("port-forward to a pod and to a Service", || port_forward(kubectl));
    checks.check("attach shows what is printed", || attach(kubectl));
    checks.check("run with standard input ends with its container", || run_attached(kubectl));
    checks.check("debug adds a container", || debug(kubectl));
    checks.check("top shows pods", || top(kubectl));
}

fn make_pods(kubectl: &Kubectl) -> anyhow::Result<()> {
    pods::create(
        kubectl,
        "talks",
        json!({"containers": [
            shell("c", "for n in 1 2 3 4 5 6 7 8 9 10; do echo line $n; done; exec sleep 10000"),
            shell("other", "echo other; exec sleep 10000"),
        ]}),
    )?;
    pods::create(
        kubectl,
        "again",
        json!({
            "restartPolicy": "OnFailure",
            "containers": [shell_with(
                "c",
                "if [ -f /d/once ]; then echo second; exec sleep 10000; fi; touch /d/once; echo first; exit 1",
                json!({"volumeMounts": [{"name": "d", "mountPath": "/d"}]}),
            )],
            "volumes": [{"name": "d", "emptyDir": {}}],
        }),
    )?;
    pods::create(
        kubectl,
        "ticks",
        json!({"containers": [shell("c", "while :; do echo tick; sleep 0.2; done")]}),
    )?;
    pods::create(kubectl, "web", json!({"containers": [shell("c", "exec httpd -f -p 8080 -h /www")]}))?;
    kubectl.ok(&["expose", "pod", "web", "--port=80", "--target-port=8080"])?;
    for pod in ["talks", "again", "ticks", "web"] {
        pods::until_ready(kubectl, pod)?;
    }
    Ok(())
}

/// A name of this version's own.
fn own(kubectl: &Kubectl, name: &str) -> String {
    format!("{name}-{}", kubectl.version.replace('.', "-"))
}

fn log_ranges(kubectl: &Kubectl) -> anyhow::Result<()> {
    let said = kubectl.ok(&["logs", "talks", "-c", "c", "--tail=3"])?;
    ensure!(said == "line 8\nline 9\nline 10\n", "{said}");
    let said = kubectl.ok(&["logs", "talks", "-c", "c", "--since=1h"])?;
    ensure!(said.lines().count() == 10, "{said}");
    let said = kubectl.ok(&["logs", "talks", "-c", "c", "--since-time=2100-01-01T00:00:00Z"])?;
    ensure!(said.is_empty(), "{said}");
    let said = kubectl.ok(&["logs", "talks", "-c", "c", "--limit-bytes=10"])?;
    ensure!(said == "line 1\nlin", "{said}");
    let said = kubectl.ok(&["logs", "talks", "-c", "c", "--timestamps"])?;
    let is_dated = |line: &str| {
        line.split_once(' ').is_some_and(|(time, rest)| {
            time.contains('T') && time.ends_with('Z') && rest.starts_with("line ")
        })
    };
    ensure!(said.lines().count() == 10 && said.lines().all(is_dated), "{said}");
    Ok(())
}

fn log_before(kubectl: &Kubectl) -> anyhow::Result<()> {
    let before = kubectl.ok(&["logs", "again", "--previous"])?;
    let now = kubectl.ok(&["logs", "again"])?;
    ensure!(before == "first\n" && now == "second\n", "{before} and then {now}");
    let none = kubectl.refused(&["logs", "talks", "-c", "c", "--previous"])?;
    ensure!(none.contains("previous terminated container \"c\" in pod \"talks\" not found"), "{none}");
    Ok(())
}

fn log_followed(kubectl: &Kubectl) -> anyhow::Result<()> {
    let name = own(kubectl, "short");
    pods::create(
        kubectl,
        &name,
        json!({"containers": [shell("c", "for n in 1 2 3 4 5; do echo $n; sleep 0.3; done")]}),
    )?;
    pods::until(kubectl, &name, |pod| pod["status"]["phase"] != "Pending")?;
    let said = kubectl.ok(&["logs", "-f", &name])?;
    ensure!(said == "1\n2\n3\n4\n5\n", "{said}");
    kubectl.ok(&["delete", "pod", &name, "--wait=false"]).map(drop)
}

fn log_of_several(kubectl: &Kubectl) -> anyhow::Result<()> {
    let said = kubectl.ok(&["logs", "talks", "--all-containers", "--prefix", "--tail=1"])?;
    // kubectl asks for them in no order.
    let mut lines: Vec<&str> = said.lines().collect();
    lines.sort_unstable();
    ensure!(lines == ["[pod/talks/c] line 10", "[pod/talks/other] other"], "{said}");
    let said = kubectl.ok(&["logs", "-l", "app in (talks,again)", "--all-containers", "--tail=1"])?;
    let mut lines: Vec<&str> = said.lines().collect();
    lines.sort_unstable();
    ensure!(lines == ["line 10", "other", "second"], "{said}");
    let none = kubectl.refused(&["logs", "talks", "-c", "none"])?;
    ensure!(none.contains("container none is not valid for pod talks"), "{none}");
    Ok(())
}

fn exec(kubectl: &Kubectl) -> anyhow::Result<()> {
    // More than any one buffer holds.
    let text = "all hands on deck\n".repeat(20_000);
    let output = kubectl.run_with(&["exec", "-i", "web", "-c", "c", "--", "cat"], &text, &[])?;
    ensure!(
        output.code == Some(0) && output.stdout == text,
        "{:?}, {} bytes, {}",
        output.code,
        output.stdout.len(),
        output.stderr
    );
    let output =
        kubectl.run(&["exec", "web", "-c", "c", "--", "sh", "-c", "echo out; echo err >&2; exit 7"])?;
    ensure!(output.code == Some(7) && output.stdout == "out\n", "{output:?}");
    ensure!(output.stderr == "err\ncommand terminated with exit code 7\n", "{output:?}");
    Ok(())
}

fn exec_nothing(kubectl: &Kubectl) -> anyhow::Result<()> {
    let said = kubectl.refused(&["exec", "web", "-c", "c", "--", "/none"])?;
    ensure!(said.contains("/none") && said.contains("no such file or directory"), "{said}");
    let said = kubectl.refused(&["exec", "web", "-c", "none", "--", "true"])?;
    ensure!(
        said.contains("container none is not valid for pod web")
            || said.contains("container not found (\"none\")"),
        "{said}"
    );
    Ok(())
}

/// containerd sets the size after it has started the program, the embedded runtime before.
fn terminal(kubectl: &Kubectl, size_comes_later: bool) -> anyhow::Result<()> {
    let has_script =
        Command::new("script").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !has_script.is_ok_and(|status| status.success()) {
        interop::skip("there is no script on this machine to make a terminal");
        return Ok(());
    }
    let size = if size_comes_later {
        "until stty size 2>/dev/null | grep 99; do sleep 0.1; done"
    } else {
        "stty size"
    };
    let script = format!("'test -t 0 && test -t 1 && echo yes; {size}; exit 5'");
    let inner = kubectl.line(&["exec", "-it", "web", "--", "sh", "-c", &script]);
    let command = format!("stty rows 33 cols 99; {inner}");
    let output = Command::new("timeout")
        .args(["60", "script", "-qec", &command, "/dev/null"])
        .stdin(Stdio::null())
        .output()
        .context("running script")?;
    let said = String::from_utf8_lossy(&output.stdout).replace('\r', "");
    ensure!(said.contains("yes\n") && said.contains("33 99\n"), "{said}");
    ensure!(size_comes_later || said.contains("yes\n33 99\n"), "{said}");
    ensure!(output.status.code() == Some(5), "{:?}: {said}", output.status);
    Ok(())
}

fn copy(kubectl: &Kubectl, cluster: &Cluster) -> anyhow::Result<()> {
    let folder = cluster.folder.path().join(own(kubectl, "copy"));
    fs::create_dir(&folder)?;
    let bytes: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    fs::write(folder.join("there"), &bytes)?;
    let name = own(kubectl, "file");
    kubectl.ok(&["cp", folder.join("there").as_str(), &format!("web:/tmp/{name}")])?;
    kubectl.ok(&["cp", &format!("web:/tmp/{name}"), folder.join("back").as_str()])?;
    ensure!(fs::read(folder.join("back"))? == bytes, "it came back as another");
    Ok(())
}

fn port_forward(kubectl: &Kubectl) -> anyhow::Result<()> {
    for target in ["pod/web :8080", "service/web :80"] {
        let (target, port) = target.split_once(' ').context("two words")?;
        let forwarding = kubectl.stream(&["port-forward", target, port])?;
        let line = forwarding.line(PATIENCE, |line| line.starts_with("Forwarding from 127.0.0.1:"))?;
        let port =
            line.trim_start_matches("Forwarding from 127.0.0.1:").split(' ').next().unwrap_or_default();
        let address: SocketAddr = format!("127.0.0.1:{port}").parse().with_context(|| line.clone())?;
        for _ in 0..3 {
            let page = crate::http::get(address)?;
            ensure!(page == "page\n", "{target}: {page}");
        }
    }
    Ok(())
}

fn attach(kubectl: &Kubectl) -> anyhow::Result<()> {
    let attached = kubectl.stream(&["attach", "ticks"])?;
    for _ in 0..3 {
        attached.line(PATIENCE, |line| line == "tick")?;
    }
    Ok(())
}

fn run_attached(kubectl: &Kubectl) -> anyhow::Result<()> {
    let name = own(kubectl, "attached");
    let image = format!("--image={IMAGE}");
    let command = [
        "run",
        &name,
        &image,
        "--restart=Never",
        "-i",
        "--rm",
        "--quiet",
        "--",
        "sh",
        "-c",
        "read word; echo got $word; exit 0",
    ];
    let output = kubectl.run_with(&command, "anchor\n", &[])?;
    ensure!(output.code == Some(0) && output.stdout.contains("got anchor\n"), "{output:?}");
    Ok(())
}

fn debug(kubectl: &Kubectl) -> anyhow::Result<()> {
    let (name, image) = (own(kubectl, "debug"), format!("--image={IMAGE}"));
    let container = format!("--container={name}");
    kubectl.ok(&["debug", "web", &image, &container, "--target=c", "--", "ps", "-o", "args"])?;
    eventually(PATIENCE, || {
        let said = kubectl.ok(&["logs", "web", "-c", &name])?;
        ensure!(said.contains("httpd -f"), "{said}");
        Ok(())
    })
}

fn top(kubectl: &Kubectl) -> anyhow::Result<()> {
    eventually(USAGE, || {
        let said = kubectl.ok(&["top", "pods", "--no-headers"])?;
        for pod in ["talks", "ticks", "web"] {
            let line = said
                .lines()
                .find(|line| line.starts_with(pod))
                .with_context(|| format!("no {pod} in {said}"))?;
            let mut columns = line.split_whitespace().skip(1);
            ensure!(columns.next().is_some_and(|cpu| cpu.ends_with('m')), "{line}");
            ensure!(columns.next().is_some_and(|memory| memory.ends_with("Mi")), "{line}");
        }
        Ok(())
    })
}
