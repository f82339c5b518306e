//! A driver that writes down what it is asked.

use api::gvr::PERSISTENT_VOLUME_CLAIMS;
use apimachinery::{Value, json};
use async_trait::async_trait;
use client::fake::FakeApi;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;

use super::*;
use crate::agent::config::fixture;
use crate::agent::volumes::tokens::fixture::Issuer;

#[derive(Default)]
struct Recorded {
    calls: Mutex<Vec<String>>,
    /// What expanding is answered with.
    refusal: Mutex<Option<NotExpanded>>,
}

impl Recorded {
    fn add(&self, call: String) {
        self.calls.lock().push(call);
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.calls.lock())
    }
}

#[async_trait]
impl CsiDriver for Recorded {
    async fn abilities(&self) -> Result<Abilities, String> {
        Ok(Abilities { stages: true, measures: true, expands: true, mounts_groups: false })
    }
    async fn stage(&self, volume: &CsiVolume, _staging: &Utf8Path) -> Result<(), String> {
        self.add(format!("stage {} {:?}", volume.handle, volume.publish_context));
        Ok(())
    }
    async fn unstage(&self, handle: &str, _staging: &Utf8Path) -> Result<(), String> {
        self.add(format!("unstage {handle}"));
        Ok(())
    }
    async fn publish(
        &self,
        volume: &CsiVolume,
        staging: Option<&Utf8Path>,
        target: &Utf8Path,
    ) -> Result<(), String> {
        let info = volume.attributes.get("csi.storage.k8s.io/ephemeral");
        self.add(format!("publish {} {} {info:?}", volume.handle, staging.is_some()));
        let tokens = "csi.storage.k8s.io/serviceAccount.tokens";
        for (place, map) in [("context", &volume.attributes), ("secrets", &volume.secrets)] {
            if let Some(own) = map.get(tokens) {
                let own: Value = Value::parse(own.as_bytes()).expect("it is JSON");
                self.add(format!("{place} has {}", own.str_at(&["vault", "token"])));
            }
        }
        std::fs::create_dir_all(target).map_err(|error| error.to_string())
    }
    async fn unpublish(&self, handle: &str, _target: &Utf8Path) -> Result<(), String> {
        self.add(format!("unpublish {handle}"));
        Ok(())
    }
    async fn expand(
        &self,
        volume: &CsiVolume,
        staging: Option<&Utf8Path>,
        _target: &Utf8Path,
        bytes: i64,
    ) -> Result<(), NotExpanded> {
        self.add(format!("expand {} {bytes} {} {:?}", volume.handle, staging.is_some(), volume.secrets));
        self.refusal.lock().clone().map_or(Ok(()), Err)
    }
    async fn measure(
        &self,
        handle: &str,
        staging: Option<&Utf8Path>,
        _target: &Utf8Path,
    ) -> Result<Measured, String> {
        self.add(format!("measure {handle} {}", staging.is_some()));
        Ok(Measured { is_abnormal: Some(true), ..Measured::default() })
    }
}

struct One(Arc<Recorded>);

impl CsiDrivers for One {
    fn driver(&self, name: &str) -> Option<Arc<dyn CsiDriver>> {
        (name == "d.example.com").then(|| self.0.clone() as Arc<dyn CsiDriver>)
    }
}

struct World {
    fake: Arc<FakeApi>,
    recorded: Arc<Recorded>,
    csi: Csi,
    root: Utf8PathBuf,
    // Last: what is mounted goes before the folder does.
    _mounts: mount::Unmounted,
    _folder: tempfile::TempDir,
}

fn world() -> World {
    let (fake, recorded) = (FakeApi::new(), Arc::new(Recorded::default()));
    let folder = tempfile::tempdir().expect("a folder");
    let root = Utf8PathBuf::from_path_buf(folder.path().to_owned()).expect("it is text");
    let (drivers, layout) = (Arc::new(One(recorded.clone())), Layout::new(root.clone()));
    let tokens = Arc::new(TokenCache::new(Arc::new(Issuer::default())));
    let csi = Csi::new(fake.clone(), drivers, layout, "n1", tokens);
    let mounts = mount::Unmounted::below(&root);
    World { fake, recorded, csi, root, _mounts: mounts, _folder: folder }
}

