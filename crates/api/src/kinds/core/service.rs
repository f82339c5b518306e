//! `v1.Service`. Addresses and node ports are allocated by the registry, which is why some checks expect them.

use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::{Map, Value};

use super::pod::container::{PROTOCOLS, port_number_or_name};
use crate::strategy::{Context, Strategy, keep_status_apart};
use crate::validation::fields::{
    Fields, as_go_struct, invalid_each, is_empty, item_text, one_of, same, supported,
};
use crate::validation::{ip, selector, text};

const AFFINITY_SECONDS: i64 = 10_800;
const AFFINITY_SECONDS_MAX: i64 = 86_400;
const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const FAMILIES: [&str; 2] = ["IPv4", "IPv6"];
const FAMILY_POLICIES: [&str; 3] = ["PreferDualStack", "RequireDualStack", "SingleStack"];
const TRAFFIC_POLICIES: [&str; 2] = ["Cluster", "Local"];
const DISTRIBUTIONS: [&str; 3] = ["PreferClose", "PreferSameZone", "PreferSameNode"];
const SOURCE_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";
const TOPOLOGY_HINTS: &str = "service.kubernetes.io/topology-aware-hints";
const TOPOLOGY_MODE: &str = "service.kubernetes.io/topology-mode";
const SET_ONCE: &str = "may not change once set";

pub struct Service;

impl Strategy for Service {
    fn default(&self, object: &mut Value) {
        let spec = object.ensure_object_at(&["spec"]);
        if is_empty(spec.get("sessionAffinity")) {
            spec.insert("sessionAffinity", "None");
        }
        if is_empty(spec.get("type")) {
            spec.insert("type", "ClusterIP");
        }
        match spec.text("sessionAffinity") {
            "None" => {
                spec.remove("sessionAffinityConfig");
            }
            "ClientIP" => {
                let unset = spec
                    .maybe("sessionAffinityConfig")
                    .and_then(|config| config.maybe("clientIP"))
                    .is_none_or(|client| !client.has("timeoutSeconds"));
                if unset {
                    let mut config = Value::object();
                    config.set_at(&["clientIP", "timeoutSeconds"], AFFINITY_SECONDS);
                    spec.insert("sessionAffinityConfig", config);
                }
            }
            _ => {}
        }
        for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
            default_port(port);
        }
        let kind = spec.text("type").to_owned();
        if is_empty(spec.get("externalTrafficPolicy")) && externally_accessible(spec) {
            spec.insert("externalTrafficPolicy", "Cluster");
        }
        if !spec.has("internalTrafficPolicy") && matches!(&*kind, "ClusterIP" | "NodePort" | "LoadBalancer") {
            spec.insert("internalTrafficPolicy", "Cluster");
        }
        if kind != "LoadBalancer" {
            return;
        }
        if !spec.has("allocateLoadBalancerNodePorts") {
            spec.insert("allocateLoadBalancerNodePorts", true);
        }
        let ingress = object.at_mut(&["status", "loadBalancer", "ingress"]).and_then(Value::as_array_mut);
        for address in ingress.into_iter().flatten() {
            if !address.text("ip").is_empty() && !address.has("ipMode") {
                address.ensure_object().insert("ipMode", "VIP");
            }
        }
    }

    fn prepare_for_create(&self, _ctx: &Context<'_>, object: &mut Value) {
        if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
            list_of_cluster_ips(spec, None);
            ip_families(spec);
            no_traffic_inside(spec);
        }
    }

    fn validate(&self, _ctx: &Context<'_>, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        service(&mut errors, object, None);
        errors
    }

    fn prepare_for_update(&self, ctx: &Context<'_>, new: &mut Value, old: &Value) {
        keep_status_apart(ctx, new, old);
        if ctx.subresource.is_some() {
            return;
        }
        if let Some(spec) = new.get_mut("spec").and_then(Value::as_object_mut) {
            list_of_cluster_ips(spec, Some(&old["spec"]));
            keep_allocated(spec, &old["spec"]);
        }
        drop_fields_of_old_type(new, old);
        if let Some(spec) = new.get_mut("spec").and_then(Value::as_object_mut) {
            ip_families(spec);
            no_traffic_inside(spec);
        }
    }

    fn validate_update(&self, ctx: &Context<'_>, new: &Value, old: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        if ctx.subresource == Some("status") {
            load_balancer_status(&mut errors, new, old);
            return errors;
        }
        cluster_ips_kept(&mut errors, &new["spec"], &old["spec"]);
        families_kept(&mut errors, &new["spec"], &old["spec"]);
        load_balancer_class(&mut errors, &new["spec"], Some(&old["spec"]));
        if needs_health_check(&old["spec"])
            && needs_health_check(&new["spec"])
            && old["spec"].int("healthCheckNodePort") != new["spec"].int("healthCheckNodePort")
        {
            errors.push(Error::forbidden(
                &Path::root("spec").child("healthCheckNodePort"),
                "field is immutable",
            ));
        }
        service(&mut errors, new, Some(old));
        errors
    }

    fn warnings(&self, ctx: &Context<'_>, new: &Value, _old: Option<&Value>) -> Vec<String> {
        let mut warnings = Vec::new();
        if ctx.subresource.is_none() {
            self::warnings(&mut warnings, new);
        }
        warnings
    }
}

