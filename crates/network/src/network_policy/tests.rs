//! One table of who may talk to whom, asked of the plan and of the kernel.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use api::view::Pod;
use client::fake::FakeApi;
use client::{Discovered, Informers, ObjectKey};
use rt::Shutdown;
use serde_json::{Value, json};

use super::objects::NetworkPolicy;
use super::plan::{Namespaces, Plan, plan};
use super::{Enforcer, NETWORK_POLICIES, PolicyOptions, TABLE, run};
use crate::nftables::testing::{Namespace, World};
use crate::service_proxy::Protocol;

/// What the pods call `http`, and another port.
const HTTP: u16 = 8080;
const OTHER: u16 = 8090;
/// Long for a namespace on this machine, short for a test with dozens of refusals.
const REFUSED_AFTER: Duration = Duration::from_millis(400);

/// Somebody in the table: a pod by its number, the node, or who is outside.
const A: &str = "a";
const B: &str = "b";
const C: &str = "c";
const NODE: &str = "node";
const OUTSIDE: &str = "outside";

/// `a` and `b` in the namespace `x`, `c` in `y`.
fn pods() -> Vec<Arc<Pod>> {
    [(0, "x", A, "here"), (1, "x", B, "here"), (2, "y", C, "here")]
        .map(|(number, namespace, name, node)| pod(number, namespace, name, node))
        .into()
}

