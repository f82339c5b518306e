//! One table per plugin: pod, node, answer. Whole cycles are tested at the engine.

use std::sync::Arc;

use expect_test::{Expect, expect};

use crate::cache::Cache;
use crate::framework::Event;
use crate::pod::PodInfo;
use crate::shortlist::Shortlist;
use crate::testing::{labelled_node, labelled_pod_info, node, pod_info, profile};

/// `feasible`, or the refusal by the first plugin that refuses.
fn answer(pod: &Arc<PodInfo>, cache: &Cache) -> String {
    let profile = profile();
    match Shortlist::new(&profile, pod.clone(), cache) {
        Err((_, status)) => format!("{:?} by PreFilter: {}", status.code, status.message()),
        Ok(shortlist) if shortlist.feasible_count() > 0 => "feasible".to_owned(),
        Ok(shortlist) => {
            shortlist.refusals().map(|r| format!("{:?}: {}", r.status.code, r.status.message())).collect()
        }
    }
}

fn check(spec: &str, labels: &str, node_spec: &str, status: &str, expected: Expect) {
    let mut cache = Cache::default();
    cache.upsert_node(labelled_node("n", labels, node_spec, status));
    expected.assert_eq(&answer(&pod_info("p", spec), &cache));
}

#[test]
fn taints_keep_pods_away_unless_tolerated() {
    let tainted = r#"{"taints":[{"key":"k","value":"v","effect":"NoSchedule"}]}"#;
    let refused = || expect!["UnschedulableAndUnresolvable: node(s) had untolerated taint(s)"];
    check("{}", "{}", tainted, "{}", refused());
    for (toleration, tolerated) in [
        (r#"{"key":"k","value":"v","effect":"NoSchedule"}"#, true),
        (r#"{"key":"k","operator":"Exists"}"#, true),
        (r#"{"operator":"Exists"}"#, true),
        (r#"{"key":"k","operator":"Equal","value":"w"}"#, false),
        (r#"{"key":"k","operator":"Exists","effect":"NoExecute"}"#, false),
        (r#"{"key":"k","operator":"Gt","value":"1"}"#, false),
    ] {
        let expected = if tolerated { expect!["feasible"] } else { refused() };
        check(&format!(r#"{{"tolerations":[{toleration}]}}"#), "{}", tainted, "{}", expected);
    }
    let soft = r#"{"taints":[{"key":"k","effect":"PreferNoSchedule"}]}"#;
    check("{}", "{}", soft, "{}", expect!["feasible"]);
}

#[test]
fn cordoned_nodes_are_left_alone() {
    let cordoned = r#"{"unschedulable":true}"#;
    check("{}", "{}", cordoned, "{}", expect!["UnschedulableAndUnresolvable: node(s) were unschedulable"]);
    let daemon = r#"{"tolerations":[{"key":"node.kubernetes.io/unschedulable","operator":"Exists"}]}"#;
    check(daemon, "{}", cordoned, "{}", expect!["feasible"]);
}

#[test]
fn node_selectors_and_required_affinity_must_match() {
    let refused =
        || expect!["UnschedulableAndUnresolvable: node(s) didn't match Pod's node affinity/selector"];
    let labels = r#"{"zone":"a","cores":"8"}"#;
    check(r#"{"nodeSelector":{"zone":"a"}}"#, labels, "{}", "{}", expect!["feasible"]);
    check(r#"{"nodeSelector":{"zone":"b"}}"#, labels, "{}", "{}", refused());
    let terms = |terms: &str| {
        format!(
            r#"{{"affinity":{{"nodeAffinity":{{"requiredDuringSchedulingIgnoredDuringExecution":
               {{"nodeSelectorTerms":[{terms}]}}}}}}}}"#
        )
    };
    for (requirement, holds) in [
        (r#""key":"zone","operator":"In","values":["b","a"]"#, true),
        (r#""key":"zone","operator":"NotIn","values":["a"]"#, false),
        (r#""key":"rack","operator":"NotIn","values":["a"]"#, true),
        (r#""key":"rack","operator":"Exists""#, false),
        (r#""key":"rack","operator":"DoesNotExist""#, true),
        (r#""key":"cores","operator":"Gt","values":["7"]"#, true),
        (r#""key":"cores","operator":"Lt","values":["8"]"#, false),
        (r#""key":"zone","operator":"Gt","values":["7"]"#, false),
    ] {
        let spec = terms(&format!(r#"{{"matchExpressions":[{{{requirement}}}]}}"#));
        check(&spec, labels, "{}", "{}", if holds { expect!["feasible"] } else { refused() });
    }
    check(&terms("{}"), labels, "{}", "{}", refused());
    let other = r#"{"matchExpressions":[{"key":"zone","operator":"In","values":["z"]}]}"#;
    let own = r#"{"matchExpressions":[{"key":"zone","operator":"Exists"}]}"#;
    check(&terms(&format!("{other},{own}")), labels, "{}", "{}", expect!["feasible"]);
}

#[test]
fn nodes_named_by_match_fields_are_the_only_ones_asked() {
    let named = |values: &str| {
        format!(
            r#"{{"affinity":{{"nodeAffinity":{{"requiredDuringSchedulingIgnoredDuringExecution":{{"nodeSelectorTerms":
               [{{"matchFields":[{values}]}}]}}}}}}}}"#
        )
    };
    let field = |value: &str| format!(r#"{{"key":"metadata.name","operator":"In","values":["{value}"]}}"#);
    check(&named(&field("n")), "{}", "{}", "{}", expect!["feasible"]);
    check(&named(&field("other")), "{}", "{}", "{}", expect![""]);
    let conflict = expect!["UnschedulableAndUnresolvable by PreFilter: pod affinity terms conflict"];
    check(&named(&format!("{},{}", field("n"), field("m"))), "{}", "{}", "{}", conflict);
}

#[test]
fn host_ports_conflict_by_port_protocol_and_address() {
    let port = |port: &str| format!(r#"{{"containers":[{{"ports":[{port}]}}]}}"#);
    let mut cache = Cache::default();
    cache.upsert_node(node("n", "{}", "{}"));
    let used = pod_info("used", &port(r#"{"hostPort":80,"hostIP":"10.0.0.1"}"#));
    cache.assume(used, cache.slot("n").unwrap());
    let refused = "Unschedulable: node(s) didn't have free ports for the requested pod ports";
    for (wanted, expected) in [
        (r#"{"hostPort":80}"#, refused),
        (r#"{"hostPort":80,"hostIP":"10.0.0.1"}"#, refused),
        (r#"{"hostPort":80,"hostIP":"10.0.0.2"}"#, "feasible"),
        (r#"{"hostPort":80,"protocol":"UDP"}"#, "feasible"),
        (r#"{"hostPort":81}"#, "feasible"),
        (r#"{"containerPort":80}"#, "feasible"),
    ] {
        assert_eq!(answer(&pod_info("p", &port(wanted)), &cache), expected, "{wanted}");
    }
}

#[test]
fn resources_must_fit_and_the_message_names_all_that_do_not() {
    let wants = |requests: &str| format!(r#"{{"containers":[{{"resources":{{"requests":{requests}}}}}]}}"#);
    let status =
        r#"{"allocatable":{"cpu":"2","memory":"1Gi","pods":"2","ephemeral-storage":"1Gi","x.io/gpu":"1"}}"#;
    let mut cache = Cache::default();
    cache.upsert_node(node("n", "{}", status));
    cache.assume(pod_info("used", &wants(r#"{"cpu":"1","x.io/gpu":"1"}"#)), cache.slot("n").unwrap());
    for (requests, expected) in [
        (r#"{"cpu":"1","memory":"1Gi","ephemeral-storage":"1Gi"}"#, "feasible"),
        (r#"{"cpu":"1001m"}"#, "Unschedulable: Insufficient cpu"),
        (r#"{"cpu":"3"}"#, "UnschedulableAndUnresolvable: Insufficient cpu"),
        (r#"{"cpu":"2","x.io/gpu":"1"}"#, "Unschedulable: Insufficient cpu, Insufficient x.io/gpu"),
        (r#"{"ephemeral-storage":"2Gi"}"#, "UnschedulableAndUnresolvable: Insufficient ephemeral-storage"),
        (r#"{"y.io/tpu":"1"}"#, "UnschedulableAndUnresolvable: Insufficient y.io/tpu"),
    ] {
        assert_eq!(answer(&pod_info("p", &wants(requests)), &cache), expected, "{requests}");
    }
    cache.assume(pod_info("second", "{}"), cache.slot("n").unwrap());
    assert_eq!(answer(&pod_info("p", "{}"), &cache), "Unschedulable: Too many pods");
}

#[test]
fn scores_prefer_free_even_and_untainted_nodes_with_the_image() {
    let profile = profile();
    let best = |spec: &str, nodes: &[(&str, &str, &str, &str)]| {
        let mut cache = Cache::default();
        for (name, labels, spec, status) in nodes {
            cache.upsert_node(labelled_node(name, labels, spec, status));
        }
        let mut shortlist = Shortlist::new(&profile, pod_info("p", spec), &cache).unwrap();
        shortlist.best_all().into_iter().map(|slot| nodes[slot as usize].0.to_owned()).collect::<Vec<_>>()
    };
    let cpu = r#"{"containers":[{"image":"app","resources":{"requests":{"cpu":"1","memory":"1Gi"}}}]}"#;
    let room = |cpu: u32, memory: u32| {
        format!(r#"{{"allocatable":{{"cpu":"{cpu}","memory":"{memory}Gi","pods":"9"}}}}"#)
    };
    let (small, large, lopsided) = (room(4, 4), room(16, 16), room(16, 2));
    assert_eq!(best(cpu, &[("s", "{}", "{}", &small), ("l", "{}", "{}", &large)]), ["l"]);
    assert_eq!(best(cpu, &[("s", "{}", "{}", &small), ("o", "{}", "{}", &lopsided)]), ["s"]);
    let soft = r#"{"taints":[{"key":"k","effect":"PreferNoSchedule"}]}"#;
    assert_eq!(best(cpu, &[("t", "{}", soft, &large), ("s", "{}", "{}", &small)]), ["s"]);
    let preferring = r#"{"affinity":{"nodeAffinity":{"preferredDuringSchedulingIgnoredDuringExecution":
        [{"weight":5,"preference":{"matchExpressions":[{"key":"ssd","operator":"Exists"}]}}]}}}"#;
    assert_eq!(best(preferring, &[("a", "{}", "{}", "{}"), ("b", r#"{"ssd":""}"#, "{}", "{}")]), ["b"]);
    let has_image = r#"{"allocatable":{"cpu":"4","memory":"4Gi","pods":"9"},
        "images":[{"names":["app:latest"],"sizeBytes":900000000}]}"#;
    assert_eq!(best(cpu, &[("s", "{}", "{}", &small), ("i", "{}", "{}", has_image)]), ["i"]);
}

/// Three nodes in zones a, a and b; `placed` are labels, affinity and node of pods that are there.
fn zones(placed: &[(&str, &str, &str)]) -> Cache {
    let mut cache = Cache::default();
    for (name, zone) in [("a1", "a"), ("a2", "a"), ("b1", "b")] {
        cache.upsert_node(labelled_node(name, &format!(r#"{{"zone":"{zone}"}}"#), "{}", "{}"));
    }
    for (at, (labels, affinity, node)) in placed.iter().enumerate() {
        let spec = format!(r#"{{"affinity":{affinity}}}"#);
        cache.assume(labelled_pod_info(&format!("placed{at}"), labels, &spec), cache.slot(node).unwrap());
    }
    cache
}

/// Names of the feasible nodes, or all refusals.
fn feasible(pod: &Arc<PodInfo>, cache: &Cache) -> String {
    let profile = profile();
    let shortlist =
        Shortlist::new(&profile, pod.clone(), cache).unwrap_or_else(|_| panic!("rejected by PreFilter"));
    let names: Vec<&str> = cache
        .nodes()
        .filter(|(slot, _)| shortlist.is_feasible(*slot))
        .map(|(_, node)| node.name.as_str())
        .collect();
    match names.is_empty() {
        false => names.join(" "),
        true => shortlist
            .refusals()
            .map(|r| format!("{} {}", r.nodes, r.status.message()))
            .collect::<Vec<_>>()
            .join("; "),
    }
}

const NEAR_WEB: &str = r#"{"podAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":
    [{"topologyKey":"zone","labelSelector":{"matchLabels":{"app":"web"}}}]}}"#;
const APART_FROM_WEB: &str = r#"{"podAntiAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":
    [{"topologyKey":"zone","labelSelector":{"matchLabels":{"app":"web"}}}]}}"#;
const WEB: &str = r#"{"app":"web"}"#;

#[test]
fn pods_go_near_and_apart_by_domain_in_both_directions() {
    let pod = |labels: &str, affinity: &str| {
        labelled_pod_info("p", labels, &format!(r#"{{"affinity":{affinity}}}"#))
    };
    let web_in_b = [(WEB, "{}", "b1")];
    assert_eq!(feasible(&pod("{}", NEAR_WEB), &zones(&web_in_b)), "b1");
    assert_eq!(feasible(&pod("{}", APART_FROM_WEB), &zones(&web_in_b)), "a1 a2");
    let loner_in_a = [("{}", APART_FROM_WEB, "a1")];
    assert_eq!(feasible(&pod(WEB, "{}"), &zones(&loner_in_a)), "b1", "who is there may mind, too");
    assert_eq!(feasible(&pod("{}", "{}"), &zones(&loner_in_a)), "a1 a2 b1");
    assert_eq!(feasible(&pod("{}", NEAR_WEB), &zones(&[])), "3 node(s) didn't match pod affinity rules");
    assert_eq!(
        feasible(&pod(WEB, NEAR_WEB), &zones(&[])),
        "a1 a2 b1",
        "the first of its kind may go anywhere"
    );
    let everywhere = [(WEB, "{}", "a2"), (WEB, "{}", "b1")];
    assert_eq!(
        feasible(&pod("{}", APART_FROM_WEB), &zones(&everywhere)),
        "3 node(s) didn't match pod anti-affinity rules"
    );
    let minders = [("{}", APART_FROM_WEB, "a1"), ("{}", APART_FROM_WEB, "b1")];
    assert_eq!(
        feasible(&pod(WEB, "{}"), &zones(&minders)),
        "3 node(s) didn't satisfy existing pods anti-affinity rules"
    );
}

#[test]
fn affinity_reaches_other_namespaces_only_when_it_says_so() {
    let elsewhere = |selector: &str| {
        let spec = format!(
            r#"{{"affinity":{{"podAffinity":{{"requiredDuringSchedulingIgnoredDuringExecution":[{{"topologyKey":"zone",
               "labelSelector":{{"matchLabels":{{"app":"web"}}}},"namespaceSelector":{selector}}}]}}}}}}"#
        );
        let mut cache = zones(&[(WEB, "{}", "b1")]);
        cache.set_namespace("default", [("team".into(), "x".into())].into_iter().collect());
        feasible(&pod_info("p", &spec), &cache)
    };
    assert_eq!(elsewhere("{}"), "b1", "an empty selector is every namespace");
    assert_eq!(elsewhere(r#"{"matchLabels":{"team":"x"}}"#), "b1");
    assert_eq!(elsewhere(r#"{"matchLabels":{"team":"y"}}"#), "3 node(s) didn't match pod affinity rules");
}

#[test]
fn spread_constraints_bound_the_skew() {
    let spread = |skew: i32, more: &str| {
        let spec = format!(
            r#"{{"topologySpreadConstraints":[{{"maxSkew":{skew},"topologyKey":"zone","whenUnsatisfiable":"DoNotSchedule",
               "labelSelector":{{"matchLabels":{{"app":"web"}}}}{more}}}]}}"#
        );
        labelled_pod_info("p", WEB, &spec)
    };
    let in_a = [(WEB, "{}", "a1")];
    assert_eq!(feasible(&spread(1, ""), &zones(&in_a)), "b1");
    assert_eq!(feasible(&spread(2, ""), &zones(&in_a)), "a1 a2 b1");
    assert_eq!(feasible(&spread(1, ""), &zones(&[(WEB, "{}", "a1"), (WEB, "{}", "b1")])), "a1 a2 b1");
    assert_eq!(
        feasible(&spread(1, r#","minDomains":3"#), &zones(&[(WEB, "{}", "a1"), (WEB, "{}", "b1")])),
        "3 node(s) didn't match pod topology spread constraints"
    );
    let mut unlabelled = Cache::default();
    unlabelled.upsert_node(node("n", "{}", "{}"));
    assert_eq!(
        feasible(&spread(1, ""), &unlabelled),
        "1 node(s) didn't match pod topology spread constraints (missing required label)"
    );
}

#[test]
fn soft_spreading_and_preferred_affinity_choose_the_domain() {
    let profile = profile();
    let best = |spec: &str, cache: &Cache| {
        let mut shortlist =
            Shortlist::new(&profile, labelled_pod_info("p", WEB, spec), cache).unwrap_or_else(|_| panic!());
        let names = shortlist.best_all().into_iter().map(|slot| cache.node(slot).unwrap().name.to_string());
        names.collect::<Vec<_>>().join(" ")
    };
    let soft = r#"{"topologySpreadConstraints":[{"maxSkew":1,"topologyKey":"zone","whenUnsatisfiable":"ScheduleAnyway",
        "labelSelector":{"matchLabels":{"app":"web"}}}]}"#;
    assert_eq!(best(soft, &zones(&[(WEB, "{}", "a1")])), "b1");
    assert_eq!(best(soft, &zones(&[(WEB, "{}", "b1")])), "a1 a2");
    let prefers = |side: &str| {
        format!(
            r#"{{"affinity":{{"{side}":{{"preferredDuringSchedulingIgnoredDuringExecution":[{{"weight":100,"podAffinityTerm":
               {{"topologyKey":"zone","labelSelector":{{"matchLabels":{{"app":"web"}}}}}}}}]}}}}}}"#
        )
    };
    assert_eq!(best(&prefers("podAffinity"), &zones(&[(WEB, "{}", "a1")])), "a1 a2");
    assert_eq!(best(&prefers("podAntiAffinity"), &zones(&[(WEB, "{}", "a1")])), "b1");
}

#[test]
fn hints_requeue_only_what_an_event_can_help() {
    let profile = profile();
    let helps = |plugin: &str, pod: &Arc<PodInfo>, event: Event<'_>| {
        let kinds = event.kinds();
        let rejector = (0..64).find(|&id| profile.plugin_name(id) == plugin).unwrap();
        profile.is_worth_requeuing(pod, [rejector].into_iter().collect(), &event, kinds)
    };
    let pod = pod_info(
        "p",
        r#"{"nodeSelector":{"zone":"a"},"containers":[{"resources":{"requests":{"cpu":"6"}}}]}"#,
    );
    let (plain, tainted) =
        (node("n", "{}", "{}"), node("n", r#"{"taints":[{"key":"k","effect":"NoExecute"}]}"#, "{}"));
    let (zoned, large) = (
        labelled_node("n", r#"{"zone":"a"}"#, "{}", "{}"),
        node("n", "{}", r#"{"allocatable":{"cpu":"8","pods":"9"}}"#),
    );
    let cordoned = node("n", r#"{"unschedulable":true}"#, "{}");
    let updated = |old, new| Event::NodeUpdated { old, new };
    assert!(helps("TaintToleration", &pod, updated(&tainted, &plain)));
    assert!(!helps("TaintToleration", &pod, updated(&plain, &tainted)));
    assert!(!helps("TaintToleration", &pod, Event::NodeAdded(&tainted)));
    assert!(helps("NodeAffinity", &pod, updated(&plain, &zoned)));
    assert!(!helps("NodeAffinity", &pod, updated(&zoned, &plain)));
    assert!(helps("NodeUnschedulable", &pod, updated(&cordoned, &plain)));
    assert!(helps("NodeResourcesFit", &pod, Event::NodeAdded(&large)));
    assert!(!helps("NodeResourcesFit", &pod, Event::NodeAdded(&plain)));
    assert!(helps("NodeResourcesFit", &pod, Event::AssignedPodDeleted(&pod_info("q", "{}"))));
    assert!(!helps("NodeResourcesFit", &pod, Event::PodAssigned(&pod_info("q", "{}"))));
    let (web, other) = (
        pod_info("web", r#"{"containers":[{"ports":[{"hostPort":80}]}]}"#),
        pod_info("other", r#"{"containers":[{"ports":[{"hostPort":81}]}]}"#),
    );
    assert!(helps("NodePorts", &web, Event::AssignedPodDeleted(&web)));
    assert!(!helps("NodePorts", &web, Event::AssignedPodDeleted(&other)));
}
