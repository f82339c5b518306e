//! A driver that writes down what it is asked.

use apimachinery::json;
use client::fake::FakeApi;

use super::*;
use crate::agent::config::fixture;

#[derive(Default)]
struct Recorded(Mutex<Vec<String>>);

impl Recorded {
    fn add(&self, call: String) {
        self.0.lock().push(call);
    }
}

#[async_trait]
impl CsiDriver for Recorded {
    async fn stages(&self) -> Result<bool, String> {
        Ok(true)
    }
    async fn mounts_groups(&self) -> Result<bool, String> {
        Ok(false)
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
        std::fs::create_dir_all(target).map_err(|error| error.to_string())
    }
    async fn unpublish(&self, handle: &str, _target: &Utf8Path) -> Result<(), String> {
        self.add(format!("unpublish {handle}"));
        Ok(())
    }
}

struct One(Arc<Recorded>);

impl CsiDrivers for One {
    fn driver(&self, name: &str) -> Option<Arc<dyn CsiDriver>> {
        (name == "d.example.com").then(|| self.0.clone() as Arc<dyn CsiDriver>)
    }
}

#[tokio::test]
async fn a_volume_is_staged_for_the_node_and_published_for_each_pod() {
    let (fake, recorded) = (FakeApi::new(), Arc::new(Recorded::default()));
    let folder = tempfile::tempdir().expect("a folder");
    let layout = Layout::new(Utf8Path::from_path(folder.path()).expect("it is text"));
    let csi = Csi::new(fake.clone(), Arc::new(One(recorded.clone())), layout, "n1");
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
    let unknown = csi.set_up_persistent(&pod("a"), &volume("other"), false).await.expect_err("nobody");
    assert!(unknown.ends_with("driver name other not found in the list of registered CSI drivers"));
    let attachment = attachment_name("h", "d.example.com", "n1");
    let waits = csi.set_up_persistent(&pod("a"), &volume("d.example.com"), false).await;
    assert_eq!(waits, Err(format!("volume attachment {attachment} is not attached yet")));
    fake.seed(json!({"apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttachment",
        "metadata": {"name": attachment}, "spec": {"attacher": "d.example.com", "nodeName": "n1",
        "source": {"persistentVolumeName": "pv"}},
        "status": {"attached": true, "attachmentMetadata": {"device": "sdb"}}}));
    for uid in ["a", "b"] {
        let place = csi.set_up_persistent(&pod(uid), &volume("d.example.com"), false).await.expect("set up");
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
    .assert_eq(&recorded.0.lock().join("\n"));
}

#[tokio::test]
async fn a_volume_of_a_pod_is_published_only() {
    let (fake, recorded) = (FakeApi::new(), Arc::new(Recorded::default()));
    let folder = tempfile::tempdir().expect("a folder");
    let layout = Layout::new(Utf8Path::from_path(folder.path()).expect("it is text"));
    let csi = Csi::new(fake.clone(), Arc::new(One(recorded.clone())), layout, "n1");
    fake.seed(json!({"apiVersion": "storage.k8s.io/v1", "kind": "CSIDriver",
        "metadata": {"name": "d.example.com"}, "spec": {"podInfoOnMount": true, "volumeLifecycleModes": ["Ephemeral"]}}));
    let pod = fixture::pod(serde_json::json!({"containers": []}));
    let volume = serde_json::json!({"name": "v", "csi": {"driver": "d.example.com"}});
    let volume: Volume = serde_json::from_value(volume).expect("a volume");
    csi.set_up_inline(&pod, &volume).await.expect("set up");
    csi.tear_down("u-1").await.expect("torn down");
    let calls = recorded.0.lock().clone();
    assert_eq!(calls.len(), 2);
    assert!(calls[0].starts_with("publish csi-") && calls[0].ends_with(" false Some(\"true\")"), "{calls:?}");
    assert!(csi.in_use().is_empty());
}
