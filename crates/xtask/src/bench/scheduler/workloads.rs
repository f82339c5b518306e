//! The workloads of upstream's `scheduler_perf` that have a threshold, by its names and with its numbers.
//!
//! Where upstream runs a workload several times with other feature gates, the gates being about how its scheduler works
//! inside, there is one row here, with the highest of the thresholds.

use std::time::Duration;

use super::super::objects::Template;
use super::batch::{Batch, Request};
use super::shapes::{self, Others, Volume};

/// How much of everything; what a workload has none of is 0.
#[derive(Clone, Copy, Default)]
pub(super) struct Params {
    pub(super) nodes: u64,
    pub(super) tainted_nodes: u64,
    pub(super) namespaces: u64,
    /// In each namespace, where there are several.
    pub(super) init_pods: u64,
    pub(super) gated_pods: u64,
    pub(super) deleting_pods: u64,
    pub(super) init_claims: u64,
    pub(super) devices_per_node: u64,
    pub(super) measured_pods: u64,
    pub(super) seconds: u64,
}

/// What is done, in order.
pub(super) enum Step {
    /// Creates objects and waits for the answers.
    Create(Batch),
    /// Creates pods. The next step waits for what `until` says.
    Pods { namespace: String, batch: Batch, until: Until },
    /// Goes on in the background until the end: one more of each batch every `interval`, or, with `again`, the same
    /// one created and deleted in turn.
    Churn { interval: Duration, batches: Vec<Batch>, again: bool },
    /// Deletes pods in the background.
    Delete { namespace: String, prefix: &'static str, count: u64, per_second: u64 },
    /// Creates that many pods, waits until they are scheduled and deletes them, over and over.
    Steady { namespace: String, at_once: u64, batch: Batch, duration: Duration },
}

/// When pods were created enough.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    /// They are created.
    Created,
    Scheduled,
    /// They are scheduled, and that is what is measured.
    Measured,
}

/// What a workload should reach.
#[derive(Clone, Copy)]
pub(super) enum Goal {
    /// So many times upstream's threshold in pods a second.
    Times(f64),
    PodsPerSecond(f64),
    /// From the first create to the last pod scheduled.
    Seconds(f64),
}

pub(super) struct Workload {
    /// `case/workload`, as upstream has them.
    pub(super) name: &'static str,
    /// Upstream's, in pods a second.
    pub(super) threshold: Option<f64>,
    pub(super) goal: Goal,
    pub(super) full: Params,
    pub(super) smoke: Params,
    pub(super) steps: fn(&Params) -> Vec<Step>,
    /// Flags of the server besides what all get.
    pub(super) flags: &'static [&'static str],
    /// Whether the pods that are measured are there before the scheduler is.
    pub(super) from_backlog: bool,
    /// A namespace in which every claim for devices must have got some: a scheduler that does not look at claims is
    /// quick and measures nothing.
    pub(super) claims_in: Option<&'static str>,
}

const NODES: &str = "/api/v1/nodes";
const NAMESPACES: &str = "/api/v1/namespaces";
/// How often pods that disturb come.
const CHURN: Duration = Duration::from_millis(200);
const SLOW_CHURN: Duration = Duration::from_secs(1);

const NONE: Params = Params {
    nodes: 0,
    tainted_nodes: 0,
    namespaces: 0,
    init_pods: 0,
    gated_pods: 0,
    deleting_pods: 0,
    init_claims: 0,
    devices_per_node: 0,
    measured_pods: 0,
    seconds: 0,
};

const fn params(nodes: u64, init_pods: u64, measured_pods: u64) -> Params {
    Params { nodes, init_pods, measured_pods, ..NONE }
}

const fn in_namespaces(nodes: u64, namespaces: u64, init_pods: u64, measured_pods: u64) -> Params {
    Params { namespaces, ..params(nodes, init_pods, measured_pods) }
}

const fn gates(gated_pods: u64, deleting_pods: u64, measured_pods: u64) -> Params {
    Params { gated_pods, deleting_pods, measured_pods, ..NONE }
}

