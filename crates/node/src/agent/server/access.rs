//! Who asks, and may they? Client certificates by the cluster's authority, tokens by the API server.
//!
//! There is no anonymous access. Answers of the API server are kept for as long as upstream's webhooks keep them by
//! default.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::{GroupVersionResource, Status, Str, Value};
use async_trait::async_trait;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use parking_lot::Mutex;
use pki::ClientVerifier;
use rustls_pki_types::CertificateDer;

/// `authentication.webhook.cacheTTL`.
const TOKEN_TTL: Duration = Duration::from_secs(2 * 60);
/// `authorization.webhook.cacheAuthorizedTTL` and `cacheUnauthorizedTTL`.
const ALLOWED_TTL: Duration = Duration::from_secs(5 * 60);
const DENIED_TTL: Duration = Duration::from_secs(30);
/// Answers that are kept; beyond it the oldest go.
const ANSWERS_MAX: usize = 4096;

const TOKEN_REVIEWS: GroupVersionResource = GroupVersionResource {
    group: Str::const_new("authentication.k8s.io"),
    version: Str::const_new("v1"),
    resource: Str::const_new("tokenreviews"),
};

/// Who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct User {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
}

/// What is asked of this node: a verb on a subresource of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Attributes {
    pub verb: &'static str,
    pub subresource: &'static str,
    pub node: String,
}

/// Knows the users of bearer tokens.
#[async_trait]
pub trait Authenticator: Send + Sync + 'static {
    async fn authenticate(&self, token: &str) -> Result<Option<User>, Status>;
}

/// Knows what users may do.
#[async_trait]
pub trait Authorizer: Send + Sync + 'static {
    async fn is_allowed(&self, user: &User, attributes: &Attributes) -> Result<bool, Status>;
}

/// How requests are let in.
#[derive(Clone)]
pub struct Access {
    /// Certificates of this authority name users; `None` where clients have none.
    pub clients: Option<ClientVerifier>,
    pub authenticator: Arc<dyn Authenticator>,
    pub authorizer: Arc<dyn Authorizer>,
}

impl Access {
    /// Asks the API server, by reviews, about everybody but the holders of certificates, and what all may do.
    pub fn by_reviews(api: Arc<dyn client::Api>, clients: Option<ClientVerifier>) -> Self {
        let reviews = Arc::new(Reviews::new(api));
        Self { clients, authenticator: reviews.clone(), authorizer: reviews }
    }

    /// Who asks; `None` is nobody who is known.
    pub(super) async fn user(
        &self,
        certificates: &[CertificateDer<'static>],
        headers: &HeaderMap,
    ) -> Result<Option<User>, Status> {
        if let Some(clients) = &self.clients
            && !certificates.is_empty()
        {
            match clients.verify(certificates, rt::now().into()) {
                Ok(identity) => {
                    let mut groups = identity.groups;
                    groups.push("system:authenticated".to_owned());
                    let uid = identity.uid.unwrap_or_default();
                    return Ok(Some(User { name: identity.user, uid, groups }));
                }
                Err(error) => tracing::debug!(%error, "Client certificate is not taken"),
            }
        }
        let header = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = header.and_then(|header| {
            let (scheme, token) = header.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim()).filter(|token| !token.is_empty())
        });
        match token {
            Some(token) => self.authenticator.authenticate(token).await,
            None => Ok(None),
        }
    }
}

/// TokenReviews and SubjectAccessReviews.
struct Reviews {
    api: Arc<dyn client::Api>,
    users: Answers<String, Option<User>>,
    decisions: Answers<(User, Attributes), bool>,
}

impl Reviews {
    fn new(api: Arc<dyn client::Api>) -> Self {
        Self { api, users: Answers::default(), decisions: Answers::default() }
    }

    async fn review(&self, gvr: &GroupVersionResource, review: Value) -> Result<Value, Status> {
        let answer = self.api.create(gvr, "", review, &client::WriteOptions::default()).await?;
        Ok(answer.to_value()["status"].clone())
    }
}

#[async_trait]
impl Authenticator for Reviews {
    async fn authenticate(&self, token: &str) -> Result<Option<User>, Status> {
        if let Some(known) = self.users.get(token) {
            return Ok(known);
        }
        let review = apimachinery::json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "metadata": {}, "spec": {"token": token},
        });
        let status = self.review(&TOKEN_REVIEWS, review).await?;
        let user = user_of(&status);
        self.users.keep(token.to_owned(), user.clone(), TOKEN_TTL);
        Ok(user)
    }
}

