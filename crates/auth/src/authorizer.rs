//! What an authorizer is asked and what it answers.

use std::fmt::{self, Debug, Write};
use std::ops::Deref;
use std::sync::Arc;

use apimachinery::field::go_quote;
use apimachinery::selector::{FieldRequirement, Requirement};
use apimachinery::status::Details;
use apimachinery::{GroupResource, Status};

use crate::user::{self, UserInfo};
use telemetry::DecisionHandle;

/// What a request wants to do. Empty strings mean "none", as upstream.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a> {
    pub user: &'a UserInfo,
    /// The API verb (`get`, `list`, `deletecollection` …), or the lower-case HTTP method for other paths.
    pub verb: &'a str,
    pub api_group: &'a str,
    pub api_version: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
    /// The path, for requests that are not for a resource.
    pub path: &'a str,
    pub resource_request: bool,
    /// Requirements of the request's field selector, if it parsed. An authorizer may take them as a promise: nothing
    /// else will be shown or deleted.
    pub field_selector: &'a [FieldRequirement],
    /// Requirements of the request's label selector, if it parsed.
    pub label_selector: &'a [Requirement],
}

impl<'a> Attributes<'a> {
    /// A request for a resource of the core group at cluster scope; the other fields are set with struct update.
    pub fn resource(user: &'a UserInfo, verb: &'a str, resource: &'a str) -> Self {
        Self { resource_request: true, resource, ..Self::non_resource(user, verb, "") }
    }

    /// A request for a path that is no resource, such as `/healthz`.
    pub fn non_resource(user: &'a UserInfo, verb: &'a str, path: &'a str) -> Self {
        Self {
            user,
            verb,
            path,
            api_group: "",
            api_version: "",
            resource: "",
            subresource: "",
            namespace: "",
            name: "",
            resource_request: false,
            field_selector: &[],
            label_selector: &[],
        }
    }
}

/// Why an authorizer decided; often empty. Cheap to clone, so that decisions allocate nothing.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Reason(Option<Arc<str>>);

impl Reason {
    pub const NONE: Self = Self(None);
}

impl Deref for Reason {
    type Target = str;

    fn deref(&self) -> &str {
        self.0.as_deref().unwrap_or("")
    }
}

impl Debug for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Debug::fmt(&**self, f)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl From<Arc<str>> for Reason {
    fn from(text: Arc<str>) -> Self {
        Self(Some(text))
    }
}

impl From<&str> for Reason {
    fn from(text: &str) -> Self {
        Self((!text.is_empty()).then(|| text.into()))
    }
}

impl From<String> for Reason {
    fn from(text: String) -> Self {
        text.as_str().into()
    }
}

/// An authorizer's answer. `NoOpinion` leaves it to the next one; if all say so, the request is forbidden.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Allow { reason: Reason },
    Deny { reason: Reason },
    NoOpinion { reason: Reason },
}

impl Decision {
    pub fn is_allowed(&self) -> bool {
        matches!(self, Self::Allow { .. })
    }

    /// As metrics name it.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Allow { .. } => "allowed",
            Self::Deny { .. } => "denied",
            Self::NoOpinion { .. } => "no-opinion",
        }
    }

    pub fn reason(&self) -> &Reason {
        match self {
            Self::Allow { reason } | Self::Deny { reason } | Self::NoOpinion { reason } => reason,
        }
    }
}

/// What a user may do with resources, for a SelfSubjectRulesReview.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResourceRule {
    pub verbs: Vec<String>,
    pub api_groups: Vec<String>,
    pub resources: Vec<String>,
    pub resource_names: Vec<String>,
}

/// What a user may do with other paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NonResourceRule {
    pub verbs: Vec<String>,
    pub non_resource_urls: Vec<String>,
}

/// All that an authorizer can tell about a user's rights in a namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolvedRules {
    pub resource_rules: Vec<ResourceRule>,
    pub non_resource_rules: Vec<NonResourceRule>,
    /// True where the user may have rights that are not listed.
    pub incomplete: bool,
    /// Why it is incomplete.
    pub errors: Vec<String>,
}

