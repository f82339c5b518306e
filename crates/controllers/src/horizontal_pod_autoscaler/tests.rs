use api::gvr::{DEPLOYMENTS, HORIZONTAL_POD_AUTOSCALERS};
use apimachinery::{GroupVersionResource, Value, json};
use client::Discovered;
use client::fake::FakeApi;

use super::*;
use crate::testing::World;

const CUSTOM: &str = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/ns";
const PODS_USE: &str = "/apis/metrics.k8s.io/v1beta1/namespaces/ns/pods";

fn autoscaler(name: &str, spec: Value) -> Value {
    let mut tree = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": name, "namespace": "ns"},
        "spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            "minReplicas": 1, "maxReplicas": 10}});
    for (key, value) in spec.as_object().expect("a spec").iter() {
        tree.set_at(&["spec", key], value.clone());
    }
    tree
}

fn by_cpu(percent: i64) -> Value {
    json!({"metrics": [{"type": "Resource", "resource": {"name": "cpu",
        "target": {"type": "Utilization", "averageUtilization": percent}}}]})
}

fn deployment(replicas: i64) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "ns"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}}, "status": {"replicas": replicas}})
}

/// A pod that has been ready for long, and requests a tenth of a processor.
fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "ns", "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "100m", "memory": "1Gi"}}}]},
        "status": {"phase": "Running", "startTime": "2026-01-01T00:00:00Z",
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}})
}

/// What pods `p0`, `p1`, … use.
fn use_of(cpu: &[&str]) -> Value {
    let item = |(number, cpu): (usize, &&str)| {
        json!({"metadata": {"name": format!("p{number}"), "namespace": "ns"},
            "timestamp": "2026-01-01T00:10:00Z", "window": "30s",
            "containers": [{"name": "c", "usage": {"cpu": *cpu, "memory": "512Mi"}}]})
    };
    json!({"kind": "PodMetricsList", "items": cpu.iter().enumerate().map(item).collect::<Vec<_>>()})
}

/// A cluster with a Deployment of `replicas` pods, and what they use.
fn world(spec: Value, replicas: usize, prepare: impl FnOnce(&FakeApi)) -> World {
    let mut seeds: Vec<Value> = (0..replicas).map(|number| pod(&format!("p{number}"))).collect();
    seeds.extend([deployment(replicas as i64), autoscaler("web", spec)]);
    start(seeds, Options::default(), prepare)
}

fn start(seeds: Vec<Value>, options: Options, prepare: impl FnOnce(&FakeApi)) -> World {
    let sync_period = Duration::from_millis(200);
    let autoscaler = Settings { sync_period, ..Settings::default() };
    let world = World::start_with(vec![descriptor()], seeds, Options { autoscaler, ..options });
    prepare(&world.fake);
    world
}

fn status(fake: &FakeApi, name: &str) -> Value {
    let object = fake.peek(&HORIZONTAL_POD_AUTOSCALERS, "ns", name).expect("it is there");
    object.to_value()["status"].clone()
}

/// `Type=Status/Reason: message` of each condition.
fn conditions(fake: &FakeApi, name: &str) -> Vec<String> {
    let text = |own: &Value| {
        let [kind, status, reason, message] =
            ["type", "status", "reason", "message"].map(|field| own.str_at(&[field]));
        format!("{kind}={status}/{reason}: {message}")
    };
    status(fake, name).array_at(&["conditions"]).iter().map(text).collect()
}

fn replicas(fake: &FakeApi) -> i64 {
    let object = fake.peek(&DEPLOYMENTS, "ns", "web").expect("it is there");
    object.to_value()["spec"]["replicas"].as_i64().expect("a number")
}

async fn told(world: &World, wanted: &str) {
    world.wait_for(wanted, |_| world.events().iter().any(|event| event == wanted)).await;
}

