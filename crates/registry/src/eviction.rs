//! Eviction: a delete of a pod that honours its disruption budget.
//!
//! A pod that is not running yet, or no longer, disrupts nobody. One that runs but is not ready goes if its budget says
//! so, or if the others are enough without it. Any other costs the budget one disruption, which is noted there so that
//! the disruption controller does not count the pod while it goes.

use api::conditions::{self, Condition};
use apimachinery::status::Cause;
use apimachinery::time::format_seconds;
use apimachinery::{GroupResource, Object, Selector, Status, Str, Value};
use jiff::Timestamp;

use crate::delete::check_preconditions;
use crate::modify::Rewrite;
use crate::{DeleteRequest, Deleted, Endpoint, Registry, WriteContext};

/// A pod that changes meanwhile is looked at again this often.
const TRIES_MAX: usize = 20;

/// Disruptions that the controller has not seen through yet; beyond, it seems not to be at work.
const DISRUPTED_PODS_MAX: usize = 2000;

const REFUSED: &str = "Cannot evict pod as it would violate the pod's disruption budget.";
const CONDITION: &str = "DisruptionAllowed";

/// The condition of a pod that is about to be disrupted.
const TARGET: &str = "DisruptionTarget";

/// How a budget bears on a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cost {
    /// The pod may go as long as it stays as unready as it is.
    Free,
    One,
}

impl Registry {
    /// Deletes a pod as a POST to `pods/{name}/eviction` does.
    pub async fn evict(
        &self,
        pods: &Endpoint,
        budgets: &Endpoint,
        ctx: &WriteContext<'_>,
        name: &str,
        request: &DeleteRequest,
    ) -> Result<Deleted, Status> {
        for _ in 0..TRIES_MAX {
            let pod = self.get(pods, ctx.namespace, name)?;
            let tree = pods.served(&pod);
            if !ignores_budgets(&tree) {
                return self.evict_running(pods, budgets, ctx, &pod, request).await;
            }
            // A pod that becomes ready in this moment is its budget's business after all.
            let pending = tree.str_at(&["status", "phase"]) == "Pending" && !pod.is_deleting();
            let exact = if pending { at_version(request, &pod) } else { request.clone() };
            match self.disrupt(pods, ctx, name, &exact).await {
                Err(status) if status.is_conflict() && request.resource_version.is_none() => {}
                outcome => return outcome,
            }
        }
        Err(Status::stale(&pods.resource.group_resource(), name))
    }

    async fn evict_running(
        &self,
        pods: &Endpoint,
        budgets: &Endpoint,
        ctx: &WriteContext<'_>,
        pod: &Object,
        request: &DeleteRequest,
    ) -> Result<Deleted, Status> {
        let budget = match self.budgets_of(budgets, pod).as_slice() {
            [] => None,
            [one] => Some(one.clone()),
            _ => {
                let why = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not \
                           support.";
                return Err(Status::new(500, "", why));
            }
        };
        let Some(budget) = budget else {
            return self.disrupt(pods, ctx, pod.name(), request).await;
        };
        let name = budget.str_at(&["metadata", "name"]);
        if cost(&pods.served(pod), &budget) == Cost::One {
            self.spend(budgets, ctx, name, pod.name()).await?;
            return self.disrupt(pods, ctx, pod.name(), request).await;
        }
        match self.disrupt(pods, ctx, pod.name(), &at_version(request, pod)).await {
            // It may have become ready, and then it costs something: the client tries again.
            Err(status) if status.is_conflict() && request.resource_version.is_none() => {
                Err(in_progress(name))
            }
            outcome => outcome,
        }
    }

    /// Marks a pod as the target of a disruption, which its controllers go by (KEP-3329), and deletes it.
    async fn disrupt(
        &self,
        pods: &Endpoint,
        ctx: &WriteContext<'_>,
        name: &str,
        request: &DeleteRequest,
    ) -> Result<Deleted, Status> {
        let mut request = request.clone();
        if !ctx.dry_run {
            let mut produce = |pod: Option<&Value>| {
                let pod = pod.expect("modify without create_if_missing always has a state");
                let record = ["uid", "resourceVersion"].map(|key| pod.str_at(&["metadata", key]));
                check_preconditions(pods, name, record.into(), &request)?;
                Ok(Rewrite { trusted: true, ..Rewrite::of_current(marked(pod, ctx.now), pod) })
            };
            let status_ctx = WriteContext { subresource: Some("status"), ..*ctx };
            let marked = self.modify(pods, &status_ctx, name, false, &mut produce).await?.object;
            if let Some(version) = &mut request.resource_version {
                *version = Str::from(marked.revision().to_string());
            }
        }
        self.delete_and(pods, ctx, name, &request, false).await
    }

