//! Hot path. Decides by roles and bindings.
//!
//! Bindings are kept by the subject they name, so that a decision looks at a user's own bindings and never at all of
//! them. What a user's bindings amount to is put together once (`Grants`) and kept until any RBAC object changes.
//!
//! **Invariant (grants-are-current):** grants are put together and stored under the read lock of the objects, and
//! dropped under their write lock. So no grant of an older state is ever found after a change returned.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::Arc;

use apimachinery::field::go_quote;
use parking_lot::RwLock;

use super::object::{Binding, Kind, RoleRef, Rules, Subject};
use super::rule::{CompiledRule, PolicyRule, verb_bit};
use crate::authorizer::{
    Attributes, Authorizer, Decision, NonResourceRule, Reason, ResolvedRules, ResourceRule,
};
use crate::user::{UserInfo, service_account_name};

/// So many sets of grants are kept: 10,000 users in a few namespaces each. Beyond, all are dropped and made again.
const GRANTS_MAX: usize = 65_536;

/// Namespace of what belongs to none.
const CLUSTER: &str = "";

/// The RBAC authorizer and the index behind it. Shared by reference; all methods take `&self`.
#[derive(Default)]
pub struct RbacAuthorizer {
    objects: RwLock<Objects>,
    grants: RwLock<HashMap<u64, Arc<Grants>>>,
    hasher: RandomState,
}

#[derive(Default)]
struct Objects {
    /// By namespace, then name; cluster roles under [`CLUSTER`].
    roles: HashMap<String, HashMap<String, Arc<[CompiledRule]>>>,
    /// By namespace; cluster role bindings under [`CLUSTER`].
    bindings: HashMap<String, Bindings>,
}

/// The bindings of one namespace. Ordered by name, so that the one that is given as the reason is always the same.
#[derive(Default)]
struct Bindings {
    by_name: HashMap<String, Arc<Binding>>,
    by_user: HashMap<String, BTreeMap<String, Arc<Binding>>>,
    by_group: HashMap<String, BTreeMap<String, Arc<Binding>>>,
}

/// What the bindings of one namespace, or those of the cluster, give to one user.
struct Grants {
    user: String,
    groups: Vec<String>,
    namespace: String,
    grants: Vec<Grant>,
    /// Bindings to roles that are not there.
    errors: Vec<String>,
}

struct Grant {
    reason: Reason,
    rules: Arc<[CompiledRule]>,
}

impl RbacAuthorizer {
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in an object as it is now, from its JSON. Cluster kinds have the namespace `""`.
    ///
    /// Fails if the JSON is not one of `kind`; the object then counts as it did before.
    pub fn upsert(
        &self,
        kind: Kind,
        namespace: &str,
        name: &str,
        json: &[u8],
    ) -> Result<(), serde_json::Error> {
        match kind {
            Kind::Role | Kind::ClusterRole => {
                let role: Rules = serde_json::from_slice(json)?;
                self.upsert_role(namespace, name, role.rules);
            }
            Kind::RoleBinding | Kind::ClusterRoleBinding => {
                self.upsert_binding(namespace, name, serde_json::from_slice(json)?);
            }
        }
        Ok(())
    }

    /// Takes in a Role, or with the namespace `""` a ClusterRole.
    pub fn upsert_role(&self, namespace: &str, name: &str, rules: Vec<PolicyRule>) {
        let rules = rules.into_iter().map(CompiledRule::new).collect();
        self.change(|objects| {
            objects.roles.entry(namespace.to_owned()).or_default().insert(name.to_owned(), rules);
        });
    }

    /// Takes in a RoleBinding, or with the namespace `""` a ClusterRoleBinding.
    pub fn upsert_binding(&self, namespace: &str, name: &str, binding: Binding) {
        self.change(|objects| {
            let bindings = objects.bindings.entry(namespace.to_owned()).or_default();
            bindings.remove(namespace, name);
            bindings.insert(namespace, name, Arc::new(binding));
        });
    }

