//! What the status of a definition has to say: which names it got, and whether it is served.
//!
//! Upstream has a controller for each condition, and a client may see the steps between them; here one plan takes all
//! steps at once, with the same outcome.

use std::collections::BTreeSet;

use api::conditions::{self, Condition, is_true};
use api::kinds::apiextensions::conversion_ca_bundle;
use api::validation::ca_bundle;
use apimachinery::Value;
use apimachinery::field::go_quote;
use jiff::Timestamp;

const APPROVAL: &str = "api-approved.kubernetes.io";
const APPROVAL_HELP: &str = "see https://github.com/kubernetes/enhancements/pull/1111";

/// Resources of these definitions are built in and stored where instances would be.
pub const OVERLAPPING: [(&str, &str); 2] =
    [("apiregistration.k8s.io", "apiservices"), ("apiextensions.k8s.io", "customresourcedefinitions")];

/// The names that other definitions of a group have.
#[derive(Debug, Default)]
pub struct Claimed<'d> {
    /// Plural, singular and short names.
    resources: BTreeSet<&'d str>,
    /// Kinds and kinds of lists.
    kinds: BTreeSet<&'d str>,
}

impl<'d> Claimed<'d> {
    /// From the definitions of one group.
    pub fn by(definitions: impl IntoIterator<Item = &'d Value>) -> Self {
        let mut claimed = Self::default();
        for definition in definitions {
            let Some(names) = definition.at(&["status", "acceptedNames"]) else { continue };
            let short = names.array_at(&["shortNames"]).iter().filter_map(Value::as_str);
            claimed.resources.extend([names.str_at(&["plural"]), names.str_at(&["singular"])]);
            claimed.resources.extend(short);
            claimed.kinds.extend([names.str_at(&["kind"]), names.str_at(&["listKind"])]);
        }
        claimed
    }
}

/// The definition with the status it should have; `None` when it has that already.
pub fn plan(definition: &Value, claimed: &Claimed<'_>, now: Timestamp) -> Option<Value> {
    let mut planned = definition.clone();
    if let Some(approval) = approval(definition).filter(|condition| !condition.is_set(definition)) {
        approval.set(&mut planned, now);
    }
    plan_names(&mut planned, claimed, now);
    let is_new = is_true(&planned, "NamesAccepted") && !is_true(&planned, "Established");
    if is_new && conditions::find(&planned, "Terminating").is_none() {
        let established = established(&planned);
        if !established.is_set(&planned) {
            established.set(&mut planned, now);
        }
    }
    (planned != *definition).then_some(planned)
}

/// Whether a definition that got its names is complete.
fn established(definition: &Value) -> Condition {
    if has_bad_ca_bundle(definition) {
        let message = "The conversion webhook CABundle is invalid";
        return Condition::new("Established", false, "InvalidCABundle", message);
    }
    Condition::new("Established", true, "InitialNamesAccepted", "the initial names have been accepted")
}

fn has_bad_ca_bundle(definition: &Value) -> bool {
    ca_bundle::problem(&conversion_ca_bundle(definition)).is_some()
}

/// Whether requests for instances are answered.
pub fn is_served(definition: &Value) -> bool {
    let is_named = || is_true(definition, "NamesAccepted") && !has_bad_ca_bundle(definition);
    is_true(definition, "Established") || is_named()
}

pub fn is_terminating(definition: &Value) -> bool {
    !definition.str_at(&["metadata", "deletionTimestamp"]).is_empty() || is_true(definition, "Terminating")
}

fn plan_names(planned: &mut Value, claimed: &Claimed<'_>, now: Timestamp) {
    let requested = planned["spec"]["names"].clone();
    let mut accepted = planned["status"]["acceptedNames"].clone();
    if requested == accepted {
        return;
    }
    let mut conflict = None;
    let groups = [
        ("plural", "PluralConflict", &claimed.resources),
        ("singular", "SingularConflict", &claimed.resources),
        ("shortNames", "ShortNamesConflict", &claimed.resources),
        ("kind", "KindConflict", &claimed.kinds),
        ("listKind", "ListKindConflict", &claimed.kinds),
    ];
    for (key, reason, used) in groups {
        let taken = taken(&requested[key], &accepted[key], used);
        if taken.is_empty() {
            put(&mut accepted, key, &requested[key]);
        } else {
            // The last conflict is the one that is told.
            conflict = Some((reason, aggregate(&taken)));
        }
    }
    put(&mut accepted, "categories", &requested["categories"]);
    let names = match conflict {
        Some((reason, message)) => Condition::new("NamesAccepted", false, reason, message),
        None => Condition::new("NamesAccepted", true, "NoConflicts", "no conflicts found"),
    };
    planned.set_at(&["status", "acceptedNames"], accepted);
    let are_accepted = names.status == "True";
    if !names.is_set(planned) {
        names.set(planned, now);
    }
    if !are_accepted && conditions::find(planned, "Established").is_none() {
        Condition::new("Established", false, "NotAccepted", "not all names are accepted").set(planned, now);
    }
}

