//! The ways to say who one is, beside certificates and bound tokens.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use apiserver::authentication::{Authentication, Jwt, TokenWebhookOptions};
use apiserver::authorization::Authorization;
use auth::authorization::Link;
use auth::jwt::JwtAuthenticators;
use auth::jwt::configuration::AuthenticationConfiguration;
use auth::remote::access::{AccessWebhook, AccessWebhookOptions, MatchCondition};
use auth::token::{Reference, legacy};
use auth::{Anonymous, RequestHeader, StaticTokens};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};
use webhook::{ClientConfig, NoServices, ServiceResolver, Target};

use crate::hook::Hook;
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

/// An OpenID Connect issuer with one key.
struct Issuer {
    hook: Hook,
    url: String,
    key: EcdsaKeyPair,
}

impl Issuer {
    async fn start() -> Self {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        let key = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).unwrap();
        let point = key.public_key().as_ref()[1..].to_vec();
        let url = Arc::new(OnceLock::<String>::new());
        let own = url.clone();
        let hook = Hook::raw(move |asked| {
            let url = own.get()?;
            let answer = match asked["path"].as_str()? {
                "/.well-known/openid-configuration" => {
                    json!({"issuer": url, "jwks_uri": format!("{url}/keys")})
                }
                "/keys" => json!({"keys": [
                    {"kty": "oct", "kid": "k", "k": "c2VjcmV0"},
                    {"kty": "EC", "kid": "k", "crv": "P-256", "use": "sig",
                     "x": URL_SAFE_NO_PAD.encode(&point[..32]), "y": URL_SAFE_NO_PAD.encode(&point[32..])},
                ]}),
                _ => return None,
            };
            Some(answer.to_string().into())
        })
        .await;
        let issuer = format!("https://127.0.0.1:{}", hook.port());
        url.set(issuer.clone()).unwrap();
        Self { hook, url: issuer, key }
    }

    fn token(&self, algorithm: &str, change: &Value) -> String {
        let mut claims = json!({
            "iss": self.url, "aud": "me", "sub": "jane", "exp": 4_000_000_000_u64, "team": "blue",
        });
        for (claim, value) in change.as_object().unwrap() {
            claims[claim] = value.clone();
        }
        let encode = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
        let message = format!("{}.{}", encode(&json!({"alg": algorithm, "kid": "k"})), encode(&claims));
        let signature = self.key.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_openid_issuer_is_believed_as_far_as_the_configuration_goes() {
    let issuer = Issuer::start().await;
    let indented = issuer.hook.ca_pem().replace('\n', "\n      ");
    let text = format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\njwt:\n- issuer:\n    url: {}\n    \
         audiences: [me]\n    certificateAuthority: |\n      {indented}\n  claimMappings:\n    username: {{expression: \
         '\"oidc:\" + claims.sub'}}\n    groups: {{expression: '[claims.team]'}}\n  userValidationRules:\n  - \
         {{expression: \"!('system:masters' in user.groups)\", message: no masters}}\n",
        issuer.url
    );
    let configuration = AuthenticationConfiguration::parse(&text).unwrap();
    let authenticators = Arc::new(JwtAuthenticators::new(&configuration, Vec::new()).unwrap());
    let jwt = Some(Jwt { authenticators, file: None });
    let server = server_with(Authentication { jwt, ..Default::default() }).await;
    let (status, user) = who(&server.token(&issuer.token("ES256", &json!({})))).await;
    let expected = json!({"username": "oidc:jane", "groups": ["blue", "system:authenticated"]});
    assert_eq!((status, user), (201, expected));
    for (algorithm, change) in [
        ("ES256", json!({"aud": "others"})),
        ("ES256", json!({"exp": 1_000_000_000})),
        ("ES256", json!({"nbf": 3_999_999_999_u64})),
        ("ES256", json!({"iss": "https://other.example"})),
        ("ES256", json!({"team": "system:masters"})),
        ("HS256", json!({})),
        ("RS256", json!({})),
        ("none", json!({})),
    ] {
        let token = issuer.token(algorithm, &change);
        assert_eq!(who(&server.token(&token)).await.0, 401, "{algorithm} {change}");
    }
    let token = issuer.token("ES256", &json!({}));
    let message = &token[..token.rfind('.').unwrap()];
    let forged = format!("{message}.{}", URL_SAFE_NO_PAD.encode([7; 64]));
    assert_eq!(who(&server.token(&forged)).await.0, 401);
    assert_eq!(issuer.hook.bodies().len(), 2, "the issuer is asked for its keys once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn webhooks_say_whose_a_token_is_and_what_may_be_done() {
    let hook = Hook::raw(|review| {
        let status = match review["kind"].as_str()? {
            "TokenReview" if review["spec"]["token"] == "theirs" => {
                json!({"authenticated": true, "user": {"username": "ann", "groups": ["guests"]}})
            }
            "TokenReview" => json!({"authenticated": false, "error": "unknown token"}),
            _ => match review["spec"]["resourceAttributes"]["resource"].as_str()? {
                "configmaps" => json!({"allowed": true}),
                "secrets" => json!({"allowed": false, "denied": true, "reason": "not for guests"}),
                _ => json!({"allowed": false}),
            },
        };
        let answer = json!({"apiVersion": review["apiVersion"], "kind": review["kind"], "status": status});
        Some(answer.to_string().into())
    })
    .await;
    let client = ClientConfig {
        ca_bundle: Some(hook.ca_pem().as_bytes().to_vec()),
        http2: false,
        ..ClientConfig::new(Target::Url(hook.url()))
    };
    let resolver: Arc<dyn ServiceResolver> = Arc::new(NoServices);
    let options = AccessWebhookOptions {
        version: "v1".into(),
        authorized_ttl: Duration::from_secs(300),
        unauthorized_ttl: Duration::from_secs(30),
        timeout: Duration::from_secs(10),
        deny_on_error: false,
    };
    let condition = "has(request.resourceAttributes) && request.user == 'ann'";
    let conditions = vec![MatchCondition::compile(condition).unwrap()];
    let asked = webhook::Client::new(&client, &resolver).unwrap();
    let asked = AccessWebhook::new("w", asked, options, conditions);
    let chain = vec![Link::Webhook(Arc::new(asked)), Link::Node, Link::Rbac];
    let webhook = Some(TokenWebhookOptions { client, version: "v1".into(), ttl: Duration::from_secs(60) });
    let server = Server::start_with(|_| apiserver::Options {
        authentication: Authentication { webhook, ..Default::default() },
        authorization: Authorization { chain },
        ..Default::default()
    })
    .await;
    server.add_namespace("t", json!({})).await;
    let ann = server.token("theirs");
    let (status, user) = who(&ann).await;
    let expected = json!({"username": "ann", "groups": ["guests", "system:authenticated"]});
    assert_eq!((status, user), (201, expected));
    assert_eq!(who(&server.token("nobodys")).await.0, 401);
    let base = "/api/v1/namespaces/t";
    assert_eq!(ann.get(&format!("{base}/configmaps")).await.status, 200);
    let refused = ann.get(&format!("{base}/secrets")).await.expect(403);
    let message = refused["message"].as_str().unwrap();
    assert!(message.ends_with("in the namespace \"t\": not for guests"), "{message}");
    let before = hook.bodies().len();
    assert_eq!(ann.get(&format!("{base}/configmaps")).await.status, 200);
    assert_eq!(server.user("tom", &[]).get(&format!("{base}/configmaps")).await.status, 403);
    assert_eq!(hook.bodies().len(), before, "answers are kept, and tom is nothing to the webhook");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_waits_for_the_default_account_of_its_new_namespace_and_for_no_other() {
    let server = Server::start().await;
    let admin = server.admin();
    admin.post("/api/v1/namespaces", &json!({"metadata": {"name": "new"}})).await.expect(201);
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let client = admin.fork();
    let create = async { client.post("/api/v1/namespaces/new/pods", &pod).await };
    // The pod is asked for first; its account comes while it waits.
    let (created, ()) = tokio::join!(biased; create, server.fill_namespace("new"));
    let created = created.expect(201);
    assert_eq!(created["spec"]["serviceAccountName"], "default");
    let mut other = pod.clone();
    other["metadata"]["name"] = "q".into();
    other["spec"]["serviceAccountName"] = "ghost".into();
    let refused = admin.post("/api/v1/namespaces/new/pods", &other).await.expect(403);
    let message = refused["message"].as_str().unwrap_or_default();
    assert!(message.ends_with("serviceaccount \"ghost\" not found"), "{message}");
}
