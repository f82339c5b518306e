//! A driver behind a real socket, from its registration to the last unstage; and one that never answers.

use std::time::Duration;

use apimachinery::json;
use client::fake::FakeApi;
use grpc::{Code, Router, Server, Status};

use super::driver::SocketDriver;
use super::messages::{
    self, AccessType, Capabilities, Capability, NodeInfo, Nothing, PublishRequest, Rpc, StageRequest,
    Topology, UndoRequest, capability,
};
use super::registry::Registry;
use super::*;
use crate::agent::config::fixture;
use crate::agent::plugins::{Handler, Plugin};
use crate::agent::volumes::tokens::fixture::Issuer;

type Calls = Arc<Mutex<Vec<String>>>;

fn router(calls: &Calls) -> Router {
    let rpc = |kind| Capability { rpc: Some(Rpc { r#type: kind }) };
    let add = {
        let calls = calls.clone();
        move |call: String| calls.lock().push(call)
    };
    let (staged, published, unstaged, unpublished) = (add.clone(), add.clone(), add.clone(), add);
    let access = |capability: Option<messages::VolumeCapability>| {
        let capability = capability.expect("it is asked for");
        let mode = capability.access_mode.expect("a mode").mode;
        match capability.access_type.expect("a type") {
            AccessType::Block(_) => format!("block {mode}"),
            AccessType::Mount(own) => format!("mount {mode} {:?} {:?}", own.fs_type, own.mount_flags),
        }
    };
    Router::new()
        .unary(messages::GET_INFO, |_: Nothing| async {
            Ok(NodeInfo {
                node_id: "id-of-n1".into(),
                max_volumes_per_node: 3,
                accessible_topology: Some(Topology {
                    segments: [("zone.example.com/zone".to_owned(), "a".to_owned())].into(),
                }),
            })
        })
        .unary(messages::GET_CAPABILITIES, move |_: Nothing| async move {
            Ok(Capabilities { capabilities: vec![rpc(capability::STAGE_UNSTAGE_VOLUME)] })
        })
        .unary(messages::STAGE, move |own: StageRequest| {
            staged(format!("stage {} {} {:?}", own.volume_id, access(own.volume_capability), own.secrets));
            async { Ok(Nothing {}) }
        })
        .unary(messages::PUBLISH, move |own: PublishRequest| {
            let place = own.target_path.rsplit('/').take(3).collect::<Vec<_>>().join("<");
            let access = access(own.volume_capability);
            published(format!("publish {} {access} {place} {}", own.volume_id, own.readonly));
            async move {
                if own.volume_id == "bad" {
                    return Err(Status::new(Code::Internal, "no such disk"));
                }
                let made = if access.starts_with("block") {
                    std::fs::write(&own.target_path, "")
                } else {
                    std::fs::create_dir_all(&own.target_path)
                };
                made.map(|()| Nothing {}).map_err(|error| Status::new(Code::Internal, error.to_string()))
            }
        })
        .unary(messages::UNPUBLISH, move |own: UndoRequest| {
            unpublished(format!("unpublish {}", own.volume_id));
            async { Ok(Nothing {}) }
        })
        .unary(messages::UNSTAGE, move |own: UndoRequest| {
            unstaged(format!("unstage {}", own.volume_id));
            async { Ok(Nothing {}) }
        })
}

struct World {
    fake: Arc<FakeApi>,
    registry: Arc<Registry>,
    csi: Csi,
    root: Utf8PathBuf,
    calls: Calls,
    plugin: Plugin,
    _end: tokio_util::sync::DropGuard,
    _folder: tempfile::TempDir,
}

fn world() -> World {
    let folder = tempfile::tempdir().expect("a folder");
    let root = Utf8PathBuf::from_path_buf(folder.path().to_owned()).expect("it is text");
    let (fake, calls, shutdown) = (FakeApi::new(), Calls::default(), rt::Shutdown::new());
    fake.seed(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "uid": "node-uid"}}));
    fake.seed(json!({"apiVersion": "storage.k8s.io/v1", "kind": "CSIDriver",
        "metadata": {"name": "d.example.com"}, "spec": {"attachRequired": false}}));
    let socket = root.join("csi.sock");
    let server = Server::unix(&socket).expect("a socket");
    rt::spawn("fake driver", server.serve(router(&calls), shutdown.clone()));
    let registry = Registry::new(fake.clone(), "n1");
    let tokens = Arc::new(TokenCache::new(Arc::new(Issuer::default())));
    let csi = Csi::new(fake.clone(), registry.clone(), Layout::new(root.clone()), "n1", tokens);
    let plugin = Plugin {
        name: "d.example.com".into(),
        endpoint: socket.clone(),
        socket,
        versions: vec!["1.0.0".into()],
    };
    World { fake, registry, csi, root, calls, plugin, _end: shutdown.drop_guard(), _folder: folder }
}

fn volume(name: &str, handle: &str, mode: &str) -> PersistentVolume {
    let tree = serde_json::json!({"metadata": {"name": name}, "spec": {"accessModes": ["ReadWriteOnce"],
        "volumeMode": mode, "mountOptions": ["noatime"],
        "csi": {"driver": "d.example.com", "volumeHandle": handle, "fsType": "ext4"}}});
    serde_json::from_value(tree).expect("a volume")
}

