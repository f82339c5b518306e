//! The functions that KWOK adds to Go's templates.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::LazyLock;

use api::view::{Node, Pod};
use apimachinery::{Object, Str, Value};
use client::Informer;
use gotemplate::{Datum, Functions, Parameter, Signature};
use jiff::Timestamp;

use crate::sim::network::Network;
use crate::sim::node_object::CONDITIONS;

/// What `Version` says.
const VERSION: &str = concat!("v", env!("CARGO_PKG_VERSION"));

/// What `StartTime` says: when this process first needed it.
static START_TIME: LazyLock<String> = LazyLock::new(|| nanoseconds(rt::now()));

/// The functions as templates are parsed with them.
pub struct Names;

/// The functions for one object.
pub struct Scene<'s> {
    pub object: &'s Object,
    pub nodes: &'s Informer,
    pub network: &'s Network,
    /// A pod found no free address: it is to be played again when one is.
    pub starved: Cell<bool>,
}

impl Functions for Names {
    fn signature(&self, name: &str) -> Option<Signature> {
        use Parameter::{Any, Bool, Int, Text};
        let fixed = |parameters| Some(Signature { parameters, variadic: false });
        match name {
            "Quote" => fixed(&[Any]),
            "YAML" => Some(Signature { parameters: &[Any, Int], variadic: true }),
            "Now" | "StartTime" | "Version" | "NodeConditions" | "NodeIP" | "NodeName" | "NodePort"
            | "PodIP" => fixed(&[]),
            "NodeIPWith" | "NodeIPsWith" => fixed(&[Text]),
            // Node, host network, uid, name, namespace.
            "PodIPWith" | "PodIPsWith" => fixed(&[Text, Bool, Text, Text, Text]),
            _ => None,
        }
    }

    fn call(&self, name: &str, _: &[Datum]) -> Result<Datum, String> {
        Err(format!("{name} needs an object"))
    }
}

impl Functions for Scene<'_> {
    fn signature(&self, name: &str) -> Option<Signature> {
        Names.signature(name)
    }

    fn call(&self, name: &str, arguments: &[Datum]) -> Result<Datum, String> {
        let text = |index: usize| match arguments.get(index) {
            Some(Datum::Text(text)) => text.as_str(),
            _ => "",
        };
        let list = |address: Option<Str>| Datum::list(address.into_iter().map(Datum::Text).collect());
        let one = |address: Option<Str>| Datum::Text(address.unwrap_or_default());
        Ok(match name {
            "Quote" => quote(&arguments[0]).into(),
            "YAML" => yaml(arguments).into(),
            "Now" => nanoseconds(rt::now()).into(),
            "StartTime" => START_TIME.as_str().into(),
            "Version" => VERSION.into(),
            "NodeConditions" => node_conditions(),
            "NodeIP" => one(self.own_node_ip()),
            "NodeName" => Datum::Text(self.node_name()),
            // Simulated nodes have no port to call.
            "NodePort" => Datum::Int(0),
            "NodeIPWith" => one(self.node_ip(text(0))),
            "NodeIPsWith" => list(self.node_ip(text(0))),
            "PodIP" => one(self.pod_ip(&self.node_name(), false, self.object.uid())?),
            "PodIPWith" => one(self.pod_ip(text(0), is_true(&arguments[1]), text(2))?),
            "PodIPsWith" => list(self.pod_ip(text(0), is_true(&arguments[1]), text(2))?),
            other => return Err(format!("{other} is not a function")),
        })
    }
}

impl Scene<'_> {
    /// The node that the object is, or that it runs on.
    fn node_name(&self) -> Str {
        match self.object.kind() {
            "Node" => self.object.name().into(),
            "Pod" => self.object.view::<Pod>().map(|pod| pod.spec.node_name.clone()).unwrap_or_default(),
            _ => Str::default(),
        }
    }

    /// The address of that node; a node without one gets one.
    fn own_node_ip(&self) -> Option<Str> {
        let name = self.node_name();
        self.node_ip(&name).or_else(|| {
            let uid = (self.object.kind() == "Node").then(|| self.object.uid())?;
            self.network.hold_for_node(uid)
        })
    }

    fn node_ip(&self, name: &str) -> Option<Str> {
        let node = self.nodes.get("", name)?.view::<Node>().ok()?;
        node.address("InternalIP").or_else(|| node.address("ExternalIP")).map(Str::from)
    }

    fn pod_ip(&self, node: &str, host_network: bool, uid: &str) -> Result<Option<Str>, String> {
        if host_network {
            return Ok(self.node_ip(node));
        }
        let Some(object) = self.nodes.get("", node) else { return Ok(None) };
        let Ok(node) = object.view::<Node>() else { return Ok(None) };
        match self.network.hold(uid, &node.spec.pod_cidr) {
            Some(address) => Ok(Some(address)),
            None => {
                self.starved.set(true);
                Err(format!("no address of {} is free", node.spec.pod_cidr))
            }
        }
    }
}

fn is_true(datum: &Datum) -> bool {
    matches!(datum, Datum::Bool(true))
}

/// `time.RFC3339Nano`
fn nanoseconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S%.fZ").to_string()
}

/// A text as JSON, anything else as JSON in a text.
fn quote(datum: &Datum) -> String {
    let json = datum.to_value().to_json_string();
    match datum {
        Datum::Text(_) | Datum::Time(_) => json,
        _ => Value::from(json).to_json_string(),
    }
}

/// With an indentation, each line goes on one of its own, that many steps of two in.
fn yaml(arguments: &[Datum]) -> String {
    let text = arguments[0].to_value().to_yaml();
    match arguments.get(1..) {
        Some([Datum::Int(steps)]) if *steps > 0 => {
            let pad = " ".repeat(usize::try_from(*steps).unwrap_or(0).min(64) * 2);
            format!("\n{text}").replace('\n', &format!("\n{pad}"))
        }
        _ => text,
    }
}

fn node_conditions() -> Datum {
    let condition = |[type_, status, reason, message]: &[&str; 4]| {
        let fields = [("type", *type_), ("status", *status), ("reason", *reason), ("message", *message)];
        let fields: BTreeMap<Str, Datum> =
            fields.into_iter().map(|(name, text)| (name.into(), text.into())).collect();
        Datum::map(fields)
    };
    CONDITIONS.iter().map(condition).collect::<Vec<_>>().into()
}
