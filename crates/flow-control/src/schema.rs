//! FlowSchemas: which requests are one flow, and at which priority.

use auth::Attributes;
use serde::Deserialize;

/// Stands for every value in a list of a rule.
const ALL: &str = "*";

/// `spec` of a FlowSchema.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Spec {
    pub priority_level_configuration: LevelReference,
    #[serde(default)]
    pub matching_precedence: i32,
    pub distinguisher_method: Option<DistinguisherMethod>,
    #[serde(default)]
    pub rules: Vec<Rule>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct LevelReference {
    pub name: String,
}

/// What tells the flows of one schema apart.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(tag = "type")]
pub(crate) enum DistinguisherMethod {
    ByUser,
    ByNamespace,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Rule {
    #[serde(default)]
    subjects: Vec<Subject>,
    #[serde(default)]
    resource_rules: Vec<ResourceRule>,
    #[serde(default)]
    non_resource_rules: Vec<NonResourceRule>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "kind")]
enum Subject {
    User {
        user: Named,
    },
    Group {
        group: Named,
    },
    #[serde(rename_all = "camelCase")]
    ServiceAccount {
        service_account: Account,
    },
}

#[derive(Clone, Debug, Deserialize)]
struct Named {
    name: String,
}

#[derive(Clone, Debug, Deserialize)]
struct Account {
    namespace: String,
    name: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ResourceRule {
    verbs: Vec<String>,
    api_groups: Vec<String>,
    resources: Vec<String>,
    #[serde(default)]
    cluster_scope: bool,
    #[serde(default)]
    namespaces: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
struct NonResourceRule {
    verbs: Vec<String>,
    #[serde(rename = "nonResourceURLs")]
    paths: Vec<String>,
}

impl Spec {
    pub fn matches(&self, request: &Attributes<'_>) -> bool {
        self.rules.iter().any(|rule| rule.matches(request))
    }
}

impl DistinguisherMethod {
    /// What distinguishes the flow of this request.
    pub fn of<'a>(self, request: &Attributes<'a>) -> &'a str {
        match self {
            Self::ByUser => request.user.name(),
            Self::ByNamespace => request.namespace,
        }
    }
}

impl Rule {
    fn matches(&self, request: &Attributes<'_>) -> bool {
        self.subjects.iter().any(|subject| subject.matches(request))
            && if request.resource_request {
                self.resource_rules.iter().any(|rule| rule.matches(request))
            } else {
                self.non_resource_rules.iter().any(|rule| rule.matches(request))
            }
    }
}

impl Subject {
    fn matches(&self, request: &Attributes<'_>) -> bool {
        let user = request.user;
        match self {
            Self::User { user: Named { name } } => name == ALL || name == user.name(),
            Self::Group { group: Named { name } } => name == ALL || user.in_group(name),
            Self::ServiceAccount { service_account: Account { namespace, name } } => {
                let own = user.name().strip_prefix(auth::user::SERVICE_ACCOUNT_PREFIX);
                own.and_then(|own| own.split_once(':')).is_some_and(|(own_namespace, own_name)| {
                    own_namespace == namespace && (name == ALL || own_name == name)
                })
            }
        }
    }
}

impl ResourceRule {
    fn matches(&self, request: &Attributes<'_>) -> bool {
        holds(&self.verbs, request.verb)
            && holds_resource(&self.resources, request)
            && holds(&self.api_groups, request.api_group)
            && if request.namespace.is_empty() {
                self.cluster_scope
            } else {
                holds(&self.namespaces, request.namespace)
            }
    }
}

impl NonResourceRule {
    fn matches(&self, request: &Attributes<'_>) -> bool {
        holds(&self.verbs, request.verb) && self.paths.iter().any(|own| covers(own, request.path))
    }
}

/// A path covers itself and, with or without `/*` at its end, all below it.
fn covers(own: &str, path: &str) -> bool {
    if own == ALL || own == path {
        return true;
    }
    let prefix = own.strip_suffix('*').unwrap_or(own);
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    path.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'))
}

fn holds(list: &[String], value: &str) -> bool {
    matches!(list, [only] if only == ALL) || list.iter().any(|own| own == value)
}

