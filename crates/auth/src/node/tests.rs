use apimachinery::FieldSelector;
use serde_json::json;

use super::*;

#[test]
fn references_are_found_wherever_a_pod_can_have_them() {
    let pod = json!({
        "metadata": {"name": "p", "annotations": {"a": "b"}},
        "spec": {
            "serviceAccountName": "sa",
            "imagePullSecrets": [{"name": "s-pull"}, {}],
            "initContainers": [{"envFrom": [{"secretRef": {"name": "s-from"}}, {"configMapRef": {"name": "c-from"}}]}],
            "containers": [{"env": [
                {"name": "A", "value": "x"},
                {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s-key", "key": "k"}}},
                {"name": "C", "valueFrom": {"configMapKeyRef": {"name": "c-key", "key": "k"}}},
                {"name": "D", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            ]}],
            "ephemeralContainers": [{"envFrom": [{"secretRef": {"name": "s-debug"}}], "env": null}],
            "volumes": [
                {"name": "1", "secret": {"secretName": "s-volume"}},
                {"name": "2", "configMap": {"name": "c-volume"}},
                {"name": "3", "projected": {"sources": [
                    {"secret": {"name": "s-projected"}},
                    {"configMap": {"name": "c-projected"}},
                    {"serviceAccountToken": {"path": "token"}},
                ]}},
                {"name": "4", "persistentVolumeClaim": {"claimName": "v-claim"}},
                {"name": "5", "ephemeral": {"volumeClaimTemplate": {}}},
                {"name": "6", "csi": {"driver": "d", "nodePublishSecretRef": {"name": "s-csi"}}},
                {"name": "7", "azureFile": {"secretName": "s-azure"}},
                {"name": "8", "iscsi": {"secretRef": {"name": "s-iscsi"}}},
                {"name": "9", "emptyDir": {}},
                {"name": "10", "secret": {"secretName": "s-volume"}},
            ],
            "resourceClaims": [
                {"name": "direct", "resourceClaimName": "r-direct"},
                {"name": "made", "resourceClaimTemplateName": "t"},
                {"name": "pending", "resourceClaimTemplateName": "t"},
            ],
        },
        "status": {
            "resourceClaimStatuses": [{"name": "made", "resourceClaimName": "r-made"}, {"name": "none"}],
            "extendedResourceClaimStatus": {"resourceClaimName": "r-extended"},
        },
    });
    let references = PodReferences::from_json(pod.to_string().as_bytes()).unwrap();
    assert_eq!(references.service_account.as_deref(), Some("sa"));
    assert_eq!(
        references.secrets.join(" "),
        "s-azure s-csi s-debug s-from s-iscsi s-key s-projected s-pull s-volume"
    );
    assert_eq!(references.config_maps.join(" "), "c-from c-key c-projected c-volume");
    assert_eq!(references.claims.join(" "), "p-5 v-claim");
    assert_eq!(references.resource_claims.join(" "), "r-direct r-extended r-made");

    let mut mirror = pod;
    mirror["metadata"]["annotations"]["kubernetes.io/config.mirror"] = "1".into();
    let references = PodReferences::from_json(mirror.to_string().as_bytes()).unwrap();
    assert_eq!(references, PodReferences::default());
}

#[test]
fn a_volumes_secrets_are_those_that_the_kubelet_reads() {
    let volume = |source: serde_json::Value| {
        let mut volume = json!({"spec": {"claimRef": {"namespace": "ns", "name": "claim"}}});
        volume["spec"].as_object_mut().unwrap().extend(source.as_object().unwrap().clone());
        let references = VolumeReferences::from_json(volume.to_string().as_bytes()).unwrap();
        let secrets = references.secrets.iter().map(|(namespace, name)| format!("{namespace}/{name}"));
        secrets.collect::<Vec<_>>().join(" ")
    };
    let csi = json!({"csi": {
        "controllerPublishSecretRef": {"namespace": "x", "name": "controller"},
        "nodePublishSecretRef": {"namespace": "x", "name": "publish"},
        "nodeStageSecretRef": {"namespace": "y", "name": "stage"},
    }});
    assert_eq!(volume(csi), "x/publish y/stage");
    assert_eq!(volume(json!({"azureFile": {"secretName": "a"}})), "ns/a");
    assert_eq!(volume(json!({"azureFile": {"secretName": "a", "secretNamespace": "z"}})), "z/a");
    assert_eq!(volume(json!({"cephfs": {"secretRef": {"name": "c"}}})), "ns/c");
    assert_eq!(volume(json!({"hostPath": {"path": "/"}})), "");
    let unbound =
        VolumeReferences::from_json(br#"{"spec": {"cephfs": {"secretRef": {"name": "c"}}}}"#).unwrap();
    assert_eq!(unbound, VolumeReferences::default());
}

/// A node `n1` with one pod `a` that uses secret `used`, and a slice.
fn authorizer() -> NodeAuthorizer {
    let authorizer = NodeAuthorizer::new();
    let references = || PodReferences {
        service_account: Some("sa".into()),
        secrets: vec!["used".into()],
        claims: vec!["claim".into()],
        ..PodReferences::default()
    };
    let pod = |name: &'static str, node: &'static str| PodKey {
        namespace: "ns",
        name,
        uid: "1",
        generation: 1,
        node,
    };
    authorizer.graph().upsert_pod(pod("a", "n1"), references);
    authorizer.graph().upsert_pod(pod("b", "n2"), PodReferences::default);
    authorizer.graph().upsert_slice("slice", "n1");
    authorizer
}

#[test]
fn a_node_may_what_its_pods_need() {
    let authorizer = authorizer();
    let node = UserInfo::node("n1").authenticated();
    let own = FieldSelector::one("spec.nodeName", "n1");
    let others = FieldSelector::one("spec.nodeName", "n2");
    let slices = &own;
    let at = |verb, resource| Attributes::resource(&node, verb, resource);
    let in_ns = |verb, resource, name| Attributes { namespace: "ns", name, ..at(verb, resource) };
    let of = |api_group, attributes| Attributes { api_group, ..attributes };
    let sub = |subresource, attributes| Attributes { subresource, ..attributes };
    let unrelated = "no relationship found between node 'n1' and this object";
    let cases = [
        (in_ns("get", "secrets", "used"), "allow"),
        (in_ns("watch", "secrets", "used"), "allow"),
        (in_ns("get", "secrets", "other"), unrelated),
        (in_ns("list", "secrets", ""), "No Object name found"),
        (at("list", "secrets"), "can only read namespaced object of this type"),
        (in_ns("update", "secrets", "used"), "can only read resources of this type"),
        (in_ns("get", "configmaps", "used"), unrelated),
        (in_ns("get", "persistentvolumeclaims", "claim"), "allow"),
        (in_ns("list", "persistentvolumeclaims", ""), "can only get individual resources of this type"),
        (sub("status", in_ns("patch", "persistentvolumeclaims", "claim")), "allow"),
        (
            sub("status", in_ns("get", "persistentvolumeclaims", "claim")),
            "can only get/update/patch this type",
        ),
        (sub("token", in_ns("create", "serviceaccounts", "sa")), "allow"),
        (sub("token", in_ns("create", "serviceaccounts", "other")), unrelated),
        (in_ns("get", "serviceaccounts", "sa"), "allow"),
        (in_ns("create", "serviceaccounts", ""), "can only create tokens for individual service accounts"),
        (
            of(
                "coordination.k8s.io",
                Attributes { namespace: "kube-node-lease", name: "n1", ..at("update", "leases") },
            ),
            "allow",
        ),
        (
            of(
                "coordination.k8s.io",
                Attributes { namespace: "kube-node-lease", name: "n2", ..at("update", "leases") },
            ),
            "can only access node lease with the same name as the requesting node",
        ),
        (
            of("coordination.k8s.io", in_ns("get", "leases", "n1")),
            "can only access leases in the \"kube-node-lease\" system namespace",
        ),
        (of("storage.k8s.io", Attributes { name: "n1", ..at("get", "csinodes") }), "allow"),
        (
            of("storage.k8s.io", Attributes { name: "n2", ..at("get", "csinodes") }),
            "can only access CSINode with the same name as the requesting node",
        ),
        (of("resource.k8s.io", Attributes { name: "slice", ..at("delete", "resourceslices") }), "allow"),
        (of("resource.k8s.io", Attributes { name: "other", ..at("delete", "resourceslices") }), unrelated),
        (
            of("resource.k8s.io", at("list", "resourceslices")),
            "can only list/watch/deletecollection resourceslices with nodeName field selector",
        ),
        (
            of(
                "resource.k8s.io",
                Attributes { field_selector: slices.requirements(), ..at("list", "resourceslices") },
            ),
            "allow",
        ),
        (Attributes { name: "n1", ..at("get", "nodes") }, "allow"),
        (
            Attributes { name: "n2", ..at("get", "nodes") },
            "node 'n1' cannot read 'n2', only its own Node object",
        ),
        (at("list", "nodes"), "node 'n1' cannot read all nodes, only its own Node object"),
        (at("create", "nodes"), "allow"),
        (Attributes { name: "n1", ..at("delete", "nodes") }, ""),
        (sub("status", Attributes { name: "n1", ..at("patch", "nodes") }), "allow"),
        (in_ns("get", "pods", "a"), "allow"),
        (in_ns("get", "pods", "b"), unrelated),
        (at("list", "pods"), "can only list/watch pods with spec.nodeName field selector"),
        (Attributes { field_selector: own.requirements(), ..at("watch", "pods") }, "allow"),
        (
            Attributes { field_selector: others.requirements(), ..at("watch", "pods") },
            "can only list/watch pods with spec.nodeName field selector",
        ),
        (sub("status", in_ns("patch", "pods", "a")), "allow"),
        (sub("eviction", in_ns("create", "pods", "a")), "allow"),
        (sub("exec", in_ns("create", "pods", "a")), ""),
        // Of the rest, the role system:node decides.
        (in_ns("create", "events", ""), "allow"),
        (at("list", "services"), "allow"),
        (in_ns("create", "services", ""), ""),
        (of("authentication.k8s.io", at("create", "tokenreviews")), "allow"),
        (Attributes::non_resource(&node, "get", "/metrics"), ""),
    ];
    for (attributes, expected) in cases {
        let outcome = match authorizer.authorize(&attributes) {
            Decision::Allow { .. } => "allow".to_owned(),
            other => other.reason().to_string(),
        };
        assert_eq!(outcome, expected, "{attributes:?}");
    }
}

#[test]
fn only_nodes_are_nodes() {
    let authorizer = authorizer();
    let decide = |user: &UserInfo| {
        let decision = authorizer
            .authorize(&Attributes { namespace: "ns", ..Attributes::resource(user, "create", "events") });
        (decision.is_allowed(), decision.reason().to_string())
    };
    assert_eq!(decide(&UserInfo::node("n1")), (true, String::new()));
    assert_eq!(decide(&UserInfo::new("system:node:n1")), (false, String::new()));
    assert_eq!(decide(&UserInfo::new("jane").with_groups([user::NODES])), (false, String::new()));
    assert_eq!(decide(&UserInfo::node("")), (false, r#"unknown node for user "system:node:""#.into()));
    assert!(authorizer.rules_for(&UserInfo::node("n1"), "ns").incomplete);
    assert!(!authorizer.rules_for(&UserInfo::new("jane"), "ns").incomplete);
}
