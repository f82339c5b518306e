use super::*;
use crate::json;
use crate::schema::fixture::{Fixture, thing};

/// One object, written to by turns; each turn is a second later.
struct World {
    fixture: Fixture,
    kind: GroupVersionKind,
    seconds: i64,
    live: Option<Value>,
}

/// The schema has to outlive the manager, and both the turn.
macro_rules! manager {
    ($world:expr, $subresource:expr, $filter:expr) => {
        FieldManager {
            schema: $world.fixture.schema(),
            kind: &$world.kind,
            subresource: $subresource,
            filter: $filter,
        }
    };
}

impl World {
    fn new() -> Self {
        Self { fixture: thing(), kind: GroupVersionKind::new("test", "v1", "Thing"), seconds: 0, live: None }
    }

    fn now(&mut self) -> Timestamp {
        self.seconds += 1;
        Timestamp::from_second(self.seconds).unwrap()
    }

    fn decode(&self, value: &mut Value) {
        crate::decode::normalize(value, self.fixture.schema()).unwrap();
    }

    /// Creates or updates with a whole object.
    fn update(&mut self, manager: &str, new: Value) {
        self.update_at("", &Filter::default(), manager, new);
    }

    fn update_at(&mut self, subresource: &str, filter: &Filter, manager: &str, mut new: Value) {
        new.set_at(&["apiVersion"], "test/v1");
        new.set_at(&["kind"], "Thing");
        new.set_at(&["metadata", "uid"], "u");
        if let (None, Some(live)) = (new["metadata"].get("managedFields"), &self.live) {
            new.set_at(&["metadata", "managedFields"], live["metadata"]["managedFields"].clone());
        }
        let now = self.now();
        self.decode(&mut new);
        manager!(self, subresource, filter).update(self.live.as_ref(), &mut new, manager, now);
        self.live = Some(new);
    }

    fn apply(&mut self, manager: &str, spec: Value) -> Result<(), ApplyError> {
        self.apply_with(manager, spec, false)
    }

    fn force(&mut self, manager: &str, spec: Value) {
        self.apply_with(manager, spec, true).unwrap();
    }

    fn apply_with(&mut self, manager: &str, spec: Value, force: bool) -> Result<(), ApplyError> {
        let mut config = json!({"apiVersion": "test/v1", "kind": "Thing", "metadata": {"name": "t"}});
        config.set_at(&["spec"], spec);
        self.apply_config(manager, config, force)
    }

    fn apply_config(&mut self, manager: &str, config: Value, force: bool) -> Result<(), ApplyError> {
        let now = self.now();
        let filter = Filter::default();
        let mut object =
            manager!(self, "", &filter).apply(self.live.as_ref(), &config, manager, force, now)?;
        object.set_at(&["metadata", "uid"], "u");
        self.decode(&mut object);
        self.live = Some(object);
        Ok(())
    }

    fn spec(&self) -> Value {
        self.live.as_ref().unwrap()["spec"].clone()
    }

    /// `manager operation[/subresource]@second: paths`, a line an entry.
    fn owners(&self) -> String {
        let entries = self.live.as_ref().unwrap().array_at(&["metadata", "managedFields"]);
        let lines: Vec<String> = entries
            .iter()
            .map(|entry| {
                let text = |name: &str| entry.str_at(&[name]).to_owned();
                let set = Set::from_fields_v1(&entry["fieldsV1"]).expect("a set");
                assert_eq!(set.clone().into_fields_v1(), entry["fieldsV1"], "stored in canonical form");
                let subresource = if text("subresource").is_empty() {
                    String::new()
                } else {
                    format!("/{}", text("subresource"))
                };
                let time =
                    text("time").trim_start_matches("1970-01-01T00:00:").trim_end_matches('Z').to_owned();
                format!(
                    "{} {}{subresource}@{time}: {}",
                    text("manager"),
                    text("operation"),
                    set.paths().join(" ")
                )
            })
            .collect();
        lines.join("\n")
    }
}

fn spec(spec: Value) -> Value {
    json!({"metadata": {"name": "t"}, "spec": serde_json::Value::from(&spec)})
}

