//! Which controllers run: upstream's `--controllers`.

use std::fmt::Write;
use std::str::FromStr;

/// Run only when they are named.
const OFF_BY_DEFAULT: [&str; 2] = ["bootstrap-signer-controller", "token-cleaner-controller"];

/// Names from before controllers were called after themselves. Those of them that are here can be used.
const ALIASES: [(&str, &str); 41] = [
    ("serviceaccount-token", "serviceaccount-token-controller"),
    ("endpoint", "endpoints-controller"),
    ("endpointslice", "endpointslice-controller"),
    ("endpointslicemirroring", "endpointslice-mirroring-controller"),
    ("replicationcontroller", "replicationcontroller-controller"),
    ("podgc", "pod-garbage-collector-controller"),
    ("resourcequota", "resourcequota-controller"),
    ("namespace", "namespace-controller"),
    ("serviceaccount", "serviceaccount-controller"),
    ("garbagecollector", "garbage-collector-controller"),
    ("daemonset", "daemonset-controller"),
    ("job", "job-controller"),
    ("deployment", "deployment-controller"),
    ("replicaset", "replicaset-controller"),
    ("horizontalpodautoscaling", "horizontal-pod-autoscaler-controller"),
    ("disruption", "disruption-controller"),
    ("statefulset", "statefulset-controller"),
    ("cronjob", "cronjob-controller"),
    ("csrsigning", "certificatesigningrequest-signing-controller"),
    ("csrapproving", "certificatesigningrequest-approving-controller"),
    ("csrcleaner", "certificatesigningrequest-cleaner-controller"),
    ("ttl", "ttl-controller"),
    ("bootstrapsigner", "bootstrap-signer-controller"),
    ("tokencleaner", "token-cleaner-controller"),
    ("nodeipam", "node-ipam-controller"),
    ("nodelifecycle", "node-lifecycle-controller"),
    ("service", "service-lb-controller"),
    ("route", "node-route-controller"),
    ("cloud-node-lifecycle", "cloud-node-lifecycle-controller"),
    ("persistentvolume-binder", "persistentvolume-binder-controller"),
    ("attachdetach", "persistentvolume-attach-detach-controller"),
    ("persistentvolume-expander", "persistentvolume-expander-controller"),
    ("clusterrole-aggregation", "clusterrole-aggregation-controller"),
    ("pvc-protection", "persistentvolumeclaim-protection-controller"),
    ("pv-protection", "persistentvolume-protection-controller"),
    ("ttl-after-finished", "ttl-after-finished-controller"),
    ("root-ca-cert-publisher", "root-ca-certificate-publisher-controller"),
    ("ephemeral-volume", "ephemeral-volume-controller"),
    ("resource-claim-controller", "resourceclaim-controller"),
    ("legacy-service-account-token-cleaner", "legacy-serviceaccount-token-cleaner-controller"),
    ("svm", "storage-version-migrator-controller"),
];

/// A list of controllers: `*` are all that are on by default, `foo` is one, `-foo` is not that one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    all: bool,
    named: Vec<String>,
    left_out: Vec<String>,
}

/// `*`.
impl Default for Selection {
    fn default() -> Self {
        Self { all: true, named: Vec::new(), left_out: Vec::new() }
    }
}

/// A name that is no controller's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is not in the list of known controllers; they are:{known}")]
pub struct UnknownController {
    name: String,
    known: String,
}

impl FromStr for Selection {
    type Err = UnknownController;

    /// Reads a list joined by commas.
    fn from_str(text: &str) -> Result<Self, UnknownController> {
        let mut selection = Self { all: false, named: Vec::new(), left_out: Vec::new() };
        for item in text.split(',') {
            match item.strip_prefix('-') {
                None if item == "*" => selection.all = true,
                None => selection.named.push(known(item)?.to_owned()),
                // One that upstream has and that is not here is left out already.
                Some(name) if is_upstreams(name) && known(name).is_err() => {}
                Some(name) => selection.left_out.push(known(name)?.to_owned()),
            }
        }
        Ok(selection)
    }
}

fn is_upstreams(text: &str) -> bool {
    ALIASES.iter().any(|(alias, name)| *alias == text || *name == text)
}

/// The name of a controller that is here, by its name or alias.
fn known(text: &str) -> Result<&'static str, UnknownController> {
    let name = ALIASES.iter().find(|(alias, _)| *alias == text).map_or(text, |(_, name)| *name);
    let mut names: Vec<&'static str> = super::descriptors().iter().map(|own| own.name).collect();
    if let Some(name) = names.iter().find(|own| **own == name) {
        return Ok(name);
    }
    names.sort_unstable();
    let mut known = String::new();
    for name in names {
        let off = if OFF_BY_DEFAULT.contains(&name) { " (off by default)" } else { "" };
        let _ = write!(known, "\n  {name}{off}");
    }
    Err(UnknownController { name: text.to_owned(), known })
}

impl Selection {
    /// What is named decides, before what is not.
    pub fn includes(&self, name: &str) -> bool {
        let is_in = |list: &[String]| list.iter().any(|own| own == name);
        if is_in(&self.named) {
            return true;
        }
        !is_in(&self.left_out) && self.all && !OFF_BY_DEFAULT.contains(&name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selection_is_names_without_those_left_out() {
        let (on, off) = ("deployment-controller", "token-cleaner-controller");
        for (text, with_on, with_off) in [
            ("*", true, false),
            ("*,token-cleaner-controller", true, true),
            ("*,tokencleaner,-deployment", false, true),
            ("-deployment-controller", false, false),
            ("tokencleaner", false, true),
            ("*,-nodeipam,-service-lb-controller", true, false),
        ] {
            let selection: Selection = text.parse().expect("all are known");
            assert_eq!((selection.includes(on), selection.includes(off)), (with_on, with_off), "{text}");
        }
        assert_eq!("*".parse(), Ok(Selection::default()));
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_known_ones() {
        for text in ["*,deploy", "-deploy", "route", ""] {
            let error = text.parse::<Selection>().expect_err("unknown").to_string();
            assert!(error.contains("is not in the list of known controllers"), "{error}");
            assert!(error.contains("\n  token-cleaner-controller (off by default)"), "{error}");
        }
    }

    #[test]
    fn aliases_stand_for_one_controller_each() {
        let mut seen = std::collections::HashSet::new();
        for (alias, name) in ALIASES {
            assert!(seen.insert(alias) && seen.insert(name), "{alias}");
        }
        assert!(OFF_BY_DEFAULT.iter().all(|name| known(name).is_ok()));
    }
}
