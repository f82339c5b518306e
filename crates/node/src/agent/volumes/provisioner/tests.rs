//! The provisioner against an API in memory and a disk of its own.

use api::gvr::EVENTS;
use client::fake::FakeApi;

use super::*;

struct World {
    fake: Arc<FakeApi>,
    shutdown: Shutdown,
    root: Utf8PathBuf,
    _folder: tempfile::TempDir,
}

impl Drop for World {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let root = Utf8PathBuf::from_path_buf(folder.path().join("volumes")).expect("it is text");
        let world = Self { fake: FakeApi::new(), shutdown: Shutdown::new(), root, _folder: folder };
        let node = json!({"apiVersion": "v1", "kind": "Node",
            "metadata": {"name": "n1", "labels": {HOSTNAME: "host-1"}}});
        world.fake.seed(node);
        world
    }

    fn start(&self) -> Shutdown {
        let stop = self.shutdown.child_token();
        let informers = Informers::new(self.fake.clone(), stop.clone());
        let options = Options { node_name: "n1".into(), root: self.root.clone() };
        let provisioner = Provisioner::new(options, self.fake.clone(), &informers, stop.clone());
        let own = stop.clone();
        rt::spawn("provisioner", async move {
            provisioner.create_class().await;
            provisioner.run(own).await;
        });
        stop
    }

    fn claim(&self, name: &str, node: Option<&str>) {
        let mut claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": name, "namespace": "ns", "uid": name,
                "annotations": {STORAGE_PROVISIONER: PROVISIONER}},
            "spec": {"storageClassName": CLASS, "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "1Gi"}}}});
        if let Some(node) = node {
            claim.set_at(&["metadata", "annotations", SELECTED_NODE], node);
        }
        self.fake.seed(claim);
    }

    fn volume(&self, name: &str) -> Option<Value> {
        self.fake.peek(&PERSISTENT_VOLUMES, "", name).map(|volume| volume.to_value())
    }

    fn events(&self) -> Vec<String> {
        let events = self.fake.peek_all(&EVENTS);
        events.iter().map(|event| event.to_value().str_at(&["reason"]).to_owned()).collect()
    }
}

