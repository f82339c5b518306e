//! Policy rules: what they say and which requests they match.

use apimachinery::field::go_quote;
use serde::{Deserialize, Deserializer, Serialize};

use crate::authorizer::Attributes;

/// Stands for every verb, group, resource or path.
pub const ALL: &str = "*";

/// A rule of a Role or ClusterRole. Empty lists match nothing, except that without `resource_names` every name matches.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PolicyRule {
    #[serde(deserialize_with = "null_is_empty")]
    pub verbs: Vec<String>,
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub api_groups: Vec<String>,
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<String>,
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub resource_names: Vec<String>,
    #[serde(
        rename = "nonResourceURLs",
        deserialize_with = "null_is_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub non_resource_urls: Vec<String>,
}

/// JSON written by Go has `null` for an empty list.
pub(crate) fn null_is_empty<'de, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

impl PolicyRule {
    /// A rule for resources.
    pub fn resources(verbs: &[&str], api_groups: &[&str], resources: &[&str]) -> Self {
        Self {
            verbs: owned(verbs),
            api_groups: owned(api_groups),
            resources: owned(resources),
            ..Self::default()
        }
    }

    /// A rule for other paths.
    pub fn paths(verbs: &[&str], urls: &[&str]) -> Self {
        Self { verbs: owned(verbs), non_resource_urls: owned(urls), ..Self::default() }
    }

    /// True if the rule lets the request pass.
    pub fn allows(&self, attributes: &Attributes<'_>) -> bool {
        self.matches_verb(attributes.verb) && self.allows_but_for_verb(attributes)
    }

    fn matches_verb(&self, verb: &str) -> bool {
        has(&self.verbs, verb)
    }

    fn allows_but_for_verb(&self, attributes: &Attributes<'_>) -> bool {
        if !attributes.resource_request {
            return self.non_resource_urls.iter().any(|url| url_covers(url, attributes.path));
        }
        has(&self.api_groups, attributes.api_group)
            && self
                .resources
                .iter()
                .any(|own| matches_resource(own, attributes.resource, attributes.subresource))
            && (self.resource_names.is_empty()
                || self.resource_names.iter().any(|name| name == attributes.name))
    }

    /// Upstream's short form, as it stands in messages about escalation.
    pub fn compact(&self) -> String {
        let parts = [
            ("APIGroups", &self.api_groups),
            ("Resources", &self.resources),
            ("NonResourceURLs", &self.non_resource_urls),
            ("ResourceNames", &self.resource_names),
            ("Verbs", &self.verbs),
        ];
        let parts: Vec<_> = parts
            .into_iter()
            .filter(|(_, values)| !values.is_empty())
            .map(|(label, values)| format!("{label}:{}", quoted_list(values)))
            .collect();
        format!("{{{}}}", parts.join(", "))
    }
}

fn owned(values: &[&str]) -> Vec<String> {
    values.iter().map(|&value| value.to_owned()).collect()
}

fn has(values: &[String], wanted: &str) -> bool {
    values.iter().any(|value| value == ALL || value == wanted)
}

/// `pods`, `pods/log`, `*/log` and `*`; `*` stands for subresources as well.
fn matches_resource(own: &str, resource: &str, subresource: &str) -> bool {
    if own == ALL {
        return true;
    }
    match own.split_once('/') {
        None => subresource.is_empty() && own == resource,
        Some((own_resource, own_subresource)) => {
            !subresource.is_empty()
                && own_subresource == subresource
                && (own_resource == ALL || own_resource == resource)
        }
    }
}

/// True if a rule's path, which may end in `*`, covers `path`.
pub(crate) fn url_covers(own: &str, path: &str) -> bool {
    own == path || own.ends_with('*') && path.starts_with(own.trim_end_matches('*'))
}

/// A rule as the authorizer keeps it: the verbs that nearly every request has are bits, so that most rules are passed
/// over without a look at their strings.
#[derive(Clone, Debug)]
pub(crate) struct CompiledRule {
    pub rule: PolicyRule,
    verbs: u16,
}

const COMMON_VERBS: [&str; 10] = [
    "get",
    "list",
    "watch",
    "create",
    "update",
    "patch",
    "delete",
    "deletecollection",
    "bind",
    "impersonate",
];
const _: () = assert!(COMMON_VERBS.len() <= u16::BITS as usize);

/// The bit of a common verb; none for others.
pub(crate) fn verb_bit(verb: &str) -> Option<u16> {
    COMMON_VERBS.iter().position(|common| *common == verb).map(|index| 1 << index)
}

impl CompiledRule {
    pub fn new(rule: PolicyRule) -> Self {
        let bits = |verb: &String| if verb == ALL { u16::MAX } else { verb_bit(verb).unwrap_or(0) };
        let verbs = rule.verbs.iter().map(bits).fold(0, std::ops::BitOr::bitor);
        Self { rule, verbs }
    }

