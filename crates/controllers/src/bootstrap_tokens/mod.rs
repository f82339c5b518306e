//! Bootstrap tokens, by which machines join a cluster: one controller signs with them what says where the cluster is,
//! another deletes those that have expired. Both are off unless `--controllers` names them.

pub mod cleaner;
pub mod signer;
#[cfg(test)]
mod tests;

use apimachinery::{Object, Value, time};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;

const NAMESPACE: &str = "kube-system";
const NAME_PREFIX: &str = "bootstrap-token-";
const SECRET_TYPE: &str = "bootstrap.kubernetes.io/token";

fn is_token(secret: &Object) -> bool {
    secret.namespace() == NAMESPACE && secret.to_value().str_at(&["type"]) == SECRET_TYPE
}

/// A value of the Secret as text; empty when there is none.
fn data(secret: &Value, key: &str) -> String {
    let bytes = STANDARD.decode(secret["data"].str_at(&[key])).unwrap_or_default();
    String::from_utf8(bytes).unwrap_or_default()
}

/// Until when a token is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expiration {
    Never,
    At(Timestamp),
    /// It says so, but not in a form that can be read: it is over.
    Unreadable,
}

impl Expiration {
    fn of(secret: &Value) -> Self {
        match data(secret, "expiration").as_str() {
            "" => Self::Never,
            text => time::parse(text).map_or(Self::Unreadable, Self::At),
        }
    }

    fn is_over(self, now: Timestamp) -> bool {
        match self {
            Self::Never => false,
            Self::At(end) => end < now,
            Self::Unreadable => true,
        }
    }
}
