use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use api::gvr::CERTIFICATE_SIGNING_REQUESTS;
use api::view::Node;
use apimachinery::{Object, Value, json};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pki::SigningRequest;

use super::rules::Signer;
use super::{Condition, Spec, Status, approving, cleaner, serving_approving, signing};
use crate::Options;
use crate::testing::World;

/// CN=jane, O=dev, O=ops; jane.example, 10.0.0.1.
const JANE: &str = include_str!("../../../pki/testdata/jane.csr");

fn shape(user: &str, groups: &[&str], dns: &[&str]) -> SigningRequest {
    let mut request = SigningRequest::from_pem(JANE.as_bytes()).unwrap();
    request.user = user.to_owned();
    request.groups = groups.iter().map(|group| (*group).to_owned()).collect();
    request.dns_names = dns.iter().map(|name| (*name).to_owned()).collect();
    request.ips.clear();
    request
}

#[test]
fn requests_fit_their_signer_as_upstream() {
    use Signer::{Client, KubeletClient, KubeletServing, LegacyUnknown};
    let node = shape("system:node:n", &["system:nodes"], &[]);
    let named = shape("system:node:n", &["system:nodes"], &["n.example"]);
    let jane = shape("jane", &["dev"], &[]);
    let (client, serving) =
        ("digital signature,key encipherment,client auth", "digital signature,server auth");
    let cases = [
        (Client, &jane, client, "Ok"),
        (Client, &jane, "client auth,server auth", "invalid usage for client certificate: server auth"),
        (Client, &jane, "digital signature", "missing required usage for client certificate: client auth"),
        (KubeletClient, &node, client, "Ok"),
        (KubeletClient, &node, "client auth,digital signature", "Ok"),
        (
            KubeletClient,
            &node,
            "client auth",
            "usages did not match [client auth digital signature key encipherment]",
        ),
        (KubeletClient, &named, client, "DNS subjectAltNames are not allowed"),
        (KubeletClient, &jane, client, "subject organization is not system:nodes"),
        (
            KubeletClient,
            &shape("n", &["system:nodes"], &[]),
            client,
            "subject common name does not begin with system:node:",
        ),
        (
            KubeletClient,
            &shape("system:node:n", &["system:nodes", "system:masters"], &[]),
            client,
            "subject organization is not system:nodes",
        ),
        (KubeletServing, &named, serving, "Ok"),
        (KubeletServing, &node, serving, "DNS or IP subjectAltName is required"),
        (
            KubeletServing,
            &named,
            client,
            "usages did not match [digital signature key encipherment server auth]",
        ),
        (LegacyUnknown, &jane, "any", "Ok"),
    ];
    for (signer, request, usages, expected) in cases {
        let usages: Vec<String> = usages.split(',').map(str::to_owned).collect();
        let outcome = match signer.check(request, &usages) {
            Ok(()) => "Ok".to_owned(),
            Err(unfit) => unfit.to_string(),
        };
        assert_eq!(outcome, expected, "{signer:?} {usages:?} {}", request.user);
    }
}

#[test]
fn certificates_last_as_long_as_was_asked_within_bounds() {
    let year = 365 * 24 * 60 * 60;
    for (asked, given) in
        [(None, year), (Some(3600), 3600), (Some(10), 600), (Some(-1), 600), (Some(year + 1), year)]
    {
        assert_eq!(signing::validity(asked, signing::SIGNING_DURATION).as_secs() as i64, given, "{asked:?}");
    }
    let minute = Duration::from_secs(60);
    for asked in [None, Some(30), Some(7200)] {
        assert_eq!(signing::validity(asked, minute), minute, "what the cluster gives at most counts");
    }
}