    /// As [`PolicyRule::allows`]; `bit` is that of the request's verb.
    pub fn allows(&self, attributes: &Attributes<'_>, bit: Option<u16>) -> bool {
        let verb_matches = match bit {
            Some(bit) => self.verbs & bit != 0,
            None => self.rule.matches_verb(attributes.verb),
        };
        verb_matches && self.rule.allows_but_for_verb(attributes)
    }
}

/// A list of strings as Go's `%q` prints it: `["a" "b"]`.
pub(crate) fn quoted_list(values: &[String]) -> String {
    let values: Vec<_> = values.iter().map(|value| go_quote(value)).collect();
    format!("[{}]", values.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::UserInfo;

    fn check_resource(rule: &PolicyRule, verb: &str, group: &str, resource: &str, name: &str) -> bool {
        let user = UserInfo::new("jane");
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let attributes =
            Attributes { api_group: group, subresource, name, ..Attributes::resource(&user, verb, resource) };
        let allowed = rule.allows(&attributes);
        let compiled = CompiledRule::new(rule.clone()).allows(&attributes, verb_bit(verb));
        assert_eq!(allowed, compiled, "the compiled form differs for {verb} {resource}");
        allowed
    }

    #[test]
    fn resources_and_subresources_match_as_upstream() {
        // own resource, requested, matches
        let cases = [
            ("pods", "pods", true),
            ("pods", "pods/log", false),
            ("pods/log", "pods/log", true),
            ("pods/log", "pods", false),
            ("pods/log", "pods/exec", false),
            ("*", "pods", true),
            ("*", "pods/log", true),
            ("*/log", "pods/log", true),
            ("*/log", "pods", false),
            ("*/log", "pods/logs", false),
            ("*/scale", "deployments/scale", true),
            ("*/*", "pods/log", false),
            ("pods/*", "pods/log", false),
            ("pod", "pods", false),
            ("", "pods", false),
        ];
        for (own, requested, expected) in cases {
            let rule = PolicyRule::resources(&["get"], &[""], &[own]);
            assert_eq!(check_resource(&rule, "get", "", requested, ""), expected, "{own} for {requested}");
        }
    }

    #[test]
    fn verbs_groups_and_names_match_as_upstream() {
        let named = PolicyRule {
            resource_names: vec!["a".into(), "b".into()],
            ..PolicyRule::resources(&["get", "use"], &["", "apps"], &["x"])
        };
        // verb, group, name, matches
        let cases = [
            ("get", "", "a", true),
            ("get", "apps", "b", true),
            ("get", "batch", "a", false),
            ("get", "", "c", false),
            // A list or create has no name, so a rule with names never lets it pass.
            ("get", "", "", false),
            ("use", "", "a", true),
            ("used", "", "a", false),
            ("list", "", "a", false),
            ("GET", "", "a", false),
        ];
        for (verb, group, name, expected) in cases {
            assert_eq!(check_resource(&named, verb, group, "x", name), expected, "{verb} {group} {name}");
        }
        let all = PolicyRule::resources(&["*"], &["*"], &["*"]);
        assert!(check_resource(&all, "whatever", "example.com", "things/sub", "n"));
        assert!(check_resource(&all, "get", "", "pods", ""));
        let nothing = PolicyRule::resources(&[], &["*"], &["*"]);
        assert!(!check_resource(&nothing, "get", "", "pods", ""));
    }

    #[test]
    fn paths_match_exactly_or_by_trailing_star() {
        let cases = [
            ("/api", "/api", true),
            ("/api", "/api/", false),
            ("/api", "/apis", false),
            ("/api/*", "/api/v1", true),
            ("/api/*", "/api", false),
            ("/api*", "/apis", true),
            ("*", "/anything", true),
            ("/a*c", "/abc", false),
            ("/a/**", "/a/b", true),
        ];
        let user = UserInfo::new("jane");
        for (own, path, expected) in cases {
            let rule = PolicyRule::paths(&["get"], &[own]);
            assert_eq!(
                rule.allows(&Attributes::non_resource(&user, "get", path)),
                expected,
                "{own} for {path}"
            );
        }
        // Rules for paths do not speak of resources, nor the other way round.
        let both = PolicyRule::paths(&["*"], &["*"]);
        assert!(!both.allows(&Attributes::resource(&user, "get", "pods")));
        let all = PolicyRule::resources(&["*"], &["*"], &["*"]);
        assert!(!all.allows(&Attributes::non_resource(&user, "get", "/healthz")));
    }

    #[test]
    fn null_lists_are_empty() {
        let rule: PolicyRule = serde_json::from_str(r#"{"verbs":["get"],"apiGroups":null}"#).unwrap();
        assert_eq!(rule, PolicyRule { verbs: vec!["get".into()], ..PolicyRule::default() });
    }

    #[test]
    fn the_compact_form_is_that_of_upstream() {
        let rule = PolicyRule {
            resource_names: vec!["n".into()],
            ..PolicyRule::resources(&["get", "list"], &[""], &["pods"])
        };
        assert_eq!(
            rule.compact(),
            r#"{APIGroups:[""], Resources:["pods"], ResourceNames:["n"], Verbs:["get" "list"]}"#
        );
    }
}
