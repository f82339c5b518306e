use std::collections::HashMap;

use apimachinery::{Value, json};

use super::*;
use auth::UserInfo;

/// Objects by plural, namespace and name.
#[derive(Default)]
struct Fixture(HashMap<(String, String, String), Arc<Object>>);

impl Fixture {
    fn with(mut self, plural: &str, object: Value) -> Self {
        let text = |key: &str| object.str_at(&["metadata", key]).to_owned();
        let key = (plural.to_owned(), text("namespace"), text("name"));
        self.0.insert(key, Arc::new(Object::from_value(&object, 1, &[]).expect("an object")));
        self
    }
}

impl Objects for Fixture {
    fn get(&self, gvr: &GroupVersionResource, namespace: &str, name: &str) -> Option<Arc<Object>> {
        self.0.get(&(gvr.resource.to_string(), namespace.to_owned(), name.to_owned())).cloned()
    }
}

fn cluster() -> Fixture {
    let pod = |name: &str, node: &str, ip: &str, containers: Value| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "ns"},
            "spec": {"nodeName": node, "containers": containers, "ephemeralContainers": [{"name": "debug"}]},
            "status": {"podIP": ip, "podIPs": [{"ip": ip}]}})
    };
    let one = || json!([{"name": "main", "ports": [{"containerPort": 8080}]}]);
    let node = |name: &str, annotations: Value, port: i64, addresses: Value| {
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "annotations": annotations},
            "status": {"addresses": addresses, "daemonEndpoints": {"kubeletEndpoint": {"Port": port}}}})
    };
    let address =
        |ip: &str, pod: &str| json!({"ip": ip, "targetRef": {"kind": "Pod", "namespace": "ns", "name": pod}});
    Fixture::default()
        .with("pods", pod("web", "real", "10.0.0.5", one()))
        .with("pods", pod("six", "real", "fd00::5", one()))
        .with("pods", pod("pair", "real", "10.0.0.6", json!([{"name": "a"}, {"name": "b"}])))
        .with("pods", pod("waits", "", "", one()))
        .with("pods", pod("host", "real", "127.0.0.1", one()))
        .with("pods", pod("ghost", "sim", "10.0.0.9", one()))
        .with(
            "nodes",
            node("real", json!({}), 10_255, json!([{"type": "InternalIP", "address": "10.1.0.1"}])),
        )
        .with(
            "nodes",
            node(
                "old",
                json!({}),
                0,
                json!([
            {"type": "ExternalIP", "address": "10.1.0.3"}, {"type": "Hostname", "address": "old.example"}]),
            ),
        )
        .with("nodes", node("lost", json!({}), 0, json!([])))
        .with("nodes", node("loop", json!({}), 0, json!([{"type": "InternalIP", "address": "127.0.0.1"}])))
        .with("nodes", node("sim", json!({"kwok.x-k8s.io/node": "fake"}), 0, json!([])))
        .with(
            "services",
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "ns"},
            "spec": {"ports": [{"name": "http", "port": 80}, {"name": "none", "port": 81}]}}),
        )
        .with(
            "endpoints",
            json!({"apiVersion": "v1", "kind": "Endpoints",
            "metadata": {"name": "web", "namespace": "ns"}, "subsets": [
                {"addresses": [address("10.0.0.77", "web"), address("10.0.0.5", "web")],
                 "ports": [{"name": "http", "port": 8080}]}]}),
        )
        .with(
            "endpoints",
            json!({"apiVersion": "v1", "kind": "Endpoints",
            "metadata": {"name": "planted", "namespace": "ns"}, "subsets": [
                {"addresses": [{"ip": "169.254.169.254"}, {"ip": "127.0.0.1", "targetRef":
                    {"kind": "Pod", "namespace": "ns", "name": "host"}}], "ports": [{"port": 80}]}]}),
        )
        .with(
            "endpoints",
            json!({"apiVersion": "v1", "kind": "Endpoints",
            "metadata": {"name": "empty", "namespace": "ns"}}),
        )
        .with(
            "endpoints",
            json!({"apiVersion": "v1", "kind": "Endpoints",
            "metadata": {"name": "ghost", "namespace": "ns"}, "subsets": [
                {"addresses": [address("10.0.0.9", "ghost")], "ports": [{"port": 8080}]}]}),
        )
}

