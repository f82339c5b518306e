//! Debian's registry on the loopback: what a pod pulls from it, and what is said when it cannot.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use interop::{Checks, Kubectl, eventually};
use serde_json::{Value, json};

use super::PATIENCE;
use super::image::{Images, NGINX};
use crate::world::{Cluster, run as run_program};

const USER: &str = "sailor";
const PASSWORD: &str = "loopback-only";
/// As `htpasswd -B` writes it.
const HTPASSWD: &str = "sailor:$2b$04$2xufvtwpjcj6hV2HSqM5PeQr75KaoSYf2.DUOLWwESt2iggCznMCW\n";

pub fn run(cluster: &Cluster, images: &Images<'_>, checks: &mut Checks) {
    for program in ["docker-registry", "skopeo"] {
        if run_program(program, &["--help"]).is_err() {
            return interop::skip(&format!("pulls from a registry: there is no {program} on this machine"));
        }
    }
    let folder = cluster.folder.path().join("registry");
    let made = fs::create_dir_all(&folder).context("making a folder").and_then(|()| {
        let archive = folder.join("nginx.tar");
        images.export(NGINX.name, cluster, &archive)?;
        Ok(archive)
    });
    let mut archive = Utf8PathBuf::new();
    checks.check("registry: an image is exported", || {
        archive = made?;
        Ok(())
    });
    let kubectl = &cluster.kubectl;
    open_to_everybody(kubectl, &folder, &archive, checks);
    with_passwords(kubectl, &folder, &archive, checks);
}

fn open_to_everybody(kubectl: &Kubectl, folder: &Utf8Path, archive: &Utf8Path, checks: &mut Checks) {
    let registry = match filled(&folder.join("open"), archive, None) {
        Ok(registry) => registry,
        Err(error) => return checks.check("registry: it starts and takes the image", || Err(error)),
    };
    let image = registry.image("web:1");
    checks.check("registry: a pod pulls what skopeo pushed, by its tag", || {
        apply(kubectl, "by-tag", &image, &[])?;
        kubectl.ok(&["wait", "--for=condition=Ready", "pod/by-tag", "--timeout=60s"])?;
        let said = events(kubectl, "by-tag")?;
        ensure!(said.contains(&format!("Successfully pulled image \"{image}\"")), "{said}");
        Ok(())
    });
    checks.check("registry: a pod pulls by digest what the first one reported", || {
        let pod = kubectl.json(&["get", "pod", "by-tag"])?;
        let reported =
            pod["status"]["containerStatuses"][0]["imageID"].as_str().unwrap_or_default().to_owned();
        ensure!(reported.contains("/web@sha256:"), "{reported:?} is no digest");
        apply(kubectl, "by-digest", &reported, &[])?;
        kubectl.ok(&["wait", "--for=condition=Ready", "pod/by-digest", "--timeout=60s"]).map(drop)
    });
    checks.check("registry: a tag that it lacks is ErrImagePull, then ImagePullBackOff", || {
        let image = registry.image("web:2");
        apply(kubectl, "wrong-tag", &image, &[])?;
        let said = eventually(PATIENCE, || {
            let said = events(kubectl, "wrong-tag")?;
            ensure!(
                said.contains("Error: ErrImagePull") && said.contains("Error: ImagePullBackOff"),
                "{said}"
            );
            Ok(said)
        })?;
        ensure!(
            said.contains(&format!("Failed to pull image \"{image}\"")) && said.contains("not found"),
            "{said}"
        );
        let (reason, message) = waiting(kubectl, "wrong-tag")?;
        ensure!(
            ["ErrImagePull", "ImagePullBackOff"].contains(&&*reason) && message.contains(&image),
            "{reason}: {message}"
        );
        Ok(())
    });
    checks.check("registry: the tag is pushed, and the pod that waited for it runs", || {
        registry.push(archive, "web:2", None)?;
        kubectl.ok(&["wait", "--for=condition=Ready", "pod/wrong-tag", "--timeout=90s"]).map(drop)
    });
    checks.check("registry: a registry that is away says that it cannot be reached", || {
        let image = registry.image("web:3");
        drop(registry);
        apply(kubectl, "away", &image, &[])?;
        let message = eventually(PATIENCE, || {
            let (reason, message) = waiting(kubectl, "away")?;
            ensure!(["ErrImagePull", "ImagePullBackOff"].contains(&&*reason), "{reason}: {message}");
            Ok(message)
        })?;
        ensure!(message.to_lowercase().contains("connection refused"), "{message}");
        Ok(())
    });
    checks.check("registry: its pods go", || {
        kubectl
            .ok(&["delete", "pod", "by-tag", "by-digest", "wrong-tag", "away", "--grace-period=1"])
            .map(drop)
    });
}