fn pod(number: u8, namespace: &str, name: &str, node: &str) -> Arc<Pod> {
    let pod = json!({
        "metadata": {"namespace": namespace, "name": name, "labels": {"app": name}},
        "spec": {"nodeName": node, "containers": [{"ports": [{"name": "http", "containerPort": HTTP}]}]},
        "status": {"phase": "Running",
                   "podIPs": [{"ip": World::pod_v4(number)}, {"ip": World::pod_v6(number)}]},
    });
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn namespaces() -> Namespaces {
    let labels = |name: &str| HashMap::from([("team".into(), name.into())]);
    HashMap::from([("x".into(), labels("x")), ("y".into(), labels("y"))])
}

/// A policy of the namespace `x` for the pod `a`.
fn policy(spec: Value) -> Arc<NetworkPolicy> {
    let mut policy = json!({
        "metadata": {"namespace": "x", "name": "policy"},
        "spec": {"podSelector": {"matchLabels": {"app": "a"}}},
    });
    for (field, value) in spec.as_object().unwrap() {
        match field.as_str() {
            "name" => policy["metadata"]["name"] = value.clone(),
            "namespace" => policy["metadata"]["namespace"] = value.clone(),
            _ => policy["spec"][field] = value.clone(),
        }
    }
    Arc::new(serde_json::from_value(policy).unwrap())
}

fn planned(policies: &[Arc<NetworkPolicy>]) -> Plan {
    plan(policies, &pods(), &namespaces(), "here")
}

struct Case {
    what: &'static str,
    policies: Vec<Value>,
    /// From, to, port.
    allowed: &'static [(&'static str, &'static str, u16)],
    refused: &'static [(&'static str, &'static str, u16)],
}

fn cases() -> Vec<Case> {
    vec![
        Case {
            what: "no policy",
            policies: vec![],
            allowed: &[(A, B, HTTP), (C, A, OTHER), (OUTSIDE, A, HTTP), (A, OUTSIDE, HTTP), (NODE, A, HTTP)],
            refused: &[],
        },
        Case {
            what: "isolated for ingress only",
            policies: vec![json!({})],
            allowed: &[(A, B, HTTP), (A, OUTSIDE, HTTP), (B, C, HTTP), (NODE, A, HTTP), (C, B, HTTP)],
            refused: &[(B, A, HTTP), (C, A, HTTP), (OUTSIDE, A, HTTP)],
        },
        Case {
            what: "isolated for egress only",
            policies: vec![json!({"policyTypes": ["Egress"]})],
            allowed: &[(B, A, HTTP), (OUTSIDE, A, HTTP), (B, NODE, HTTP)],
            refused: &[(A, B, HTTP), (A, C, HTTP), (A, OUTSIDE, HTTP), (A, NODE, HTTP)],
        },
        Case {
            what: "an empty rule allows everybody",
            policies: vec![json!({"ingress": [{}]})],
            allowed: &[(B, A, HTTP), (C, A, OTHER), (OUTSIDE, A, HTTP)],
            refused: &[],
        },
        Case {
            what: "pods of the own namespace, by name of the port",
            policies: vec![
                json!({"ingress": [{"from": [{"podSelector": {}}], "ports": [{"port": "http"}]}]}),
            ],
            allowed: &[(B, A, HTTP)],
            refused: &[(B, A, OTHER), (C, A, HTTP), (OUTSIDE, A, HTTP)],
        },
        Case {
            what: "every pod of some namespaces",
            policies: vec![json!({"ingress": [{"from": [
                {"namespaceSelector": {"matchExpressions": [{"key": "team", "operator": "In", "values": ["y"]}]}}]}]})],
            allowed: &[(C, A, HTTP), (C, A, OTHER)],
            refused: &[(B, A, HTTP), (OUTSIDE, A, HTTP)],
        },
        Case {
            what: "some pods of some namespaces, and of those only",
            policies: vec![json!({"ingress": [{"from": [
                {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "c"}}}]}]})],
            allowed: &[(C, A, HTTP)],
            refused: &[(B, A, HTTP)],
        },
        Case {
            what: "blocks with exceptions",
            policies: vec![json!({"ingress": [{"from": [
                {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.244.0.2/32"]}},
                {"ipBlock": {"cidr": "::/0", "except": ["fd00:244::2/128"]}}]}]})],
            allowed: &[(C, A, HTTP), (OUTSIDE, A, HTTP)],
            refused: &[(B, A, HTTP)],
        },
        Case {
            what: "a range of ports",
            policies: vec![json!({"ingress": [{"ports": [{"port": 8081, "endPort": 8090}]}]})],
            allowed: &[(B, A, OTHER), (OUTSIDE, A, OTHER)],
            refused: &[(B, A, HTTP)],
        },
        Case {
            what: "another protocol's port",
            policies: vec![
                json!({"ingress": [{"ports": [{"port": 8080, "protocol": "UDP"}, {"protocol": "SCTP"}]}]}),
            ],
            allowed: &[],
            refused: &[(B, A, HTTP), (B, A, OTHER)],
        },
        Case {
            what: "every port of a protocol",
            policies: vec![json!({"ingress": [{"ports": [{"protocol": "TCP"}]}]})],
            allowed: &[(B, A, HTTP), (B, A, OTHER)],
            refused: &[],
        },
        Case {
            what: "policies add up",
            policies: vec![
                json!({"name": "1", "ingress": [{"ports": [{"port": 8080}]}]}),
                json!({"name": "2", "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "b"}}}]}]}),
            ],
            allowed: &[(B, A, OTHER), (C, A, HTTP)],
            refused: &[(C, A, OTHER)],
        },
        Case {
            what: "egress to a named port of some pods",
            policies: vec![json!({"egress": [{"to": [{"podSelector": {"matchLabels": {"app": "b"}}}],
                                              "ports": [{"port": "http"}]}], "policyTypes": ["Egress"]})],
            allowed: &[(A, B, HTTP), (B, A, HTTP)],
            refused: &[(A, B, OTHER), (A, C, HTTP), (A, OUTSIDE, HTTP)],
        },
        Case {
            what: "egress to a block, and to the node in it",
            policies: vec![json!({"egress": [{"to": [{"ipBlock": {"cidr": "192.168.50.0/24"}},
                                                     {"ipBlock": {"cidr": "fd00:50::/64"}}]}],
                                  "policyTypes": ["Egress"]})],
            allowed: &[(A, OUTSIDE, HTTP), (A, NODE, HTTP)],
            refused: &[(A, B, HTTP)],
        },
        Case {
            what: "both ends must allow it",
            policies: vec![
                json!({"egress": [{}], "policyTypes": ["Egress"]}),
                json!({"name": "b", "podSelector": {"matchLabels": {"app": "b"}},
                       "ingress": [{"from": [{"namespaceSelector": {"matchLabels": {"team": "y"}}}]}]}),
            ],
            allowed: &[(A, C, HTTP), (C, B, HTTP)],
            refused: &[(A, B, HTTP)],
        },
        Case {
            what: "a policy of another namespace",
            policies: vec![json!({"namespace": "y", "podSelector": {}, "ingress": []})],
            allowed: &[(B, A, HTTP), (C, A, HTTP)],
            refused: &[(A, C, HTTP), (OUTSIDE, C, HTTP)],
        },
    ]
}

fn addresses(who: &str) -> [IpAddr; 2] {
    let parsed = |v4: &str, v6: &str| [v4.parse().unwrap(), v6.parse().unwrap()];
    match who {
        NODE => parsed(World::NODE_V4, World::NODE_V6),
        OUTSIDE => parsed(World::OUTSIDE_V4, World::OUTSIDE_V6),
        pod => {
            let number = pod.bytes().next().unwrap() - b'a';
            [World::pod_v4(number), World::pod_v6(number)]
        }
    }
}

fn namespace_of<'a>(world: &'a World, who: &str) -> &'a Namespace {
    match who {
        NODE => &world.host,
        OUTSIDE => &world.outside,
        pod => &world.pods[usize::from(pod.bytes().next().unwrap() - b'a')],
    }
}

