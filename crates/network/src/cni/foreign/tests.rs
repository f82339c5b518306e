//! A network of small plugins that write down what they are asked.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use camino::Utf8PathBuf;
use serde_json::json;

use rt::Shutdown;

use super::*;

/// For what has to happen at last.
const PATIENCE: Duration = Duration::from_secs(20);

struct World {
    folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let world = Self { folder: tempfile::tempdir().unwrap() };
        for name in ["bin", "net.d"] {
            std::fs::create_dir(world.path(name)).unwrap();
        }
        world
    }

    fn path(&self, name: &str) -> Utf8PathBuf {
        Utf8Path::from_path(self.folder.path()).unwrap().join(name)
    }

    /// A plugin that writes down its call and then does `script`, in which `$document` is what it was given.
    fn plugin(&self, name: &str, script: &str) {
        let log = self.path("log");
        let text = format!(
            "#!/bin/sh\ndocument=$(cat)\n\
             echo \"$CNI_COMMAND {name} id=$CNI_CONTAINERID netns=$CNI_NETNS if=$CNI_IFNAME $document\" >> {log}\n{script}\n"
        );
        let path = self.path("bin").join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// A plugin that answers an ADD with this.
    fn adding(&self, name: &str, result: &str) {
        self.plugin(name, &format!("[ $CNI_COMMAND != ADD ] || echo '{result}'"));
    }

    fn configure(&self, version: &str, kinds: &[&str]) {
        let plugins: Vec<Value> = kinds.iter().map(|kind| json!({"type": kind})).collect();
        let list = json!({"cniVersion": version, "name": "n", "plugins": plugins});
        std::fs::write(self.path("net.d/10-n.conflist"), list.to_string()).unwrap();
    }

    async fn network(&self) -> Arc<ForeignNetwork> {
        self.network_within(PATIENCE).await
    }

    /// The network as a new process would open it.
    async fn network_within(&self, call_limit: Duration) -> Arc<ForeignNetwork> {
        let options = Options {
            configurations: self.path("net.d"),
            programs: vec![self.path("nowhere"), self.path("bin")],
            root: self.path("root"),
            prefers_ipv4: true,
            call_limit,
        };
        Arc::new(ForeignNetwork::open(options).await.unwrap())
    }

    /// Who was called with what since the last time.
    fn calls(&self) -> Vec<(String, Value)> {
        let text = std::fs::read_to_string(self.path("log")).unwrap_or_default();
        let _ = std::fs::remove_file(self.path("log"));
        text.lines()
            .map(|line| {
                let (call, document) = line.split_once(" {").unwrap();
                (call.to_owned(), serde_json::from_str(&format!("{{{document}")).unwrap())
            })
            .collect()
    }

    /// The same without what they were given.
    fn called(&self) -> Vec<String> {
        let word = |call: &str| call.split(' ').take(2).collect::<Vec<_>>().join(" ");
        self.calls().iter().map(|(call, _)| word(call)).collect()
    }
}

async fn attach(network: &ForeignNetwork, sandbox: &str) -> runtime::Result<Vec<String>> {
    let addresses =
        network.attach(Utf8Path::new("/proc/self/ns/net"), &SandboxConfig::default(), sandbox).await?;
    Ok(addresses.iter().map(ToString::to_string).collect())
}

async fn detach(network: &ForeignNetwork, sandbox: &str) -> runtime::Result<()> {
    network.detach(Utf8Path::new("/proc/self/ns/net"), &SandboxConfig::default(), sandbox).await
}