fn default_port(port: &mut Value) {
    let number = port.get("port").cloned();
    let port = port.ensure_object();
    if is_empty(port.get("protocol")) {
        port.insert("protocol", "TCP");
    }
    if is_empty(port.get("targetPort"))
        && let Some(number) = number
    {
        port.insert("targetPort", number);
    }
}

/// Whether traffic from outside the cluster can arrive.
pub fn externally_accessible(spec: &impl Fields) -> bool {
    match spec.text("type") {
        "LoadBalancer" | "NodePort" => true,
        "ClusterIP" => !spec.list("externalIPs").is_empty(),
        _ => false,
    }
}

/// Whether the service needs a node port for health checks.
pub fn needs_health_check(spec: &impl Fields) -> bool {
    spec.text("type") == "LoadBalancer" && spec.text("externalTrafficPolicy") == "Local"
}

/// Whether the service has no address of its own by intent.
pub fn is_headless(spec: &impl Fields) -> bool {
    matches!(spec.list("clusterIPs"), [only] if only.as_str() == Some("None"))
}

/// Lets clients speak of `clusterIP` alone: the list follows it.
fn list_of_cluster_ips(spec: &mut Map, old: Option<&Value>) {
    let single = spec.text("clusterIP").to_owned();
    let unset = spec.list("clusterIPs").is_empty();
    let Some(old) = old else {
        if unset && !single.is_empty() {
            spec.insert("clusterIPs", vec![single]);
        }
        return;
    };
    let same_list = same(spec.maybe("clusterIPs").unwrap_or(&Value::Null), &old["clusterIPs"]);
    if single == old.text("clusterIP") {
        if unset && let Some(list) = old.maybe("clusterIPs") {
            spec.insert("clusterIPs", list.clone());
        }
    } else if same_list {
        if single.is_empty() {
            spec.remove("clusterIPs");
        } else {
            spec.insert("clusterIPs", vec![single]);
        }
    }
}

/// Keeps what was allocated when an update leaves it out: a client may not know these fields.
fn keep_allocated(spec: &mut Map, old: &Value) {
    let has_cluster_ip = |kind: &str| kind != "ExternalName";
    let has_node_ports = |kind: &str| matches!(kind, "NodePort" | "LoadBalancer");
    let (kind, old_kind) = (spec.text("type").to_owned(), old.text("type"));
    if has_cluster_ip(&kind) && has_cluster_ip(old_kind) {
        for key in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            if is_empty(spec.get(key))
                && let Some(value) = old.maybe(key)
            {
                spec.insert(key, value.clone());
            }
        }
    }
    if has_node_ports(&kind) && has_node_ports(old_kind) {
        let used: Vec<i64> = spec.list("ports").iter().map(|port| port.int("nodePort")).collect();
        for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
            let before = old.list("ports").iter().rfind(|old| old.text("name") == port.text("name"));
            let number = before.map(|old| old.int("nodePort")).unwrap_or_default();
            if port.int("nodePort") == 0 && number != 0 && !used.contains(&number) {
                port.ensure_object().insert("nodePort", number);
            }
        }
    }
    if needs_health_check(old) && needs_health_check(spec) && spec.int("healthCheckNodePort") == 0 {
        let number = old.int("healthCheckNodePort");
        spec.insert("healthCheckNodePort", number);
    }
}

/// An external name has no traffic that a policy could apply to.
fn no_traffic_inside(spec: &mut Map) {
    if spec.text("type") == "ExternalName" {
        spec.remove("internalTrafficPolicy");
    }
}

