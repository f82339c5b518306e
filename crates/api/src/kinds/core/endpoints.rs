//! `v1.Endpoints`, the predecessor of EndpointSlice.

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path};

use super::pod::container::PROTOCOLS;
use crate::strategy::{Context, Strategy};
use crate::validation::fields::{Fields, invalid_each, one_of, same};
use crate::validation::{ip, text};

pub struct Endpoints;

impl Strategy for Endpoints {
    fn validate(&self, _ctx: &Context<'_>, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let path = Path::root("subsets");
        for (index, subset) in object.list("subsets").iter().enumerate() {
            self::subset(&mut errors, subset, &path.index(index));
        }
        errors
    }

    /// Subsets that did not change were accepted once and stay so.
    fn validate_update(&self, ctx: &Context<'_>, new: &Value, old: &Value) -> ErrorList {
        if same(&new["subsets"], &old["subsets"]) { ErrorList::new() } else { self.validate(ctx, new) }
    }

    fn warnings(&self, ctx: &Context<'_>, new: &Value, _old: Option<&Value>) -> Vec<String> {
        if ctx.subresource.is_some() { Vec::new() } else { crate::kinds::warnings::endpoints(new) }
    }
}

fn subset(errors: &mut ErrorList, subset: &Value, path: &Path<'_>) {
    if subset.list("addresses").is_empty() && subset.list("notReadyAddresses").is_empty() {
        errors.push(Error::required(path, "must specify `addresses` or `notReadyAddresses`"));
    }
    for list in ["addresses", "notReadyAddresses"] {
        let path = path.child(list);
        for (index, address) in subset.list(list).iter().enumerate() {
            self::address(errors, address, &path.index(index));
        }
    }
    let ports = subset.list("ports");
    let path = path.child("ports");
    for (index, port) in ports.iter().enumerate() {
        self::port(errors, port, ports.len() > 1, &path.index(index));
    }
}

fn address(errors: &mut ErrorList, address: &Value, path: &Path<'_>) {
    let (value, hostname) = (address.text("ip"), address.text("hostname"));
    ip::check_ip(errors, value, &path.child("ip"), &[]);
    if !hostname.is_empty() {
        invalid_each(errors, &path.child("hostname"), hostname, text::dns1123_label(hostname));
    }
    if let Some(node) = address.maybe_text("nodeName") {
        invalid_each(errors, &path.child("nodeName"), node, text::dns1123_subdomain(node));
    }
    ip::check_endpoint_ip(errors, value, &path.child("ip"));
}

fn port(errors: &mut ErrorList, port: &Value, needs_name: bool, path: &Path<'_>) {
    let name = port.text("name");
    if !name.is_empty() {
        invalid_each(errors, &path.child("name"), name, text::dns1123_label(name));
    } else if needs_name {
        errors.push(Error::required(&path.child("name"), ""));
    }
    let number = port.int("port");
    invalid_each(errors, &path.child("port"), number, text::port_number(number));
    one_of(errors, port.text("protocol"), &path.child("protocol"), &PROTOCOLS);
    if let Some(protocol) = port.maybe_text("appProtocol") {
        invalid_each(errors, &path.child("appProtocol"), protocol, text::qualified_name(protocol));
    }
}
