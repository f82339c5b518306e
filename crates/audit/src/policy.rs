//! The policy file: how much is recorded of which requests.

use apimachinery::field::{Error as FieldError, Path};
use auth::Attributes;
use serde::Deserialize;

use crate::event::Stage;

/// How much is recorded of a request.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    None,
    Metadata,
    Request,
    RequestResponse,
}

#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    #[error("{0}")]
    Yaml(String),
    #[error("it must be a Policy of audit.k8s.io/v1, not {kind:?} of {api_version:?}")]
    Kind { api_version: String, kind: String },
    #[error("it has no rules; nothing would be recorded")]
    NoRules,
    #[error("{0}")]
    Invalid(String),
}

/// An `audit.k8s.io/v1` Policy.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Policy {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    rules: Vec<Rule>,
    #[serde(default)]
    omit_stages: Vec<String>,
    #[serde(default)]
    omit_managed_fields: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    #[serde(default)]
    level: String,
    #[serde(default)]
    users: Vec<String>,
    #[serde(default)]
    user_groups: Vec<String>,
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    resources: Vec<GroupResources>,
    #[serde(default)]
    namespaces: Vec<String>,
    #[serde(default, rename = "nonResourceURLs")]
    paths: Vec<String>,
    #[serde(default)]
    omit_stages: Vec<String>,
    omit_managed_fields: Option<bool>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct GroupResources {
    #[serde(default)]
    group: String,
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    resource_names: Vec<String>,
}

/// What the policy says about one request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Audited<'a> {
    pub level: Level,
    pub omit_stages: &'a [String],
    pub omit_managed_fields: bool,
}

const LEVELS: [(&str, Level); 4] = [
    ("None", Level::None),
    ("Metadata", Level::Metadata),
    ("Request", Level::Request),
    ("RequestResponse", Level::RequestResponse),
];

impl Level {
    pub fn name(self) -> &'static str {
        LEVELS.iter().find(|(_, level)| *level == self).map_or("", |(name, _)| name)
    }

    fn parse(text: &str) -> Option<Self> {
        LEVELS.iter().find(|(name, _)| *name == text).map(|(_, level)| *level)
    }
}

impl Policy {
    /// Reads a policy file.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let value =
            apimachinery::Value::parse_yaml(text).map_err(|error| PolicyError::Yaml(error.to_string()))?;
        let policy: Self =
            serde_json::from_slice(&value.to_json()).map_err(|error| PolicyError::Yaml(error.to_string()))?;
        let Self { api_version, kind, rules, .. } = &policy;
        if (api_version.as_str(), kind.as_str()) != ("audit.k8s.io/v1", "Policy") {
            return Err(PolicyError::Kind { api_version: api_version.clone(), kind: kind.clone() });
        }
        if rules.is_empty() {
            return Err(PolicyError::NoRules);
        }
        let errors = policy.validate();
        if errors.is_empty() {
            return Ok(policy);
        }
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        Err(PolicyError::Invalid(if texts.len() == 1 {
            texts.concat()
        } else {
            format!("[{}]", texts.join(", "))
        }))
    }

    fn validate(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        stages(&mut errors, &self.omit_stages, &Path::root("omitStages"));
        let rules = Path::root("rules");
        for (index, rule) in self.rules.iter().enumerate() {
            rule.validate(&mut errors, &rules.index(index));
        }
        errors
    }

    /// The first rule that matches decides; without one nothing is recorded.
    pub(crate) fn evaluate(&self, request: &Attributes<'_>) -> Audited<'_> {
        match self.rules.iter().find(|rule| rule.matches(request)) {
            Some(rule) => Audited {
                level: Level::parse(&rule.level).unwrap_or(Level::None),
                omit_stages: if rule.omit_stages.is_empty() { &self.omit_stages } else { &rule.omit_stages },
                omit_managed_fields: rule.omit_managed_fields.unwrap_or(self.omit_managed_fields),
            },
            None => Audited {
                level: Level::None,
                omit_stages: &self.omit_stages,
                omit_managed_fields: self.omit_managed_fields,
            },
        }
    }
}

fn stages(errors: &mut Vec<FieldError>, given: &[String], path: &Path<'_>) {
    let known = Stage::ALL.map(Stage::name);
    for (index, stage) in given.iter().enumerate() {
        if !known.contains(&stage.as_str()) {
            let why = format!("allowed stages are {}", known.join(","));
            errors.push(FieldError::invalid(&path.index(index), stage.as_str(), why));
        }
    }
}

impl Rule {
    fn validate(&self, errors: &mut Vec<FieldError>, path: &Path<'_>) {
        let level = path.child("level");
        if self.level.is_empty() {
            errors.push(FieldError::required(&level, ""));
        } else if Level::parse(&self.level).is_none() {
            errors.push(FieldError::not_supported(
                &level,
                self.level.as_str(),
                &LEVELS.map(|(name, _)| name),
            ));
        }
        let paths = path.child("nonResourceURLs");
        for (index, own) in self.paths.iter().enumerate().filter(|(_, own)| *own != "*") {
            if !own.starts_with('/') {
                let why = "non-resource URL rules must begin with a '/' character";
                errors.push(FieldError::invalid(&paths.index(index), own.as_str(), why));
            }
            if own.char_indices().any(|(at, letter)| letter == '*' && at + 1 < own.len()) {
                let why = "non-resource URL wildcards '*' must be the final character of the rule";
                errors.push(FieldError::invalid(&paths.index(index), own.as_str(), why));
            }
        }
        let resources = path.child("resources");
        for own in &self.resources {
            if !own.resource_names.is_empty() && own.resources.is_empty() {
                let names = apimachinery::Value::from(own.resource_names.clone());
                let why = "using resourceNames requires at least one resource";
                errors.push(FieldError::invalid(&resources.child("resourceNames"), &names, why));
            }
        }
        stages(errors, &self.omit_stages, &path.child("omitStages"));
        let is_of_resources = !self.resources.is_empty() || !self.namespaces.is_empty();
        if !self.paths.is_empty() && is_of_resources {
            let why = "rules cannot apply to both regular resources and non-resource URLs";
            errors.push(FieldError::invalid(&paths, apimachinery::Value::from(self.paths.clone()), why));
        }
    }