    /// The budgets that cover a pod. One whose selector is broken covers nothing.
    fn budgets_of(&self, budgets: &Endpoint, pod: &Object) -> Vec<Value> {
        let snapshot = budgets.cache.snapshot();
        let prefix = budgets.resource.key_prefix(pod.namespace());
        let covers = |budget: &Value| {
            Selector::from_value(&budget["spec"]["selector"])
                .is_ok_and(|selector| selector.matches_object(pod))
        };
        snapshot.range(&prefix, None).map(|(_, budget)| budgets.served(budget)).filter(covers).collect()
    }

    /// Takes one disruption from a budget, or refuses with 429.
    async fn spend(
        &self,
        budgets: &Endpoint,
        ctx: &WriteContext<'_>,
        name: &str,
        pod: &str,
    ) -> Result<(), Status> {
        let mut produce = |budget: Option<&Value>| {
            let budget = budget.expect("modify without create_if_missing always has a state");
            let spent = spend(budget, pod, ctx.now)?;
            Ok(Rewrite { trusted: true, ..Rewrite::of_current(spent, budget) })
        };
        let user = auth::UserInfo::api_server();
        let status_ctx = WriteContext {
            user: &user,
            subresource: Some("status"),
            field_manager: "kube-apiserver",
            ..*ctx
        };
        self.modify(budgets, &status_ctx, name, false, &mut produce).await.map(|_| ())
    }
}

/// The same request, for this state of the pod only, unless it names one itself.
fn at_version(request: &DeleteRequest, pod: &Object) -> DeleteRequest {
    let mut exact = request.clone();
    exact.resource_version.get_or_insert_with(|| Str::from(pod.revision().to_string()));
    exact
}

/// The pod with the condition that says why it goes.
fn marked(pod: &Value, now: Timestamp) -> Value {
    let mut marked = pod.clone();
    Condition::new(TARGET, true, "EvictionByEvictionAPI", "Eviction API: evicting")
        .at_generation(pod["metadata"]["generation"].as_i64())
        .set(&mut marked, now);
    marked
}

/// Pods that do not serve, and so disrupt nobody when they go.
fn ignores_budgets(pod: &Value) -> bool {
    let phase = pod.str_at(&["status", "phase"]);
    matches!(phase, "Succeeded" | "Failed" | "Pending") || !pod["metadata"]["deletionTimestamp"].is_null()
}

fn cost(pod: &Value, budget: &Value) -> Cost {
    let is_ready = conditions::is_true(pod, "Ready");
    let number = |key: &str| budget["status"][key].as_i64().unwrap_or(0);
    let always = budget.str_at(&["spec", "unhealthyPodEvictionPolicy"]) == "AlwaysAllow";
    let enough = number("desiredHealthy") > 0 && number("currentHealthy") >= number("desiredHealthy");
    if !is_ready && (always || enough) { Cost::Free } else { Cost::One }
}

/// The budget with one disruption less, if it has one.
fn spend(budget: &Value, pod: &str, now: Timestamp) -> Result<Value, Status> {
    let name = budget.str_at(&["metadata", "name"]);
    let status = &budget["status"];
    let number = |key: &str| status[key].as_i64().unwrap_or(0);
    if number("observedGeneration") < budget["metadata"]["generation"].as_i64().unwrap_or(0) {
        return Err(in_progress(name));
    }
    let allowed = number("disruptionsAllowed");
    let forbidden =
        |why: &str| Err(Status::forbidden(&GroupResource::new("policy", "poddisruptionbudget"), name, why));
    if allowed < 0 {
        return forbidden("pdb disruptions allowed is negative");
    }
    if status["disruptedPods"].as_object().is_some_and(|pods| pods.len() > DISRUPTED_PODS_MAX) {
        return forbidden("DisruptedPods map too big - too many evictions not confirmed by PDB controller");
    }
    if allowed == 0 {
        return Err(refusal(0, why_none(name, status)));
    }
    let mut spent = budget.clone();
    spent.set_at(&["status", "disruptionsAllowed"], allowed - 1);
    if allowed == 1 {
        Condition::new(CONDITION, false, "InsufficientPods", "")
            .at_generation(status["observedGeneration"].as_i64())
            .set(&mut spent, now);
    }
    spent.set_at(&["status", "disruptedPods", pod], format_seconds(now));
    Ok(spent)
}

