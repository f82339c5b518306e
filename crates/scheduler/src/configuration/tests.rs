use expect_test::{Expect, expect};

use super::*;
use crate::framework::Point;
use crate::plugins::DEFAULT;
use crate::testing::handle;

fn configuration(body: &str) -> Result<Configuration, ConfigurationError> {
    Configuration::parse(FilePath::new("s.yaml"), &format!("apiVersion: {API_VERSION}\nkind: {KIND}\n{body}"))
}

fn profiles(body: &str) -> Result<Vec<Profile>, ConfigurationError> {
    let profiles = configuration(body)?.profiles(DEFAULT, |_| handle())?;
    Ok(profiles.into_iter().map(|(profile, _)| profile).collect())
}

/// One complaint a line, without the file.
fn complaints(body: &str) -> String {
    match profiles(body).err() {
        None => "none".to_owned(),
        Some(ConfigurationError::Invalid { errors, .. }) => {
            errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
        }
        Some(error) => telemetry::chain(&error).to_string(),
    }
}

fn check(body: &str, expected: Expect) {
    expected.assert_eq(&complaints(body));
}

/// The plugins of a point, scores with their weights.
fn at(profile: &Profile, point: Point) -> String {
    let names = profile.at(point).into_iter().map(|(name, weight)| match point {
        Point::Score => format!("{name}={weight}"),
        _ => name.to_owned(),
    });
    names.collect::<Vec<_>>().join(" ")
}

fn only(plugins: &str) -> Profile {
    profiles(&format!("profiles: [{{plugins: {plugins}}}]")).unwrap().remove(0)
}

#[test]
fn without_profiles_there_is_the_default_one() {
    let configuration = configuration("").unwrap();
    assert_eq!(configuration.scheduler_names().collect::<Vec<_>>(), ["default-scheduler"]);
    assert_eq!(configuration.backoff, Backoff::default());
    let profile = only("{}");
    for point in Point::ALL {
        assert_eq!(at(&profile, point), at(&crate::testing::profile(), point), "{point:?}");
    }
    expect!["TaintToleration=3 NodeAffinity=2 NodeResourcesFit=1 PodTopologySpread=2 InterPodAffinity=2 DynamicResources=2 NodeResourcesBalancedAllocation=1 ImageLocality=1"]
        .assert_eq(&at(&profile, Point::Score));
}

#[test]
fn several_profiles_have_names_of_their_own_and_share_back_offs() {
    let body = "podInitialBackoffSeconds: 3\npodMaxBackoffSeconds: 30\nparallelism: 4\npercentageOfNodesToScore: 50\n\
        profiles: [{schedulerName: a}, {schedulerName: b, percentageOfNodesToScore: 5}]";
    let configuration = configuration(body).unwrap();
    assert_eq!(configuration.scheduler_names().collect::<Vec<_>>(), ["a", "b"]);
    let backoff = Backoff { initial: Duration::from_secs(3), max: Duration::from_secs(30) };
    assert_eq!(configuration.backoff, backoff);
}

#[test]
fn multi_point_is_changed_in_place_and_what_is_added_comes_last() {
    let profile = only(
        "{multiPoint: {disabled: [{name: NodeAffinity}], enabled: [{name: TaintToleration, weight: 9}]}}",
    );
    expect!["TaintToleration=9 NodeResourcesFit=1 PodTopologySpread=2 InterPodAffinity=2 DynamicResources=2 NodeResourcesBalancedAllocation=1 ImageLocality=1"]
        .assert_eq(&at(&profile, Point::Score));
    let few = "{multiPoint: {disabled: [{name: '*'}], enabled: [{name: ImageLocality}, {name: DefaultBinder}, \
        {name: TaintToleration}, {name: PrioritySort}]}}";
    let profile = only(few);
    assert_eq!(
        at(&profile, Point::Score),
        "ImageLocality=1 TaintToleration=1",
        "defaults are gone with their weights"
    );
    assert_eq!(at(&profile, Point::Filter), "TaintToleration");
}

