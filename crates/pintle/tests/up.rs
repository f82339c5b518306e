//! The command as a person uses it: what it prints, what it leaves behind, how it fails.

mod running;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

use running::{DEPLOYMENT, Running, pintle, up, write};

/// Runs a command that is to fail and returns what it says.
fn failure(command: &mut Command) -> String {
    let Output { status, stderr, .. } = command.output().expect("the binary starts");
    let text = String::from_utf8(stderr).expect("messages are UTF-8");
    assert_eq!(status.code(), Some(1), "{text}");
    assert_eq!(text.lines().count(), 1, "one line: {text}");
    text
}

#[test]
fn an_application_comes_up_and_the_same_directory_continues_the_same_cluster() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data_dir = folder.path().join("data");
    let manifest = write(folder.path(), "web.yaml", DEPLOYMENT);

    let mut command = up(&data_dir);
    command.args(["--sim-nodes", "2", "--apply", &manifest]);
    let mut first = Running::start(command);
    let ready = first.line_with("Cluster is ready");
    assert!(ready.contains("2 simulated nodes"), "{ready}");
    first.line_with("Deployment shop/web: ready");
    first.line_with("All 2 objects are ready");
    let kubeconfig = data_dir.join("kubeconfig");
    assert_eq!(fs::metadata(&kubeconfig).expect("it was written").permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(&data_dir).expect("it was made").permissions().mode() & 0o777, 0o700);
    let authority = fs::read(data_dir.join("pki/ca.crt")).expect("the authority is kept");
    first.signal("TERM");
    let (code, said) = first.end();
    assert_eq!(code, Some(0));
    assert!(!said.contains("in time"), "everything ends when it is told to: {said}");

    let mut second = Running::start(up(&data_dir));
    second.line_with("Cluster continues");
    assert_eq!(fs::read(data_dir.join("pki/ca.crt")).expect("still there"), authority);
    second.signal("INT");
    assert_eq!(second.exit_code(), Some(0));
}

#[test]
fn after_kill_dash_nine_the_application_is_finished() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data_dir = folder.path().join("data");
    let manifest = write(folder.path(), "web.yaml", &DEPLOYMENT.replace("replicas: 2", "replicas: 60"));
    let mut command = up(&data_dir);
    command.args(["--apply", &manifest]);
    let mut first = Running::start(command);
    first.line_with("Deployment shop/web:");
    first.signal("KILL");
    assert_eq!(first.exit_code(), None);
    let mut command = up(&data_dir);
    command.args(["--apply", &manifest]);
    let mut second = Running::start(command);
    second.line_with("Cluster continues");
    second.line_with("All 2 objects are ready");
    second.signal("TERM");
    assert_eq!(second.exit_code(), Some(0));
}

#[test]
fn what_is_wrong_is_said_in_one_line_and_nothing_is_started() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path();
    let broken = write(path, "broken.yaml", &format!("{DEPLOYMENT}---\nkind: [\n"));
    let unknown =
        write(path, "unknown.yaml", "apiVersion: example.com/v1\nkind: Widget\nmetadata: {name: w}\n");
    let head = "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n";
    let shares = write(path, "shares.yaml", &format!("{head}percentageOfNodesToScore: 101\n"));
    let data_dir = path.join("data");
    let data = data_dir.to_str().expect("UTF-8");
    let cases: [(&[&str], &[&str]); 5] = [
        (&["--data-dir", data, "--apply", &broken], &["broken.yaml, document 3", "line 16"]),
        (
            &["--data-dir", data, "--apply", &unknown],
            &["unknown.yaml, document 1", "Widget", "example.com/v1"],
        ),
        (&["--data-dir", data, "--apply", "absent.yaml"], &["--apply absent.yaml", "No such file"]),
        (
            &["--data-dir", data, "--scheduler-config", &shares],
            &["--scheduler-config", "shares.yaml", "percentageOfNodesToScore", "101", "[0-100]"],
        ),
        (&["--data-dir", "/proc/pintle"], &["--data-dir /proc/pintle", "directory you can write"]),
    ];
    for (arguments, expected) in cases {
        let text =
            failure(pintle().arg("up").args(["--listen", "127.0.0.1:0", "--sim-nodes", "1"]).args(arguments));
        for part in expected {
            assert!(text.contains(part), "{part:?} in {text}");
        }
        assert!(!data_dir.exists(), "nothing was made: {text}");
    }
    fs::create_dir(path.join("empty")).expect("a temporary folder");
    let empty = path.join("empty");
    let text = failure(up(&data_dir).arg("--apply").arg(&empty));
    assert!(text.contains("no .yaml, .yml or .json file"), "{text}");

    let plugins = "profiles: [{plugins: {score: {enabled: [{name: Nope}]}}}]";
    let plugins = write(path, "plugins.yaml", &format!("{head}{plugins}\n"));
    let text = failure(up(&data_dir).args(["--scheduler-config", &plugins]));
    let expected =
        "plugins.yaml: profiles[0].plugins.score.enabled[0].name: Unsupported value: \"Nope\": supported";
    assert!(text.contains(expected) && text.contains("\"NodeAffinity\""), "{text}");
}

#[test]
fn a_port_or_directory_in_use_is_named() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data_dir = folder.path().join("data");
    let mut first = Running::start(up(&data_dir));
    let ready = first.line_with("Cluster is ready");
    let address = ready.split("https://").nth(1).and_then(|rest| rest.split(' ').next()).expect("an address");

    let text = failure(&mut up(&data_dir));
    assert!(text.contains("in use by another process") && text.contains("--data-dir"), "{text}");

    let other = folder.path().join("other");
    let text =
        failure(pintle().args(["up", "--sim-nodes", "1", "--listen", address, "--data-dir"]).arg(&other));
    assert!(text.contains(&format!("--listen {address}")) && text.contains("port 0"), "{text}");
    assert!(!other.exists());
    first.signal("TERM");
    assert_eq!(first.exit_code(), Some(0));
}

#[test]
fn damaged_files_stop_the_start_and_are_named() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data_dir = folder.path().join("data");
    let mut first = Running::start(up(&data_dir));
    first.line_with("Cluster is ready");
    first.signal("TERM");
    assert_eq!(first.exit_code(), Some(0));

    let keys = data_dir.join("pki/service-account-keys.json");
    let good = fs::read(&keys).expect("keys are kept");
    fs::write(&keys, b"{").expect("writable");
    let text = failure(&mut up(&data_dir));
    assert!(text.contains("service-account-keys.json"), "{text}");
    fs::write(&keys, good).expect("writable");

    let format = data_dir.join("store/format");
    fs::write(&format, b"something else").expect("writable");
    let text = failure(&mut up(&data_dir));
    assert!(text.contains("store/format"), "{text}");
}

#[test]
fn the_kubeconfig_is_found_or_missed_by_name() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let text = failure(pintle().args(["kubeconfig", "--data-dir"]).arg(folder.path()));
    assert!(text.contains("pintle up --data-dir"), "{text}");
    let version = pintle().arg("version").output().expect("the binary starts");
    assert!(String::from_utf8_lossy(&version.stdout).contains("Kubernetes v1.36"));
}