/// `resource` or `resource/subresource`.
fn holds_resource(list: &[String], request: &Attributes<'_>) -> bool {
    if request.subresource.is_empty() {
        return holds(list, request.resource);
    }
    let is_request = |own: &String| {
        own.split_once('/').is_some_and(|parts| parts == (request.resource, request.subresource))
    };
    matches!(list, [only] if only == ALL) || list.iter().any(is_request)
}

#[cfg(test)]
mod tests {
    use super::*;
    use auth::UserInfo;

    fn rule(json: &str) -> Rule {
        serde_json::from_str(json).expect("a rule")
    }

    #[test]
    fn subjects_are_matched_by_name_group_and_account() {
        let rules = r#""nonResourceRules":[{"verbs":["*"],"nonResourceURLs":["*"]}]"#;
        let robot = UserInfo::service_account("tools", "robot", "");
        let jane = UserInfo::new("jane").with_groups(["devs"]);
        let cases = [
            (r#"{"kind":"User","user":{"name":"jane"}}"#, &jane, true),
            (r#"{"kind":"User","user":{"name":"*"}}"#, &robot, true),
            (r#"{"kind":"User","user":{"name":"jan"}}"#, &jane, false),
            (r#"{"kind":"Group","group":{"name":"devs"}}"#, &jane, true),
            (r#"{"kind":"Group","group":{"name":"*"}}"#, &jane, true),
            (r#"{"kind":"Group","group":{"name":"devs"}}"#, &robot, false),
            (r#"{"kind":"ServiceAccount","serviceAccount":{"namespace":"tools","name":"*"}}"#, &robot, true),
            (
                r#"{"kind":"ServiceAccount","serviceAccount":{"namespace":"tools","name":"robot"}}"#,
                &robot,
                true,
            ),
            (r#"{"kind":"ServiceAccount","serviceAccount":{"namespace":"tool","name":"*"}}"#, &robot, false),
            (
                r#"{"kind":"ServiceAccount","serviceAccount":{"namespace":"tools","name":"robo"}}"#,
                &robot,
                false,
            ),
        ];
        for (subject, user, wanted) in cases {
            let rule = rule(&format!("{{\"subjects\":[{subject}],{rules}}}"));
            assert_eq!(rule.matches(&Attributes::non_resource(user, "get", "/version")), wanted, "{subject}");
        }
    }

    #[test]
    fn resources_are_matched_by_verb_group_subresource_and_scope() {
        let user = UserInfo::new("jane");
        let rule = rule(
            r#"{"subjects":[{"kind":"User","user":{"name":"*"}}],"resourceRules":[
                {"verbs":["get","list"],"apiGroups":["apps"],"resources":["deployments","deployments/scale"],
                 "namespaces":["prod"]},
                {"verbs":["*"],"apiGroups":[""],"resources":["nodes"],"clusterScope":true}]}"#,
        );
        let request = |verb, group, resource, subresource, namespace| {
            let api_group = group;
            rule.matches(&Attributes {
                api_group,
                subresource,
                namespace,
                ..Attributes::resource(&user, verb, resource)
            })
        };
        assert!(request("get", "apps", "deployments", "", "prod"));
        assert!(request("get", "apps", "deployments", "scale", "prod"));
        assert!(!request("get", "apps", "deployments", "status", "prod"));
        assert!(!request("get", "apps", "deployments", "", "test"));
        assert!(!request("get", "apps", "deployments", "", ""));
        assert!(!request("get", "", "deployments", "", "prod"));
        assert!(!request("patch", "apps", "deployments", "", "prod"));
        assert!(request("patch", "", "nodes", "", ""));
        assert!(!request("patch", "", "nodes", "status", ""));
    }

    #[test]
    fn a_path_covers_what_is_below_it() {
        let cases = [
            ("*", "/x", true),
            ("/healthz", "/healthz", true),
            ("/healthz", "/healthz/etcd", true),
            ("/healthz", "/healthzz", false),
            ("/api/*", "/api/v1", true),
            ("/api/*", "/apis", false),
        ];
        for (own, path, wanted) in cases {
            assert_eq!(covers(own, path), wanted, "{own} {path}");
        }
    }
}
