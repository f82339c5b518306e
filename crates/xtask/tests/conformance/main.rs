//! Which test covers which of upstream's conformance tests of workloads, scheduling, nodes, networks and volumes, or why
//! none does.
//!
//! The names are upstream's, from `conformance.tsv` in the folder that `PINTLE_REFERENCE` names; without it the table
//! cannot be compared with them, and the test says so.

mod networks;
mod nodes;
mod volumes;
mod workloads;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use Covered::{By, Not};

/// The special interest groups whose tests are in the table.
const GROUPS: [&str; 6] =
    ["sig-apps", "sig-autoscaling", "sig-network", "sig-node", "sig-scheduling", "sig-storage"];

enum Covered {
    By(&'static [Test]),
    Not(&'static str),
}

/// The file of a test, and its function or what a check of a suite says.
type Test = (&'static str, &'static str);

const VERBS: &str = "crates/apiserver/tests/suite/workloads.rs";

const EVERY_VERB: Test = (VERBS, "every_kind_is_created_read_changed_watched_and_deleted");
const COLLECTIONS: Test = (VERBS, "collections_are_listed_everywhere_and_deleted_as_selected");
const STATUSES: Test = (VERBS, "a_status_is_written_apart_from_the_rest");

/// Upstream's name without its last tag, and what covers it.
fn table() -> Vec<(&'static str, Covered)> {
    [workloads::table(), nodes::table(), networks::table(), volumes::table()].into_iter().flatten().collect()
}

#[test]
fn every_conformance_test_is_in_the_table_once() {
    let Some(names) = upstream_names() else { return };
    let mut counted: BTreeMap<String, usize> = names.into_iter().map(|name| (name, 0)).collect();
    assert!(!counted.is_empty(), "conformance.tsv has none of {GROUPS:?}");
    for (name, _) in table() {
        *counted.get_mut(name).unwrap_or_else(|| panic!("upstream has no {name:?}")) += 1;
    }
    let wrong: Vec<_> = counted.iter().filter(|(_, times)| **times != 1).collect();
    assert!(wrong.is_empty(), "not once in the table: {wrong:#?}");
}

#[test]
fn every_test_of_the_table_is_there() {
    let repository = xtask::repository();
    for (name, covered) in table() {
        match covered {
            By(tests) => {
                assert!(!tests.is_empty(), "{name}: no test is named");
                tests.iter().for_each(|test| assert_is_there(repository.as_ref(), *test));
            }
            Not(why) => assert!(!why.is_empty(), "{name}: no reason is given"),
        }
    }
}

/// A function with the name, or a check that says so.
fn assert_is_there(repository: &Path, (file, name): Test) {
    let source =
        std::fs::read_to_string(repository.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
    let is_check = name.contains(' ') && source.contains(&format!("\"{name}\""));
    let is_test = source.match_indices(&format!("fn {name}(")).any(|(at, _)| {
        let before = source[..at].trim_end_matches("async ").trim_end();
        before.ends_with(']')
            && before.rsplit("#[").next().is_some_and(|attribute| attribute.contains("test"))
    });
    assert!(is_check || is_test, "{file} has no test {name:?}");
}

/// The names of the groups' tests; `None`, with a word about it, without the file.
fn upstream_names() -> Option<Vec<String>> {
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/reference");
    let folder = std::env::var_os("PINTLE_REFERENCE").map_or_else(beside, PathBuf::from);
    let Ok(text) = std::fs::read_to_string(folder.join("conformance.tsv")) else {
        println!("skipped: PINTLE_REFERENCE is unset");
        return None;
    };
    let mut lines = text.lines();
    let columns: Vec<&str> = lines.next()?.split('\t').collect();
    let column =
        |name: &str| columns.iter().position(|own| *own == name).expect("the file names its columns");
    let (group, codename) = (column("sig"), column("codename"));
    let rows = lines.map(|line| line.split('\t').collect::<Vec<_>>());
    let of_groups = rows.filter(|row| GROUPS.contains(&row[group]));
    Some(of_groups.map(|row| row[codename].trim_end_matches(" [Conformance]").to_owned()).collect())
}