const fn devices(nodes: u64, init_pods: u64, measured_pods: u64) -> Params {
    Params { devices_per_node: 10, ..params(nodes, init_pods, measured_pods) }
}

const fn steady(nodes: u64, init_claims: u64, seconds: u64) -> Params {
    Params { devices_per_node: 10, init_claims, seconds, ..params(nodes, 0, 0) }
}

const fn row(
    name: &'static str,
    threshold: f64,
    full: Params,
    smoke: Params,
    steps: fn(&Params) -> Vec<Step>,
) -> Workload {
    let (threshold, goal) = (Some(threshold), Goal::Times(5.0));
    Workload { name, threshold, goal, full, smoke, steps, flags: &[], from_backlog: false, claims_in: None }
}

const fn with_claims(workload: Workload) -> Workload {
    Workload { claims_in: Some("test"), ..workload }
}

/// Every workload, in the order they run.
pub(super) const ALL: &[Workload] = &[
    Workload {
        goal: Goal::PodsPerSecond(10_000.0),
        ..row(
            "SchedulingBasic/5000Nodes_10000Pods",
            270.0,
            params(5000, 1000, 10_000),
            params(5, 5, 10),
            basic,
        )
    },
    Workload {
        goal: Goal::PodsPerSecond(10_000.0),
        from_backlog: true,
        ..row("SchedulingBasic/FromBacklog", 270.0, params(5000, 1000, 10_000), params(5, 5, 10), basic)
    },
    row("SchedulingDaemonset/15000Nodes", 390.0, params(15_000, 0, 30_000), params(5, 0, 10), daemons),
    row("PreemptionAsync/5000Nodes", 160.0, params(5000, 20_000, 5000), params(5, 20, 5), preemption),
    row(
        "Unschedulable/5kNodes/100Init/10kPods",
        170.0,
        params(5000, 100, 10_000),
        params(5, 1, 10),
        unschedulable,
    ),
    row(
        "SchedulingWithMixedChurn/5000Nodes_10000Pods",
        265.0,
        params(5000, 0, 10_000),
        params(10, 0, 100),
        churn,
    ),
    row(
        "SchedulingWhileGated/1Node_10000GatedPods",
        130.0,
        gates(10_000, 20_000, 20_000),
        gates(10, 10, 10),
        gated,
    ),
    row(
        "SchedulingPodAntiAffinity/5000Nodes_2000Pods",
        60.0,
        params(5000, 1000, 2000),
        params(5, 1, 4),
        anti_affinity,
    ),
    row(
        "SchedulingPodMatchingAntiAffinity/5000Nodes_5000Pods",
        600.0,
        params(5000, 1000, 5000),
        params(5, 1, 4),
        matching_anti_affinity,
    ),
    row(
        "SchedulingPodAffinity/5000Nodes_5000Pods",
        35.0,
        params(5000, 5000, 5000),
        params(5, 5, 10),
        affinity,
    ),
    row(
        "SchedulingPreferredPodAffinity/5000Nodes_5000Pods",
        90.0,
        params(5000, 5000, 5000),
        params(5, 5, 10),
        preferred_affinity,
    ),
    row(
        "SchedulingPreferredPodAntiAffinity/5000Nodes_5000Pods",
        90.0,
        params(5000, 5000, 5000),
        params(5, 5, 10),
        preferred_anti_affinity,
    ),
    row(
        "SchedulingNodeAffinity/5000Nodes_10000Pods",
        220.0,
        params(5000, 5000, 10_000),
        params(5, 5, 10),
        node_affinity,
    ),
    row(
        "MixedSchedulingBasePod/5000Nodes_5000Pods",
        140.0,
        params(5000, 2000, 5000),
        params(5, 2, 10),
        mixed,
    ),
    row(
        "SchedulingRequiredPodAntiAffinityWithNSSelector/5000Nodes_2000Pods",
        24.0,
        in_namespaces(6000, 100, 40, 2000),
        in_namespaces(10, 2, 2, 6),
        anti_affinity_by_selector,
    ),
    row(
        "SchedulingPreferredAntiAffinityWithNSSelector/5000Nodes_2000Pods",
        55.0,
        in_namespaces(5000, 100, 40, 2000),
        in_namespaces(10, 2, 2, 10),
        preferred_anti_affinity_by_selector,
    ),
    row(
        "SchedulingRequiredPodAffinityWithNSSelector/5000Nodes_2000Pods",
        35.0,
        in_namespaces(5000, 100, 50, 2000),
        in_namespaces(10, 2, 2, 10),
        affinity_by_selector,
    ),
    row(
        "SchedulingPreferredAffinityWithNSSelector/5000Nodes_5000Pods",
        90.0,
        in_namespaces(5000, 100, 50, 5000),
        in_namespaces(10, 2, 2, 10),
        preferred_affinity_by_selector,
    ),
    row(
        "SchedulingGatedPodsWithPodAffinityImpactForThroughput/1Node_10000GatedPods",
        110.0,
        gates(10_000, 0, 20_000),
        gates(10, 0, 10),
        gated_seekers,
    ),
    row("TopologySpreading/5000Nodes_5000Pods", 85.0, params(5000, 5000, 5000), params(5, 10, 10), spreading),
    row(
        "PreferredTopologySpreading/5000Nodes_5000Pods",
        125.0,
        params(5000, 5000, 5000),
        params(5, 10, 10),
        preferred_spreading,
    ),
    row(
        "SchedulingWithNodeInclusionPolicy/5000Nodes",
        68.0,
        Params { tainted_nodes: 1000, ..params(4000, 0, 4000) },
        Params { tainted_nodes: 1, ..params(4, 0, 4) },
        inclusion_policy,
    ),
    row(
        "SchedulingSecrets/5000Nodes_10000Pods",
        260.0,
        params(5000, 1000, 10_000),
        params(5, 5, 10),
        secrets,
    ),
    row(
        "SchedulingInTreePVs/5000Nodes_2000Pods",
        90.0,
        params(5000, 1000, 2000),
        params(5, 5, 10),
        in_tree_volumes,
    ),
    row(
        "SchedulingMigratedInTreePVs/5000Nodes_5000Pods",
        35.0,
        params(5000, 5000, 5000),
        params(5, 5, 10),
        migrated_volumes,
    ),
    row("SchedulingCSIPVs/5000Nodes_5000Pods", 48.0, params(5000, 5000, 5000), params(5, 5, 10), csi_volumes),
    with_claims(row(
        "SchedulingWithResourceClaimTemplate/5000pods_500nodes",
        56.0,
        devices(500, 2500, 2500),
        devices(2, 5, 5),
        devices_from_templates,
    )),
    with_claims(row(
        "SteadyStateClusterResourceClaimTemplate/empty_500nodes",
        64.0,
        steady(500, 0, 10),
        steady(2, 0, 1),
        steady_devices,
    )),
    with_claims(row(
        "SteadyStateClusterResourceClaimTemplate/half_500nodes",
        70.0,
        steady(500, 2500, 10),
        steady(2, 5, 1),
        steady_devices,
    )),
    with_claims(row(
        "SteadyStateClusterResourceClaimTemplate/full_500nodes",
        60.0,
        steady(500, 4990, 10),
        steady(2, 10, 1),
        steady_devices,
    )),
    Workload {
        name: "Gang/5000Nodes_1000Members",
        threshold: None,
        goal: Goal::Seconds(1.0),
        full: params(5000, 0, 1000),
        smoke: params(5, 0, 10),
        steps: gang,
        flags: &[
            "--feature-gates=GenericWorkload=true,GangScheduling=true",
            "--runtime-config=scheduling.k8s.io/v1alpha2=true",
        ],
        from_backlog: false,
        claims_in: None,
    },
];

