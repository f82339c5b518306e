//! Where a request goes that is handed on: to a node's kubelet, to a pod, to a Service.
//!
//! Owns: which subresources are handed on ([`Purpose`]), whom each of them reaches and with which path and query
//! ([`locate`]), in upstream's words where it reaches nobody. Never touches: connections (those are `http::proxy`'s).
//!
//! Nothing here waits or dials: a location is looked up in the cache, so that every case is a row of a table.

mod kubelet;
mod node;
mod pod;
mod service;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use api::Resource;
use apimachinery::{GroupVersionResource, Object, Status, Value};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

pub use kubelet::{AddressType, DEFAULT_ADDRESS_TYPES, KubeletOptions};

use crate::door::Call;
use crate::http::query::Query;

/// What a handed-on request is for; it decides what is done with failures and answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// `pods/log`: a stream of text.
    Log,
    /// `pods/exec`, `attach`, `portforward`: a connection in both directions.
    Stream,
    /// `proxy` of pods, services and nodes: any HTTP.
    Proxy,
}

impl Purpose {
    /// `None` for subresources that are answered here.
    pub fn of(resource: &Resource, subresource: &str) -> Option<Self> {
        if !resource.group.is_empty() {
            return None;
        }
        match (resource.plural.as_str(), subresource) {
            ("pods", "log") => Some(Self::Log),
            ("pods", "exec" | "attach" | "portforward") => Some(Self::Stream),
            ("pods" | "services" | "nodes", "proxy") => Some(Self::Proxy),
            _ => None,
        }
    }
}

/// An address to send a request to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    pub scheme: Scheme,
    /// A name or an address, one of version 6 without brackets.
    pub host: String,
    /// Empty for the scheme's own.
    pub port: String,
    /// Begins with a slash, or is empty when nothing was asked for behind `proxy`.
    pub path: String,
    /// What the kubelet understands; `None` to hand on the client's own query.
    pub query: Option<String>,
    pub backend: Backend,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    Http,
    Https,
}

/// Who is there, and so how it is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// Gets the server's client certificate.
    Kubelet,
    /// As [`Backend::Kubelet`], its own certificate unchecked, as `insecureSkipTLSVerifyBackend` asks for.
    UncheckedKubelet,
    /// Something in the cluster, whose certificate nobody can check.
    Cluster,
}

impl Location {
    pub fn authority(&self) -> String {
        join_host_port(&self.host, &self.port)
    }
}

impl Scheme {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// What a location is found from.
pub trait Objects {
    /// The object, if there is one.
    fn get(&self, gvr: &GroupVersionResource, namespace: &str, name: &str) -> Option<Arc<Object>>;
}

/// Finds out where a request goes. `rest` is what the path has behind `proxy/`. `None` means that there is nothing to
/// reach and nothing to say: the log of a pod that is on no node.
pub fn locate(
    objects: &dyn Objects,
    kubelets: &KubeletOptions,
    call: &Call<'_>,
    query: &Query,
    rest: &str,
) -> Result<Option<Location>, Status> {
    let find = Finder { objects, kubelets, call, query };
    match (call.endpoint.resource.plural.as_str(), call.subresource) {
        ("pods", "log") => find.log(),
        ("pods", "exec" | "attach") => find.stream().map(Some),
        ("pods", "portforward") => find.port_forward().map(Some),
        ("pods", _) => find.pod(rest).map(Some),
        ("services", _) => find.service(rest).map(Some),
        _ => find.node(rest).map(Some),
    }
}

/// What a node's kubelet has at a path, which this server itself asks for.
pub fn kubelet_location(node: &Object, options: &KubeletOptions, path: &str) -> Result<Location, Status> {
    Ok(kubelet::of_node(node, options)?.location(path.to_owned(), None, Backend::Kubelet))
}

/// The options of a connection as an object: what admission looks at.
pub fn options(call: &Call<'_>, query: &Query, rest: &str) -> Value {
    let mut options = Value::object();
    let map = options.ensure_object();
    if let Some(subresource) = call.endpoint.resource.subresource(call.subresource) {
        map.insert("kind", subresource.kind.kind.clone());
        map.insert("apiVersion", subresource.kind.api_version());
    }
    for flag in ["stdin", "stdout", "stderr", "tty"] {
        if query.flag(flag) {
            map.insert(flag, true);
        }
    }
    let container = query.get("container");
    if !container.is_empty() {
        map.insert("container", container);
    }
    let command: Vec<&str> = query.values("command").collect();
    if !command.is_empty() {
        map.insert("command", command);
    }
    let ports: Vec<i64> = query.values("ports").filter_map(|port| port.parse().ok()).collect();
    if !ports.is_empty() {
        map.insert("ports", ports);
    }
    if call.subresource == "proxy" && !rest.is_empty() {
        map.insert("path", rest);
    }
    options
}

/// A request on its way to a location.
struct Finder<'a> {
    objects: &'a dyn Objects,
    kubelets: &'a KubeletOptions,
    call: &'a Call<'a>,
    query: &'a Query,
}