#[test]
fn the_plan_allows_what_policies_allow_and_refuses_the_rest() {
    for case in cases() {
        let policies: Vec<_> = case.policies.iter().cloned().map(policy).collect();
        let plan = planned(&policies);
        for (wanted, pairs) in [(true, case.allowed), (false, case.refused)] {
            // What the node sends to its pods never comes to these rules.
            for &(from, to, port) in pairs.iter().filter(|(from, ..)| *from != NODE) {
                for (source, destination) in addresses(from).into_iter().zip(addresses(to)) {
                    let allowed = plan.allows(source, destination, Some((Protocol::Tcp, port)));
                    assert_eq!(allowed, wanted, "{}: {from} to {to}:{port} ({destination})", case.what);
                }
            }
        }
    }
}

/// Takes connections and closes them.
fn serve(namespace: &Namespace) {
    for port in [HTTP, OTHER] {
        // One socket for both families: an IPv6 one takes IPv4 too.
        let listener = namespace.run(|| TcpListener::bind(("::", port)).unwrap());
        std::thread::spawn(move || for _ in listener.incoming() {});
    }
}

fn connects(from: &Namespace, to: SocketAddr) -> bool {
    from.run(|| TcpStream::connect_timeout(&to, REFUSED_AFTER).is_ok())
}

#[test]
fn the_kernel_allows_what_the_plan_allows() {
    let Some(world) = World::new(3) else { return };
    for who in [A, B, C, NODE, OUTSIDE] {
        serve(namespace_of(&world, who));
    }
    let mut enforcer = world.host.run(|| Enforcer::open(Vec::new())).unwrap();
    // Each case also exercises the way from the one before to it.
    for case in cases() {
        let policies: Vec<_> = case.policies.iter().cloned().map(policy).collect();
        enforcer.enforce(&planned(&policies)).unwrap();
        std::thread::scope(|scope| {
            for (wanted, pairs) in [(true, case.allowed), (false, case.refused)] {
                for &(from, to, port) in pairs {
                    for address in addresses(to) {
                        let (world, what) = (&world, case.what);
                        scope.spawn(move || {
                            let connects =
                                connects(namespace_of(world, from), SocketAddr::new(address, port));
                            assert_eq!(connects, wanted, "{what}: {from} to {to}:{port} ({address})");
                        });
                    }
                }
            }
        });
    }
    if let Some(ruleset) = world.host.ruleset() {
        assert!(ruleset.contains("comment \"y/policy\"") || ruleset.contains("in-10.244.0.3"), "{ruleset}");
    }
}

#[test]
fn a_connection_that_exists_goes_on_and_some_places_are_always_reached() {
    let Some(world) = World::new(2) else { return };
    for who in [A, B, OUTSIDE] {
        serve(namespace_of(&world, who));
    }
    let always = addresses(OUTSIDE).map(|address| SocketAddr::new(address, HTTP));
    let mut enforcer = world.host.run(|| Enforcer::open(always.into())).unwrap();
    enforcer.enforce(&Plan::default()).unwrap();
    let echo = world.pods[0].run(|| TcpListener::bind(("0.0.0.0", 9000)).unwrap());
    let mut client = world.pods[1].run(|| TcpStream::connect((World::pod_v4(0), 9000)).unwrap());
    let (mut server, _) = echo.accept().unwrap();
    server.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    enforcer.enforce(&planned(&[policy(json!({"policyTypes": ["Ingress", "Egress"]}))])).unwrap();
    use std::io::{Read, Write};
    client.write_all(b"still").unwrap();
    let mut buffer = [0; 5];
    server.read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"still");
    for (address, always) in addresses(OUTSIDE).into_iter().zip(always) {
        assert!(connects(&world.pods[0], always), "{always}");
        assert!(!connects(&world.pods[0], SocketAddr::new(address, OTHER)));
    }
    assert!(!connects(&world.pods[1], SocketAddr::new(World::pod_v4(0), HTTP)));
}

