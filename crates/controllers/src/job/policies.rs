//! What a Job's policies say: which failures of pods count, and which successes are enough. Pure.

use api::view::{
    Condition, ContainerStatus, Job, Pod, PodFailurePolicyOnExitCodesRequirement,
    PodFailurePolicyOnPodConditionsPattern, PodFailurePolicyRule, SuccessPolicy,
};

use super::indexes::Indexes;

/// What the failure of a pod means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The Job fails with this message.
    FailJob(String),
    /// No other pod is made for its index.
    FailIndex,
    Ignore,
    /// As without a policy.
    Count,
}

/// What the policy of the Job says about a failed pod.
pub(super) fn failure(job: &Job, pod: &Pod) -> Failure {
    let rules = job.spec.pod_failure_policy.iter().flat_map(|policy| &policy.rules);
    rules.enumerate().find_map(|(index, rule)| apply(rule, index, pod)).unwrap_or(Failure::Count)
}

fn apply(rule: &PodFailurePolicyRule, index: usize, pod: &Pod) -> Option<Failure> {
    let why = match (&rule.on_exit_codes, &rule.on_pod_conditions) {
        (Some(codes), _) => {
            let (name, code) = failed_container(pod, codes)?;
            let (namespace, pod) = (&pod.metadata.namespace, &pod.metadata.name);
            format!("Container {name} for pod {namespace}/{pod} failed with exit code {code}")
        }
        (None, Some(patterns)) => {
            let condition = condition(pod, patterns)?;
            let (namespace, pod) = (&pod.metadata.namespace, &pod.metadata.name);
            format!("Pod {namespace}/{pod} has condition {}", condition.type_)
        }
        (None, None) => return None,
    };
    match rule.action.as_str() {
        "Ignore" => Some(Failure::Ignore),
        "FailIndex" => Some(Failure::FailIndex),
        "Count" => Some(Failure::Count),
        "FailJob" => Some(Failure::FailJob(format!("{why} matching FailJob rule at index {index}"))),
        _ => None,
    }
}

/// The first container that failed as the rule says, and its exit code; init containers come last.
fn failed_container<'a>(
    pod: &'a Pod,
    rule: &PodFailurePolicyOnExitCodesRequirement,
) -> Option<(&'a str, i32)> {
    let matches = |status: &'a ContainerStatus| {
        let code = status.state.terminated.as_ref()?.exit_code;
        let named = rule.container_name.as_ref().is_none_or(|name| *name == status.name);
        let listed = rule.values.contains(&code);
        let wanted = match rule.operator.as_str() {
            "In" => listed,
            "NotIn" => !listed,
            _ => false,
        };
        (named && code != 0 && wanted).then_some((status.name.as_str(), code))
    };
    pod.status.container_statuses.iter().chain(&pod.status.init_container_statuses).find_map(matches)
}

fn condition<'a>(pod: &'a Pod, patterns: &[PodFailurePolicyOnPodConditionsPattern]) -> Option<&'a Condition> {
    let fits = |condition: &&Condition| {
        patterns.iter().any(|own| own.type_ == condition.type_ && own.status == condition.status)
    };
    pod.status.conditions.iter().find(fits)
}

