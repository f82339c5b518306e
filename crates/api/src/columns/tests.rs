use apimachinery::{Value, time};

use super::*;

const NOW: &str = "2026-01-02T00:00:00Z";

/// The cells of an object given as JSON, joined for reading.
fn cells(group: &str, kind: &str, json: &str) -> String {
    let object = Value::parse(json.as_bytes()).unwrap();
    let columns = for_kind(group, kind);
    let cells = columns.cells(&object, time::parse(NOW).unwrap());
    let text = |value: &Value| {
        value.as_str().map_or_else(
            || {
                let mut out = Vec::new();
                value.write_json(&mut out);
                String::from_utf8(out).unwrap()
            },
            str::to_owned,
        )
    };
    cells.iter().map(text).collect::<Vec<_>>().join(" | ")
}

#[test]
fn durations_have_the_units_that_people_care_about() {
    const HOUR: i64 = 3600;
    const DAY: i64 = 24 * HOUR;
    let rows = [
        (-2, "<invalid>"),
        (-1, "0s"),
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (599, "9m59s"),
        (600, "10m"),
        (3 * HOUR - 1, "179m"),
        (3 * HOUR, "3h"),
        (8 * HOUR - 60, "7h59m"),
        (48 * HOUR - 1, "47h"),
        (2 * DAY, "2d"),
        (8 * DAY - HOUR, "7d23h"),
        (8 * DAY, "8d"),
        (730 * DAY, "2y"),
        (731 * DAY, "2y1d"),
        (8 * 365 * DAY + DAY, "8y"),
    ];
    for (seconds, expected) in rows {
        assert_eq!(human_duration(seconds), expected, "{seconds} seconds");
    }
}

#[test]
fn every_kind_has_a_cell_for_every_column() {
    for resource in crate::builtin::all_resources() {
        let cells = resource.columns.cells(&Value::object(), time::parse(NOW).unwrap());
        let extra = usize::from(resource.kind == "IPAddress");
        assert_eq!(cells.len(), resource.columns.definitions().len() + extra, "{resource:?}");
    }
}

