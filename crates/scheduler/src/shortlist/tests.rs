//! The fast path against a plain one: on random clusters under random changes, both must find the same nodes.

use std::collections::BTreeMap;

use super::*;
use crate::framework::{LEFT_OUT, MAX_NODE_SCORE, Signature};
use crate::shared::{SIGNATURES_MAX, Shortlists};
use crate::testing::{labelled_node, labelled_pod_info, pod_info, profile};

/// Xorshift; a failure prints the seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    fn pick(&mut self, choices: &[&'static str]) -> &'static str {
        choices[self.below(choices.len() as u64) as usize]
    }
}

/// Nodes with their total scores by the rule of the book: filter each, score each, normalize each plugin's scores
/// over the feasible nodes, add up.
fn reference(profile: &Profile, pod: &Arc<PodInfo>, cache: &Cache) -> BTreeMap<Slot, i64> {
    let (mut state, mut skip_filter, mut skip_score) = <(CycleState, PluginSet, PluginSet)>::default();
    let mut only: Option<Vec<apimachinery::Str>> = None;
    for (id, plugin) in &profile.pre_filter {
        match plugin.pre_filter(&mut state, pod, cache).expect("no random pod contradicts itself") {
            Relevance::EveryNode => {}
            Relevance::Skip => skip_filter.insert(*id),
            Relevance::OnlyNodes(names) => only = Some(names),
        }
    }
    let left = |name: &apimachinery::Str| only.as_ref().is_none_or(|only| only.contains(name));
    let fits = |slot: Slot, node: &NodeInfo| {
        let mut crowded = node.clone();
        let stronger = |other: &&Arc<PodInfo>| other.priority() >= pod.priority() && other.uid() != pod.uid();
        cache.nominated_on(slot).filter(stronger).for_each(|other| crowded.add_pod(other.clone()));
        let run = |node: &NodeInfo| profile.run_filters(skip_filter, &state, pod, node).is_ok();
        run(&crowded) && run(node)
    };
    let feasible: Vec<(Slot, &NodeInfo)> =
        cache.nodes().filter(|(slot, node)| left(&node.name) && fits(*slot, node)).collect();
    let slots: Vec<Slot> = feasible.iter().map(|(slot, _)| *slot).collect();
    for (id, plugin) in &profile.pre_score {
        if plugin.pre_score(&mut state, pod, cache, &slots) == Relevance::Skip {
            skip_score.insert(*id);
        }
    }
    let mut totals: BTreeMap<Slot, i64> = feasible.iter().map(|(slot, _)| (*slot, 0)).collect();
    for score in profile.score.iter().filter(|score| !skip_score.contains(score.id)) {
        let raw: Vec<i64> = feasible.iter().map(|(_, node)| score.plugin.score(&state, pod, node)).collect();
        let counted = || raw.iter().filter(|&&raw| raw != LEFT_OUT);
        let (Some(&min), Some(&max)) = (counted().min(), counted().max()) else { continue };
        for ((slot, _), &raw) in feasible.iter().zip(&raw) {
            let value = match score.plugin.normalization() {
                _ if raw == LEFT_OUT => 0,
                Normalization::None => raw,
                Normalization::By(normalize) => normalize(raw, Extent { min, max }),
            };
            assert!((0..=MAX_NODE_SCORE).contains(&value));
            *totals.get_mut(slot).unwrap() += score.weight * value;
        }
    }
    totals
}