/// Those of the requested names that are another definition's.
fn taken(requested: &Value, accepted: &Value, used: &BTreeSet<&str>) -> Vec<String> {
    let is_own = |name: &Value| match accepted {
        Value::Array(own) => own.contains(name),
        own => own == name,
    };
    let names = match requested {
        Value::Array(names) => names.as_slice(),
        name => std::slice::from_ref(name),
    };
    let others = names.iter().filter(|name| !is_own(name)).filter_map(Value::as_str);
    others
        .filter(|name| used.contains(name))
        .map(|name| format!("{} is already in use", go_quote(name)))
        .collect()
}

fn put(accepted: &mut Value, key: &str, name: &Value) {
    if name.is_null() {
        accepted.remove_at(&[key]);
    } else {
        accepted.set_at(&[key], name.clone());
    }
}

/// As Go prints several errors: each once.
fn aggregate(errors: &[String]) -> String {
    let mut distinct: Vec<&str> = Vec::new();
    for error in errors {
        if !distinct.contains(&error.as_str()) {
            distinct.push(error);
        }
    }
    if let [one] = distinct[..] { one.to_owned() } else { format!("[{}]", distinct.join(", ")) }
}

/// Groups of the Kubernetes community say whether they were approved.
fn approval(definition: &Value) -> Option<Condition> {
    const KIND: &str = "KubernetesAPIApprovalPolicyConformant";
    let group = definition.str_at(&["spec", "group"]);
    let is_protected = ["k8s.io", "kubernetes.io"]
        .iter()
        .any(|own| group == *own || group.strip_suffix(own).is_some_and(|rest| rest.ends_with('.')));
    if !is_protected {
        return None;
    }
    let annotation = definition.str_at(&["metadata", "annotations", APPROVAL]);
    let quoted = go_quote(annotation);
    Some(if annotation.is_empty() {
        let message =
            format!("protected groups must have approval annotation \"{APPROVAL}\", {APPROVAL_HELP}");
        Condition::new(KIND, false, "MissingAnnotation", message)
    } else if annotation.starts_with("unapproved") {
        Condition::new(KIND, false, "UnapprovedAnnotation", format!("not approved: {quoted}"))
    } else if is_url(annotation) {
        Condition::new(KIND, true, "ApprovedAnnotation", format!("approved in {annotation}"))
    } else {
        let message = format!(
            "protected groups must have approval annotation \"{APPROVAL}\" with either a URL or a reason starting with \
             \"unapproved\", {APPROVAL_HELP}"
        );
        Condition::new(KIND, false, "InvalidAnnotation", message)
    })
}