#[test]
fn a_create_owns_what_an_empty_object_does_not_have() {
    let mut world = World::new();
    world.update(
        "me",
        json!({
            "metadata": {"name": "t", "labels": {"a": "b"}, "finalizers": ["f"], "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {
                "replicas": 0, "selector": {"matchLabels": {"a": "b"}}, "strategy": {"type": "X"}, "tolerations": ["t"],
                "nodeSelector": {"a": "b"}, "free": {"a": [1], "b": {"c": 1}},
                "containers": [{"name": "c", "image": "i", "ports": [{"port": 80}]}],
            },
        }),
    );
    assert_eq!(
        world.live.unwrap()["metadata"]["managedFields"],
        json!([{
            "manager": "me", "operation": "Update", "apiVersion": "test/v1", "time": "1970-01-01T00:00:01Z",
            "fieldsType": "FieldsV1",
            "fieldsV1": {
                "f:metadata": {"f:finalizers": {".": {}, "v:\"f\"": {}}, "f:labels": {".": {}, "f:a": {}}},
                "f:spec": {
                    "f:containers": {"k:{\"name\":\"c\"}": {
                        ".": {}, "f:image": {}, "f:name": {}, "f:resources": {},
                        "f:ports": {".": {}, "k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}}},
                    }},
                    "f:free": {".": {}, "f:a": {}, "f:b": {".": {}, "f:c": {}}}, "f:nodeSelector": {}, "f:replicas": {},
                    "f:selector": {}, "f:strategy": {"f:type": {}}, "f:tolerations": {},
                },
            },
        }])
    );
}

#[test]
fn whoever_changes_a_field_owns_it() {
    let mut world = World::new();
    world.update("one", spec(json!({"replicas": 1, "strategy": {"type": "A"}})));
    assert_eq!(world.owners(), "one Update@01: .spec.replicas .spec.strategy.type");
    world.update("two", spec(json!({"replicas": 2, "strategy": {"type": "A"}})));
    assert_eq!(world.owners(), "one Update@01: .spec.strategy.type\ntwo Update@02: .spec.replicas");
    world.update("three", spec(json!({"replicas": 2, "strategy": {"type": "A"}})));
    assert_eq!(
        world.owners(),
        "one Update@01: .spec.strategy.type\ntwo Update@02: .spec.replicas",
        "nothing changed"
    );
    world.update("one", spec(json!({"replicas": 2, "paused": true, "strategy": {"type": "A"}})));
    assert_eq!(
        world.owners(),
        "two Update@02: .spec.replicas\none Update@04: .spec.paused .spec.strategy.type"
    );
    world.update("one", spec(json!({"paused": true})));
    assert_eq!(
        world.owners(),
        "one Update@04: .spec.paused",
        "what is gone is nobody's, and giving up is no change"
    );
}

#[test]
fn items_are_owned_one_by_one() {
    let mut world = World::new();
    world.update("one", spec(json!({"containers": [{"name": "a"}, {"name": "b", "image": "x"}]})));
    world.update("two", spec(json!({"containers": [{"name": "b", "image": "y"}, {"name": "c"}]})));
    assert_eq!(
        world.owners(),
        "one Update@01: .spec.containers[name=\"b\"] .spec.containers[name=\"b\"].name .spec.containers[name=\"b\"].resources\n\
         two Update@02: .spec.containers[name=\"c\"] .spec.containers[name=\"b\"].image .spec.containers[name=\"c\"].name \
         .spec.containers[name=\"c\"].resources"
    );
}

#[test]
fn a_filter_keeps_fields_out_that_the_request_cannot_set() {
    let mut world = World::new();
    world.update("one", spec(json!({"replicas": 1})));
    let status = Filter::except(&[&["spec"], &["metadata"]]);
    world.update_at(
        "status",
        &status,
        "two",
        json!({"metadata": {"labels": {"a": "b"}}, "spec": {"replicas": 2}, "status": {"ready": 1}}),
    );
    assert_eq!(world.owners(), "one Update@01: .spec.replicas\ntwo Update/status@02: .status.ready");
    let resize = Filter::only(&[&["spec", "containers", "*", "image"]]);
    world.update_at(
        "resize",
        &resize,
        "three",
        spec(json!({"replicas": 3, "containers": [{"name": "a", "image": "b"}]})),
    );
    assert!(
        world.owners().ends_with(
            "three Update/resize@03: .spec.containers[name=\"a\"] .spec.containers[name=\"a\"].image"
        ),
        "{}",
        world.owners()
    );
}

#[test]
fn what_is_sent_as_managed_fields_counts_if_it_is_good() {
    let entry = |manager: &str| {
        json!({
            "manager": manager, "operation": "Update", "apiVersion": "test/v1", "fieldsType": "FieldsV1",
            "fieldsV1": {"f:spec": {"f:replicas": {}}},
        })
    };
    for (sent, expected) in [
        (json!([serde_json::Value::from(&entry("other"))]), "other Update@: .spec.replicas"),
        (json!([]), ""),
        (json!([{}]), ""),
        (json!([{"manager": "x", "operation": "Nope"}]), "one Update@01: .spec.replicas"),
        (Value::Null, "one Update@01: .spec.replicas"),
    ] {
        let mut world = World::new();
        world.update("one", spec(json!({"replicas": 1})));
        let mut new = spec(json!({"replicas": 1}));
        new.set_at(&["metadata", "managedFields"], sent.clone());
        world.update("two", new);
        assert_eq!(world.owners(), expected, "{sent}");
    }
    let mut world = World::new();
    world.update("one", spec(json!({"replicas": 1})));
    let mut new = spec(json!({"replicas": 1}));
    new.set_at(&["metadata", "managedFields"], json!([]));
    world.update("two", new);
    world.update("two", spec(json!({"replicas": 2})));
    assert_eq!(world.owners(), "", "an object without owners stays so until an apply");
}

#[test]
fn many_updaters_become_ancient_changes() {
    let mut world = World::new();
    let mut labels = serde_json::Map::new();
    for number in 0..13 {
        labels.insert(format!("l{number:02}"), "x".into());
        world.update(&format!("m{number:02}"), json!({"metadata": {"name": "t", "labels": labels.clone()}}));
    }
    let owners = world.owners();
    let lines: Vec<&str> = owners.lines().collect();
    assert_eq!(lines.len(), 10, "{owners}");
    assert!(
        lines[0].starts_with("ancient-changes Update@04: .metadata.labels .metadata.labels.l00"),
        "{owners}"
    );
    assert_eq!(lines[1], "m04 Update@05: .metadata.labels.l04");
    assert_eq!(lines[9], "m12 Update@13: .metadata.labels.l12");
}

#[test]
fn applying_creates_merges_and_is_idempotent() {
    let mut world = World::new();
    let config = json!({"replicas": 1, "containers": [{"name": "c", "image": "i"}]});
    world.apply("one", config.clone()).unwrap();
    let owned = ".spec.replicas .spec.containers[name=\"c\"] .spec.containers[name=\"c\"].image .spec.containers[name=\"c\"].name";
    assert_eq!(world.owners(), format!("one Apply@01: {owned}"));
    let before = world.live.clone();
    world.apply("one", config.clone()).unwrap();
    assert_eq!(world.live, before, "the same again changes nothing, not even a time");
    world.apply("two", config).unwrap();
    assert_eq!(world.owners(), format!("two Apply@: {owned}\none Apply@01: {owned}"), "agreeing is sharing");
}

#[test]
fn a_field_of_another_manager_is_a_conflict_unless_forced() {
    let mut world = World::new();
    world.apply("one", json!({"replicas": 1, "containers": [{"name": "c", "image": "i"}]})).unwrap();
    let change = json!({"replicas": 2, "containers": [{"name": "c", "image": "j"}]});
    let status = world.apply("two", change.clone()).unwrap_err().into_status();
    assert_eq!(
        status.message,
        "Apply failed with 2 conflicts: conflicts with \"one\":\n- .spec.replicas\n- .spec.containers[name=\"c\"].image"
    );
    let causes = status.details.unwrap().causes;
    assert_eq!(
        (status.code, causes[1].message.as_str(), causes[1].field.as_str()),
        (409, "conflict with \"one\"", ".spec.containers[name=\"c\"].image")
    );
    world.force("two", change);
    assert_eq!(
        world.owners().lines().next().unwrap(),
        "one Apply@01: .spec.containers[name=\"c\"] .spec.containers[name=\"c\"].name"
    );
    world.update_at("scale", &Filter::default(), "scaler", {
        let mut object = world.live.clone().unwrap();
        object.set_at(&["spec", "replicas"], 9);
        object
    });
    let error = world.apply("two", json!({"replicas": 2})).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Apply failed with 1 conflict: conflict with \"scaler\" with subresource \"scale\" using test/v1: .spec.replicas"
    );
}