fn random_node(random: &mut Random, name: &str) -> Arc<api::view::Node> {
    let labels = random.pick(&["", r#""zone":"a","#, r#""zone":"b","ssd":"1","#, r#""zone":"b","#]);
    let labels = match random.below(8) {
        0 => format!("{{{}}}", labels.trim_end_matches(',')),
        _ => format!(r#"{{{labels}"kubernetes.io/hostname":"{name}"}}"#),
    };
    let spec = random.pick(&[
        "{}",
        "{}",
        r#"{"taints":[{"key":"t","effect":"NoSchedule"}]}"#,
        r#"{"taints":[{"key":"s","effect":"PreferNoSchedule"}]}"#,
        r#"{"taints":[{"key":"s","effect":"PreferNoSchedule"},{"key":"u","effect":"PreferNoSchedule"}]}"#,
        r#"{"unschedulable":true}"#,
    ]);
    let images = random.pick(&["[]", "[]", r#"[{"names":["app:1"],"sizeBytes":800000000}]"#]);
    let (cpu, memory, pods) = (1 + random.below(8), 1 + random.below(16), 1 + random.below(6));
    let status = format!(
        r#"{{"allocatable":{{"cpu":"{cpu}","memory":"{memory}Gi","pods":"{pods}","x.io/gpu":"{}"}},"images":{images}}}"#,
        random.below(2)
    );
    labelled_node(name, &labels, spec, &status)
}

/// Labels and spec.
fn random_pod(random: &mut Random) -> (&'static str, String) {
    let labels = random.pick(&["{}", r#"{"app":"a"}"#, r#"{"app":"b"}"#]);
    (labels, random_spec(random))
}

fn random_spec(random: &mut Random) -> String {
    let requests = random.pick(&[
        "{}",
        r#"{"cpu":"500m"}"#,
        r#"{"cpu":"1","memory":"1Gi"}"#,
        r#"{"memory":"3Gi"}"#,
        r#"{"x.io/gpu":"1"}"#,
        r#"{"cpu":"0"}"#,
    ]);
    let ports = random.pick(&["[]", "[]", r#"[{"hostPort":80}]"#]);
    let tolerations =
        random.pick(&["[]", r#"[{"key":"t","operator":"Exists"}]"#, r#"[{"operator":"Exists"}]"#]);
    let affinity = random.pick(&[
        "{}",
        "{}",
        r#"{"preferredDuringSchedulingIgnoredDuringExecution":[{"weight":7,"preference":{"matchExpressions":
           [{"key":"ssd","operator":"Exists"}]}},{"weight":2,"preference":{"matchExpressions":[{"key":"zone","operator":"Exists"}]}}]}"#,
        r#"{"requiredDuringSchedulingIgnoredDuringExecution":{"nodeSelectorTerms":[{"matchExpressions":
           [{"key":"zone","operator":"In","values":["a"]}]}]}}"#,
        r#"{"requiredDuringSchedulingIgnoredDuringExecution":{"nodeSelectorTerms":[{"matchFields":
           [{"key":"metadata.name","operator":"In","values":["n3"]}]}]}}"#,
    ]);
    let priority = random.below(3);
    let others = random.pick(&[
        "",
        "",
        "",
        r#","podAntiAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":[{"topologyKey":"zone",
           "labelSelector":{"matchLabels":{"app":"a"}}}]}"#,
        r#","podAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":[{"topologyKey":"zone",
           "labelSelector":{"matchLabels":{"app":"b"}}}]}"#,
        r#","podAntiAffinity":{"preferredDuringSchedulingIgnoredDuringExecution":[{"weight":9,"podAffinityTerm":
           {"topologyKey":"zone","labelSelector":{"matchLabels":{"app":"b"}}}}]}"#,
        r#","podAntiAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":[{"topologyKey":"kubernetes.io/hostname",
           "namespaceSelector":{"matchLabels":{"team":"x"}},"labelSelector":{"matchLabels":{"app":"a"}}},
           {"topologyKey":"zone","labelSelector":{"matchLabels":{"app":"c"}}}]}"#,
        r#","podAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":[{"topologyKey":"kubernetes.io/hostname",
           "labelSelector":{"matchLabels":{"app":"a"}}},{"topologyKey":"zone","labelSelector":{"matchLabels":{"app":"a"}}}],
           "preferredDuringSchedulingIgnoredDuringExecution":[{"weight":5,"podAffinityTerm":
           {"topologyKey":"kubernetes.io/hostname","labelSelector":{}}}]}"#,
    ]);
    let spread = random.pick(&[
        "[]",
        "[]",
        r#"[{"maxSkew":1,"topologyKey":"zone","whenUnsatisfiable":"DoNotSchedule","labelSelector":{"matchLabels":{"app":"a"}}}]"#,
        r#"[{"maxSkew":2,"topologyKey":"zone","whenUnsatisfiable":"ScheduleAnyway","labelSelector":{"matchLabels":{"app":"b"}}}]"#,
        r#"[{"maxSkew":1,"topologyKey":"kubernetes.io/hostname","whenUnsatisfiable":"DoNotSchedule","minDomains":4,
           "nodeTaintsPolicy":"Honor","labelSelector":{"matchLabels":{"app":"a"}}},
           {"maxSkew":2,"topologyKey":"zone","whenUnsatisfiable":"DoNotSchedule","labelSelector":{"matchExpressions":[{"key":"app","operator":"Exists"}]}}]"#,
        r#"[{"maxSkew":1,"topologyKey":"kubernetes.io/hostname","whenUnsatisfiable":"ScheduleAnyway","labelSelector":{"matchLabels":{"app":"a"}}},
           {"maxSkew":1,"topologyKey":"zone","whenUnsatisfiable":"ScheduleAnyway","nodeAffinityPolicy":"Ignore","labelSelector":{"matchLabels":{"app":"a"}}}]"#,
    ]);
    format!(
        r#"{{"priority":{priority},"containers":[{{"image":"app:1","resources":{{"requests":{requests}}},"ports":{ports}}}],
            "tolerations":{tolerations},"topologySpreadConstraints":{spread},
            "affinity":{{"nodeAffinity":{affinity}{others}}}}}"#
    )
}