    /// Forgets an object. One that is not there is no error.
    pub fn remove(&self, kind: Kind, namespace: &str, name: &str) {
        self.change(|objects| match kind {
            Kind::Role | Kind::ClusterRole => {
                if let Some(roles) = objects.roles.get_mut(namespace) {
                    roles.remove(name);
                    if roles.is_empty() {
                        objects.roles.remove(namespace);
                    }
                }
            }
            Kind::RoleBinding | Kind::ClusterRoleBinding => {
                if let Some(bindings) = objects.bindings.get_mut(namespace) {
                    bindings.remove(namespace, name);
                    if bindings.by_name.is_empty() {
                        objects.bindings.remove(namespace);
                    }
                }
            }
        });
    }

    /// All rules that `user` has in `namespace` (with `""`: in the cluster), and bindings that lead nowhere.
    pub fn rules_of(&self, user: &UserInfo, namespace: &str) -> (Vec<PolicyRule>, Vec<String>) {
        let (mut rules, mut errors) = (Vec::new(), Vec::new());
        for grants in self.grants_of(user, namespace) {
            let own = grants.grants.iter().flat_map(|grant| grant.rules.iter());
            rules.extend(own.map(|compiled| compiled.rule.clone()));
            errors.extend(grants.errors.iter().cloned());
        }
        (rules, errors)
    }

    /// The rules of the role that a binding in `namespace` refers to; `None` if there is no such role.
    pub fn rules_of_role(&self, role: &RoleRef, namespace: &str) -> Option<Vec<PolicyRule>> {
        let objects = self.objects.read();
        let rules = objects.find_role(role, namespace)?;
        Some(rules.iter().map(|compiled| compiled.rule.clone()).collect())
    }

    fn change(&self, change: impl FnOnce(&mut Objects)) {
        let mut objects = self.objects.write();
        change(&mut objects);
        self.grants.write().clear();
    }

    /// The user's grants in the cluster, then those in the namespace.
    fn grants_of(&self, user: &UserInfo, namespace: &str) -> impl Iterator<Item = Arc<Grants>> {
        let local = (namespace != CLUSTER).then_some(namespace);
        // Looked up one by one: most requests are allowed by the first.
        std::iter::once(CLUSTER).chain(local).map(move |namespace| self.grants_in(user, namespace))
    }

    fn grants_in(&self, user: &UserInfo, namespace: &str) -> Arc<Grants> {
        let key = self.key(user, namespace);
        if let Some(grants) = self.grants.read().get(&key).filter(|grants| grants.is_of(user, namespace)) {
            return Arc::clone(grants);
        }
        // The read lock is held until the grants are stored: see (grants-are-current).
        let objects = self.objects.read();
        let grants = Arc::new(objects.compile(user, namespace));
        let mut kept = self.grants.write();
        if kept.len() >= GRANTS_MAX {
            kept.clear();
        }
        kept.insert(key, Arc::clone(&grants));
        grants
    }

    fn key(&self, user: &UserInfo, namespace: &str) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        user.name().hash(&mut hasher);
        user.groups().hash(&mut hasher);
        namespace.hash(&mut hasher);
        hasher.finish()
    }
}

impl Authorizer for RbacAuthorizer {
    fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        let bit = verb_bit(attributes.verb);
        let mut errors = Vec::new();
        for grants in self.grants_of(attributes.user, attributes.namespace) {
            let allowing = |grant: &&Grant| grant.rules.iter().any(|rule| rule.allows(attributes, bit));
            if let Some(grant) = grants.grants.iter().find(allowing) {
                return Decision::Allow { reason: grant.reason.clone() };
            }
            errors.extend(grants.errors.iter().cloned());
        }
        Decision::NoOpinion { reason: resolution_reason(&errors) }
    }

    fn rules_for(&self, user: &UserInfo, namespace: &str) -> ResolvedRules {
        let (rules, errors) = self.rules_of(user, namespace);
        let mut resolved = ResolvedRules { errors, ..ResolvedRules::default() };
        for rule in rules {
            if !rule.resources.is_empty() {
                resolved.resource_rules.push(ResourceRule {
                    verbs: rule.verbs.clone(),
                    api_groups: rule.api_groups,
                    resources: rule.resources,
                    resource_names: rule.resource_names,
                });
            }
            if !rule.non_resource_urls.is_empty() {
                let non_resource_urls = rule.non_resource_urls;
                resolved.non_resource_rules.push(NonResourceRule { verbs: rule.verbs, non_resource_urls });
            }
        }
        resolved
    }
}

