//! Users, and the names that Kubernetes gives to its own.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use apimachinery::dns;

/// May do everything, whatever RBAC says.
pub const MASTERS: &str = "system:masters";
pub const AUTHENTICATED: &str = "system:authenticated";
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
pub const NODES: &str = "system:nodes";
pub const MONITORING: &str = "system:monitoring";
/// All service accounts.
pub const SERVICE_ACCOUNTS: &str = "system:serviceaccounts";

pub const ANONYMOUS: &str = "system:anonymous";
pub const API_SERVER: &str = "system:apiserver";
pub const KUBE_CONTROLLER_MANAGER: &str = "system:kube-controller-manager";
pub const KUBE_SCHEDULER: &str = "system:kube-scheduler";
/// The API server towards kubelets.
pub const KUBELET_CLIENT: &str = "kube-apiserver-kubelet-client";
pub const KUBE_PROXY: &str = "system:kube-proxy";
/// Followed by the node's name.
pub const NODE_PREFIX: &str = "system:node:";
/// Followed by namespace, colon, name.
pub const SERVICE_ACCOUNT_PREFIX: &str = "system:serviceaccount:";
/// Followed by the namespace whose service accounts the group holds.
pub const SERVICE_ACCOUNT_GROUP_PREFIX: &str = "system:serviceaccounts:";

/// Keys of [`UserInfo::extra`].
pub const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";
pub const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
pub const POD_UID: &str = "authentication.kubernetes.io/pod-uid";
pub const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
pub const NODE_UID: &str = "authentication.kubernetes.io/node-uid";

/// What an authenticator adds about a user beyond name, uid and groups.
pub type Extra = BTreeMap<String, Vec<String>>;

/// Who a request comes from. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UserInfo(Arc<Fields>);

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Fields {
    name: String,
    uid: String,
    groups: Vec<String>,
    extra: Extra,
}

impl UserInfo {
    /// A user in no group.
    pub fn new(name: impl Into<String>) -> Self {
        Self(Arc::new(Fields { name: name.into(), ..Fields::default() }))
    }

    /// A caller that showed nothing.
    pub fn anonymous() -> Self {
        static USER: LazyLock<UserInfo> =
            LazyLock::new(|| UserInfo::new(ANONYMOUS).with_groups([UNAUTHENTICATED]));
        USER.clone()
    }

    /// The service account `name`, without `system:authenticated`, as a token review shows it.
    pub fn service_account(namespace: &str, name: &str, uid: &str) -> Self {
        Self::new(service_account_name(namespace, name))
            .with_uid(uid)
            .with_groups(service_account_groups(namespace))
    }

    /// A node's kubelet, without `system:authenticated`.
    pub fn node(name: &str) -> Self {
        Self::new(format!("{NODE_PREFIX}{name}")).with_groups([NODES])
    }

    /// The API server itself, calling from within.
    pub fn api_server() -> Self {
        Self::new(API_SERVER).with_groups([MASTERS, AUTHENTICATED])
    }

    pub fn with_uid(mut self, uid: impl Into<String>) -> Self {
        Arc::make_mut(&mut self.0).uid = uid.into();
        self
    }

    /// Replaces the groups.
    pub fn with_groups<G: Into<String>>(mut self, groups: impl IntoIterator<Item = G>) -> Self {
        Arc::make_mut(&mut self.0).groups = groups.into_iter().map(Into::into).collect();
        self
    }

    /// Adds a value to those of `key`.
    pub fn with_extra(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        Arc::make_mut(&mut self.0).extra.entry(key.into()).or_default().push(value.into());
        self
    }

    /// Replaces the extra values.
    pub fn with_extras(mut self, extra: Extra) -> Self {
        Arc::make_mut(&mut self.0).extra = extra;
        self
    }

    /// The user as authenticated: in `system:authenticated`, once.
    pub fn authenticated(mut self) -> Self {
        if !self.in_group(AUTHENTICATED) {
            Arc::make_mut(&mut self.0).groups.push(AUTHENTICATED.to_owned());
        }
        self
    }

    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Empty where the authenticator knows none.
    pub fn uid(&self) -> &str {
        &self.0.uid
    }

    pub fn groups(&self) -> &[String] {
        &self.0.groups
    }

    pub fn extra(&self) -> &Extra {
        &self.0.extra
    }

    pub fn in_group(&self, group: &str) -> bool {
        self.0.groups.iter().any(|own| own == group)
    }

    /// Namespace and name, if this is a service account.
    pub fn as_service_account(&self) -> Option<(&str, &str)> {
        split_service_account(self.name())
    }
}

/// `system:serviceaccount:<namespace>:<name>`
pub fn service_account_name(namespace: &str, name: &str) -> String {
    format!("{SERVICE_ACCOUNT_PREFIX}{namespace}:{name}")
}

/// The groups that every service account of `namespace` is in.
pub fn service_account_groups(namespace: &str) -> [String; 2] {
    [SERVICE_ACCOUNTS.to_owned(), format!("{SERVICE_ACCOUNT_GROUP_PREFIX}{namespace}")]
}

/// Namespace and name of a service account's user name; `None` for any other user.
///
/// As upstream, names that could not be those of a namespace (a DNS label) and a service account (a DNS subdomain)
/// are no service accounts.
pub fn split_service_account(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix(SERVICE_ACCOUNT_PREFIX)?.split_once(':')?;
    let are_names = dns::dns1123_label(namespace).is_empty() && dns::dns1123_subdomain(name).is_empty();
    are_names.then_some((namespace, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_account_names_split_only_when_well_formed() {
        let cases = [
            ("system:serviceaccount:ns:sa", Some(("ns", "sa"))),
            ("system:serviceaccount:ns:a.b-c.d", Some(("ns", "a.b-c.d"))),
            ("system:serviceaccount:ns:sa:more", None),
            ("system:serviceaccount:ns", None),
            ("system:serviceaccount::sa", None),
            ("system:serviceaccount:ns:", None),
            ("system:serviceaccount:n.s:sa", None),
            ("system:serviceaccount:NS:sa", None),
            ("system:serviceaccount:ns:-sa", None),
            ("jane", None),
        ];
        for (user, expected) in cases {
            assert_eq!(split_service_account(user), expected, "{user}");
        }
    }

    #[test]
    fn authenticated_is_added_once() {
        let user = UserInfo::service_account("ns", "sa", "1").authenticated().authenticated();
        assert_eq!(user.groups(), ["system:serviceaccounts", "system:serviceaccounts:ns", AUTHENTICATED]);
    }
}
