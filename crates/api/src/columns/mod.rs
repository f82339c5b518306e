//! What `kubectl get` shows of each kind: column definitions and the cells of one object.
//!
//! Owns: upstream's columns of built-in kinds, cell for cell ([`for_kind`]). Never touches: the answer around them
//! ([`crate::table`]), custom resources' own columns. One file per API group; [`cell`] has what they share.
//!
//! Cells read an object in the version in which it is stored (events as core/v1, autoscalers as autoscaling/v2).
//! Descriptions of columns are empty: clients do not show them.

mod admission;
mod apps;
mod autoscaling;
mod batch;
mod cell;
mod certificates;
mod core;
mod duration;
mod flowcontrol;
mod network;
mod node;
mod pod;
mod rbac;
mod registration;
mod resource;
mod scheduling;
mod selector;
mod storage;

#[cfg(test)]
mod tests;

use apimachinery::Value;
use jiff::Timestamp;

use crate::strategy::{Column, Columns};

pub use duration::human_duration;

type Cells = fn(&Value, Timestamp) -> Vec<Value>;

/// A group's kinds with columns of their own.
type Kinds = &'static [(&'static str, &'static [Column], Cells)];

/// Every group with columns of its own; the one visible list.
const GROUPS: &[(&str, Kinds)] = &[
    ("", core::KINDS),
    ("admissionregistration.k8s.io", admission::KINDS),
    ("apiregistration.k8s.io", registration::KINDS),
    ("apps", apps::KINDS),
    ("autoscaling", autoscaling::KINDS),
    ("batch", batch::KINDS),
    ("certificates.k8s.io", certificates::KINDS),
    ("coordination.k8s.io", node::COORDINATION),
    ("discovery.k8s.io", network::DISCOVERY),
    ("events.k8s.io", core::EVENTS),
    ("flowcontrol.apiserver.k8s.io", flowcontrol::KINDS),
    ("internal.apiserver.k8s.io", registration::INTERNAL),
    ("networking.k8s.io", network::NETWORKING),
    ("node.k8s.io", node::NODE),
    ("policy", apps::POLICY),
    ("rbac.authorization.k8s.io", rbac::KINDS),
    ("resource.k8s.io", resource::KINDS),
    ("scheduling.k8s.io", scheduling::KINDS),
    ("storage.k8s.io", storage::KINDS),
    ("storagemigration.k8s.io", storage::MIGRATION),
];

/// The columns of a built-in kind; name and creation time for kinds without columns of their own.
pub fn for_kind(group: &str, kind: &str) -> Columns {
    GROUPS
        .iter()
        .find(|(own, _)| *own == group)
        .and_then(|(_, kinds)| kinds.iter().find(|(own, ..)| *own == kind))
        .map_or(PLAIN, |(_, definitions, cells)| Columns::Fixed { definitions, cells: *cells })
}

/// What upstream shows of a kind that registered no columns.
pub const PLAIN: Columns = Columns::Fixed { definitions: &[NAME, CREATED_AT], cells: plain };

const NAME: Column = column("Name", "string", "name", 0);
const AGE: Column = text("Age");
const CREATED_AT: Column = column("Created At", "date", "", 0);

const fn text(name: &'static str) -> Column {
    column(name, "string", "", 0)
}

/// Shown with `-o wide` only.
const fn wide(name: &'static str) -> Column {
    column(name, "string", "", 1)
}

const fn integer(name: &'static str) -> Column {
    column(name, "integer", "", 0)
}

const fn boolean(name: &'static str) -> Column {
    column(name, "boolean", "", 0)
}

const fn column(name: &'static str, kind: &'static str, format: &'static str, priority: i32) -> Column {
    Column { name, kind, format, description: "", priority }
}

fn plain(object: &Value, _: Timestamp) -> Vec<Value> {
    vec![cell::name(object), cell::text(object, &["metadata", "creationTimestamp"])]
}

/// Kinds of which only name and age are shown.
fn name_and_age(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![cell::name(object), cell::age(object, now)]
}
