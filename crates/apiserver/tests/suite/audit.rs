//! What the audit log says about requests over HTTPS.

use serde_json::{Value, json};

use crate::server::Server;
use crate::wire::MERGE;

const POLICY: &str = "
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: None, nonResourceURLs: ['/version']}
- {level: RequestResponse, resources: [{group: '', resources: [configmaps]}], namespaces: [t], omitManagedFields: true}
- {level: Metadata, users: [jane]}
- {level: Request, omitStages: [ResponseComplete], userGroups: ['system:unauthenticated'], verbs: [watch]}
";

/// The events so far of one path, by the path with its query.
fn events(path: &camino::Utf8Path, uri: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(path).expect("the log");
    let all = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("a line is JSON"));
    all.filter(|event| event["requestURI"] == uri).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_recorded_as_the_policy_says() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = camino::Utf8Path::from_path(folder.path()).expect("UTF-8").join("audit.log");
    let file = audit::FileOptions {
        path: log.clone(),
        days_max: 0,
        backups_max: 0,
        megabytes_max: 100,
        batch: false,
        event_bytes_max: None,
    };
    let server = Server::start_with(|_| apiserver::Options {
        audit: audit::Options {
            policy: Some(audit::Policy::parse(POLICY).expect("a policy")),
            file: Some(file),
            hook: None,
        },
        ..apiserver::Options::default()
    })
    .await;
    let admin = server.admin();
    server.add_namespace("t", json!({})).await;

    let maps = "/api/v1/namespaces/t/configmaps";
    let named = admin.fork().with_header("audit-id", "mine");
    let created = named.post(maps, &json!({"metadata": {"name": "a"}, "data": {"k": "v"}})).await;
    assert_eq!((created.status, &*created.header("audit-id")), (201, "mine"));
    let [.., event] = &events(&log, maps)[..] else { panic!("no event") };
    assert_eq!(event["kind"], "Event");
    assert_eq!(event["apiVersion"], "audit.k8s.io/v1");
    assert_eq!((&event["level"], &event["stage"]), (&json!("RequestResponse"), &json!("ResponseComplete")));
    assert_eq!((&event["auditID"], &event["verb"]), (&json!("mine"), &json!("create")));
    assert_eq!(event["user"]["username"], "kubernetes-admin");
    assert_eq!(event["sourceIPs"], json!(["127.0.0.1"]));
    assert_eq!(
        event["objectRef"],
        json!({"resource": "configmaps", "namespace": "t", "name": "a", "apiVersion": "v1"})
    );
    assert_eq!(event["responseStatus"], json!({"metadata": {}, "code": 201}));
    assert_eq!(event["requestObject"]["data"], json!({"k": "v"}));
    assert_eq!(event["responseObject"]["metadata"]["name"], "a");
    assert!(event["responseObject"]["metadata"].get("managedFields").is_none(), "{event}");
    assert_eq!(event["annotations"]["authorization.k8s.io/decision"], "allow");

    for accept in ["application/vnd.kubernetes.protobuf", "application/yaml"] {
        let path = format!("{maps}/a?from={accept}");
        admin.fork().with_header("accept", accept).get(&path).await;
        let [event] = &events(&log, &path)[..] else { panic!("no event") };
        assert_eq!(event["responseObject"]["data"], json!({"k": "v"}), "{accept}");
    }
    let list = format!("{maps}?limit=7");
    let large = json!({"metadata": {"name": "large"}, "data": {"k": "x".repeat(200_000)}});
    admin.post(maps, &large).await.expect(201);
    let zipped = admin.fork().with_header("accept-encoding", "gzip").get(&list).await;
    assert_eq!(zipped.header("content-encoding"), "gzip");
    let [event] = &events(&log, &list)[..] else { panic!("no event") };
    assert_eq!(event["responseObject"]["items"][2]["metadata"]["name"], "large");

    let one = format!("{maps}/a");
    admin.patch(&one, MERGE, &json!({"data": {"k": "w"}})).await.expect(200);
    assert_eq!(events(&log, &one)[0]["requestObject"], json!({"data": {"k": "w"}}));

    let refused = server.user("jane", &[]).get("/api/v1/secrets").await;
    assert_eq!(refused.status, 403);
    assert_eq!(refused.header("audit-id").len(), 36);
    let refusals = events(&log, "/api/v1/secrets");
    assert_eq!(refusals.len(), 1, "the stage that is left out is left out");
    assert_eq!(refusals[0]["responseStatus"]["reason"], "Forbidden");
    assert_eq!(refusals[0]["responseStatus"]["message"], refused.json()["message"]);
    assert_eq!(refusals[0]["annotations"]["authorization.k8s.io/decision"], "forbid");
    assert!(refusals[0].get("responseObject").is_none());

    admin.get("/version").await.expect(200);
    admin.get("/api/v1/nodes").await.expect(200);
    assert!(events(&log, "/version").is_empty() && events(&log, "/api/v1/nodes").is_empty());

    let watch = format!("{maps}?watch=true&timeoutSeconds=1");
    let mut lines = admin.stream(&watch).await;
    assert_eq!(events(&log, &watch).len(), 1);
    lines.rest().await;
    let stages: Vec<Value> = events(&log, &watch).iter().map(|event| event["stage"].clone()).collect();
    assert_eq!(stages[0], "ResponseStarted");
}
