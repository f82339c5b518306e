//! The proxy against the kernel: a host, pods and the outside are network namespaces of the test's own.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use api::gvr::ENDPOINT_SLICES;
use client::fake::FakeApi;
use client::{Informers, ObjectKey};
use rt::Shutdown;
use serde_json::{Value, json};

use super::objects::{EndpointSlice, Service};
use super::plan::{Facts, HostPort, ServicePlan, plan};
use super::{Cidr, Policy, Protocol, Proxy, ProxyOptions, run};
use crate::nftables::testing::{Namespace, World};

const PORT: u16 = 8080;
const TIMEOUT: Duration = Duration::from_secs(2);

fn facts() -> Facts {
    Facts {
        node_name: "here".into(),
        zone: "zone-a".into(),
        node_addresses: vec![World::NODE_V4.parse().unwrap(), World::NODE_V6.parse().unwrap()],
    }
}

fn policy() -> Policy {
    let cluster_cidrs = [World::PODS_V4, World::PODS_V6].map(|text| Cidr::parse(text).unwrap());
    Policy { cluster_cidrs: cluster_cidrs.into(), ..Policy::default() }
}

fn service(spec: Value) -> Service {
    let mut service = json!({
        "metadata": {"namespace": "ns", "name": "web"},
        "spec": {"type": "ClusterIP", "clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1", "fd00:96::1"],
                 "ports": [{"name": "http", "port": 80, "nodePort": 30080}]},
    });
    for (field, value) in spec.as_object().unwrap() {
        service["spec"][field] = value.clone();
    }
    if let Some(ingress) = spec.get("ingress") {
        service["status"]["loadBalancer"]["ingress"] = ingress.clone();
    }
    serde_json::from_value(service).unwrap()
}

/// Slices of both families; `(number of the pod, node)`.
fn slices(pods: &[(u8, &str)]) -> Vec<EndpointSlice> {
    let slice = |family: &str, address: fn(u8) -> IpAddr| {
        let endpoint = |(pod, node): &(u8, &str)| json!({"addresses": [address(*pod)], "nodeName": node});
        serde_json::from_value(json!({
            "metadata": {"namespace": "ns", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": family,
            "endpoints": pods.iter().map(endpoint).collect::<Vec<_>>(),
            "ports": [{"name": "http", "port": PORT}, {"name": "dns", "protocol": "UDP", "port": PORT}],
        }))
        .unwrap()
    };
    vec![slice("IPv4", World::pod_v4), slice("IPv6", World::pod_v6)]
}

fn planned(service: &Service, slices: &[EndpointSlice]) -> ServicePlan {
    plan(service, &slices.iter().collect::<Vec<_>>(), &facts())
}

fn key() -> ObjectKey {
    ObjectKey::new("ns", "web")
}

/// Answers every connection with the name of the pod and the client's address.
fn serve(pod: &Namespace, name: &'static str) {
    let listeners = pod.run(|| {
        ["0.0.0.0", "::"]
            .map(|any| if any == "::" { listen_v6() } else { TcpListener::bind((any, PORT)).unwrap() })
    });
    for listener in listeners {
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let from = stream.peer_addr().map(|peer| peer.ip().to_string()).unwrap_or_default();
                let _ = stream.write_all(format!("{name} {from}").as_bytes());
            }
        });
    }
}

/// A listener for IPv6 only, beside the one for IPv4.
fn listen_v6() -> TcpListener {
    use rustix::net::{AddressFamily, SocketType, bind, listen, socket, sockopt};
    let socket = socket(AddressFamily::INET6, SocketType::STREAM, None).unwrap();
    sockopt::set_ipv6_v6only(&socket, true).unwrap();
    bind(&socket, &SocketAddr::new("::".parse().unwrap(), PORT)).unwrap();
    listen(&socket, 64).unwrap();
    socket.into()
}