/// The policy and the families of a service that does not say, as far as they follow from it alone: a headless service
/// without a selector has both, since whoever fills its endpoints may use either, and addresses say of which family they
/// are. The rest follows from the cluster, where addresses are given out.
fn ip_families(spec: &mut Map) {
    if spec.text("type") == "ExternalName" {
        return;
    }
    let any_family = is_headless(spec) && spec.map("selector").is_none_or(Map::is_empty);
    if !spec.has("ipFamilyPolicy") {
        spec.insert("ipFamilyPolicy", if any_family { "RequireDualStack" } else { "SingleStack" });
    }
    if !is_empty(spec.get("ipFamilies")) {
        return;
    }
    let families: Vec<&str> = spec
        .list("clusterIPs")
        .iter()
        .filter_map(|address| ip::parse_sloppy(item_text(address)))
        .map(|address| if address.is_ipv6() { "IPv6" } else { "IPv4" })
        .collect();
    if !families.is_empty() {
        spec.insert("ipFamilies", families);
    }
}

/// A change of type takes along what only the old type had, unless the client changed that as well.
fn drop_fields_of_old_type(new: &mut Value, old: &Value) {
    let old = &old["spec"];
    let Some(spec) = new.get_mut("spec").and_then(Value::as_object_mut) else { return };
    let (new_kind, old_kind) = (spec.text("type").to_owned(), old.text("type"));
    let unchanged = |spec: &Map, key: &str| same(spec.maybe(key).unwrap_or(&Value::Null), &old[key]);
    let mut drop_unchanged = |keys: &[&str], together: &[&str]| {
        if together.iter().all(|key| unchanged(spec, key)) {
            for key in keys {
                spec.remove(key);
            }
        }
    };
    if old_kind != "ExternalName" && new_kind == "ExternalName" {
        drop_unchanged(&["clusterIP", "clusterIPs"], &["clusterIP", "clusterIPs"]);
        drop_unchanged(&["ipFamilies"], &["ipFamilies"]);
        drop_unchanged(&["ipFamilyPolicy"], &["ipFamilyPolicy"]);
    }
    if old_kind == "LoadBalancer" && new_kind != "LoadBalancer" {
        drop_unchanged(&["allocateLoadBalancerNodePorts"], &["allocateLoadBalancerNodePorts"]);
        drop_unchanged(&["loadBalancerClass"], &["loadBalancerClass"]);
    }
    if needs_health_check(old) && !needs_health_check(spec) && unchanged(spec, "healthCheckNodePort") {
        spec.remove("healthCheckNodePort");
    }
    if externally_accessible(old) && !externally_accessible(spec) && unchanged(spec, "externalTrafficPolicy")
    {
        spec.remove("externalTrafficPolicy");
    }
    let has_node_ports = |kind: &str| matches!(kind, "NodePort" | "LoadBalancer");
    if has_node_ports(old_kind) && !has_node_ports(&new_kind) {
        let olds: Vec<i64> = old.list("ports").iter().map(|port| port.int("nodePort")).collect();
        let ports = spec.get_mut("ports").and_then(Value::as_array_mut);
        if let Some(ports) = ports
            && ports.iter().all(|port| olds.contains(&port.int("nodePort")) || port.int("nodePort") == 0)
        {
            for port in ports {
                port.ensure_object().remove("nodePort");
            }
        }
    }
    if new_kind != "LoadBalancer"
        && let Some(status) = new.get_mut("status")
        && status["loadBalancer"].has("ingress")
    {
        status.set_at(&["loadBalancer"], Value::object());
    }
}

fn service(errors: &mut ErrorList, object: &Value, old: Option<&Value>) {
    let (annotations, spec) = (&object["metadata"]["annotations"], &object["spec"]);
    let path = Path::root("spec");
    topology_annotations(errors, annotations);
    let (kind, ports) = (spec.text("type"), spec.list("ports"));
    let headless = is_headless(spec);
    let ports_path = path.child("ports");
    if ports.is_empty() && !headless && kind != "ExternalName" {
        errors.push(Error::required(&ports_path, ""));
    }
    of_type(errors, spec, kind, headless, &path);
    for (index, port) in ports.iter().enumerate() {
        self::port(errors, port, &ports[..index], ports.len() > 1, &ports_path.index(index));
    }
    selector::labels(errors, spec.map("selector"), &path.child("selector"));
    session_affinity(errors, spec, &path);
    cluster_ips(errors, spec, old.map(|old| &old["spec"]), &path);
    external_ips(errors, spec, old, &path.child("externalIPs"));
    one_of(errors, kind, &path.child("type"), &TYPES);
    port_numbers(errors, ports, kind, &ports_path);
    source_ranges(errors, object, old, &path);
    let allocate = spec.has("allocateLoadBalancerNodePorts");
    if allocate && kind != "LoadBalancer" {
        errors.push(Error::forbidden(
            &path.child("allocateLoadBalancerNodePorts"),
            "may only be used when `type` is 'LoadBalancer'",
        ));
    }
    if !allocate && kind == "LoadBalancer" {
        errors.push(Error::required(&Path::root("allocateLoadBalancerNodePorts"), ""));
    }
    load_balancer_class(errors, spec, None);
    traffic_policies(errors, spec, &path);
}

