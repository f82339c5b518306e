//! What admission policies add to a write.

use serde_json::{Value, json};

use super::super::load;
use super::super::objects;
use super::super::report::Measurement;
use super::super::server::Server;
use super::{Folder, Measured, World, create_namespace};

const NAMESPACE: &str = "bench";
const CONFIG_MAPS: &str = "/api/v1/namespaces/bench/configmaps";
const GROUP: &str = "/apis/admissionregistration.k8s.io/v1";
const POLICIES: usize = 20;
/// Enough to share syncs, few enough for the server's own work to show.
const CONNECTIONS: usize = 16;
/// What twenty policies may add, in microseconds.
const ADDED_US_MAX: f64 = 50.0;

pub(super) async fn policies(world: World) -> Measured {
    let folder = Folder::new()?;
    let server = world.start(&folder, 1).await?;
    create_namespace(&server, NAMESPACE).await?;
    // Once unmeasured, so that both measurements meet a warm server.
    creates(&world, &server, "warm").await?;
    let without = creates(&world, &server, "without").await?;
    let mut connection = server.endpoint.connect().await?;
    for number in 0..POLICIES {
        let (policy, binding) = policy(number);
        connection.create(&format!("{GROUP}/validatingadmissionpolicies"), body(&policy)).await?;
        connection.create(&format!("{GROUP}/validatingadmissionpolicybindings"), body(&binding)).await?;
    }
    let with = creates(&world, &server, "with").await?;
    server.stop().await?;
    let note = format!("{without:.1} µs without, {with:.1} µs with, {CONNECTIONS} connections");
    let what = format!("server CPU that {POLICIES} CEL policies add to a ConfigMap create");
    Ok(vec![Measurement::new(what, with - without, "µs").at_most(ADDED_US_MAX).note(note)])
}

/// Server CPU of one create, in microseconds.
async fn creates(world: &World, server: &Server, prefix: &'static str) -> anyhow::Result<f64> {
    let template = objects::config_map();
    let rate = load::run(server, CONNECTIONS, 0, world.until(), move |mut connection, number| {
        let body = template.named(&format!("{prefix}-{number}"));
        async move {
            connection.create(CONFIG_MAPS, body).await?;
            Ok(connection)
        }
    })
    .await?;
    Ok(rate.cpu_ms() * 1e3)
}

/// A policy as they are in the field: a condition, a variable, two rules of two clauses each, one with a message.
fn policy(number: usize) -> (Value, Value) {
    let name = format!("policy-{number}");
    let policy = json!({
        "metadata": {"name": name},
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {"resourceRules": [{
                "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"],
                "resources": ["configmaps"],
            }]},
            "variables": [{"name": "labels", "expression": "object.metadata.?labels.orValue({})"}],
            "validations": [
                {
                    "expression": "'app' in variables.labels && variables.labels['app'] != ''",
                    "message": "every object has an app",
                },
                {
                    "expression": format!("!has(object.data) || !('forbidden-{number}' in object.data)"),
                    "messageExpression": "'not in ' + object.metadata.name",
                },
            ],
        },
    });
    let binding = json!({
        "metadata": {"name": name}, "spec": {"policyName": name, "validationActions": ["Deny"]},
    });
    (policy, binding)
}

fn body(object: &Value) -> bytes::Bytes {
    object.to_string().into()
}
