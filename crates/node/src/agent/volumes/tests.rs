//! The manager against an API in memory and a disk of its own.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use api::amounts::Amounts;
use api::gvr::{CONFIG_MAPS, EVENTS, SECRETS};
use apimachinery::json;
use camino::{Utf8Path, Utf8PathBuf};
use client::Recorder;
use client::fake::FakeApi;
use k8s_openapi::api::core::v1::Pod;
use rt::Shutdown;

use super::csi::NoDrivers;
use super::tokens::fixture::Issuer;
use super::*;
use crate::agent::config::fixture;
use crate::agent::stats::Volumes;

struct World {
    fake: Arc<FakeApi>,
    manager: Arc<VolumeManager>,
    issuer: Arc<Issuer>,
    shutdown: Shutdown,
    root: Utf8PathBuf,
    // Last: what is mounted goes before the folder does.
    _mounts: mount::Unmounted,
    _folder: tempfile::TempDir,
}

impl Drop for World {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl World {
    fn new() -> Self {
        Self::with(Issuer::default())
    }

    fn with(issuer: Issuer) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let root = Utf8PathBuf::from_path_buf(folder.path().to_path_buf()).expect("it is text");
        let (fake, shutdown, issuer) = (FakeApi::new(), Shutdown::new(), Arc::new(issuer));
        let manager = Self::manager(&fake, &issuer, &root, &shutdown);
        let running = (manager.clone(), shutdown.clone());
        rt::spawn("volumes", async move { running.0.run(running.1).await });
        let mounts = mount::Unmounted::below(&root);
        Self { fake, manager, issuer, shutdown, root, _mounts: mounts, _folder: folder }
    }

    fn manager(
        fake: &Arc<FakeApi>,
        issuer: &Arc<Issuer>,
        root: &Utf8Path,
        shutdown: &Shutdown,
    ) -> Arc<VolumeManager> {
        let options = Options {
            node_name: "n1".into(),
            root: root.join("kubelet"),
            allocatable: Amounts::of(Some(&json!({"cpu": "4", "memory": "1Gi"}))),
            secrets_in_memory: mount::is_permitted(),
        };
        let recorder = Recorder::new(fake.clone(), "kubelet", shutdown.clone());
        let drivers = Arc::new(NoDrivers);
        VolumeManager::with_tokens(options, fake.clone(), drivers, issuer.clone(), recorder, shutdown.clone())
    }

    /// As after a restart of the node.
    fn restarted(&self) -> Arc<VolumeManager> {
        Self::manager(&self.fake, &self.issuer, &self.root, &self.shutdown)
    }

    async fn mounted(&self, pod: &Pod) -> Mounted {
        self.manager.mount_all(pod).await.unwrap_or_else(|errors| panic!("{errors:?}"))
    }
}

/// A pod whose one container has all of its volumes.
fn pod(volumes: serde_json::Value, security: serde_json::Value) -> Pod {
    let names = volumes.as_array().expect("a list").iter();
    let mounts: Vec<_> = names
        .map(
            |volume| serde_json::json!({"name": volume["name"], "mountPath": format!("/{}", volume["name"])}),
        )
        .collect();
    fixture::pod(
        serde_json::json!({"volumes": volumes, "serviceAccountName": "sa", "securityContext": security,
        "containers": [{"name": "c", "volumeMounts": mounts}]}),
    )
}

fn path(mounted: &Mounted, name: &str) -> Utf8PathBuf {
    match mounted.get(name).map(|volume| &volume.source) {
        Some(Source::Path(path)) => path.clone(),
        other => panic!("{name} is {other:?}"),
    }
}

async fn until(what: &str, mut reached: impl FnMut() -> bool) {
    let deadline = rt::instant() + Duration::from_secs(20);
    while !reached() {
        assert!(rt::instant() < deadline, "not reached: {what}");
        rt::sleep(Duration::from_millis(2)).await;
    }
}

fn config_map(name: &str, value: &str) -> apimachinery::Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "ns"},
        "data": {"k": value}})
}