async fn until(what: &str, mut reached: impl FnMut() -> bool) {
    let deadline = rt::instant() + Duration::from_secs(20);
    while !reached() {
        assert!(rt::instant() < deadline, "not reached: {what}");
        rt::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn a_claim_gets_a_folder_of_its_node_grows_and_goes() {
    let world = World::new();
    world.start();
    until("the class", || world.fake.peek(&STORAGE_CLASSES, "", CLASS).is_some()).await;
    let class = world.fake.peek(&STORAGE_CLASSES, "", CLASS).expect("there").to_value();
    assert_eq!(class.str_at(&["metadata", "annotations", IS_DEFAULT]), "true");
    world.claim("elsewhere", Some("n2"));
    world.claim("waits", None);
    world.claim("data", Some("n1"));
    until("a volume", || world.volume("pvc-data").is_some()).await;
    let volume = world.volume("pvc-data").expect("there");
    let folder = world.root.join("pvc-data");
    assert_eq!(volume.str_at(&["spec", "local", "path"]), folder);
    assert_eq!(std::fs::metadata(&folder).expect("there").permissions().mode() & 0o777, 0o777);
    let terms = &volume["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"];
    let wanted = json!([{"matchExpressions": [{"key": HOSTNAME, "operator": "In", "values": ["host-1"]}]}]);
    assert_eq!(*terms, wanted);
    assert!(world.volume("pvc-elsewhere").is_none() && world.volume("pvc-waits").is_none());

    std::fs::write(folder.join("f"), "").expect("written");
    world.fake.edit(&PERSISTENT_VOLUME_CLAIMS, "ns", "data", |claim| {
        claim.set_at(&["spec", "volumeName"], "pvc-data");
        claim.set_at(&["status"], json!({"phase": "Bound", "capacity": {"storage": "1Gi"}}));
        claim.set_at(&["spec", "resources", "requests", "storage"], "2Gi");
    });
    let capacity = || {
        let claim = world.fake.peek(&PERSISTENT_VOLUME_CLAIMS, "ns", "data").map(|claim| claim.to_value());
        claim.unwrap_or_default().str_at(&["status", "capacity", "storage"]).to_owned()
    };
    until("it grew", || capacity() == "2Gi").await;
    assert_eq!(world.volume("pvc-data").expect("there").str_at(&["spec", "capacity", "storage"]), "2Gi");
    until("it is said", || world.events().iter().any(|event| event == "VolumeResizeSuccessful")).await;

    world.fake.drop_object(&PERSISTENT_VOLUME_CLAIMS, "ns", "data");
    world.fake.edit(&PERSISTENT_VOLUMES, "", "pvc-data", |volume| {
        volume.set_at(&["status", "phase"], "Released");
    });
    until("it went", || world.volume("pvc-data").is_none()).await;
    assert!(!folder.exists());
}

#[tokio::test]
async fn what_is_not_its_own_is_left_and_a_crash_leaves_nothing_for_ever() {
    let world = World::new();
    world.fake.seed(json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
        "metadata": {"name": "other", "annotations": {IS_DEFAULT: "true"}}, "provisioner": "x"}));
    for name in ["pvc-empty", "pvc-full", "pvc-claimed", "users", "pvc-moved", "pvc-own"] {
        std::fs::create_dir_all(world.root.join(name)).expect("made");
    }
    std::fs::write(world.root.join("pvc-full/f"), "kept on purpose").expect("written");
    let released = |name: &str, node: &str, path: &str| {
        let mut volume = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name},
            "spec": {"persistentVolumeReclaimPolicy": "Delete", "local": {"path": path}},
            "status": {"phase": "Released"}});
        volume.set_at(&["metadata", "annotations", PROVISIONED_BY], PROVISIONER);
        volume.set_at(&["metadata", "annotations", NODE], node);
        volume
    };
    world.fake.seed(released("pvc-moved", "n1", "/etc"));
    world.fake.seed(released("pvc-theirs", "n2", world.root.join("pvc-theirs").as_str()));
    // Its folder is gone already: the crash came before the volume went.
    world.fake.seed(released("pvc-gone", "n1", world.root.join("pvc-gone").as_str()));
    world.claim("claimed", Some("n1"));
    let first = world.start();
    until("the one that is gone", || world.volume("pvc-gone").is_none()).await;
    until("the claimed one", || world.volume("pvc-claimed").is_some()).await;
    until("the refusal", || world.events().iter().any(|event| event == "VolumeFailedDelete")).await;
    let left = |name: &str| world.root.join(name).exists();
    assert!(!left("pvc-empty") && left("pvc-full") && left("pvc-claimed") && left("users"));
    assert!(world.volume("pvc-moved").is_some() && world.volume("pvc-theirs").is_some());
    let class = world.fake.peek(&STORAGE_CLASSES, "", CLASS).expect("there").to_value();
    assert_eq!(class.str_at(&["metadata", "annotations", IS_DEFAULT]), "", "there is a default");

    first.cancel();
    world.start();
    world.claim("second", Some("n1"));
    until("after a restart", || world.volume("pvc-second").is_some()).await;
    assert_eq!(world.fake.peek_all(&PERSISTENT_VOLUMES).len(), 4);
}

#[tokio::test]
async fn what_cannot_be_made_is_refused_with_words() {
    let world = World::new();
    world.start();
    until("the class", || world.fake.peek(&STORAGE_CLASSES, "", CLASS).is_some()).await;
    world.fake.seed(json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": "b", "namespace": "ns", "uid": "b",
            "annotations": {STORAGE_PROVISIONER: PROVISIONER, SELECTED_NODE: "n1"}},
        "spec": {"storageClassName": CLASS, "volumeMode": "Block",
            "resources": {"requests": {"storage": "1Gi"}}}}));
    until("the refusal", || !world.events().is_empty()).await;
    let event = world.fake.peek_all(&EVENTS)[0].to_value();
    assert_eq!(
        event.str_at(&["message"]),
        "failed to provision volume with StorageClass \"local\": volumeMode Block is not supported by local volumes"
    );
    assert!(!world.root.join("pvc-b").exists());
}