fn driver(spec: Value) -> Value {
    json!({"apiVersion": "storage.k8s.io/v1", "kind": "CSIDriver", "metadata": {"name": "d.example.com"},
        "spec": spec})
}

#[tokio::test]
async fn a_volume_is_staged_for_the_node_and_published_for_each_pod() {
    let World { fake, recorded, csi, .. } = &world();
    let volume = |driver: &str| -> PersistentVolume {
        let tree = serde_json::json!({"metadata": {"name": "pv"}, "spec": {"accessModes": ["ReadWriteOnce"],
            "csi": {"driver": driver, "volumeHandle": "h"}}});
        serde_json::from_value(tree).expect("a volume")
    };
    let pod = |uid: &str| {
        let mut pod = fixture::pod(serde_json::json!({"containers": []}));
        pod.metadata.uid = Some(uid.to_owned());
        pod
    };
    let unknown =
        csi.set_up_persistent(&pod("a"), &volume("other"), false, Asking::Once).await.expect_err("nobody");
    assert!(unknown.ends_with("driver name other not found in the list of registered CSI drivers"));
    let attachment = attachment_name("h", "d.example.com", "n1");
    let waits = csi.set_up_persistent(&pod("a"), &volume("d.example.com"), false, Asking::Once).await;
    assert_eq!(waits, Err(format!("volume attachment {attachment} is not attached yet")));
    fake.seed(json!({"apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttachment",
        "metadata": {"name": attachment}, "spec": {"attacher": "d.example.com", "nodeName": "n1",
        "source": {"persistentVolumeName": "pv"}},
        "status": {"attached": true, "attachmentMetadata": {"device": "sdb"}}}));
    for uid in ["a", "b"] {
        let place = csi
            .set_up_persistent(&pod(uid), &volume("d.example.com"), false, Asking::Once)
            .await
            .expect("set up");
        assert!(place.ends_with(format!("pods/{uid}/volumes/kubernetes.io~csi/pv/mount")));
    }
    assert_eq!(csi.in_use(), ["kubernetes.io/csi/d.example.com^h"]);
    csi.tear_down("a").await.expect("torn down");
    assert_eq!(csi.in_use().len(), 1);
    csi.tear_down("b").await.expect("torn down");
    csi.tear_down("b").await.expect("gone already");
    assert!(csi.in_use().is_empty());
    expect_test::expect![[r#"
        stage h {"device": "sdb"}
        publish h true None
        stage h {"device": "sdb"}
        publish h true None
        unpublish h
        unpublish h
        unstage h"#]]
    .assert_eq(&recorded.take().join("\n"));
}

#[tokio::test]
async fn a_volume_of_a_pod_is_published_only() {
    let World { fake, recorded, csi, .. } = &world();
    fake.seed(driver(json!({"podInfoOnMount": true, "volumeLifecycleModes": ["Ephemeral"]})));
    let pod = fixture::pod(serde_json::json!({"containers": []}));
    let volume = serde_json::json!({"name": "v", "csi": {"driver": "d.example.com"}});
    let volume: Volume = serde_json::from_value(volume).expect("a volume");
    csi.set_up_inline(&pod, &volume, Asking::Once).await.expect("set up");
    csi.tear_down("u-1").await.expect("torn down");
    let calls = recorded.take();
    assert_eq!(calls.len(), 2);
    assert!(calls[0].starts_with("publish csi-") && calls[0].ends_with(" false Some(\"true\")"), "{calls:?}");
    assert!(csi.in_use().is_empty());
}

fn claim(capacity: &str, status: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": "c", "namespace": "ns", "uid": "c"},
        "status": {"capacity": {"storage": capacity}, "allocatedResourceStatuses": {"storage": status}}})
}