#[test]
fn requests_go_when_nobody_needs_them() {
    let hour = |count: i64| Some(jiff::Timestamp::from_second(count * 3600).unwrap());
    let condition = |kind: &str| Condition {
        kind: kind.into(),
        status: "True".into(),
        last_update_time: "1970-01-01T10:00:00Z".into(),
    };
    let with = |kinds: &[&str], certificate: &[u8]| Status {
        conditions: kinds.iter().map(|kind| condition(kind)).collect(),
        certificate: certificate.to_vec(),
    };
    let cases = [
        (with(&[], b""), hour(25)),
        (with(&["Approved"], b""), hour(34)),
        (with(&["Approved"], b"x"), hour(11)),
        (with(&["Denied"], b""), hour(11)),
        (with(&["Approved", "Failed"], b""), hour(11)),
        (with(&["Odd"], b""), None),
    ];
    for (status, expected) in cases {
        let kinds: Vec<_> = status.conditions.iter().map(|condition| condition.kind.as_str()).collect();
        assert_eq!(cleaner::due(&status, hour(1)), expected, "{kinds:?}");
    }
    let mut late = with(&["Denied"], b"");
    late.conditions[0].last_update_time = "9999-12-30T22:00:00Z".into();
    assert_eq!(cleaner::due(&late, hour(1)), None, "an hour later is beyond the end of time");
}

fn request(name: &str, signer: &str, conditions: Value) -> Value {
    let mut request = json!({
        "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
        "metadata": {"name": name},
        "spec": {
            "request": STANDARD.encode(JANE), "signerName": signer, "usages": ["client auth"],
            "username": "jane", "groups": ["dev"], "expirationSeconds": 3600,
        },
    });
    request.set_at(&["status", "conditions"], conditions);
    request
}

#[tokio::test]
async fn what_is_approved_is_signed_and_what_is_unfit_fails() {
    let folder = tempfile::tempdir().unwrap();
    let path = camino::Utf8Path::from_path(folder.path()).unwrap();
    let now: SystemTime = rt::now().into();
    let authority = Arc::new(pki::Authority::load_or_create(path, now).unwrap());
    let options = Options { signer: Some(authority.clone()), ..Options::default() };
    let approved = json!([{"type": "Approved", "status": "True"}]);
    let denied = json!([{"type": "Approved", "status": "True"}, {"type": "Denied", "status": "True"}]);
    let (client, kubelet) =
        ("kubernetes.io/kube-apiserver-client", "kubernetes.io/kube-apiserver-client-kubelet");
    let seeds = vec![
        request("a-pending", client, json!([])),
        request("b-denied", client, denied),
        request("c-foreign", "example.com/signer", approved.clone()),
        request("d-unfit", kubelet, approved.clone()),
        request("e-good", client, approved),
    ];
    let world = World::start_with(vec![signing::descriptor()], seeds, options);
    let certificate = |world: &World, name: &str| {
        let tree = world.tree(&CERTIFICATE_SIGNING_REQUESTS, "", name);
        tree["status"].str_at(&["certificate"]).to_owned()
    };
    world
        .wait_for("a certificate", |fake| {
            let good = fake.peek(&CERTIFICATE_SIGNING_REQUESTS, "", "e-good").unwrap().to_value();
            !good["status"].str_at(&["certificate"]).is_empty()
        })
        .await;
    let pem = STANDARD.decode(certificate(&world, "e-good")).unwrap();
    let lasts = pki::not_after(&pem).unwrap().duration_since(now).unwrap();
    assert!(lasts > Duration::from_secs(3500) && lasts < Duration::from_secs(3700), "{lasts:?}");
    world
        .wait_for("a failure", |fake| {
            let unfit = fake.peek(&CERTIFICATE_SIGNING_REQUESTS, "", "d-unfit").unwrap().to_value();
            let conditions = unfit.array_at(&["status", "conditions"]);
            conditions.iter().any(|condition| {
                condition.str_at(&["reason"]) == "SignerValidationFailure"
                    && condition.str_at(&["message"]) == "subject organization is not system:nodes"
            })
        })
        .await;
    for name in ["a-pending", "b-denied", "c-foreign", "d-unfit"] {
        assert_eq!(certificate(&world, name), "", "{name}");
    }
}

