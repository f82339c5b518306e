//! Pods as a whole: what a create makes of them and what an update may change.

use jiff::Timestamp;

use super::*;

const CREATE: Context<'static> =
    Context { now: Timestamp::UNIX_EPOCH, user: "u", subresource: None, allow_privileged: true };

fn through(subresource: &'static str) -> Context<'static> {
    Context { subresource: Some(subresource), ..CREATE }
}

fn pod(spec: Value) -> Value {
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "n", "labels": {"app": "x"}}});
    pod.set_at(&["spec"], spec);
    pod.set_at(&["spec", "serviceAccountName"], "default");
    Pod.default(&mut pod);
    pod
}

fn plain() -> Value {
    pod(json!({"containers": [{"name": "c", "image": "i:1", "resources": {}}]}))
}

fn texts(errors: ErrorList) -> Vec<String> {
    errors.into_iter().map(|error| error.to_string()).collect()
}

#[test]
fn a_new_pod_is_pending_and_has_a_class() {
    let mut pod = plain();
    pod.set_at(&["status"], json!({"phase": "Running"}));
    Pod.prepare_for_create(&CREATE, &mut pod);
    assert_eq!(pod["status"], json!({"phase": "Pending", "qosClass": "BestEffort"}));
    assert_eq!(texts(Pod.validate(&CREATE, &pod)), Vec::<String>::new());
}

#[test]
fn the_group_of_a_pod_is_named() {
    let complaints = |group: Value| {
        let mut pod = plain();
        Pod.prepare_for_create(&CREATE, &mut pod);
        pod.set_at(&["spec", "schedulingGroup"], group);
        texts(Pod.validate(&CREATE, &pod))
    };
    assert!(complaints(json!({"podGroupName": "train.a"})).is_empty());
    let path = "spec.schedulingGroup.podGroupName: Invalid value";
    assert_eq!(complaints(json!({})), [format!("{path}: null: must specify one of: `podGroupName`")]);
    assert!(complaints(json!({"podGroupName": "A"}))[0].starts_with(&format!("{path}: \"A\": ")));
}

#[test]
fn gates_show_as_a_condition() {
    let mut pod = plain();
    pod.set_at(&["spec", "schedulingGates"], json!([{"name": "a.b/c"}]));
    Pod.prepare_for_create(&CREATE, &mut pod);
    let condition = &pod["status"]["conditions"][0];
    assert_eq!(
        (condition.text("type"), condition.text("status"), condition.text("reason")),
        ("PodScheduled", "False", "SchedulingGated")
    );
    pod.set_at(&["spec", "nodeName"], "n");
    assert_eq!(
        texts(Pod.validate(&CREATE, &pod)),
        ["spec.nodeName: Forbidden: cannot be set until all schedulingGates have been cleared"]
    );
}

#[test]
fn label_keys_become_part_of_selectors() {
    let mut pod = plain();
    pod.set_at(
        &["spec", "topologySpreadConstraints"],
        json!([{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {}, "matchLabelKeys": ["app", "absent"]}]),
    );
    Pod.prepare_for_create(&CREATE, &mut pod);
    assert_eq!(
        pod["spec"]["topologySpreadConstraints"][0]["labelSelector"],
        json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["x"]}]})
    );
    assert_eq!(texts(Pod.validate(&CREATE, &pod)), Vec::<String>::new());
}

#[test]
fn few_fields_may_change() {
    let old = plain();
    let after = |change: fn(&mut Value)| {
        let mut new = old.clone();
        change(&mut new);
        texts(Pod.validate_update(&CREATE, &new, &old))
    };
    let none = Vec::<String>::new();
    assert_eq!(after(|_| ()), none);
    assert_eq!(after(|pod| pod.set_at(&["spec", "activeDeadlineSeconds"], 5)), none);
    assert_eq!(after(|pod| pod.set_at(&["spec", "tolerations"], json!([{"operator": "Exists"}]))), none);
    assert_eq!(
        after(|pod| {
            pod.set_at(&["spec", "containers"], json!([{"name": "c", "image": "i:2", "imagePullPolicy": "IfNotPresent", "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File", "stdin": false}]))
        }),
        none,
        "an image may change, and what means the same is the same"
    );
    let refused = after(|pod| pod.set_at(&["spec", "nodeName"], "n"));
    assert_eq!(refused.len(), 1);
    assert!(refused[0].starts_with(
        "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`"
    ));
    assert!(refused[0].contains("\n- \"NodeName\": \"\",\n+ \"NodeName\": \"n\",\n"), "{}", refused[0]);
    assert_eq!(
        after(|pod| pod.set_at(&["spec", "containers"], json!([]))).last().map(String::as_str),
        Some("spec.containers: Forbidden: pod updates may not add or remove containers")
    );
}