#[test]
fn a_point_overrides_what_multi_point_has_there() {
    let profile =
        only("{score: {disabled: [{name: ImageLocality}], enabled: [{name: NodeResourcesFit, weight: 5}]}}");
    expect!["NodeResourcesFit=5 TaintToleration=3 NodeAffinity=2 PodTopologySpread=2 InterPodAffinity=2 DynamicResources=2 NodeResourcesBalancedAllocation=1"]
        .assert_eq(&at(&profile, Point::Score));
    let profile = only("{filter: {disabled: [{name: '*'}], enabled: [{name: NodePorts}, {name: NodeName}]}}");
    assert_eq!(at(&profile, Point::Filter), "NodePorts NodeName");
    assert!(at(&profile, Point::PreFilter).contains("NodeAffinity"), "other points keep theirs");
    let profile = only(
        "{multiPoint: {disabled: [{name: NodePorts}]}, filter: {enabled: [{name: NodePorts}, {name: NodeName}]}}",
    );
    expect!["NodeName NodeUnschedulable TaintToleration NodeAffinity NodeResourcesFit VolumeRestrictions NodeVolumeLimits VolumeBinding VolumeZone PodTopologySpread InterPodAffinity DynamicResources NodePorts"]
        .assert_eq(&at(&profile, Point::Filter));
}