fn complaint(outcome: runtime::Result<impl std::fmt::Debug>) -> String {
    outcome.expect_err("it fails").to_string()
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let looks = async {
        while !is_so() {
            rt::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(rt::timeout(PATIENCE, looks).await.is_ok(), "{what}");
}

const FIRST: &str = r#"{"ips": [{"address": "10.0.0.5/24"}]}"#;
const SECOND: &str = r#"{"cniVersion": "1.0.0", "ips": [{"address": "10.0.0.6/24"}], "dns": {}}"#;

#[tokio::test]
async fn each_plugin_gets_the_result_of_the_one_before_and_all_of_them_the_last_ones() {
    let world = World::new();
    world.adding("a", FIRST);
    world.adding("b", SECOND);
    world.configure("1.0.0", &["a", "b"]);
    let network = world.network().await;
    assert_eq!(attach(&network, "s1").await.unwrap(), ["10.0.0.6"]);
    let of_pod = "id=s1 netns=/proc/self/ns/net if=eth0";
    let calls = world.calls();
    assert_eq!(
        calls[0],
        (format!("ADD a {of_pod}"), json!({"type": "a", "name": "n", "cniVersion": "1.0.0"}))
    );
    assert_eq!(calls[1].0, format!("ADD b {of_pod}"));
    assert_eq!(calls[1].1["prevResult"], json!({"cniVersion": "1.0.0", "ips": [{"address": "10.0.0.5/24"}]}));

    // Once more: nobody is asked.
    assert_eq!(attach(&network, "s1").await.unwrap(), ["10.0.0.6"]);
    assert!(world.calls().is_empty());

    detach(&network, "s1").await.unwrap();
    let last: Value = serde_json::from_str(SECOND).unwrap();
    let calls: Vec<_> =
        world.calls().into_iter().map(|(call, given)| (call, given["prevResult"].clone())).collect();
    assert_eq!(calls, [(format!("DEL b {of_pod}"), last.clone()), (format!("DEL a {of_pod}"), last)]);
    detach(&network, "s1").await.unwrap();
    assert!(world.calls().is_empty());
}

#[tokio::test]
async fn a_pod_is_disconnected_as_it_was_connected_also_after_a_restart() {
    let world = World::new();
    world.adding("a", FIRST);
    world.adding("other", SECOND);
    world.configure("0.3.1", &["a"]);
    let network = world.network().await;
    let gone = world.path("netns");
    std::fs::write(&gone, "").unwrap();
    network.attach(&gone, &SandboxConfig::default(), "s1").await.unwrap();
    drop(network);
    world.called();

    world.configure("1.0.0", &["other"]);
    let network = world.network().await;
    assert_eq!(attach(&network, "s2").await.unwrap(), ["10.0.0.6"]);
    detach(&network, "s1").await.unwrap();
    let calls = world.calls();
    assert_eq!(calls.len(), 2);
    // What is at the path is no namespace any more, and this version's DEL knows no earlier result.
    assert_eq!(
        calls[1],
        ("DEL a id=s1 netns= if=eth0".to_owned(), json!({"type": "a", "name": "n", "cniVersion": "0.3.1"}))
    );
    assert!(!world.path("root/s1.json").exists() && world.path("root/s2.json").exists());
}

#[tokio::test]
async fn an_error_is_what_the_plugin_says_and_the_pod_is_taken_back() {
    let world = World::new();
    world.adding("a", FIRST);
    for (script, expected) in [
        (r#"echo '{"code": 7, "msg": "no", "details": "not today"}'; exit 1"#, "no; not today"),
        (r#"echo '{"code": 7, "msg": "no"}'; exit 1"#, "failed (ADD): no"),
        ("echo broken >&2; exit 3", "said \"broken\""),
        ("echo rubbish; exit 3", "printed \"rubbish\""),
        ("true", "its result cannot be read"),
        ("echo '[]'", "its result cannot be read"),
        ("echo '{}'", "gave the pod's eth0 no address"),
    ] {
        world.plugin("b", &format!("[ $CNI_COMMAND = ADD ] || exit 0\n{script}"));
        world.configure("1.0.0", &["a", "b"]);
        let network = world.network().await;
        let why = complaint(attach(&network, "s1").await);
        assert!(why.contains(expected) && why.contains("\"n\""), "{script}: {why}");
        world.called();
        detach(&network, "s1").await.unwrap();
        assert_eq!(world.called(), ["DEL b", "DEL a"], "{script}");
    }
}

#[tokio::test]
async fn where_a_plugin_is_missing_none_is_called() {
    let world = World::new();
    world.adding("a", FIRST);
    world.configure("1.0.0", &["a", "c"]);
    let network = world.network().await;
    let why = complaint(attach(&network, "s1").await);
    assert!(why.contains("failed to find plugin \"c\" in path") && why.contains("bin"), "{why}");
    detach(&network, "s1").await.unwrap();
    assert!(world.calls().is_empty() && !world.path("root/s1.json").exists());
}

#[tokio::test]
async fn a_plugin_that_hangs_is_killed_with_its_children_and_disturbs_nobody() {
    let world = World::new();
    let children = world.path("children");
    world.plugin(
        "a",
        &format!(
            "[ $CNI_CONTAINERID != s1 ] || {{ sleep 1000 & echo $! > {children}; wait; }}\necho '{FIRST}'"
        ),
    );
    world.configure("1.0.0", &["a"]);
    let network = world.network_within(Duration::from_secs(2)).await;
    let hanging = tokio::join!(attach(&network, "s1"), async {
        until("it hangs", || children.exists()).await;
        attach(&network, "s2").await
    });
    let why = complaint(hanging.0);
    assert!(why.contains("it did not end within 2 s and was killed"), "{why}");
    assert_eq!(hanging.1.unwrap(), ["10.0.0.5"]);
    let child = std::fs::read_to_string(&children).unwrap();
    let is_gone = || {
        let status = std::fs::read_to_string(format!("/proc/{}/stat", child.trim())).unwrap_or_default();
        status.is_empty() || status.contains(") Z ")
    };
    until("its child is gone", is_gone).await;
}

#[tokio::test]
async fn a_plugin_that_fails_to_disconnect_keeps_none_of_the_others_from_it() {
    let world = World::new();
    world.adding("a", FIRST);
    let flag = world.path("flag");
    world.plugin("b", &format!("[ $CNI_COMMAND != DEL ] || [ -e {flag} ] || exit 1\necho '{SECOND}'"));
    world.configure("1.0.0", &["a", "b"]);
    let network = world.network().await;
    attach(&network, "s1").await.unwrap();
    world.called();
    assert!(complaint(detach(&network, "s1").await).contains("type=\"b\""));
    assert_eq!(world.called(), ["DEL b", "DEL a"]);
    std::fs::write(&flag, "").unwrap();
    detach(&network, "s1").await.unwrap();
    assert_eq!(world.called(), ["DEL b", "DEL a"]);
    assert!(!world.path("root/s1.json").exists());
}

#[tokio::test]
async fn what_nobody_has_is_taken_back_after_a_start() {
    let world = World::new();
    world.adding("a", FIRST);
    world.configure("1.1.0", &["a"]);
    let network = world.network().await;
    for sandbox in ["s1", "s2"] {
        attach(&network, sandbox).await.unwrap();
    }
    drop(network);
    world.called();

    let network = world.network().await;
    network.retain(&["s2".to_owned()]).await.unwrap();
    assert!(world.calls().is_empty(), "a start waits for no plugin");
    let (shutdown, running) = (Shutdown::new(), network.clone());
    let ending = shutdown.clone();
    rt::spawn("network", async move { running.run(ending).await });
    let mut calls = Vec::new();
    let mut collected = || {
        calls.extend(world.calls());
        calls.iter().any(|(call, _)| call.starts_with("GC a"))
    };
    let looks = async {
        while !collected() {
            rt::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(rt::timeout(PATIENCE, looks).await.is_ok(), "garbage is collected");
    shutdown.cancel();
    assert!(calls.iter().any(|(call, _)| call.starts_with("DEL a id=s1")), "{calls:?}");
    assert!(!calls.iter().any(|(call, _)| call.starts_with("DEL a id=s2")), "{calls:?}");
    let (_, given) = calls.iter().find(|(call, _)| call.starts_with("GC a")).unwrap();
    assert_eq!(given["cni.dev/valid-attachments"], json!([{"containerID": "s2", "ifname": "eth0"}]));
}

#[tokio::test]
async fn pods_wait_for_a_network_and_for_plugins_that_are_well() {
    let world = World::new();
    let network = world.network().await;
    let why = complaint(attach(&network, "s1").await);
    assert_eq!(why, "cni plugin not initialized");
    let (shutdown, running, mut readiness) = (Shutdown::new(), network.clone(), network.readiness());
    let ending = shutdown.clone();
    rt::spawn("network", async move { running.run(ending).await });
    let said = "Network plugin returns error: cni plugin not initialized";
    assert_eq!(*readiness.borrow_and_update(), Err(said.to_owned()));

    let flag = world.path("flag");
    let unwell = r#"{"code": 50, "msg": "unwell"}"#;
    world.plugin(
        "a",
        &format!(
            "[ $CNI_COMMAND != STATUS ] || [ -e {flag} ] || {{ echo '{unwell}'; exit 1; }}\necho '{FIRST}'"
        ),
    );
    let mut becomes = async |expected: &str| {
        let is_said = |found: &Readiness| {
            found.as_ref().err().map_or("", |why| why).contains(expected)
                && found.is_err() != expected.is_empty()
        };
        let waits = readiness.wait_for(is_said);
        assert!(rt::timeout(PATIENCE, waits).await.is_ok_and(|found| found.is_ok()), "{expected}");
    };
    world.configure("9.9.9", &["a"]);
    becomes("10-n.conflist: cniVersion: 9.9.9").await;
    world.configure("1.1.0", &["a"]);
    becomes("failed (STATUS): unwell").await;
    std::fs::write(&flag, "").unwrap();
    becomes("").await;
    assert_eq!(attach(&network, "s1").await.unwrap(), ["10.0.0.5"]);
    std::fs::remove_file(world.path("net.d/10-n.conflist")).unwrap();
    becomes("cni plugin not initialized").await;
    // Versions without STATUS are well.
    std::fs::remove_file(&flag).unwrap();
    world.configure("1.0.0", &["a"]);
    becomes("").await;
    shutdown.cancel();
}