#[async_trait]
impl Authorizer for Reviews {
    async fn is_allowed(&self, user: &User, attributes: &Attributes) -> Result<bool, Status> {
        let key = (user.clone(), attributes.clone());
        if let Some(known) = self.decisions.get(&key) {
            return Ok(known);
        }
        let review = apimachinery::json!({
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "metadata": {},
            "spec": {
                "user": user.name.as_str(),
                "uid": user.uid.as_str(),
                "groups": user.groups.clone(),
                "resourceAttributes": {
                    "verb": attributes.verb,
                    "version": "v1",
                    "resource": "nodes",
                    "subresource": attributes.subresource,
                    "name": attributes.node.as_str(),
                },
            },
        });
        let status = self.review(&api::gvr::SUBJECT_ACCESS_REVIEWS, review).await?;
        let allowed = status["allowed"].as_bool() == Some(true);
        self.decisions.keep(key, allowed, if allowed { ALLOWED_TTL } else { DENIED_TTL });
        Ok(allowed)
    }
}

/// Whom a TokenReview's status names.
fn user_of(status: &Value) -> Option<User> {
    if status["authenticated"].as_bool() != Some(true) {
        return None;
    }
    let user = &status["user"];
    let groups = user["groups"].as_array().into_iter().flatten();
    Some(User {
        name: user["username"].as_str().unwrap_or_default().to_owned(),
        uid: user["uid"].as_str().unwrap_or_default().to_owned(),
        groups: groups.filter_map(|group| group.as_str().map(str::to_owned)).collect(),
    })
}

/// Answers that are good for a while.
struct Answers<K, V>(Mutex<HashMap<K, (V, rt::Instant)>>);

impl<K, V> Default for Answers<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash + Clone, V: Clone> Answers<K, V> {
    fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<V>
    where
        K: std::borrow::Borrow<Q>,
    {
        let answers = self.0.lock();
        let (answer, until) = answers.get(key)?;
        (rt::instant() < *until).then(|| answer.clone())
    }

    fn keep(&self, key: K, answer: V, ttl: Duration) {
        let now = rt::instant();
        let mut answers = self.0.lock();
        if answers.len() >= ANSWERS_MAX {
            answers.retain(|_, (_, until)| now < *until);
        }
        if answers.len() >= ANSWERS_MAX {
            let first = answers.iter().min_by_key(|(_, (_, until))| *until).map(|(key, _)| key.clone());
            first.and_then(|key| answers.remove(&key));
        }
        answers.insert(key, (answer, now + ttl));
    }
}

#[cfg(test)]
mod tests {
    use client::fake::FakeApi;

    use super::*;

    #[test]
    fn a_review_names_a_user_or_nobody() {
        let user = apimachinery::json!({"username": "jane", "uid": "7", "groups": ["a", "b"]});
        let known = user_of(&apimachinery::json!({"authenticated": true, "user": user.clone()})).unwrap();
        let groups = vec!["a".to_owned(), "b".to_owned()];
        assert_eq!(known, User { name: "jane".to_owned(), uid: "7".to_owned(), groups });
        assert_eq!(user_of(&apimachinery::json!({"authenticated": false, "user": user.clone()})), None);
        assert_eq!(user_of(&apimachinery::json!({"user": user})), None);
    }

    #[tokio::test]
    async fn what_is_known_is_not_asked_again_and_failures_are_not_known() {
        let api = FakeApi::new();
        api.fail(|_| Some(Status::internal("down")));
        let reviews = Reviews::new(api.clone());
        let jane = User { name: "jane".to_owned(), ..User::default() };
        let attributes = Attributes { verb: "get", subresource: "proxy", node: "n".to_owned() };
        for calls in [2, 4] {
            assert!(reviews.authenticate("token").await.is_err());
            assert!(reviews.is_allowed(&jane, &attributes).await.is_err());
            assert_eq!(api.calls().len(), calls);
        }
        reviews.users.keep("token".to_owned(), Some(jane.clone()), TOKEN_TTL);
        reviews.decisions.keep((jane.clone(), attributes.clone()), true, ALLOWED_TTL);
        assert_eq!(reviews.authenticate("token").await, Ok(Some(jane.clone())));
        assert_eq!(reviews.is_allowed(&jane, &attributes).await, Ok(true));
        let other = Attributes { verb: "create", ..attributes };
        assert!(reviews.is_allowed(&jane, &other).await.is_err(), "another verb is another question");
        assert_eq!(api.calls().len(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn answers_are_good_for_their_time_and_not_more_than_a_number_are_kept() {
        let answers = Answers::<u32, bool>::default();
        answers.keep(1, true, Duration::from_secs(10));
        assert_eq!(answers.get(&1), Some(true));
        rt::sleep(Duration::from_secs(10)).await;
        assert_eq!(answers.get(&1), None);
        for key in 0..ANSWERS_MAX as u32 + 10 {
            answers.keep(key, true, Duration::from_secs(u64::from(key) + 1));
        }
        assert_eq!(answers.0.lock().len(), ANSWERS_MAX);
        assert_eq!((answers.get(&0), answers.get(&(ANSWERS_MAX as u32 + 9))), (None, Some(true)));
    }
}