/// `name`, `name:port` or `scheme:name:port`.
struct Target<'a> {
    scheme: Scheme,
    name: &'a str,
    /// A number or a port's name; empty when not given.
    port: &'a str,
}

impl<'a> Target<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.split(':');
        let (first, second, third) = (parts.next()?, parts.next(), parts.next());
        let (scheme, name, port) = match (second, third) {
            (None, _) => ("", first, ""),
            (Some(port), None) => ("", first, port),
            (Some(name), Some(port)) => (first, name, port),
        };
        let scheme = match scheme {
            "" | "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return None,
        };
        // A port becomes part of an address: in what has an `@` or a `/`, it would be an address of the client's choice.
        let is_port = port.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        (parts.next().is_none() && !name.is_empty() && is_port).then_some(Self { scheme, name, port })
    }

    /// As [`Target::parse`], where nobody knows ports by their names.
    fn parse_numbered(text: &'a str) -> Option<Self> {
        Self::parse(text).filter(|target| {
            target.port.is_empty() || target.port.parse::<u16>().is_ok_and(|number| number > 0)
        })
    }
}

/// Host and port as a URL has them.
pub(crate) fn join_host_port(host: &str, port: &str) -> String {
    let is_v6 = host.contains(':');
    match (is_v6, port.is_empty()) {
        (true, true) => format!("[{host}]"),
        (false, true) => host.to_owned(),
        (true, false) => format!("[{host}]:{port}"),
        (false, false) => format!("{host}:{port}"),
    }
}

/// Go's `IsGlobalUnicast`: what a proxy may reach. Anything else is this machine or its neighbours.
pub(crate) fn is_global_unicast(ip: std::net::IpAddr) -> bool {
    let special = match ip {
        std::net::IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
        std::net::IpAddr::V6(ip) => {
            ip.is_unicast_link_local() || ip.to_ipv4_mapped().is_some_and(|ip| !is_global_unicast(ip.into()))
        }
    };
    !special && !ip.is_unspecified() && !ip.is_loopback() && !ip.is_multicast()
}

/// What need not be escaped in a query, by Go's `url.QueryEscape`.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Pairs as a query, in the order of their names, as Go's `url.Values` writes them.
fn encode_query(mut pairs: Vec<(&str, String)>) -> String {
    pairs.sort_by_key(|(name, _)| *name);
    let escape = |text: &str| utf8_percent_encode(text, QUERY).to_string();
    let pairs: Vec<String> =
        pairs.iter().map(|(name, value)| format!("{}={}", escape(name), escape(value))).collect();
    pairs.join("&")
}

/// What follows `proxy` in the path, as the path of the request that is handed on.
fn rest_path(rest: &str) -> String {
    /// What may stand in a path as it is; `%` may not, since the path was decoded.
    const PATH: &AsciiSet = &percent_encoding::CONTROLS
        .add(b' ')
        .add(b'"')
        .add(b'#')
        .add(b'<')
        .add(b'>')
        .add(b'?')
        .add(b'`')
        .add(b'{')
        .add(b'}')
        .add(b'%')
        .add(b'^')
        .add(b'|')
        .add(b'\\');
    if rest.is_empty() { String::new() } else { format!("/{}", utf8_percent_encode(rest, PATH)) }
}