/// The message of the first rule that is met by these successes.
pub(super) fn success(policy: &SuccessPolicy, succeeded: &Indexes, completions: u32) -> Option<String> {
    if succeeded.is_empty() {
        return None;
    }
    let enough = |count: usize, wanted: Option<i32>| {
        wanted.is_some_and(|wanted| count >= usize::try_from(wanted).unwrap_or(0))
    };
    let met = policy.rules.iter().position(|rule| match &rule.succeeded_indexes {
        Some(text) => {
            let wanted = Indexes::parse(text, completions);
            let common = wanted.common(succeeded);
            !wanted.is_empty() && (common == wanted.len() || enough(common, rule.succeeded_count))
        }
        None => enough(succeeded.len(), rule.succeeded_count),
    });
    met.map(|index| format!("Matched rules at index {index}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(rules: &str) -> Job {
        serde_json::from_str(&format!(r#"{{"spec":{{"podFailurePolicy":{{"rules":{rules}}}}}}}"#)).unwrap()
    }

    fn pod(status: &str) -> Pod {
        let text = format!(r#"{{"metadata":{{"namespace":"ns","name":"p"}},"status":{status}}}"#);
        serde_json::from_str(&text).unwrap()
    }

    fn ended(name: &str, code: i32) -> String {
        format!(r#"{{"name":"{name}","state":{{"terminated":{{"exitCode":{code}}}}}}}"#)
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let codes = |action: &str, operator: &str, values: &str| {
            format!(r#"{{"action":"{action}","onExitCodes":{{"operator":"{operator}","values":{values}}}}}"#)
        };
        let disrupted =
            r#"{"action":"Ignore","onPodConditions":[{"type":"DisruptionTarget","status":"True"}]}"#;
        let rules = job(&format!(
            "[{disrupted},{},{},{}]",
            codes("FailJob", "In", "[42]"),
            codes("FailIndex", "In", "[7]"),
            codes("Ignore", "NotIn", "[1,2]"),
        ));
        let exited = |code| pod(&format!(r#"{{"containerStatuses":[{}]}}"#, ended("c", code)));
        let fail_job = "Container c for pod ns/p failed with exit code 42 matching FailJob rule at index 1";
        assert_eq!(failure(&rules, &exited(42)), Failure::FailJob(fail_job.into()));
        assert_eq!(failure(&rules, &exited(7)), Failure::FailIndex);
        assert_eq!(failure(&rules, &exited(1)), Failure::Count);
        assert_eq!(failure(&rules, &exited(3)), Failure::Ignore);
        assert_eq!(failure(&rules, &exited(0)), Failure::Count, "0 is no failure of the container");
        let evicted = pod(r#"{"conditions":[{"type":"DisruptionTarget","status":"True"}]}"#);
        assert_eq!(failure(&rules, &evicted), Failure::Ignore);
        assert_eq!(failure(&job("[]"), &exited(42)), Failure::Count);
    }

    #[test]
    fn a_rule_may_name_its_container_and_looks_at_init_containers() {
        let named =
            job(r#"[{"action":"FailJob","onExitCodes":{"containerName":"b","operator":"In","values":[5]}}]"#);
        let both = |a, b| {
            pod(&format!(
                r#"{{"containerStatuses":[{}],"initContainerStatuses":[{}]}}"#,
                ended("a", a),
                ended("b", b)
            ))
        };
        assert_eq!(failure(&named, &both(5, 1)), Failure::Count);
        assert!(matches!(failure(&named, &both(1, 5)), Failure::FailJob(_)));
        let by_condition =
            job(r#"[{"action":"FailJob","onPodConditions":[{"type":"ConfigIssue","status":"True"}]}]"#);
        let message = "Pod ns/p has condition ConfigIssue matching FailJob rule at index 0";
        let troubled = pod(r#"{"conditions":[{"type":"ConfigIssue","status":"True"}]}"#);
        assert_eq!(failure(&by_condition, &troubled), Failure::FailJob(message.into()));
    }

    #[test]
    fn successes_are_enough_by_index_by_count_or_both() {
        let rows = [
            (r#"[{"succeededIndexes":"0,2-3"}]"#, "0,2-3", Some(0)),
            (r#"[{"succeededIndexes":"0,2-3"}]"#, "0-2", None),
            (r#"[{"succeededIndexes":"0,2-3","succeededCount":2}]"#, "0-2", Some(0)),
            (r#"[{"succeededCount":3}]"#, "5-7", Some(0)),
            (r#"[{"succeededIndexes":"9"},{"succeededCount":1}]"#, "5", Some(1)),
            (r#"[{"succeededCount":1}]"#, "", None),
            (r#"[{"succeededIndexes":"x"}]"#, "5", None),
        ];
        for (rules, succeeded, rule) in rows {
            let policy: SuccessPolicy = serde_json::from_str(&format!(r#"{{"rules":{rules}}}"#)).unwrap();
            let wanted = rule.map(|index| format!("Matched rules at index {index}"));
            assert_eq!(success(&policy, &Indexes::parse(succeeded, 10), 10), wanted, "{rules} {succeeded}");
        }
    }
}