/// Why a budget allows nothing, in upstream's order of what is worth telling.
fn why_none(name: &str, status: &Value) -> String {
    let condition = status
        .array_at(&["conditions"])
        .iter()
        .find(|condition| condition.str_at(&["type"]) == CONDITION)
        .filter(|condition| condition.str_at(&["status"]) == "False")
        .filter(|condition| !condition.str_at(&["message"]).is_empty());
    let told = condition.map(|own| (own.str_at(&["reason"]), own.str_at(&["message"])));
    let number = |key: &str| status[key].as_i64().unwrap_or(0);
    let (desired, current) = (number("desiredHealthy"), number("currentHealthy"));
    let start = format!("The disruption budget {name}");
    match told {
        Some(("SyncFailed", message)) => {
            format!("{start} does not allow evicting pods currently because it failed sync: {message}")
        }
        _ if current <= desired => {
            format!("{start} needs {desired} healthy pods and has {current} currently")
        }
        Some((reason, message)) => {
            format!("{start} does not allow evicting pods currently ({reason}): {message}")
        }
        None => format!("{start} does not allow evicting pods currently"),
    }
}

/// The budget is about to be looked at by its controller.
fn in_progress(name: &str) -> Status {
    refusal(10, format!("The disruption budget {name} is still being processed by the server."))
}

fn refusal(retry_after_seconds: u32, why: String) -> Status {
    let mut status = Status::too_many_requests(REFUSED, retry_after_seconds);
    if let Some(details) = &mut status.details {
        details.retry_after_seconds = details.retry_after_seconds.filter(|seconds| *seconds > 0);
        details.causes.push(Cause { reason: "DisruptionBudget".into(), message: why, field: String::new() });
    }
    status
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn budget(status: Value) -> Value {
        json!({"metadata": {"name": "b", "generation": 1}, "spec": {}, "status": status})
    }

    fn status(allowed: i64, desired: i64, current: i64) -> Value {
        json!({"observedGeneration": 1, "disruptionsAllowed": allowed, "desiredHealthy": desired,
            "currentHealthy": current})
    }

    fn why(refused: Status) -> (u16, String) {
        let cause = refused.details.and_then(|details| details.causes.into_iter().next());
        (refused.code, cause.map_or(refused.message, |cause| cause.message))
    }

    #[test]
    fn a_disruption_is_spent_and_noted() {
        let spent = spend(&budget(status(2, 1, 3)), "p", NOW).expect("allowed");
        assert_eq!(spent["status"]["disruptionsAllowed"].as_i64(), Some(1));
        assert_eq!(spent["status"]["disruptedPods"], json!({"p": "1970-01-01T00:00:00Z"}));
        assert!(spent["status"].array_at(&["conditions"]).is_empty());
        let last = spend(&budget(status(1, 1, 2)), "p", NOW).expect("allowed");
        let condition = json!({
            "type": CONDITION, "status": "False", "reason": "InsufficientPods", "message": "",
            "lastTransitionTime": "1970-01-01T00:00:00Z", "observedGeneration": 1,
        });
        assert_eq!(last["status"]["conditions"], json!([condition]));
    }

    #[test]
    fn refusals_say_why() {
        let mut failed = status(0, 1, 2);
        failed.set_at(
            &["conditions"],
            json!([{"type": CONDITION, "status": "False", "reason": "SyncFailed", "message": "no controller"}]),
        );
        let mut stale = status(1, 1, 2);
        stale.set_at(&["observedGeneration"], 0);
        for (status, code, text) in [
            (status(0, 2, 2), 429, "The disruption budget b needs 2 healthy pods and has 2 currently"),
            (status(0, 1, 2), 429, "The disruption budget b does not allow evicting pods currently"),
            (
                failed,
                429,
                "The disruption budget b does not allow evicting pods currently because it failed sync: no controller",
            ),
            (stale, 429, "The disruption budget b is still being processed by the server."),
            (
                status(-1, 1, 2),
                403,
                "poddisruptionbudget.policy \"b\" is forbidden: pdb disruptions allowed is negative",
            ),
        ] {
            let refused = spend(&budget(status), "p", NOW).expect_err("refused");
            assert_eq!(why(refused), (code, text.to_owned()));
        }
    }

    #[test]
    fn unready_pods_are_free_where_nobody_misses_them() {
        let pod = |ready: &str| json!({"status": {"conditions": [{"type": "Ready", "status": ready}]}});
        let mut always = budget(status(0, 2, 1));
        always.set_at(&["spec", "unhealthyPodEvictionPolicy"], "AlwaysAllow");
        for (ready, budget, expected) in [
            ("True", budget(status(1, 1, 2)), Cost::One),
            ("False", budget(status(0, 1, 1)), Cost::Free),
            ("False", budget(status(0, 2, 1)), Cost::One),
            ("False", budget(status(0, 0, 0)), Cost::One),
            ("False", always.clone(), Cost::Free),
            ("True", always.clone(), Cost::One),
        ] {
            assert_eq!(cost(&pod(ready), &budget), expected, "{ready} {budget}");
        }
    }
}
