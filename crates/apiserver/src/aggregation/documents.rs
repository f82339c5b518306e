//! Discovery and OpenAPI indexes with what other servers serve among it.

use apimachinery::{Value, json};

use super::Table;
use super::remote::Remote;

/// Adds what other servers serve to a document of this one; `None` if nothing changes.
pub(super) fn merged(table: &Table, path: &str, document: &[u8]) -> Option<Vec<u8>> {
    let mut tree = Value::parse(document).ok()?;
    match (path, tree.str_at(&["kind"])) {
        ("/apis", "APIGroupDiscoveryList") => merge_aggregated(table, &mut tree),
        ("/apis", _) => merge_groups(table, &mut tree),
        ("/openapi/v3", _) => merge_openapi(table, &mut tree),
        _ => return None,
    }
    Some(tree.to_json_string().into_bytes())
}

/// The document of a group that only other servers have.
pub(super) fn group(table: &Table, name: &str) -> Option<Vec<u8>> {
    let mut group = group_of(table, name)?;
    let map = group.ensure_object();
    map.insert("kind", "APIGroup");
    map.insert("apiVersion", "v1");
    Some(group.to_json_string().into_bytes())
}

fn merge_groups(table: &Table, list: &mut Value) {
    let known: Vec<String> =
        list.array_at(&["groups"]).iter().map(|group| group.str_at(&["name"]).to_owned()).collect();
    let mut groups = list.array_at(&["groups"]).to_vec();
    for name in table.groups() {
        let Some(group) = group_of(table, name) else { continue };
        match known.iter().position(|own| own == name) {
            None => groups.push(group),
            Some(at) => {
                let mut versions = groups[at].array_at(&["versions"]).to_vec();
                for version in group.array_at(&["versions"]) {
                    if !versions.contains(version) {
                        versions.push(version.clone());
                    }
                }
                groups[at].set_at(&["versions"], versions);
            }
        }
    }
    list.set_at(&["groups"], groups);
}

fn group_of(table: &Table, name: &str) -> Option<Value> {
    let shown = |remote: &Remote| {
        json!({
            "groupVersion": format!("{}/{}", remote.group, remote.version), "version": remote.version.as_str(),
        })
    };
    let versions: Vec<Value> = table.versions(name).map(shown).collect();
    let preferred = versions.first()?.clone();
    Some(json!({"name": name, "versions": versions, "preferredVersion": preferred}))
}

fn merge_aggregated(table: &Table, list: &mut Value) {
    let mut items = list.array_at(&["items"]).to_vec();
    for name in table.groups() {
        let versions: Vec<Value> = table.versions(name).map(version).collect();
        let at = items.iter().position(|item| item.str_at(&["metadata", "name"]) == name);
        match at {
            None => items.push(json!({
                "metadata": {"name": name, "creationTimestamp": null}, "versions": versions,
            })),
            Some(at) => {
                let named: Vec<&str> = versions.iter().map(|own| own.str_at(&["version"])).collect();
                let own = items[at].array_at(&["versions"]).iter();
                let mut all: Vec<Value> =
                    own.filter(|own| !named.contains(&own.str_at(&["version"]))).cloned().collect();
                all.extend(versions.clone());
                items[at].set_at(&["versions"], all);
            }
        }
    }
    list.set_at(&["items"], items);
}

/// An `APIResourceList` in the form of aggregated discovery.
fn version(remote: &Remote) -> Value {
    let freshness = if remote.answer.is_some() { "Current" } else { "Stale" };
    let mut resources: Vec<Value> = Vec::new();
    let answer = remote.answer.as_ref();
    let listed = answer.map(|answer| answer.resources.array_at(&["resources"])).unwrap_or_default();
    for entry in listed {
        let kind = json!({
            "group": or(entry.str_at(&["group"]), &remote.group),
            "version": or(entry.str_at(&["version"]), &remote.version), "kind": entry.str_at(&["kind"]),
        });
        let verbs = entry["verbs"].clone();
        let name = entry.str_at(&["name"]);
        match name.split_once('/') {
            Some((parent, sub)) => {
                let sub = json!({"subresource": sub, "responseKind": kind, "verbs": verbs});
                let owner = resources.iter_mut().find(|own| own.str_at(&["resource"]) == parent);
                if let Some(owner) = owner {
                    let mut subs = owner.array_at(&["subresources"]).to_vec();
                    subs.push(sub);
                    owner.set_at(&["subresources"], subs);
                }
            }
            None => {
                let scope =
                    if entry["namespaced"].as_bool() == Some(true) { "Namespaced" } else { "Cluster" };
                let mut own = json!({
                    "resource": name, "responseKind": kind, "scope": scope,
                    "singularResource": entry.str_at(&["singularName"]), "verbs": verbs,
                });
                for key in ["shortNames", "categories"] {
                    if !entry[key].is_null() {
                        own.set_at(&[key], entry[key].clone());
                    }
                }
                resources.push(own);
            }
        }
    }
    json!({"version": remote.version.as_str(), "resources": resources, "freshness": freshness})
}

fn or<'t>(given: &'t str, otherwise: &'t str) -> &'t str {
    if given.is_empty() { otherwise } else { given }
}

fn merge_openapi(table: &Table, index: &mut Value) {
    let paths = index.ensure_object_at(&["paths"]);
    for remote in table.all() {
        let Some(url) = remote.answer.as_ref().and_then(|answer| answer.openapi.as_deref()) else { continue };
        let path = remote.discovery_path();
        paths.insert(path.trim_start_matches('/'), json!({"serverRelativeURL": url}));
    }
}
