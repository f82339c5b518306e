//! Feature gates: which unfinished or retiring parts of the API are on.
//!
//! Owns: the table of upstream's gates (`data/feature_gates.txt`), the syntax of `--feature-gates`, and the fields
//! that are dropped while their gate is off ([`fields`]). Never touches: what a gate means to a component; that one
//! asks [`Features::enabled`] once, when it is made.
//!
//! A set of gates belongs to a server and not to the process, so that tests with different gates can run side by side.

pub mod fields;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

const TABLE: &str = include_str!("../../data/feature_gates.txt");

/// Gates that stand for all of a stage.
const ALL: [(&str, &str); 2] = [("AllAlpha", "Alpha"), ("AllBeta", "Beta")];

/// Which gates are on; cheap to clone. The default is upstream's.
#[derive(Clone, Debug, Default)]
pub struct Features {
    /// Only what differs from the default of the table.
    changed: Arc<BTreeMap<&'static str, bool>>,
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Gate {
    pub name: &'static str,
    /// `Alpha`, `Beta`, `GA` or `Deprecated`.
    pub stage: &'static str,
    pub default: bool,
    pub locked: bool,
    /// Gates that have to be on as well, joined by commas.
    needs: &'static str,
}

impl Gate {
    /// The stage as metrics name it; a gate that only says that a feature is there for good has none.
    pub fn metric_stage(&self) -> &'static str {
        match self.stage {
            "Alpha" => "ALPHA",
            "Beta" => "BETA",
            "Deprecated" => "DEPRECATED",
            _ => "",
        }
    }
}

/// What is wrong with a `--feature-gates`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("missing bool value for {0}")]
    MissingValue(String),
    #[error("invalid value of {gate}={value}, err: strconv.ParseBool: parsing {value:?}: invalid syntax")]
    Value { gate: String, value: String },
    #[error("unrecognized feature gate: {0}")]
    Unknown(String),
    #[error("component not registered: {0}")]
    Component(String),
    #[error("cannot set feature gate {gate} to {}, feature is locked to {locked}", !locked)]
    Locked { gate: String, locked: bool },
    #[error("{gate} is enabled, but depends on features that are disabled: [{}]", missing.join(" "))]
    Dependency { gate: &'static str, missing: Vec<&'static str> },
}

impl Features {
    /// Reads `name=bool,name=bool`; a later word wins over an earlier one, and a gate's own word over `AllAlpha` and
    /// `AllBeta`. Names may carry their component, as in `kube:name=true`.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut given = BTreeMap::new();
        for word in text.split(',').filter(|word| !word.is_empty()) {
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            let name = own_component(name.trim())?;
            if !word.contains('=') {
                return Err(Error::MissingValue(name.to_owned()));
            }
            let value = value.trim();
            let on = parse_bool(value)
                .ok_or_else(|| Error::Value { gate: name.to_owned(), value: value.to_owned() })?;
            given.insert(name, on);
        }
        let mut changed = BTreeMap::new();
        for (all, stage) in ALL {
            let Some(on) = given.remove(all) else { continue };
            changed.extend(gates().iter().filter(|gate| gate.stage == stage).map(|gate| (gate.name, on)));
        }
        for (name, on) in given {
            let gate = find(name).ok_or_else(|| Error::Unknown(name.to_owned()))?;
            if gate.locked && gate.default != on {
                return Err(Error::Locked { gate: name.to_owned(), locked: gate.default });
            }
            changed.insert(gate.name, on);
        }
        changed.retain(|name, on| find(name).is_some_and(|gate| gate.default != *on));
        let features = Self { changed: Arc::new(changed) };
        features.check_dependencies()?;
        Ok(features)
    }

    /// Whether a gate is on. One that upstream does not have is off.
    pub fn enabled(&self, name: &str) -> bool {
        self.changed.get(name).copied().unwrap_or_else(|| find(name).is_some_and(|gate| gate.default))
    }

    fn check_dependencies(&self) -> Result<(), Error> {
        for gate in gates().iter().filter(|gate| self.enabled(gate.name)) {
            let missing: Vec<&str> =
                crate::builtin::tables::items(gate.needs).filter(|needed| !self.enabled(needed)).collect();
            if !missing.is_empty() {
                return Err(Error::Dependency { gate: gate.name, missing });
            }
        }
        Ok(())
    }
}