/// Who answers at an address, and whom it takes us for.
fn ask(from: &Namespace, to: &str) -> Result<(String, String), std::io::ErrorKind> {
    let to: SocketAddr = to.parse().unwrap();
    from.run(|| {
        let mut stream = TcpStream::connect_timeout(&to, TIMEOUT).map_err(|error| error.kind())?;
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map_err(|error| error.kind())?;
        let (name, seen) = answer.split_once(' ').unwrap();
        Ok((name.to_owned(), seen.to_owned()))
    })
}

/// Who answers, over many connections.
fn answerers(from: &Namespace, to: &str) -> BTreeMap<String, usize> {
    let mut times = BTreeMap::new();
    for _ in 0..60 {
        *times.entry(ask(from, to).unwrap().0).or_default() += 1;
    }
    times
}

fn names(times: &BTreeMap<String, usize>) -> Vec<&str> {
    times.keys().map(String::as_str).collect()
}

/// A world with the pods `a` and `b`, which serve, and `c`, which does not.
fn world() -> Option<(World, Proxy)> {
    let world = World::new(3)?;
    serve(&world.pods[0], "a");
    serve(&world.pods[1], "b");
    let proxy = world.host.run(|| Proxy::open(policy())).unwrap();
    Some((world, proxy))
}

#[test]
fn a_cluster_ip_spreads_over_its_endpoints_and_follows_them() {
    let Some((world, mut proxy)) = world() else { return };
    let web = service(json!({}));
    proxy.set_service(key(), planned(&web, &slices(&[(0, "here"), (1, "here")])));
    proxy.commit().unwrap();
    for address in ["10.96.0.1:80", "[fd00:96::1]:80"] {
        assert_eq!(names(&answerers(&world.pods[2], address)), ["a", "b"], "from a pod");
        assert_eq!(names(&answerers(&world.host, address)), ["a", "b"], "from the node itself");
    }
    let (_, seen) = ask(&world.pods[2], "10.96.0.1:80").unwrap();
    assert_eq!(seen, World::pod_v4(2).to_string(), "a pod is seen as itself");
    let (_, seen) = ask(&world.outside, "10.96.0.1:80").unwrap();
    assert_ne!(seen, World::OUTSIDE_V4, "who comes from outside is masqueraded");
    assert_eq!(
        ask(&world.pods[2], "10.96.0.1:81"),
        Err(std::io::ErrorKind::ConnectionRefused),
        "no such port"
    );

    proxy.set_service(key(), planned(&web, &slices(&[(1, "here")])));
    proxy.commit().unwrap();
    assert_eq!(names(&answerers(&world.pods[2], "10.96.0.1:80")), ["b"]);
    proxy.set_service(key(), planned(&web, &slices(&[])));
    proxy.commit().unwrap();
    for from in [&world.pods[2], &world.host] {
        for address in ["10.96.0.1:80", "[fd00:96::1]:80"] {
            assert_eq!(ask(from, address), Err(std::io::ErrorKind::ConnectionRefused), "{address}");
        }
    }
    proxy.set_service(key(), planned(&web, &slices(&[(0, "here")])));
    proxy.commit().unwrap();
    assert_eq!(names(&answerers(&world.pods[2], "[fd00:96::1]:80")), ["a"]);
}

#[test]
fn a_pod_reaches_itself_through_its_service() {
    let Some((world, mut proxy)) = world() else { return };
    proxy.set_service(key(), planned(&service(json!({})), &slices(&[(0, "here")])));
    proxy.commit().unwrap();
    for address in ["10.96.0.1:80", "[fd00:96::1]:80"] {
        let (name, seen) = ask(&world.pods[0], address).unwrap();
        assert_eq!(name, "a");
        assert_ne!(seen.parse::<IpAddr>().unwrap(), World::pod_v4(0), "it must not see itself as the client");
    }
}

