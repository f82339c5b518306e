//! Priority and fairness as clients see it.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::server::Server;
use crate::wire::Client;

const GROUP: &str = "/apis/flowcontrol.apiserver.k8s.io/v1";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_names_the_schema_and_level_of_its_request() {
    let server = Server::start().await;
    let admin = server.admin();
    for schema in ["exempt", "global-default", "system-nodes"] {
        until_dangling(&admin, schema, "False").await;
    }
    for (client, schema, level) in [
        (server.admin(), "exempt", "exempt"),
        (server.user("jane", &[]), "global-default", "global-default"),
        (server.user("system:node:n", &["system:nodes"]), "system-nodes", "system"),
    ] {
        let answer = client.get("/api/v1/pods").await;
        let schema = admin.get(&format!("{GROUP}/flowschemas/{schema}")).await.expect(200);
        let level = admin.get(&format!("{GROUP}/prioritylevelconfigurations/{level}")).await.expect(200);
        assert_eq!(answer.header("x-kubernetes-pf-flowschema-uid"), schema["metadata"]["uid"]);
        assert_eq!(answer.header("x-kubernetes-pf-prioritylevel-uid"), level["metadata"]["uid"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_finds_no_seat_in_a_level_without_queues_is_sent_away_and_others_are_served() {
    let (server, admin) = Server::with_namespace().await;
    add_level_of_one(&admin).await;
    let mallory = server.user("mallory", &[]);

    // A body that does not come keeps the only seat. That it is waited for shows that the seat is taken.
    let mut slow = mallory.raw().await;
    let head = "POST /api/v1/namespaces/t/configmaps HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\n\
                content-type: application/json\r\ncontent-length: 29\r\n\r\n";
    slow.write_all(head.as_bytes()).await.unwrap();
    assert!(read_until(&mut slow, "\r\n\r\n").await.starts_with("HTTP/1.1 100"));

    let refused = mallory.get("/api/v1/pods").await;
    assert_eq!((refused.status, &*refused.text()), (429, "Too many requests, please try again later.\n"));
    assert_eq!(refused.header("retry-after"), "1");
    assert_eq!(refused.header("content-type"), "text/plain; charset=utf-8");
    let table = admin.get("/debug/api_priority_and_fairness/dump_priority_levels").await.text();
    let row: Vec<&str> =
        table.lines().find(|line| line.starts_with("one,")).unwrap().split_whitespace().collect();
    assert_eq!(row[4..8], ["0,", "1,", "1,", "1,"], "{table}");
    server.user("jane", &[]).get("/version").await.expect(200);

    slow.write_all(br#"{"metadata":{"name":"belated"}}"#.get(..29).unwrap()).await.unwrap();
    assert!(read_until(&mut slow, "\r\n\r\n").await.starts_with("HTTP/1.1 400"));
    mallory.get("/api/v1/pods").await.expect(200);
}

async fn read_until(stream: &mut (impl AsyncReadExt + Unpin), end: &str) -> String {
    let mut read = String::new();
    while !read.ends_with(end) {
        read.push(char::from(stream.read_u8().await.expect("an answer")));
    }
    read
}

/// The user `mallory`, who may do anything, has a level of one seat that lends, borrows and queues nothing.
pub async fn add_level_of_one(admin: &Client) {
    let role = json!({"metadata": {"name": "mallory"}, "subjects": [{"kind": "User", "name": "mallory"}],
        "roleRef": {"kind": "ClusterRole", "name": "cluster-admin", "apiGroup": "rbac.authorization.k8s.io"}});
    let bindings = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
    admin.post(bindings, &role).await.expect(201);
    let level = json!({"metadata": {"name": "one"}, "spec": {"type": "Limited", "limited": {
        "nominalConcurrencyShares": 0, "lendablePercent": 0, "borrowingLimitPercent": 0,
        "limitResponse": {"type": "Reject"}}}});
    admin.post(&format!("{GROUP}/prioritylevelconfigurations"), &level).await.expect(201);
    let mut schema = json!({"metadata": {"name": "mallory"}, "spec": {"matchingPrecedence": 2,
        "priorityLevelConfiguration": {"name": "one"}}});
    schema["spec"]["rules"] = json!([{"subjects": [{"kind": "User", "user": {"name": "mallory"}}],
        "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": true,
            "namespaces": ["*"]}]}]);
    admin.post(&format!("{GROUP}/flowschemas"), &schema).await.expect(201);
    until_dangling(admin, "mallory", "False").await;
}

/// Waits until the condition says so, and with that until the schema is in use.
pub async fn until_dangling(admin: &Client, schema: &str, wanted: &str) {
    let path = format!("{GROUP}/flowschemas?watch=true&fieldSelector=metadata.name={schema}");
    let mut events = admin.stream(&path).await;
    let is = |event: &Value| event["object"]["status"]["conditions"][0]["status"] == wanted;
    while !is(&events.next().await.expect("the schema's condition")) {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_says_that_its_level_is_missing_and_what_must_be_there_comes_back() {
    let server = Server::start().await;
    let admin = server.admin();
    let schema = json!({"metadata": {"name": "lost"}, "spec": {"matchingPrecedence": 50,
        "priorityLevelConfiguration": {"name": "nowhere"}, "rules": []}});
    admin.post(&format!("{GROUP}/flowschemas"), &schema).await.expect(201);
    until_dangling(&admin, "lost", "True").await;
    let lost = admin.get(&format!("{GROUP}/flowschemas/lost")).await.expect(200);
    assert_eq!(
        lost["status"]["conditions"][0]["message"],
        "This FlowSchema references the PriorityLevelConfiguration object named \"nowhere\" but there is no such object"
    );
    admin.delete(&format!("{GROUP}/flowschemas/catch-all")).await.expect(200);
    until_dangling(&admin, "catch-all", "False").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_may_say_how_long_it_may_take() {
    let server = Server::start().await;
    let admin = server.admin();
    admin.get("/api/v1/pods?timeout=10s").await.expect(200);
    let refused = admin.get("/api/v1/pods?timeout=soon").await.expect(400);
    assert_eq!(
        refused["message"],
        "invalid timeout specified in the request URL - time: invalid duration \"soon\""
    );
}
