//! A webhook that says whose a token is, by TokenReviews (`--authentication-token-webhook-config-file`).

use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::json;
use webhook::Client;

use super::review;
use crate::authenticator::{Recognized, TokenSource};
use crate::kept::Kept;
use crate::secret::fingerprint;
use crate::user::{Extra, UserInfo};

const TIMEOUT: Duration = Duration::from_secs(30);

/// Asks about tokens that nobody here knows.
pub struct TokenWebhook {
    client: Client,
    /// `v1` or `v1beta1`.
    version: String,
    ttl: Duration,
    /// For whom tokens are of which the webhook does not say.
    api_audiences: Vec<String>,
    kept: Kept<Result<Option<Recognized>, String>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Status {
    authenticated: bool,
    user: User,
    audiences: Vec<String>,
    error: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct User {
    username: String,
    uid: String,
    groups: Vec<String>,
    extra: Extra,
}

impl TokenWebhook {
    pub fn new(client: Client, version: &str, ttl: Duration, api_audiences: Vec<String>) -> Self {
        Self { client, version: version.to_owned(), ttl, api_audiences, kept: Kept::new() }
    }

    async fn ask(&self, token: &str, audiences: &[String]) -> Result<Status, String> {
        let question = json!({
            "apiVersion": format!("authentication.k8s.io/{}", self.version), "kind": "TokenReview",
            "metadata": {"creationTimestamp": null},
            "spec": {"token": token, "audiences": audiences},
        });
        review(&self.client, &question, TIMEOUT).await
    }

    fn read(&self, status: Status, wanted: &[String]) -> Result<Option<Recognized>, String> {
        let Status { authenticated, user, audiences, error } = status;
        if !authenticated {
            return if error.is_empty() { Ok(None) } else { Err(error) };
        }
        let own = if audiences.is_empty() { &self.api_audiences } else { &audiences };
        let shared: Vec<_> = wanted.iter().filter(|audience| own.contains(audience)).cloned().collect();
        if shared.is_empty() {
            return Ok(None);
        }
        let User { username, uid, groups, extra } = user;
        let user = UserInfo::new(username).with_uid(uid).with_groups(groups).with_extras(extra);
        Ok(Some(Recognized::new(user, &shared)))
    }
}

#[async_trait]
impl TokenSource for TokenWebhook {
    async fn authenticate(
        &self,
        token: &str,
        audiences: &[String],
        now: SystemTime,
    ) -> Result<Option<Recognized>, String> {
        // No audience holds a zero byte, and no token that came in a header.
        let key = fingerprint([token, &audiences.join("\0")].join("\0").as_bytes());
        if let Some(known) = self.kept.get(&key, now) {
            return known;
        }
        // That nobody could be asked is no answer to keep.
        let answer = self.read(self.ask(token, audiences).await?, audiences);
        self.kept.put(key, answer.clone(), self.ttl, now);
        answer
    }

    fn knows_audiences(&self) -> bool {
        true
    }
}
