//! Upstream's pods that each level lets pass or refuses.

use std::path::{Path, PathBuf};

use apimachinery::json;

use super::*;
use policy::Version;

/// `pod-security-v1.36/LEVEL/VERSION/{pass,fail}/*.yaml`
fn suite() -> Option<PathBuf> {
    let folder = std::env::var_os("PINTLE_TESTDATA").map(PathBuf::from);
    if folder.is_none() {
        println!("skipped: PINTLE_TESTDATA is not set");
    }
    folder.map(|folder| folder.join("pod-security-v1.36"))
}

fn pods(folder: &Path) -> Vec<(String, Value)> {
    let resources = api::builtin::resources();
    let is_pod = |own: &&Arc<api::Resource>| own.group.is_empty() && own.plural == "pods";
    let strategy = &resources.iter().find(is_pod).expect("pods are built in").strategy;
    let entries = std::fs::read_dir(folder).expect("a folder of the suite");
    entries
        .map(|entry| {
            let path = entry.expect("an entry").path();
            let text = std::fs::read_to_string(&path).expect("a pod");
            let name = path.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let mut pod = Value::parse_yaml(&text).expect("YAML");
            // What is judged has its defaults: a volume that says nothing is an emptyDir.
            strategy.default(&mut pod);
            (name, pod)
        })
        .collect()
}

fn violations(level: Level, pod: &Value) -> Vec<Violation> {
    let standard = Standard { level, version: Version::Minor(36) };
    checks::evaluate(standard, Pod { metadata: &pod["metadata"], spec: &pod["spec"] })
}

#[test]
fn every_pod_of_the_suite_is_judged_as_upstream_judges_it() {
    let Some(suite) = suite() else { return };
    let mut judged = 0;
    for (level, name) in [(Level::Baseline, "baseline"), (Level::Restricted, "restricted")] {
        let folder = suite.join(name).join("v1.36");
        for (name, pod) in pods(&folder.join("pass")) {
            assert_eq!(violations(level, &pod), [], "{level} {name}");
            judged += 1;
        }
        for (name, pod) in pods(&folder.join("fail")) {
            // The file is named for the check that is to refuse it.
            let check = name.trim_end_matches(|c: char| c.is_ascii_digit());
            let pod = Pod { metadata: &pod["metadata"], spec: &pod["spec"] };
            let names = checks::refusing(Standard { level, version: Version::Minor(36) }, pod);
            assert!(names.iter().any(|name| name.eq_ignore_ascii_case(check)), "{level} {name}: {names:?}");
            judged += 1;
        }
    }
    println!("{judged} pods");
    assert!(judged > 100, "the suite is there, but only {judged} pods were found");
}

#[test]
fn only_what_runs_anew_is_judged_again() {
    let pod = |image: &str, debug: Value| json!({"spec": {"containers": [{"name": "c", "image": image}], "ephemeralContainers": debug}});
    let old = pod("a", json!([]));
    assert!(!is_significant(&old, &old));
    assert!(is_significant(&pod("b", json!([])), &old));
    assert!(is_significant(&pod("a", json!([{"name": "d", "image": "x"}])), &old));
    let annotated = |key: &str| {
        let mut pod = old.clone();
        pod.set_at(&["metadata", "annotations", key], "unconfined");
        pod
    };
    assert!(is_significant(&annotated("seccomp.security.alpha.kubernetes.io/pod"), &old));
    assert!(is_significant(&annotated("container.seccomp.security.alpha.kubernetes.io/c"), &old));
    assert!(!is_significant(&annotated("container.seccomp.security.alpha.kubernetes.io/other"), &old));
    assert!(!is_significant(&annotated("example.com/note"), &old));
}
