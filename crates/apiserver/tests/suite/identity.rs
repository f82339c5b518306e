//! The ways to say who one is, beside certificates and bound tokens.

use apiserver::authentication::Authentication;
use auth::token::{Reference, legacy};
use auth::{Anonymous, RequestHeader, StaticTokens};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::server::Server;
use crate::wire::Client;

async fn server_with(authentication: Authentication) -> Server {
    Server::start_with(|_| apiserver::Options { authentication, ..Default::default() }).await
}

async fn who(client: &Client) -> (u16, Value) {
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let reply = client.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", &review).await;
    (reply.status, reply.json()["status"]["userInfo"].clone())
}

fn list(values: &[&str]) -> Vec<String> {
    values.iter().map(|&value| value.to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bootstrap_token_is_good_while_its_secret_says_so() {
    let (server, admin) = Server::with_namespace().await;
    let secrets = "/api/v1/namespaces/kube-system/secrets";
    let secret = json!({
        "metadata": {"name": "bootstrap-token-abcdef"}, "type": "bootstrap.kubernetes.io/token",
        "stringData": {
            "token-id": "abcdef", "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": "true",
            "auth-extra-groups": "system:bootstrappers:kubeadm:default-node-token",
        },
    });
    admin.post(secrets, &secret).await.expect(201);
    let joining = server.token("abcdef.0123456789abcdef");
    let (status, user) = who(&joining).await;
    assert_eq!((status, &user["username"]), (201, &json!("system:bootstrap:abcdef")));
    let groups = json!([
        "system:bootstrappers",
        "system:bootstrappers:kubeadm:default-node-token",
        "system:authenticated"
    ]);
    assert_eq!(user["groups"], groups);
    assert_eq!(who(&server.token("abcdef.0123456789abcdeg")).await.0, 401);
    let elsewhere = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
        "spec": {"token": "abcdef.0123456789abcdef", "audiences": ["https://elsewhere.example"]}});
    let review = admin.post("/apis/authentication.k8s.io/v1/tokenreviews", &elsewhere).await.expect(201);
    assert_ne!(review["status"]["authenticated"], true, "a bootstrap token is for this server alone");
    admin.delete(&format!("{secrets}/bootstrap-token-abcdef")).await.expect(200);
    assert_eq!(who(&joining).await.0, 401, "the secret is gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_in_a_secret_is_good_and_its_use_is_noted() {
    let (server, admin) = Server::with_namespace().await;
    let account = admin.get("/api/v1/namespaces/t/serviceaccounts/default").await.expect(200);
    let account = Reference::new("default", account["metadata"]["uid"].as_str().unwrap());
    let token = legacy::issue(server.token_keys(), "t", &account, "kept").unwrap();
    let secret = json!({
        "metadata": {"name": "kept", "annotations": {"kubernetes.io/service-account.name": "default"}},
        "type": "kubernetes.io/service-account-token", "data": {"token": STANDARD.encode(&token)},
    });
    let path = "/api/v1/namespaces/t/secrets";
    let mut watch = admin.stream(&format!("{path}?watch=true")).await;
    admin.post(path, &secret).await.expect(201);
    let (status, user) = who(&server.token(&token)).await;
    assert_eq!((status, &user["username"]), (201, &json!("system:serviceaccount:t:default")));
    let labelled = loop {
        let event = watch.next().await.expect("the secret is labelled");
        let label = event["object"]["metadata"]["labels"][legacy::LAST_USED_LABEL].clone();
        if label.is_string() {
            break label;
        }
    };
    assert_eq!(labelled.as_str().unwrap().len(), "2026-01-01".len());
    let invalid = json!({"metadata": {"labels": {legacy::INVALID_SINCE_LABEL: "2026-01-01"}}});
    admin.patch(&format!("{path}/kept"), crate::wire::MERGE, &invalid).await.expect(200);
    assert_eq!(who(&server.token(&token)).await.0, 401, "marked as invalid");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_names_users_and_nobody_else_does() {
    let folder = tempfile::tempdir().unwrap();
    let path = camino::Utf8Path::from_path(folder.path()).unwrap();
    let proxies = pki::Authority::load_or_create(path, std::time::SystemTime::now()).unwrap();
    let request_header = RequestHeader {
        proxies: pki::ClientVerifier::from_pem(proxies.ca_pem().as_bytes()).unwrap(),
        allowed_names: list(&["front-proxy"]),
        user_headers: list(&["X-Remote-User"]),
        uid_headers: list(&["X-Remote-Uid"]),
        group_headers: list(&["X-Remote-Group"]),
        extra_header_prefixes: list(&["X-Remote-Extra-"]),
    };
    let server =
        server_with(Authentication { request_header: Some(request_header), ..Default::default() }).await;
    let named = |client: Client| {
        client
            .with_header("x-remote-user", "jane")
            .with_header("x-remote-group", "dev")
            .with_header("x-remote-extra-acme.io%2fteam", "blue")
    };
    let (status, user) = who(&named(server.user_of(&proxies, "front-proxy"))).await;
    let expected = json!({
        "username": "jane", "groups": ["dev", "system:authenticated"], "extra": {"acme.io/team": ["blue"]},
    });
    assert_eq!((status, user), (201, expected));
    assert_eq!(who(&named(server.user_of(&proxies, "other"))).await.0, 401, "a name that is not allowed");
    assert_eq!(who(&server.user_of(&proxies, "front-proxy")).await.0, 401, "a proxy that names nobody");
    assert_eq!(
        who(&named(server.user("tom", &[]))).await.1["username"],
        "tom",
        "headers of a user count nothing"
    );
    assert_eq!(named(server.anonymous()).get("/version").await.status, 200);
    assert_eq!(who(&named(server.anonymous())).await.0, 403, "nor do those of a stranger");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn static_tokens_and_no_strangers() {
    let static_tokens = StaticTokens::parse("sesame,ali,7,\"thieves,system:masters\"").unwrap();
    let anonymous = Anonymous::Paths(list(&["/livez"]));
    let server = server_with(Authentication {
        static_tokens: Some(static_tokens),
        anonymous,
        bootstrap_tokens: false,
        ..Default::default()
    })
    .await;
    let ali = server.token("sesame");
    let (status, user) = who(&ali).await;
    assert_eq!((status, &user["username"], &user["uid"]), (201, &json!("ali"), &json!("7")));
    assert_eq!(ali.get("/api/v1/nodes").await.status, 200);
    for (path, status) in [("/livez", 200), ("/readyz", 401), ("/api", 401), ("/livez/ping", 401)] {
        assert_eq!(server.anonymous().get(path).await.status, status, "{path}");
    }
}
