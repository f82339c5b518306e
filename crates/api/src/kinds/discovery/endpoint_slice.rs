//! `discovery.k8s.io/v1.EndpointSlice`.

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path};

use crate::kinds::core::pod::container::PROTOCOLS;
use crate::strategy::{Context, Strategy};
use crate::validation::fields::{Fields, immutable, invalid_each, item_text, one_of, same, supported};
use crate::validation::{ip, selector, text};

const ADDRESSES_MAX: usize = 100;
const ENDPOINTS_MAX: usize = 1000;
const HINTS_MAX: usize = 8;
const PORTS_MAX: usize = 20_000;
const TOPOLOGY_LABELS_MAX: usize = 16;
const ADDRESS_TYPES: [&str; 3] = ["FQDN", "IPv4", "IPv6"];

pub struct EndpointSlice;

impl Strategy for EndpointSlice {
    fn validate(&self, _ctx: &Context<'_>, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        slice(&mut errors, object);
        endpoints(&mut errors, object);
        errors
    }

    fn validate_update(&self, _ctx: &Context<'_>, new: &Value, old: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        slice(&mut errors, new);
        // Endpoints that did not change were accepted once and stay so.
        if !same(&new["endpoints"], &old["endpoints"]) {
            endpoints(&mut errors, new);
        }
        immutable(&mut errors, new, old, "addressType", &Path::root("addressType"));
        errors
    }

    fn warnings(&self, ctx: &Context<'_>, new: &Value, old: Option<&Value>) -> Vec<String> {
        if ctx.subresource.is_some() { Vec::new() } else { crate::kinds::warnings::endpoint_slice(new, old) }
    }
}

fn slice(errors: &mut ErrorList, object: &Value) {
    one_of(errors, object.text("addressType"), &Path::root("addressType"), &ADDRESS_TYPES);
    let ports = object.list("ports");
    let path = Path::root("ports");
    if ports.len() > PORTS_MAX {
        errors.push(Error::too_many(&path, ports.len(), PORTS_MAX));
        return;
    }
    for (index, port) in ports.iter().enumerate() {
        let path = path.index(index);
        let name = port.text("name");
        if !name.is_empty() {
            invalid_each(errors, &path.child("name"), name, text::dns1123_label(name));
        }
        if ports[..index].iter().any(|other| other.text("name") == name) {
            errors.push(Error::duplicate(&path.child("name"), name));
        }
        match port.maybe_text("protocol") {
            None => errors.push(Error::required(&path.child("protocol"), "")),
            Some(protocol) => supported(errors, protocol, &path.child("protocol"), &PROTOCOLS),
        }
        if let Some(protocol) = port.maybe_text("appProtocol") {
            invalid_each(errors, &path.child("appProtocol"), protocol, text::qualified_name(protocol));
        }
    }
}

fn endpoints(errors: &mut ErrorList, object: &Value) {
    let endpoints = object.list("endpoints");
    let path = Path::root("endpoints");
    if endpoints.len() > ENDPOINTS_MAX {
        errors.push(Error::too_many(&path, endpoints.len(), ENDPOINTS_MAX));
        return;
    }
    for (index, endpoint) in endpoints.iter().enumerate() {
        self::endpoint(errors, endpoint, object.text("addressType"), &path.index(index));
    }
}

fn endpoint(errors: &mut ErrorList, endpoint: &Value, address_type: &str, path: &Path<'_>) {
    let list = endpoint.list("addresses");
    let addresses_path = path.child("addresses");
    if list.is_empty() {
        errors.push(Error::required(&addresses_path, "must contain at least 1 address"));
    } else if list.len() > ADDRESSES_MAX {
        errors.push(Error::too_many(&addresses_path, list.len(), ADDRESSES_MAX));
    }
    for (index, address) in list.iter().map(item_text).enumerate() {
        self::address(errors, address, address_type, &addresses_path, &addresses_path.index(index));
    }
    if let Some(node) = endpoint.maybe_text("nodeName") {
        invalid_each(errors, &path.child("nodeName"), node, text::dns1123_subdomain(node));
    }
    let topology_path = path.child("deprecatedTopology");
    let topology = endpoint.map("deprecatedTopology");
    if let Some(count) = topology.map(apimachinery::Map::len).filter(|count| *count > TOPOLOGY_LABELS_MAX) {
        errors.push(Error::too_many(&topology_path, count, TOPOLOGY_LABELS_MAX));
    }
    selector::labels(errors, topology, &topology_path);
    if let Some(hostname) = endpoint.maybe_text("hostname") {
        invalid_each(errors, &path.child("hostname"), hostname, text::dns1123_label(hostname));
    }
    if let Some(hints) = endpoint.maybe("hints") {
        let path = path.child("hints");
        self::hints(errors, hints.list("forZones"), text::label_value, &path.child("forZones"));
        self::hints(errors, hints.list("forNodes"), text::dns1123_subdomain, &path.child("forNodes"));
    }
}

fn address(errors: &mut ErrorList, address: &str, address_type: &str, list_path: &Path<'_>, path: &Path<'_>) {
    let before = errors.len();
    match address_type {
        "IPv4" => ip::check_ip(errors, address, path, &[]),
        "IPv6" => ip::check_canonical_ip(errors, address, path),
        "FQDN" => return fully_qualified(errors, address, path),
        _ => return,
    }
    if errors.len() > before {
        return;
    }
    let is_v4 = ip::parse_sloppy(address).is_some_and(|parsed| parsed.is_ipv4());
    if is_v4 != (address_type == "IPv4") {
        errors.push(Error::invalid(list_path, address, format!("must be an {address_type} address")));
    }
    ip::check_endpoint_ip(errors, address, path);
}

fn fully_qualified(errors: &mut ErrorList, name: &str, path: &Path<'_>) {
    if name.is_empty() {
        errors.push(Error::required(path, ""));
        return;
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    let messages = text::dns1123_subdomain(name);
    if !messages.is_empty() {
        errors.push(Error::invalid(path, name, messages.join(",")));
        return;
    }
    if !name.contains('.') {
        errors.push(Error::invalid(
            path,
            name,
            "should be a domain with at least two segments separated by dots",
        ));
        return;
    }
    if let Some((label, messages)) = name
        .split('.')
        .map(|label| (label, text::dns1123_label(label)))
        .find(|(_, messages)| !messages.is_empty())
    {
        errors.push(Error::invalid(path, label, messages.join(",")));
    }
}

fn hints(errors: &mut ErrorList, hints: &[Value], form: fn(&str) -> text::Messages, path: &Path<'_>) {
    if hints.len() > HINTS_MAX {
        errors.push(Error::too_many(path, hints.len(), HINTS_MAX));
        return;
    }
    for (index, hint) in hints.iter().enumerate() {
        let path = path.index(index);
        let path = path.child("name");
        let name = hint.text("name");
        if hints[..index].iter().any(|other| other.text("name") == name) {
            errors.push(Error::duplicate(&path, name));
        }
        invalid_each(errors, &path, name, form(name));
    }
}
