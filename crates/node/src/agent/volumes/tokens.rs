//! [`TokenCache`]: tokens of service accounts, bound to pods, and new ones before the old ones end.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use api::gvr::SERVICE_ACCOUNTS;
use apimachinery::{Status, Value, json, time};
use async_trait::async_trait;
use client::Api;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, ServiceAccountTokenProjection};
use parking_lot::Mutex;

use crate::agent::config::{name, namespace, uid};

/// `expirationSeconds` where nothing is said.
const EXPIRATION_DEFAULT: i64 = 3_600;

/// A token is replaced when this share of its life is left, or when it is this old.
const REST_PERCENT: i8 = 20;
const AGE_MAX: SignedDuration = SignedDuration::from_hours(24);

/// However short its life: nobody is asked without a pause.
const RENEWAL_MIN: SignedDuration = SignedDuration::from_secs(1);

/// So that not all pods of an account come at once.
const SPREAD_MAX: Duration = Duration::from_secs(10);

/// Whom tokens are asked of.
#[async_trait]
pub trait TokenRequests: Send + Sync + 'static {
    /// A `TokenRequest` with its answer in its status.
    async fn request(&self, namespace: &str, account: &str, request: Value) -> Result<Value, Status>;
}

/// The API's own.
pub struct ApiTokens(pub Arc<dyn Api>);

#[async_trait]
impl TokenRequests for ApiTokens {
    async fn request(&self, namespace: &str, account: &str, request: Value) -> Result<Value, Status> {
        self.0.create_subresource(&SERVICE_ACCOUNTS, namespace, account, "token", request).await
    }
}

/// A token, and when a new one is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    pub text: String,
    pub refresh_at: Timestamp,
    pub expires_at: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    pod: String,
    account: String,
    audience: String,
    expiration_seconds: i64,
}

pub struct TokenCache {
    requests: Arc<dyn TokenRequests>,
    /// As many as the projections of the node's pods.
    tokens: Mutex<HashMap<Key, Token>>,
}

impl TokenCache {
    pub fn new(requests: Arc<dyn TokenRequests>) -> Self {
        Self { requests, tokens: Mutex::default() }
    }

    /// A token for a projection of the pod. When no new one can be had, the old one is good until it expires.
    ///
    /// # Errors
    /// A message.
    pub async fn token(
        &self,
        pod: &Pod,
        projection: &ServiceAccountTokenProjection,
    ) -> Result<Token, String> {
        let account =
            pod.spec.as_ref().and_then(|spec| spec.service_account_name.clone()).unwrap_or_default();
        let key = Key {
            pod: uid(pod).to_owned(),
            account,
            audience: projection.audience.clone().unwrap_or_default(),
            expiration_seconds: projection.expiration_seconds.unwrap_or(EXPIRATION_DEFAULT),
        };
        let now = rt::now();
        let known = self.tokens.lock().get(&key).cloned();
        if let Some(token) = known.as_ref().filter(|token| now < token.refresh_at) {
            return Ok(token.clone());
        }
        let answer = self.requests.request(namespace(pod), &key.account, request(pod, &key)).await;
        let made = answer.map_err(|status| status.message).and_then(|answer| read(&answer, now));
        match (made, known) {
            (Ok(token), _) => {
                self.tokens.lock().insert(key, token.clone());
                Ok(token)
            }
            (Err(why), Some(token)) if now < token.expires_at => {
                tracing::warn!(pod = uid(pod), account = key.account, error = why, "Cannot renew a token");
                let later = now.checked_add(SPREAD_MAX).unwrap_or(now);
                Ok(Token { refresh_at: later, ..token })
            }
            (Err(why), _) => Err(format!("failed to fetch token: {why}")),
        }
    }

    /// The pod is gone.
    pub fn forget(&self, pod: &str) {
        self.tokens.lock().retain(|key, _| key.pod != pod);
    }
}

fn request(pod: &Pod, key: &Key) -> Value {
    let audiences: Vec<Value> =
        if key.audience.is_empty() { Vec::new() } else { vec![key.audience.as_str().into()] };
    json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
        "spec": {
            "audiences": audiences,
            "expirationSeconds": key.expiration_seconds,
            "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": name(pod), "uid": key.pod.as_str()},
        },
    })
}

