//! What is called, and in which order; by a server that has no containers.

use std::sync::Arc;
use std::time::Duration;

use camino::Utf8PathBuf;
use grpc::{Code, Router, Server, Status};
use parking_lot::Mutex;

use crate::cri::messages::{self, container_state, event_type};
use crate::cri::{CgroupDriver, Condition, CriRuntime, Health};
use crate::{ContainerEventKind, Error, PullRequest, Runtime, SandboxConfig, spec::RegistryCredential};

/// A socket that is served until the test ends.
struct World {
    path: Utf8PathBuf,
    shutdown: rt::Shutdown,
    _folder: tempfile::TempDir,
}

impl Drop for World {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl World {
    fn serve(router: Router) -> World {
        let folder = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(folder.path().join("cri.sock")).unwrap();
        let shutdown = rt::Shutdown::new();
        let server = Server::unix(&path).unwrap();
        let router =
            router.unary("/runtime.v1.RuntimeService/Version", |_: messages::VersionRequest| async {
                let (runtime_name, runtime_version) = ("fake".to_owned(), "1".to_owned());
                Ok(messages::VersionResponse { runtime_name, runtime_version })
            });
        drop(rt::spawn("test server", server.serve(router, shutdown.clone())));
        World { path, shutdown, _folder: folder }
    }