fn change_cluster(random: &mut Random, cache: &mut Cache, placed: &mut Vec<String>) {
    let name = format!("n{}", random.below(12));
    match random.below(12) {
        0 => _ = cache.remove_node(&name),
        1..=3 => _ = cache.upsert_node(random_node(random, &name)),
        4 if !placed.is_empty() => {
            let at = random.below(placed.len() as u64) as usize;
            cache.remove_pod(&placed.swap_remove(at));
        }
        5 | 7 | 8 => {
            let pod = pod_info(
                "nominated",
                r#"{"priority":1,"containers":[{"resources":{"requests":{"cpu":"4"}}}]}"#,
            );
            cache.nominate(pod, &name);
        }
        6 => cache.clear_nomination("nominated"),
        9 => {
            let labels = random.pick(&["{}", r#"{"team":"x"}"#]);
            cache.set_namespace("default", serde_json::from_str(labels).unwrap());
        }
        10 if !placed.is_empty() => {
            let known = cache.pod(&placed[random.below(placed.len() as u64) as usize]).unwrap().clone();
            let slot = cache.slot_of_pod(known.uid()).unwrap();
            let mut pod = (*known.pod).clone();
            pod.metadata.deletion_timestamp = serde_json::from_str(r#""2026-01-01T00:00:00Z""#).unwrap();
            cache.assume(Arc::new(PodInfo::new(Arc::new(pod), 2)), slot);
        }
        _ => {}
    }
}

#[test]
fn shared_and_repaired_shortlists_find_what_a_plain_search_finds() {
    let profile = profile();
    let mut placements = 0;
    for seed in 1..=80 {
        let mut random = Random(0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(seed));
        let (mut cache, mut shortlists, mut placed) = (Cache::default(), Shortlists::default(), Vec::new());
        for name in 0..8 {
            cache.upsert_node(random_node(&mut random, &format!("n{name}")));
        }
        let pods: Vec<(&str, String)> = (0..6).map(|_| random_pod(&mut random)).collect();
        for step in 0..60 {
            change_cluster(&mut random, &mut cache, &mut placed);
            let (labels, spec) = &pods[random.below(pods.len() as u64) as usize];
            let pod = labelled_pod_info(&format!("p{step}"), labels, spec);
            let expected = reference(&profile, &pod, &cache);
            let highest = expected.values().max();
            let best: Vec<Slot> =
                expected.iter().filter(|(_, total)| Some(*total) == highest).map(|(slot, _)| *slot).collect();
            let shortlist = shortlists.of(&profile, &pod, &cache).expect("no random pod contradicts itself");
            assert_eq!(shortlist.totals(), expected, "seed {seed} step {step} {spec}");
            assert_eq!(shortlist.best_all(), best, "seed {seed} step {step} {spec} {expected:?}");
            if let Some(slot) = shortlist.best(random.below(1000)) {
                cache.assume(pod.clone(), slot);
                placed.push(pod.name().to_string());
                placements += 1;
            }
        }
    }
    assert!(placements > 500, "the clusters must not be full all the time: {placements}");
}

#[test]
fn signatures_differ_exactly_when_placement_may() {
    let profile = profile();
    let sign = |spec: &str| {
        let mut signature = Signature::default();
        profile
            .sign(&pod_info("p", spec), &Cache::default(), &mut signature)
            .map(|()| signature.bytes().to_vec())
    };
    let plain = sign("{}");
    for same in [r#"{"restartPolicy":"Never"}"#, r#"{"serviceAccountName":"x"}"#, r#"{"priority":5}"#] {
        assert_eq!(sign(same), plain, "{same}");
    }
    for other in [
        r#"{"nodeSelector":{"a":"b"}}"#,
        r#"{"tolerations":[{"operator":"Exists"}]}"#,
        r#"{"containers":[{"ports":[{"hostPort":1}]}]}"#,
        r#"{"containers":[{"resources":{"requests":{"cpu":"1"}}}]}"#,
        r#"{"containers":[{"image":"x"}]}"#,
        r#"{"containers":[{}]}"#,
    ] {
        assert_ne!(sign(other), plain, "{other}");
    }
    let daemon = r#"{"affinity":{"nodeAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":
        {"nodeSelectorTerms":[{"matchFields":[{"key":"metadata.name","operator":"In","values":["n"]}]}]}}}}"#;
    assert!(sign(daemon).is_err());
}