#[tokio::test]
async fn a_driver_registers_and_its_volumes_come_and_go() {
    let world = world();
    let old = Plugin { versions: vec!["0.3.0".into()], ..world.plugin.clone() };
    let refused = world.registry.register(&old).await.expect_err("too old");
    assert!(refused.ends_with("none of them is 1.x"), "{refused}");
    world.registry.register(&world.plugin).await.expect("registered");
    let csi_node = || world.fake.peek(&api::gvr::CSI_NODES, "", "n1").expect("it is made").to_value();
    let node = || world.fake.peek(&api::gvr::NODES, "", "n1").expect("it is there").to_value();
    assert_eq!(
        csi_node().at(&["spec", "drivers"]),
        Some(
            &json!([{"name": "d.example.com", "nodeID": "id-of-n1", "topologyKeys": ["zone.example.com/zone"],
            "allocatable": {"count": 3}}])
        )
    );
    assert_eq!(csi_node().array_at(&["metadata", "ownerReferences"])[0].str_at(&["uid"]), "node-uid");
    let annotation = ["metadata", "annotations", "csi.volume.kubernetes.io/nodeid"];
    assert_eq!(node().str_at(&annotation), r#"{"d.example.com":"id-of-n1"}"#);
    assert_eq!(node().str_at(&["metadata", "labels", "zone.example.com/zone"]), "a");

    let pod = fixture::pod(serde_json::json!({"containers": []}));
    let place = world
        .csi
        .set_up_persistent(&pod, &volume("pv", "h", "Filesystem"), true, Asking::Once)
        .await
        .expect("set up");
    assert!(place.ends_with("pods/u-1/volumes/kubernetes.io~csi/pv/mount"), "{place}");
    let place = world
        .csi
        .set_up_persistent(&pod, &volume("raw", "b", "Block"), false, Asking::Once)
        .await
        .expect("set up");
    assert_eq!(place, world.root.join("plugins/kubernetes.io/csi/volumeDevices/publish/raw/u-1"));
    let bad =
        world.csi.set_up_persistent(&pod, &volume("pv2", "bad", "Filesystem"), false, Asking::Once).await;
    assert_eq!(bad, Err("rpc error: code = Internal desc = no such disk".to_owned()));
    world.csi.tear_down("u-1").await.expect("torn down");
    assert!(!world.root.join("plugins/kubernetes.io/csi/volumeDevices/publish/raw").exists());
    assert!(!world.root.join("plugins/kubernetes.io/csi/volumeDevices/staging/raw").exists());
    expect_test::expect![[r#"
        stage h mount 1 "ext4" ["noatime"] {}
        publish h mount 1 "ext4" ["noatime"] mount<pv<kubernetes.io~csi true
        stage b block 1 {}
        publish b block 1 u-1<raw<publish false
        stage bad mount 1 "ext4" ["noatime"] {}
        publish bad mount 1 "ext4" ["noatime"] mount<pv2<kubernetes.io~csi false
        unpublish h
        unstage h
        unpublish bad
        unstage bad
        unpublish b
        unstage b"#]]
    .assert_eq(&world.calls.lock().join("\n"));

    // A socket that was replaced says its goodbye after the new one came.
    let other = Plugin { socket: world.root.join("other.sock"), ..world.plugin.clone() };
    world.registry.deregister(&other).await;
    assert!(world.registry.driver("d.example.com").is_some());
    world.registry.deregister(&world.plugin).await;
    assert!(world.registry.driver("d.example.com").is_none());
    assert_eq!(csi_node().at(&["spec", "drivers"]), Some(&json!([])));
    assert_eq!(node().str_at(&annotation), "");
}

#[tokio::test]
async fn a_driver_that_never_answers_fails_its_own_calls_only() {
    let world = world();
    world.registry.register(&world.plugin).await.expect("registered");
    let socket = world.root.join("silent.sock");
    let router = Router::new().unary(messages::GET_CAPABILITIES, |_: Nothing| {
        std::future::pending::<Result<Capabilities, Status>>()
    });
    let shutdown = rt::Shutdown::new();
    let _end = shutdown.clone().drop_guard();
    rt::spawn("silent driver", Server::unix(&socket).expect("a socket").serve(router, shutdown));
    let silent = SocketDriver::with_timeout(&socket, Duration::from_millis(50));
    let pod = fixture::pod(serde_json::json!({"containers": []}));
    let filesystem = volume("pv", "h", "Filesystem");
    let (hangs, works) =
        tokio::join!(silent.abilities(), world.csi.set_up_persistent(&pod, &filesystem, false, Asking::Once));
    assert_eq!(hangs, Err("rpc error: code = DeadlineExceeded desc = context deadline exceeded".to_owned()));
    works.expect("the other one goes on");
}

#[tokio::test]
async fn a_driver_of_persistent_volumes_gets_none_of_pods() {
    let world = world();
    world.registry.register(&world.plugin).await.expect("registered");
    let pod = fixture::pod(serde_json::json!({"containers": []}));
    let tree = serde_json::json!({"name": "v", "csi": {"driver": "d.example.com"}});
    let inline: Volume = serde_json::from_value(tree).expect("a volume");
    let refused = world.csi.set_up_inline(&pod, &inline, Asking::Once).await.expect_err("not of its modes");
    assert!(
        refused.ends_with(
            r#"volume mode "Ephemeral" not supported by driver d.example.com (only supports [Persistent])"#
        ),
        "{refused}"
    );
    assert!(world.calls.lock().is_empty());
}
