//! A driver behind a real socket, from its registration to its end.

use apimachinery::json;
use client::fake::FakeApi;
use grpc::{Router, Server, Status};
use messages::{PreparedClaim, UnpreparedClaim};

use super::*;
use crate::agent::config::fixture;

type Calls = Arc<Mutex<Vec<String>>>;

fn router(calls: &Calls, service: Service) -> Router {
    let (prepared, unprepared) = (calls.clone(), calls.clone());
    let names = |request: &Claims| {
        let names = request.claims.iter().map(|own| format!("{}/{}", own.namespace, own.name));
        names.collect::<Vec<_>>().join(" ")
    };
    Router::new()
        .unary(service.prepare, move |request: Claims| {
            prepared.lock().push(format!("prepare {}", names(&request)));
            let answer = |own: &Claim| {
                let mut answer = PreparedClaim::default();
                if own.name == "broken" {
                    answer.error = "no power".to_owned();
                } else {
                    let cdi = format!("d.example.com/gpu={}", own.name);
                    answer.devices.push(messages::Device {
                        request_names: vec!["r".to_owned()],
                        pool_name: "p".to_owned(),
                        device_name: "gpu".to_owned(),
                        cdi_device_ids: vec![cdi],
                    });
                }
                (own.uid.clone(), answer)
            };
            let claims = request.claims.iter().filter(|own| own.name != "skipped").map(answer).collect();
            async move { Ok::<_, Status>(Prepared { claims }) }
        })
        .unary(service.unprepare, move |request: Claims| {
            unprepared.lock().push(format!("unprepare {}", names(&request)));
            let claims = request.claims.iter().map(|own| (own.uid.clone(), UnpreparedClaim::default()));
            let claims = claims.collect();
            async move { Ok::<_, Status>(Unprepared { claims }) }
        })
}

fn claim(name: &str, pods: &[&str], allocated: bool) -> apimachinery::Value {
    let reserved: Vec<_> =
        pods.iter().map(|uid| json!({"resource": "pods", "name": *uid, "uid": *uid})).collect();
    let mut claim = json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
        "metadata": {"name": name, "namespace": "ns", "uid": format!("uid-of-{name}")}, "status": {}});
    claim.set_at(&["status", "reservedFor"], reserved);
    if allocated {
        let results = json!([{"request": "r", "driver": "d.example.com", "pool": "p", "device": "gpu"}]);
        claim.set_at(&["status", "allocation"], json!({"devices": {"results": results}}));
    }
    claim
}

fn pod(uid: &str, claim: &str) -> (Pod, Container) {
    let container =
        serde_json::json!({"name": "c", "resources": {"claims": [{"name": "gpu", "request": "r"}]}});
    let mut pod = fixture::pod(serde_json::json!({"containers": [container],
        "resourceClaims": [{"name": "gpu", "resourceClaimName": claim}, {"name": "none", "resourceClaimTemplateName": "t"}]}));
    pod.metadata.uid = Some(uid.to_owned());
    let container = pod.spec.as_ref().expect("it has one").containers[0].clone();
    (pod, container)
}

struct World {
    fake: Arc<FakeApi>,
    resources: Arc<DynamicResources>,
    root: Utf8PathBuf,
    calls: Calls,
    plugin: Plugin,
    _end: tokio_util::sync::DropGuard,
    _folder: tempfile::TempDir,
}

fn world(service: Service) -> World {
    let folder = tempfile::tempdir().expect("a folder");
    let root = Utf8PathBuf::from_path_buf(folder.path().to_owned()).expect("it is text");
    let (fake, calls, shutdown) = (FakeApi::new(), Calls::default(), Shutdown::new());
    let socket = root.join("dra.sock");
    rt::spawn(
        "driver",
        Server::unix(&socket).expect("a socket").serve(router(&calls, service), shutdown.clone()),
    );
    let resources = DynamicResources::open(fake.clone(), "n1", &root);
    let plugin = Plugin {
        name: "d.example.com".into(),
        endpoint: socket.clone(),
        socket,
        versions: vec![service.name.to_owned()],
    };
    World { fake, resources, root, calls, plugin, _end: shutdown.drop_guard(), _folder: folder }
}

