//! What is planned for a Service, case by case.

use std::net::{IpAddr, SocketAddr};

use serde_json::{Value, json};

use super::cidr::Cidr;
use super::objects::{EndpointSlice, Protocol, Service};
use super::plan::{Facts, HostPort, Kind, PortPlan, ServicePlan, plan, plan_host_port};
use crate::nftables::Family;

fn facts() -> Facts {
    Facts {
        node_name: "here".into(),
        zone: "zone-a".into(),
        node_addresses: vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
    }
}

fn service(spec: Value) -> Service {
    let mut service = json!({
        "metadata": {"namespace": "ns", "name": "web"},
        "spec": {"type": "ClusterIP", "clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1"],
                 "ports": [{"name": "http", "port": 80, "nodePort": 30080}]},
    });
    for (field, value) in spec.as_object().unwrap() {
        match field.as_str() {
            "ingress" => service["status"]["loadBalancer"]["ingress"] = value.clone(),
            "labels" => service["metadata"]["labels"] = value.clone(),
            _ => service["spec"][field] = value.clone(),
        }
    }
    serde_json::from_value(service).unwrap()
}

fn slice(endpoints: Value) -> EndpointSlice {
    let slice = json!({
        "metadata": {"namespace": "ns", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4", "endpoints": endpoints,
        "ports": [{"name": "http", "port": 8080}],
    });
    serde_json::from_value(slice).unwrap()
}

fn planned(spec: Value, endpoints: Value) -> ServicePlan {
    plan(&service(spec), &[&slice(endpoints)], &facts())
}

/// An endpoint: its last number, and the state in letters: `l`ocal, `r`eady, `t`erminating, `s`erving.
fn endpoint(number: u8, state: &str) -> Value {
    let has = |letter| state.contains(letter);
    json!({
        "addresses": [format!("10.244.0.{number}")],
        "nodeName": if has('l') { "here" } else { "elsewhere" },
        "conditions": {"ready": has('r'), "serving": has('r') || has('s'), "terminating": has('t')},
    })
}

fn numbers(endpoints: &[SocketAddr]) -> Vec<u8> {
    let last = |address: IpAddr| match address {
        IpAddr::V4(address) => address.octets()[3],
        IpAddr::V6(address) => address.octets()[15],
    };
    endpoints.iter().map(|endpoint| last(endpoint.ip())).collect()
}

#[test]
fn ready_endpoints_take_traffic_and_terminating_ones_only_when_there_are_none() {
    for (what, endpoints, cluster, local) in [
        ("ready ones", vec![(1, "lr"), (2, "r"), (3, "l"), (4, "lts")], vec![1, 2], vec![1]),
        ("none at all", vec![], vec![], vec![]),
        ("none ready, some serving", vec![(1, "l"), (2, "ts"), (3, "lts"), (4, "lt")], vec![2, 3], vec![3]),
        ("none local", vec![(1, "r"), (2, "lts")], vec![1], vec![2]),
        ("not ready and not terminating", vec![(1, "ls")], vec![], vec![]),
    ] {
        let endpoints: Vec<Value> =
            endpoints.into_iter().map(|(number, state)| endpoint(number, state)).collect();
        let spec = json!({"type": "NodePort", "externalTrafficPolicy": "Local"});
        let plan = planned(spec, endpoints.clone().into());
        let chosen = &plan.ports[0].endpoints;
        assert_eq!(numbers(&chosen.cluster), cluster, "{what}");
        assert_eq!(numbers(&chosen.local), local, "{what}, local");
        let plan = planned(json!({}), endpoints.into());
        assert_eq!(numbers(&plan.ports[0].endpoints.local), [0; 0], "{what}: nobody asks for local ones");
    }
}

#[test]
fn hints_narrow_the_choice_when_every_ready_endpoint_has_them() {
    let hinted = |number: u8, zones: &[&str], nodes: &[&str]| {
        let mut endpoint = endpoint(number, "r");
        let names = |all: &[&str]| all.iter().map(|name| json!({"name": name})).collect::<Vec<_>>();
        endpoint["hints"] = json!({"forZones": names(zones), "forNodes": names(nodes)});
        endpoint
    };
    let unready = endpoint(9, "");
    for (what, endpoints, wanted) in [
        ("zone", vec![hinted(1, &["zone-a"], &[]), hinted(2, &["zone-b"], &[]), unready.clone()], vec![1]),
        ("two zones", vec![hinted(1, &["zone-b", "zone-a"], &[]), hinted(2, &["zone-b"], &[])], vec![1]),
        ("one without", vec![hinted(1, &["zone-a"], &[]), endpoint(2, "r")], vec![1, 2]),
        ("none for us", vec![hinted(1, &["zone-b"], &[]), hinted(2, &["zone-c"], &[])], vec![1, 2]),
        (
            "node before zone",
            vec![hinted(1, &["zone-a"], &["elsewhere"]), hinted(2, &["zone-a"], &["here"])],
            vec![2],
        ),
        (
            "no node for us, then zone",
            vec![hinted(1, &["zone-a"], &["elsewhere"]), hinted(2, &["zone-b"], &["other"])],
            vec![1],
        ),
    ] {
        let plan = planned(json!({}), endpoints.into());
        assert_eq!(numbers(&plan.ports[0].endpoints.cluster), wanted, "{what}");
    }
}

fn frontends(plan: &PortPlan) -> Vec<(String, Kind)> {
    let shown = |own: &super::plan::Frontend| (SocketAddr::new(own.address, own.port).to_string(), own.kind);
    plan.frontends.iter().map(shown).collect()
}

#[test]
fn every_address_of_a_service_is_served_as_its_policies_say() {
    let all = json!({
        "type": "LoadBalancer", "externalIPs": ["203.0.113.1", "2001:db8:1::1", "10.96.0.1"],
        "ingress": [{"ip": "203.0.113.2"}, {"ip": "203.0.113.3", "ipMode": "Proxy"}, {"hostname": "x"}],
    });
    let with = |changes: Value| {
        let mut spec = all.clone();
        for (field, value) in changes.as_object().unwrap() {
            spec[field] = value.clone();
        }
        frontends(&planned(spec, json!([])).ports[0])
    };
    let wanted = |cluster: Kind, external: Kind, balancer: Kind| {
        vec![
            ("10.96.0.1:80".to_owned(), cluster),
            ("203.0.113.1:80".to_owned(), external),
            ("203.0.113.2:80".to_owned(), balancer),
            ("192.0.2.1:30080".to_owned(), external),
        ]
    };
    use Kind::{
        ClusterIp, ClusterIpLocal, External, ExternalFirewalled, ExternalLocal, ExternalLocalFirewalled,
    };
    assert_eq!(with(json!({})), wanted(ClusterIp, External, External));
    let local = with(json!({"externalTrafficPolicy": "Local"}));
    assert_eq!(local, wanted(ClusterIp, ExternalLocal, ExternalLocal));
    assert_eq!(with(json!({"internalTrafficPolicy": "Local"})), wanted(ClusterIpLocal, External, External));
    let ranges = json!({"loadBalancerSourceRanges": ["198.51.100.0/24"]});
    assert_eq!(with(ranges), wanted(ClusterIp, External, ExternalFirewalled));
    let both = json!({"loadBalancerSourceRanges": ["198.51.100.0/24"], "externalTrafficPolicy": "Local"});
    assert_eq!(with(both), wanted(ClusterIp, ExternalLocal, ExternalLocalFirewalled));
    // What the type does not have is not served, though it stands there.
    assert_eq!(frontends(&planned(json!({"ingress": [{"ip": "203.0.113.2"}]}), json!([])).ports[0]).len(), 1);
}

#[test]
fn a_service_with_two_families_is_planned_in_both() {
    let both = json!({"clusterIPs": ["10.96.0.1", "fd00:96::1"], "type": "NodePort"});
    let plan = planned(both, json!([endpoint(1, "r")]));
    let shown: Vec<_> =
        plan.ports.iter().map(|port| (port.key.family, frontends(port)[1].0.clone())).collect();
    assert_eq!(
        shown,
        [(Family::Ipv4, "192.0.2.1:30080".to_owned()), (Family::Ipv6, "[2001:db8::1]:30080".to_owned()),]
    );
    assert_eq!(plan.ports[1].endpoints.cluster, [], "the slice is of the other family");
}

#[test]
fn services_and_slices_of_others_are_left_alone() {
    for spec in [
        json!({"clusterIP": "None", "clusterIPs": ["None"]}),
        json!({"clusterIP": "", "clusterIPs": null}),
        json!({"type": "ExternalName"}),
        json!({"labels": {"service.kubernetes.io/service-proxy-name": "other"}}),
    ] {
        assert_eq!(planned(spec.clone(), json!([endpoint(1, "r")])), ServicePlan::default(), "{spec}");
    }
    for label in ["service.kubernetes.io/service-proxy-name", "service.kubernetes.io/headless"] {
        let mut other = slice(json!([endpoint(1, "r")]));
        other.metadata.labels = serde_json::from_value(json!({label: ""})).unwrap();
        let plan = plan(&service(json!({})), &[&other], &facts());
        assert_eq!(plan.ports[0].endpoints.cluster, [], "{label}");
    }
}

#[test]
fn protocols_names_and_affinity_are_those_of_the_service() {
    let ports = json!([
        {"name": "http", "port": 80}, {"name": "other", "port": 81},
        {"name": "http", "port": 80, "protocol": "SCTP"}, {"name": "bad", "port": 0},
    ]);
    let plan = planned(json!({"ports": ports, "sessionAffinity": "ClientIP"}), json!([endpoint(1, "r")]));
    let shown: Vec<_> = plan
        .ports
        .iter()
        .map(|port| (port.key.port.as_str(), port.key.protocol, port.endpoints.cluster.len()))
        .collect();
    assert_eq!(shown, [("http", Protocol::Tcp, 1), ("other", Protocol::Tcp, 0), ("http", Protocol::Sctp, 0)]);
    assert_eq!(plan.ports[0].affinity_seconds, 10_800);
    let seconds =
        json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 7}}});
    assert_eq!(planned(seconds, json!([])).ports[0].affinity_seconds, 7);
    assert_eq!(planned(json!({"sessionAffinity": "None"}), json!([])).ports[0].affinity_seconds, 0);
}