/// Every gate, sorted by name.
pub fn gates() -> &'static [Gate] {
    static GATES: LazyLock<Vec<Gate>> =
        LazyLock::new(|| TABLE.lines().filter(|line| !line.starts_with('#')).map(gate).collect());
    &GATES
}

fn find(name: &str) -> Option<&'static Gate> {
    let at = gates().binary_search_by_key(&name, |gate| gate.name).ok()?;
    gates().get(at)
}

fn gate(line: &'static str) -> Gate {
    let mut words = line.split(' ');
    let mut next = || words.next().unwrap_or_default();
    let (name, stage, default) = (next(), next(), next() == "on");
    let mut gate = Gate { name, stage, default, locked: false, needs: "" };
    for word in words {
        match word.strip_prefix("needs=") {
            Some(needs) => gate.needs = needs,
            None => gate.locked = word == "locked",
        }
    }
    gate
}

/// The name without the component in front of it, which can only be this one.
fn own_component(name: &str) -> Result<&str, Error> {
    match name.split_once(':') {
        None => Ok(name),
        Some(("kube", name)) => Ok(name),
        Some((component, _)) => Err(Error::Component(component.to_owned())),
    }
}

/// What Go's `strconv.ParseBool` takes.
pub(crate) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        Features::parse(text).map(|_| ()).unwrap_err().to_string()
    }

    #[test]
    fn the_table_is_sorted_and_complete() {
        assert_eq!(gates().len(), 235);
        assert!(gates().is_sorted_by_key(|gate| gate.name));
        for gate in gates() {
            assert!(["Alpha", "Beta", "GA", "Deprecated"].contains(&gate.stage), "{gate:?}");
            for needed in crate::builtin::tables::items(gate.needs) {
                assert!(find(needed).is_some(), "{} needs {needed}", gate.name);
            }
        }
    }

    #[test]
    fn gates_have_upstreams_defaults_until_they_are_set() {
        let features = Features::parse("").unwrap();
        for (gate, on) in [("GenericWorkload", false), ("EnvFiles", true), ("NoSuchGate", false)] {
            assert_eq!(features.enabled(gate), on, "{gate}");
        }
        let features = Features::parse("GenericWorkload=true,EnvFiles=False").unwrap();
        assert!(features.enabled("GenericWorkload") && !features.enabled("EnvFiles"));
        assert!(Features::parse("kube:GenericWorkload=1").unwrap().enabled("GenericWorkload"));
    }

    #[test]
    fn a_stage_can_be_set_as_a_whole_and_single_gates_against_it() {
        let features = Features::parse("HPAScaleToZero=false,AllAlpha=true").unwrap();
        assert!(features.enabled("GenericWorkload") && !features.enabled("HPAScaleToZero"));
        assert!(Features::parse("AllBeta=true").unwrap().enabled("SELinuxMount"));
    }

    #[test]
    fn what_cannot_be_set_is_refused_in_upstreams_words() {
        let cases = [
            ("EnvFiles", "missing bool value for EnvFiles"),
            (
                "EnvFiles=maybe",
                "invalid value of EnvFiles=maybe, err: strconv.ParseBool: parsing \"maybe\": invalid syntax",
            ),
            ("NoSuchGate=true", "unrecognized feature gate: NoSuchGate"),
            ("wardle:X=true", "component not registered: wardle"),
            (
                "APIServerTracing=false",
                "cannot set feature gate APIServerTracing to false, feature is locked to true",
            ),
            (
                "GangScheduling=true",
                "GangScheduling is enabled, but depends on features that are disabled: [GenericWorkload]",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(error(text), expected, "{text}");
        }
    }
}
