use apimachinery::{Value, json, time};

use super::*;
use crate::testing::{World, object};

fn slice(name: &str, generation: i64, taints: &str) -> Value {
    let mut tree = json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice", "metadata": {"name": name},
        "spec": {"driver": "d", "nodeName": "n",
            "pool": {"name": "p", "generation": generation, "resourceSliceCount": 1},
            "devices": [{"name": "a"}]}});
    let taints = Value::parse(taints.as_bytes()).unwrap();
    if let Some(devices) = tree.at_mut(&["spec", "devices"]).and_then(Value::as_array_mut) {
        devices[0].set_at(&["taints"], taints);
    }
    tree
}

fn claim(name: &str, tolerations: &str) -> Value {
    let mut tree = json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
        "metadata": {"name": name, "namespace": "ns", "uid": name},
        "status": {"reservedFor": [{"resource": "pods", "name": name, "uid": name}],
            "allocation": {"devices": {"results": [{"request": "r", "driver": "d", "pool": "p", "device": "a"}]}}}});
    let tolerations = Value::parse(tolerations.as_bytes()).unwrap();
    let results = tree.at_mut(&["status", "allocation", "devices", "results"]).and_then(Value::as_array_mut);
    if let Some(results) = results {
        results[0].set_at(&["tolerations"], tolerations);
    }
    tree
}

fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "ns", "uid": name},
        "spec": {"nodeName": "n", "resourceClaims": [{"name": "c", "resourceClaimName": name}]}})
}

const TAINTED: &str = r#"[{"key":"k","value":"v","effect":"NoExecute","timeAdded":"2026-01-01T00:00:00Z"}]"#;

#[tokio::test]
async fn pods_go_unless_their_claims_tolerate() {
    let for_seconds = |seconds: i64| {
        format!(r#"[{{"operator":"Exists","effect":"NoExecute","tolerationSeconds":{seconds}}}]"#)
    };
    let claims = [
        ("intolerant", "[]".to_owned()),
        ("tolerant", r#"[{"operator":"Exists","effect":"NoExecute"}]"#.to_owned()),
        ("soon", for_seconds(1)),
        ("later", for_seconds(1_000_000_000)),
    ];
    let mut seeds = vec![slice("s", 1, "[]")];
    for (name, tolerations) in &claims {
        seeds.extend([claim(name, tolerations), pod(name)]);
    }
    let world = World::start(vec![descriptor()], seeds);
    world
        .wait_for("caches", |fake| fake.calls().iter().filter(|call| call.verb == "watch").count() >= 3)
        .await;
    world.fake.edit(&RESOURCE_SLICES, "", "s", |tree| *tree = slice("s", 1, TAINTED));
    let deleting = |fake: &client::fake::FakeApi, name: &str| {
        fake.peek(&PODS, "ns", name).is_some_and(|pod| pod.is_deleting())
    };
    world.wait_for("two go", |fake| deleting(fake, "intolerant") && deleting(fake, "soon")).await;
    assert!(!deleting(&world.fake, "tolerant") && !deleting(&world.fake, "later"));
    let condition = world.tree(&PODS, "ns", "intolerant")["status"]["conditions"][0].clone();
    assert_eq!(condition.str_at(&["reason"]), "DeletionByDeviceTaintManager");
    // A newer generation has no such taint.
    world.fake.seed(slice("t", 2, "[]"));
    world
        .wait_for("events", |_| {
            let events = world.events();
            events.contains(&"DeviceTaintManagerEviction: Marking for deletion".to_owned())
                && events.contains(&"DeviceTaintManagerEviction: Cancelling deletion".to_owned())
        })
        .await;
}

#[test]
fn the_shortest_toleration_that_names_the_effect_counts_from_when_the_taint_was_added() {
    let all = |text: &str| format!("[{text}]");
    let exists = r#""operator":"Exists""#;
    let no_execute = r#""operator":"Exists","effect":"NoExecute""#;
    for (tolerations, wanted) in [
        ("[]".to_owned(), Some("2026-01-01T00:00:00Z")),
        (all(&format!("{{{exists}}}")), Some("2026-01-01T00:00:00Z")),
        (all(&format!("{{{no_execute}}}")), None),
        (all(&format!(r#"{{{no_execute},"key":"other"}}"#)), Some("2026-01-01T00:00:00Z")),
        (all(&format!(r#"{{{no_execute},"tolerationSeconds":-5}}"#)), Some("2026-01-01T00:00:00Z")),
        (
            all(&format!(
                r#"{{{no_execute},"tolerationSeconds":60}},{{{no_execute},"tolerationSeconds":30}}"#
            )),
            Some("2026-01-01T00:00:30Z"),
        ),
    ] {
        let claim = object(claim("c", &tolerations)).view::<ResourceClaim>().unwrap();
        let slices: Vec<_> = [slice("old", 1, "[]"), slice("new", 2, TAINTED)]
            .into_iter()
            .map(|tree| object(tree).view::<ResourceSlice>().unwrap())
            .collect();
        let when = plan::eviction(&claim, |_, _, device| plan::evicting_taints(&slices, device));
        assert_eq!(when.map(time::format_seconds).as_deref(), wanted, "{tolerations}");
    }
}