#[test]
fn node_ports_and_external_addresses_hide_the_client_unless_the_policy_is_local() {
    let Some((world, mut proxy)) = world() else { return };
    let spec = json!({"type": "LoadBalancer", "externalIPs": ["203.0.113.1"],
                      "ingress": [{"ip": "203.0.113.2"}, {"ip": "203.0.113.3", "ipMode": "Proxy"}]});
    let node_port = format!("{}:30080", World::NODE_V4);
    let node_port_v6 = format!("[{}]:30080", World::NODE_V6);
    let addresses = [node_port.as_str(), node_port_v6.as_str(), "203.0.113.1:80", "203.0.113.2:80"];
    proxy.set_service(key(), planned(&service(spec.clone()), &slices(&[(0, "elsewhere"), (1, "here")])));
    proxy.commit().unwrap();
    for address in addresses {
        assert_eq!(names(&answerers(&world.outside, address)), ["a", "b"], "{address}");
        let (_, seen) = ask(&world.outside, address).unwrap();
        assert!(![World::OUTSIDE_V4, World::OUTSIDE_V6].contains(&seen.as_str()), "{address}: {seen}");
    }
    assert!(ask(&world.outside, "203.0.113.3:80").is_err(), "its load balancer delivers to the node port");
    assert_eq!(names(&answerers(&world.host, &node_port)), ["a", "b"], "from the node itself");

    let mut local = spec;
    local["externalTrafficPolicy"] = json!("Local");
    proxy.set_service(key(), planned(&service(local.clone()), &slices(&[(0, "elsewhere"), (1, "here")])));
    proxy.commit().unwrap();
    for address in addresses {
        assert_eq!(names(&answerers(&world.outside, address)), ["b"], "{address}");
        let (_, seen) = ask(&world.outside, address).unwrap();
        assert!([World::OUTSIDE_V4, World::OUTSIDE_V6].contains(&seen.as_str()), "{address}: {seen}");
    }
    assert_eq!(names(&answerers(&world.pods[2], &node_port)), ["a", "b"], "pods are as good as inside");
    assert_eq!(names(&answerers(&world.host, &node_port)), ["a", "b"], "so is the node");

    proxy.set_service(key(), planned(&service(local), &slices(&[(0, "elsewhere")])));
    proxy.commit().unwrap();
    let dropped = ask(&world.outside, &node_port).unwrap_err();
    assert_eq!(dropped, std::io::ErrorKind::TimedOut, "endpoints elsewhere: nobody answers");
    assert_eq!(names(&answerers(&world.pods[2], &node_port)), ["a"]);
}

#[test]
fn traffic_inside_stays_on_the_node_where_the_policy_says_so() {
    let Some((world, mut proxy)) = world() else { return };
    let local = service(json!({"internalTrafficPolicy": "Local"}));
    proxy.set_service(key(), planned(&local, &slices(&[(0, "elsewhere"), (1, "here")])));
    proxy.commit().unwrap();
    assert_eq!(names(&answerers(&world.pods[2], "10.96.0.1:80")), ["b"]);
}

#[test]
fn only_allowed_clients_reach_a_load_balancer() {
    let Some((world, mut proxy)) = world() else { return };
    let spec = |range: &str| {
        service(json!({"type": "LoadBalancer", "ingress": [{"ip": "203.0.113.2"}],
                       "loadBalancerSourceRanges": [range]}))
    };
    proxy.set_service(key(), planned(&spec("198.51.100.0/24"), &slices(&[(0, "here")])));
    proxy.commit().unwrap();
    assert_eq!(ask(&world.outside, "203.0.113.2:80"), Err(std::io::ErrorKind::TimedOut));
    assert!(
        ask(&world.outside, &format!("{}:30080", World::NODE_V4)).is_ok(),
        "the node port is not the balancer"
    );
    proxy.set_service(key(), planned(&spec(&format!("{}/32", World::OUTSIDE_V4)), &slices(&[(0, "here")])));
    proxy.commit().unwrap();
    assert!(ask(&world.outside, "203.0.113.2:80").is_ok());
}

