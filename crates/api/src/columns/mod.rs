//! What `kubectl get` shows of each kind.

use apimachinery::{Value};
use jiff::Timestamp;

use crate::strategy::{Column, Columns};

/// The columns of a built-in kind.
pub fn for_kind(_group: &str, _kind: &str) -> Columns {
    Columns { definitions: DEFAULT, cells: default_cells }
}

const DEFAULT: &[Column] = &[Column { name: "Name", kind: "string", format: "name", description: "", priority: 0 }];

fn default_cells(object: &Value, _now: Timestamp) -> Vec<Value> {
    vec![object.str_at(&["metadata", "name"]).into()]
}