fn with_passwords(kubectl: &Kubectl, folder: &Utf8Path, archive: &Utf8Path, checks: &mut Checks) {
    let registry = match filled(&folder.join("closed"), archive, Some(HTPASSWD)) {
        Ok(registry) => registry,
        Err(error) => return checks.check("registry: one with passwords takes the image", || Err(error)),
    };
    let image = registry.image("web:1");
    let server = format!("--docker-server={}", registry.address);
    let secret = |name: &str, password: &str| {
        let (user, password) = (format!("--docker-username={USER}"), format!("--docker-password={password}"));
        kubectl.ok(&["create", "secret", "docker-registry", name, &server, &user, &password]).map(drop)
    };
    let is_refused = |name: &str, secrets: &[&str]| {
        apply(kubectl, name, &image, secrets)?;
        eventually(PATIENCE, || {
            let said = events(kubectl, name)?;
            let said = said.to_lowercase();
            ensure!(said.contains("failed to pull image") && said.contains("unauthorized"), "{said}");
            Ok(())
        })
    };
    checks.check("registry: without a secret the pull is unauthorized", || is_refused("stranger", &[]));
    checks.check("registry: with a wrong password, too", || {
        secret("wrong", "guessed")?;
        is_refused("guesser", &["wrong"])
    });
    checks.check("registry: with the imagePullSecret the pod runs", || {
        secret("right", PASSWORD)?;
        apply(kubectl, "member", &image, &["right"])?;
        kubectl.ok(&["wait", "--for=condition=Ready", "pod/member", "--timeout=60s"]).map(drop)
    });
    checks.check("registry: the pods and secrets go", || {
        kubectl.ok(&["delete", "pod", "stranger", "guesser", "member", "--grace-period=1"])?;
        kubectl.ok(&["delete", "secret", "wrong", "right"]).map(drop)
    });
}

/// A registry that has the image, once it answers.
fn filled(folder: &Utf8Path, archive: &Utf8Path, htpasswd: Option<&str>) -> anyhow::Result<Registry> {
    let registry = Registry::start(folder, htpasswd)?;
    registry.push(archive, "web:1", htpasswd.map(|_| format!("{USER}:{PASSWORD}")))?;
    Ok(registry)
}

/// A running `docker-registry`; dropping it ends it.
struct Registry {
    child: Child,
    address: SocketAddr,
}

impl Registry {
    fn start(folder: &Utf8Path, htpasswd: Option<&str>) -> anyhow::Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("making {folder}"))?;
        let listener = TcpListener::bind("127.0.0.1:0").context("looking for a free port")?;
        let address = listener.local_addr().context("asking for the free port")?;
        drop(listener);
        let mut config = json!({
            "version": "0.1",
            "log": {"level": "error"},
            "storage": {"filesystem": {"rootdirectory": folder.join("store")}},
            "http": {"addr": address.to_string()},
        });
        if let Some(htpasswd) = htpasswd {
            let path = folder.join("htpasswd");
            fs::write(&path, htpasswd).with_context(|| format!("writing {path}"))?;
            config["auth"] = json!({"htpasswd": {"realm": "harbour", "path": path}});
        }
        let path = folder.join("config.yml");
        fs::write(&path, config.to_string()).with_context(|| format!("writing {path}"))?;
        let log = File::create(folder.join("log")).context("making the registry's log")?;
        let child = Command::new("docker-registry")
            .args(["serve", path.as_str()])
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("sharing the log")?)
            .stderr(log)
            .spawn()
            .context("starting docker-registry")?;
        let registry = Self { child, address };
        eventually(PATIENCE, || TcpStream::connect(address).context("connecting to docker-registry"))?;
        Ok(registry)
    }

    fn image(&self, name: &str) -> String {
        format!("{}/third/{name}", self.address)
    }

    fn push(&self, archive: &Utf8Path, name: &str, credentials: Option<String>) -> anyhow::Result<()> {
        let (from, to) = (format!("oci-archive:{archive}"), format!("docker://{}", self.image(name)));
        let mut words = vec!["--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false"];
        words.extend(credentials.iter().flat_map(|pair| ["--dest-creds", pair.as_str()]));
        words.extend([from.as_str(), to.as_str()]);
        run_program("skopeo", &words).map(drop)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn apply(kubectl: &Kubectl, name: &str, image: &str, secrets: &[&str]) -> anyhow::Result<()> {
    let secrets: Vec<Value> = secrets.iter().map(|name| json!({"name": name})).collect();
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {
            "imagePullSecrets": secrets,
            "containers": [{"name": "c", "image": image, "imagePullPolicy": "Always"}],
        },
    });
    kubectl.ok_with(&["apply", "-f", "-"], &pod.to_string()).map(drop)
}

/// Why the container waits.
fn waiting(kubectl: &Kubectl, name: &str) -> anyhow::Result<(String, String)> {
    let pod = kubectl.json(&["get", "pod", name])?;
    let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
    let text = |field: &str| waiting[field].as_str().unwrap_or_default().to_owned();
    Ok((text("reason"), text("message")))
}

/// The messages of its events.
fn events(kubectl: &Kubectl, name: &str) -> anyhow::Result<String> {
    let about = format!("--field-selector=involvedObject.name={name}");
    kubectl.ok(&["get", "events", &about, "-o", "jsonpath={range .items[*]}{.message}{\"\\n\"}{end}"])
}