#[tokio::test(start_paused = true)]
async fn use_above_the_target_makes_it_grow_and_says_so() {
    let world = world(by_cpu(50), 2, |fake| fake.answer(PODS_USE, use_of(&["150m", "50m"])));
    world.wait_for("growth", |fake| replicas(fake) == 4).await;
    let why = "cpu resource utilization (percentage of request)";
    told(&world, &format!("SuccessfulRescale: New size: 4; reason: {why} above target")).await;
    world.wait_for("a status", |fake| !status(fake, "web")["lastScaleTime"].is_null()).await;
    let status = status(&world.fake, "web");
    assert_eq!(status["currentReplicas"].as_i64(), Some(2));
    assert_eq!(status["desiredReplicas"].as_i64(), Some(4));
    assert_eq!(
        status["currentMetrics"],
        json!([{"type": "Resource", "resource": {"name": "cpu",
            "current": {"averageUtilization": 100, "averageValue": "100m"}}}])
    );
    assert_eq!(
        conditions(&world.fake, "web"),
        [
            "AbleToScale=True/SucceededRescale: the HPA controller was able to update the target scale to 4",
            "ScalingActive=True/ValidMetricFound: the HPA was able to successfully calculate a replica count from \
             cpu resource utilization (percentage of request)",
            "ScalingLimited=False/DesiredWithinRange: the desired count is within the acceptable range",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn use_below_the_target_shrinks_it_only_when_the_window_has_passed() {
    let mut spec = by_cpu(50);
    spec.set_at(
        &["behavior"],
        json!({"scaleDown": {"stabilizationWindowSeconds": 2, "selectPolicy": "Max",
        "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]}}),
    );
    let world = world(spec, 4, |fake| fake.answer(PODS_USE, use_of(&["10m"; 4])));
    let stabilized = "AbleToScale=True/ScaleDownStabilized: recent recommendations were higher than current one, \
                      applying the highest recent recommendation";
    world.wait_for("waiting", |fake| conditions(fake, "web").iter().any(|own| own == stabilized)).await;
    assert_eq!(replicas(&world.fake), 4);
    world.wait_for("shrinking", |fake| replicas(fake) == 1).await;
    told(&world, "SuccessfulRescale: New size: 1; reason: All metrics below target").await;
}

#[tokio::test(start_paused = true)]
async fn bounds_hold_whatever_metrics_say() {
    for (replicas_now, bounds, wanted, why) in [
        (2, json!({"minReplicas": 5}), 5, "Current number of replicas below Spec.MinReplicas"),
        (8, json!({"maxReplicas": 3}), 3, "Current number of replicas above Spec.MaxReplicas"),
    ] {
        let world = world(bounds, replicas_now, |_| {});
        world.wait_for("the bound", |fake| replicas(fake) == wanted).await;
        told(&world, &format!("SuccessfulRescale: New size: {wanted}; reason: {why}")).await;
    }
    let world = world(by_cpu(10), 2, |fake| fake.answer(PODS_USE, use_of(&["100m"; 2])));
    let limited = "ScalingLimited=True/ScaleUpLimit: the desired replica count is increasing faster than the maximum \
                   scale rate";
    world.wait_for("a limit", |fake| conditions(fake, "web").iter().any(|own| own == limited)).await;
    assert_eq!(replicas(&world.fake), 4, "from two to no more than four at once");
}

#[tokio::test(start_paused = true)]
async fn a_target_without_replicas_is_left_alone() {
    let world = world(by_cpu(50), 0, |_| {});
    let disabled = "ScalingActive=False/ScalingDisabled: scaling is disabled since the replica count of the target is \
                    zero";
    world.wait_for("rest", |fake| conditions(fake, "web").iter().any(|own| own == disabled)).await;
    assert_eq!(replicas(&world.fake), 0);
}

#[tokio::test(start_paused = true)]
async fn metrics_that_cannot_be_read_are_told_in_upstreams_words() {
    let pods_metric = json!({"metrics": [{"type": "Pods", "pods": {"metric": {"name": "qps"},
        "target": {"type": "AverageValue", "averageValue": "10"}}}]});
    let external = json!({"metrics": [{"type": "External", "external": {
        "metric": {"name": "queue", "selector": {"matchLabels": {"q": "a"}}},
        "target": {"type": "Value", "value": "30"}}}]});
    let rows = [
        (
            by_cpu(50),
            "FailedGetResourceMetric",
            "failed to get cpu utilization: unable to get metrics for resource cpu: unable to fetch metrics from \
             resource metrics API: the server could not find the requested resource (get pods.metrics.k8s.io)",
            "failed to get cpu resource metric value: ",
        ),
        (
            pods_metric,
            "FailedGetPodsMetric",
            "unable to get metric qps: unable to fetch metrics from custom metrics API: no custom metrics API \
             (custom.metrics.k8s.io) registered",
            "failed to get pods metric value: ",
        ),
        (
            external,
            "FailedGetExternalMetric",
            "unable to get external metric ns/queue/&LabelSelector{MatchLabels:map[string]string{q: a,},\
             MatchExpressions:[]LabelSelectorRequirement{},}: unable to fetch metrics from external metrics API: the \
             server could not find the requested resource (get queue.external.metrics.k8s.io)",
            "failed to get queue external metric value: failed to get external metric queue: ",
        ),
    ];
    for (spec, reason, why, prefix) in rows {
        let world = world(spec, 1, |_| {});
        told(&world, &format!("{reason}: {why}")).await;
        let error = format!("invalid metrics (1 invalid out of 1), first error is: {prefix}{why}");
        told(&world, &format!("FailedComputeMetricsReplicas: {error}")).await;
        let active =
            format!("ScalingActive=False/{reason}: the HPA was unable to compute the replica count: {why}");
        world.wait_for("a condition", |fake| conditions(fake, "web").contains(&active)).await;
        assert_eq!(status(&world.fake, "web")["currentMetrics"], json!([{"type": ""}]));
        assert_eq!(replicas(&world.fake), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn pods_objects_and_queues_are_measured_through_their_own_apis() {
    let values = |items: Value| json!({"kind": "MetricValueList", "items": items});
    let serve = |fake: &FakeApi| {
        fake.answer(
            "/apis/custom.metrics.k8s.io",
            json!({"preferredVersion": {"version": "v1"}, "versions": [{"version": "v1"}, {"version": "v1beta2"}]}),
        );
        fake.answer(
            &format!("{CUSTOM}/pods/*/qps?labelSelector=app%3Dweb"),
            values(json!([{"describedObject": {"name": "p0"}, "value": "20"}])),
        );
        fake.answer(&format!("{CUSTOM}/deployments.apps/web/hits"), values(json!([{"value": "2500m"}])));
        fake.answer(&format!("{CUSTOM}/metrics/load"), values(json!([{"value": 3}])));
        fake.answer(
            "/apis/external.metrics.k8s.io/v1beta1/namespaces/ns/queue?labelSelector=q%3Da",
            values(json!([{"value": "30"}, {"value": "15"}])),
        );
    };
    let object = |kind: &str, version: &str, metric: &str, target: Value| {
        json!({"metrics": [{"type": "Object", "object": {"metric": {"name": metric}, "target": target,
            "describedObject": {"kind": kind, "apiVersion": version, "name": "web"}}}]})
    };
    let external = |target: Value| {
        json!({"metrics": [{"type": "External", "external": {"target": target,
            "metric": {"name": "queue", "selector": {"matchLabels": {"q": "a"}}}}}]})
    };
    let selector = "&LabelSelector{MatchLabels:map[string]string{q: a,},\
                    MatchExpressions:[]LabelSelectorRequirement{},}";
    let rows = [
        (
            json!({"metrics": [{"type": "Pods", "pods": {"metric": {"name": "qps"},
                "target": {"type": "AverageValue", "averageValue": "10"}}}]}),
            2,
            "pods metric qps".to_owned(),
            json!({"averageValue": "20"}),
        ),
        (
            object("Deployment", "apps/v1", "hits", json!({"type": "Value", "value": "1"})),
            3,
            "Deployment metric hits".to_owned(),
            json!({"value": "2500m"}),
        ),
        (
            object("Namespace", "v1", "load", json!({"type": "AverageValue", "averageValue": "1"})),
            3,
            "external metric load(nil)".to_owned(),
            json!({"averageValue": "3"}),
        ),
        (
            external(json!({"type": "Value", "value": "15"})),
            3,
            format!("external metric queue({selector})"),
            json!({"value": "45"}),
        ),
        (
            external(json!({"type": "AverageValue", "averageValue": "22"})),
            3,
            format!("external metric queue({selector})"),
            json!({"averageValue": "45"}),
        ),
    ];
    for (spec, wanted, name, current) in rows {
        let kind = spec["metrics"][0].str_at(&["type"]).to_lowercase();
        let world = world(spec, 1, serve);
        told(&world, &format!("SuccessfulRescale: New size: {wanted}; reason: {name} above target")).await;
        assert_eq!(replicas(&world.fake), wanted, "{name}");
        world.wait_for("a status", |fake| !status(fake, "web")["lastScaleTime"].is_null()).await;
        assert_eq!(
            status(&world.fake, "web")["currentMetrics"][0][kind.as_str()]["current"],
            current,
            "{name}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn one_good_metric_is_enough_to_grow_but_not_to_shrink() {
    let metrics = |cpu: i64| {
        let mut spec = by_cpu(cpu);
        let broken = json!({"type": "Pods", "pods": {"metric": {"name": "qps"},
            "target": {"type": "AverageValue", "averageValue": "10"}}});
        let metrics = spec.at_mut(&["metrics"]).and_then(Value::as_array_mut).expect("a list");
        metrics.push(broken);
        spec
    };
    let grows = world(metrics(50), 1, |fake| fake.answer(PODS_USE, use_of(&["200m"])));
    grows.wait_for("growth", |fake| replicas(fake) == 4).await;
    let stays = world(metrics(100), 2, |fake| fake.answer(PODS_USE, use_of(&["10m", "10m"])));
    stays
        .wait_for("a refusal", |fake| {
            conditions(fake, "web")
                .iter()
                .any(|own| own.starts_with("ScalingActive=False/FailedGetPodsMetric"))
        })
        .await;
    assert_eq!(replicas(&stays.fake), 2);
}

#[tokio::test(start_paused = true)]
async fn targets_that_cannot_be_scaled_are_told() {
    let target = |version: &str, kind: &str| json!({"scaleTargetRef": {"apiVersion": version, "kind": kind, "name": "nothing"}});
    let rows = [
        (target("apps/v1", "Deployment"), "deployments.apps \"nothing\" not found"),
        (target("example.com/v1", "Web"), "no matches for kind \"Web\" in group \"example.com\""),
        (target("a/b/c", "Web"), "unexpected GroupVersion string: a/b/c"),
    ];
    for (spec, why) in rows {
        let world = world(spec, 1, |_| {});
        told(&world, &format!("FailedGetScale: {why}")).await;
        let wanted = format!(
            "AbleToScale=False/FailedGetScale: the HPA controller was unable to get the target's current scale: {why}"
        );
        world.wait_for("a condition", |fake| conditions(fake, "web") == [wanted.as_str()]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn pods_of_two_autoscalers_are_scaled_by_neither() {
    let mut seeds = vec![pod("p0"), deployment(1)];
    seeds.extend(["a", "b"].map(|name| autoscaler(name, by_cpu(50))));
    let world = start(seeds, Options::default(), |fake| fake.answer(PODS_USE, use_of(&["200m"])));
    let why = "pods by selector app=web are controlled by multiple HPAs: [{a ns} {b ns}]";
    told(&world, &format!("AmbiguousSelector: {why}")).await;
    let wanted = format!("ScalingActive=False/AmbiguousSelector: {why}");
    world.wait_for("b refused", |fake| conditions(fake, "b").contains(&wanted)).await;
    world.fake.drop_object(&HORIZONTAL_POD_AUTOSCALERS, "ns", "a");
    world
        .wait_for("b alone", |fake| {
            conditions(fake, "b").iter().any(|own| own.starts_with("ScalingActive=True/ValidMetricFound"))
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn custom_resources_are_scaled_as_well_and_conflicts_are_tried_again() {
    let webs =
        GroupVersionResource { group: "example.com".into(), version: "v1".into(), resource: "webs".into() };
    let mut web = deployment(2);
    web.set_at(&["apiVersion"], "example.com/v1");
    web.set_at(&["kind"], "Web");
    let target = json!({"apiVersion": "example.com/v1", "kind": "Web", "name": "web"});
    let mut spec = by_cpu(50);
    spec.set_at(&["scaleTargetRef"], target);
    let seeds = vec![pod("p0"), pod("p1"), autoscaler("web", spec)];
    let world = start(seeds, Options::default(), |fake| {
        fake.register(Discovered {
            gvr: webs.clone(),
            kind: "Web".into(),
            namespaced: true,
            verbs: vec!["get".into()],
        });
        fake.seed(web);
        fake.answer(PODS_USE, use_of(&["75m", "75m"]));
        let mut conflicts = 2;
        fake.fail(move |call| {
            let is_scale = call.verb == "update" && call.subresource == "scale" && conflicts > 0;
            is_scale.then(|| {
                conflicts -= 1;
                Status::new(409, "Conflict", "somebody was faster")
            })
        });
    });
    let found = |fake: &FakeApi| {
        fake.peek(&webs, "ns", "web").and_then(|own| own.to_value()["spec"]["replicas"].as_i64())
    };
    world.wait_for("three", |fake| found(fake) == Some(3)).await;
    told(
        &world,
        "SuccessfulRescale: New size: 3; reason: cpu resource utilization (percentage of request) above target",
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_while_nothing_changes() {
    let world = world(by_cpu(50), 2, |fake| fake.answer(PODS_USE, use_of(&["50m", "50m"])));
    world.wait_for("a status", |fake| conditions(fake, "web").len() == 3).await;
    rt::sleep(Duration::from_secs(1)).await;
    world.fake.take_writes();
    rt::sleep(Duration::from_secs(5)).await;
    let reads = world.fake.calls().iter().filter(|call| call.subresource == "scale").count();
    assert!(reads >= 20, "it looks every 200 ms: {reads}");
    assert_eq!(world.fake.take_writes(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn what_was_scaled_to_zero_comes_back_where_the_feature_is_on() {
    let features = Options {
        features: api::features::Features::parse("HPAScaleToZero=true").expect("a gate"),
        ..Options::default()
    };
    let mut queue = autoscaler(
        "web",
        json!({"minReplicas": 0, "metrics": [{"type": "External", "external": {"metric": {"name": "queue"},
            "target": {"type": "Value", "value": "10"}}}],
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0, "selectPolicy": "Max",
                "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]},
            "scaleUp": {"selectPolicy": "Max", "policies": [{"type": "Pods", "value": 4, "periodSeconds": 15}]}}}),
    );
    queue.set_at(&["metadata", "labels"], json!({"a": "b"}));
    const QUEUE: &str = "/apis/external.metrics.k8s.io/v1beta1/namespaces/ns/queue";
    let seeds = vec![pod("p0"), deployment(1), queue];
    let world = start(seeds, features, |fake| fake.answer(QUEUE, json!({"items": [{"value": "0"}]})));
    world.wait_for("none", |fake| replicas(fake) == 0).await;
    let to_zero = "ScaledToZero=True/ScaledToZero: the HPA controller scaled the workload to zero";
    world.wait_for("a mark", |fake| conditions(fake, "web").iter().any(|own| own == to_zero)).await;
    world.fake.answer(QUEUE, json!({"items": [{"value": "20"}]}));
    world.wait_for("back", |fake| replicas(fake) == 2).await;
    let back = "ScaledToZero=False/NotScaledToZero: the HPA controller did not scale the workload to zero";
    world.wait_for("no mark", |fake| conditions(fake, "web").iter().any(|own| own == back)).await;
}

mod replica_counts {
    use super::super::replicas::{Goal, PodMetric, PodMetrics, Tolerances, by_ratio, by_share, propose};
    use super::*;

    const TENTH: Tolerances = Tolerances { down: 0.1, up: 0.1 };
    const CPU: Goal<'_> = Goal::Utilization { percent: 50, resource: "cpu", container: None };

    /// What makes a pod another than [`pod`] is.
    type Change = fn(&mut Value);

    fn pods(change: &[Change]) -> Vec<PodOf> {
        let read = |(number, change): (usize, &Change)| {
            let mut pod = pod(&format!("p{number}"));
            change(&mut pod);
            PodOf::read(crate::testing::object(pod)).expect("a pod")
        };
        change.iter().enumerate().map(read).collect()
    }

    fn metrics(values: &[i64]) -> PodMetrics {
        let at = "2026-01-01T00:10:00Z".parse().expect("a time");
        let metric = |value: &i64| PodMetric { at, window: Duration::from_secs(30), value: *value };
        values.iter().enumerate().map(|(n, value)| (format!("p{n}").into(), metric(value))).collect()
    }

    fn count(goal: Goal<'_>, values: &[i64], change: &[Change]) -> Result<i32, String> {
        let (pods, settings) = (pods(change), Settings::default());
        let current = pods.len() as i32;
        propose(goal, metrics(values), &pods, current, TENTH, &settings).map(|own| own.replicas)
    }

    fn ready(_: &mut Value) {}

    fn pending(pod: &mut Value) {
        pod.set_at(&["status", "phase"], "Pending");
    }

    fn failed(pod: &mut Value) {
        pod.set_at(&["status", "phase"], "Failed");
    }

    fn leaving(pod: &mut Value) {
        pod.set_at(&["metadata", "deletionTimestamp"], "2026-01-01T00:00:00Z");
    }

    /// Long ago, and not ready since its start.
    fn never_ready(pod: &mut Value) {
        pod.set_at(
            &["status", "conditions"],
            json!([{"type": "Ready", "status": "False",
            "lastTransitionTime": "2026-01-01T00:00:10Z"}]),
        );
    }

    /// Long ago, and not ready any more.
    fn unready_later(pod: &mut Value) {
        pod.set_at(
            &["status", "conditions"],
            json!([{"type": "Ready", "status": "False",
            "lastTransitionTime": "2026-01-01T00:05:00Z"}]),
        );
    }

    /// Ready, but the metric is of before.
    fn just_started(pod: &mut Value) {
        let now = time::format_seconds(rt::now());
        pod.set_at(&["status", "startTime"], now.as_str());
        pod.set_at(
            &["status", "conditions"],
            json!([{"type": "Ready", "status": "True", "lastTransitionTime": now}]),
        );
    }

    fn without_request(pod: &mut Value) {
        pod.set_at(&["spec", "containers"], json!([{"name": "c"}]));
    }

    fn at_pod_level(pod: &mut Value) {
        without_request(pod);
        pod.set_at(&["spec", "resources", "requests", "cpu"], "200m");
    }

    #[test]
    fn pods_count_by_how_much_their_use_says() {
        let rows: [(&str, &[i64], &[Change], i32); 14] = [
            ("the target doubled", &[100, 100], &[ready, ready], 4),
            ("within the tolerance", &[54, 54], &[ready, ready], 2),
            ("just beyond it", &[56, 56], &[ready, ready], 3),
            ("half of the target", &[25, 25, 25, 25], &[ready, ready, ready, ready], 2),
            // 100 % of one, 0 of the pending: the two together are on target.
            ("a pending pod will take its share", &[100], &[ready, pending], 2),
            ("a pending pod is no reason to stay", &[20, 20, 0], &[ready, ready, pending], 1),
            ("a lost metric counts as nothing on the way up", &[200, 200], &[ready, ready, ready], 8),
            // 10 of 100 and an assumed 100 of 100: 55 % on average.
            ("and as all on the way down", &[10], &[ready, ready], 2),
            ("what fails is not there", &[100, 100, 900], &[ready, ready, failed], 4),
            ("nor what leaves", &[100, 100, 900], &[ready, ready, leaving], 4),
            ("what never was ready takes its share", &[100, 900], &[ready, never_ready], 2),
            ("what was ready counts", &[100, 100], &[ready, unready_later], 4),
            ("what has just started takes its share", &[100, 900], &[ready, just_started], 2),
            ("a pod may ask as a whole", &[200, 200], &[at_pod_level, at_pod_level], 4),
        ];
        for (what, values, change, wanted) in rows {
            assert_eq!(count(CPU, values, change), Ok(wanted), "{what}");
        }
    }

    #[test]
    fn what_cannot_be_counted_says_why() {
        let unready = "did not receive metrics for targeted pods (pods might be unready)";
        let of_container = Goal::Utilization { percent: 50, resource: "cpu", container: Some("d") };
        assert_eq!(count(CPU, &[1], &[pending]), Err(unready.into()));
        let none = "no pods returned by selector while calculating replica count";
        assert_eq!(count(CPU, &[1], &[]), Err(none.into()));
        let missing = "missing request for cpu in container c of Pod p0";
        assert_eq!(count(CPU, &[1], &[without_request]), Err(missing.into()));
        assert_eq!(count(of_container, &[1], &[ready]), Err("container d not found in Pod p0".into()));
        let of_nothing = Goal::Utilization { percent: 50, resource: "example.com/gpu", container: None };
        let missing = "missing request for example.com/gpu in container c of Pod p0";
        assert_eq!(count(of_nothing, &[1], &[ready]), Err(missing.into()));
    }

    #[test]
    fn averages_are_compared_as_they_are() {
        let goal = Goal::Average { milli: 100, resource: None };
        for (values, change, wanted) in [
            (vec![150, 150], vec![ready as Change, ready], 3),
            (vec![105, 105], vec![ready, ready], 2),
            // The lost one is taken to be on target on the way down.
            (vec![10, 10], vec![ready, ready, ready], 2),
            // Only processors are busy at a start.
            (vec![100, 300], vec![ready, just_started], 4),
        ] {
            assert_eq!(count(goal, &values, &change), Ok(wanted), "{values:?}");
        }
    }

    #[test]
    fn values_of_a_whole_target_are_shared_by_its_ready_pods() {
        let two = pods(&[ready, ready, never_ready]);
        assert_eq!(by_ratio(1.5, &two, 3, TENTH), Ok(3));
        assert_eq!(by_ratio(1.05, &two, 3, TENTH), Ok(3));
        assert_eq!(by_ratio(0.4, &two, 3, TENTH), Ok(1));
        assert_eq!(by_ratio(2.5, &[], 0, TENTH), Ok(3), "from zero");
        assert_eq!(by_ratio(f64::MAX, &two, 3, TENTH), Ok(i32::MAX));
        assert_eq!(by_share(45_000, 10_000, 2, TENTH), (5, 22_500));
        assert_eq!(by_share(21_000, 10_000, 2, TENTH), (2, 10_500));
        assert_eq!(by_share(0, 10_000, 0, TENTH).0, 0);
    }

    #[test]
    fn each_direction_may_have_a_tolerance_of_its_own() {
        let (pods, settings) = (pods(&[ready, ready, ready]), Settings::default());
        let count = |values: &[i64], tolerances: Tolerances| {
            propose(CPU, metrics(values), &pods, 3, tolerances, &settings).expect("a count").replicas
        };
        let careful_down = Tolerances { down: 0.6, up: 0.0 };
        assert_eq!(count(&[25, 25, 25], careful_down), 3);
        assert_eq!(count(&[51, 51, 51], careful_down), 4);
        assert_eq!(count(&[25, 25, 25], TENTH), 2);
    }
}

mod rates {
    use api::view::{HorizontalPodAutoscalerBehavior, HpaScalingPolicy, HpaScalingRules};

    use super::super::limits::{History, Wish, normalize};
    use super::*;

    const WINDOW: Duration = Duration::from_secs(300);

    fn rules(select: &str, policies: &[(&str, i32, i32)], window: i32) -> HpaScalingRules {
        let policy = |(kind, value, seconds): &(&str, i32, i32)| HpaScalingPolicy {
            type_: (*kind).into(),
            value: *value,
            period_seconds: *seconds,
        };
        HpaScalingRules {
            stabilization_window_seconds: Some(window),
            select_policy: select.into(),
            policies: policies.iter().map(policy).collect(),
            tolerance: None,
        }
    }

    #[test]
    fn policies_allow_so_much_in_so_long() {
        let both: &[(&str, i32, i32)] = &[("Pods", 4, 60), ("Percent", 100, 60)];
        // From, wanted, which policy, lately added and removed, allowed.
        let rows = [
            (10, 50, "Max", (0, 0), 20, "ScaleUpLimit"),
            (10, 50, "Min", (0, 0), 14, "ScaleUpLimit"),
            (2, 50, "Max", (0, 0), 6, "ScaleUpLimit"),
            (10, 50, "Disabled", (0, 0), 10, "ScaleUpLimit"),
            (10, 12, "Max", (0, 0), 12, "DesiredWithinRange"),
            (90, 150, "Max", (0, 0), 100, "TooManyReplicas"),
            // Six of the ten came lately: it began with four.
            (10, 50, "Min", (6, 0), 10, "ScaleUpLimit"),
            (10, 50, "Max", (6, 0), 10, "ScaleUpLimit"),
            (10, 50, "Max", (0, 10), 40, "ScaleUpLimit"),
            (10, 1, "Max", (0, 0), 2, "TooFewReplicas"),
            (10, 1, "Min", (0, 0), 6, "ScaleDownLimit"),
            (10, 1, "Disabled", (0, 0), 10, "ScaleDownLimit"),
            (10, 1, "Min", (0, 4), 10, "ScaleDownLimit"),
        ];
        for (current, desired, select, (added, removed), wanted, reason) in rows {
            let behavior = HorizontalPodAutoscalerBehavior {
                scale_up: rules(select, both, 0),
                scale_down: rules(select, both, 0),
            };
            let (mut history, now) = (History::default(), rt::instant());
            history.rescaled(Some(&behavior), (0, added), now);
            history.rescaled(Some(&behavior), (removed, 0), now);
            let wish = Wish { current, desired, min: 2, max: 100 };
            let normalized = normalize(&mut history, wish, Some(&behavior), WINDOW, now);
            let case = format!("{current} to {desired} by {select}");
            assert_eq!((normalized.replicas, normalized.scaling_limited.reason), (wanted, reason), "{case}");
        }
    }

    #[test]
    fn windows_hold_back_in_each_direction() {
        let behavior = HorizontalPodAutoscalerBehavior {
            scale_up: rules("Max", &[("Pods", 100, 15)], 60),
            scale_down: rules("Max", &[("Percent", 100, 15)], 120),
        };
        let (mut history, start) = (History::default(), rt::instant());
        history.begin(5, start);
        let mut at = |seconds: u64, desired: i32| {
            let wish = Wish { current: 5, desired, min: 1, max: 100 };
            let now = start + Duration::from_secs(seconds);
            let normalized = normalize(&mut history, wish, Some(&behavior), WINDOW, now);
            (normalized.replicas, normalized.able_to_scale.reason)
        };
        assert_eq!(at(15, 8), (5, "ScaleUpStabilized"));
        assert_eq!(at(61, 9), (8, "ScaleUpStabilized"));
        assert_eq!(at(70, 3), (5, "ScaleDownStabilized"));
        assert_eq!(at(182, 3), (3, "ReadyForNewScale"));
    }

    #[test]
    fn without_behaviour_the_highest_of_five_minutes_counts() {
        let (mut history, start) = (History::default(), rt::instant());
        history.begin(5, start);
        let mut at = |seconds: u64, desired: i32| {
            let wish = Wish { current: 5, desired, min: 1, max: 100 };
            let now = start + Duration::from_secs(seconds);
            let normalized = normalize(&mut history, wish, None, WINDOW, now);
            (normalized.replicas, normalized.able_to_scale.reason, normalized.scaling_limited.reason)
        };
        assert_eq!(at(15, 3), (5, "ScaleDownStabilized", "DesiredWithinRange"));
        assert_eq!(at(300, 3), (5, "ScaleDownStabilized", "DesiredWithinRange"));
        assert_eq!(at(301, 3), (3, "ReadyForNewScale", "DesiredWithinRange"));
        assert_eq!(at(302, 20), (10, "ReadyForNewScale", "ScaleUpLimit"));
    }
}