/// Decides whether a request may go on. Answers from memory.
pub trait Authorizer: Send + Sync {
    fn authorize(&self, attributes: &Attributes<'_>) -> Decision;

    /// The rules that [`Authorizer::authorize`] goes by for `user` in `namespace`.
    fn rules_for(&self, user: &UserInfo, namespace: &str) -> ResolvedRules;
}

/// Asks one authorizer after the other until one allows or denies.
pub struct Authorizers(Vec<Arc<dyn Authorizer>>);

impl Authorizers {
    pub fn new(authorizers: Vec<Arc<dyn Authorizer>>) -> Self {
        Self(authorizers)
    }
}

impl Authorizer for Authorizers {
    fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        // Reasons are joined only when nobody decides: most requests are allowed by the first or second.
        let mut reasons = String::new();
        for authorizer in &self.0 {
            match authorizer.authorize(attributes) {
                Decision::NoOpinion { reason } if reason.is_empty() => {}
                Decision::NoOpinion { reason } => {
                    let separator = if reasons.is_empty() { "" } else { "\n" };
                    _ = write!(reasons, "{separator}{reason}");
                }
                decided => return decided,
            }
        }
        Decision::NoOpinion { reason: reasons.into() }
    }

    fn rules_for(&self, user: &UserInfo, namespace: &str) -> ResolvedRules {
        let mut all = ResolvedRules::default();
        for authorizer in &self.0 {
            let rules = authorizer.rules_for(user, namespace);
            all.resource_rules.extend(rules.resource_rules);
            all.non_resource_rules.extend(rules.non_resource_rules);
            all.incomplete |= rules.incomplete;
            all.errors.extend(rules.errors);
        }
        all
    }
}

/// An authorizer whose decisions are counted.
pub struct Counted {
    authorizer: Arc<dyn Authorizer>,
    decisions: DecisionHandle,
}

impl Counted {
    /// `kind` and `name` are those of the configuration: `RBAC` and `rbac`.
    pub fn new(authorizer: Arc<dyn Authorizer>, kind: &str, name: &str) -> Self {
        Self { authorizer, decisions: telemetry::metrics().access.decisions(kind, name) }
    }
}

impl Authorizer for Counted {
    fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        let decision = self.authorizer.authorize(attributes);
        match &decision {
            Decision::Allow { .. } => self.decisions.allowed.inc(),
            Decision::Deny { .. } => self.decisions.denied.inc(),
            Decision::NoOpinion { .. } => {}
        }
        decision
    }

    fn rules_for(&self, user: &UserInfo, namespace: &str) -> ResolvedRules {
        self.authorizer.rules_for(user, namespace)
    }
}

/// Lets members of one group do everything: the way back in when RBAC is broken.
pub struct PrivilegedGroup(&'static str);

impl PrivilegedGroup {
    /// `system:masters`
    pub fn masters() -> Self {
        Self(user::MASTERS)
    }
}

impl Authorizer for PrivilegedGroup {
    fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        match attributes.user.in_group(self.0) {
            true => Decision::Allow { reason: Reason::NONE },
            false => Decision::NoOpinion { reason: Reason::NONE },
        }
    }

    /// Nothing: upstream lists for the group only what RBAC gives it.
    fn rules_for(&self, _: &UserInfo, _: &str) -> ResolvedRules {
        ResolvedRules::default()
    }
}

/// The `403 Forbidden` that upstream answers: what was asked for, by whom, and `reason` if there is one.
pub fn forbidden(attributes: &Attributes<'_>, reason: &str) -> Status {
    let mut why = sanitized(&denial(attributes));
    if !reason.is_empty() {
        _ = write!(why, ": {reason}");
    }
    if !attributes.resource_request {
        return Status::new(403, "Forbidden", format!("forbidden: {why}")).with_details(Details::default());
    }
    let resource = GroupResource { group: attributes.api_group.into(), resource: attributes.resource.into() };
    Status::forbidden(&resource, attributes.name, why)
}