#[test]
fn the_tables_come_back_after_somebody_removed_them() {
    let Some(host) = Namespace::new() else { return };
    host.run(|| {
        use crate::nftables::{Batch, Connection, Family};
        let mut enforcer = Enforcer::open(Vec::new()).unwrap();
        let isolated = planned(&[policy(json!({}))]);
        enforcer.enforce(&isolated).unwrap();
        let mut connection = Connection::open().unwrap();
        let mut batch = Batch::default();
        batch.delete_table(Family::Ipv4, TABLE);
        connection.commit(&batch).unwrap();
        let open = planned(&[policy(json!({"ingress": [{}]}))]);
        assert!(enforcer.enforce(&open).unwrap_err().is_absent());
        enforcer.enforce(&isolated).unwrap();
        assert_eq!(connection.elements(Family::Ipv4, TABLE, "pods-ingress").unwrap().len(), 1);
        enforcer.enforce(&Plan::default()).unwrap();
        assert_eq!(connection.elements(Family::Ipv4, TABLE, "pods-ingress").unwrap(), []);
    });
}

#[test]
fn pods_without_a_network_of_their_own_and_of_other_nodes_are_left_alone() {
    let mut all = pods();
    let changed = |change: fn(&mut Pod)| {
        let mut pod = Pod::clone(&all[0]);
        change(&mut pod);
        Arc::new(pod)
    };
    for pod in [
        changed(|pod| pod.spec.host_network = true),
        changed(|pod| pod.status.phase = "Succeeded".into()),
        changed(|pod| pod.status.phase = "Failed".into()),
        changed(|pod| pod.spec.node_name = "elsewhere".into()),
    ] {
        all[0] = pod;
        let plan = plan(&[policy(json!({}))], &all, &namespaces(), "here");
        assert_eq!(plan, Plan::default(), "{:?}", all[0]);
    }
}

#[test]
fn events_of_the_api_become_rules_and_a_pod_waits_for_its_own() {
    let Some(world) = World::new(2) else { return };
    serve(namespace_of(&world, A));
    let (fake, shutdown) = (FakeApi::new(), Shutdown::new());
    fake.register(Discovered {
        gvr: NETWORK_POLICIES,
        kind: "NetworkPolicy".into(),
        namespaced: true,
        verbs: vec!["list".into(), "watch".into()],
    });
    let mut waiting = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": "x", "name": "a", "labels": {"app": "a"}}, "spec": {"nodeName": "here"},
    });
    fake.seed(waiting.clone().into());
    fake.seed(
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x", "labels": {"team": "x"}}})
            .into(),
    );
    fake.seed(
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"namespace": "x", "name": "policy"}, "spec": {"podSelector": {}},
        })
        .into(),
    );
    let options = PolicyOptions { node_name: "here".into(), ..PolicyOptions::default() };
    let attached = options.attached.clone();
    let target = SocketAddr::new(World::pod_v4(0), HTTP);
    std::thread::scope(|scope| {
        let running = scope.spawn(|| {
            world.host.enter();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let informers = Informers::new(fake.clone(), shutdown.clone());
                run(&informers, options, shutdown.clone()).await
            })
        });
        // Whatever fails here, the other thread ends.
        let _ends = shutdown.clone().drop_guard();
        assert!(connects(&world.pods[1], target), "nobody knows that this address is that pod's");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let key = ObjectKey::new("x", "a");
        runtime.block_on(async {
            let attach = attached.attach(key.clone(), vec![World::pod_v4(0)]);
            rt::timeout(Duration::from_secs(10), attach).await.expect("policies hold in time");
        });
        assert!(!connects(&world.pods[1], target), "isolated before its status says anything");
        waiting["status"] = json!({"phase": "Running", "podIPs": [{"ip": World::pod_v4(0)}]});
        fake.seed(waiting.into());
        attached.detach(&key);
        let open = json!([{}]);
        fake.edit(&NETWORK_POLICIES, "x", "policy", |policy| policy.set_at(&["spec", "ingress"], open));
        let started = rt::instant();
        while !connects(&world.pods[1], target) {
            assert!(started.elapsed() < Duration::from_secs(30), "the rule never came");
        }
        shutdown.cancel();
        running.join().unwrap().unwrap();
    });
}