#[tokio::test]
async fn a_volume_grows_after_its_disk_and_the_claim_says_so() {
    let World { fake, recorded, csi, .. } = &world();
    fake.seed(json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "ns"},
        "data": {"k": "dg=="}}));
    fake.seed(claim("1Ki", "NodeResizePending"));
    let volume = |capacity: &str| -> PersistentVolume {
        let tree = serde_json::json!({"metadata": {"name": "pv"}, "spec": {"capacity": {"storage": capacity},
            "csi": {"driver": "d.example.com", "volumeHandle": "h",
                "nodeExpandSecretRef": {"name": "s", "namespace": "ns"}}}});
        serde_json::from_value(tree).expect("a volume")
    };
    let pod = fixture::pod(serde_json::json!({"containers": []}));
    let seen = || fake.peek(&PERSISTENT_VOLUME_CLAIMS, "ns", "c").expect("it is there");
    let expand = async |capacity: &str, read_only: bool| {
        let claim = view::<PersistentVolumeClaim>(&seen()).expect("a claim");
        csi.expand(&pod, &volume(capacity), &claim, read_only).await
    };
    assert_eq!(expand("2Ki", true).await, Ok(false), "it is read-only");
    assert_eq!(expand("1Ki", false).await, Ok(false), "it is as large as its disk");
    assert!(recorded.take().is_empty());
    assert_eq!(expand("2Ki", false).await, Ok(true));
    assert_eq!(recorded.take(), [r#"expand h 2048 true {"k": "v"}"#]);
    assert_eq!(seen().to_value()["status"], json!({"capacity": {"storage": "2Ki"}}));
    assert_eq!(expand("2Ki", false).await, Ok(false), "it has grown");

    *recorded.refusal.lock() = Some(NotExpanded { message: "no such size".into(), is_final: true });
    fake.seed(claim("2Ki", "NodeResizePending"));
    let failed = "Expander.NodeExpand failed to expand the volume : no such size";
    assert_eq!(expand("3Ki", false).await, Err(failed.to_owned()));
    let status = seen().to_value()["status"].clone();
    assert_eq!(status.str_at(&["allocatedResourceStatuses", "storage"]), "NodeResizeInfeasible");
    assert_eq!(status.array_at(&["conditions"])[0].str_at(&["type"]), "NodeResizeError");
    recorded.take();
    assert_eq!(expand("3Ki", false).await, Ok(false), "nobody asks in vain");
    assert!(recorded.take().is_empty());
}

#[tokio::test]
async fn a_driver_that_wants_it_is_asked_again_and_gets_tokens() {
    if !mount::is_permitted() {
        println!("skipped: mounting needs CAP_SYS_ADMIN");
        return;
    }
    let World { fake, recorded, csi, root, .. } = &world();
    let spec = |republishes: bool, in_secrets: bool| {
        driver(json!({"attachRequired": false, "volumeLifecycleModes": ["Ephemeral"],
            "requiresRepublish": republishes, "serviceAccountTokenInSecrets": in_secrets,
            "tokenRequests": [{"audience": "vault", "expirationSeconds": 600}]}))
    };
    fake.seed(spec(true, false));
    let pod = fixture::pod(serde_json::json!({"containers": [], "serviceAccountName": "sa"}));
    let volume = serde_json::json!({"name": "v", "csi": {"driver": "d.example.com"}});
    let volume: Volume = serde_json::from_value(volume).expect("a volume");
    let ask = async |asking| {
        csi.set_up_inline(&pod, &volume, asking).await.expect("set up");
        let calls = recorded.take().into_iter();
        calls.map(|own| own.split(' ').next_back().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(ask(Asking::Once).await, ["None", "token-1"]);
    let target = root.join("pods/u-1/volumes/kubernetes.io~csi/v/mount");
    mount::mount_virtual("tmpfs", &target, "size=4096").expect("mounted");
    assert!(ask(Asking::Once).await.is_empty(), "it is there");
    assert_eq!(ask(Asking::Again).await, ["None", "token-1"], "the token is good for a while");
    fake.seed(spec(true, true));
    csi.set_up_inline(&pod, &volume, Asking::Again).await.expect("set up");
    assert!(recorded.take().contains(&"secrets has token-1".to_owned()));
    fake.seed(spec(false, false));
    assert!(ask(Asking::Again).await.is_empty(), "the driver does not want it");

    let measured = csi.measure(&csi.measuring(&pod, "v", false)).await.expect("measured");
    assert_eq!(measured.and_then(|own| own.is_abnormal), Some(true));
    assert!(recorded.take()[0].ends_with(" false"), "it was never staged");
    let other = csi.measure(&csi.measuring(&pod, "other", false)).await;
    assert_eq!(other, Ok(None), "nobody has it");
}