#[tokio::test]
async fn claims_are_prepared_once_and_given_back_by_the_last_pod() {
    for service in SERVICES {
        let World { fake, resources, root, calls, plugin, .. } = &world(service);
        fake.seed(claim("shared", &["one", "two"], true));
        let ((one, container), (two, _)) = (pod("one", "shared"), pod("two", "shared"));
        let missing = resources.prepare(&one).await;
        let missing = missing.expect_err("nobody registered");
        assert_eq!(missing, "prepare dynamic resources: DRA driver d.example.com is not registered");
        resources.unprepare("one").await.expect("nothing was written down");
        resources.register(plugin).await.expect("registered");
        resources.register(plugin).await.expect("registered again");
        resources.prepare(&one).await.expect("prepared");
        resources.prepare(&two).await.expect("prepared");
        assert_eq!(resources.names(&one, &container), Ok(vec!["d.example.com/gpu=shared".to_owned()]));
        resources.unprepare("one").await.expect("the other one has it");

        // As after a restart.
        let again = DynamicResources::open(fake.clone(), "n1", root);
        assert_eq!(again.names(&two, &container), Ok(vec!["d.example.com/gpu=shared".to_owned()]));
        again.unprepare("two").await.expect_err("the driver has not come back");
        again.register(plugin).await.expect("registered");
        again.unprepare("two").await.expect("given back");
        again.unprepare("two").await.expect("given back already");
        again.names(&two, &container).expect_err("it is not prepared");
        assert_eq!(*calls.lock(), ["prepare ns/shared", "unprepare ns/shared"]);
    }
}

#[tokio::test]
async fn a_pod_waits_with_upstreams_words() {
    let World { fake, resources, plugin, .. } = &world(SERVICES[0]);
    resources.register(plugin).await.expect("registered");
    let mut own = claim("own", &["one"], true);
    own.set_at(&["metadata", "ownerReferences"], json!([{"uid": "other", "controller": true}]));
    for seeded in [
        claim("broken", &["one"], true),
        claim("skipped", &["one"], true),
        claim("elses", &["two"], true),
        claim("raw", &["one"], false),
        own,
    ] {
        fake.seed(seeded);
    }
    for (name, wanted) in [
        ("broken", "NodePrepareResources failed for ResourceClaim broken: no power"),
        ("skipped", "NodePrepareResources skipped 1 ResourceClaims"),
        ("elses", "pod web (one) is not allowed to use ResourceClaim elses (uid-of-elses)"),
        ("raw", "ResourceClaim raw: not allocated"),
        ("absent", "fetch ResourceClaim absent: resourceclaims.resource.k8s.io \"absent\" not found"),
    ] {
        let refused = resources.prepare(&pod("one", name).0).await;
        assert_eq!(refused, Err(format!("prepare dynamic resources: {wanted}")));
    }
    let (mut made, _) = pod("one", "own");
    let entry =
        &mut made.spec.as_mut().expect("it has one").resource_claims.as_mut().expect("it has some")[0];
    (entry.resource_claim_name, entry.resource_claim_template_name) = (None, Some("t".into()));
    resources.prepare(&made).await.expect("nothing was made of the template");
    let status = serde_json::json!({"resourceClaimStatuses": [{"name": "gpu", "resourceClaimName": "own"}]});
    made.status = Some(serde_json::from_value(status).expect("a status"));
    let refused = resources.prepare(&made).await.expect_err("it is somebody else's");
    assert!(
        refused.ends_with("ResourceClaim ns/own was not created for pod ns/web (pod is not owner)"),
        "{refused}"
    );
}

#[tokio::test(start_paused = true)]
async fn slices_of_a_driver_that_stays_away_go() {
    let World { fake, resources, plugin, .. } = &world(SERVICES[0]);
    let slice = |driver: &str| {
        json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice", "metadata": {"name": driver},
            "spec": {"driver": driver, "nodeName": "n1"}})
    };
    let other = Plugin { socket: "/other.sock".into(), endpoint: "/other.sock".into(), ..plugin.clone() };
    let hijacked = Plugin { socket: "/third.sock".into(), ..plugin.clone() };
    resources.register(plugin).await.expect("registered");
    resources.register(&other).await.expect("registered beside it");
    resources.register(&hijacked).await.expect_err("its endpoint is another one's");
    fake.seed(slice("d.example.com"));
    resources.deregister(plugin).await;
    let is_there = || fake.peek(&RESOURCE_SLICES, "", "d.example.com").is_some();
    assert!(is_there(), "the other one serves");
    resources.deregister(&other).await;
    assert!(!is_there());
}