#[test]
fn what_is_given_up_goes_unless_somebody_owns_it() {
    let mut world = World::new();
    world
        .apply("one", json!({"replicas": 1, "tolerations": ["t"], "containers": [{"name": "a", "image": "i"}, {"name": "b"}]}))
        .unwrap();
    world.apply("two", json!({"tolerations": ["t"], "containers": [{"name": "b"}]})).unwrap();
    world.apply("one", json!({"containers": []})).unwrap();
    assert_eq!(
        world.spec(),
        json!({"containers": [{"name": "b", "resources": {}}], "tolerations": ["t"], "strategy": {}, "selector": null})
    );
    assert_eq!(
        world.owners(),
        "two Apply@: .spec.tolerations .spec.containers[name=\"b\"] .spec.containers[name=\"b\"].name"
    );
}

#[test]
fn an_item_goes_with_its_owner_even_if_others_own_parts_of_it() {
    let mut world = World::new();
    world.apply("one", json!({"replicas": 1, "containers": [{"name": "a", "image": "i"}]})).unwrap();
    world.update(
        "two",
        spec(json!({"replicas": 1, "containers": [{"name": "a", "image": "i", "args": ["x"]}]})),
    );
    assert!(
        world.owners().ends_with("two Update@02: .spec.containers[name=\"a\"].args"),
        "{}",
        world.owners()
    );
    world.apply("one", json!({"replicas": 1})).unwrap();
    assert_eq!(world.spec()["containers"], Value::Null);
    assert_eq!(world.owners(), "one Apply@03: .spec.replicas");
}