#[test]
fn plugins_that_are_not_there_or_cannot_run_where_they_are_named_are_refused() {
    let one = |plugins: &str| complaints(&format!("profiles: [{{plugins: {plugins}}}]"));
    assert!(
        one("{filter: {enabled: [{name: NodeName}, {name: Nope}]}}").starts_with(
            r#"profiles[0].plugins.filter.enabled[1].name: Unsupported value: "Nope": supported values: "DefaultBinder", "DefaultPreemption","#
        )
    );
    expect![[r#"profiles[0].plugins.queueSort.enabled[0]: Invalid value: "NodeName": plugin "NodeName" does not extend QueueSortPlugin plugin; plugins that do: PrioritySort"#]]
        .assert_eq(&one("{queueSort: {enabled: [{name: NodeName}]}}"));
    expect![[r#"profiles[0].plugins.postBind.enabled[0]: Invalid value: "NodeName": plugin "NodeName" does not extend such a plugin; plugins that do: none"#]]
        .assert_eq(&one("{postBind: {enabled: [{name: NodeName}]}}"));
    expect![[r#"profiles[0].plugins.filter.enabled[1]: Duplicate value: "NodeName""#]]
        .assert_eq(&one("{filter: {enabled: [{name: NodeName}, {name: NodeName}]}}"));
    assert!(
        one("{multiPoint: {enabled: [{name: NodeName}, {name: NodeName}]}}")
            .contains(r#"plugin "NodeName" already registered as "FilterPlugin""#)
    );
    expect![[r#"profiles[0].plugins.score.enabled[0]: Invalid value: "EBSLimits": was invalid in version "kubescheduler.config.k8s.io/v1" (KubeSchedulerConfiguration is version "kubescheduler.config.k8s.io/v1")"#]]
        .assert_eq(&one("{score: {enabled: [{name: EBSLimits}]}}"));
    assert!(
        one("{multiPoint: {disabled: [{name: DefaultBinder}]}}")
            .ends_with("at least one bind plugin is needed")
    );
    assert!(
        one("{queueSort: {disabled: [{name: '*'}]}}")
            .contains("exactly one queue sort plugin is needed, 0 are")
    );
    assert!(
        one("{score: {enabled: [{name: NodeAffinity, weight: 2147483647}]}}")
            .ends_with("total score of Score plugins could overflow")
    );
    expect![
        "profiles[0].plugins.score.enabled[0].weight: Invalid value: -1: must be greater than or equal to 0"
    ]
    .assert_eq(&one("{score: {enabled: [{name: NodeAffinity, weight: -1}]}}"));
}

#[test]
fn values_out_of_range_are_refused_in_upstreams_words() {
    check(
        "parallelism: 0\npercentageOfNodesToScore: 101\npodInitialBackoffSeconds: 0\npodMaxBackoffSeconds: -1\n\
         leaderElection: {leaderElect: true, resourceLock: endpoints}",
        expect![[r#"
            leaderElection.resourceLock: Invalid value: "endpoints": resourceLock value must be "leases"
            parallelism: Invalid value: 0: should be an integer value greater than zero
            percentageOfNodesToScore: Invalid value: 101: not in valid range [0-100]
            podInitialBackoffSeconds: Invalid value: 0: must be greater than 0
            podMaxBackoffSeconds: Invalid value: -1: must be greater than or equal to PodInitialBackoffSeconds"#]],
    );
    check(
        "profiles: [{schedulerName: a}, {schedulerName: a, percentageOfNodesToScore: -1}, {}, \
         {schedulerName: d, plugins: {queueSort: {enabled: [{name: PrioritySort}]}}}]",
        expect![[r#"
            profiles[1].percentageOfNodesToScore: Invalid value: -1: not in valid range [0-100]
            profiles[1].schedulerName: Duplicate value: profiles[0].schedulerName
            profiles[2].schedulerName: Required value
            profiles[3].plugins.queueSort: Invalid value: "PrioritySort": must be the same for all profiles"#]],
    );
}

#[test]
fn what_is_unknown_or_of_another_shape_is_refused_with_its_place() {
    for (body, place, text) in [
        ("profile: []", "profile", "unknown field `profile`, expected one of"),
        (
            "profiles: [{plugins: {filter: {enable: []}}}]",
            "profiles[0].plugins.filter.enable",
            "`enabled` or `disabled`",
        ),
        ("profiles: {}", "profiles", "expected a sequence"),
        ("parallelism: many", "parallelism", "expected i32"),
        ("extenders: [{httpTimeout: 5}]", "extenders[0].httpTimeout", "expected a string"),
        ("extenders: [{httpTimeout: soon}]", "extenders[0].httpTimeout", "soon"),
        ("extenders: [{httpTimeout: -5s}]", "extenders[0].httpTimeout", "must be zero or more"),
    ] {
        let told = complaints(body);
        assert!(told.starts_with(&format!("{place}: Invalid value: ")) && told.contains(text), "{told}");
    }
    let whole = |text: &str| parse(text).map(|_| ()).unwrap_err()[0].to_string();
    assert_eq!(
        whole("kind: Pod"),
        r#"kind: Unsupported value: "Pod": supported values: "KubeSchedulerConfiguration""#
    );
    assert_eq!(
        whole("{kind: KubeSchedulerConfiguration, apiVersion: kubescheduler.config.k8s.io/v1beta3}"),
        r#"apiVersion: Unsupported value: "kubescheduler.config.k8s.io/v1beta3": supported values: "kubescheduler.config.k8s.io/v1""#
    );
    assert!(whole("a: [").starts_with("the document: Invalid value: not YAML"));
    assert_eq!(complaints("profiles: null\nextenders: ~"), "none", "a null is an absence");
    let missing = Configuration::load(FilePath::new("/nowhere/s.yaml")).unwrap_err();
    assert_eq!(missing.to_string(), "--scheduler-config: reading /nowhere/s.yaml");
}

/// Complaints about a plugin's arguments, whose place is left out.
fn about(plugin: &str, args: &str) -> String {
    let body = format!("profiles: [{{pluginConfig: [{{name: {plugin}, args: {args}}}]}}]");
    complaints(&body).replace("profiles[0].pluginConfig[0].args.", "")
}

#[test]
fn arguments_of_plugins_are_checked_in_upstreams_words() {
    for (plugin, args, expected) in [
        (
            "DefaultPreemption",
            "{minCandidateNodesPercentage: 101, minCandidateNodesAbsolute: -1}",
            expect![[r#"
                minCandidateNodesPercentage: Invalid value: 101: not in valid range [0, 100]
                minCandidateNodesAbsolute: Invalid value: -1: not in valid range [0, inf)"#]],
        ),
        (
            "DefaultPreemption",
            "{minCandidateNodesPercentage: 0, minCandidateNodesAbsolute: 0}",
            expect![[r#"
                minCandidateNodesPercentage: Invalid value: 0: cannot be zero at the same time as minCandidateNodesAbsolute
                minCandidateNodesAbsolute: Invalid value: 0: cannot be zero at the same time as minCandidateNodesPercentage"#]],
        ),
        (
            "InterPodAffinity",
            "{hardPodAffinityWeight: 101}",
            expect!["hardPodAffinityWeight: Invalid value: 101: not in valid range [0, 100]"],
        ),
        (
            "NodeResourcesFit",
            "{ignoredResources: ['a b'], ignoredResourceGroups: [x.io/y], scoringStrategy: {type: Emptiest, \
             resources: [{name: cpu, weight: 101}], requestedToCapacityRatio: {}}}",
            expect![[r#"
                ignoredResources[0]: Invalid value: "a b": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')
                ignoredResourceGroups[0]: Invalid value: "x.io/y": resource group name can't contain '/'
                scoringStrategy.type: Unsupported value: "Emptiest": supported values: "LeastAllocated", "MostAllocated", "RequestedToCapacityRatio"
                scoringStrategy.resources[0].weight: Invalid value: 101: resource weight of cpu not in valid range (0, 100]
                scoringStrategy.requestedToCapacityRatio: Forbidden: must be nil when type is not RequestedToCapacityRatio"#]],
        ),
        (
            "NodeResourcesFit",
            "{scoringStrategy: {type: RequestedToCapacityRatio}}",
            expect![
                "scoringStrategy.requestedToCapacityRatio: Required value: must be specified when type is RequestedToCapacityRatio"
            ],
        ),
        (
            "NodeResourcesFit",
            "{scoringStrategy: {type: RequestedToCapacityRatio, requestedToCapacityRatio: {shape: \
             [{utilization: 50, score: 11}, {utilization: 50}, {utilization: 101}]}}}",
            expect![[r#"
                scoringStrategy.requestedToCapacityRatio.shape[1].utilization: Invalid value: 50: values must be sorted in increasing order
                scoringStrategy.requestedToCapacityRatio.shape[0].score: Invalid value: 11: not in valid range [0, 10]
                scoringStrategy.requestedToCapacityRatio.shape[2].utilization: Invalid value: 101: not in valid range [0, 100]"#]],
        ),
        (
            "NodeResourcesBalancedAllocation",
            "{resources: [{name: cpu}, {name: cpu, weight: 2}]}",
            expect![[r#"
                resources[1].name: Duplicate value: "cpu"
                resources[1].weight: Invalid value: 2: must be 1"#]],
        ),
        (
            "PodTopologySpread",
            "{defaultingType: Lists}",
            expect![[r#"defaultingType: Unsupported value: "Lists": supported values: "System", "List""#]],
        ),
        (
            "PodTopologySpread",
            "{defaultConstraints: [{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: ScheduleAnyway}]}",
            expect![[r#"defaultingType: Invalid value: "System": when .defaultConstraints are not empty"#]],
        ),
        (
            "PodTopologySpread",
            "{defaultingType: List, defaultConstraints: [{labelSelector: {}}, \
             {maxSkew: 1, topologyKey: zone, whenUnsatisfiable: Never}, {maxSkew: 2, topologyKey: zone, whenUnsatisfiable: Never}]}",
            expect![[r#"
                defaultConstraints[0].maxSkew: Invalid value: 0: not in valid range (0, inf)
                defaultConstraints[0].topologyKey: Required value: can not be empty
                defaultConstraints[0].whenUnsatisfiable: Required value: can not be empty
                defaultConstraints[0].labelSelector: Forbidden: constraint must not define a selector, as they deduced for each pod
                defaultConstraints[1].whenUnsatisfiable: Unsupported value: "Never": supported values: "DoNotSchedule", "ScheduleAnyway"
                defaultConstraints[2].whenUnsatisfiable: Unsupported value: "Never": supported values: "DoNotSchedule", "ScheduleAnyway"
                defaultConstraints[2]: Duplicate value: "{zone, Never}""#]],
        ),
        (
            "NodeAffinity",
            "{addedAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: \
             [{key: k, operator: Is, value: v}]}]}}}",
            expect![
                "addedAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].value: Invalid value: unknown field"
            ],
        ),
        (
            "NodeAffinity",
            "{addedAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: \
             [{key: k, operator: Is}]}]}}}",
            expect![[
                r#"addedAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].operator: Invalid value: "Is": not a valid selector operator"#
            ]],
        ),
        (
            "InterPodAffinity",
            "{weight: 1}",
            expect![
                "weight: Invalid value: unknown field `weight`, expected `hardPodAffinityWeight` or `ignorePreferredTermsOfExistingPods`"
            ],
        ),
        (
            "InterPodAffinity",
            "{kind: NodeAffinityArgs}",
            expect![[
                r#"kind: Invalid value: "NodeAffinityArgs": args for plugin InterPodAffinity were not of type InterPodAffinityArgs, got NodeAffinityArgs"#
            ]],
        ),
        (
            "InterPodAffinity",
            "{kind: InterPodAffinityArgs, apiVersion: kubescheduler.config.k8s.io/v1}",
            expect!["none"],
        ),
        ("OutOfTree", "{anything: true}", expect!["none"]),
    ] {
        expected.assert_eq(&about(plugin, args));
    }
    check(
        "profiles: [{pluginConfig: [{name: NodeAffinity}, {name: NodeAffinity}]}]",
        expect![[r#"profiles[0].pluginConfig[1]: Duplicate value: "NodeAffinity""#]],
    );
}

#[test]
fn extenders_are_checked_in_upstreams_words() {
    check(
        "extenders: [{prioritizeVerb: p, bindVerb: b, managedResources: [{name: cpu}, {name: 'a b'}, {name: x.io/y}]}, \
         {bindVerb: b, managedResources: [{name: x.io/y}]}]",
        expect![[r#"
            extenders[0].weight: Invalid value: 0: must have a positive weight applied to it
            extenders[0].managedResources[0].name: Invalid value: "cpu": is an invalid extended resource name
            extenders[0].managedResources[1].name: Invalid value: "a b": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')
            extenders[1].managedResources[0].name: Invalid value: "x.io/y": duplicate extender managed resource name
            extenders: Invalid value: "found 2 extenders implementing bind": only one extender can implement bind"#]],
    );
}