// === Steps that workloads have in common ===

fn nodes(count: u64) -> Step {
    Step::Create(Batch::of(count, NODES, "scheduler-perf", &[shapes::node()]))
}

fn zoned_nodes(count: u64, zones: &[&str]) -> Step {
    let shapes: Vec<_> = zones.iter().map(|zone| shapes::node_in(zone)).collect();
    Step::Create(Batch::of(count, NODES, "scheduler-perf", &shapes))
}

/// The node of the name that pods of some workloads ask for.
fn named_node() -> Step {
    Step::Create(Batch::one(NODES, shapes::NAMED_NODE, &shapes::wide_node()))
}

fn namespace(name: &'static str) -> Step {
    Step::Create(Batch::one(NAMESPACES, name, &shapes::namespace()))
}

fn collection(namespace: &str, plural: &str) -> String {
    format!("{NAMESPACES}/{namespace}/{plural}")
}

/// Pods that are there when pods are measured.
fn init(namespace: &str, prefix: &'static str, count: u64, shape: serde_json::Value) -> Step {
    let batch = Batch::of(count, collection(namespace, "pods"), prefix, &[shape]);
    Step::Pods { namespace: namespace.to_owned(), batch, until: Until::Scheduled }
}

fn measured(namespace: &str, count: u64, shape: serde_json::Value) -> Step {
    let batch = Batch::of(count, collection(namespace, "pods"), "measured", &[shape]);
    Step::Pods { namespace: namespace.to_owned(), batch, until: Until::Measured }
}