#[test]
fn items_take_the_order_of_the_configuration() {
    let named = |names: &[&str]| json!({"containers": names.iter().map(|name| serde_json::json!({"name": name})).collect::<Vec<_>>()});
    for (live, config, expected) in [
        (&["a", "b", "c"][..], &["c", "a"][..], &["b", "c", "a"][..]),
        (&["a", "b"], &["x", "b"], &["a", "x", "b"]),
        (&["a", "b", "c"], &["b", "x"], &["a", "b", "c", "x"]),
        (&["a"], &["b", "a"], &["b", "a"]),
    ] {
        let mut world = World::new();
        world.update("one", spec(named(live)));
        world.apply("two", named(config)).unwrap();
        let merged: Vec<String> = world
            .spec()
            .array_at(&["containers"])
            .iter()
            .map(|item| item.str_at(&["name"]).to_owned())
            .collect();
        assert_eq!(merged, expected, "{live:?} {config:?}");
    }
}

#[test]
fn the_first_apply_tracks_what_was_there_before() {
    let mut world = World::new();
    let mut old = json!({"apiVersion": "test/v1", "kind": "Thing", "metadata": {"name": "t", "uid": "u"}, "spec": {"replicas": 3}});
    world.decode(&mut old);
    world.live = Some(old);
    let error = world.apply("one", json!({"replicas": 1})).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Apply failed with 1 conflict: conflict with \"before-first-apply\" using test/v1: .spec.replicas"
    );
    world.apply("one", json!({"paused": true})).unwrap();
    assert_eq!(world.owners(), "one Apply@02: .spec.paused\nbefore-first-apply Update@02: .spec.replicas");
}

#[test]
fn what_became_atomic_since_is_owned_as_a_whole() {
    let mut world = World::new();
    world.apply("one", json!({"nodeSelector": {"a": "b"}})).unwrap();
    let mut live = world.live.clone().unwrap();
    live.ensure_object_at(&["metadata"]).get_mut("managedFields").unwrap().as_array_mut().unwrap()[0]
        .set_at(&["fieldsV1", "f:spec", "f:nodeSelector"], json!({"f:a": {}}));
    world.live = Some(live);
    let error = world.apply("two", json!({"nodeSelector": {"c": "d"}})).unwrap_err();
    assert_eq!(error.to_string(), "Apply failed with 1 conflict: conflict with \"one\": .spec.nodeSelector");
}

