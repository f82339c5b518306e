//! The annotations by which a Deployment's history is read (`kubectl rollout history`, `undo`). Pure.

use std::collections::BTreeMap;

use api::view::Deployment;
use apimachinery::Str;

use super::plan::{Set, max_surge};

pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
pub(super) const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
pub(super) const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";

/// What a ReplicaSet does not copy from its Deployment.
const NOT_COPIED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED_REPLICAS,
    MAX_REPLICAS,
    "deprecated.deployment.rollback.to",
];

/// Limit of the revision history, in characters.
const HISTORY_MAX: usize = 2_000;

type Annotations = BTreeMap<Str, Str>;

/// The revision of a ReplicaSet; 0 without one, `None` when it is no number.
pub(super) fn of(annotations: &Annotations) -> Option<i64> {
    annotations.get(REVISION).map_or(Some(0), |text| text.parse().ok())
}

/// The highest revision.
pub(super) fn newest<'a>(sets: impl Iterator<Item = &'a Set>) -> i64 {
    sets.filter_map(|set| of(&set.annotations)).max().unwrap_or_default()
}

/// Annotates the ReplicaSet of the present template, whose revision is to be at least `number`.
pub(super) fn annotate(deployment: &Deployment, annotations: &mut Annotations, number: i64, exists: bool) {
    for (key, value) in &deployment.metadata.annotations {
        if !NOT_COPIED.contains(&key.as_str()) {
            annotations.insert(key.clone(), value.clone());
        }
    }
    let before = annotations.get(REVISION).cloned();
    let Some(own) = of(annotations) else { return };
    if own < number {
        annotations.insert(REVISION.into(), number.to_string().into());
        if let Some(before) = before {
            remember(annotations, &before);
        }
    }
    if !exists {
        set_sizes(deployment, annotations);
    }
}

/// Records the sizes that proportional scaling starts from, when the ReplicaSet is in use.
pub(super) fn annotate_sizes(deployment: &Deployment, set: &mut Set) {
    if set.is_resized() || (set.replicas > 0 && set.sizes_noted) {
        set_sizes(deployment, &mut set.annotations);
    }
}

fn set_sizes(deployment: &Deployment, annotations: &mut Annotations) {
    let replicas = deployment.spec.replicas.unwrap_or(1);
    annotations.insert(DESIRED_REPLICAS.into(), replicas.to_string().into());
    annotations.insert(MAX_REPLICAS.into(), (replicas + max_surge(deployment)).to_string().into());
}

/// Appends to the history and drops its oldest entries when it gets too long.
fn remember(annotations: &mut Annotations, revision: &str) {
    let history = annotations.get(REVISION_HISTORY).map(Str::as_str).unwrap_or_default();
    let mut entries: Vec<&str> = history.split(',').filter(|entry| !entry.is_empty()).collect();
    entries.push(revision);
    let length =
        |entries: &[&str]| entries.iter().map(|entry| entry.len() + 1).sum::<usize>().saturating_sub(1);
    let mut first = 0;
    while length(&entries[first..]) > HISTORY_MAX && first + 1 < entries.len() {
        first += 1;
    }
    let joined = entries[first..].join(",");
    annotations.insert(REVISION_HISTORY.into(), joined.into());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment(annotations: &[(&str, &str)]) -> Deployment {
        let mut deployment = Deployment::default();
        deployment.spec.replicas = Some(3);
        deployment.metadata.annotations =
            annotations.iter().map(|(key, value)| (Str::from(*key), Str::from(*value))).collect();
        deployment
    }

    #[test]
    fn a_reused_set_gets_the_next_revision_and_remembers_its_old_one() {
        let source = deployment(&[("team", "a"), (REVISION, "9"), (NOT_COPIED[0], "{}")]);
        let mut annotations = Annotations::from([(REVISION.into(), "1".into())]);
        annotate(&source, &mut annotations, 3, true);
        annotate(&source, &mut annotations, 3, true);
        let shown: Vec<String> = annotations.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(
            shown,
            ["deployment.kubernetes.io/revision=3", "deployment.kubernetes.io/revision-history=1", "team=a",]
        );
        annotate(&source, &mut annotations, 7, true);
        assert_eq!(annotations[REVISION_HISTORY], "1,3");
    }

    #[test]
    fn a_new_set_has_no_history_but_sizes() {
        let mut annotations = Annotations::new();
        annotate(&deployment(&[]), &mut annotations, 1, false);
        let shown: Vec<String> = annotations.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(
            shown,
            [
                "deployment.kubernetes.io/desired-replicas=3",
                "deployment.kubernetes.io/max-replicas=3",
                "deployment.kubernetes.io/revision=1",
            ]
        );
    }

    #[test]
    fn the_history_is_cut_at_its_oldest_end() {
        let long = (0..500).map(|n| format!("{n:04}")).collect::<Vec<_>>().join(",");
        let mut annotations = Annotations::from([(REVISION_HISTORY.into(), long.into())]);
        remember(&mut annotations, "9999");
        let history = &annotations[REVISION_HISTORY];
        assert!(
            history.len() <= HISTORY_MAX && history.ends_with(",9999") && !history.starts_with("0000"),
            "{history}"
        );
    }
}