/// Nodes, then pods of one shape in one namespace, then those of one shape in another.
fn two_namespaces(
    nodes: Step,
    params: &Params,
    first: serde_json::Value,
    second: serde_json::Value,
) -> Vec<Step> {
    vec![
        nodes,
        namespace("sched-0"),
        namespace("sched-1"),
        init("sched-0", "init", params.init_pods, first),
        measured("sched-1", params.measured_pods, second),
    ]
}

/// As many namespaces with pods, then pods of the same shape in one more.
fn many_namespaces(nodes: Step, params: &Params, shape: serde_json::Value) -> Vec<Step> {
    let mut steps = vec![
        nodes,
        Step::Create(Batch::of(params.namespaces, NAMESPACES, "init-ns", &[shapes::namespace()])),
        namespace("measure-ns"),
    ];
    let each = |number| init(&format!("init-ns-{number}"), "init", params.init_pods, shape.clone());
    steps.extend((0..params.namespaces).map(each));
    steps.push(measured("measure-ns", params.measured_pods, shape));
    steps
}

// === Workloads ===

fn basic(params: &Params) -> Vec<Step> {
    two_namespaces(nodes(params.nodes), params, shapes::pod(), shapes::pod())
}

fn daemons(params: &Params) -> Vec<Step> {
    vec![
        named_node(),
        nodes(params.nodes),
        namespace("sched-0"),
        measured("sched-0", params.measured_pods, shapes::daemon()),
    ]
}

fn preemption(params: &Params) -> Vec<Step> {
    let mut steps = two_namespaces(nodes(params.nodes), params, shapes::low_priority(), shapes::pod());
    disturb(&mut steps, shapes::high_priority());
    steps
}

fn unschedulable(params: &Params) -> Vec<Step> {
    let mut steps = two_namespaces(nodes(params.nodes), params, shapes::pod(), shapes::pod());
    disturb(&mut steps, shapes::too_large());
    steps
}

/// Before what is measured: pods of this shape that come every now and then until the end.
fn disturb(steps: &mut Vec<Step>, shape: serde_json::Value) {
    let batches = vec![Batch::of(u64::MAX, collection("churn", "pods"), "churn", &[shape])];
    let churn = Step::Churn { interval: CHURN, batches, again: false };
    let last = steps.len() - 1;
    steps.splice(last..last, [namespace("churn"), churn]);
}