#[test]
fn kubectl_takes_over_from_client_side_apply() {
    let last = "{\"apiVersion\":\"test/v1\",\"kind\":\"Thing\",\"metadata\":{\"name\":\"t\"},\"spec\":{\"replicas\":1,\"strategy\":{\"type\":\"A\"}}}";
    let annotated = || {
        let mut object = spec(json!({"replicas": 1, "strategy": {"type": "B"}}));
        object.set_at(&["metadata", "annotations", "kubectl.kubernetes.io/last-applied-configuration"], last);
        object
    };
    let mut world = World::new();
    world.update("kubectl-client-side-apply", annotated());
    assert!(world.apply("other", json!({"replicas": 2})).is_err(), "only kubectl is excused");
    let error = world.apply("kubectl", json!({"replicas": 2, "strategy": {"type": "C"}})).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Apply failed with 1 conflict: conflict with \"kubectl-client-side-apply\" using test/v1: .spec.strategy.type",
        "a field changed since is not excused"
    );
    world.apply("kubectl", json!({"replicas": 2})).unwrap();
    assert_eq!(world.spec()["replicas"], 2.into());
    let live = world.live.unwrap();
    assert_eq!(
        live.str_at(&["metadata", "annotations", "kubectl.kubernetes.io/last-applied-configuration"]),
        "{\"apiVersion\":\"test/v1\",\"kind\":\"Thing\",\"metadata\":{\"name\":\"t\"},\"spec\":{\"replicas\":2}}\n"
    );
}

/// What a manager does to `metadata.finalizers`, a set.
fn finalizers(names: &[&str]) -> Value {
    json!({"apiVersion": "test/v1", "kind": "Thing", "metadata": {"name": "t", "finalizers": names}})
}

/// The finalizers of the live object, in order.
fn live_finalizers(world: &World) -> Vec<String> {
    let live = world.live.as_ref().unwrap();
    let names = live.array_at(&["metadata", "finalizers"]).iter().filter_map(Value::as_str);
    names.map(str::to_owned).collect()
}

#[test]
fn items_of_a_set_are_shared_and_go_with_their_last_owner() {
    let mut world = World::new();
    let mut apply = |manager: &str, names: &[&str], expected: &[&str]| {
        world.apply_config(manager, finalizers(names), false).unwrap();
        assert_eq!(live_finalizers(&world), expected, "{manager} {names:?}");
    };
    apply("one", &["a", "b"], &["a", "b"]);
    apply("two", &["b", "c"], &["a", "b", "c"]);
    apply("one", &["a"], &["a", "b", "c"]);
    apply("two", &["c", "a"], &["c", "a"]);
    apply("two", &[], &["a"]);
    // What changed last was whose they are, and that is no change of the object.
    assert_eq!(world.owners(), "one Apply@01: .metadata.finalizers[=\"a\"]");
}

#[test]
fn items_given_twice_are_one_item_and_an_apply_leaves_one_of_them() {
    let twice = finalizers(&["a", "a", "b"]);
    let mut world = World::new();
    world.update("one", twice.clone());
    assert!(
        world.owners().ends_with(".metadata.finalizers[=\"a\"] .metadata.finalizers[=\"b\"]"),
        "{}",
        world.owners()
    );
    world.apply_config("two", finalizers(&["c"]), false).unwrap();
    assert_eq!(live_finalizers(&world), ["a", "a", "b", "c"], "items of others stay as they are");
    let error = world.apply_config("two", finalizers(&["a"]), false).unwrap_err().to_string();
    assert_eq!(
        error,
        "Apply failed with 1 conflict: conflict with \"one\" using test/v1: .metadata.finalizers[=\"a\"]"
    );
    world.apply_config("two", finalizers(&["a"]), true).unwrap();
    assert_eq!(live_finalizers(&world), ["a", "b"]);
    let error = world.apply_config("two", twice, false).unwrap_err().to_string();
    assert!(error.ends_with(".metadata.finalizers: duplicate entries for key [=\"a\"]"), "{error}");
}

