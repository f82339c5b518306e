//! Columns of priority classes, workloads and pod groups.

use apimachinery::Value;
use jiff::Timestamp;

use super::{AGE, Kinds, NAME, boolean, cell, integer, name_and_age, text};

pub(super) const KINDS: Kinds = &[
    ("PodGroup", &[NAME, text("Policy"), text("Workload"), text("Status"), AGE], pod_group),
    (
        "PriorityClass",
        &[NAME, integer("Value"), boolean("Global-Default"), AGE, text("PreemptionPolicy")],
        priority_class,
    ),
    ("Workload", &[NAME, AGE], name_and_age),
];

fn priority_class(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        cell::name(object),
        cell::number(object, &["value"]),
        cell::flag(object, &["globalDefault"], false),
        cell::age(object, now),
        cell::text(object, &["preemptionPolicy"]),
    ]
}

fn pod_group(object: &Value, now: Timestamp) -> Vec<Value> {
    let gang = object.at(&["spec", "schedulingPolicy", "gang"]).is_some();
    let workload = ["spec", "podGroupTemplateRef", "workload", "workloadName"];
    vec![
        cell::name(object),
        if gang { "Gang" } else { "Basic" }.into(),
        cell::text_or(object, &workload, "<none>"),
        pod_group_status(object).into(),
        cell::age(object, now),
    ]
}

fn pod_group_status(group: &Value) -> &str {
    if let Some(disruption) = cell::condition(group, "DisruptionTarget")
        && disruption.str_at(&["status"]) == "True"
    {
        return disruption.str_at(&["reason"]);
    }
    match cell::condition(group, "PodGroupScheduled").map(|condition| condition.str_at(&["status"])) {
        Some("True") => "Scheduled",
        Some(_) => "Unschedulable",
        None => "Pending",
    }
}