fn churn(params: &Params) -> Vec<Step> {
    let batches = vec![
        Batch::of(u64::MAX, NODES, "node-churn", &[shapes::full_node()]),
        Batch::of(u64::MAX, collection("churn", "pods"), "churn", &[shapes::too_large()]),
        Batch::of(u64::MAX, collection("churn", "services"), "churn", &[shapes::service()]),
    ];
    vec![
        nodes(params.nodes),
        namespace("churn"),
        namespace("sched-0"),
        Step::Churn { interval: SLOW_CHURN, batches, again: true },
        measured("sched-0", params.measured_pods, shapes::pod()),
    ]
}

fn waiting(namespace: &str, count: u64, shape: serde_json::Value) -> Step {
    let batch = Batch::of(count, collection(namespace, "pods"), "gated", &[shape]);
    Step::Pods { namespace: namespace.to_owned(), batch, until: Until::Created }
}

fn gated(params: &Params) -> Vec<Step> {
    let (namespace_name, prefix, count) = ("deleting".to_owned(), "deleting", params.deleting_pods);
    vec![
        named_node(),
        namespace("gated"),
        namespace("deleting"),
        namespace("sched-0"),
        waiting("gated", params.gated_pods, shapes::gated_pod()),
        init("deleting", prefix, count, shapes::short_lived()),
        Step::Delete { namespace: namespace_name, prefix, count, per_second: 50 },
        measured("sched-0", params.measured_pods, shapes::short_lived()),
    ]
}

fn gated_seekers(params: &Params) -> Vec<Step> {
    vec![
        named_node(),
        namespace("gated"),
        namespace("sched-0"),
        waiting("gated", params.gated_pods, shapes::gated_seeker()),
        measured("sched-0", params.measured_pods, shapes::sought()),
    ]
}

fn anti_affinity(params: &Params) -> Vec<Step> {
    let shape = shapes::anti_affine(Others::Named);
    two_namespaces(nodes(params.nodes), params, shape.clone(), shape)
}

fn matching_anti_affinity(params: &Params) -> Vec<Step> {
    two_namespaces(nodes(params.nodes), params, shapes::anti_affine(Others::Named), shapes::green())
}

fn affinity(params: &Params) -> Vec<Step> {
    let shape = shapes::affine(Others::Named);
    two_namespaces(zoned_nodes(params.nodes, &["zone1"]), params, shape.clone(), shape)
}

fn preferred_affinity(params: &Params) -> Vec<Step> {
    let shape = shapes::preferably_affine(Others::Named);
    two_namespaces(nodes(params.nodes), params, shape.clone(), shape)
}

fn preferred_anti_affinity(params: &Params) -> Vec<Step> {
    let shape = shapes::preferably_anti_affine(Others::Named);
    two_namespaces(nodes(params.nodes), params, shape.clone(), shape)
}

fn node_affinity(params: &Params) -> Vec<Step> {
    two_namespaces(zoned_nodes(params.nodes, &["zone1"]), params, shapes::zonal(), shapes::zonal())
}

fn mixed(params: &Params) -> Vec<Step> {
    let init = |prefix, shape| init("sched-0", prefix, params.init_pods, shape);
    vec![
        zoned_nodes(params.nodes, &["zone1"]),
        namespace("sched-0"),
        namespace("sched-1"),
        init("plain", shapes::pod()),
        init("affine", shapes::affine(Others::Named)),
        init("anti-affine", shapes::anti_affine(Others::Named)),
        init("preferably-affine", shapes::preferably_affine(Others::Named)),
        init("preferably-anti-affine", shapes::preferably_anti_affine(Others::Named)),
        measured("sched-1", params.measured_pods, shapes::pod()),
    ]
}

fn anti_affinity_by_selector(params: &Params) -> Vec<Step> {
    many_namespaces(nodes(params.nodes), params, shapes::anti_affine(Others::Selected))
}

fn preferred_anti_affinity_by_selector(params: &Params) -> Vec<Step> {
    many_namespaces(nodes(params.nodes), params, shapes::preferably_anti_affine(Others::Selected))
}

fn affinity_by_selector(params: &Params) -> Vec<Step> {
    many_namespaces(zoned_nodes(params.nodes, &["zone1"]), params, shapes::affine(Others::Selected))
}