/// Several errors stand in brackets, one stands alone; each stands once.
fn resolution_reason(errors: &[String]) -> Reason {
    let mut distinct: Vec<&str> = Vec::new();
    for error in errors {
        if !distinct.contains(&error.as_str()) {
            distinct.push(error);
        }
    }
    match distinct.as_slice() {
        [] => Reason::NONE,
        [error] => format!("RBAC: {error}").into(),
        errors => format!("RBAC: [{}]", errors.join(", ")).into(),
    }
}

// === impl Objects ===

impl Objects {
    fn compile(&self, user: &UserInfo, namespace: &str) -> Grants {
        let (mut grants, mut errors) = (Vec::new(), Vec::new());
        for (name, binding) in self.bindings.get(namespace).map(|all| all.of(user)).unwrap_or_default() {
            let Some(subject) = binding.subjects.iter().find(|subject| subject.is(user, namespace)) else {
                continue;
            };
            match self.find_role(&binding.role_ref, namespace) {
                Some(rules) => grants.push(Grant {
                    reason: reason(namespace, name, binding, subject).into(),
                    rules: Arc::clone(rules),
                }),
                None => errors.push(not_found(&binding.role_ref)),
            }
        }
        Grants {
            user: user.name().to_owned(),
            groups: user.groups().to_vec(),
            namespace: namespace.to_owned(),
            grants,
            errors,
        }
    }

    fn find_role(&self, role: &RoleRef, namespace: &str) -> Option<&Arc<[CompiledRule]>> {
        let namespace = match role.kind.as_str() {
            "ClusterRole" => CLUSTER,
            "Role" if namespace != CLUSTER => namespace,
            _ => return None,
        };
        self.roles.get(namespace)?.get(&role.name)
    }
}

fn not_found(role: &RoleRef) -> String {
    match role.kind.as_str() {
        "ClusterRole" => format!("clusterrole.{} {} not found", super::GROUP, go_quote(&role.name)),
        "Role" => format!("role.{} {} not found", super::GROUP, go_quote(&role.name)),
        other => format!("unsupported role reference kind: {}", go_quote(other)),
    }
}

fn reason(namespace: &str, name: &str, binding: &Binding, subject: &Subject) -> String {
    let source = match namespace {
        CLUSTER => format!("ClusterRoleBinding {}", go_quote(name)),
        _ => format!("RoleBinding {}", go_quote(&format!("{name}/{namespace}"))),
    };
    let subject_name = match subject.kind.as_str() {
        "ServiceAccount" => go_quote(&format!("{}/{}", subject.name, subject.namespace_in(namespace))),
        _ => go_quote(&subject.name),
    };
    let RoleRef { kind, name: role, .. } = &binding.role_ref;
    format!("RBAC: allowed by {source} of {kind} {} to {} {subject_name}", go_quote(role), subject.kind)
}

impl Grants {
    fn is_of(&self, user: &UserInfo, namespace: &str) -> bool {
        self.user == user.name() && self.groups == user.groups() && self.namespace == namespace
    }
}

// === impl Bindings ===

/// What a subject comes down to when a request is looked at: service accounts are users too.
enum SubjectKey {
    User(String),
    Group(String),
}

impl Subject {
    fn namespace_in<'a>(&'a self, binding_namespace: &'a str) -> &'a str {
        if self.namespace.is_empty() { binding_namespace } else { &self.namespace }
    }

    /// `None` for a subject that names nobody.
    fn key(&self, binding_namespace: &str) -> Option<SubjectKey> {
        match self.kind.as_str() {
            "User" => Some(SubjectKey::User(self.name.clone())),
            "Group" => Some(SubjectKey::Group(self.name.clone())),
            "ServiceAccount" => match self.namespace_in(binding_namespace) {
                "" => None,
                namespace => Some(SubjectKey::User(service_account_name(namespace, &self.name))),
            },
            _ => None,
        }
    }

    fn is(&self, user: &UserInfo, binding_namespace: &str) -> bool {
        match self.key(binding_namespace) {
            Some(SubjectKey::User(name)) => name == user.name(),
            Some(SubjectKey::Group(group)) => user.in_group(&group),
            None => false,
        }
    }
}