#[test]
fn only_so_many_signatures_are_kept() {
    let profile = profile();
    let (mut cache, mut shortlists) = (Cache::default(), Shortlists::default());
    cache.upsert_node(crate::testing::node("n", "{}", "{}"));
    for cpu in 0..SIGNATURES_MAX + 10 {
        let spec = format!(r#"{{"containers":[{{"resources":{{"requests":{{"cpu":"{cpu}m"}}}}}}]}}"#);
        shortlists.of(&profile, &pod_info("p", &spec), &cache).unwrap();
    }
    assert_eq!(shortlists.len(), SIGNATURES_MAX);
}

/// Prints what one core does; run by hand with `--ignored --nocapture`. In an optimized build only the number means
/// something.
#[test]
#[ignore = "a measurement"]
fn measure_placements_per_second() {
    let profile = profile();
    let (mut cache, mut shortlists) = (Cache::default(), Shortlists::default());
    for name in 0..5000 {
        let status = r#"{"allocatable":{"cpu":"32","memory":"256Gi","pods":"110"}}"#;
        cache.upsert_node(crate::testing::node(&format!("n{name}"), "{}", status));
    }
    let pods: Vec<_> = (0..20_000)
        .map(|n| {
            let cpu = 100 + 10 * (n % 4);
            let spec = format!(
                r#"{{"containers":[{{"resources":{{"requests":{{"cpu":"{cpu}m","memory":"500Mi"}}}}}}]}}"#
            );
            pod_info(&format!("p{n}"), &spec)
        })
        .collect();
    let start = rt::instant();
    for (n, pod) in pods.iter().enumerate() {
        let slot = shortlists.of(&profile, pod, &cache).unwrap().best(n as u64).unwrap();
        cache.assume(pod.clone(), slot);
    }
    let seconds = start.elapsed().as_secs_f64();
    println!("{:.0} placements/s on 5,000 nodes, 4 signatures", pods.len() as f64 / seconds);

    let daemon = |n: usize| {
        let spec = format!(
            r#"{{"affinity":{{"nodeAffinity":{{"requiredDuringSchedulingIgnoredDuringExecution":{{"nodeSelectorTerms":
               [{{"matchFields":[{{"key":"metadata.name","operator":"In","values":["n{n}"]}}]}}]}}}}}}}}"#
        );
        pod_info(&format!("d{n}"), &spec)
    };
    let pods: Vec<_> = (0..5000).map(daemon).collect();
    let start = rt::instant();
    for pod in &pods {
        let slot = shortlists.of(&profile, pod, &cache).unwrap().best(0).unwrap();
        cache.assume(pod.clone(), slot);
    }
    let seconds = start.elapsed().as_secs_f64();
    println!("{:.0} placements/s of daemon pods on 5,000 nodes", pods.len() as f64 / seconds);
}

