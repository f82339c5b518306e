//! `networking.k8s.io/v1.NetworkPolicy`.

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path};

use crate::strategy::{Context, Strategy};
use crate::validation::fields::{Fields, invalid_each, item_text, supported};
use crate::validation::{ip, selector, text};

const PROTOCOLS: [&str; 3] = ["TCP", "UDP", "SCTP"];
const TYPES: [&str; 2] = ["Ingress", "Egress"];

pub struct NetworkPolicy;

impl Strategy for NetworkPolicy {
    fn validate(&self, _ctx: &Context<'_>, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        spec(&mut errors, &object["spec"], &[]);
        errors
    }

    fn validate_update(&self, _ctx: &Context<'_>, new: &Value, old: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        spec(&mut errors, &new["spec"], &blocks_of(&old["spec"]));
        errors
    }
}

/// The blocks that a policy already held, which stay valid.
fn blocks_of(spec: &Value) -> Vec<&str> {
    [("ingress", "from"), ("egress", "to")]
        .iter()
        .flat_map(|(rules, peers)| spec.list(rules).iter().flat_map(|rule| rule.list(peers)))
        .filter_map(|peer| peer.maybe("ipBlock"))
        .flat_map(|block| {
            std::iter::once(block.text("cidr")).chain(block.list("except").iter().map(item_text))
        })
        .collect()
}

fn spec(errors: &mut ErrorList, spec: &Value, held: &[&str]) {
    let path = Path::root("spec");
    selector::label_selector(errors, spec.maybe("podSelector"), &path.child("podSelector"));
    for (rules, peers) in [("ingress", "from"), ("egress", "to")] {
        let rules_path = path.child(rules);
        for (index, rule) in spec.list(rules).iter().enumerate() {
            let path = rules_path.index(index);
            let ports_path = path.child("ports");
            for (index, port) in rule.list("ports").iter().enumerate() {
                self::port(errors, port, &ports_path.index(index));
            }
            let peers_path = path.child(peers);
            for (index, peer) in rule.list(peers).iter().enumerate() {
                self::peer(errors, peer, held, &peers_path.index(index));
            }
        }
    }
    let types = spec.list("policyTypes");
    let types_path = path.child("policyTypes");
    if types.len() > TYPES.len() {
        errors.push(Error::invalid(
            &types_path,
            &spec["policyTypes"],
            "may not specify more than two policyTypes",
        ));
        return;
    }
    for (index, kind) in types.iter().enumerate() {
        supported(errors, item_text(kind), &types_path.index(index), &TYPES);
    }
}

fn port(errors: &mut ErrorList, port: &Value, path: &Path<'_>) {
    if let Some(protocol) = port.maybe_text("protocol") {
        supported(errors, protocol, &path.child("protocol"), &PROTOCOLS);
    }
    let (port_path, end_path) = (path.child("port"), path.child("endPort"));
    let end = port.maybe_int("endPort");
    match port.maybe("port") {
        None => {
            if let Some(end) = end {
                errors.push(Error::invalid(
                    &end_path,
                    end,
                    "may not be specified when `port` is not specified",
                ));
            }
        }
        Some(Value::String(name)) => {
            if let Some(end) = end {
                errors.push(Error::invalid(
                    &end_path,
                    end,
                    "may not be specified when `port` is non-numeric",
                ));
            }
            invalid_each(errors, &port_path, name.as_str(), text::port_name(name));
        }
        Some(number) => {
            let number = number.as_i64().unwrap_or_default();
            invalid_each(errors, &port_path, number, text::port_number(number));
            if let Some(end) = end {
                if end < number {
                    errors.push(Error::invalid(&end_path, number, "must be greater than or equal to `port`"));
                }
                invalid_each(errors, &end_path, end, text::port_number(end));
            }
        }
    }
}

fn peer(errors: &mut ErrorList, peer: &Value, held: &[&str], path: &Path<'_>) {
    let mut peers = 0;
    for key in ["podSelector", "namespaceSelector"] {
        if let Some(own) = peer.maybe(key) {
            peers += 1;
            selector::label_selector(errors, Some(own), &path.child(key));
        }
    }
    if let Some(block) = peer.maybe("ipBlock") {
        peers += 1;
        ip_block(errors, block, held, &path.child("ipBlock"));
    }
    if peers == 0 {
        errors.push(Error::required(path, "must specify a peer"));
    } else if peers > 1 && peer.has("ipBlock") {
        errors.push(Error::forbidden(path, "may not specify both ipBlock and another peer"));
    }
}

fn ip_block(errors: &mut ErrorList, block: &Value, held: &[&str], path: &Path<'_>) {
    let cidr_path = path.child("cidr");
    let cidr = block.text("cidr");
    if cidr.is_empty() {
        errors.push(Error::required(&cidr_path, ""));
        return;
    }
    let before = errors.len();
    ip::check_cidr(errors, cidr, &cidr_path, held);
    let Some(whole) = ip::parse_cidr(cidr) else { return };
    if errors.len() > before {
        return;
    }
    let except_path = path.child("except");
    for (index, except) in block.list("except").iter().map(item_text).enumerate() {
        let path = except_path.index(index);
        ip::check_cidr(errors, except, &path, held);
        if let Some(part) = ip::parse_cidr(except)
            && !ip::is_strict_part(part, whole)
        {
            errors.push(Error::invalid(&path, except, "must be a strict subset of `cidr`"));
        }
    }
}
