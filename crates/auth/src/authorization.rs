//! Which authorizers are asked, in which order: the AuthorizationConfiguration file, or a list of modes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::dns;
use camino::Utf8Path;
use serde::Deserialize;
use webhook::{Client, ClientConfig, NoServices, ServiceResolver};

use crate::authorizer::{
    Attributes, Authorizer, Decision, NonResourceRule, Reason, ResolvedRules, ResourceRule,
};
use crate::field_path::{PathError, read};
use crate::remote::access::{AccessWebhook, AccessWebhookOptions, MatchCondition};
use crate::user::UserInfo;

const VERSIONS: [&str; 2] = ["apiserver.config.k8s.io/v1", "apiserver.config.k8s.io/v1beta1"];
const MODES: [&str; 5] = ["AlwaysAllow", "AlwaysDeny", "Node", "RBAC", "Webhook"];
const TIMEOUT_MAX: Duration = Duration::from_secs(30);
const CONDITIONS_MAX: usize = 64;

pub const AUTHORIZED_TTL: Duration = Duration::from_secs(5 * 60);
pub const UNAUTHORIZED_TTL: Duration = Duration::from_secs(30);

/// One of those that are asked.
#[derive(Clone)]
pub enum Link {
    AlwaysAllow,
    AlwaysDeny,
    Node,
    Rbac,
    Webhook(Arc<AccessWebhook>),
}

impl Link {
    /// What a configuration calls it: its type, and the name that it has there or by default.
    pub fn kind_and_name(&self) -> (&'static str, &str) {
        match self {
            Self::AlwaysAllow => ("AlwaysAllow", "alwaysallow"),
            Self::AlwaysDeny => ("AlwaysDeny", "alwaysdeny"),
            Self::Node => ("Node", "node"),
            Self::Rbac => ("RBAC", "rbac"),
            Self::Webhook(webhook) => ("Webhook", webhook.name()),
        }
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::AlwaysAllow => "AlwaysAllow",
            Self::AlwaysDeny => "AlwaysDeny",
            Self::Node => "Node",
            Self::Rbac => "RBAC",
            Self::Webhook(_) => "Webhook",
        })
    }
}

/// Answers the same to everybody.
pub struct Always {
    pub allow: bool,
}

impl Authorizer for Always {
    fn authorize(&self, _: &Attributes<'_>) -> Decision {
        if self.allow {
            return Decision::Allow { reason: Reason::NONE };
        }
        Decision::NoOpinion { reason: "Everything is forbidden.".into() }
    }