#[test]
fn a_key_that_is_left_out_is_its_default() {
    let ports =
        |ports: Value| json!({"containers": [{"name": "c", "ports": serde_json::Value::from(&ports)}]});
    let mut world = World::new();
    world.apply("one", ports(json!([{"port": 80}, {"port": 80, "protocol": "UDP"}]))).unwrap();
    let owned = world.owners();
    assert!(owned.contains(".ports[port=80,protocol=\"TCP\"].port"), "{owned}");
    assert!(owned.contains(".ports[port=80,protocol=\"UDP\"].protocol"), "{owned}");
    let named = ports(json!([{"port": 80, "protocol": "TCP", "name": "web"}]));
    world.apply("two", named).unwrap();
    assert_eq!(
        world.spec()["containers"][0]["ports"],
        json!([{"port": 80, "protocol": "TCP", "name": "web"}, {"port": 80, "protocol": "UDP"}]),
        "both name the same item"
    );
    for ambiguous in
        [json!([{"port": 80}, {"port": 80}]), json!([{"port": 80}, {"port": 80, "protocol": "TCP"}])]
    {
        let error = world.apply("one", ports(ambiguous)).unwrap_err().to_string();
        assert!(error.ends_with("duplicate entries for key [port=80,protocol=\"TCP\"]"), "{error}");
    }
}

#[test]
fn items_inside_items_are_given_up_one_by_one() {
    let env = |names: &[&str]| {
        let env: Vec<serde_json::Value> =
            names.iter().map(|name| serde_json::json!({"name": name})).collect();
        json!({"containers": [{"name": "c", "env": env}]})
    };
    let mut world = World::new();
    world.apply("one", env(&["x", "y", "z"])).unwrap();
    world.apply("two", env(&["y"])).unwrap();
    world.apply("one", env(&["z"])).unwrap();
    assert_eq!(world.spec()["containers"][0]["env"], json!([{"name": "y"}, {"name": "z"}]));
    world.apply("two", json!({"containers": [{"name": "c"}]})).unwrap();
    assert_eq!(world.spec()["containers"][0]["env"], json!([{"name": "z"}]));
    world.apply("one", json!({})).unwrap();
    assert_eq!(world.spec()["containers"], json!([{"name": "c", "resources": {}}]), "the other's item stays");
}

#[test]
fn an_atomic_map_changes_hands_as_a_whole() {
    let mut world = World::new();
    world.apply("one", json!({"nodeSelector": {"a": "1"}, "replicas": 1})).unwrap();
    let change = json!({"nodeSelector": {"b": "2"}});
    let error = world.apply("two", change.clone()).unwrap_err().to_string();
    assert_eq!(error, "Apply failed with 1 conflict: conflict with \"one\": .spec.nodeSelector");
    world.force("two", change);
    assert_eq!(world.spec()["nodeSelector"], json!({"b": "2"}));
    assert_eq!(world.owners(), "one Apply@01: .spec.replicas\ntwo Apply@03: .spec.nodeSelector");
    world.apply("two", json!({"paused": true})).unwrap();
    assert_eq!(world.spec().get("nodeSelector"), None, "given up by its only owner");
}

#[test]
fn a_bad_configuration_is_refused_in_upstreams_words() {
    let typed = |why: &str| format!("failed to create typed patch object (/t; test/v1, Kind=Thing): {why}");
    for (spec, message) in [
        (json!({"zz": 1}), typed(".spec.zz: field not declared in schema")),
        (json!({"replicas": "x"}), typed(".spec.replicas: expected numeric (int or float), got string")),
        (
            json!({"strategy": {"type": true}}),
            typed(".spec.strategy.type: expected string, got &value.valueUnstructured{Value:true}"),
        ),
        (json!({"strategy": 1}), typed(".spec.strategy: expected map, got &{1}")),
        (
            json!({"containers": [{"name": "a"}, {"name": "a"}]}),
            typed(".spec.containers: duplicate entries for key [name=\"a\"]"),
        ),
        (
            json!({"containers": [{"image": "a"}]}),
            typed(
                ".spec.containers: element 0: associative list with keys has an element that omits all key fields [\"name\"] (and doesn't have default values for any key fields)",
            ),
        ),
        (
            json!({"replicas": "x", "paused": 1}),
            typed(
                "errors:\n  .spec.paused: expected boolean, got &{1}\n  .spec.replicas: expected numeric (int or float), got string",
            ),
        ),
    ] {
        let error = World::new().apply("one", spec).unwrap_err();
        assert_eq!(error.to_string(), message);
        assert_eq!(error.into_status().code, 500);
    }
    let mut config = json!({"apiVersion": "test/v1", "kind": "Thing", "metadata": {"managedFields": []}});
    let error = World::new().apply_config("one", config.clone(), false).unwrap_err();
    assert_eq!(error, ApplyError::BadRequest("metadata.managedFields must be nil".into()));
    config.set_at(&["apiVersion"], "test/v2");
    let error = World::new().apply_config("one", config, false).unwrap_err();
    assert_eq!(error, ApplyError::BadRequest("invalid object type: test/v2, Kind=Thing".into()));
}

