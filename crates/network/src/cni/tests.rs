//! Calls, from a plugin's words to a pod network's and back; and over the socket.

use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use camino::{Utf8Path, Utf8PathBuf};
use parking_lot::Mutex;
use runtime::spec::Protocol;
use runtime::{PodNetwork, SandboxConfig};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::watch;

use super::server::Server;
use super::wire::{self, Answer, Call, Wish, code};

fn call(command: &str) -> Call {
    Call {
        command: command.to_owned(),
        container_id: "s1".to_owned(),
        netns: "/run/netns/x".to_owned(),
        interface: "eth0".to_owned(),
        arguments: "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web;K8S_POD_UID=u1".to_owned(),
        configuration: serde_json::from_value(json!({
            "cniVersion": "1.0.0", "name": "pintle", "type": "pintle-cni", "socket": "/x",
            "runtimeConfig": {"portMappings": [
                {"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": ""},
                {"HostPort": 53, "ContainerPort": 5353, "Protocol": "UDP", "HostIP": "127.0.0.1"},
                {"hostPort": 0, "containerPort": 9, "protocol": "tcp", "hostIP": ""},
            ]},
        }))
        .unwrap(),
    }
}

#[test]
fn a_pod_is_known_by_what_the_runtime_tells_of_it() {
    let Ok(Wish::Attach(config)) = wire::wish(&call("ADD")) else { panic!("an attach") };
    assert_eq!((&*config.namespace, &*config.name, &*config.uid), ("shop", "web", "u1"));
    let ports: Vec<_> = config
        .port_mappings
        .iter()
        .map(|port| (port.protocol, port.host_port, port.container_port, port.host_ip))
        .collect();
    assert_eq!(
        ports,
        [
            (Protocol::Tcp, 8080, 80, None),
            (Protocol::Udp, 53, 5353, Some("127.0.0.1".parse::<IpAddr>().unwrap())),
        ]
    );
}

#[test]
fn calls_that_cannot_be_fulfilled_say_why_in_cnis_codes() {
    let refused = |change: fn(&mut Call), command| {
        let mut call = call(command);
        change(&mut call);
        wire::wish(&call).expect_err("it is refused").code
    };
    let nothing: fn(&mut Call) = |_| {};
    for (change, command, expected) in [
        (nothing, "GUESS", code::INVALID_ENVIRONMENT),
        (|call| call.netns.clear(), "ADD", code::INVALID_ENVIRONMENT),
        (|call| call.container_id.clear(), "DEL", code::INVALID_ENVIRONMENT),
        (|call| call.interface = "net1".to_owned(), "ADD", code::INVALID_ENVIRONMENT),
        (|call| call.configuration.cni_version = "0.1.0".to_owned(), "ADD", code::INCOMPATIBLE_VERSION),
        (
            |call| call.configuration.runtime_config.port_mappings[0].protocol = "x".to_owned(),
            "ADD",
            code::INVALID_CONFIGURATION,
        ),
    ] {
        assert_eq!(refused(change, command), expected, "{command}");
    }
    // What is gone already has no namespace any more.
    let mut gone = call("DEL");
    gone.netns.clear();
    assert!(matches!(wire::wish(&gone), Ok(Wish::Detach(_))));
}

#[test]
fn an_answer_is_in_the_words_of_the_version_that_asked() {
    let addresses: Vec<IpAddr> =
        ["10.244.0.5", "fd00::5"].iter().map(|address| address.parse().unwrap()).collect();
    let mut call = call("ADD");
    let now = wire::attached(&call, &addresses);
    assert_eq!(now["ips"][0], json!({"address": "10.244.0.5/32", "interface": 0}));
    assert_eq!(now["ips"][1]["address"], "fd00::5/128");
    assert_eq!(now["interfaces"][0], json!({"name": "eth0", "sandbox": "/run/netns/x"}));
    call.configuration.cni_version = "0.4.0".to_owned();
    let before = wire::attached(&call, &addresses);
    assert_eq!((&before["ips"][1]["version"], &before["cniVersion"]), (&json!("6"), &json!("0.4.0")));
}

/// Gives everybody the same address, and remembers who was attached.
#[derive(Default)]
struct OneAddress {
    attached: Mutex<Vec<String>>,
}

#[async_trait]
impl PodNetwork for OneAddress {
    async fn attach(&self, _: &Utf8Path, config: &SandboxConfig, _: &str) -> runtime::Result<Vec<IpAddr>> {
        if config.name == "unlucky" {
            return Err(runtime::Error::Failed("no addresses left".to_owned()));
        }
        self.attached.lock().push(config.name.clone());
        Ok(vec!["10.244.0.5".parse().expect("an address")])
    }

    async fn detach(&self, _: &Utf8Path, config: &SandboxConfig, _: &str) -> runtime::Result<()> {
        self.attached.lock().retain(|name| *name != config.name);
        Ok(())
    }

    async fn retain(&self, _: &[String]) -> runtime::Result<()> {
        Ok(())
    }
}

async fn ask(socket: &Utf8Path, call: &Call) -> Answer {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    stream.write_all(&serde_json::to_vec(call).unwrap()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

#[tokio::test]
async fn a_plugin_is_answered_once_the_node_has_addresses() {
    let dir = tempfile::tempdir().unwrap();
    let socket = Utf8PathBuf::from_path_buf(dir.path().join("run/cni.sock")).unwrap();
    let network = Arc::new(OneAddress::default());
    let (ready, is_ready) = watch::channel(Err("nothing yet".to_owned()));
    let shutdown = rt::Shutdown::new();
    // A socket that a killed process left is no hindrance.
    drop(Server::bind(&socket, network.clone(), is_ready.clone()).unwrap());
    let server = Server::bind(&socket, network.clone(), is_ready).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&socket).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let running = rt::spawn("server", server.run(shutdown.clone()));

    let early = ask(&socket, &call("ADD")).await;
    assert!(early.is_error && early.document["code"] == code::TRY_AGAIN_LATER, "{early:?}");
    assert!(ask(&socket, &call("STATUS")).await.is_error);
    ready.send(Ok(())).unwrap();
    assert!(!ask(&socket, &call("STATUS")).await.is_error);
    let added = ask(&socket, &call("ADD")).await;
    assert_eq!(added.document["ips"][0]["address"], "10.244.0.5/32");
    assert_eq!(*network.attached.lock(), ["web"]);

    let mut check = call("CHECK");
    check.configuration.prev_result = Some(added.document);
    assert_eq!(ask(&socket, &check).await, Answer { is_error: false, document: Value::Null });
    check.configuration.prev_result = Some(json!({"ips": [{"address": "10.244.0.6/32"}]}));
    assert!(ask(&socket, &check).await.is_error);

    let mut unlucky = call("ADD");
    unlucky.arguments = "K8S_POD_NAME=unlucky".to_owned();
    let failed = ask(&socket, &unlucky).await;
    assert!(failed.is_error && failed.document["msg"] == "no addresses left", "{failed:?}");
    network.attached.lock().clear();
    ask(&socket, &call("ADD")).await;
    assert_eq!(ask(&socket, &call("DEL")).await, Answer { is_error: false, document: Value::Null });
    assert!(network.attached.lock().is_empty());

    shutdown.cancel();
    running.await.unwrap();
    assert!(!socket.exists());
}