fn topology_annotations(errors: &mut ErrorList, annotations: &Value) {
    if let (Some(hints), Some(mode)) =
        (annotations.maybe_text(TOPOLOGY_HINTS), annotations.maybe_text(TOPOLOGY_MODE))
        && hints != mode
    {
        errors.push(Error::invalid(
            &Path::root("metadata").child("annotations").key(TOPOLOGY_MODE),
            mode,
            format!("must match annotations[{TOPOLOGY_HINTS}] when both are specified"),
        ));
    }
}

fn of_type(errors: &mut ErrorList, spec: &Value, kind: &str, headless: bool, path: &Path<'_>) {
    match kind {
        "LoadBalancer" | "NodePort" if headless => {
            errors.push(Error::invalid(
                &path.child("clusterIPs").index(0),
                "None",
                format!("may not be set to 'None' for {kind} services"),
            ));
        }
        "ExternalName" => {
            for key in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                if !is_empty(spec.get(key)) {
                    errors
                        .push(Error::forbidden(&path.child(key), "may not be set for ExternalName services"));
                }
            }
            let name = spec.text("externalName");
            let name = name.strip_suffix('.').unwrap_or(name);
            let path = path.child("externalName");
            if name.is_empty() {
                errors.push(Error::required(&path, ""));
            } else {
                invalid_each(errors, &path, name, text::dns1123_subdomain(name));
            }
        }
        _ => {}
    }
}

fn port(errors: &mut ErrorList, port: &Value, before: &[Value], needs_name: bool, path: &Path<'_>) {
    let name = port.text("name");
    if !name.is_empty() {
        invalid_each(errors, &path.child("name"), name, text::dns1123_label(name));
        if before.iter().any(|other| other.text("name") == name) {
            errors.push(Error::duplicate(&path.child("name"), name));
        }
    } else if needs_name {
        errors.push(Error::required(&path.child("name"), ""));
    }
    let number = port.int("port");
    invalid_each(errors, &path.child("port"), number, text::port_number(number));
    one_of(errors, port.text("protocol"), &path.child("protocol"), &PROTOCOLS);
    port_number_or_name(errors, &port["targetPort"], &path.child("targetPort"));
    if let Some(protocol) = port.maybe_text("appProtocol") {
        invalid_each(errors, &path.child("appProtocol"), protocol, text::qualified_name(protocol));
    }
}

fn session_affinity(errors: &mut ErrorList, spec: &Value, path: &Path<'_>) {
    let affinity = spec.text("sessionAffinity");
    one_of(errors, affinity, &path.child("sessionAffinity"), &["ClientIP", "None"]);
    let config_path = path.child("sessionAffinityConfig");
    let config = spec.maybe("sessionAffinityConfig");
    match affinity {
        "ClientIP" => {
            const WHEN: &str = "when session affinity type is ClientIP";
            let Some(config) = config else {
                errors.push(Error::required(&config_path, WHEN));
                return;
            };
            let client_path = config_path.child("clientIP");
            let Some(client) = config.maybe("clientIP") else {
                errors.push(Error::required(&client_path, WHEN));
                return;
            };
            let timeout_path = client_path.child("timeoutSeconds");
            match client.maybe_int("timeoutSeconds") {
                None => errors.push(Error::required(&timeout_path, WHEN)),
                Some(seconds) if !(1..=AFFINITY_SECONDS_MAX).contains(&seconds) => {
                    errors.push(Error::invalid(
                        &timeout_path,
                        seconds,
                        format!("must be greater than 0 and less than {AFFINITY_SECONDS_MAX}"),
                    ))
                }
                Some(_) => {}
            }
        }
        "None" if config.is_some() => {
            errors.push(Error::forbidden(&config_path, "must not be set when session affinity is None"));
        }
        _ => {}
    }
}

