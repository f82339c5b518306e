use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::*;

const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// Objects that tests put in and take out.
#[derive(Default)]
pub(crate) struct Objects(
    Mutex<HashMap<(BoundKind, String, String), BoundObject>>,
    /// Whole ones.
    Mutex<HashMap<(BoundKind, String, String), Arc<Object>>>,
    /// Secrets whose use was reported.
    Mutex<Vec<String>>,
);

impl Objects {
    pub(crate) fn put(&self, kind: BoundKind, namespace: &str, name: &str, uid: &str) {
        self.put_deleted(kind, namespace, name, uid, None);
    }

    fn put_deleted(
        &self,
        kind: BoundKind,
        namespace: &str,
        name: &str,
        uid: &str,
        deletion: Option<SystemTime>,
    ) {
        let object = BoundObject { uid: uid.to_owned(), deletion };
        self.0.lock().insert((kind, namespace.to_owned(), name.to_owned()), object);
    }

    pub(crate) fn put_whole(&self, kind: BoundKind, tree: apimachinery::Value) {
        let object = Object::from_value(&tree, 1, &[]).unwrap();
        let key = (kind, object.namespace().to_owned(), object.name().to_owned());
        self.1.lock().insert(key, Arc::new(object));
    }

    fn remove(&self, kind: BoundKind, namespace: &str, name: &str) {
        self.0.lock().remove(&(kind, namespace.to_owned(), name.to_owned()));
    }
}

impl BoundObjects for Objects {
    fn find(&self, kind: BoundKind, namespace: &str, name: &str) -> Option<BoundObject> {
        self.0.lock().get(&(kind, namespace.to_owned(), name.to_owned())).cloned()
    }

    fn object(&self, kind: BoundKind, namespace: &str, name: &str) -> Option<Arc<Object>> {
        self.1.lock().get(&(kind, namespace.to_owned(), name.to_owned())).cloned()
    }

    fn legacy_token_used(&self, secret: &Arc<Object>) {
        self.2.lock().push(secret.name().to_owned());
    }
}

pub(crate) struct World {
    _directory: tempfile::TempDir,
    pub(crate) authority: pki::Authority,
    pub(crate) objects: Arc<Objects>,
    pub(crate) issuer: TokenIssuer,
}

pub(crate) fn noon() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

impl World {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = camino::Utf8Path::from_path(directory.path()).unwrap();
        let authority = pki::Authority::load_or_create(path, noon()).unwrap();
        let objects = Arc::new(Objects::default());
        objects.put(BoundKind::ServiceAccount, "ns", "sa", "sa-1");
        objects.put(BoundKind::Pod, "ns", "pod", "pod-1");
        objects.put(BoundKind::Secret, "ns", "secret", "secret-1");
        objects.put(BoundKind::Node, "", "node", "node-1");
        let issuer = TokenIssuer::new(ISSUER, vec![ISSUER.into()], authority.signing_keys().clone());
        Self { _directory: directory, authority, objects, issuer }
    }

    pub(crate) fn authenticator(&self) -> TokenAuthenticator {
        let objects = Arc::clone(&self.objects) as Arc<dyn BoundObjects>;
        let keys = self.authority.signing_keys().clone();
        TokenAuthenticator::new(vec![ISSUER.into()], vec![ISSUER.into()], keys, objects)
    }

    pub(crate) fn issue(&self, binding: Binding) -> String {
        self.issuer.issue(&request(binding, 3600), noon()).unwrap().token
    }

    fn sign_claims(&self, change: impl FnOnce(&mut Claims)) -> String {
        let mut claims = claims_of(&self.issue(Binding::None));
        change(&mut claims);
        sign_claims(self.authority.signing_keys(), &claims).unwrap()
    }
}

fn request(binding: Binding, expiration_seconds: u64) -> IssueRequest<'static> {
    IssueRequest {
        namespace: "ns",
        service_account: Reference::new("sa", "sa-1"),
        binding,
        audiences: Vec::new(),
        expiration_seconds,
    }
}

fn on_pod() -> Binding {
    Binding::Pod { pod: Reference::new("pod", "pod-1"), node: Some(Reference::new("node", "node-1")) }
}