    fn rules_for(&self, _: &UserInfo, _: &str) -> ResolvedRules {
        if !self.allow {
            return ResolvedRules::default();
        }
        let all = || vec!["*".to_owned()];
        let resources =
            ResourceRule { verbs: all(), api_groups: all(), resources: all(), ..Default::default() };
        ResolvedRules {
            resource_rules: vec![resources],
            non_resource_rules: vec![NonResourceRule { verbs: all(), non_resource_urls: all() }],
            ..ResolvedRules::default()
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Configuration {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    #[serde(default)]
    authorizers: Vec<AuthorizerOptions>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct AuthorizerOptions {
    #[serde(rename = "type", default)]
    mode: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    webhook: Option<WebhookOptions>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct WebhookOptions {
    #[serde(rename = "authorizedTTL")]
    authorized_ttl: Option<String>,
    cache_authorized_requests: Option<bool>,
    #[serde(rename = "unauthorizedTTL")]
    unauthorized_ttl: Option<String>,
    cache_unauthorized_requests: Option<bool>,
    timeout: Option<String>,
    subject_access_review_version: String,
    match_condition_subject_access_review_version: String,
    failure_policy: String,
    connection_info: ConnectionInfo,
    match_conditions: Vec<Condition>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct ConnectionInfo {
    #[serde(rename = "type")]
    kind: String,
    kube_config_file: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Condition {
    #[serde(default)]
    expression: String,
}

/// The links of a configuration file. The errors name fields, all that are wrong.
pub fn parse(text: &str) -> Result<Vec<Link>, Vec<PathError>> {
    let configuration: Configuration =
        read(text, "AuthorizationConfiguration", &VERSIONS).map_err(|error| vec![error])?;
    let (mut errors, mut links) = (Vec::new(), Vec::new());
    if configuration.authorizers.is_empty() {
        errors.push(PathError::required("authorizers", "at least one authorization mode must be defined"));
    }
    let (mut modes, mut names) = (BTreeSet::new(), BTreeSet::new());
    for (index, authorizer) in configuration.authorizers.iter().enumerate() {
        let path = format!("authorizers[{index}]");
        let mode = authorizer.mode.as_str();
        if mode.is_empty() {
            errors.push(PathError::required(format!("{path}.type"), ""));
        } else if !MODES.contains(&mode) {
            errors.push(PathError::unsupported(format!("{path}.type"), mode, &MODES));
        } else if !modes.insert(mode) && mode != "Webhook" {
            errors.push(PathError::duplicate(format!("{path}.type"), mode));
        } else {
            check_name(&mut errors, &mut names, &authorizer.name, &path);
            links.extend(link(&mut errors, authorizer, &path));
        }
    }
    if errors.is_empty() { Ok(links) } else { Err(errors) }
}

/// The link of a mode that needs nothing more.
pub fn of_mode(mode: &str) -> Option<Link> {
    Some(match mode {
        "AlwaysAllow" => Link::AlwaysAllow,
        "AlwaysDeny" => Link::AlwaysDeny,
        "Node" => Link::Node,
        "RBAC" => Link::Rbac,
        _ => return None,
    })
}

/// A webhook that a kubeconfig file names.
pub fn webhook(
    name: &str,
    file: &Utf8Path,
    options: AccessWebhookOptions,
    conditions: Vec<MatchCondition>,
) -> Result<Link, String> {
    let resolver: Arc<dyn ServiceResolver> = Arc::new(NoServices);
    let config = ClientConfig::from_kubeconfig(file).map_err(|error| telemetry::chain(&error).to_string())?;
    let client = Client::new(&config, &resolver).map_err(|error| error.to_string())?;
    Ok(Link::Webhook(Arc::new(AccessWebhook::new(name, client, options, conditions))))
}

fn check_name<'a>(errors: &mut Vec<PathError>, names: &mut BTreeSet<&'a str>, name: &'a str, path: &str) {
    let path = format!("{path}.name");
    let problems = dns::dns1123_subdomain(name);
    if name.is_empty() {
        errors.push(PathError::required(path, ""));
    } else if !names.insert(name) {
        errors.push(PathError::duplicate(path, name));
    } else if !problems.is_empty() {
        let detail = format!("authorizer name is invalid: {}", problems.join(", "));
        errors.push(PathError::invalid(path, name, detail));
    }
}

fn link(errors: &mut Vec<PathError>, authorizer: &AuthorizerOptions, path: &str) -> Option<Link> {
    match (of_mode(&authorizer.mode), &authorizer.webhook) {
        (None, None) => {
            errors.push(PathError::required(format!("{path}.webhook"), "required when type=Webhook"));
            None
        }
        (Some(link), None) => Some(link),
        (Some(_), Some(_)) => {
            let detail = "may only be specified when type=Webhook";
            errors.push(PathError::invalid(format!("{path}.webhook"), "non-null", detail));
            None
        }
        (None, Some(options)) => webhook_link(errors, &authorizer.name, options, path),
    }
}

/// As upstream, what is wrong with the webhook is told by the path of its authorizer.
fn webhook_link(
    errors: &mut Vec<PathError>,
    name: &str,
    options: &WebhookOptions,
    path: &str,
) -> Option<Link> {
    let before = errors.len();
    let timeout = duration(errors, options.timeout.as_deref(), &format!("{path}.timeout"), None);
    if timeout > TIMEOUT_MAX {
        let given = options.timeout.as_deref().unwrap_or_default();
        errors.push(PathError::invalid(format!("{path}.timeout"), given, "must be > 0s and <= 30s"));
    }
    let (given, ttl_path) = (options.authorized_ttl.as_deref(), format!("{path}.authorizedTTL"));
    let authorized_ttl = duration(errors, given, &ttl_path, Some(AUTHORIZED_TTL));
    let (given, ttl_path) = (options.unauthorized_ttl.as_deref(), format!("{path}.unauthorizedTTL"));
    let unauthorized_ttl = duration(errors, given, &ttl_path, Some(UNAUTHORIZED_TTL));
    let choices = [
        ("subjectAccessReviewVersion", &options.subject_access_review_version, &["v1", "v1beta1"][..]),
        ("failurePolicy", &options.failure_policy, &["NoOpinion", "Deny"]),
        ("connectionInfo.type", &options.connection_info.kind, &["KubeConfigFile"]),
    ];
    for (field, given, allowed) in choices {
        if given.is_empty() {
            errors.push(PathError::required(format!("{path}.{field}"), ""));
        } else if !allowed.contains(&given.as_str()) {
            errors.push(PathError::unsupported(format!("{path}.{field}"), given, allowed));
        }
    }
    let conditions = conditions(errors, options, path);
    let file_path = format!("{path}.connectionInfo.kubeConfigFile");
    let file = Utf8Path::new(options.connection_info.kube_config_file.as_deref().unwrap_or_default());
    if file.as_str().is_empty() {
        errors.push(PathError::required(&file_path, ""));
    } else if !file.is_absolute() {
        errors.push(PathError::invalid(&file_path, file.as_str(), "must be an absolute path"));
    }
    if errors.len() > before {
        return None;
    }
    let kept = |ttl, keep: Option<bool>| if keep.unwrap_or(true) { ttl } else { Duration::ZERO };
    let asked = AccessWebhookOptions {
        version: options.subject_access_review_version.clone(),
        authorized_ttl: kept(authorized_ttl, options.cache_authorized_requests),
        unauthorized_ttl: kept(unauthorized_ttl, options.cache_unauthorized_requests),
        timeout,
        deny_on_error: options.failure_policy == "Deny",
    };
    match webhook(name, file, asked, conditions) {
        Ok(link) => Some(link),
        Err(problem) => {
            let detail = format!("error loading file: {problem}");
            errors.push(PathError::invalid(file_path, file.as_str(), detail));
            None
        }
    }
}

/// A duration in Go's form; without a default it has to be there. Zero where something is wrong.
fn duration(
    errors: &mut Vec<PathError>,
    given: Option<&str>,
    path: &str,
    default: Option<Duration>,
) -> Duration {
    let Some(text) = given else {
        if default.is_none() {
            errors.push(PathError::required(path, ""));
        }
        return default.unwrap_or_default();
    };
    let nanoseconds = apimachinery::duration::parse(text).ok();
    let parsed = nanoseconds.and_then(|own| u64::try_from(own).ok()).map(Duration::from_nanos);
    match parsed {
        Some(duration) if !duration.is_zero() => return duration,
        Some(_) => errors.push(PathError::required(path, "")),
        None => errors.push(PathError::invalid(path, text, "must be a duration > 0s such as 3s or 5m")),
    }
    Duration::ZERO
}

fn conditions(errors: &mut Vec<PathError>, options: &WebhookOptions, path: &str) -> Vec<MatchCondition> {
    let version = options.match_condition_subject_access_review_version.as_str();
    let version_path = format!("{path}.matchConditionSubjectAccessReviewVersion");
    match version {
        "" if !options.match_conditions.is_empty() => {
            errors.push(PathError::required(version_path, "required if match conditions are specified"));
        }
        "" | "v1" => {}
        other => errors.push(PathError::unsupported(version_path, other, &["v1"])),
    }
    if options.match_conditions.len() > CONDITIONS_MAX {
        let count = options.match_conditions.len();
        let problem = format!("Too many: {count}: must have at most {CONDITIONS_MAX} items");
        errors.push(PathError::new(format!("{path}.matchConditions"), problem));
        return Vec::new();
    }
    let (mut all, mut seen) = (Vec::new(), BTreeSet::new());
    for (index, condition) in options.match_conditions.iter().enumerate() {
        let text = condition.expression.as_str();
        let path = format!("{path}.matchConditions[{index}].expression");
        if text.trim().is_empty() {
            errors.push(PathError::required(path, ""));
        } else if !seen.insert(text) {
            errors.push(PathError::duplicate(path, text));
        } else {
            match MatchCondition::compile(text) {
                Ok(condition) => all.push(condition),
                Err(problem) => errors.push(PathError::invalid(path, text, problem)),
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(authorizers: &str) -> String {
        let text = format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\nauthorizers: {authorizers}\n"
        );
        match parse(&text) {
            Ok(links) => links.iter().map(|link| format!("{link:?}")).collect::<Vec<_>>().join(","),
            Err(errors) => errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
        }
    }

    #[test]
    fn a_configuration_is_a_chain_or_says_what_is_wrong() {
        let cases = [
            ("[{type: Node, name: node}, {type: RBAC, name: rbac}]", "Node,RBAC"),
            ("[]", "authorizers: Required value: at least one authorization mode must be defined"),
            (
                "[{type: ABAC, name: a}]",
                "authorizers[0].type: Unsupported value: \"ABAC\": supported values: \"AlwaysAllow\", \"AlwaysDeny\", \
                 \"Node\", \"RBAC\", \"Webhook\"",
            ),
            (
                "[{type: RBAC, name: a}, {type: RBAC, name: b}]",
                "authorizers[1].type: Duplicate value: \"RBAC\"",
            ),
            ("[{type: RBAC, name: a}, {type: Node, name: a}]", "authorizers[1].name: Duplicate value: \"a\""),
            ("[{type: RBAC}]", "authorizers[0].name: Required value"),
            (
                "[{type: Webhook, name: w}]",
                "authorizers[0].webhook: Required value: required when type=Webhook",
            ),
            (
                "[{type: RBAC, name: r, webhook: {}}]",
                "authorizers[0].webhook: Invalid value: \"non-null\": may only be specified when type=Webhook",
            ),
            (
                "[{type: Webhook, name: w, webhook: {timeout: 31s, failurePolicy: Ignore, subjectAccessReviewVersion: v1, \
                 matchConditions: [{expression: request.user}], connectionInfo: {type: KubeConfigFile, kubeConfigFile: x}}}]",
                "authorizers[0].timeout: Invalid value: \"31s\": must be > 0s and <= 30s; \
                 authorizers[0].failurePolicy: Unsupported value: \"Ignore\": supported values: \"NoOpinion\", \"Deny\"; \
                 authorizers[0].matchConditionSubjectAccessReviewVersion: Required value: required if match conditions are \
                 specified; authorizers[0].matchConditions[0].expression: Invalid value: \"request.user\": must evaluate to \
                 bool; authorizers[0].connectionInfo.kubeConfigFile: Invalid value: \"x\": must be an absolute path",
            ),
            (
                "[{type: RBAC, nam: r}]",
                "authorizers[0].nam: unknown field `nam`, expected one of `type`, `name`, `webhook`",
            ),
        ];
        for (authorizers, expected) in cases {
            assert_eq!(outcome(authorizers), expected, "{authorizers}");
        }
    }
}
