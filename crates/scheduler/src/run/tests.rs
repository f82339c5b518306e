//! The whole scheduler against a fake API.

use std::time::Duration;

use api::gvr::{EVENTS, STORAGE_CLASSES};
use client::fake::FakeApi;

use super::*;
use crate::cache::{Cache, NodeInfo};
use crate::framework::{
    CycleState, EnqueueExtensions, EventSet, Filter, NotShareable, Plugin, Registration, Sign, Signature,
    Status,
};
use crate::plugins::default_plugins;
use crate::testing::handle_of;

fn seed_node(api: &FakeApi, name: &str, cpu: &str) {
    api.seed(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
        "status": {"allocatable": {"cpu": cpu, "memory": "8Gi", "pods": "110"}}}));
}

fn seed_pod(api: &FakeApi, name: &str, cpu: &str) {
    api.seed(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"},
        "spec": {"schedulerName": "default-scheduler",
            "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]},
        "status": {"phase": "Pending"}}));
}

async fn start(api: &Arc<FakeApi>, shutdown: &Shutdown) {
    start_with(Options::default(), api, shutdown).await;
}

async fn start_with(options: Options, api: &Arc<FakeApi>, shutdown: &Shutdown) {
    let (ready, is_ready) = oneshot::channel();
    let (api, shutdown) = (api.clone(), shutdown.clone());
    rt::spawn("scheduler", async move {
        let informers = Informers::new(api.clone(), shutdown.clone());
        run(api, &informers, options, ready, shutdown).await.unwrap();
    });
    is_ready.await.unwrap();
}

/// Waits for a state, not for time to pass.
async fn until(what: &str, mut reached: impl FnMut() -> bool) {
    let deadline = rt::instant() + Duration::from_secs(20);
    while !reached() {
        assert!(rt::instant() < deadline, "not reached: {what}");
        rt::sleep(Duration::from_millis(2)).await;
    }
}

fn node_of(api: &FakeApi, pod: &str) -> String {
    let pod = api.peek(&PODS, "default", pod).map(|pod| pod.to_value()).unwrap_or_default();
    pod.str_at(&["spec", "nodeName"]).to_owned()
}

#[tokio::test]
async fn pods_are_bound_and_told_about() {
    let (api, shutdown) = (FakeApi::new(), Shutdown::new());
    seed_node(&api, "a", "4");
    seed_pod(&api, "before", "1");
    start(&api, &shutdown).await;
    seed_pod(&api, "after", "1");
    until("both bound", || node_of(&api, "before") == "a" && node_of(&api, "after") == "a").await;
    let told =
        |text: &str| api.peek_all(&EVENTS).iter().any(|event| event.to_value().str_at(&["message"]) == text);
    until("event", || told("Successfully assigned default/after to a")).await;
    shutdown.cancel();
}

#[tokio::test]
async fn a_pod_that_fits_nowhere_gets_a_condition_and_is_bound_when_a_node_comes() {
    let (api, shutdown) = (FakeApi::new(), Shutdown::new());
    seed_node(&api, "small", "1");
    seed_pod(&api, "p", "3");
    start(&api, &shutdown).await;
    let condition = || {
        let pod = api.peek(&PODS, "default", "p").unwrap().to_value();
        pod.array_at(&["status", "conditions"]).first().cloned().unwrap_or_default()
    };
    until("condition", || condition().str_at(&["reason"]) == "Unschedulable").await;
    assert_eq!(condition().str_at(&["status"]), "False");
    assert!(condition().str_at(&["message"]).starts_with(
        "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption:"
    ));
    seed_node(&api, "large", "8");
    until("bound", || node_of(&api, "p") == "large").await;
    shutdown.cancel();
}

#[tokio::test]
async fn a_binding_that_fails_is_tried_again() {
    let (api, shutdown) = (FakeApi::new(), Shutdown::new());
    seed_node(&api, "a", "4");
    seed_pod(&api, "p", "1");
    let mut failures = 1;
    api.fail(move |call| {
        let fails = call.subresource == "binding" && failures > 0;
        failures -= i32::from(fails);
        fails.then(|| apimachinery::Status::internal("disk full"))
    });
    start(&api, &shutdown).await;
    until("bound", || node_of(&api, "p") == "a").await;
    let bindings = api.calls().iter().filter(|call| call.subresource == "binding").count();
    assert_eq!(bindings, 2);
    shutdown.cancel();
}

