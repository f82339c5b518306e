//! Bootstrap tokens: Secrets of `kube-system` by which machines join that have no identity yet.
//!
//! A token is `<id>.<secret>`; its Secret is called `bootstrap-token-<id>`. What it may be used for and until when
//! stands in the Secret.

use std::sync::Arc;
use std::time::SystemTime;

use apimachinery::{Object, Value};
use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;

use crate::authenticator::{Recognized, TokenSource};
use crate::secret::same_secret;
use crate::token::{BoundKind, BoundObjects};
use crate::user::UserInfo;

const NAMESPACE: &str = "kube-system";
const NAME_PREFIX: &str = "bootstrap-token-";
const SECRET_TYPE: &str = "bootstrap.kubernetes.io/token";
const USER_PREFIX: &str = "system:bootstrap:";
const GROUP: &str = "system:bootstrappers";

const ID_LEN: usize = 6;
const SECRET_LEN: usize = 16;

/// Takes bootstrap tokens.
pub struct BootstrapTokens {
    objects: Arc<dyn BoundObjects>,
}

impl BootstrapTokens {
    pub fn new(objects: Arc<dyn BoundObjects>) -> Self {
        Self { objects }
    }

    /// What is wrong with a token goes to the log alone, as upstream: to its bearer it is just no token.
    fn user(&self, token: &str, now: SystemTime) -> Option<UserInfo> {
        let (id, secret) = split(token)?;
        let name = format!("{NAME_PREFIX}{id}");
        let kept = self.objects.object(BoundKind::Secret, NAMESPACE, &name)?;
        match check(&kept, id, secret, now) {
            Ok(groups) => Some(UserInfo::new(format!("{USER_PREFIX}{id}")).with_groups(groups)),
            Err(problem) => {
                tracing::debug!(name, problem, "Refused a bootstrap token");
                None
            }
        }
    }
}

#[async_trait]
impl TokenSource for BootstrapTokens {
    async fn authenticate(
        &self,
        token: &str,
        audiences: &[String],
        now: SystemTime,
    ) -> Result<Option<Recognized>, String> {
        Ok(self.user(token, now).map(|user| Recognized::new(user, audiences)))
    }
}

/// Id and secret, if a token has the form of one.
fn split(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let is_part = |part: &str, len: usize| {
        part.len() == len && part.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
    };
    (is_part(id, ID_LEN) && is_part(secret, SECRET_LEN)).then_some((id, secret))
}

/// The groups of the token's bearer.
fn check(object: &Object, id: &str, secret: &str, now: SystemTime) -> Result<Vec<String>, &'static str> {
    let tree = object.to_value();
    if object.is_deleting() {
        return Err("it is deleted and awaits removal");
    }
    if tree.str_at(&["type"]) != SECRET_TYPE {
        return Err("it is of another type");
    }
    if !same_secret(data(&tree, "token-secret").as_bytes(), secret.as_bytes()) {
        return Err("the secret is another one");
    }
    if data(&tree, "token-id") != id {
        return Err("the id in it is another one");
    }
    if has_expired(&data(&tree, "expiration"), now) {
        return Err("it has expired");
    }
    if data(&tree, "usage-bootstrap-authentication") != "true" {
        return Err("it is not for authentication");
    }
    groups(&data(&tree, "auth-extra-groups")).ok_or("auth-extra-groups has a group that may not be in it")
}

/// One that cannot be read is over.
fn has_expired(expiration: &str, now: SystemTime) -> bool {
    if expiration.is_empty() {
        return false;
    }
    expiration.parse::<Timestamp>().map_or(true, |end| SystemTime::from(end) < now)
}

/// The group of all bootstrap tokens and those beyond, sorted; `None` if one has not the right prefix.
fn groups(extra: &str) -> Option<Vec<String>> {
    let mut groups = vec![GROUP.to_owned()];
    for group in extra.split(',').filter(|_| !extra.is_empty()) {
        let rest = group.strip_prefix(GROUP)?.strip_prefix(':')?;
        let allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b':' || c == b'-';
        let ends_well =
            rest.bytes().next_back().is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        if rest.len() > 256 || !ends_well || !rest.bytes().all(allowed) {
            return None;
        }
        groups.push(group.to_owned());
    }
    groups.sort_unstable();
    groups.dedup();
    Some(groups)
}

fn data(secret: &Value, key: &str) -> String {
    let bytes = STANDARD.decode(secret["data"].str_at(&[key])).unwrap_or_default();
    String::from_utf8(bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use apimachinery::json;

    use super::*;

    fn secret(fields: &[(&str, &str)]) -> Object {
        let mut tree = json!({
            "apiVersion": "v1", "kind": "Secret", "type": SECRET_TYPE,
            "metadata": {"name": "bootstrap-token-abcdef", "namespace": NAMESPACE},
        });
        let usual = [
            ("token-id", "abcdef"),
            ("token-secret", "0123456789abcdef"),
            ("usage-bootstrap-authentication", "true"),
        ];
        for (key, value) in usual.iter().chain(fields) {
            tree.set_at(&["data", key], STANDARD.encode(value));
        }
        Object::from_value(&tree, 1, &[]).unwrap()
    }

    #[test]
    fn tokens_have_a_form() {
        for (token, expected) in [
            ("abcdef.0123456789abcdef", Some(("abcdef", "0123456789abcdef"))),
            ("abcdef.0123456789abcde", None),
            ("abcde.0123456789abcdef", None),
            ("ABCDEF.0123456789abcdef", None),
            ("abcdef.0123456789abcdef.x", None),
            ("abcdef0123456789abcdef", None),
            ("abc/ef.0123456789abcdef", None),
        ] {
            assert_eq!(split(token), expected, "{token}");
        }
    }

    #[test]
    fn a_secret_says_whether_its_token_is_good() {
        let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let cases = [
            (&[][..], "system:bootstrappers"),
            (
                &[("auth-extra-groups", "system:bootstrappers:z,system:bootstrappers:a")],
                "system:bootstrappers,system:bootstrappers:a,system:bootstrappers:z",
            ),
            (
                &[("auth-extra-groups", "system:masters")],
                "auth-extra-groups has a group that may not be in it",
            ),
            (&[("expiration", "2027-01-15T08:00:00Z")], "system:bootstrappers"),
            (&[("expiration", "2027-01-15T07:59:59Z")], "it has expired"),
            (&[("expiration", "soon")], "it has expired"),
            (&[("token-secret", "0123456789abcdeg")], "the secret is another one"),
            (&[("token-id", "abcdeg")], "the id in it is another one"),
            (&[("usage-bootstrap-authentication", "yes")], "it is not for authentication"),
        ];
        for (fields, expected) in cases {
            let outcome = match check(&secret(fields), "abcdef", "0123456789abcdef", now) {
                Ok(groups) => groups.join(","),
                Err(problem) => problem.to_owned(),
            };
            assert_eq!(outcome, expected, "{fields:?}");
        }
    }
}