/// A scheme and a host.
fn is_url(text: &str) -> bool {
    text.split_once("://").is_some_and(|(scheme, rest)| {
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        !host.is_empty()
            && scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
            && !text.contains([' ', '\t', '\n'])
    })
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    fn now() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    fn names(plural: &str, kind: &str, short: &[&str]) -> Value {
        let mut names =
            json!({"plural": plural, "singular": plural, "kind": kind, "listKind": format!("{kind}List")});
        if !short.is_empty() {
            names.set_at(&["shortNames"], short.iter().map(|name| Value::from(*name)).collect::<Value>());
        }
        names
    }

    fn fresh(names: Value) -> Value {
        let mut definition = json!({
            "metadata": {}, "spec": {"group": "example.com"},
            "status": {"conditions": null, "acceptedNames": {"plural": "", "kind": ""}, "storedVersions": ["v1"]},
        });
        definition.set_at(&["spec", "names"], names);
        definition
    }

    fn conditions_of(definition: &Value) -> Vec<String> {
        let all = definition.array_at(&["status", "conditions"]).iter();
        all.map(|own| {
            let [kind, status, reason, message] =
                ["type", "status", "reason", "message"].map(|key| own.str_at(&[key]));
            format!("{kind}={status} {reason}: {message}")
        })
        .collect()
    }

    #[test]
    fn a_definition_without_conflicts_is_established_at_once() {
        let planned = plan(&fresh(names("widgets", "Widget", &["wd"])), &Claimed::default(), now()).unwrap();
        assert_eq!(
            conditions_of(&planned),
            [
                "NamesAccepted=True NoConflicts: no conflicts found",
                "Established=True InitialNamesAccepted: the initial names have been accepted",
            ]
        );
        assert_eq!(planned["status"]["acceptedNames"], planned["spec"]["names"]);
        assert_eq!(plan(&planned, &Claimed::default(), now()), None, "and then nothing is left to do");
    }

    #[test]
    fn roots_that_nobody_can_read_keep_a_definition_from_being_established() {
        let mut bad = fresh(names("widgets", "Widget", &[]));
        let path = ["spec", "conversion", "webhook", "clientConfig", "caBundle"];
        bad.set_at(&path, "eg==");
        let mut planned = plan(&bad, &Claimed::default(), now()).unwrap();
        assert_eq!(
            conditions_of(&planned),
            [
                "NamesAccepted=True NoConflicts: no conflicts found",
                "Established=False InvalidCABundle: The conversion webhook CABundle is invalid",
            ]
        );
        assert!(!is_served(&planned));
        assert_eq!(plan(&planned, &Claimed::default(), now()), None, "it was said already");
        planned.remove_at(&path);
        let mended = plan(&planned, &Claimed::default(), now()).unwrap();
        assert!(is_true(&mended, "Established") && is_served(&mended));
        bad = mended;
        bad.set_at(&path, "eg==");
        assert_eq!(plan(&bad, &Claimed::default(), now()), None, "it stays established");
        assert!(is_served(&bad));
    }

    #[test]
    fn names_that_others_have_are_not_accepted() {
        let other =
            plan(&fresh(names("gadgets", "Gadget", &["g", "gd"])), &Claimed::default(), now()).unwrap();
        let claimed = Claimed::by([&other]);
        let cases = [
            (
                names("gadgets", "Widget", &[]),
                "PluralConflict",
                "SingularConflict: \"gadgets\" is already in use",
            ),
            (names("widgets", "Widget", &["g"]), "ShortNamesConflict", "\"g\" is already in use"),
            (
                names("widgets", "Widget", &["w", "g", "gd"]),
                "",
                "[\"g\" is already in use, \"gd\" is already in use]",
            ),
            (names("widgets", "GadgetList", &[]), "KindConflict", "\"GadgetList\" is already in use"),
        ];
        for (names, _, expected) in cases {
            let planned = plan(&fresh(names), &claimed, now()).unwrap();
            let all = conditions_of(&planned);
            assert!(all[0].starts_with("NamesAccepted=False") && all[0].ends_with(expected), "{all:?}");
            assert_eq!(all[1], "Established=False NotAccepted: not all names are accepted");
        }
    }

    #[test]
    fn what_is_established_stays_so_with_the_names_that_are_free() {
        let mut widget = plan(&fresh(names("widgets", "Widget", &[])), &Claimed::default(), now()).unwrap();
        let other = plan(&fresh(names("gadgets", "Gadget", &["g"])), &Claimed::default(), now()).unwrap();
        widget.set_at(&["spec", "names"], names("widgets", "Widget", &["g"]));
        let planned = plan(&widget, &Claimed::by([&other]), now()).unwrap();
        assert!(is_true(&planned, "Established") && is_served(&planned));
        assert_eq!(
            conditions_of(&planned)[0],
            "NamesAccepted=False ShortNamesConflict: \"g\" is already in use"
        );
        assert!(planned["status"]["acceptedNames"].get("shortNames").is_none());
        let freed = plan(&planned, &Claimed::default(), now()).unwrap();
        assert_eq!(conditions_of(&freed)[0], "NamesAccepted=True NoConflicts: no conflicts found");
    }

    #[test]
    fn protected_groups_say_whether_they_are_approved() {
        let cases = [
            ("example.com", "", None),
            ("myk8s.io", "", None),
            (
                "x.k8s.io",
                "https://github.com/x/pull/1",
                Some("True ApprovedAnnotation: approved in https://github.com/x/pull/1"),
            ),
            (
                "x.k8s.io",
                "unapproved, experimental",
                Some("False UnapprovedAnnotation: not approved: \"unapproved, experimental\""),
            ),
            (
                "k8s.io",
                "",
                Some(
                    "False MissingAnnotation: protected groups must have approval annotation \"api-approved.kubernetes.io\", see https://github.com/kubernetes/enhancements/pull/1111",
                ),
            ),
            (
                "x.kubernetes.io",
                "yes",
                Some(
                    "False InvalidAnnotation: protected groups must have approval annotation \"api-approved.kubernetes.io\" with either a URL or a reason starting with \"unapproved\", see https://github.com/kubernetes/enhancements/pull/1111",
                ),
            ),
        ];
        for (group, annotation, expected) in cases {
            let mut definition = fresh(names("widgets", "Widget", &[]));
            definition.set_at(&["spec", "group"], group);
            definition.set_at(&["metadata", "annotations", APPROVAL], annotation);
            let found =
                approval(&definition).map(|own| format!("{} {}: {}", own.status, own.reason, own.message));
            assert_eq!(found.as_deref(), expected, "{group} {annotation}");
        }
    }
}