fn part<T: serde::de::DeserializeOwned>(token: &str, index: usize) -> T {
    let part = token.split('.').nth(index).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

fn claims_of(token: &str) -> Claims {
    part(token, 1)
}

fn outcome(world: &World, token: &str, now: SystemTime) -> String {
    match world.authenticator().authenticate(token, None, now) {
        Ok(Some(verified)) => verified.user.name().to_owned(),
        Ok(None) => "not ours".to_owned(),
        Err(error) => error.to_string(),
    }
}

const SA: &str = "system:serviceaccount:ns:sa";

#[test]
fn a_token_has_upstreams_claims() {
    let world = World::new();
    let token = world.issue(on_pod());
    let header: Value = part(&token, 0);
    assert_eq!(header, json!({"alg": "ES256", "kid": world.authority.signing_keys().current_key_id()}));
    let mut claims: Value = part(&token, 1);
    let jti = claims["jti"].take();
    assert_eq!(jti.as_str().map(str::len), Some(36));
    assert_eq!(
        claims,
        json!({
            "aud": [ISSUER],
            "exp": 1_800_003_600,
            "iat": 1_800_000_000,
            "iss": ISSUER,
            "jti": null,
            "kubernetes.io": {
                "namespace": "ns",
                "node": {"name": "node", "uid": "node-1"},
                "pod": {"name": "pod", "uid": "pod-1"},
                "serviceaccount": {"name": "sa", "uid": "sa-1"},
            },
            "nbf": 1_800_000_000,
            "sub": SA,
        })
    );
}

#[test]
fn a_token_says_who_its_bearer_is() {
    let world = World::new();
    let issued = world.issuer.issue(&request(on_pod(), 3600), noon()).unwrap();
    let verified = world.authenticator().authenticate(&issued.token, None, noon()).unwrap().unwrap();
    let expected = UserInfo::service_account("ns", "sa", "sa-1")
        .with_extra(user::CREDENTIAL_ID, issued.credential_id)
        .with_extra(user::POD_NAME, "pod")
        .with_extra(user::POD_UID, "pod-1")
        .with_extra(user::NODE_NAME, "node")
        .with_extra(user::NODE_UID, "node-1")
        .authenticated();
    let (audiences, notes) = (vec![ISSUER.into()], Notes::default());
    assert_eq!(verified, Verified { user: expected, audiences, notes });
}

#[test]
fn time_decides_with_a_minute_of_leeway() {
    let world = World::new();
    let token = world.issue(Binding::None);
    let cases = [
        (noon() - Duration::from_secs(61), "service account token is not valid yet"),
        (noon() - Duration::from_secs(60), SA),
        (noon() + Duration::from_secs(3660), SA),
        (noon() + Duration::from_secs(3661), "service account token has expired"),
    ];
    for (now, expected) in cases {
        assert_eq!(outcome(&world, &token, now), expected);
    }
    let from_the_future = world.sign_claims(|claims| claims.iat += 100);
    assert_eq!(outcome(&world, &from_the_future, noon()), "service account token is not valid yet");
}

#[test]
fn mounted_tokens_live_longer_than_they_say() {
    let world = World::new();
    let issued = world.issuer.issue(&request(on_pod(), MOUNTED_EXPIRATION_SECONDS), noon()).unwrap();
    assert_eq!(issued.expires_at, noon() + Duration::from_secs(3607));
    let claims = claims_of(&issued.token);
    assert_eq!((claims.exp - claims.iat, claims.kubernetes.warnafter), (31_536_000, Some(1_800_003_607)));
    let authenticator = world.authenticator();
    let stale = |seconds| {
        let now = noon() + Duration::from_secs(seconds);
        authenticator.authenticate(&issued.token, None, now).unwrap().unwrap().notes.annotations
    };
    assert_eq!(stale(3607), []);
    let late = format!("subject: {SA}, seconds after warning threshold: 1");
    assert_eq!(stale(3608), [("authentication.k8s.io/stale-token", late)]);
    // Not for other audiences, and not without a pod.
    let elsewhere = IssueRequest { audiences: vec!["vault".into()], ..request(on_pod(), 3607) };
    for request in [elsewhere, request(Binding::None, 3607)] {
        let claims = claims_of(&world.issuer.issue(&request, noon()).unwrap().token);
        assert_eq!((claims.exp - claims.iat, claims.kubernetes.warnafter), (3607, None));
    }
}

#[test]
fn audiences_have_to_meet() {
    let world = World::new();
    let for_two =
        IssueRequest { audiences: vec!["vault".into(), "db".into()], ..request(Binding::None, 3600) };
    let token = world.issuer.issue(&for_two, noon()).unwrap().token;
    let authenticator = world.authenticator();
    let wanted = |audiences: &[&str]| {
        let audiences: Vec<_> = audiences.iter().map(|&audience| audience.to_owned()).collect();
        authenticator
            .authenticate(&token, Some(&audiences), noon())
            .map(|verified| verified.unwrap().audiences.join(","))
            .map_err(|error| error.to_string())
    };
    assert_eq!(wanted(&["db", "other"]), Ok("db".into()));
    assert_eq!(
        wanted(&["other"]),
        Err(r#"token audiences ["vault" "db"] is invalid for the target audiences ["other"]"#.into())
    );
    assert!(authenticator.authenticate(&token, None, noon()).is_err());
    let legacy = world.sign_claims(|claims| claims.aud.clear());
    assert_eq!(outcome(&world, &legacy, noon()), SA);
}

#[test]
fn forged_and_foreign_tokens_are_told_apart() {
    let world = World::new();
    let token = world.issue(on_pod());
    let parts: Vec<&str> = token.split('.').collect();
    let encoded = |value: Value| encode(&value);
    let kid = world.authority.signing_keys().current_key_id();
    let mut other_claims: Value = part(&token, 1);
    other_claims["sub"] = "system:serviceaccount:kube-system:admin".into();
    other_claims["kubernetes.io"]["namespace"] = "kube-system".into();
    let mut foreign_claims: Value = part(&token, 1);
    foreign_claims["iss"] = "https://elsewhere".into();
    let stranger = World::new();
    let mut cut = token.clone();
    cut.pop();
    let cases = [
        ("empty", String::new(), "not ours"),
        ("no token", "x".into(), "not ours"),
        ("two parts", format!("{}.{}", parts[0], parts[1]), "not ours"),
        ("four parts", format!("{token}.x"), "not ours"),
        ("no base64", format!("{}.{}.&&&", parts[0], parts[1]), "not ours"),
        ("padded", format!("{token}="), "not ours"),
        ("no JSON", format!("{}.{}.{}", parts[0], URL_SAFE_NO_PAD.encode("{"), parts[2]), "not ours"),
        ("alg none", format!("{}.{}.", encoded(json!({"alg": "none", "kid": kid})), parts[1]), "not ours"),
        (
            "alg HS256",
            format!("{}.{}.{}", encoded(json!({"alg": "HS256", "kid": kid})), parts[1], parts[2]),
            "not ours",
        ),
        (
            "critical extension",
            format!(
                "{}.{}.{}",
                encoded(json!({"alg": "ES256", "kid": kid, "crit": ["b64"]})),
                parts[1],
                parts[2]
            ),
            "not ours",
        ),
        ("another issuer", format!("{}.{}.{}", parts[0], encoded(foreign_claims), parts[2]), "not ours"),
        (
            "changed claims",
            format!("{}.{}.{}", parts[0], encoded(other_claims), parts[2]),
            "invalid signature",
        ),
        ("no signature", format!("{}.{}.", parts[0], parts[1]), "invalid signature"),
        (
            "unknown key",
            format!("{}.{}.{}", encoded(json!({"alg": "ES256", "kid": "x"})), parts[1], parts[2]),
            "invalid signature, no keys found",
        ),
        ("another cluster's key", stranger.issue(on_pod()), "invalid signature, no keys found"),
        (
            "another header",
            format!("{}.{}.{}", encoded(json!({"alg": "ES256"})), parts[1], parts[2]),
            "invalid signature",
        ),
        ("too long", format!("{token}{}", "A".repeat(TOKEN_LEN_MAX)), "not ours"),
        ("untouched", token.clone(), SA),
    ];
    for (case, token, expected) in cases {
        assert_eq!(outcome(&world, &token, noon()), expected, "{case}");
    }
    assert_ne!(outcome(&world, &cut, noon()), SA);
}

#[test]
fn a_forged_token_is_not_helped_by_a_remembered_one() {
    let world = World::new();
    let authenticator = world.authenticator();
    let token = world.issue(Binding::None);
    assert!(authenticator.authenticate(&token, None, noon()).unwrap().is_some());
    let (message, _) = token.rsplit_once('.').unwrap();
    let forged = format!("{message}.{}", URL_SAFE_NO_PAD.encode([7; 64]));
    assert_eq!(authenticator.authenticate(&forged, None, noon()), Err(TokenError::Signature));
    // And a remembered one still expires.
    let later = noon() + Duration::from_secs(4000);
    assert_eq!(authenticator.authenticate(&token, None, later), Err(TokenError::Expired));
}

#[test]
fn a_token_dies_with_what_it_is_bound_to() {
    use BoundKind::{Node, Pod, Secret, ServiceAccount};
    let secret = || Binding::Secret(Reference::new("secret", "secret-1"));
    let node = || Binding::Node(Reference::new("node", "node-1"));
    let past = |seconds| Some(noon() - Duration::from_secs(seconds));
    type Change = Box<dyn Fn(&Objects)>;
    let remove = |kind, namespace: &'static str, name: &'static str| -> Change {
        Box::new(move |objects| objects.remove(kind, namespace, name))
    };
    let put = |kind, namespace: &'static str, name: &'static str, uid: &'static str, deletion| -> Change {
        Box::new(move |objects| objects.put_deleted(kind, namespace, name, uid, deletion))
    };
    let cases: Vec<(Binding, Change, &str)> = vec![
        (on_pod(), Box::new(|_| ()), SA),
        (on_pod(), remove(ServiceAccount, "ns", "sa"), r#"serviceaccounts "sa" not found"#),
        (
            Binding::None,
            put(ServiceAccount, "ns", "sa", "sa-2", None),
            "service account UID (sa-2) does not match claim (sa-1)",
        ),
        (
            Binding::None,
            put(ServiceAccount, "ns", "sa", "sa-1", past(61)),
            "service account ns/sa has been deleted",
        ),
        (on_pod(), remove(Pod, "ns", "pod"), "service account token has been invalidated"),
        (
            on_pod(),
            put(Pod, "ns", "pod", "pod-2", None),
            "pod UID (pod-2) does not match service account pod ref claim (pod-1)",
        ),
        (on_pod(), put(Pod, "ns", "pod", "pod-1", past(61)), "service account token has been invalidated"),
        (on_pod(), put(Pod, "ns", "pod", "pod-1", past(60)), SA),
        (on_pod(), remove(Node, "", "node"), SA),
        (secret(), remove(Pod, "ns", "pod"), SA),
        (secret(), remove(Secret, "ns", "secret"), "service account token has been invalidated"),
        (
            secret(),
            put(Secret, "ns", "secret", "secret-2", None),
            "secret UID (secret-2) does not match service account secret ref claim (secret-1)",
        ),
        (node(), remove(Node, "", "node"), "service account token has been invalidated"),
        (
            node(),
            put(Node, "", "node", "node-2", None),
            "node UID (node-2) does not match service account node ref claim (node-1)",
        ),
    ];
    for (index, (binding, change, expected)) in cases.into_iter().enumerate() {
        let world = World::new();
        let token = world.issue(binding);
        let authenticator = world.authenticator();
        // Remembered, and still refused afterwards.
        assert!(authenticator.authenticate(&token, None, noon()).unwrap().is_some());
        change(&world.objects);
        let outcome = match authenticator.authenticate(&token, None, noon()) {
            Ok(verified) => verified.unwrap().user.name().to_owned(),
            Err(error) => error.to_string(),
        };
        assert_eq!(outcome, expected, "case {index}");
    }
}

#[test]
fn tokens_outlive_a_rotation_of_the_keys() {
    let world = World::new();
    let old = world.issue(Binding::None);
    world.authority.signing_keys().rotate(noon()).unwrap();
    let new = world.issue(Binding::None);
    assert_ne!(part::<Value>(&old, 0)["kid"], part::<Value>(&new, 0)["kid"]);
    for token in [old, new] {
        assert_eq!(outcome(&world, &token, noon()), SA);
    }
}

#[test]
fn expirations_have_limits() {
    let cases = [
        (600, Ok(600)),
        (1 << 32, Ok(1 << 32)),
        (599, Err("may not specify a duration less than 10 minutes")),
        (-1, Err("may not specify a duration less than 10 minutes")),
        ((1 << 32) + 1, Err("may not specify a duration larger than 2^32 seconds")),
    ];
    for (seconds, expected) in cases {
        assert_eq!(validate_expiration_seconds(seconds), expected, "{seconds}");
    }
}

#[test]
fn lifetimes_can_be_narrowed() {
    let world = World::new();
    let keys = world.authority.signing_keys().clone();
    let lifetimes = Lifetimes { seconds_max: Some(7200), extend_mounted: false };
    let issuer = TokenIssuer::new(ISSUER, vec![ISSUER.into()], keys).with_lifetimes(lifetimes);
    assert_eq!((issuer.bounded(3600), issuer.bounded(7201)), (3600, 7200));
    let claims =
        claims_of(&issuer.issue(&request(on_pod(), MOUNTED_EXPIRATION_SECONDS), noon()).unwrap().token);
    assert_eq!((claims.exp - claims.iat, claims.kubernetes.warnafter), (3607, None));
}

mod kept_in_a_secret {
    use super::*;
    use apimachinery::json;
    use base64::engine::general_purpose::STANDARD;

    fn account(secrets: &[&str]) -> apimachinery::Value {
        let secrets: Vec<_> = secrets.iter().map(|name| json!({"name": *name})).collect();
        json!({
            "apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"name": "sa", "namespace": "ns", "uid": "sa-1"}, "secrets": secrets,
        })
    }

    fn secret(token: &str, labels: apimachinery::Value) -> apimachinery::Value {
        json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token",
            "metadata": {"name": "kept", "namespace": "ns", "labels": labels},
            "data": {"token": STANDARD.encode(token)},
        })
    }

    fn token(world: &World) -> String {
        let account = Reference::new("sa", "sa-1");
        legacy::issue(world.authority.signing_keys(), "ns", &account, "kept").unwrap()
    }

    #[test]
    fn it_has_upstreams_claims() {
        let claims: Value = part(&token(&World::new()), 1);
        assert_eq!(
            claims,
            serde_json::json!({
                "iss": "kubernetes/serviceaccount",
                "kubernetes.io/serviceaccount/namespace": "ns",
                "kubernetes.io/serviceaccount/secret.name": "kept",
                "kubernetes.io/serviceaccount/service-account.name": "sa",
                "kubernetes.io/serviceaccount/service-account.uid": "sa-1",
                "sub": SA,
            })
        );
    }

    #[test]
    fn it_is_good_while_its_secret_holds_it_and_its_account_is_there() {
        use BoundKind::{Secret, ServiceAccount};
        type Change = fn(&Objects, &str);
        let cases: [(&str, Change, &str); 6] = [
            ("as made", |_, _| (), SA),
            (
                "another token",
                |objects, _| objects.put_whole(Secret, secret("other", json!({}))),
                "Token does not match server's copy",
            ),
            ("no secret", |objects, _| objects.1.lock().clear(), "Token has been invalidated"),
            (
                "another account",
                |objects, _| {
                    let mut other = account(&[]);
                    other.set_at(&["metadata", "uid"], "sa-2");
                    objects.put_whole(ServiceAccount, other);
                },
                "ServiceAccount UID (sa-2) does not match claim (sa-1)",
            ),
            (
                "marked",
                |objects, token| {
                    objects
                        .put_whole(Secret, secret(token, json!({legacy::INVALID_SINCE_LABEL: "2026-01-01"})));
                },
                "the token in secret ns/kept for service account ns/sa has been marked invalid. Use tokens from the \
                 TokenRequest API or manually created secret-based tokens, or remove the \
                 'kubernetes.io/legacy-token-invalid-since' label from the secret to temporarily allow use of this \
                 token",
            ),
            (
                "deleted account",
                |objects, _| {
                    let mut going = account(&[]);
                    going.set_at(&["metadata", "deletionTimestamp"], "2026-01-01T00:00:00Z");
                    objects.put_whole(ServiceAccount, going);
                },
                "ServiceAccount ns/sa has been deleted",
            ),
        ];
        for (case, change, expected) in cases {
            let world = World::new();
            let token = token(&world);
            world.objects.put_whole(Secret, secret(&token, json!({})));
            world.objects.put_whole(ServiceAccount, account(&[]));
            change(&world.objects, &token);
            assert_eq!(outcome(&world, &token, noon()), expected, "{case}");
        }
    }

    #[test]
    fn its_use_is_noted_once_a_day() {
        let world = World::new();
        let token = token(&world);
        world.objects.put_whole(BoundKind::ServiceAccount, account(&["kept"]));
        for (label, reported) in [("", 1), ("2027-01-14", 1), ("2027-01-15", 0), ("2027-01-16", 0)] {
            world
                .objects
                .put_whole(BoundKind::Secret, secret(&token, json!({legacy::LAST_USED_LABEL: label})));
            let verified = world.authenticator().authenticate(&token, None, noon()).unwrap().unwrap();
            assert_eq!(verified.notes.warnings.len(), 1, "the account lists it");
            assert_eq!(std::mem::take(&mut *world.objects.2.lock()).len(), reported, "{label:?}");
        }
    }
}