#[test]
fn status_goes_its_own_way() {
    let mut old = plain();
    Pod.prepare_for_create(&CREATE, &mut old);
    let mut new = old.clone();
    new.set_at(&["spec", "nodeName"], "other");
    new.set_at(&["status"], json!({"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}]}));
    Pod.prepare_for_update(&through("status"), &mut new, &old);
    assert_eq!(new["spec"], old["spec"]);
    assert_eq!(new["status"].text("qosClass"), "BestEffort");
    assert_eq!(texts(Pod.validate_update(&through("status"), &new, &old)), Vec::<String>::new());
    new.set_at(&["status", "podIPs"], json!([{"ip": "x"}]));
    assert_eq!(Pod.validate_update(&through("status"), &new, &old).len(), 1);
}

#[test]
fn ephemeral_containers_are_only_added() {
    let old = plain();
    let mut new = old.clone();
    new.set_at(&["spec", "ephemeralContainers"], json!([{"name": "d", "image": "i:1", "imagePullPolicy": "Always", "terminationMessagePolicy": "File"}]));
    new.set_at(&["spec", "hostname"], "ignored");
    Pod.prepare_for_update(&through("ephemeralcontainers"), &mut new, &old);
    assert!(!new["spec"].has("hostname"));
    assert_eq!(texts(Pod.validate_update(&through("ephemeralcontainers"), &new, &old)), Vec::<String>::new());
    let complaints = texts(Pod.validate_update(&through("ephemeralcontainers"), &old, &new));
    assert_eq!(
        complaints,
        ["spec.ephemeralContainers: Forbidden: existing ephemeral containers \"d\" may not be removed\n"]
    );
}

#[test]
fn resize_changes_compute_within_the_class() {
    let old =
        pod(json!({"containers": [{"name": "c", "image": "i:1", "resources": {"requests": {"cpu": "1"}}}]}));
    let resized = |cpu: Value| {
        let mut new = old.clone();
        new.set_at(&["spec", "containers"], json!([{"name": "c", "image": "ignored", "resources": cpu}]));
        Pod.prepare_for_update(&through("resize"), &mut new, &old);
        assert_eq!(new["spec"]["containers"][0].text("image"), "i:1");
        texts(Pod.validate_update(&through("resize"), &new, &old))
    };
    assert_eq!(resized(json!({"requests": {"cpu": "2"}})), Vec::<String>::new());
    assert_eq!(
        resized(json!({}))[0],
        "spec: Invalid value: \"\": Pod QOS Class may not change as a result of resizing"
    );
    assert!(
        resized(json!({"requests": {"cpu": "1", "ephemeral-storage": "1"}}))[0]
            .contains("only cpu and memory resources are mutable")
    );
}

#[test]
fn deletion_waits_for_the_node_only_where_there_is_one() {
    let deletion = |node: &str, phase: &str, asked: Option<i64>| {
        let mut pod = plain();
        pod.set_at(&["spec", "nodeName"], node);
        pod.set_at(&["status", "phase"], phase);
        let object = Object::from_value(&pod, 1, &[]).expect("an object");
        Pod.deletion(&object, asked)
    };
    assert_eq!(deletion("n", "Running", None), Deletion::Graceful(30));
    assert_eq!(deletion("n", "Running", Some(5)), Deletion::Graceful(5));
    assert_eq!(deletion("n", "Running", Some(0)), Deletion::Immediate);
    assert_eq!(deletion("n", "Running", Some(-1)), Deletion::Graceful(1));
    assert_eq!(deletion("", "Pending", None), Deletion::Immediate);
    assert_eq!(deletion("n", "Succeeded", None), Deletion::Immediate);
}

#[test]
fn privileged_containers_are_a_matter_of_the_cluster() {
    let mut pod = plain();
    pod.set_at(
        &["spec", "containers"],
        json!([
            {"name": "a", "image": "i", "terminationMessagePolicy": "File", "imagePullPolicy": "Always", "securityContext": {"privileged": true}},
            {"name": "b", "image": "i", "terminationMessagePolicy": "File", "imagePullPolicy": "Always", "securityContext": {"privileged": false}},
        ]),
    );
    assert_eq!(texts(Pod.validate(&CREATE, &pod)), Vec::<String>::new());
    let careful = Context { allow_privileged: false, ..CREATE };
    assert_eq!(
        texts(Pod.validate(&careful, &pod)),
        ["spec.containers[0].securityContext.privileged: Forbidden: disallowed by cluster policy"]
    );
}