#[tokio::test]
async fn more_pods_than_may_be_in_flight_are_all_bound() {
    let (api, shutdown) = (FakeApi::new(), Shutdown::new());
    for node in 0..10 {
        seed_node(&api, &format!("n{node}"), "100");
    }
    for pod in 0..600 {
        seed_pod(&api, &format!("p{pod}"), "100m");
    }
    start(&api, &shutdown).await;
    let all_bound = || (0..600).all(|pod| !node_of(&api, &format!("p{pod}")).is_empty());
    until("all bound", all_bound).await;
    let mut per_node = std::collections::BTreeMap::<String, usize>::new();
    (0..600).for_each(|pod| *per_node.entry(node_of(&api, &format!("p{pod}"))).or_default() += 1);
    assert!(per_node.values().all(|&pods| pods == 60), "equal nodes fill equally: {per_node:?}");
    shutdown.cancel();
}

#[tokio::test]
async fn pods_of_lower_priority_are_evicted_for_one_that_needs_their_room() {
    let (api, shutdown) = (FakeApi::new(), Shutdown::new());
    seed_node(&api, "a", "2");
    seed_pod(&api, "low", "2");
    start(&api, &shutdown).await;
    until("low bound", || node_of(&api, "low") == "a").await;
    api.edit(&PODS, "default", "low", |pod| pod.set_at(&["metadata", "finalizers"], json!(["x.io/look"])));
    api.seed(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "high", "namespace": "default"},
        "spec": {"schedulerName": "default-scheduler", "priority": 10,
            "containers": [{"name": "c", "resources": {"requests": {"cpu": "2"}}}]},
        "status": {"phase": "Pending"}}));
    until("low marked", || api.peek(&PODS, "default", "low").is_some_and(|low| low.is_deleting())).await;
    let low = api.peek(&PODS, "default", "low").unwrap().view::<api::view::Pod>().unwrap();
    assert_eq!(low.condition("DisruptionTarget").unwrap().reason, "PreemptionByScheduler");
    let nominated = || api.peek(&PODS, "default", "high").unwrap().to_value();
    until("nominated", || nominated().str_at(&["status", "nominatedNodeName"]) == "a").await;
    api.drop_object(&PODS, "default", "low");
    until("high bound", || node_of(&api, "high") == "a").await;
    shutdown.cancel();
}

/// Fits pods while there is a StorageClass called `fast`, which it reads from the informer.
struct NeedsClass(Handle);

impl Plugin for NeedsClass {
    fn name(&self) -> &'static str {
        "NeedsClass"
    }
}

impl Sign for NeedsClass {
    fn sign(&self, _: &PodInfo, _: &Cache, _: &mut Signature) -> Result<(), NotShareable> {
        Err(NotShareable)
    }
}

impl EnqueueExtensions for NeedsClass {
    fn events(&self) -> EventSet {
        EventSet::STORAGE_CLASS
    }
}

impl Filter for NeedsClass {
    fn filter(&self, _: &CycleState, _: &PodInfo, _: &NodeInfo) -> Result<(), Status> {
        match self.0.informers.of(&STORAGE_CLASSES).get("", "fast") {
            Some(_) => Ok(()),
            None => Err(Status::unresolvable("no class fast")),
        }
    }
}

#[tokio::test]
async fn objects_that_a_plugin_waits_for_are_there_when_it_starts_and_help_when_they_come() {
    for before in [true, false] {
        let (api, shutdown) = (FakeApi::new(), Shutdown::new());
        let seed_class = || {
            api.seed(json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "fast"},
                "provisioner": "x.io/y"}));
        };
        seed_node(&api, "a", "4");
        seed_pod(&api, "p", "1");
        if before {
            seed_class();
        }
        let handle = handle_of(api.clone());
        let mut plugins = default_plugins(&handle);
        plugins.push(Registration::of(NeedsClass(handle.clone())).filter().done());
        let profile = Profile::new(DEFAULT_SCHEDULER, plugins).unwrap();
        let (ready, is_ready) = oneshot::channel();
        let task = run_profiles(vec![(profile, handle)], Options::default(), ready, shutdown.clone());
        rt::spawn("scheduler", async move { task.await.unwrap() });
        is_ready.await.unwrap();
        if !before {
            let told = || {
                !api.peek(&PODS, "default", "p")
                    .unwrap()
                    .to_value()
                    .array_at(&["status", "conditions"])
                    .is_empty()
            };
            until("told", told).await;
            seed_class();
        }
        until("bound", || node_of(&api, "p") == "a").await;
        let refusals = api.calls().iter().filter(|call| call.subresource == "status").count();
        assert_eq!(refusals, usize::from(!before));
        shutdown.cancel();
    }
}