fn preferred_affinity_by_selector(params: &Params) -> Vec<Step> {
    many_namespaces(nodes(params.nodes), params, shapes::preferably_affine(Others::Selected))
}

const ZONES: [&str; 3] = ["moon-1", "moon-2", "moon-3"];

fn spreading(params: &Params) -> Vec<Step> {
    two_namespaces(zoned_nodes(params.nodes, &ZONES), params, shapes::pod(), shapes::spread("DoNotSchedule"))
}

fn preferred_spreading(params: &Params) -> Vec<Step> {
    two_namespaces(zoned_nodes(params.nodes, &ZONES), params, shapes::pod(), shapes::spread("ScheduleAnyway"))
}

fn inclusion_policy(params: &Params) -> Vec<Step> {
    vec![
        nodes(params.nodes),
        Step::Create(Batch::of(params.tainted_nodes, NODES, "taint-node", &[shapes::tainted_node()])),
        namespace("sched-0"),
        measured("sched-0", params.measured_pods, shapes::spread_over_eligible()),
    ]
}

fn secrets(params: &Params) -> Vec<Step> {
    let mut steps = two_namespaces(nodes(params.nodes), params, shapes::with_secret(), shapes::with_secret());
    let secret = |namespace| {
        Step::Create(Batch::one(collection(namespace, "secrets"), shapes::SECRET, &shapes::secret()))
    };
    steps.splice(3..3, [secret("sched-0"), secret("sched-1")]);
    steps
}

fn in_tree_volumes(params: &Params) -> Vec<Step> {
    with_volumes(nodes(params.nodes), params, Volume::InTree)
}

fn migrated_volumes(params: &Params) -> Vec<Step> {
    with_volumes(ebs_nodes(params.nodes, true), params, Volume::InTree)
}

fn csi_volumes(params: &Params) -> Vec<Step> {
    with_volumes(ebs_nodes(params.nodes, false), params, Volume::Csi)
}

fn ebs_nodes(count: u64, migrated: bool) -> Step {
    let nodes = Batch::of(count, NODES, "scheduler-perf", &[shapes::node_with_ebs()]);
    let drivers = "/apis/storage.k8s.io/v1/csinodes";
    Step::Create(nodes.then(Batch::of(count, drivers, "scheduler-perf", &[shapes::csi_node(migrated)])))
}

/// Each pod has a volume of its own, which is created with it, so that this is measured, too, as upstream does.
fn with_volumes(nodes: Step, params: &Params, kind: Volume) -> Vec<Step> {
    let pods = |namespace: &str, prefix, count, until| {
        let batch = with_volume(namespace.to_owned(), prefix, count, kind);
        Step::Pods { namespace: namespace.to_owned(), batch, until }
    };
    vec![
        nodes,
        namespace("sched-0"),
        namespace("sched-1"),
        pods("sched-0", "init", params.init_pods, Until::Scheduled),
        pods("sched-1", "measured", params.measured_pods, Until::Measured),
    ]
}

fn with_volume(namespace: String, prefix: &'static str, count: u64, kind: Volume) -> Batch {
    const VOLUMES: &str = "/api/v1/persistentvolumes";
    let volume = Template::new(&shapes::volume(kind, &namespace));
    let (claim, pod) = (Template::new(&shapes::claim()), Template::new(&shapes::with_claim()));
    let (claims, pods) = (collection(&namespace, "persistentvolumeclaims"), collection(&namespace, "pods"));
    let bound = shapes::bound();
    Batch::new(count, move |number| {
        let name = format!("{prefix}-{number}");
        vec![
            Request::post(VOLUMES, volume.named(&name)),
            Request::patch_status(&format!("{VOLUMES}/{name}"), &bound),
            Request::post(claims.clone(), claim.named(&name)),
            Request::patch_status(&format!("{claims}/{name}"), &bound),
            Request::post(pods.clone(), pod.named(&name)),
        ]
    })
}

pub(super) const RESOURCE_API: &str = "/apis/resource.k8s.io/v1";