impl Bindings {
    fn insert(&mut self, namespace: &str, name: &str, binding: Arc<Binding>) {
        for key in binding.subjects.iter().filter_map(|subject| subject.key(namespace)) {
            let of_subject = match key {
                SubjectKey::User(user) => self.by_user.entry(user).or_default(),
                SubjectKey::Group(group) => self.by_group.entry(group).or_default(),
            };
            of_subject.insert(name.to_owned(), Arc::clone(&binding));
        }
        self.by_name.insert(name.to_owned(), binding);
    }

    fn remove(&mut self, namespace: &str, name: &str) {
        let Some(binding) = self.by_name.remove(name) else { return };
        for key in binding.subjects.iter().filter_map(|subject| subject.key(namespace)) {
            let (by_subject, subject) = match key {
                SubjectKey::User(user) => (&mut self.by_user, user),
                SubjectKey::Group(group) => (&mut self.by_group, group),
            };
            if let Some(of_subject) = by_subject.get_mut(&subject) {
                of_subject.remove(name);
                if of_subject.is_empty() {
                    by_subject.remove(&subject);
                }
            }
        }
    }

    /// The bindings that name the user or one of its groups, by name.
    fn of(&self, user: &UserInfo) -> BTreeMap<&str, &Binding> {
        let of_user = self.by_user.get(user.name());
        let of_groups = user.groups().iter().filter_map(|group| self.by_group.get(group));
        of_user
            .into_iter()
            .chain(of_groups)
            .flatten()
            .map(|(name, binding)| (name.as_str(), binding.as_ref()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rbac() -> RbacAuthorizer {
        let rbac = RbacAuthorizer::new();
        let put = |kind: Kind, namespace: &str, name: &str, object: serde_json::Value| {
            rbac.upsert(kind, namespace, name, object.to_string().as_bytes()).unwrap();
        };
        let rules = |resource: &str| json!({"rules": [{"apiGroups": [""], "resources": [resource], "verbs": ["get"]}]});
        let binding = |kind: &str, role: &str, subjects: serde_json::Value| json!({"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role}, "subjects": subjects});
        put(Kind::ClusterRole, "", "pods", rules("pods"));
        put(Kind::ClusterRole, "", "secrets", rules("secrets"));
        put(Kind::Role, "a", "config", rules("configmaps"));
        put(Kind::ClusterRole, "", "empty", json!({"rules": null}));
        put(
            Kind::ClusterRoleBinding,
            "",
            "everywhere",
            binding(
                "ClusterRole",
                "pods",
                json!([
                    {"kind": "Group", "name": "watchers"},
                    {"kind": "User", "name": "jane"},
                    {"kind": "ServiceAccount", "namespace": "a", "name": "bot"},
                    {"kind": "ServiceAccount", "name": "homeless"},
                    {"kind": "Robot", "name": "jane"},
                ]),
            ),
        );
        put(
            Kind::RoleBinding,
            "a",
            "here",
            binding(
                "ClusterRole",
                "secrets",
                json!([
                    {"kind": "ServiceAccount", "name": "bot"}, {"kind": "User", "name": "jane"},
                ]),
            ),
        );
        put(
            Kind::RoleBinding,
            "a",
            "local",
            binding("Role", "config", json!([{"kind": "User", "name": "jane"}])),
        );
        put(
            Kind::RoleBinding,
            "b",
            "dangling",
            binding("Role", "config", json!([{"kind": "User", "name": "jane"}])),
        );
        put(Kind::ClusterRoleBinding, "", "nobody", binding("ClusterRole", "empty", json!(null)));
        rbac
    }

    fn decide(rbac: &RbacAuthorizer, user: &UserInfo, namespace: &str, resource: &str) -> String {
        match rbac.authorize(&Attributes { namespace, ..Attributes::resource(user, "get", resource) }) {
            Decision::Allow { reason } => reason.to_string(),
            Decision::NoOpinion { reason } => format!("no: {reason}"),
            Decision::Deny { .. } => panic!("RBAC never denies"),
        }
    }

    #[test]
    fn users_groups_and_service_accounts_get_what_their_bindings_give() {
        let rbac = rbac();
        let jane = UserInfo::new("jane");
        let watcher = UserInfo::new("w").with_groups(["other", "watchers"]);
        let bot = UserInfo::service_account("a", "bot", "1");
        let homeless = UserInfo::service_account("", "homeless", "1");
        let pods_of = |subject: &str| {
            format!(r#"RBAC: allowed by ClusterRoleBinding "everywhere" of ClusterRole "pods" to {subject}"#)
        };
        let cases = [
            (&jane, "", "pods", pods_of(r#"User "jane""#)),
            (&jane, "b", "pods", pods_of(r#"User "jane""#)),
            (&watcher, "a", "pods", pods_of(r#"Group "watchers""#)),
            (&bot, "b", "pods", pods_of(r#"ServiceAccount "bot/a""#)),
            (&homeless, "a", "pods", "no: ".into()),
            (
                &bot,
                "a",
                "secrets",
                r#"RBAC: allowed by RoleBinding "here/a" of ClusterRole "secrets" to ServiceAccount "bot/a""#
                    .into(),
            ),
            (&bot, "c", "secrets", "no: ".into()),
            (&bot, "", "secrets", "no: ".into()),
            (
                &jane,
                "a",
                "configmaps",
                r#"RBAC: allowed by RoleBinding "local/a" of Role "config" to User "jane""#.into(),
            ),
            (
                &jane,
                "b",
                "configmaps",
                r#"no: RBAC: role.rbac.authorization.k8s.io "config" not found"#.into(),
            ),
            (&UserInfo::new("Jane"), "a", "pods", "no: ".into()),
        ];
        for (user, namespace, resource, expected) in cases {
            // Twice: put together, and as kept.
            for _ in 0..2 {
                assert_eq!(decide(&rbac, user, namespace, resource), expected, "{resource} in {namespace}");
            }
        }
    }

    #[test]
    fn a_change_counts_at_once() {
        let rbac = rbac();
        let jane = UserInfo::new("jane");
        let allowed = |resource| !decide(&rbac, &jane, "a", resource).starts_with("no");
        assert!(allowed("pods") && allowed("secrets"));
        rbac.upsert_role("", "pods", vec![PolicyRule::resources(&["get"], &[""], &["nodes"])]);
        assert!(!allowed("pods") && allowed("nodes"));
        let elsewhere = Binding {
            role_ref: RoleRef { kind: "ClusterRole".into(), name: "secrets".into(), ..RoleRef::default() },
            subjects: vec![Subject { kind: "User".into(), name: "joe".into(), ..Subject::default() }],
        };
        rbac.upsert_binding("a", "here", elsewhere);
        assert!(!allowed("secrets"));
        rbac.remove(Kind::ClusterRoleBinding, "", "everywhere");
        rbac.remove(Kind::ClusterRoleBinding, "", "everywhere");
        assert!(!allowed("nodes"));
        assert!(allowed("configmaps"));
        rbac.remove(Kind::Role, "a", "config");
        assert!(!allowed("configmaps"));
    }

    #[test]
    fn nothing_is_left_of_what_was_removed() {
        let rbac = rbac();
        for (kind, namespace, name) in [
            (Kind::ClusterRole, "", "pods"),
            (Kind::ClusterRole, "", "secrets"),
            (Kind::ClusterRole, "", "empty"),
            (Kind::Role, "a", "config"),
            (Kind::ClusterRoleBinding, "", "everywhere"),
            (Kind::ClusterRoleBinding, "", "nobody"),
            (Kind::RoleBinding, "a", "here"),
            (Kind::RoleBinding, "a", "local"),
            (Kind::RoleBinding, "b", "dangling"),
        ] {
            rbac.remove(kind, namespace, name);
        }
        let objects = rbac.objects.read();
        assert!(objects.roles.is_empty() && objects.bindings.is_empty());
    }

    #[test]
    fn a_damaged_object_leaves_the_old_one_in_place() {
        let rbac = rbac();
        assert!(rbac.upsert(Kind::ClusterRole, "", "pods", br#"{"rules": 5}"#).is_err());
        assert!(!decide(&rbac, &UserInfo::new("jane"), "a", "pods").starts_with("no"));
    }

    #[test]
    fn rules_are_listed_for_the_cluster_and_the_namespace() {
        let rules = rbac().rules_for(&UserInfo::new("jane"), "a");
        let resources: Vec<_> = rules.resource_rules.iter().map(|rule| rule.resources.join(",")).collect();
        assert_eq!(resources, ["pods", "secrets", "configmaps"]);
        assert!(rules.errors.is_empty() && !rules.incomplete);
    }
}