#[tokio::test]
async fn a_gang_is_bound_when_it_is_whole_and_its_group_says_so_from_then_on() {
    let (api, shutdown) = (FakeApi::new(), Shutdown::new());
    seed_node(&api, "a", "4");
    api.seed(json!({"apiVersion": "scheduling.k8s.io/v1alpha2", "kind": "PodGroup",
        "metadata": {"name": "g", "namespace": "default"}, "spec": {"schedulingPolicy": {"gang": {"minCount": 2}}}}));
    let seed_member = |name: &str, cpu: &str| {
        api.seed(
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"},
            "spec": {"schedulerName": "default-scheduler", "schedulingGroup": {"podGroupName": "g"},
                "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]},
            "status": {"phase": "Pending"}}),
        );
    };
    let groups = Some(GroupFeatures { gangs: true, topology: false });
    seed_member("one", "1");
    start_with(Options { groups, ..Options::default() }, &api, &shutdown).await;
    seed_pod(&api, "other", "1");
    until("the other bound", || node_of(&api, "other") == "a").await;
    assert_eq!(node_of(&api, "one"), "");
    seed_member("two", "1");
    until("both bound", || node_of(&api, "one") == "a" && node_of(&api, "two") == "a").await;
    let told = || {
        let group = api.peek(&POD_GROUPS, "default", "g").unwrap().to_value();
        let condition = group.array_at(&["status", "conditions"]).first().cloned().unwrap_or_default();
        (condition.str_at(&["status"]).to_owned(), condition.str_at(&["reason"]).to_owned())
    };
    until("the group told", || told() == ("True".to_owned(), "Scheduled".to_owned())).await;
    seed_member("large", "100");
    let refused = || {
        let pod = api.peek(&PODS, "default", "large").unwrap().to_value();
        !pod.array_at(&["status", "conditions"]).is_empty()
    };
    until("the large one refused", refused).await;
    assert_eq!(told().0, "True");
    shutdown.cancel();
}

#[tokio::test]
async fn pods_of_a_workload_get_the_constraints_of_the_profile() {
    let (api, shutdown) = (FakeApi::new(), Shutdown::new());
    for (node, zone) in [("a", "one"), ("b", "two")] {
        api.seed(
            json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node, "labels": {"zone": zone}},
            "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"}}}),
        );
    }
    api.seed(
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "namespace": "default"},
        "spec": {"selector": {"app": "web"}}}),
    );
    let pod = |name: &str, app: &str, node: &str| {
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "default", "labels": {"app": app}},
            "spec": {"schedulerName": "default-scheduler", "containers": [{"name": "c"}]}, "status": {"phase": "Pending"}});
        if !node.is_empty() {
            pod.set_at(&["spec", "nodeName"], node);
        }
        api.seed(pod);
    };
    pod("there", "web", "a");
    api.edit(&NODES, "", "b", |node| node.set_at(&["spec", "unschedulable"], true));
    let text = "{apiVersion: kubescheduler.config.k8s.io/v1, kind: KubeSchedulerConfiguration, profiles: [{pluginConfig: [\
        {name: PodTopologySpread, args: {defaultingType: List, defaultConstraints: [\
        {maxSkew: 1, topologyKey: zone, whenUnsatisfiable: DoNotSchedule}]}}]}]}";
    let configuration = Configuration::parse(std::path::Path::new("s.yaml"), text).unwrap();
    let options = Options { configuration, ..Options::default() };
    let (ready, is_ready) = oneshot::channel();
    let (used, stop) = (api.clone(), shutdown.clone());
    rt::spawn("scheduler", async move {
        let informers = Informers::new(used.clone(), stop.clone());
        run(used, &informers, options, ready, stop).await.unwrap();
    });
    is_ready.await.unwrap();
    pod("of-nothing", "other", "");
    until("bound", || node_of(&api, "of-nothing") == "a").await;
    pod("second", "web", "");
    let told = || {
        let pod = api.peek(&PODS, "default", "second").unwrap().to_value();
        pod.array_at(&["status", "conditions"]).first().map(|own| own.str_at(&["message"]).to_owned())
    };
    until("told", || told().is_some()).await;
    assert!(
        told()
            .unwrap()
            .contains("1 node(s) didn't match pod topology spread constraints, 1 node(s) were unschedulable")
    );
    api.edit(&NODES, "", "b", |node| node.set_at(&["spec", "unschedulable"], false));
    until("bound", || node_of(&api, "second") == "b").await;
    shutdown.cancel();
}