#[test]
fn a_node_that_may_use_a_load_balancer_may_do_so_from_its_address() {
    let ranges = |range: &str| {
        let spec = json!({"type": "LoadBalancer", "ingress": [{"ip": "203.0.113.2"}],
                          "loadBalancerSourceRanges": [range, "fd00::/8", "nonsense"]});
        planned(spec, json!([])).ports[0].source_ranges.clone()
    };
    let parsed = |texts: &[&str]| texts.iter().map(|text| Cidr::parse(text).unwrap()).collect::<Vec<_>>();
    assert_eq!(ranges("198.51.100.0/24"), parsed(&["198.51.100.0/24"]));
    assert_eq!(ranges("192.0.2.0/24"), parsed(&["192.0.2.0/24", "203.0.113.2/32"]));
}

#[test]
fn load_balancers_are_told_how_many_endpoints_are_ready_here() {
    let spec =
        json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 32000});
    let endpoints = json!([endpoint(1, "lr"), endpoint(2, "r"), endpoint(3, "lts"), endpoint(4, "lr")]);
    let check = planned(spec.clone(), endpoints).health_check.unwrap();
    assert_eq!((check.port, check.local_endpoints), (32000, 2));
    let mut cluster = spec;
    cluster["externalTrafficPolicy"] = json!("Cluster");
    assert_eq!(planned(cluster, json!([])).health_check, None);
}

#[test]
fn a_host_port_is_on_every_address_of_its_family_or_on_the_one_named() {
    let port = |host_ip: Option<&str>| {
        let port = HostPort {
            protocol: Protocol::Udp,
            host_ip: host_ip.map(|ip| ip.parse().unwrap()),
            host_port: 53,
            pod: "10.244.0.1:5353".parse().unwrap(),
        };
        frontends(&plan_host_port(&port, &facts()))
    };
    let on = |address: &str| vec![(address.to_owned(), Kind::HostPort)];
    let everywhere = [on("192.0.2.1:53"), on("127.0.0.1:53")].concat();
    assert_eq!(port(None), everywhere);
    assert_eq!(port(Some("0.0.0.0")), everywhere);
    assert_eq!(port(Some("127.0.0.1")), on("127.0.0.1:53"));
    assert_eq!(port(Some("::1")), []);
}
