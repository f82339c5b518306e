//! Which tokens of accounts that are kept in Secrets are not used any more. Pure.

use std::collections::HashSet;

use apimachinery::{Object, Str, Value, time};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

pub(super) const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";
pub(super) const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";

/// Upstream's default of `--legacy-service-account-token-clean-up-period`, in days.
const UNUSED_DAYS: i64 = 365;

/// What happens to a Secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    Keep,
    /// The token is refused from now on; whoever missed it can take the label off.
    Invalidate,
    Delete,
}

/// The dates that decide today.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub today: Date,
    /// What was used or made later stays.
    oldest: Timestamp,
}

impl Limits {
    /// `None` while uses have not been tracked for long enough.
    pub fn at(now: Timestamp, tracked_since: &str) -> Option<Self> {
        let tracked = date(tracked_since)?.tomorrow().ok()?.to_zoned(TimeZone::UTC).ok()?.timestamp();
        let oldest = now.checked_sub((UNUSED_DAYS * 24).hours()).ok()?;
        (tracked <= oldest).then(|| Self { today: now.to_zoned(TimeZone::UTC).date(), oldest })
    }

    fn oldest_date(&self) -> Date {
        self.oldest.to_zoned(TimeZone::UTC).date()
    }

    /// By what the Secret itself says, before anybody else is asked.
    fn may_be_unused(&self, secret: &Object) -> bool {
        let created = time::parse(secret.creation_timestamp());
        if secret.is_deleting() || created.is_none_or(|created| created >= self.oldest) {
            return false;
        }
        match secret.label(LAST_USED) {
            None => true,
            Some(used) => date(used).is_some_and(|used| used < self.oldest_date()),
        }
    }
}

/// A date as labels have it.
fn date(text: &str) -> Option<Date> {
    Date::strptime("%Y-%m-%d", text).ok()
}

/// `account` is the one that the Secret names, if it has the uid that the Secret knows; `mounted` are the Secrets that
/// pods of the namespace use.
pub(super) fn plan(
    secret: &Object,
    limits: &Limits,
    account: Option<&Object>,
    mounted: impl FnOnce() -> HashSet<Str>,
) -> Plan {
    // Tokens that somebody made by hand are in no account's list, and stay.
    let generated = account.is_some_and(|account| {
        let tree = account.to_value();
        tree.array_at(&["secrets"]).iter().any(|own| own.str_at(&["name"]) == secret.name())
    });
    if !generated || !limits.may_be_unused(secret) || mounted().contains(secret.name()) {
        return Plan::Keep;
    }
    match secret.label(INVALID_SINCE).and_then(date) {
        None => Plan::Invalidate,
        Some(since) if since >= limits.oldest_date() => Plan::Keep,
        Some(_) => Plan::Delete,
    }
}

/// Adds the names of all Secrets that something in a pod's spec refers to.
pub(super) fn add_secrets_of(value: &Value, names: &mut HashSet<Str>) {
    if let Some(items) = value.as_array() {
        items.iter().for_each(|item| add_secrets_of(item, names));
    }
    for (field, inner) in value.as_object().into_iter().flat_map(|map| map.iter()) {
        let text = match field.as_str() {
            "secretName" => inner.as_str(),
            // References, some of which are called after whom they are for.
            "secret" => inner.get("secretName").or(inner.get("name")).and_then(Value::as_str),
            name if name.ends_with("ecretRef") || name == "secretKeyRef" => {
                inner.get("name").and_then(Value::as_str)
            }
            "imagePullSecrets" => {
                let listed = inner.as_array().into_iter().flatten();
                names.extend(listed.map(|own| Str::from(own.str_at(&["name"]))));
                None
            }
            _ => None,
        };
        names.extend(text.map(Str::from));
        add_secrets_of(inner, names);
    }
}