#[test]
fn timestamps_alone_are_no_change() {
    let mut world = World::new();
    world.update("one", spec(json!({"replicas": 1})));
    let live = world.live.clone().unwrap();
    let mut new = live.clone();
    new.set_at(&["metadata", "managedFields"], {
        let mut entries = live["metadata"]["managedFields"].clone();
        entries.as_array_mut().unwrap()[0].set_at(&["time"], "2026-01-01T00:00:00Z");
        entries
    });
    let mut changed = new.clone();
    changed.set_at(&["spec", "replicas"], 2);
    let before = changed.clone();
    keep_timestamps_of_unchanged(&live, &mut changed);
    assert_eq!(changed, before);
    keep_timestamps_of_unchanged(&live, &mut new);
    assert_eq!(new, live);
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    fn specs() -> impl Strategy<Value = Value> {
        let containers =
            prop::collection::btree_map("[a-d]", prop::option::of("[x-z]"), 0..4).prop_map(|items| {
                let items = items.into_iter().map(|(name, image)| {
                    let mut item = json!({"name": name});
                    if let Some(image) = image {
                        item.set_at(&["image"], image);
                    }
                    item
                });
                items.collect::<Value>()
            });
        (containers, prop::option::of(0_i64..3), prop::option::of("[ab]")).prop_map(
            |(containers, replicas, kind)| {
                let mut spec = json!({});
                spec.set_at(&["containers"], containers);
                if let Some(replicas) = replicas {
                    spec.set_at(&["replicas"], replicas);
                }
                if let Some(kind) = kind {
                    spec.set_at(&["strategy", "type"], kind);
                }
                spec
            },
        )
    }

    proptest! {
        #[test]
        fn differences_are_symmetric(a in specs(), b in specs()) {
            let fixture = thing();
            let (mut a, mut b) = (spec(a), spec(b));
            for value in [&mut a, &mut b] {
                crate::decode::normalize(value, fixture.schema()).unwrap();
            }
            let there = compare(&a, &b, Some(fixture.schema())).unwrap();
            let back = compare(&b, &a, Some(fixture.schema())).unwrap();
            prop_assert_eq!(&there.added, &back.removed);
            prop_assert_eq!(&there.modified, &back.modified);
            prop_assert_eq!(compare(&a, &a, Some(fixture.schema())), Ok(Changes::default()));
        }

        #[test]
        fn a_forced_apply_holds_and_a_second_changes_nothing(first in specs(), other in specs(), config in specs()) {
            let mut world = World::new();
            world.update("one", spec(first));
            world.force("two", other);
            world.force("three", config.clone());
            let live = world.live.clone();
            world.apply("three", config.clone()).unwrap();
            prop_assert_eq!(&world.live, &live);
            let merged = world.spec();
            for item in config.array_at(&["containers"]) {
                let stays = |other: &Value| item.as_object().unwrap().iter().all(|(name, value)| other.get(name) == Some(value));
                prop_assert!(merged.array_at(&["containers"]).iter().any(stays), "{} in {}", item, merged);
            }
        }

        #[test]
        fn giving_everything_up_undoes_an_apply(first in specs(), config in specs()) {
            // Removal of the last item leaves no list, so an empty one does not come back.
            prop_assume!(!first.array_at(&["containers"]).is_empty());
            let mut world = World::new();
            world.update("one", spec(first));
            let before = world.live.clone();
            if world.apply("two", config).is_ok() {
                let nothing = json!({"apiVersion": "test/v1", "kind": "Thing", "metadata": {"name": "t"}});
                world.apply_config("two", nothing, false).unwrap();
                let live = world.live.unwrap();
                let before = before.unwrap();
                // An item order that an apply changed stays changed.
                prop_assert_eq!(live["spec"]["replicas"].clone(), before["spec"]["replicas"].clone());
                prop_assert_eq!(live["spec"]["strategy"].clone(), before["spec"]["strategy"].clone());
                prop_assert_eq!(live.array_at(&["spec", "containers"]).len(), before.array_at(&["spec", "containers"]).len());
                prop_assert_eq!(&live["metadata"]["managedFields"], &before["metadata"]["managedFields"]);
            }
        }
    }
}
