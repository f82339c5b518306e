//! Who may do what: tokens, roles, escalation, strangers.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::server::Server;
use crate::wire::Client;

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
const CONFIG_MAPS: &str = "/api/v1/namespaces/t/configmaps";

async fn role(admin: &Client, name: &str, rules: Value) {
    admin
        .post(&format!("{RBAC}/namespaces/t/roles"), &json!({"metadata": {"name": name}, "rules": rules}))
        .await
        .expect(201);
}

async fn bind(admin: &Client, name: &str, role: &str, subject: Value) {
    let binding = json!({
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": role},
        "subjects": [subject],
    });
    admin.post(&format!("{RBAC}/namespaces/t/rolebindings"), &binding).await.expect(201);
}

fn user(name: &str) -> Value {
    json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": name})
}

async fn request_token(admin: &Client, spec: Value) -> String {
    let path = "/api/v1/namespaces/t/serviceaccounts/default/token";
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec});
    let answer = admin.post(path, &request).await.expect(201);
    answer["status"]["token"].as_str().expect("a token").to_owned()
}

async fn who(client: &Client) -> (u16, Value) {
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let reply = client.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", &review).await;
    (reply.status, reply.json()["status"]["userInfo"].clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_bound_to_a_pod_lives_as_long_as_the_pod() {
    let (server, admin) = Server::with_namespace().await;
    let pods = "/api/v1/namespaces/t/pods";
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let pod = admin.post(pods, &pod).await.expect(201);
    let bound = json!({"kind": "Pod", "apiVersion": "v1", "name": "p", "uid": pod["metadata"]["uid"]});
    let token = request_token(&admin, json!({"boundObjectRef": bound})).await;
    let client = server.token(&token);
    let (status, own) = who(&client).await;
    assert_eq!((status, &own["username"]), (201, &json!("system:serviceaccount:t:default")));
    let groups = json!(["system:serviceaccounts", "system:serviceaccounts:t", "system:authenticated"]);
    assert_eq!(own["groups"], groups);
    assert_eq!(own["extra"]["authentication.kubernetes.io/pod-name"], json!(["p"]));
    assert_eq!(own["extra"]["authentication.kubernetes.io/pod-uid"], json!([pod["metadata"]["uid"]]));

    let denied = client.get(CONFIG_MAPS).await.expect(403);
    let message = "configmaps is forbidden: User \"system:serviceaccount:t:default\" cannot list resource \"configmaps\" \
                   in API group \"\" in the namespace \"t\"";
    assert_eq!(denied["message"], message);
    role(
        &admin,
        "reader",
        json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list"]}]),
    )
    .await;
    bind(&admin, "reader", "reader", json!({"kind": "ServiceAccount", "name": "default", "namespace": "t"}))
        .await;
    assert_eq!(client.get(CONFIG_MAPS).await.status, 200, "a binding takes effect at once");
    assert_eq!(client.get("/api/v1/configmaps").await.status, 403, "in its namespace alone");
    assert_eq!(client.delete(&format!("{CONFIG_MAPS}/kube-root-ca.crt")).await.status, 403);

    admin.delete(&format!("{pods}/p?gracePeriodSeconds=0")).await.expect(200);
    assert_eq!(client.get(CONFIG_MAPS).await.status, 401, "the pod is gone");
    let mut other = bound.clone();
    other["name"] = "absent".into();
    let request = json!({"spec": {"boundObjectRef": other}});
    assert_eq!(admin.post("/api/v1/namespaces/t/serviceaccounts/default/token", &request).await.status, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_that_were_tampered_with_are_nobodys() {
    let (server, admin) = Server::with_namespace().await;
    let token = request_token(&admin, json!({})).await;
    assert_eq!(who(&server.token(&token)).await.0, 201);
    let parts: Vec<&str> = token.split('.').collect();
    let claims = URL_SAFE_NO_PAD.decode(parts[1]).unwrap();
    let mut claims: Value = serde_json::from_slice(&claims).unwrap();
    claims["sub"] = "system:serviceaccount:kube-system:default".into();
    let forged = URL_SAFE_NO_PAD.encode(claims.to_string());
    let unsigned_header = URL_SAFE_NO_PAD.encode(json!({"alg": "none", "typ": "JWT"}).to_string());
    let mut flipped = parts[2].to_owned();
    let first = if flipped.starts_with('A') { "B" } else { "A" };
    flipped.replace_range(0..1, first);
    let bad = [
        format!("{}.{forged}.{}", parts[0], parts[2]),
        format!("{unsigned_header}.{}.", parts[1]),
        format!("{}.{}.{flipped}", parts[0], parts[1]),
        format!("{}.{}", parts[0], parts[1]),
        "nonsense".to_owned(),
        "..".to_owned(),
    ];
    for token in bad {
        let reply = server.token(&token).get("/version").await;
        assert_eq!(reply.status, 401, "{token}");
        assert_eq!(reply.json()["reason"], "Unauthorized");
    }
    // Rights end with the account.
    let client = server.token(&token);
    admin.delete("/api/v1/namespaces/t/serviceaccounts/default").await.expect(200);
    assert_eq!(client.get("/version").await.status, 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_are_asked_for_within_bounds() {
    let (server, admin) = Server::with_namespace().await;
    let path = "/api/v1/namespaces/t/serviceaccounts/default/token";
    let short = admin.post(path, &json!({"spec": {"expirationSeconds": 5}})).await.expect(422);
    assert_eq!(short["details"]["causes"][0]["field"], "spec.expirationSeconds");
    let elsewhere = request_token(&admin, json!({"audiences": ["https://elsewhere.example"]})).await;
    assert_eq!(
        server.token(&elsewhere).get("/version").await.status,
        401,
        "a token for others is none for us"
    );
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
        "spec": {"token": elsewhere, "audiences": ["https://elsewhere.example"]}});
    let review = admin.post("/apis/authentication.k8s.io/v1/tokenreviews", &review).await.expect(201);
    assert_eq!(review["status"]["authenticated"], true, "{review}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_hands_out_rights_they_lack() {
    let (server, admin) = Server::with_namespace().await;
    let editor = json!([
        {"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles", "rolebindings"], "verbs": ["create", "update", "patch", "get"]},
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]},
    ]);
    role(&admin, "editor", editor).await;
    bind(&admin, "ed", "editor", user("ed")).await;
    let ed = server.user("ed", &[]);
    let roles = format!("{RBAC}/namespaces/t/roles");
    let own = json!({"metadata": {"name": "own"}, "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}]});
    ed.post(&roles, &own).await.expect(201);
    let more = json!({"metadata": {"name": "more"}, "rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]});
    let refused = ed.post(&roles, &more).await.expect(403);
    let message = refused["message"].as_str().unwrap();
    assert!(message.contains("is attempting to grant RBAC permissions not currently held"), "{message}");
    let mut grown = ed.get(&format!("{roles}/own")).await.expect(200);
    grown["rules"][0]["verbs"] = json!(["get", "delete"]);
    assert_eq!(ed.put(&format!("{roles}/own"), &grown).await.status, 403);
    assert_eq!(
        ed.patch(&format!("{roles}/own"), crate::wire::MERGE, &json!({"rules": grown["rules"]})).await.status,
        403
    );
    role(&admin, "secrets", json!([{"apiGroups": [""], "resources": ["secrets"], "verbs": ["*"]}])).await;
    let binding = json!({"metadata": {"name": "b"}, "subjects": [user("ed")],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "secrets"}});
    let bindings = format!("{RBAC}/namespaces/t/rolebindings");
    assert_eq!(ed.post(&bindings, &binding).await.status, 403);
    assert_eq!(ed.get("/api/v1/namespaces/t/secrets").await.status, 403);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_who_may_impersonate_can() {
    let (server, admin) = Server::with_namespace().await;
    let jane = server
        .user("jane", &[])
        .with_header("impersonate-user", "kubernetes-admin")
        .with_header("impersonate-group", "system:masters");
    let refused = jane.get(CONFIG_MAPS).await.expect(403);
    assert!(refused["message"].as_str().unwrap().contains("cannot impersonate"), "{refused}");
    let as_jane = admin.fork().with_header("impersonate-user", "jane");
    assert_eq!(as_jane.get(CONFIG_MAPS).await.status, 403);
    assert_eq!(who(&as_jane).await.1["username"], "jane");
    let only_group = admin.fork().with_header("impersonate-group", "system:masters");
    assert_eq!(only_group.get(CONFIG_MAPS).await.status, 400, "a group without a user");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_see_health_and_version_alone() {
    let (server, _admin) = Server::with_namespace().await;
    let stranger = server.anonymous();
    for (path, status) in [
        ("/version", 200),
        ("/healthz", 200),
        ("/livez", 200),
        ("/readyz", 200),
        ("/api", 403),
        ("/apis", 403),
        ("/openapi/v2", 403),
        ("/metrics", 403),
        ("/", 403),
        ("/nope", 403),
        (CONFIG_MAPS, 403),
        ("/api/v1/nopes", 403),
        ("/apis/nope.example/v1/things", 403),
    ] {
        assert_eq!(stranger.get(path).await.status, status, "{path}");
    }
    let refused = stranger.get("/apis/nope.example/v1/things").await.json();
    assert!(
        refused["message"].as_str().unwrap().contains("User \"system:anonymous\" cannot list"),
        "{refused}"
    );
    assert_eq!(stranger.post(CONFIG_MAPS, &json!({"metadata": {"name": "x"}})).await.status, 403);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_reads_what_its_pods_need_while_they_are_there() {
    let (server, admin) = Server::with_namespace().await;
    let secrets = "/api/v1/namespaces/t/secrets";
    for name in ["mounted", "other"] {
        admin.post(secrets, &json!({"metadata": {"name": name}})).await.expect(201);
    }
    let pod = json!({"metadata": {"name": "p"}, "spec": {
        "nodeName": "n1", "containers": [{"name": "c", "image": "i"}],
        "volumes": [{"name": "v", "secret": {"secretName": "mounted"}}],
    }});
    let pods = "/api/v1/namespaces/t/pods";
    admin.post(pods, &pod).await.expect(201);
    let node = |name: &str| server.user(&format!("system:node:{name}"), &["system:nodes"]);
    let (own, other) = (node("n1"), node("n2"));
    for (client, path, status) in [
        (&own, format!("{secrets}/mounted"), 200),
        (&own, format!("{secrets}/other"), 403),
        (&own, secrets.to_owned(), 403),
        (&own, format!("{pods}/p"), 200),
        (&own, "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1".to_owned(), 200),
        (&own, "/api/v1/pods?fieldSelector=spec.nodeName%3Dn2".to_owned(), 403),
        (&own, "/api/v1/pods".to_owned(), 403),
        (&other, format!("{secrets}/mounted"), 403),
        (&other, format!("{pods}/p"), 403),
    ] {
        assert_eq!(client.get(&path).await.status, status, "{path}");
    }
    // In this process it is no different.
    let local = server.component("system:node:n1", &["system:nodes"]);
    for (gvr, namespace, field_selector, allowed) in [
        (&api::gvr::SECRETS, "t", "metadata.name=mounted", true),
        (&api::gvr::SECRETS, "t", "metadata.name=other", false),
        (&api::gvr::SECRETS, "t", "", false),
        (&api::gvr::PODS, "", "spec.nodeName=n1", true),
        (&api::gvr::PODS, "", "spec.nodeName=n2", false),
    ] {
        let selected = client::ListOptions { field_selector: field_selector.into(), ..Default::default() };
        let watched = client::WatchOptions { field_selector: field_selector.into(), ..Default::default() };
        let code = |refused: bool| if refused { 403 } else { 200 };
        let listed = local.list(gvr, namespace, &selected).await.map_or_else(|status| status.code, |_| 200);
        let watch = local.watch(gvr, namespace, &watched).await.map_or_else(|status| status.code, |_| 200);
        assert_eq!((listed, watch), (code(!allowed), code(!allowed)), "{field_selector}");
    }
    let refused = other.get(&format!("{secrets}/mounted")).await.expect(403);
    let message = "secrets \"mounted\" is forbidden: User \"system:node:n2\" cannot get resource \"secrets\" in API group \
                   \"\" in the namespace \"t\": no relationship found between node 'n2' and this object";
    assert_eq!(refused["message"], message);
    // The group makes the node, not the name alone.
    let impostor = server.user("system:node:n1", &["ops"]);
    assert_eq!(impostor.get(&format!("{secrets}/mounted")).await.status, 403);
    admin.delete(&format!("{pods}/p?gracePeriodSeconds=0")).await.expect(200);
    assert_eq!(own.get(&format!("{secrets}/mounted")).await.status, 403, "the pod is gone");
}
