use apimachinery::GroupVersionKind;
use apimachinery::schema::{ListType, NodeKind, Scalar};

use super::*;

#[test]
fn tables_make_every_type_and_every_resource() {
    let (schemas, _) = schema::build();
    assert_eq!(schemas.definitions().count(), 771 + 371, "published ones and those that nobody serves");
    assert_eq!(resources().len(), 68);
    assert_eq!(all_resources().len(), 95);
}

#[test]
fn a_field_knows_its_type_keys_patch_and_default() {
    let pod = schema(&GroupVersionKind::new("", "v1", "Pod")).unwrap();
    let spec = pod.root().child("spec").unwrap();
    let containers = spec.field("containers").unwrap();
    assert!(containers.required && containers.always_present && !containers.pointer);
    assert_eq!(containers.patch.merge_key.as_deref(), Some("name"));
    let container = spec.child("containers").unwrap().items().unwrap();
    assert_eq!(container.node().definition.as_deref(), Some("io.k8s.api.core.v1.Container"));
    let NodeKind::List { merge, items } = container.child("ports").unwrap().kind() else {
        panic!("ports is a list")
    };
    assert_eq!(*merge, ListType::Map(vec!["containerPort".into(), "protocol".into()]));
    let protocol = pod.schemas.at(*items).field("protocol").unwrap();
    assert_eq!(protocol.default, Some("TCP".into()));
    assert!(container.field("resources").unwrap().always_present, "a struct is written even when empty");
    assert!(spec.field("activeDeadlineSeconds").unwrap().pointer);
    assert!(spec.field("volumes").unwrap().patch.retain_keys);
    let limits = container.child("resources").unwrap().child("limits").unwrap().child("cpu").unwrap();
    assert!(matches!(limits.kind(), NodeKind::Scalar(Scalar::Quantity)));
}

#[test]
fn a_field_may_treat_an_atomic_type_as_granular() {
    let atomic_at = |kind: &str, path: [&str; 2]| {
        let schema = schema(&GroupVersionKind::new("", "v1", kind)).unwrap();
        match schema.root().child(path[0]).unwrap().child(path[1]).unwrap().kind() {
            NodeKind::Struct(object) => object.atomic,
            NodeKind::Map { atomic, .. } => *atomic,
            other => panic!("{path:?} is {other:?}"),
        }
    };
    assert!(!atomic_at("PersistentVolume", ["spec", "claimRef"]));
    assert!(atomic_at("PersistentVolumeClaim", ["spec", "selector"]));
    assert!(atomic_at("Pod", ["spec", "nodeSelector"]));
    assert!(!atomic_at("Pod", ["metadata", "labels"]));
}

#[test]
fn storage_version_is_one_that_is_served() {
    let of = |kind: &str, group: &str| {
        let all = resources();
        let resource = all.iter().find(|resource| resource.kind == kind && resource.group == group).unwrap();
        (resource.storage_version.to_string(), resource.storage_prefix.to_string())
    };
    assert_eq!(of("HorizontalPodAutoscaler", "autoscaling").0, "v2");
    assert_eq!(of("MutatingAdmissionPolicy", "admissionregistration.k8s.io").0, "v1");
    assert_eq!(of("Event", "events.k8s.io"), ("v1".into(), "/registry/events/".into()));
    assert_eq!(of("TokenReview", "authentication.k8s.io"), (String::new(), String::new()));
    assert_eq!(of("Node", "").1, "/registry/minions/");
}

#[test]
fn subresources_name_the_kind_they_take() {
    let pods = resources().into_iter().find(|resource| resource.plural == "pods").unwrap();
    assert_eq!(pods.subresource("eviction").unwrap().kind, GroupVersionKind::new("policy", "v1", "Eviction"));
    assert_eq!(pods.subresource("status").unwrap().kind, pods.gvk());
    assert_eq!(pods.subresource("binding").unwrap().verbs, ["create"]);
    assert_eq!(pods.short_names, ["po"]);
}

#[test]
fn both_event_kinds_select_the_same_values() {
    let all = resources();
    let lists: Vec<_> =
        all.iter().filter(|own| own.kind == "Event").map(|own| &own.selectable_fields).collect();
    assert_eq!(lists[0].len(), lists[1].len() + 1, "only core/v1 has `source`, at the end");
    assert_eq!((lists[0].get(2), lists[1].get(2)), (Some("involvedObject.kind"), Some("regarding.kind")));
}
