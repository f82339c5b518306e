//! What the server says about the expressions of policies.

use anyhow::{Context, ensure};
use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::wait::{await_condition, conditions};
use serde_json::{Value, json};

use crate::{PATIENCE, World, object, until};

fn widgets() -> Value {
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "size": {"type": "integer"},
    }}}});
    json!({
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget"},
            "versions": [
                {"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}},
            ],
        },
    })
}

fn policy(expression: &str) -> Value {
    let rule = |group: &str, resource: &str| {
        json!({
            "apiGroups": [group], "apiVersions": ["v1"], "resources": [resource], "operations": ["CREATE"],
        })
    };
    json!({
        "metadata": {"name": "small"},
        "spec": {
            "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
            "matchConstraints": {"resourceRules": [rule("example.com", "widgets"), rule("apps", "deployments")]},
            "validations": [{"expression": expression}],
        },
    })
}

/// The fields and texts of the warnings, once this generation was checked.
async fn warnings(
    policies: &Api<ValidatingAdmissionPolicy>,
    generation: i64,
) -> anyhow::Result<Vec<(String, String)>> {
    until("the policy is checked", || async {
        let status = policies.get("small").await?.status.unwrap_or_default();
        Ok(status.observed_generation == Some(generation))
    })
    .await?;
    let status = policies.get("small").await?.status.unwrap_or_default();
    let checked = status.type_checking.unwrap_or_default();
    let warnings = checked.expression_warnings.unwrap_or_default();
    Ok(warnings.into_iter().map(|own| (own.field_ref, own.warning)).collect())
}

/// A policy names a kind of each sort, and is repaired.
#[tokio::test]
async fn a_policy_is_type_checked_against_the_kinds_that_it_names() -> anyhow::Result<()> {
    let Some(world) = World::new().await? else { return Ok(()) };
    let definitions: Api<CustomResourceDefinition> = Api::all(world.client.clone());
    definitions.create(&PostParams::default(), &object(widgets())?).await?;
    let established = await_condition(definitions, "widgets.example.com", conditions::is_crd_established());
    tokio::time::timeout(PATIENCE, established).await.context("it is not established")??;

    let policies: Api<ValidatingAdmissionPolicy> = Api::all(world.client.clone());
    let text = "object.spec.size < 3 && params.data.max != 1";
    policies.create(&PostParams::default(), &object(policy(text))?).await?;
    let overload = "ERROR: <input>:1:41: found no matching overload for '_!=_' applied to '(string, int)'";
    let pointer = |column: usize| format!("\n | {text}\n | {}^", ".".repeat(column));
    let expected = format!(
        "apps/v1, Kind=Deployment: ERROR: <input>:1:12: undefined field 'size'{}\n{overload}{}\n\nexample.com/v1, \
         Kind=Widget: {overload}{}\n",
        pointer(11),
        pointer(40),
        pointer(40),
    );
    let found = warnings(&policies, 1).await?;
    ensure!(found == [("spec.validations[0].expression".to_owned(), expected)], "{found:?}");

    let repaired = policy("object.metadata.name != '' && params.data.max != '1'");
    let patch = Patch::Merge(json!({"spec": repaired["spec"]}));
    policies.patch("small", &PatchParams::default(), &patch).await?;
    let found = warnings(&policies, 2).await?;
    ensure!(found.is_empty(), "{found:?}");
    world.stop()
}