#[test]
fn a_pod_is_summed_up_by_what_its_containers_do() {
    let pod = |spec: &str, status: &str, metadata: &str| {
        let json =
            format!(r#"{{"metadata":{{"name":"p"{metadata}}},"spec":{{{spec}}},"status":{{{status}}}}}"#);
        let cells = cells("", "Pod", &json);
        cells.split(" | ").skip(1).take(3).collect::<Vec<_>>().join(" ")
    };
    let two = r#""containers":[{"name":"a"},{"name":"b"}]"#;
    assert_eq!(pod(two, r#""phase":"Pending""#, ""), "0/2 Pending 0");
    assert_eq!(pod(two, r#""phase":"Failed","reason":"Evicted""#, ""), "0/2 Evicted 0");
    let gated = r#""phase":"Pending","conditions":[{"type":"PodScheduled","reason":"SchedulingGated"}]"#;
    assert_eq!(pod(two, gated, ""), "0/2 SchedulingGated 0");
    let running = r#""phase":"Running","conditions":[{"type":"Ready","status":"True"}],"containerStatuses":[
        {"name":"a","ready":true,"restartCount":2,"state":{"running":{}},
         "lastState":{"terminated":{"finishedAt":"2026-01-01T23:55:00Z"}}},
        {"name":"b","restartCount":0,"state":{"terminated":{"reason":"Completed","exitCode":0}}}]"#;
    assert_eq!(pod(two, running, ""), "1/2 Completed 2 (5m ago)".replace("Completed", "Running"));
    assert_eq!(
        pod(two, running, r#","deletionTimestamp":"2026-01-01T00:00:00Z""#),
        "1/2 Terminating 2 (5m ago)"
    );
    let crashing = r#""phase":"Running","containerStatuses":[
        {"name":"a","restartCount":4,"state":{"waiting":{"reason":"CrashLoopBackOff"}}},
        {"name":"b","ready":true,"restartCount":0,"state":{"running":{}}}]"#;
    assert_eq!(pod(two, crashing, ""), "1/2 CrashLoopBackOff 4");
    let signal = r#""phase":"Failed","containerStatuses":[{"name":"a","state":{"terminated":{"signal":9,"exitCode":137}}}]"#;
    assert_eq!(pod(two, signal, ""), "0/2 Signal:9 0");
}

#[test]
fn init_containers_show_how_far_a_pod_has_come() {
    let spec = r#""initContainers":[{"name":"s","restartPolicy":"Always"},{"name":"i"}],"containers":[{"name":"c"}]"#;
    let status = |second: &str| {
        cells(
            "",
            "Pod",
            &format!(
                r#"{{"metadata":{{"name":"p"}},"spec":{{{spec}}},"status":{{"phase":"Pending","initContainerStatuses":[
                {{"name":"s","started":true,"ready":true,"restartCount":1,"state":{{"running":{{}}}}}},
                {{"name":"i","restartCount":2,"state":{second}}}]}}}}"#
            ),
        )
        .split(" | ")
        .skip(1)
        .take(3)
        .collect::<Vec<_>>()
        .join(" ")
    };
    assert_eq!(status(r#"{"running":{}}"#), "1/2 Init:1/2 3");
    assert_eq!(status(r#"{"waiting":{"reason":"ImagePullBackOff"}}"#), "1/2 Init:ImagePullBackOff 3");
    assert_eq!(status(r#"{"terminated":{"exitCode":3}}"#), "1/2 Init:ExitCode:3 3");
    // Once all are done only the sidecar's restarts count.
    assert_eq!(status(r#"{"terminated":{"exitCode":0,"reason":"Completed"}}"#), "1/2 Pending 1");
}

#[test]
fn an_autoscaler_shows_two_targets_and_counts_the_rest() {
    let metrics = r#"[{"type":"Resource","resource":{"name":"cpu","target":{"averageUtilization":80}}},
        {"type":"External","external":{"target":{"averageValue":"4"}}},{"type":"Pods"},{"type":"Object"}]"#;
    let status = r#"{"currentMetrics":[{"resource":{"current":{"averageUtilization":31}}}]}"#;
    let json = format!(
        r#"{{"spec":{{"scaleTargetRef":{{"kind":"Deployment","name":"d"}},"metrics":{metrics},"minReplicas":2}},"status":{status}}}"#
    );
    let shown = cells("autoscaling", "HorizontalPodAutoscaler", &json);
    assert!(shown.contains("Deployment/d | cpu: 31%/80%, <unknown>/4 (avg) + 2 more... | 2 |"), "{shown}");
}

#[test]
fn a_node_shows_its_roles_its_state_and_its_kernel() {
    let node = r#"{"metadata":{"name":"n","labels":{"node-role.kubernetes.io/worker":"","kubernetes.io/role":"db"}},
        "spec":{"unschedulable":true},"status":{"conditions":[{"type":"Ready","status":"False"}],
        "nodeInfo":{"kernelVersion":"6.1","architecture":"arm64"}}}"#;
    let shown = cells("", "Node", node);
    assert!(shown.starts_with("n | NotReady,SchedulingDisabled | db,worker | <unknown> |"), "{shown}");
    assert!(shown.contains("| 6.1 (arm64) |"), "{shown}");
}

#[test]
fn selectors_read_as_on_a_command_line() {
    let object = r#"{"spec":{"podSelector":{"matchLabels":{"b":"1"},"matchExpressions":[
        {"key":"a","operator":"In","values":["y","x"]},{"key":"c","operator":"DoesNotExist"}]}}}"#;
    assert!(cells("networking.k8s.io", "NetworkPolicy", object).contains("| a in (x,y),b=1,!c |"));
    let invalid = r#"{"spec":{"podSelector":{"matchExpressions":[{"key":"a","operator":"Near"}]}}}"#;
    assert!(cells("networking.k8s.io", "NetworkPolicy", invalid).contains("| <error> |"));
}

#[test]
fn long_lists_end_with_a_count() {
    let slice = r#"{"ports":[{"port":80},{"name":"x"},{}],"endpoints":[{"addresses":["1","2"]},{"addresses":["3","4"]}]}"#;
    assert!(cells("discovery.k8s.io", "EndpointSlice", slice).contains("| 80,x,* | 1,2,3 + 1 more... |"));
    let endpoints =
        r#"{"subsets":[{"addresses":[{"ip":"1.1.1.1"},{"ip":"::1"}],"ports":[{"port":1},{"port":2}]}]}"#;
    assert!(cells("", "Endpoints", endpoints).contains("| 1.1.1.1:1,[::1]:1,1.1.1.1:2 + 1 more... |"));
}