#[tokio::test]
async fn data_is_written_and_follows_its_objects() {
    let world = World::new();
    world.fake.seed(config_map("cm", "1"));
    world
        .fake
        .seed(json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "ns"},
        "data": {"p": "cGFzcw=="}}));
    let mut pod = pod(
        serde_json::json!([
            {"name": "map", "configMap": {"name": "cm"}},
            {"name": "secret", "secret": {"secretName": "s", "defaultMode": 256}},
            {"name": "down", "downwardAPI": {"items": [{"path": "l", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
            {"name": "all", "projected": {"sources": [
                {"configMap": {"name": "cm", "items": [{"key": "k", "path": "in/k"}]}},
                {"secret": {"name": "none", "optional": true}},
                {"serviceAccountToken": {"path": "token", "expirationSeconds": 600}}]}},
            {"name": "maybe", "configMap": {"name": "later", "optional": true}}]),
        serde_json::json!({}),
    );
    let mounted = world.mounted(&pod).await;
    let read =
        |name: &str, file: &str| std::fs::read_to_string(path(&mounted, name).join(file)).unwrap_or_default();
    assert_eq!((read("map", "k"), read("secret", "p")), ("1".into(), "pass".into()));
    assert_eq!((read("all", "in/k"), read("all", "token")), ("1".into(), "token-1".into()));
    assert_eq!(read("down", "l"), "app=\"web\"");
    let secret = std::fs::metadata(path(&mounted, "secret").join("p")).expect("there");
    assert_eq!(secret.permissions().mode() & 0o777, 0o400);
    assert!(mounted.get("map").is_some_and(|volume| volume.read_only));

    world.fake.edit(&CONFIG_MAPS, "ns", "cm", |map| map.set_at(&["data", "k"], "2"));
    until("the new value in both", || read("map", "k") == "2" && read("all", "in/k") == "2").await;
    world.fake.seed(config_map("later", "3"));
    until("the optional one", || read("maybe", "k") == "3").await;
    world.fake.edit(&SECRETS, "ns", "s", |secret| secret.set_at(&["data", "p"], "bmV3"));
    until("the new secret", || read("secret", "p") == "new").await;
    pod.metadata.labels = Some([("app".to_owned(), "other".to_owned())].into());
    world.manager.pod_changed(&pod);
    until("the new label", || read("down", "l") == "app=\"other\"").await;
    assert_eq!(world.issuer.requests.lock().len(), 1, "the token is fresh");

    let folder = world.manager.layout().pod("u-1");
    assert!(folder.exists());
    assert_eq!(world.manager.pods_on_disk(), ["u-1"]);
    world.manager.unmount_all("u-1").await.expect("unmounted");
    world.manager.remove_directory("u-1").await.expect("removed");
    world.manager.unmount_all("u-1").await.expect("gone already");
    assert!(!folder.exists());
}

#[tokio::test]
async fn what_is_missing_is_said_and_the_rest_is_there() {
    let world = World::new();
    let pod = pod(
        serde_json::json!([
            {"name": "ok", "emptyDir": {}}, {"name": "map", "configMap": {"name": "y"}},
            {"name": "claim", "persistentVolumeClaim": {"claimName": "p"}},
            {"name": "iscsi", "iscsi": {"iqn": "", "lun": 0, "targetPortal": ""}},
            {"name": "host", "hostPath": {"path": "/nowhere/at/all", "type": "Directory"}},
            {"name": "csi", "csi": {"driver": "d"}}]),
        serde_json::json!({}),
    );
    let errors = world.manager.mount_all(&pod).await.expect_err("some are missing");
    let text: Vec<_> = errors.iter().map(|error| format!("{}: {}", error.reason, error.message)).collect();
    expect_test::expect![[r#"
        FailedMount: MountVolume.SetUp failed for volume "map" : configmap "y" not found
        FailedMount: Unable to attach or mount volumes: unmounted volumes=[claim], unattached volumes=[], failed to process volumes=[claim]: error processing PVC ns/p: failed to fetch PVC from API server: persistentvolumeclaims "p" not found
        FailedMount: Unable to attach or mount volumes: unmounted volumes=[iscsi], unattached volumes=[], failed to process volumes=[iscsi]: failed to get Plugin from volumeSpec for volume "iscsi" err=no volume plugin matched
        FailedMount: MountVolume.SetUp failed for volume "host" : hostPath type check failed: /nowhere/at/all is not a directory
        FailedMount: MountVolume.SetUp failed for volume "csi" : kubernetes.io/csi: mounter.SetUpAt failed to get CSI client: driver name d not found in the list of registered CSI drivers"#]]
    .assert_eq(&text.join("\n"));
    assert!(world.manager.layout().volume("u-1", "kubernetes.io/empty-dir", "ok").is_dir());
    let mut changes = world.manager.subscribe();
    world.fake.seed(config_map("y", "1"));
    let file = world.manager.layout().volume("u-1", "kubernetes.io/configmap", "map").join("k");
    until("the map came", || file.exists()).await;
    let told =
        rt::timeout(Duration::from_secs(20), changes.recv()).await.expect("it is told").expect("in time");
    assert_eq!(&*told, "u-1");
    assert!(world.fake.peek_all(&EVENTS).is_empty(), "whoever mounts says what is missing");
}

#[tokio::test]
async fn a_change_that_cannot_be_shown_is_told_and_the_old_files_stay() {
    let world = World::new();
    world.fake.seed(config_map("cm", "1"));
    let items = serde_json::json!([{"key": "k", "path": "k"}]);
    let pod = pod(
        serde_json::json!([{"name": "map", "configMap": {"name": "cm", "items": items}}]),
        serde_json::json!({}),
    );
    let mounted = world.mounted(&pod).await;
    world.fake.edit(&CONFIG_MAPS, "ns", "cm", |map| map.set_at(&["data"], json!({"other": "1"})));
    until("an event", || !world.fake.peek_all(&EVENTS).is_empty()).await;
    let event = world.fake.peek_all(&EVENTS)[0].to_value();
    assert_eq!(event.str_at(&["reason"]), "FailedMount");
    assert_eq!(
        event.str_at(&["message"]),
        "MountVolume.SetUp failed for volume \"map\" : configmap references non-existent config key: k"
    );
    assert_eq!(std::fs::read_to_string(path(&mounted, "map").join("k")).expect("it stays"), "1");
}

#[tokio::test]
async fn tokens_are_renewed_before_they_end() {
    let world = World::with(Issuer { life_seconds: Some(2), ..Issuer::default() });
    let pod = pod(
        serde_json::json!([{"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}]),
        serde_json::json!({"fsGroup": 4321}),
    );
    if !rustix::process::geteuid().is_root() {
        println!("skipped: giving files away needs root");
        return;
    }
    let mounted = world.mounted(&pod).await;
    let file = path(&mounted, "t").join("token");
    let meta = std::fs::metadata(&file).expect("there");
    assert_eq!(meta.permissions().mode() & 0o777, 0o640);
    until("a new token", || std::fs::read_to_string(&file).is_ok_and(|text| text != "token-1")).await;
}

#[tokio::test]
async fn what_is_mounted_stays_over_a_restart_and_goes_with_its_pod() {
    if !mount::is_permitted() {
        println!("skipped: mounting needs CAP_SYS_ADMIN");
        return;
    }
    let world = World::new();
    let disk = world.root.join("disk");
    std::fs::create_dir(&disk).expect("made");
    std::fs::write(disk.join("data"), "precious").expect("written");
    world.fake.seed(json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": "p", "namespace": "ns", "uid": "c-1"},
        "spec": {"volumeName": "pv"}, "status": {"phase": "Bound"}}));
    world.fake.seed(json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "pv"},
        "spec": {"claimRef": {"uid": "c-1"}, "local": {"path": disk.as_str()}}}));
    let pod = pod(
        serde_json::json!([
            {"name": "claim", "persistentVolumeClaim": {"claimName": "p"}},
            {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
            {"name": "unused", "emptyDir": {}}]),
        serde_json::json!({"fsGroup": 4321}),
    );
    let mounted = world.mounted(&pod).await;
    let (claim, memory) = (path(&mounted, "claim"), path(&mounted, "memory"));
    assert!(claim.ends_with("pods/u-1/volumes/kubernetes.io~local-volume/pv"));
    std::fs::write(memory.join("kept"), "").expect("written");
    let count = || mount::below(&world.root).expect("the table").len();
    assert_eq!(count(), 2);

    let restarted = world.restarted();
    assert_eq!(restarted.mount_all(&pod).await.expect("still there"), mounted);
    assert_eq!(count(), 2);
    assert!(memory.join("kept").exists());
    assert_eq!(std::fs::read_to_string(claim.join("data")).expect("there"), "precious");

    let part = crate::agent::config::mounts::SubPath {
        mount: 0,
        index: 0,
        volume: "claim".into(),
        root: claim.clone(),
        path: "sub".into(),
    };
    let folder = restarted.layout().pod_sub_paths("u-1");
    crate::agent::config::subpath::bind(&part, "c", &folder).expect("bound");
    assert_eq!(count(), 3);
    let refused = restarted.remove_directory("u-1").await.expect_err("there are mounts");
    assert!(refused.message.contains("is still mounted"), "{refused}");

    let forgetful = world.restarted();
    forgetful.unmount_all("u-1").await.expect("unmounted by what the disk knows");
    forgetful.remove_directory("u-1").await.expect("removed");
    assert_eq!(count(), 0);
    assert_eq!(std::fs::read_to_string(disk.join("data")).expect("it is the user's"), "precious");
    assert!(forgetful.pods_on_disk().is_empty());
}

#[tokio::test]
async fn images_and_block_devices_are_passed_on() {
    let world = World::new();
    let mut pod = pod(
        serde_json::json!([{"name": "image", "image": {"reference": "x:1", "pullPolicy": "Always"}}]),
        serde_json::json!({}),
    );
    let mut mounted = world.mounted(&pod).await;
    assert_eq!(mounted.images().collect::<Vec<_>>(), [("image", "x:1", "Always")]);
    mounted.set_image("image", "sha256:1");
    let wanted =
        Source::Image { reference: "x:1".into(), pull_policy: "Always".into(), id: Some("sha256:1".into()) };
    assert_eq!(mounted.get("image").map(|volume| &volume.source), Some(&wanted));
    if let Some(spec) = pod.spec.as_mut() {
        let device = serde_json::json!([{"name": "image", "devicePath": "/dev/x"}]);
        spec.containers[0].volume_devices = serde_json::from_value(device).expect("devices");
    }
    let errors = world.manager.mount_all(&pod).await.expect_err("it is no device");
    assert!(
        errors[0]
            .message
            .ends_with("volume image has volumeMode Filesystem, but is specified in volumeDevices")
    );
}

#[tokio::test]
async fn volumes_of_a_pod_from_before_follow_their_objects() {
    let world = World::new();
    world.fake.seed(config_map("cm", "1"));
    let pod = pod(serde_json::json!([{"name": "cm", "configMap": {"name": "cm"}}]), serde_json::json!({}));
    let file = path(&world.mounted(&pod).await, "cm").join("k");
    let again = world.restarted();
    let running = (again.clone(), world.shutdown.clone());
    rt::spawn("volumes", async move { running.0.run(running.1).await });
    world.manager.unmount_all("u-1").await.expect("the old one is no more");
    world.fake.seed(config_map("cm", "2"));
    again.adopt(&pod);
    let is_known = || again.mounted("u-1").is_some_and(|mounted| mounted.get("cm").is_some());
    until("it is brought up to date", || {
        is_known() && std::fs::read_to_string(&file).is_ok_and(|own| own == "2")
    })
    .await;
    world.fake.seed(config_map("cm", "3"));
    until("it follows", || std::fs::read_to_string(&file).is_ok_and(|own| own == "3")).await;
}

#[tokio::test]
async fn what_failed_is_not_tried_again_at_once() {
    let world = World::new();
    let folder = world.root.join("later");
    let source = serde_json::json!([{"name": "h", "hostPath": {"path": folder, "type": "Directory"}}]);
    let pod = pod(source, serde_json::json!({}));
    let failed = world.manager.mount_all(&pod).await.expect_err("it is not there");
    std::fs::create_dir(&folder).expect("made");
    assert_eq!(world.manager.mount_all(&pod).await, Err(failed), "half a second is not over");
    let deadline = rt::instant() + Duration::from_secs(20);
    while world.manager.mount_all(&pod).await.is_err() {
        assert!(rt::instant() < deadline, "it is never tried again");
        rt::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn how_full_volumes_are_is_known_of_pods_that_have_some() {
    let world = World::new();
    world.fake.seed(config_map("cm", "1"));
    let host = serde_json::json!({"path": world.root});
    let pod = pod(
        serde_json::json!([{"name": "cm", "configMap": {"name": "cm"}}, {"name": "e", "emptyDir": {}},
            {"name": "h", "hostPath": host}]),
        serde_json::json!({}),
    );
    let mounted = world.mounted(&pod).await;
    std::fs::write(path(&mounted, "e").join("file"), vec![1; 64 << 10]).expect("written");
    let usages = VolumeUsages::new(world.manager.clone());
    let known = usages.usage("u-1").await;
    let names: Vec<(&str, bool)> = known.iter().map(|own| (own.name.as_str(), own.is_ephemeral)).collect();
    assert_eq!(names, [("cm", true), ("e", true)], "nobody measures the host");
    let used = known[1].filesystem;
    assert!(used.used_bytes >= 64 << 10 && used.used_inodes == 2 && used.capacity_bytes > 0, "{used:?}");
    world.manager.unmount_all("u-1").await.expect("unmounted");
    assert!(usages.usage("u-1").await.is_empty());
}