fn cluster_ips(errors: &mut ErrorList, spec: &Value, old: Option<&Value>, path: &Path<'_>) {
    if spec.text("type") == "ExternalName" {
        return;
    }
    let (ips_path, families_path) = (path.child("clusterIPs"), path.child("ipFamilies"));
    let (single, ips, families) = (spec.text("clusterIP"), spec.list("clusterIPs"), spec.list("ipFamilies"));
    let all = &spec["clusterIPs"];
    match (single.is_empty(), ips.first()) {
        (false, None) => errors.push(Error::required(&ips_path, "")),
        (false, Some(first)) if item_text(first) != single => {
            errors.push(Error::invalid(&ips_path, all, "first value must match `clusterIP`"));
        }
        (true, Some(_)) => {
            errors.push(Error::invalid(&ips_path, all, "must be empty when `clusterIP` is not specified"));
        }
        _ => {}
    }
    for (index, family) in families.iter().enumerate() {
        supported(errors, item_text(family), &families_path.index(index), &FAMILIES);
        if families[..index].contains(family) {
            errors.push(Error::duplicate(&families_path.index(index), item_text(family)));
        }
    }
    if let Some(policy) = spec.maybe_text("ipFamilyPolicy") {
        supported(errors, policy, &path.child("ipFamilyPolicy"), &FAMILY_POLICIES);
    }
    let held: Vec<&str> =
        old.map(|old| old.list("clusterIPs").iter().map(item_text).collect()).unwrap_or_default();
    let before = errors.len();
    for (index, address) in ips.iter().map(item_text).enumerate() {
        if index == 0 && address == "None" {
            if ips.len() > 1 {
                errors.push(Error::invalid(&ips_path, all, "'None' must be the first and only value"));
            }
            continue;
        }
        ip::check_ip(errors, address, &ips_path.index(index), &held);
    }
    let invalid = errors.len() > before;
    if ips.len() > 2 {
        errors.push(Error::invalid(&ips_path, all, "may only hold up to 2 values"));
    }
    if invalid {
        return;
    }
    if ips.len() > 1 && !ip::is_dual_stack(ips.iter().map(item_text)) {
        errors.push(Error::invalid(&ips_path, all, "may specify no more than one IP for each IP family"));
    }
    if is_headless(spec) {
        return;
    }
    for (index, (address, family)) in ips.iter().map(item_text).zip(families).enumerate() {
        let family = item_text(family);
        let wrong = match ip::parse_sloppy(address) {
            Some(parsed) => (family == "IPv4" && parsed.is_ipv6()) || (family == "IPv6" && parsed.is_ipv4()),
            None => false,
        };
        if wrong {
            errors.push(Error::invalid(
                &ips_path.index(index),
                address,
                format!("expected an {family} value as indicated by `ipFamilies[{index}]`"),
            ));
        }
    }
}

fn external_ips(errors: &mut ErrorList, spec: &Value, old: Option<&Value>, path: &Path<'_>) {
    let held: Vec<&str> =
        old.map(|old| old["spec"].list("externalIPs").iter().map(item_text).collect()).unwrap_or_default();
    for (index, address) in spec.list("externalIPs").iter().map(item_text).enumerate() {
        let path = path.index(index);
        let before = errors.len();
        ip::check_ip(errors, address, &path, &held);
        if errors.len() == before {
            ip::check_endpoint_ip(errors, address, &path);
        }
    }
}

fn port_numbers(errors: &mut ErrorList, ports: &[Value], kind: &str, path: &Path<'_>) {
    if kind == "ClusterIP" {
        for (index, _) in ports.iter().enumerate().filter(|(_, port)| port.int("nodePort") != 0) {
            errors.push(Error::forbidden(
                &path.index(index).child("nodePort"),
                "may not be used when `type` is 'ClusterIP'",
            ));
        }
    }
    let same_as_before = |index: usize, key: &str| {
        let port: &Value = &ports[index];
        ports[..index]
            .iter()
            .any(|other| other.int(key) == port.int(key) && other.text("protocol") == port.text("protocol"))
    };
    for (index, port) in ports.iter().enumerate().filter(|(_, port)| port.int("nodePort") != 0) {
        if same_as_before(index, "nodePort") {
            errors.push(Error::duplicate(&path.index(index).child("nodePort"), port.int("nodePort")));
        }
    }
    for (index, port) in ports.iter().enumerate() {
        if same_as_before(index, "port") {
            let key = apimachinery::json!({"port": port.int("port"), "protocol": port.text("protocol")});
            const LAYOUT: [(&str, &str, &str); 6] = [
                ("name", "Name", "\"\""),
                ("protocol", "Protocol", "\"\""),
                ("appProtocol", "AppProtocol", "null"),
                ("port", "Port", "0"),
                ("targetPort", "TargetPort", "0"),
                ("nodePort", "NodePort", "0"),
            ];
            errors.push(Error::duplicate(&path.index(index), as_go_struct(&key, &LAYOUT)));
        }
    }
}