fn denial(attributes: &Attributes<'_>) -> String {
    let Attributes { user, verb, api_group, resource, subresource, namespace, path, .. } = *attributes;
    let user = go_quote(user.name());
    if !attributes.resource_request {
        return format!("User {user} cannot {verb} path {}", go_quote(path));
    }
    let resource = match subresource {
        "" => go_quote(resource),
        _ => go_quote(&format!("{resource}/{subresource}")),
    };
    let scope = match namespace {
        "" => "at the cluster scope".to_owned(),
        _ => format!("in the namespace {}", go_quote(namespace)),
    };
    format!("User {user} cannot {verb} resource {resource} in API group {} {scope}", go_quote(api_group))
}

/// Nothing that a browser could take for markup leaves in an error.
fn sanitized(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed(Decision);

    impl Authorizer for Fixed {
        fn authorize(&self, _: &Attributes<'_>) -> Decision {
            self.0.clone()
        }

        fn rules_for(&self, _: &UserInfo, _: &str) -> ResolvedRules {
            let errors = vec![self.0.reason().to_string()];
            ResolvedRules { incomplete: true, errors, ..ResolvedRules::default() }
        }
    }

    #[test]
    fn forbidden_messages_are_those_of_upstream() {
        let jane = UserInfo::new("jane");
        let pods = Attributes { namespace: "rec", ..Attributes::resource(&jane, "get", "pods") };
        let role = Attributes {
            api_group: "rbac.authorization.k8s.io",
            ..Attributes::resource(&jane, "create", "clusterroles")
        };
        let cases = [
            (
                Attributes { name: "x", ..pods },
                "",
                r#"pods "x" is forbidden: User "jane" cannot get resource "pods" in API group "" in the namespace "rec""#,
            ),
            (
                Attributes { verb: "list", ..pods },
                "",
                r#"pods is forbidden: User "jane" cannot list resource "pods" in API group "" in the namespace "rec""#,
            ),
            (
                Attributes { name: "x", subresource: "log", ..pods },
                "",
                r#"pods "x" is forbidden: User "jane" cannot get resource "pods/log" in API group "" in the namespace "rec""#,
            ),
            (
                role,
                "",
                r#"clusterroles.rbac.authorization.k8s.io is forbidden: User "jane" cannot create resource "clusterroles" in API group "rbac.authorization.k8s.io" at the cluster scope"#,
            ),
            (
                Attributes::non_resource(&jane, "get", "/metrics"),
                "",
                r#"forbidden: User "jane" cannot get path "/metrics""#,
            ),
            (
                Attributes::non_resource(&jane, "get", "/<a>&"),
                "because",
                r#"forbidden: User "jane" cannot get path "/&lt;a&gt;&amp;": because"#,
            ),
        ];
        for (attributes, reason, expected) in cases {
            assert_eq!(forbidden(&attributes, reason).message, expected);
        }
    }

    #[test]
    fn the_first_decision_counts_and_silent_ones_leave_their_reasons() {
        let no = |reason: &str| Decision::NoOpinion { reason: reason.into() };
        let (allow, deny) =
            (Decision::Allow { reason: "yes".into() }, Decision::Deny { reason: "never".into() });
        let cases = [
            (vec![], no("")),
            (vec![no("a"), no(""), no("b")], no("a\nb")),
            (vec![no("a"), allow.clone(), deny.clone()], allow.clone()),
            (vec![deny.clone(), allow.clone()], deny.clone()),
        ];
        let jane = UserInfo::new("jane");
        for (decisions, expected) in cases {
            let authorizers = decisions
                .into_iter()
                .map(|decision| Arc::new(Fixed(decision)) as Arc<dyn Authorizer>)
                .collect();
            let decision =
                Authorizers::new(authorizers).authorize(&Attributes::resource(&jane, "get", "pods"));
            assert_eq!(decision, expected);
        }
    }

    #[test]
    fn masters_may_do_everything_and_nobody_else() {
        let privileged = PrivilegedGroup::masters();
        let root = UserInfo::new("root").with_groups([user::MASTERS]);
        assert!(privileged.authorize(&Attributes::resource(&root, "*", "*")).is_allowed());
        let jane = UserInfo::new(user::MASTERS).with_groups([user::AUTHENTICATED]);
        assert!(!privileged.authorize(&Attributes::resource(&jane, "*", "*")).is_allowed());
    }
}
