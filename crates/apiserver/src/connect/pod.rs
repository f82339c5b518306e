//! Pods: their logs, processes and ports, and whatever listens at their address.

use std::sync::Arc;

use apimachinery::field::{self, Path};
use apimachinery::{GroupKind, GroupResource, Object, Status, Value};

use super::kubelet::is_simulated;
use super::{Backend, Finder, Location, Target, encode_query, is_global_unicast, rest_path};

impl Finder<'_> {
    /// `pods/log`.
    pub(super) fn log(&self) -> Result<Option<Location>, Status> {
        let options = LogOptions::read(self)?;
        let pod = self.named_pod(self.call.name)?.to_value();
        let container = self.container(&pod)?;
        let node = pod.str_at(&["spec", "nodeName"]);
        if node.is_empty() {
            return Ok(None);
        }
        let kubelet = self.kubelet(node)?;
        let path = format!("/containerLogs/{}/{}/{container}", self.call.namespace, self.call.name);
        let backend = if self.query.flag("insecureSkipTLSVerifyBackend") {
            Backend::UncheckedKubelet
        } else {
            Backend::Kubelet
        };
        Ok(Some(kubelet.location(path, Some(encode_query(options.0)), backend)))
    }

    /// `pods/exec` and `pods/attach`.
    pub(super) fn stream(&self) -> Result<Location, Status> {
        let pod = self.named_pod(self.call.name)?.to_value();
        let container = self.container(&pod)?;
        let kubelet = self.kubelet(self.node_of(&pod)?)?;
        let subresource = self.call.subresource;
        let path = format!("/{subresource}/{}/{}/{container}", self.call.namespace, self.call.name);
        let flags = [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")];
        let wanted = flags.into_iter().filter(|(given, _)| self.query.flag(given));
        let mut pairs: Vec<(&str, String)> = wanted.map(|(_, sent)| (sent, "1".to_owned())).collect();
        if subresource == "exec" {
            pairs.extend(self.query.values("command").map(|word| ("command", word.to_owned())));
        }
        Ok(kubelet.location(path, Some(encode_query(pairs)), Backend::Kubelet))
    }

    /// `pods/portforward`.
    pub(super) fn port_forward(&self) -> Result<Location, Status> {
        let pod = self.named_pod(self.call.name)?.to_value();
        let kubelet = self.kubelet(self.node_of(&pod)?)?;
        let ports: Vec<&str> = self.query.values("ports").collect();
        let mut pairs = Vec::new();
        if !ports.is_empty() {
            pairs.push(("port", ports.join(",")));
        }
        let path = format!("/portForward/{}/{}", self.call.namespace, self.call.name);
        Ok(kubelet.location(path, Some(encode_query(pairs)), Backend::Kubelet))
    }

    /// `pods/proxy`: the first port of the pod, unless one is named.
    pub(super) fn pod(&self, rest: &str) -> Result<Location, Status> {
        let target = Target::parse_numbered(self.call.name)
            .ok_or_else(|| Status::bad_request(format!("invalid pod request {:?}", self.call.name)))?;
        let pod = self.named_pod(target.name)?.to_value();
        let first_port = || {
            let containers = pod.array_at(&["spec", "containers"]).iter();
            let port = containers.flat_map(|container| container.array_at(&["ports"])).next()?;
            Some(port["containerPort"].as_i64()?.to_string())
        };
        let port = match target.port {
            "" => first_port().unwrap_or_default(),
            given => given.to_owned(),
        };
        let ip = pod.str_at(&["status", "podIP"]);
        if !ip.parse().is_ok_and(is_global_unicast) {
            return Err(Status::bad_request("address not allowed"));
        }
        self.check_reachable(target.name, pod.str_at(&["spec", "nodeName"]))?;
        Ok(Location {
            scheme: target.scheme,
            host: ip.to_owned(),
            port,
            path: rest_path(rest),
            query: None,
            backend: Backend::Cluster,
        })
    }

    /// A pod on a simulated node has an address that nothing listens at.
    pub(super) fn check_reachable(&self, pod: &str, node: &str) -> Result<(), Status> {
        if self.objects.get(&api::gvr::NODES, "", node).is_some_and(|node| is_simulated(&node)) {
            return Err(Status::unavailable(format!(
                "error trying to reach service: pod {pod:?} is on the simulated node {node:?}, where no container runs"
            )));
        }
        Ok(())
    }

    pub(super) fn named_pod(&self, name: &str) -> Result<Arc<Object>, Status> {
        self.objects
            .get(&api::gvr::PODS, self.call.namespace, name)
            .ok_or_else(|| Status::not_found(&GroupResource::new("", "pods"), name))
    }

    fn node_of<'p>(&self, pod: &'p Value) -> Result<&'p str, Status> {
        match pod.str_at(&["spec", "nodeName"]) {
            "" => Err(Status::bad_request(format!("pod {} does not have a host assigned", self.call.name))),
            node => Ok(node),
        }
    }

    /// The container that the request names, or the only one.
    fn container(&self, pod: &Value) -> Result<String, Status> {
        let name = self.call.name;
        let names = |list: &str| -> Vec<String> {
            let containers = pod.array_at(&["spec", list]).iter();
            containers.map(|container| container.str_at(&["name"]).to_owned()).collect()
        };
        let ordinary = names("containers");
        // The order in which upstream visits them.
        let all = || [names("initContainers"), ordinary.clone(), names("ephemeralContainers")].concat();
        match (self.query.get("container"), ordinary.as_slice()) {
            ("", [only]) => Ok(only.clone()),
            ("", []) => {
                Err(Status::bad_request(format!("a container name must be specified for pod {name}")))
            }
            ("", _) => Err(Status::bad_request(format!(
                "a container name must be specified for pod {name}, choose one of: [{}]",
                all().join(" ")
            ))),
            (given, _) if all().iter().any(|own| own == given) => Ok(given.to_owned()),
            (given, _) => Err(Status::bad_request(format!("container {given} is not valid for pod {name}"))),
        }
    }
}