fn source_ranges(errors: &mut ErrorList, object: &Value, old: Option<&Value>, path: &Path<'_>) {
    const ONLY: &str = "may only be used when `type` is 'LoadBalancer'";
    let (spec, annotations) = (&object["spec"], &object["metadata"]["annotations"]);
    let wrong_type = spec.text("type") != "LoadBalancer";
    let ranges = spec.list("loadBalancerSourceRanges");
    if !ranges.is_empty() {
        // Upstream spells the field with a capital.
        let path = path.child("LoadBalancerSourceRanges");
        if wrong_type {
            errors.push(Error::forbidden(&path, ONLY));
        }
        let held: Vec<&str> = old
            .map(|old| {
                old["spec"]
                    .list("loadBalancerSourceRanges")
                    .iter()
                    .map(|range| item_text(range).trim())
                    .collect()
            })
            .unwrap_or_default();
        for (index, range) in ranges.iter().enumerate() {
            ip::check_cidr(errors, item_text(range).trim(), &path.index(index), &held);
        }
    } else if let Some(written) = annotations.maybe_text(SOURCE_RANGES) {
        let path = Path::root("metadata");
        let path = path.child("annotations");
        let path = path.key(SOURCE_RANGES);
        if wrong_type {
            errors.push(Error::forbidden(&path, ONLY));
        }
        let unchanged =
            old.is_some_and(|old| old["metadata"]["annotations"].maybe_text(SOURCE_RANGES) == Some(written));
        if !unchanged && !written.trim().is_empty() {
            for range in written.split(',') {
                ip::check_cidr(errors, range.trim(), &path, &[]);
            }
        }
    }
}

fn load_balancer_class(errors: &mut ErrorList, spec: &Value, old: Option<&Value>) {
    let path = Path::root("spec");
    let path = path.child("loadBalancerClass");
    let class = spec.maybe_text("loadBalancerClass");
    let balanced = |spec: &Value| spec.text("type") == "LoadBalancer";
    if let Some(old) = old
        && balanced(old)
        && balanced(spec)
        && old.maybe_text("loadBalancerClass") != class
    {
        errors.push(Error::invalid(&path, &spec["loadBalancerClass"], SET_ONCE));
    }
    let Some(class) = class else { return };
    if balanced(spec) {
        invalid_each(errors, &path, class, text::qualified_name(class));
    } else {
        errors.push(Error::forbidden(&path, "may only be used when `type` is 'LoadBalancer'"));
    }
}

fn traffic_policies(errors: &mut ErrorList, spec: &Value, path: &Path<'_>) {
    let external = spec.text("externalTrafficPolicy");
    let external_path = path.child("externalTrafficPolicy");
    if externally_accessible(spec) {
        one_of(errors, external, &external_path, &TRAFFIC_POLICIES);
    } else if !external.is_empty() {
        errors.push(Error::invalid(
            &external_path,
            external,
            "may only be set for externally-accessible services",
        ));
    }
    let health = spec.int("healthCheckNodePort");
    let health_path = path.child("healthCheckNodePort");
    if needs_health_check(spec) {
        // Zero is filled by the allocator.
        if health != 0 {
            invalid_each(errors, &health_path, health, text::port_number(health));
        }
    } else if health != 0 {
        errors.push(Error::invalid(
            &health_path,
            health,
            "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'",
        ));
    }
    match spec.maybe_text("internalTrafficPolicy") {
        None if matches!(spec.text("type"), "NodePort" | "LoadBalancer" | "ClusterIP") => {
            errors.push(Error::required(&path.child("internalTrafficPolicy"), ""));
        }
        Some(policy) => supported(errors, policy, &path.child("internalTrafficPolicy"), &TRAFFIC_POLICIES),
        None => {}
    }
    if let Some(distribution) = spec.maybe_text("trafficDistribution") {
        supported(errors, distribution, &path.child("trafficDistribution"), &DISTRIBUTIONS);
    }
}