    fn matches(&self, request: &Attributes<'_>) -> bool {
        let user = request.user;
        let holds = |list: &[String], value: &str| list.is_empty() || list.iter().any(|own| own == value);
        holds(&self.users, user.name())
            && (self.user_groups.is_empty() || self.user_groups.iter().any(|group| user.in_group(group)))
            && holds(&self.verbs, request.verb)
            && if !self.namespaces.is_empty() || !self.resources.is_empty() {
                request.resource_request
                    && holds(&self.namespaces, request.namespace)
                    && (self.resources.is_empty() || self.resources.iter().any(|own| own.matches(request)))
            } else if !self.paths.is_empty() {
                !request.resource_request && self.paths.iter().any(|own| covers(own, request.path))
            } else {
                true
            }
    }
}

fn covers(own: &str, path: &str) -> bool {
    own == "*" || own == path || own.strip_suffix('*').is_some_and(|prefix| path.starts_with(prefix))
}

impl GroupResources {
    fn matches(&self, request: &Attributes<'_>) -> bool {
        let named =
            self.resource_names.is_empty() || self.resource_names.iter().any(|own| own == request.name);
        (self.group == request.api_group || self.group == "*")
            && (self.resources.is_empty()
                || (named && self.resources.iter().any(|own| is_resource(own, request))))
    }
}

/// `*`, `resource`, `resource/subresource`, `*/subresource` or `resource/*`.
fn is_resource(own: &str, request: &Attributes<'_>) -> bool {
    match own.split_once('/') {
        None if own == "*" => true,
        None => own == request.resource && request.subresource.is_empty(),
        Some(("*", subresource)) => !request.subresource.is_empty() && subresource == request.subresource,
        Some((resource, "*")) => resource == request.resource,
        Some(parts) => parts == (request.resource, request.subresource),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use auth::UserInfo;

    fn policy(rules: &str) -> Result<Policy, String> {
        let text = format!(
            "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules:\n{rules}"
        );
        Policy::parse(&text).map_err(|error| error.to_string())
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let policy = policy(
            "- {level: None, users: [system:kube-proxy], verbs: [watch]}\n\
             - {level: RequestResponse, resources: [{group: '', resources: [pods, '*/status']}], omitStages: [Panic]}\n\
             - {level: Request, resources: [{group: apps, resources: [deployments], resourceNames: [web]}]}\n\
             - {level: None, nonResourceURLs: ['/healthz*', /version]}\n\
             - {level: Metadata, namespaces: [prod], omitManagedFields: true}\n",
        )
        .unwrap();
        let proxy = UserInfo::new("system:kube-proxy");
        let jane = UserInfo::new("jane");
        let of = |request: Attributes<'_>| policy.evaluate(&request).level;
        let pods = Attributes::resource(&jane, "get", "pods");
        assert_eq!(of(Attributes::resource(&proxy, "watch", "pods")), Level::None);
        assert_eq!(of(pods), Level::RequestResponse);
        assert_eq!(policy.evaluate(&pods).omit_stages, ["Panic"]);
        assert_eq!(
            of(Attributes { subresource: "status", ..Attributes::resource(&jane, "get", "nodes") }),
            Level::RequestResponse
        );
        assert_eq!(of(Attributes { subresource: "log", ..pods }), Level::None);
        let web = Attributes {
            api_group: "apps",
            name: "web",
            ..Attributes::resource(&jane, "get", "deployments")
        };
        assert_eq!(of(web), Level::Request);
        assert_eq!(of(Attributes { name: "db", ..web }), Level::None);
        assert_eq!(of(Attributes { name: "db", namespace: "prod", ..web }), Level::Metadata);
        assert!(policy.evaluate(&Attributes { name: "db", namespace: "prod", ..web }).omit_managed_fields);
        assert_eq!(policy.evaluate(&web).omit_stages, ["RequestReceived"]);
        assert_eq!(of(Attributes::non_resource(&jane, "get", "/healthz/etcd")), Level::None);
    }

    #[test]
    fn what_is_wrong_with_a_policy_is_said_with_its_path() {
        let cases = [
            (
                "- {level: Everything}",
                r#"rules[0].level: Unsupported value: "Everything": supported values: "None", "Metadata", "Request", "RequestResponse""#,
            ),
            ("- {users: [jane]}", "rules[0].level: Required value"),
            (
                "- {level: None, nonResourceURLs: [healthz]}",
                r#"rules[0].nonResourceURLs[0]: Invalid value: "healthz": non-resource URL rules must begin with a '/' character"#,
            ),
            (
                "- {level: None, omitStages: [Late]}",
                r#"rules[0].omitStages[0]: Invalid value: "Late": allowed stages are RequestReceived,ResponseStarted,ResponseComplete,Panic"#,
            ),
        ];
        for (rules, error) in cases {
            assert_eq!(policy(rules).unwrap_err(), error, "{rules}");
        }
        assert!(Policy::parse("apiVersion: v1\nkind: Policy\nrules: []").is_err());
        assert!(Policy::parse("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: []").is_err());
    }
}
