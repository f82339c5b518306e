//! Law (downward): who may depend on whom.

use std::collections::BTreeSet;

use anyhow::Context;
use camino::Utf8Path;
use serde::Deserialize;

use super::Complaint;
use super::manifests::Package;

const FILE: &str = "layering.toml";

/// A floor of the house; `Dev` stands outside and sees all floors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Layer {
    L0,
    L1,
    L2,
    L3,
    L4,
    L5,
    Dev,
}

impl Layer {
    pub(super) fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "L0" => Self::L0,
            "L1" => Self::L1,
            "L2" => Self::L2,
            "L3" => Self::L3,
            "L4" => Self::L4,
            "L5" => Self::L5,
            "dev" => Self::Dev,
            _ => return None,
        })
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::L0 => "L0",
            Self::L1 => "L1",
            Self::L2 => "L2",
            Self::L3 => "L3",
            Self::L4 => "L4",
            Self::L5 => "L5",
            Self::Dev => "dev",
        }
    }
}

/// What components (L4) may see above L1. Certificates lead nowhere that the API does not, and webhooks elsewhere.
const COMPONENTS_MAY_SEE: [&str; 5] = ["client", "controller-runtime", "pki", "runtime", "webhook"];
/// What storage must not know: kinds.
const KINDS: [&str; 2] = ["api", "apimachinery"];

/// Edges inside one layer that exist by design.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Exceptions {
    #[serde(default)]
    edge: Vec<Edge>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Edge {
    from: String,
    to: String,
    reason: String,
}

impl Exceptions {
    pub(super) fn read(root: &Utf8Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(root.join(FILE)).context("reading it")?;
        Ok(toml::from_str(&text)?)
    }

    fn list(&self, from: &str, to: &str) -> bool {
        self.edge.iter().any(|edge| edge.from == from && edge.to == to)
    }
}

/// Every edge among members against the rules, and every exception against the edges.
pub(super) fn check(packages: &[Package], exceptions: &Exceptions) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    for package in packages {
        for (other, tests_only) in edges_of(package, packages) {
            if let Some(text) = objection(package, other, tests_only, exceptions) {
                complaints.push(Complaint::new(package.folder.join("Cargo.toml").as_str(), text));
            }
        }
    }
    for edge in &exceptions.edge {
        if edge.reason.trim().is_empty() {
            complaints.push(Complaint::new(FILE, format!("{} → {} needs a reason", edge.from, edge.to)));
        }
        let exists = packages.iter().any(|own| {
            own.name == edge.from && (own.uses.contains(&edge.to) || own.tests_use.contains(&edge.to))
        });
        if !exists {
            let text = format!("{} → {} is listed, but there is no such edge; remove it", edge.from, edge.to);
            complaints.push(Complaint::new(FILE, text));
        }
    }
    complaints
}

/// The members that `package` depends on, each with whether only tests do.
fn edges_of<'a>(package: &'a Package, packages: &'a [Package]) -> impl Iterator<Item = (&'a Package, bool)> {
    let tests_only: BTreeSet<_> = package.tests_use.difference(&package.uses).collect();
    packages.iter().filter_map(move |other| {
        let builds_with = package.uses.contains(&other.name);
        (builds_with || tests_only.contains(&other.name)).then_some((other, !builds_with))
    })
}