/// Addresses stay; a second one may come and go.
fn cluster_ips_kept(errors: &mut ErrorList, new: &Value, old: &Value) {
    if new.text("type") == "ExternalName"
        || old.text("type") == "ExternalName"
        || (is_headless(new) && is_headless(old))
    {
        return;
    }
    let path = Path::root("spec");
    let ips_path = path.child("clusterIPs");
    let (news, olds) = (new.list("clusterIPs"), old.list("clusterIPs"));
    let shown = || Value::from(news.to_vec());
    if news.len() == olds.len() {
        for (index, _) in news.iter().zip(olds).enumerate().filter(|(_, (new, old))| new != old) {
            errors.push(Error::invalid(&ips_path.index(index), shown(), SET_ONCE));
        }
        return;
    }
    if let (Some(new), Some(old)) = (news.first(), olds.first())
        && new != old
    {
        errors.push(Error::invalid(&ips_path.index(0), shown(), SET_ONCE));
    }
    if news.len() > olds.len() {
        return;
    }
    if news.is_empty() {
        errors.push(Error::invalid(&ips_path.index(0), shown(), "primary clusterIP can not be unset"));
    }
    if news.len() == 1 && new.text("ipFamilyPolicy") != "SingleStack" {
        errors.push(Error::invalid(
            &path.child("ipFamilyPolicy"),
            &new["ipFamilyPolicy"],
            "must be set to 'SingleStack' when releasing the secondary clusterIP",
        ));
    }
}

fn families_kept(errors: &mut ErrorList, new: &Value, old: &Value) {
    if new.text("type") == "ExternalName"
        || old.text("type") == "ExternalName"
        || is_headless(new)
        || is_headless(old)
    {
        return;
    }
    let path = Path::root("spec");
    let families_path = path.child("ipFamilies");
    let first_path = families_path.index(0);
    let (news, olds) = (new.list("ipFamilies"), old.list("ipFamilies"));
    if news.len() == olds.len() {
        for _ in news.iter().zip(olds).filter(|(new, old)| new != old) {
            errors.push(Error::invalid(&first_path, &new["ipFamilies"], SET_ONCE));
        }
        return;
    }
    if news.len() < olds.len() && new.list("clusterIPs").is_empty() {
        errors.push(Error::invalid(&first_path, &new["ipFamilies"], "primary ipFamily can not be unset"));
    }
    if let (Some(first), Some(old)) = (news.first(), olds.first())
        && first != old
    {
        // Upstream shows the addresses here.
        errors.push(Error::invalid(&first_path, &new["clusterIPs"], SET_ONCE));
    }
    if news.len() == 1 && olds.len() > 1 && new.text("ipFamilyPolicy") != "SingleStack" {
        errors.push(Error::invalid(
            &path.child("ipFamilyPolicy"),
            &new["ipFamilyPolicy"],
            "must be set to 'SingleStack' when releasing the secondary ipFamily",
        ));
    }
}

fn load_balancer_status(errors: &mut ErrorList, new: &Value, old: &Value) {
    let path = Path::root("status");
    let path = path.child("loadBalancer");
    let path = path.child("ingress");
    let ingress = new["status"]["loadBalancer"].list("ingress");
    if new["spec"].text("type") != "LoadBalancer" && !ingress.is_empty() {
        errors.push(Error::forbidden(&path, "may only be used when `spec.type` is 'LoadBalancer'"));
        return;
    }
    let held: Vec<&str> =
        old["status"]["loadBalancer"].list("ingress").iter().map(|address| address.text("ip")).collect();
    for (index, address) in ingress.iter().enumerate() {
        let path = path.index(index);
        let (value, hostname) = (address.text("ip"), address.text("hostname"));
        if !value.is_empty() {
            ip::check_ip(errors, value, &path.child("ip"), &held);
        }
        let mode_path = path.child("ipMode");
        match address.maybe_text("ipMode") {
            None if !value.is_empty() => {
                errors.push(Error::required(&mode_path, "must be specified when `ip` is set"));
            }
            Some(_) if value.is_empty() => {
                errors.push(Error::forbidden(&mode_path, "may not be specified when `ip` is not set"));
            }
            Some(mode) => supported(errors, mode, &mode_path, &["Proxy", "VIP"]),
            None => {}
        }
        if !hostname.is_empty() {
            invalid_each(errors, &path.child("hostname"), hostname, text::dns1123_subdomain(hostname));
            if ip::parse_sloppy(hostname).is_some() {
                errors.push(Error::invalid(
                    &path.child("hostname"),
                    hostname,
                    "must be a DNS name, not an IP address",
                ));
            }
        }
    }
}