fn read(answer: &Value, now: Timestamp) -> Result<Token, String> {
    let text = answer.str_at(&["status", "token"]).to_owned();
    let expires_at = time::parse(answer.str_at(&["status", "expirationTimestamp"]));
    let Some(expires_at) = expires_at.filter(|_| !text.is_empty()) else {
        return Err("the answer has no token".to_owned());
    };
    // The server may have given another life than was asked for.
    let life = expires_at.duration_since(now);
    let refresh_at = refresh_at(now, life, rt::jittered(SPREAD_MAX / 2, 1.0));
    Ok(Token { text, refresh_at, expires_at })
}

fn refresh_at(issued_at: Timestamp, life: SignedDuration, spread: Duration) -> Timestamp {
    let life = life.max(SignedDuration::ZERO);
    let spread = SignedDuration::try_from(spread).unwrap_or_default().min(life / 10);
    let until = (life / 100 * i32::from(100 - REST_PERCENT)).min(AGE_MAX) - spread;
    issued_at.checked_add(until.max(RENEWAL_MIN)).unwrap_or(issued_at)
}

#[cfg(test)]
pub(crate) mod fixture {
    use super::*;

    /// Gives out `token-1`, `token-2`, …, of the life that was asked for.
    #[derive(Default)]
    pub struct Issuer {
        pub requests: Mutex<Vec<Value>>,
        pub fails: std::sync::atomic::AtomicBool,
        /// In place of the life that was asked for.
        pub life_seconds: Option<i64>,
    }

    #[async_trait]
    impl TokenRequests for Issuer {
        async fn request(&self, _namespace: &str, _account: &str, request: Value) -> Result<Value, Status> {
            if self.fails.load(std::sync::atomic::Ordering::SeqCst) {
                return Err(Status::unavailable("away"));
            }
            let mut requests = self.requests.lock();
            requests.push(request.clone());
            let asked =
                request.at(&["spec", "expirationSeconds"]).and_then(Value::as_i64).unwrap_or_default();
            let life = SignedDuration::from_secs(self.life_seconds.unwrap_or(asked));
            let expires = rt::now().checked_add(life).expect("it is near");
            Ok(json!({"status": {"token": format!("token-{}", requests.len()),
                "expirationTimestamp": time::format_seconds(expires)}}))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::fixture::Issuer;
    use super::*;
    use crate::agent::config::fixture as pods;

    #[test]
    fn a_fifth_of_a_life_is_left_and_no_token_is_older_than_a_day() {
        let start = Timestamp::UNIX_EPOCH;
        let after = |life: i64, spread: u64| {
            refresh_at(start, SignedDuration::from_secs(life), Duration::from_secs(spread)).as_second()
        };
        assert_eq!(after(3_600, 0), 2_880);
        assert_eq!(after(3_600, 10), 2_870);
        assert_eq!(after(31_536_000, 0), 86_400);
        assert_eq!(after(10, 10), 7);
        assert_eq!((after(1, 0), after(-5, 10)), (1, 1));
    }

    #[tokio::test]
    async fn a_token_is_kept_while_it_is_fresh_and_used_while_it_is_good() {
        let issuer = Arc::new(Issuer::default());
        let cache = TokenCache::new(issuer.clone());
        let pod = pods::pod(serde_json::json!({"containers": [], "serviceAccountName": "sa"}));
        let projection = ServiceAccountTokenProjection {
            audience: Some("vault".into()),
            expiration_seconds: Some(600),
            path: "token".into(),
        };
        for _ in 0..2 {
            assert_eq!(cache.token(&pod, &projection).await.map(|own| own.text), Ok("token-1".into()));
        }
        let wanted = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "spec": {"audiences": ["vault"], "expirationSeconds": 600,
                "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "web", "uid": "u-1"}}});
        assert_eq!(*issuer.requests.lock(), [wanted]);
        let age = || cache.tokens.lock().values_mut().for_each(|token| token.refresh_at = rt::now());
        age();
        issuer.fails.store(true, Ordering::SeqCst);
        assert_eq!(cache.token(&pod, &projection).await.map(|own| own.text), Ok("token-1".into()));
        cache.tokens.lock().values_mut().for_each(|token| token.expires_at = rt::now());
        assert_eq!(cache.token(&pod, &projection).await, Err("failed to fetch token: away".into()));
        issuer.fails.store(false, Ordering::SeqCst);
        assert_eq!(cache.token(&pod, &projection).await.map(|own| own.text), Ok("token-2".into()));
        age();
        assert_eq!(cache.token(&pod, &projection).await.map(|own| own.text), Ok("token-3".into()));
        cache.forget("u-1");
        assert!(cache.tokens.lock().is_empty());
    }
}
