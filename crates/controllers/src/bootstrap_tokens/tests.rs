use api::gvr::{CONFIG_MAPS, SECRETS};
use apimachinery::json;

use super::*;
use crate::testing::{World, object};

fn token(id: &str, change: impl FnOnce(&mut Value)) -> Value {
    let encode = |text: &str| STANDARD.encode(text);
    let mut secret = json!({"apiVersion": "v1", "kind": "Secret", "type": SECRET_TYPE,
        "metadata": {"name": format!("{NAME_PREFIX}{id}"), "namespace": NAMESPACE, "uid": id},
        "data": {"token-id": encode(id), "token-secret": encode("0123456789abcdef"),
            "usage-bootstrap-signing": encode("true")}});
    change(&mut secret);
    secret
}

fn set(key: &'static str, text: &'static str) -> impl FnOnce(&mut Value) {
    move |secret| secret.set_at(&["data", key], STANDARD.encode(text))
}

fn map() -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "cluster-info", "namespace": "kube-public"},
        "data": {"kubeconfig": "payload", "jws-kubeconfig-gone00": "a..b"}})
}

#[test]
fn only_tokens_that_are_good_and_may_sign_sign() {
    let now = time::parse("2026-01-02T00:00:00Z").expect("a time");
    let secrets = [
        token("signs0", |_| {}),
        token("ends00", set("expiration", "2026-01-02T00:00:00Z")),
        token("over00", set("expiration", "2026-01-01T23:59:59Z")),
        token("unread", set("expiration", "soon")),
        token("unused", set("usage-bootstrap-signing", "false")),
        token("other0", set("token-id", "another")),
        token("empty0", |secret| drop(secret.remove_at(&["data", "token-secret"]))),
        token("opaque", |secret| secret.set_at(&["type"], "Opaque")),
    ];
    let tokens = signer::tokens(&secrets.map(object), now);
    assert_eq!(tokens.keys().collect::<Vec<_>>(), ["ends00", "signs0"]);
}

#[test]
fn a_signature_is_a_detached_hs256_jws() {
    let mut own = map();
    let tokens = [("signs0".to_owned(), "0123456789abcdef".to_owned())].into();
    assert!(signer::sign(&mut own, &tokens));
    let signature = own.str_at(&["data", "jws-kubeconfig-signs0"]).to_owned();
    let (header, rest) = signature.split_once("..").expect("no payload");
    assert_eq!(header, "eyJhbGciOiJIUzI1NiIsImtpZCI6InNpZ25zMCJ9");
    let signed = format!("{header}.cGF5bG9hZA");
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, b"0123456789abcdef");
    let mac = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(rest).expect("base64");
    assert!(ring::hmac::verify(&key, signed.as_bytes(), &mac).is_ok());
    assert!(own.at(&["data", "jws-kubeconfig-gone00"]).is_none());
    assert!(!signer::sign(&mut own, &tokens), "it is signed");
    assert!(signer::sign(&mut own, &Default::default()), "the token is gone");
    assert!(!signer::sign(&mut json!({"data": {}}), &tokens), "nothing to sign");
}

#[tokio::test]
async fn the_cluster_info_is_signed_as_tokens_come_and_go() {
    let world = World::start(vec![signer::descriptor()], vec![map(), token("signs0", |_| {})]);
    let signatures = |fake: &client::fake::FakeApi| -> Vec<String> {
        let own = fake.peek(&CONFIG_MAPS, "kube-public", "cluster-info").map(|own| own.to_value());
        let data = own.map(|own| own["data"].clone()).unwrap_or_default();
        let keys = data.as_object().into_iter().flat_map(|map| map.keys().map(ToString::to_string));
        keys.filter(|key| key.starts_with("jws-")).collect()
    };
    world.wait_for("signed", |fake| signatures(fake) == ["jws-kubeconfig-signs0"]).await;
    world.fake.drop_object(&SECRETS, NAMESPACE, "bootstrap-token-signs0");
    world.wait_for("not signed", |fake| signatures(fake).is_empty()).await;
}

#[tokio::test]
async fn expired_tokens_are_deleted_in_time() {
    let soon = time::format_seconds(rt::now() + std::time::Duration::from_secs(2));
    let ends =
        |at: String| move |secret: &mut Value| secret.set_at(&["data", "expiration"], STANDARD.encode(at));
    let seeds = vec![
        token("stays0", |_| {}),
        token("later0", ends("2999-01-01T00:00:00Z".into())),
        token("opaque", |secret| {
            secret.set_at(&["type"], "Opaque");
            secret.set_at(&["data", "expiration"], STANDARD.encode("2020-01-01T00:00:00Z"));
        }),
        token("over00", ends("2020-01-01T00:00:00Z".into())),
        token("soon00", ends(soon)),
    ];
    let world = World::start(vec![cleaner::descriptor()], seeds);
    world
        .wait_for("two deleted", |fake| {
            let left = fake.peek_all(&SECRETS);
            let names: Vec<&str> = left.iter().map(|secret| secret.name()).collect();
            names == ["bootstrap-token-later0", "bootstrap-token-opaque", "bootstrap-token-stays0"]
        })
        .await;
}

#[test]
fn a_signature_is_checked_for_its_token_and_its_content() {
    let own = signer::signature("content", "abcdef", "0123456789abcdef");
    assert!(signer::is_signed(&own, "content", "abcdef", "0123456789abcdef"));
    for (signature, content, id, key) in [
        (own.as_str(), "other", "abcdef", "0123456789abcdef"),
        (&own, "content", "ghijkl", "0123456789abcdef"),
        (&own, "content", "abcdef", "0123456789abcdee"),
        // No algorithm, no signature.
        ("eyJhbGciOiJub25lIiwia2lkIjoiYWJjZGVmIn0..", "content", "abcdef", "0123456789abcdef"),
        ("", "content", "abcdef", "0123456789abcdef"),
        ("..", "content", "abcdef", "0123456789abcdef"),
    ] {
        assert!(!signer::is_signed(signature, content, id, key), "{signature} {content} {id}");
    }
}