/// `PodLogOptions`, checked, as the kubelet gets them.
struct LogOptions<'a>(Vec<(&'a str, String)>);

impl LogOptions<'_> {
    fn read(find: &Finder<'_>) -> Result<Self, Status> {
        let query = find.query;
        let mut pairs = Vec::new();
        let mut errors = Vec::new();
        for name in ["follow", "previous", "timestamps"] {
            if query.flag(name) {
                pairs.push((name, "true".to_owned()));
            }
        }
        let mut number = |name: &'static str, least: i64, text: &str| -> Result<bool, Status> {
            let Some(given) = query.integer(name)? else { return Ok(false) };
            if given < least {
                errors.push(field::Error::invalid(&Path::root(name), given, text));
            }
            pairs.push((name, given.to_string()));
            Ok(true)
        };
        number("tailLines", 0, "must be greater than or equal to 0")?;
        number("limitBytes", 1, "must be greater than 0")?;
        let has_seconds = number("sinceSeconds", 1, "must be greater than 0")?;
        let since = query.get("sinceTime");
        if !since.is_empty() {
            let time: jiff::Timestamp = since.parse().map_err(|error| {
                Status::bad_request(format!("sinceTime {since:?} is no RFC 3339 time: {error}"))
            })?;
            if has_seconds {
                let why = "at most one of `sinceTime` or `sinceSeconds` may be specified";
                errors.push(field::Error::forbidden(&Path::root(""), why));
            }
            pairs.push(("sinceTime", apimachinery::time::format_seconds(time)));
        }
        if query.has("stream") {
            errors.push(field::Error::forbidden(&Path::root("stream"), "may not be specified"));
        }
        if errors.is_empty() {
            return Ok(Self(pairs));
        }
        let kind = GroupKind { group: "".into(), kind: "PodLogOptions".into() };
        Err(Status::invalid(&kind, find.call.name, &errors))
    }
}