#[test]
fn a_client_stays_with_its_endpoint_until_that_is_gone() {
    let Some((world, mut proxy)) = world() else { return };
    let sticky = service(json!({"sessionAffinity": "ClientIP"}));
    let both = slices(&[(0, "here"), (1, "here")]);
    proxy.set_service(key(), planned(&sticky, &both));
    proxy.commit().unwrap();
    // The nft program must be able to list what we write.
    if let Some(ruleset) = world.host.ruleset() {
        assert!(ruleset.contains("groups-cluster, affinity, members"), "{ruleset}");
    }
    for address in ["10.96.0.1:80", "[fd00:96::1]:80"] {
        let times = answerers(&world.pods[2], address);
        assert_eq!(times.len(), 1, "{times:?}");
    }
    let (first, _) = ask(&world.pods[2], "10.96.0.1:80").unwrap();
    proxy.distrust();
    proxy.commit().unwrap();
    assert_eq!(
        names(&answerers(&world.pods[2], "10.96.0.1:80")),
        [first.as_str()],
        "also when all is written anew"
    );
    // Another process gives other numbers: here to a Service that comes first.
    let mut proxy = world.host.run(|| Proxy::open(policy())).unwrap();
    let mut before = planned(&service(json!({"clusterIP": "10.96.0.9", "clusterIPs": null})), &both);
    before.ports.iter_mut().for_each(|port| port.key.service = "before".into());
    proxy.set_service(ObjectKey::new("ns", "before"), before);
    proxy.set_service(key(), planned(&sticky, &slices(&[(1, "here")])));
    proxy.set_service(key(), planned(&sticky, &both));
    proxy.commit().unwrap();
    assert_eq!(names(&answerers(&world.pods[2], "10.96.0.1:80")), [first.as_str()], "also after a restart");
    let (stays, other) = if first == "a" { (1, "b") } else { (0, "a") };
    proxy.set_service(key(), planned(&sticky, &slices(&[(stays, "here")])));
    proxy.commit().unwrap();
    assert_eq!(names(&answerers(&world.pods[2], "10.96.0.1:80")), [other]);
    proxy.set_service(key(), planned(&sticky, &both));
    proxy.commit().unwrap();
    assert_eq!(names(&answerers(&world.pods[2], "10.96.0.1:80")), [other], "and it stays there");
}

#[test]
fn a_client_of_udp_moves_on_when_its_endpoint_is_gone() {
    let Some((world, mut proxy)) = world() else { return };
    let dns = service(json!({"ports": [{"name": "dns", "port": 53, "protocol": "UDP"}]}));
    for (pod, name) in [(0, "a"), (1, "b")] {
        let socket = world.pods[pod].run(|| UdpSocket::bind(("0.0.0.0", PORT))).unwrap();
        std::thread::spawn(move || {
            let mut buffer = [0; 16];
            while let Ok((_, from)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(name.as_bytes(), from);
            }
        });
    }
    let client = world.pods[2].run(|| UdpSocket::bind(("0.0.0.0", 0))).unwrap();
    client.set_read_timeout(Some(TIMEOUT)).unwrap();
    let ask = || {
        client.send_to(b"?", "10.96.0.1:53")?;
        let mut buffer = [0; 16];
        client.recv_from(&mut buffer).map(|(len, _)| String::from_utf8_lossy(&buffer[..len]).into_owned())
    };
    proxy.set_service(key(), planned(&dns, &slices(&[(0, "here")])));
    proxy.commit().unwrap();
    assert_eq!(ask().unwrap(), "a");
    proxy.set_service(key(), planned(&dns, &slices(&[(0, "here"), (1, "here")])));
    proxy.commit().unwrap();
    assert_eq!(ask().unwrap(), "a", "an endpoint more ends no connection");
    proxy.set_service(key(), planned(&dns, &slices(&[(1, "here")])));
    proxy.commit().unwrap();
    assert_eq!(ask().unwrap(), "b");
}

#[test]
fn a_port_of_the_node_leads_to_its_pod() {
    let Some((world, mut proxy)) = world() else { return };
    let pod = SocketAddr::new(World::pod_v4(0), PORT);
    let port = HostPort { protocol: Protocol::Tcp, host_ip: None, host_port: 8081, pod };
    proxy.set_host_ports(&[port], &facts());
    proxy.commit().unwrap();
    let address = format!("{}:8081", World::NODE_V4);
    assert_eq!(ask(&world.outside, &address).unwrap(), ("a".to_owned(), World::OUTSIDE_V4.to_owned()));
    proxy.set_host_ports(&[], &facts());
    proxy.commit().unwrap();
    assert!(ask(&world.outside, &address).is_err());
}