fn objection(from: &Package, to: &Package, tests_only: bool, exceptions: &Exceptions) -> Option<String> {
    let (Some(from_layer), Some(to_layer)) = (from.layer, to.layer) else { return None };
    if from_layer == Layer::Dev || (tests_only && to_layer == Layer::Dev) {
        return None;
    }
    let edge = format!("{} ({}) → {} ({})", from.name, from_layer.name(), to.name, to_layer.name());
    if from_layer == to_layer {
        let listed = exceptions.list(&from.name, &to.name);
        return (!listed).then(|| {
            format!("{edge} stays in its layer; list it in {FILE} with a reason, or move a piece down")
        });
    }
    if from_layer < to_layer {
        return Some(format!("{edge} points up; dependencies point down only"));
    }
    if from_layer == Layer::L4 && to_layer > Layer::L1 && !COMPONENTS_MAY_SEE.contains(&to.name.as_str()) {
        return Some(format!(
            "{edge}: components see L0, L1, {} only, so that they go through the API",
            COMPONENTS_MAY_SEE.join(", ")
        ));
    }
    if from.name.starts_with("storage") && KINDS.contains(&to.name.as_str()) {
        return Some(format!("{edge}: storage knows no kinds, only keys, bytes and revisions"));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, layer: Layer, uses: &[&str], tests_use: &[&str]) -> Package {
        Package {
            name: name.to_owned(),
            description: String::new(),
            layer: Some(layer),
            folder: format!("crates/{name}").into(),
            uses: uses.iter().map(|&name| name.to_owned()).collect(),
            tests_use: tests_use.iter().map(|&name| name.to_owned()).collect(),
        }
    }

    fn complaints(packages: &[Package], exceptions: &str) -> Vec<String> {
        let exceptions = toml::from_str(exceptions).unwrap();
        check(packages, &exceptions).iter().map(|complaint| complaint.text.clone()).collect()
    }

    /// What is said about one crate that uses another.
    fn said(from: (&str, Layer), to: (&str, Layer)) -> String {
        complaints(&[package(from.0, from.1, &[to.0], &[]), package(to.0, to.1, &[], &[])], "").join("\n")
    }

    #[test]
    fn an_edge_must_point_down() {
        use Layer::{Dev, L0, L1, L2, L3, L5};
        assert_eq!(said(("pintle", L5), ("rt", L0)), "");
        assert_eq!(said(("xtask", Dev), ("pintle", L5)), "");
        assert!(said(("client", L2), ("registry", L3)).contains("points up"));
        assert!(said(("rt", L0), ("api", L1)).contains("points up"));
        assert!(said(("rt", L0), ("xtask", Dev)).contains("points up"));
        assert!(said(("auth", L3), ("registry", L3)).contains("stays in its layer"));
    }

    #[test]
    fn components_see_the_client_but_neither_storage_nor_each_other() {
        use Layer::{L1, L2, L3, L4};
        for seen in [("api", L1), ("client", L2), ("controller-runtime", L2), ("pki", L2)] {
            assert_eq!(said(("scheduler", L4), seen), "");
        }
        for hidden in [("storage", L2), ("watch-cache", L3), ("registry", L3)] {
            assert!(said(("scheduler", L4), hidden).contains("go through the API"), "{hidden:?}");
        }
        assert!(said(("scheduler", L4), ("node", L4)).contains("stays in its layer"));
    }

    #[test]
    fn storage_knows_no_kinds() {
        use Layer::{L1, L2};
        for kinds in KINDS {
            assert!(said(("storage-embedded", L2), (kinds, L1)).contains("knows no kinds"));
        }
        assert_eq!(said(("client", L2), ("api", L1)), "");
    }

    #[test]
    fn a_listed_edge_is_allowed_and_a_listed_edge_that_is_gone_is_not() {
        let packages =
            [package("engine", Layer::L2, &["contract"], &[]), package("contract", Layer::L2, &[], &[])];
        let listed = "[[edge]]\nfrom = \"engine\"\nto = \"contract\"\nreason = \"implements it\"\n";
        assert_eq!(complaints(&packages, listed), Vec::<String>::new());
        let gone = "[[edge]]\nfrom = \"contract\"\nto = \"engine\"\nreason = \" \"\n";
        let said = complaints(&packages, &format!("{listed}{gone}"));
        assert_eq!(
            said,
            [
                "contract → engine needs a reason",
                "contract → engine is listed, but there is no such edge; remove it"
            ]
        );
    }

    #[test]
    fn tests_may_use_dev_crates_but_obey_the_layers_otherwise() {
        let dev = package("test-support", Layer::Dev, &[], &[]);
        let up = package("registry", Layer::L3, &[], &[]);
        let own = package("client", Layer::L2, &[], &["test-support", "registry"]);
        let said = complaints(&[dev, up, own], "");
        assert_eq!(said, ["client (L2) → registry (L3) points up; dependencies point down only"]);
    }
}