    async fn connect(&self) -> CriRuntime {
        CriRuntime::connect(&format!("unix://{}", self.path), None, CgroupDriver::Cgroupfs, &self.shutdown)
            .await
            .unwrap()
    }
}

#[tokio::test]
async fn credentials_are_tried_in_order_and_none_at_last() {
    let tried: Arc<Mutex<Vec<String>>> = Arc::default();
    let kept = tried.clone();
    let router = Router::new()
        .unary("/runtime.v1.ImageService/PullImage", move |request: messages::PullImageRequest| {
            let who = request.auth.map_or("nobody".to_owned(), |auth| auth.username);
            kept.lock().push(who.clone());
            async move {
                match who.as_str() {
                    "b" => Ok(messages::PullImageResponse { image_ref: "repo@sha256:d".to_owned() }),
                    _ => Err(Status::new(Code::Unknown, format!("{who} may not"))),
                }
            }
        })
        .unary("/runtime.v1.ImageService/ImageStatus", |request: messages::ImageRequest| async move {
            assert_eq!(request.image.unwrap().image, "repo@sha256:d");
            let image = messages::Image { id: "sha256:i".to_owned(), ..Default::default() };
            Ok(messages::ImageStatusResponse { image: Some(image) })
        });
    let world = World::serve(router);
    let runtime = world.connect().await;
    let credential = |name: &str| RegistryCredential { username: name.to_owned(), ..Default::default() };
    let mut request =
        PullRequest { credentials: vec![credential("a"), credential("b")], ..Default::default() };
    assert_eq!(runtime.pull_image(&request).await.unwrap(), "sha256:i");
    request.credentials.pop();
    let refused = runtime.pull_image(&request).await.unwrap_err();
    assert_eq!(refused.to_string(), "rpc error: code = Unknown desc = nobody may not");
    assert_eq!(*tried.lock(), ["a", "b", "a", "nobody"]);
}

#[tokio::test]
async fn the_runtime_says_whose_cgroups_it_uses_and_gets_names_for_them() {
    let parents: Arc<Mutex<Vec<String>>> = Arc::default();
    let kept = parents.clone();
    let router = Router::new()
        .unary("/runtime.v1.RuntimeService/RuntimeConfig", |_: messages::RuntimeConfigRequest| async {
            let linux =
                messages::LinuxRuntimeConfiguration { cgroup_driver: messages::CGROUP_DRIVER_SYSTEMD };
            Ok(messages::RuntimeConfigResponse { linux: Some(linux) })
        })
        .unary("/runtime.v1.RuntimeService/RunPodSandbox", move |request: messages::RunPodSandboxRequest| {
            kept.lock().push(request.config.unwrap().linux.unwrap().cgroup_parent);
            async { Ok(messages::RunPodSandboxResponse { pod_sandbox_id: "s".to_owned() }) }
        });
    let world = World::serve(router);
    let runtime = world.connect().await;
    assert_eq!(runtime.cgroup_driver(), CgroupDriver::Systemd);
    let config = SandboxConfig { cgroup_parent: "/kubepods/pod1".to_owned(), ..Default::default() };
    assert_eq!(runtime.run_sandbox(&config).await.unwrap(), "s");
    assert_eq!(*parents.lock(), ["/kubepods.slice/kubepods-pod1.slice"]);
}

#[tokio::test]
async fn what_is_gone_counts_as_stopped_and_removed_and_nothing_else_does() {
    let gone = || Status::new(Code::NotFound, "gone");
    let router = Router::new()
        .unary(
            "/runtime.v1.RuntimeService/StopPodSandbox",
            move |_: messages::PodSandboxRequest| async move { Err::<messages::Nothing, _>(gone()) },
        )
        .unary(
            "/runtime.v1.RuntimeService/RemovePodSandbox",
            move |_: messages::PodSandboxRequest| async move { Err::<messages::Nothing, _>(gone()) },
        )
        .unary(
            "/runtime.v1.RuntimeService/StopContainer",
            move |request: messages::StopContainerRequest| async move {
                assert_eq!(request.timeout, 2, "1.5 s are two whole ones");
                Err::<messages::Nothing, _>(gone())
            },
        )
        .unary("/runtime.v1.RuntimeService/RemoveContainer", |_: messages::ContainerRequest| async {
            Err::<messages::Nothing, _>(Status::new(Code::Internal, "busy"))
        })
        .unary(
            "/runtime.v1.RuntimeService/StartContainer",
            move |_: messages::ContainerRequest| async move { Err::<messages::Nothing, _>(gone()) },
        );
    let world = World::serve(router);
    let runtime = world.connect().await;
    runtime.remove_sandbox("s").await.unwrap();
    runtime.stop_container("c", Duration::from_millis(1500)).await.unwrap();
    assert!(matches!(runtime.remove_container("c").await, Err(Error::Failed(_))));
    assert!(matches!(runtime.start_container("c").await, Err(Error::NotFound(_))));
}

#[tokio::test]
async fn events_are_passed_on_as_they_come() {
    let (sender, receiver) = tokio::sync::mpsc::channel::<messages::ContainerEventResponse>(4);
    let receiver = Arc::new(Mutex::new(Some(receiver)));
    let router = Router::new()
        .unary("/runtime.v1.RuntimeService/ListContainers", |_: messages::ListContainersRequest| async {
            Ok(messages::ListContainersResponse::default())
        })
        .server_streaming(
            "/runtime.v1.RuntimeService/GetContainerEvents",
            move |_: messages::GetEventsRequest| {
                let receiver = receiver.lock().take();
                async move {
                    let receiver = receiver.ok_or_else(|| Status::new(Code::Unavailable, "once only"))?;
                    Ok(futures::stream::unfold(receiver, |mut receiver| async move {
                        Some((Ok(receiver.recv().await?), receiver))
                    }))
                }
            },
        );
    let world = World::serve(router);
    let runtime = world.connect().await;
    let mut events = runtime.events();
    let event = |container: &str, kind, reason: &str| messages::ContainerEventResponse {
        container_id: container.to_owned(),
        container_event_type: kind,
        pod_sandbox_status: Some(messages::PodSandboxStatus { id: "s".to_owned(), ..Default::default() }),
        containers_statuses: vec![messages::ContainerStatus {
            id: container.to_owned(),
            state: container_state::EXITED,
            reason: reason.to_owned(),
            ..Default::default()
        }],
    };
    for message in [
        event("s", event_type::STARTED, ""),
        event("c", event_type::STARTED, ""),
        event("c", event_type::STOPPED, "OOMKilled"),
        event("c", event_type::DELETED, ""),
    ] {
        sender.send(message).await.unwrap();
    }
    for expected in [ContainerEventKind::Started, ContainerEventKind::OutOfMemory, ContainerEventKind::Exited]
    {
        let event = events.recv().await.unwrap();
        assert_eq!(
            (event.sandbox_id.as_str(), event.container_id.as_str(), event.kind),
            ("s", "c", expected)
        );
    }
}

#[tokio::test]
async fn a_socket_where_nobody_is_says_so() {
    let connect = |endpoint| CriRuntime::connect(endpoint, None, CgroupDriver::Cgroupfs, &SHUTDOWN);
    static SHUTDOWN: std::sync::LazyLock<rt::Shutdown> = std::sync::LazyLock::new(rt::Shutdown::new);
    let missing = connect("unix:///nowhere/cri.sock").await.unwrap_err().to_string();
    assert!(missing.starts_with("the container runtime at /nowhere/cri.sock does not answer: "), "{missing}");
    assert!(matches!(connect("tcp://127.0.0.1:1").await, Err(Error::Refused { .. })));
}

#[test]
fn a_runtime_complains_in_the_kubelets_words() {
    let condition = |kind: &str, status| Condition {
        kind: kind.to_owned(),
        status,
        reason: "Why".to_owned(),
        message: "what".to_owned(),
    };
    let complaint = |runtime, network| {
        let conditions = vec![condition("RuntimeReady", runtime), condition("NetworkReady", network)];
        Health { conditions, ..Health::default() }.complaint()
    };
    assert_eq!(complaint(true, true), None);
    let network = "container runtime network not ready: NetworkReady=false reason:Why message:what";
    assert_eq!(complaint(true, false).as_deref(), Some(network));
    assert!(complaint(false, false).is_some_and(|text| text.starts_with("container runtime not ready: ")));
    assert!(Health::default().complaint().is_some());
}