#[test]
fn a_port_of_the_loopback_leads_to_its_pod() {
    let Some((world, mut proxy)) = world() else { return };
    let port = |host_ip: Option<&str>, host_port| HostPort {
        protocol: Protocol::Tcp,
        host_ip: host_ip.map(|ip| ip.parse().unwrap()),
        host_port,
        pod: SocketAddr::new(World::pod_v4(0), PORT),
    };
    proxy.set_host_ports(&[port(None, 8081), port(Some("127.0.0.1"), 8082)], &facts());
    proxy.commit().unwrap();
    // As the pod network has it for the links of such pods.
    world.host.sysctl("ipv4/conf/all/route_localnet", "1");
    for to in ["127.0.0.1:8081", "127.0.0.1:8082"] {
        let (name, seen) = ask(&world.host, to).unwrap();
        assert_eq!(name, "a", "{to}");
        assert!(!seen.starts_with("127."), "{to}: the pod would answer itself instead of {seen}");
    }
    assert!(ask(&world.outside, &format!("{}:8082", World::NODE_V4)).is_err());
}

#[test]
fn nobody_else_reaches_the_loopback_of_a_node_that_routes_it() {
    let Some((world, mut proxy)) = world() else { return };
    proxy.commit().unwrap();
    world.host.sysctl("ipv4/conf/all/route_localnet", "1");
    let listener = world.host.run(|| TcpListener::bind("127.0.0.1:9000").unwrap());
    let stranger = &world.pods[0];
    stranger.sysctl("ipv4/conf/all/route_localnet", "1");
    stranger.ip("addr del 127.0.0.1/8 dev lo");
    stranger.ip("route add 127.0.0.0/8 via 169.254.1.1 dev eth0");
    let reaches = || {
        let to = "127.0.0.1:9000".parse().unwrap();
        stranger.run(|| TcpStream::connect_timeout(&to, TIMEOUT).is_ok())
    };
    assert!(!reaches());
    if world.host.ruleset().is_none() {
        return;
    }
    // Nothing but the rules keeps it out.
    world.host.command("nft", &["delete", "table", "ip", "pintle-loopback"]);
    assert!(reaches());
    world.host.run(super::loopback::guard).unwrap();
    assert!(!reaches());
    drop(listener);
}

#[test]
fn after_somebody_removed_the_rules_the_next_but_one_commit_has_them_again() {
    let Some((world, mut proxy)) = world() else { return };
    let web = service(json!({}));
    proxy.set_service(key(), planned(&web, &slices(&[(0, "here")])));
    proxy.commit().unwrap();
    world.host.run(|| {
        let mut batch = crate::nftables::Batch::default();
        batch.delete_table(crate::nftables::Family::Ipv4, super::TABLE);
        crate::nftables::Connection::open().unwrap().commit(&batch).unwrap();
    });
    proxy.set_service(key(), planned(&web, &slices(&[(1, "here")])));
    assert!(proxy.commit().unwrap_err().is_absent());
    proxy.commit().unwrap();
    assert_eq!(names(&answerers(&world.pods[2], "10.96.0.1:80")), ["b"]);
}