/// As above, for pods that look at each other.
#[test]
#[ignore = "a measurement"]
fn measure_placements_of_pods_with_affinity() {
    let term =
        |key: &str| format!(r#"{{"topologyKey":"{key}","labelSelector":{{"matchLabels":{{"app":"a"}}}}}}"#);
    let required = |side: &str, key: &str| {
        let term = term(key);
        format!(r#""affinity":{{"{side}":{{"requiredDuringSchedulingIgnoredDuringExecution":[{term}]}}}}"#)
    };
    let preferred = |side: &str, key: &str| {
        let weighted = format!(r#"{{"weight":1,"podAffinityTerm":{}}}"#, term(key));
        format!(
            r#""affinity":{{"{side}":{{"preferredDuringSchedulingIgnoredDuringExecution":[{weighted}]}}}}"#
        )
    };
    let spread = |skew: u8, key: &str, how: &str| {
        format!(
            r#""topologySpreadConstraints":[{{"maxSkew":{skew},"whenUnsatisfiable":"{how}","nodeTaintsPolicy":"Honor",{}]"#,
            &term(key)[1..]
        )
    };
    let host = "kubernetes.io/hostname";
    let (anti, none) = (required("podAntiAffinity", host), r#""tolerations":[]"#.to_owned());
    for (name, first, measured, count) in [
        ("anti-affinity", &anti, &anti, 2000),
        ("no affinity, matching anti-affinity", &anti, &none, 2000),
        ("affinity", &none, &required("podAffinity", "zone"), 5000),
        ("preferred affinity", &none, &preferred("podAffinity", host), 5000),
        ("preferred anti-affinity", &none, &preferred("podAntiAffinity", host), 5000),
        ("spread over zones", &none, &spread(5, "zone", "DoNotSchedule"), 5000),
        ("preferred spread over zones", &none, &spread(5, "zone", "ScheduleAnyway"), 5000),
        ("spread over hosts", &none, &spread(1, host, "DoNotSchedule"), 4000),
    ] {
        let profile = profile();
        let (mut cache, mut shortlists) = (Cache::default(), Shortlists::default());
        for n in 0..5000 {
            let labels = format!(r#"{{"{host}":"n{n}","zone":"{}"}}"#, n % 3);
            cache.upsert_node(labelled_node(&format!("n{n}"), &labels, "{}", "{}"));
        }
        let pod = |n: usize| {
            let what = if n < 1000 { first } else { measured };
            let requests = r#"{"cpu":"100m","memory":"50Mi"}"#;
            let spec = format!(r#"{{"containers":[{{"resources":{{"requests":{requests}}}}}],{what}}}"#);
            labelled_pod_info(&format!("p{n}"), r#"{"app":"a"}"#, &spec)
        };
        let pods: Vec<_> = (0..1000 + count).map(pod).collect();
        let mut start = rt::instant();
        for (n, pod) in pods.iter().enumerate() {
            if n == 1000 {
                start = rt::instant();
            }
            let slot = shortlists.of(&profile, pod, &cache).unwrap().best(n as u64).unwrap();
            cache.assume(pod.clone(), slot);
        }
        println!("{:.0} placements/s: {name}", count as f64 / start.elapsed().as_secs_f64());
    }
}
