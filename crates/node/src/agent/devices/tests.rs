//! A plugin behind a real socket, from its registration to its end.

use futures::StreamExt;
use tokio::sync::mpsc;

use super::messages::{Allocated, DeviceSpec, PluginDevice};
use super::*;
use crate::agent::config::fixture;

/// A test that waits longer than this has failed.
const LONG: Duration = Duration::from_secs(20);

/// Lists that nobody read yet.
const LISTS_MAX: usize = 4;

async fn until(what: &str, holds: impl Fn() -> bool) {
    let wait = async {
        while !holds() {
            rt::sleep(Duration::from_millis(5)).await;
        }
    };
    rt::timeout(LONG, wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}

fn list(devices: &[(&str, &str)]) -> DeviceList {
    let device = |(id, health): &(&str, &str)| PluginDevice { id: (*id).into(), health: (*health).into() };
    DeviceList { devices: devices.iter().map(device).collect() }
}

/// Serves a plugin that likes device `c`; what is sent is its next list.
fn plugin(socket: &Utf8Path, shutdown: &Shutdown) -> mpsc::Sender<DeviceList> {
    let (lists, listed) = mpsc::channel(LISTS_MAX);
    let listed = Arc::new(Mutex::new(Some(listed)));
    let router = Router::new()
        .unary(messages::GET_OPTIONS, |_: Nothing| async {
            Ok(PluginOptions { pre_start_required: true, preferred_allocation_available: true })
        })
        .server_streaming(messages::LIST_AND_WATCH, move |_: Nothing| {
            let listed = listed.lock().take();
            async move {
                let listed: mpsc::Receiver<DeviceList> = listed.expect("it is asked once");
                Ok(futures::stream::unfold(listed, |mut listed| async {
                    let next = listed.recv().await?;
                    Some((Ok(next), listed))
                })
                .boxed())
            }
        })
        .unary(messages::GET_PREFERRED, |_: PreferredRequest| async {
            Ok(DevicesOfContainers { containers: vec![DeviceIds { ids: vec!["c".into()] }] })
        })
        .unary(messages::ALLOCATE, |request: DevicesOfContainers| async move {
            let ids = request.containers[0].ids.clone();
            let device = |id: &String| DeviceSpec {
                container_path: format!("/dev/x{id}"),
                host_path: "/dev/null".into(),
                permissions: "rw".into(),
            };
            let allocated = Allocated {
                envs: [("DEVICES".to_owned(), ids.join(","))].into(),
                devices: ids.iter().map(device).collect(),
                ..Allocated::default()
            };
            Ok(AllocateResponse { containers: vec![allocated] })
        })
        .unary(messages::PRE_START, |request: DeviceIds| async move {
            match request.ids.iter().any(|id| id == "a") {
                true => Err(Status::new(Code::Internal, "not this one")),
                false => Ok(Nothing {}),
            }
        });
    let server = Server::unix(socket).expect("a socket");
    rt::spawn("fake plugin", server.serve(router, shutdown.clone()));
    lists
}

fn pod(uid: &str, count: &str) -> (Pod, Container) {
    let mut pod = fixture::pod(serde_json::json!({"containers": [{"name": "c",
        "env": [], "resources": {"limits": {"example.com/x": count, "cpu": "1", "other.com/y": "1"}}}]}));
    pod.metadata.uid = Some(uid.to_owned());
    let container = pod.spec.as_ref().expect("it has one").containers[0].clone();
    (pod, container)
}

#[tokio::test]
async fn a_plugins_devices_are_counted_given_once_and_remembered() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = Utf8PathBuf::from_path_buf(folder.path().to_owned()).expect("it is text");
    let shutdown = Shutdown::new();
    let _end = shutdown.clone().drop_guard();
    let devices = Devices::open(&root);
    // Of a former run.
    std::fs::create_dir(root.join(FOLDER)).expect("made");
    drop(std::os::unix::net::UnixListener::bind(root.join(FOLDER).join("old.sock")).expect("a socket"));
    rt::spawn("devices", devices.clone().run(shutdown.clone()));
    let socket = root.join(FOLDER).join(SOCKET);
    until("plugins can register", || socket.exists()).await;
    assert!(!root.join(FOLDER).join("old.sock").exists());

    let own = Shutdown::new();
    let lists = plugin(&root.join(FOLDER).join("x.sock"), &own);
    let client = Client::unix(socket);
    let register = async |version: &str, endpoint: &str, resource: &str| {
        let [version, endpoint, resource_name] = [version, endpoint, resource].map(str::to_owned);
        let request = RegisterRequest { version, endpoint, resource_name };
        client.unary::<_, Nothing>(messages::REGISTER, &request, Options::timeout(LONG)).await
    };
    for (version, endpoint, resource) in [
        ("v1", "x.sock", "example.com/x"),
        ("v1beta1", "../x", "example.com/x"),
        ("v1beta1", "x.sock", "cpu"),
    ] {
        register(version, endpoint, resource).await.expect_err("refused");
    }
    register("v1beta1", "x.sock", "example.com/x").await.expect("registered");
    lists.send(list(&[("a", HEALTHY), ("b", "Unhealthy"), ("c", HEALTHY)])).await.expect("sent");
    until("they are counted", || devices.counts() == [("example.com/x".to_owned(), 3, 2)]).await;

    let (first, container) = pod("one", "1");
    let given = devices.allocate(&first, &container).await.expect("given");
    devices.pre_start(&given).await.expect("it may start");
    let mut config = ContainerConfig { env: vec![("OWN".into(), "1".into())], ..ContainerConfig::default() };
    given.apply(&mut config);
    assert_eq!(config.env, [("DEVICES".into(), "c".into()), ("OWN".into(), "1".into())]);
    assert_eq!(
        (config.devices[0].container.as_str(), config.devices[0].permissions.as_str()),
        ("/dev/xc", "rw")
    );
    assert_eq!(devices.allocate(&first, &container).await, Ok(given.clone()), "the same again");

    let (second, container) = pod("two", "2");
    let refused = devices.admit(&second).await.expect_err("one is left");
    assert_eq!(
        refused,
        "Allocate failed due to requested number of devices unavailable for example.com/x. Requested: 2, \
         Available: 1, which is unexpected"
    );
    devices.release("one");
    let both = devices.allocate(&second, &container).await.expect("both are free");
    let told = devices.pre_start(&both).await.expect_err("the plugin says no");
    assert!(told.ends_with("code = Internal desc = not this one"), "{told}");
    assert_eq!(Devices::open(&root).ledger.lock().of_container("two", "c"), both.0, "a restart remembers");

    own.cancel();
    drop(lists);
    until("none is healthy", || devices.counts() == [("example.com/x".to_owned(), 3, 0)]).await;
}