/// The location as one line, or the refusal.
fn shown(plural: &str, name: &str, subresource: &str, query: &str, rest: &str) -> String {
    let user = UserInfo::new("jane");
    let cache = watch_cache::WatchCache::new();
    let resource = api::builtin::resources()
        .into_iter()
        .find(|resource| resource.group.is_empty() && resource.plural == plural)
        .expect("a built-in resource");
    let cache = cache.add_resource("/x/", resource.selectable_fields.clone());
    let endpoint = registry::Endpoint::new(resource, cache);
    let namespace = if plural == "nodes" { "" } else { "ns" };
    let call = Call { user: &user, endpoint: &endpoint, namespace, name, subresource };
    match locate(&cluster(), &KubeletOptions::default(), &call, &Query::parse(query), rest) {
        Ok(None) => "nothing".to_owned(),
        Ok(Some(found)) => {
            let authority = found.authority();
            let query = found.query.map(|query| format!("?{query}")).unwrap_or_default();
            let (scheme, backend) = (found.scheme.as_str(), found.backend);
            format!("{backend:?} {scheme}://{authority}{}{query}", found.path)
        }
        Err(status) => format!("{} {status}", status.code),
    }
}

#[test]
fn pods_are_reached_through_their_kubelet() {
    let cases = [
        ("web", "log", "", "Kubelet https://10.1.0.1:10255/containerLogs/ns/web/main?"),
        (
            "web",
            "log",
            "follow=true&tailLines=5&timestamps=false&sinceTime=2026-01-02T03:04:05Z",
            "Kubelet https://10.1.0.1:10255/containerLogs/ns/web/main?follow=true&\
             sinceTime=2026-01-02T03%3A04%3A05Z&tailLines=5",
        ),
        (
            "web",
            "log",
            "insecureSkipTLSVerifyBackend=true&container=debug",
            "UncheckedKubelet https://10.1.0.1:10255/containerLogs/ns/web/debug?",
        ),
        ("waits", "log", "", "nothing"),
        ("waits", "exec", "command=ls", "400 pod waits does not have a host assigned"),
        (
            "pair",
            "log",
            "",
            "400 a container name must be specified for pod pair, choose one of: [a b debug]",
        ),
        ("pair", "exec", "container=c", "400 container c is not valid for pod pair"),
        ("absent", "log", "", "404 pods \"absent\" not found"),
        (
            "web",
            "log",
            "tailLines=-1&limitBytes=0&sinceSeconds=1",
            "422 PodLogOptions \"web\" is invalid: [tailLines: Invalid value: -1: must be greater than or equal to 0, \
             limitBytes: Invalid value: 0: must be greater than 0]",
        ),
        (
            "web",
            "exec",
            "command=sh&command=-c&command=echo+a%26b&stdin=true&stdout=1&tty=false",
            "Kubelet https://10.1.0.1:10255/exec/ns/web/main?command=sh&command=-c&command=echo%20a%26b&input=1&output=1",
        ),
        ("web", "attach", "stderr=true", "Kubelet https://10.1.0.1:10255/attach/ns/web/main?error=1"),
        (
            "web",
            "portforward",
            "ports=80&ports=81",
            "Kubelet https://10.1.0.1:10255/portForward/ns/web?port=80%2C81",
        ),
        (
            "ghost",
            "exec",
            "command=ls",
            "400 node \"sim\" is simulated: no container runs on it, so there is nothing to connect to",
        ),
    ];
    for (name, subresource, query, expected) in cases {
        assert_eq!(shown("pods", name, subresource, query, ""), expected, "{name} {subresource} {query}");
    }
}