#[test]
fn ten_thousand_services_are_written_fast_and_changed_faster() {
    let Some(host) = Namespace::new() else { return };
    let mut proxy = host.run(|| Proxy::open(policy())).unwrap();
    let spec = |service: usize, endpoints: usize| {
        let (high, low) = (service / 250, service % 250 + 1);
        let web = self::service(json!({"clusterIP": format!("10.96.{high}.{low}"), "clusterIPs": null}));
        let mut slices = slices(&[]);
        slices[0] = serde_json::from_value(json!({
            "metadata": {"namespace": "ns", "labels": {"kubernetes.io/service-name": "web"}}, "addressType": "IPv4",
            "endpoints": (0..endpoints).map(|n| json!({"addresses": [format!("10.{}.{high}.{low}", 100 + n)]}))
                .collect::<Vec<_>>(),
            "ports": [{"name": "http", "port": PORT}],
        }))
        .unwrap();
        let mut plan = planned(&web, &slices);
        for port in &mut plan.ports {
            port.key.service = format!("s{service}").into();
        }
        plan
    };
    let key = |service: usize| ObjectKey::new("ns", &format!("s{service}"));
    let plans: Vec<ServicePlan> = (0..10_000).map(|service| spec(service, 5)).collect();
    let started = rt::instant();
    for (service, plan) in plans.into_iter().enumerate() {
        proxy.set_service(key(service), plan);
    }
    proxy.commit().unwrap();
    let first = started.elapsed();
    let mut slowest = Duration::ZERO;
    let mut total = Duration::ZERO;
    for round in 0..100 {
        let plan = spec(round, 4 + round % 3);
        let started = rt::instant();
        proxy.set_service(key(round), plan);
        proxy.commit().unwrap();
        slowest = slowest.max(started.elapsed());
        total += started.elapsed();
    }
    println!(
        "10,000 Services, 50,000 endpoints: first {first:?}, a change {:?}, slowest {slowest:?}",
        total / 100
    );
    // Far from what it takes, near enough to notice work that grows with the number of Services.
    assert!(first < Duration::from_secs(20) && total / 100 < Duration::from_millis(100));
    let used: BTreeSet<u32> = [4, 5, 6].into();
    let Some(ruleset) = host.ruleset() else { return };
    for count in used {
        assert!(ruleset.contains(&format!("chain pick-cluster-{count}-0 ")), "{count}");
    }
}

#[test]
fn events_of_the_api_become_rules() {
    let Some((world, _)) = world() else { return };
    let (fake, shutdown) = (FakeApi::new(), Shutdown::new());
    let object = |kind: &str, version: &str, typed: Value| {
        let mut object = json!({"kind": kind, "apiVersion": version});
        for (field, value) in typed.as_object().unwrap() {
            object[field] = value.clone();
        }
        object
    };
    let slice = |pod: u8| {
        object(
            "EndpointSlice",
            "discovery.k8s.io/v1",
            json!({
                "metadata": {"namespace": "ns", "name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
                "addressType": "IPv4", "endpoints": [{"addresses": [World::pod_v4(pod)]}],
                "ports": [{"name": "http", "port": PORT}],
            }),
        )
    };
    fake.seed(
        object(
            "Node",
            "v1",
            json!({
                "metadata": {"name": "here"},
                "status": {"addresses": [{"type": "InternalIP", "address": World::NODE_V4}]},
            }),
        )
        .into(),
    );
    fake.seed(object("Service", "v1", json!({
        "metadata": {"namespace": "ns", "name": "web"},
        "spec": {"type": "NodePort", "clusterIP": "10.96.0.1", "ports": [{"name": "http", "port": 80, "nodePort": 30080}]},
    })).into());
    let options = ProxyOptions { node_name: "here".into(), policy: policy(), ..ProxyOptions::default() };
    std::thread::scope(|scope| {
        let running = scope.spawn(|| {
            world.host.enter();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let informers = Informers::new(fake.clone(), shutdown.clone());
                run(&informers, options, shutdown.clone()).await
            })
        });
        let node_port = format!("{}:30080", World::NODE_V4);
        let started = rt::instant();
        let until = |address: &str, wanted: &str| {
            while ask(&world.outside, address).map(|(name, _)| name).as_deref() != Ok(wanted) {
                assert!(started.elapsed() < Duration::from_secs(30), "{wanted} never answered at {address}");
            }
        };
        fake.seed(slice(0).into());
        until(&node_port, "a");
        until("10.96.0.1:80", "a");
        let endpoints = slice(1)["endpoints"].clone();
        fake.edit(&ENDPOINT_SLICES, "ns", "web-1", |slice| slice.set_at(&["endpoints"], endpoints));
        until(&node_port, "b");
        shutdown.cancel();
        running.join().unwrap().unwrap();
    });
    assert_eq!(ask(&world.outside, "10.96.0.1:80").unwrap().0, "b", "the rules stay when the proxy ends");
}