fn warnings(warnings: &mut Vec<String>, service: &Value) {
    let (annotations, spec) = (&service["metadata"]["annotations"], &service["spec"]);
    let path = Path::root("spec");
    let kind = spec.text("type");
    let headless = kind == "ClusterIP" && spec.text("clusterIP") == "None";
    let external = spec.list("externalIPs");
    if annotations.has(TOPOLOGY_HINTS) {
        warnings
            .push(format!("annotation {TOPOLOGY_HINTS} is deprecated, please use {TOPOLOGY_MODE} instead"));
    }
    let mut addresses = |key: &str| {
        let list_path = path.child(key);
        for (index, address) in spec.list(key).iter().enumerate() {
            warnings.extend(ip::ip_warning(item_text(address), &list_path.index(index)));
        }
    };
    if !matches!(spec.text("clusterIP"), "" | "None") {
        addresses("clusterIPs");
    }
    addresses("externalIPs");
    if headless {
        if !spec.text("loadBalancerIP").is_empty() {
            warnings.push("spec.loadBalancerIP is ignored for headless services".to_owned());
        }
        if !external.is_empty() {
            warnings.push("spec.externalIPs is ignored for headless services".to_owned());
        }
        if spec.text("sessionAffinity") != "None" {
            warnings.push("spec.SessionAffinity is ignored for headless services".to_owned());
        }
    }
    if !external.is_empty() && !headless && kind != "ExternalName" {
        warnings.push(
            "spec.externalIPs is deprecated and may no longer be implemented in some clusters".to_owned(),
        );
    }
    let balancer = spec.text("loadBalancerIP");
    if !balancer.is_empty() {
        warnings.extend(ip::ip_warning(balancer, &path.child("loadBalancerIP")));
    }
    if kind == "ExternalName" && !external.is_empty() {
        warnings.push("spec.externalIPs is ignored when spec.type is \"ExternalName\"".to_owned());
    }
    if kind != "ExternalName" && !spec.text("externalName").is_empty() {
        warnings.push("spec.externalName is ignored when spec.type is not \"ExternalName\"".to_owned());
    }
    if spec.text("trafficDistribution") == "PreferClose" {
        warnings.push(
            "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"".to_owned(),
        );
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    const CTX: Context<'static> =
        Context { now: jiff::Timestamp::UNIX_EPOCH, user: "u", subresource: None, allow_privileged: true };

    fn stored(spec: Value) -> Value {
        let mut service = json!({"spec": spec});
        Service.default(&mut service);
        Service.prepare_for_create(&CTX, &mut service);
        service
    }

    #[test]
    fn an_update_may_leave_allocated_values_out() {
        let mut old = stored(json!({"type": "NodePort", "ports": [{"name": "a", "port": 1}]}));
        old.set_at(&["spec", "clusterIP"], "10.0.0.1");
        old.set_at(&["spec", "clusterIPs"], json!(["10.0.0.1"]));
        old.set_at(
            &["spec", "ports"],
            json!([{"name": "a", "port": 1, "targetPort": 1, "protocol": "TCP", "nodePort": 30000}]),
        );
        let mut new = stored(json!({"type": "NodePort", "ports": [{"name": "a", "port": 2}]}));
        Service.prepare_for_update(&CTX, &mut new, &old);
        assert_eq!(new["spec"].text("clusterIP"), "10.0.0.1");
        assert_eq!(new["spec"]["ports"][0].int("nodePort"), 30000);
        assert!(Service.validate_update(&CTX, &new, &old).is_empty());
    }

    #[test]
    fn the_single_address_leads_the_list() {
        let old = json!({"type": "ClusterIP", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"]});
        let after = |mut new: Value| {
            list_of_cluster_ips(new.ensure_object(), Some(&old));
            new["clusterIPs"].clone()
        };
        assert_eq!(after(json!({"clusterIP": "10.0.0.1"})), json!(["10.0.0.1"]));
        assert_eq!(after(json!({"clusterIP": "10.0.0.2", "clusterIPs": ["10.0.0.1"]})), json!(["10.0.0.2"]));
        assert_eq!(after(json!({"clusterIPs": ["10.0.0.1"]})), Value::Null);
    }

    #[test]
    fn families_follow_the_addresses() {
        let of = |spec: Value| stored(spec)["spec"]["ipFamilies"].clone();
        assert_eq!(of(json!({"ports": [{"port": 1}]})), Value::Null, "the cluster decides");
        assert_eq!(of(json!({"clusterIP": "fd00::1"})), json!(["IPv6"]));
        let policy = |spec: Value| stored(spec)["spec"]["ipFamilyPolicy"].clone();
        assert_eq!(policy(json!({"clusterIP": "None"})), json!("RequireDualStack"));
        assert_eq!(policy(json!({"clusterIP": "None", "selector": {"a": "b"}})), json!("SingleStack"));
        assert_eq!(of(json!({"type": "ExternalName", "externalName": "a"})), Value::Null);
    }
}