/// Nodes with devices, and the class of these.
fn device_nodes(params: &Params) -> Vec<Step> {
    let slices = format!("{RESOURCE_API}/resourceslices");
    let prefix = "scheduler-perf-dra";
    vec![
        Step::Create(Batch::of(params.nodes, NODES, prefix, &[shapes::node()])),
        Step::Create(Batch::of(params.nodes, slices, prefix, &[shapes::devices(params.devices_per_node)])),
        Step::Create(Batch::one(format!("{RESOURCE_API}/deviceclasses"), "", &shapes::device_class())),
    ]
}

fn claim_template(namespace: &str) -> Step {
    let collection = format!("{RESOURCE_API}/namespaces/{namespace}/resourceclaimtemplates");
    Step::Create(Batch::one(collection, "", &shapes::claim_template()))
}

fn devices_from_templates(params: &Params) -> Vec<Step> {
    let mut steps = device_nodes(params);
    steps.extend([
        namespace("init"),
        namespace("test"),
        claim_template("init"),
        init("init", "init", params.init_pods, shapes::with_device()),
        claim_template("test"),
        measured("test", params.measured_pods, shapes::with_device()),
    ]);
    steps
}

fn steady_devices(params: &Params) -> Vec<Step> {
    let mut steps = device_nodes(params);
    steps.extend([
        namespace("init"),
        namespace("test"),
        Step::Create(allocated_claims(params.init_claims, params.devices_per_node)),
        claim_template("test"),
        Step::Steady {
            namespace: "test".to_owned(),
            at_once: 10,
            batch: Batch::of(u64::MAX, collection("test", "pods"), "measured", &[shapes::with_device()]),
            duration: Duration::from_secs(params.seconds),
        },
    ]);
    steps
}

/// Claims that have devices already, node after node.
fn allocated_claims(count: u64, devices_per_node: u64) -> Batch {
    let claims = format!("{RESOURCE_API}/namespaces/init/resourceclaims");
    let claim = Template::new(&shapes::device_claim());
    Batch::new(count, move |number| {
        let name = format!("test-claim-{number}");
        let node = format!("scheduler-perf-dra-{}", number / devices_per_node);
        let status = shapes::allocated(&node, number % devices_per_node);
        vec![
            Request::post(claims.clone(), claim.named(&name)),
            Request::patch_status(&format!("{claims}/{name}"), &status),
        ]
    })
}

fn gang(params: &Params) -> Vec<Step> {
    let groups = "/apis/scheduling.k8s.io/v1alpha2/namespaces/sched-0/podgroups";
    vec![
        nodes(params.nodes),
        namespace("sched-0"),
        Step::Create(Batch::one(groups, shapes::POD_GROUP, &shapes::pod_group(params.measured_pods))),
        measured("sched-0", params.measured_pods, shapes::gang_member()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `name threshold` of each workload that has one, as upstream's table (`scheduler_perf.tsv` of the facts) has
    /// them without the variants of gates.
    #[test]
    fn every_row_has_steps_and_measures_exactly_once() {
        for workload in ALL {
            for params in [&workload.full, &workload.smoke] {
                let measuring = |step: &&Step| {
                    matches!(step, Step::Pods { until: Until::Measured, .. } | Step::Steady { .. })
                };
                let steps = (workload.steps)(params);
                assert_eq!(steps.iter().filter(measuring).count(), 1, "{}", workload.name);
                assert!(measuring(&steps.last().expect("there are steps")), "{}", workload.name);
            }
        }
    }

    #[test]
    fn every_request_has_a_whole_body() {
        for workload in ALL {
            for step in (workload.steps)(&workload.smoke) {
                let (Step::Create(batch) | Step::Pods { batch, .. } | Step::Steady { batch, .. }) = step
                else {
                    continue;
                };
                for request in batch.requests(0) {
                    assert!(
                        !request.shown().contains(super::super::super::objects::HOLE),
                        "{}",
                        request.shown()
                    );
                }
            }
        }
    }
}