#[test]
fn only_kubelets_client_certificates_are_approved_without_a_person() {
    let node = shape("system:node:n", &["system:nodes"], &[]);
    let kubelet = "kubernetes.io/kube-apiserver-client-kubelet";
    let cases = [
        (kubelet, "system:node:n", &node, "selfnodeclient nodeclient"),
        (kubelet, "system:bootstrap:abcdef", &node, "nodeclient"),
        ("kubernetes.io/kube-apiserver-client", "system:node:n", &node, ""),
        ("kubernetes.io/kubelet-serving", "system:node:n", &node, ""),
        (kubelet, "jane", &shape("jane", &["dev"], &[]), ""),
        (kubelet, "system:node:n", &shape("system:node:n", &["system:nodes"], &["n.example"]), ""),
    ];
    for (signer, sender, request, expected) in cases {
        let spec = Spec {
            signer_name: signer.into(),
            username: sender.into(),
            usages: vec!["client auth".into(), "digital signature".into()],
            ..Spec::default()
        };
        let found: Vec<_> = approving::recognized(&spec, request).map(|sort| sort.subresource).collect();
        assert_eq!(found.join(" "), expected, "{signer} {sender}");
    }
}

#[test]
fn a_node_gets_a_serving_certificate_for_itself_alone() {
    let spec = |sender: &str, signer: &str| Spec {
        signer_name: signer.into(),
        username: sender.into(),
        groups: vec!["system:nodes".into()],
        usages: vec!["server auth".into(), "digital signature".into()],
        ..Spec::default()
    };
    let (serving, nodes) = ("kubernetes.io/kubelet-serving", &["system:nodes"]);
    let own = shape("system:node:n", nodes, &["n"]);
    let cases = [
        (spec("system:node:n", serving), &own, Some("n")),
        (spec("system:node:m", serving), &own, None),
        (spec("jane", serving), &shape("jane", nodes, &["n"]), None),
        (spec("system:node:n", "kubernetes.io/kube-apiserver-client-kubelet"), &own, None),
        (spec("system:node:n", serving), &shape("system:node:n", nodes, &[]), None),
        (Spec { groups: vec![], ..spec("system:node:n", serving) }, &own, None),
    ];
    for (spec, request, expected) in cases {
        assert_eq!(
            serving_approving::node_of(&spec, request),
            expected,
            "{} {}",
            spec.username,
            spec.signer_name
        );
    }
}

#[test]
fn a_serving_certificate_names_what_the_node_object_names() {
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}, "status": {"addresses": [
        {"type": "InternalIP", "address": "192.0.2.7"}, {"type": "InternalIP", "address": "192.0.2.9"},
        {"type": "Hostname", "address": "n.example"},
    ]}});
    let node = Object::from_value(&node, 1, &[]).expect("a node").view::<Node>().expect("it can be read");
    let taken = HashSet::from(["192.0.2.9".parse().expect("an address")]);
    let with = |names: &[&str], ips: &[&str]| {
        let mut request = shape("system:node:n", &["system:nodes"], names);
        request.ips = ips.iter().map(|ip| ip.parse().expect("an address")).collect();
        request
    };
    let cases = [
        (with(&["n"], &["192.0.2.7"]), Ok(())),
        // It says so itself, and could say anything.
        (with(&["n", "n.example"], &[]), Err("the node is not called n.example".to_owned())),
        (with(&["n"], &["192.0.2.9"]), Err("the address 192.0.2.9 is somebody else's, too".to_owned())),
        (with(&["m"], &["192.0.2.7"]), Err("the node is not called m".to_owned())),
        (with(&["n"], &["192.0.2.8"]), Err("the node has no address 192.0.2.8".to_owned())),
        (
            with(&["kubernetes.default.svc"], &[]),
            Err("the node is not called kubernetes.default.svc".to_owned()),
        ),
    ];
    for (request, expected) in cases {
        assert_eq!(serving_approving::check(&request, &node, &taken), expected);
    }
}
