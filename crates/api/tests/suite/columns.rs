//! The columns of every built-in kind, against the table of upstream's.

use std::collections::BTreeMap;

use api::builtin;
use apimachinery::Value;

use crate::recorded::folder;

/// Kinds of the table that are no resource of their own.
const NO_RESOURCE: &[(&str, &str)] = &[
    ("* (custom resource)", "columns of definitions are tried where definitions are"),
    ("* (custom resource, no columns declared)", "columns of definitions are tried where definitions are"),
    ("autoscaling/v1 Scale", "the answer of a subresource"),
    ("meta/v1 Status", "the answer of a delete"),
];

/// Name, type, format and priority.
type Column = [String; 4];

/// What the table has, by version and kind.
fn upstream() -> Option<BTreeMap<String, Vec<Column>>> {
    let table = std::fs::read_to_string(folder("PINTLE_REFERENCE", "reference")?.join("printer_columns.tsv"));
    let table = table.expect("the table is there");
    let mut kinds: BTreeMap<String, Vec<Column>> = BTreeMap::new();
    for line in table.lines().skip(1) {
        let cells: Vec<&str> = line.split('\t').collect();
        // Some handlers are registered and never asked.
        if cells[8].starts_with("yes") {
            let column = [cells[3], cells[4], cells[5], cells[6]].map(str::to_owned);
            kinds.entry(format!("{} {}", cells[0], cells[1])).or_default().push(column);
        }
    }
    Some(kinds)
}

fn ours(definition: &Value) -> Column {
    let priority = definition["priority"].as_i64().unwrap_or_default().to_string();
    let text = |key: &str| definition.str_at(&[key]).to_owned();
    [text("name"), text("type"), text("format"), priority]
}

#[test]
fn columns_are_those_of_upstream() {
    let Some(mut wanted) = upstream() else { return };
    let (mut wrong, mut tried) = (Vec::new(), 0);
    for resource in builtin::all_resources() {
        let group = if resource.group.is_empty() { "core" } else { &resource.group };
        let kind = format!("{group}/{} {}", resource.version, resource.kind);
        let Some(wanted) = wanted.remove(&kind) else { continue };
        tried += 1;
        let own: Vec<Column> = resource.columns.definitions().iter().map(ours).collect();
        for index in 0..own.len().max(wanted.len()) {
            let (own, wanted) = (own.get(index), wanted.get(index));
            if own != wanted {
                wrong.push(format!("{kind}: column {index} is {own:?} instead of {wanted:?}"));
            }
        }
    }
    let needless = NO_RESOURCE.iter().filter(|(kind, _)| wanted.remove(*kind).is_none());
    wrong.extend(needless.map(|(kind, _)| format!("{kind}: it is compared, or not in the table")));
    wrong.extend(wanted.into_keys().map(|kind| format!("{kind}: no such resource")));
    println!("columns of {tried} kinds are compared");
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.join("\n"));
}