#[test]
fn proxies_reach_what_they_name_and_nothing_local() {
    let cases = [
        ("pods", "web", "a/b c", "Cluster http://10.0.0.5:8080/a/b%20c"),
        ("pods", "https:web:8443", "", "Cluster https://10.0.0.5:8443"),
        ("pods", "six", "", "Cluster http://[fd00::5]:8080"),
        ("pods", "ftp:web:1", "", "400 invalid pod request \"ftp:web:1\""),
        ("pods", "a:b:c:d", "", "400 invalid pod request \"a:b:c:d\""),
        ("pods", "web:80@169.254.169.254", "", "400 invalid pod request \"web:80@169.254.169.254\""),
        ("pods", "web:80/x", "", "400 invalid pod request \"web:80/x\""),
        ("pods", "web:http", "", "400 invalid pod request \"web:http\""),
        ("pods", "web:0", "", "400 invalid pod request \"web:0\""),
        ("pods", "web:65536", "", "400 invalid pod request \"web:65536\""),
        ("pods", "host", "", "400 address not allowed"),
        ("pods", "waits", "", "400 address not allowed"),
        (
            "pods",
            "ghost",
            "",
            "503 error trying to reach service: pod \"ghost\" is on the simulated node \"sim\", where no container runs",
        ),
        ("services", "web:80", "x", "Cluster http://10.0.0.5:8080/x"),
        ("services", "https:web:http", "x", "Cluster https://10.0.0.5:8080/x"),
        ("services", "web:82", "", "503 no service port 82 found for service \"web\""),
        ("services", "web", "", "503 no endpoints available for service \"web\""),
        ("services", "empty", "", "503 no endpoints available for service \"empty\""),
        ("services", "planted", "", "503 no endpoints available for service \"planted\""),
        ("services", "web:a@b", "", "400 invalid service request \"web:a@b\""),
        ("services", "absent", "", "404 endpoints \"absent\" not found"),
        ("nodes", "real", "metrics", "Kubelet https://10.1.0.1:10255/metrics"),
        ("nodes", "real:10255", "metrics", "Kubelet https://10.1.0.1:10255/metrics"),
        ("nodes", "http:real:9100", "", "Cluster http://10.1.0.1:9100"),
        ("nodes", "real:80@169.254.169.254", "", "400 invalid node request \"real:80@169.254.169.254\""),
        ("nodes", "real:https", "", "400 invalid node request \"real:https\""),
        ("nodes", "old", "pods/", "Kubelet https://old.example:10250/pods/"),
        ("nodes", "loop", "", "400 address not allowed"),
        (
            "nodes",
            "lost",
            "",
            "500 no preferred addresses found; known addresses: [], wanted: [Hostname InternalDNS InternalIP \
             ExternalDNS ExternalIP]",
        ),
        ("nodes", "absent", "", "404 nodes \"absent\" not found"),
    ];
    for (plural, name, rest, expected) in cases {
        assert_eq!(shown(plural, name, "proxy", "", rest), expected, "{plural} {name} {rest}");
    }
    let ghost = shown("services", "ghost", "proxy", "", "");
    assert!(ghost.starts_with("503 error trying to reach service: pod \"ghost\""), "{ghost}");
}

#[test]
fn what_is_global_is_decided_as_go_does() {
    let global = ["10.0.0.1", "192.168.1.1", "8.8.8.8", "fd00::1", "2001:db8::1"];
    let not = [
        "127.0.0.1",
        "0.0.0.0",
        "169.254.1.1",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
    ];
    assert!(global.iter().all(|ip| is_global_unicast(ip.parse().expect("an address"))));
    for ip in not {
        assert!(!is_global_unicast(ip.parse().expect("an address")), "{ip}");
    }
}
