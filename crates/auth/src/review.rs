//! The logic of the review kinds: questions about users and rights that are answered and never stored.
//!
//! Each function takes the object as it was sent and returns the `status` to put into it.

use std::time::SystemTime;

use apimachinery::field::{Error, ErrorKind};
use apimachinery::object::METADATA_FIELDS;
use apimachinery::selector::{FieldRequirement, FieldSelector, Operator, Requirement};
use apimachinery::{GroupKind, Selector, Status};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::authenticator::Authenticator;
use crate::authorizer::{Attributes, Authorizer, Decision, NonResourceRule, ResourceRule};
use crate::user::{Extra, UserInfo};

const AUTHORIZATION_GROUP: &str = "authorization.k8s.io";

/// The three kinds that ask whether somebody may do something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessReview {
    /// About anybody, anywhere.
    SubjectAccessReview,
    /// About anybody, in one namespace.
    LocalSubjectAccessReview,
    /// About the requester.
    SelfSubjectAccessReview,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct AccessSpec {
    resource_attributes: Option<ResourceAttributes>,
    non_resource_attributes: Option<NonResourceAttributes>,
    user: String,
    groups: Option<Vec<String>>,
    extra: Option<Extra>,
    uid: String,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct ResourceAttributes {
    namespace: String,
    verb: String,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    name: String,
    field_selector: Option<SelectorAttributes>,
    label_selector: Option<SelectorAttributes>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct NonResourceAttributes {
    path: String,
    verb: String,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct SelectorAttributes {
    raw_selector: String,
    requirements: Option<Vec<SelectorRequirement>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct SelectorRequirement {
    key: String,
    operator: String,
    values: Option<Vec<String>>,
}

impl SelectorAttributes {
    fn requirements(&self) -> &[SelectorRequirement] {
        self.requirements.as_deref().unwrap_or_default()
    }
}

impl AccessReview {
    /// Answers whether the user that the review is about may do what it asks for. `namespace` is that of the
    /// request's path.
    ///
    /// Fails with 400 for what can not be read and 422 for a review that makes no sense.
    pub fn answer(
        self,
        review: &Value,
        requester: &UserInfo,
        namespace: &str,
        authorizer: &dyn Authorizer,
    ) -> Result<Value, Status> {
        let spec: AccessSpec = read_spec(review)?;
        let errors = self.validate(review, &spec, namespace);
        if !errors.is_empty() {
            // Upstream's internal objects do not know their kind, and so its message does not either.
            let kind = GroupKind { group: AUTHORIZATION_GROUP.into(), kind: "".into() };
            return Err(Status::invalid(&kind, "", &errors));
        }
        let user = match self {
            Self::SelfSubjectAccessReview => requester.clone(),
            _ => spec.subject(),
        };
        Ok(spec.decide(&user, authorizer))
    }

    fn validate(self, review: &Value, spec: &AccessSpec, namespace: &str) -> Vec<Error> {
        let mut errors = spec.validate(self != Self::SelfSubjectAccessReview);
        if let Some(metadata) = self.unexpected_metadata(review) {
            let detail = match self {
                Self::LocalSubjectAccessReview => "must be empty except for namespace",
                _ => "must be empty",
            };
            errors.push(invalid("metadata", shown_metadata(metadata), detail));
        }
        if self == Self::LocalSubjectAccessReview {
            if let Some(attributes) = spec.resource_attributes.as_ref().filter(|at| at.namespace != namespace)
            {
                let shown = apimachinery::field::go_quote(&attributes.namespace);
                let detail = "must match metadata.namespace";
                errors.push(invalid("spec.resourceAttributes.namespace", shown, detail));
            }
            if let Some(attributes) = &spec.non_resource_attributes {
                let detail = "disallowed on this kind of request";
                errors.push(invalid("spec.nonResourceAttributes", attributes.shown(), detail));
            }
        }
        errors
    }

    fn unexpected_metadata(self, review: &Value) -> Option<&Value> {
        let metadata = review.get("metadata").filter(|metadata| !metadata.is_null())?;
        let expected = |key: &str| {
            key == "managedFields" || key == "namespace" && self == Self::LocalSubjectAccessReview
        };
        let empty = |value: &Value| match value {
            Value::Null => true,
            Value::String(text) => text.is_empty(),
            Value::Object(map) => map.is_empty(),
            Value::Array(list) => list.is_empty(),
            _ => false,
        };
        let fields = metadata.as_object()?;
        fields.iter().any(|(key, value)| !expected(key) && !empty(value)).then_some(metadata)
    }
}

/// The fields of an entry of managed fields, in the order of the Go type.
const ENTRY_FIELDS: [&str; 7] =
    ["manager", "operation", "apiVersion", "time", "fieldsType", "fieldsV1", "subresource"];

/// Metadata as a complaint shows it.
fn shown_metadata(metadata: &Value) -> String {
    in_order(metadata, &METADATA_FIELDS, |name, value| match (name, value) {
        ("managedFields", Value::Array(entries)) => {
            let entries: Vec<String> = entries
                .iter()
                .map(|entry| in_order(entry, &ENTRY_FIELDS, |_, value| value.to_string()))
                .collect();
            format!("[{}]", entries.join(","))
        }
        (_, value) => value.to_string(),
    })
}

fn in_order(object: &Value, names: &[&str], shown: impl Fn(&str, &Value) -> String) -> String {
    let fields =
        names.iter().filter_map(|name| Some((name, object.get(name).filter(|value| !value.is_null())?)));
    let fields: Vec<String> =
        fields.map(|(name, value)| format!("\"{name}\":{}", shown(name, value))).collect();
    format!("{{{}}}", fields.join(","))
}

impl AccessSpec {
    fn subject(&self) -> UserInfo {
        UserInfo::new(&*self.user)
            .with_uid(&*self.uid)
            .with_groups(self.groups.iter().flatten().cloned())
            .with_extras(self.extra.clone().unwrap_or_default())
    }

    fn validate(&self, needs_subject: bool) -> Vec<Error> {
        let mut errors = Vec::new();
        match (&self.resource_attributes, &self.non_resource_attributes) {
            (Some(_), Some(attributes)) => errors.push(invalid(
                "spec.nonResourceAttributes",
                attributes.shown(),
                "cannot be specified in combination with resourceAttributes",
            )),
            (None, None) => errors.push(invalid(
                "spec.resourceAttributes",
                "null".to_owned(),
                "exactly one of nonResourceAttributes or resourceAttributes must be specified",
            )),
            _ => {}
        }
        if needs_subject && self.user.is_empty() && self.groups.as_ref().is_none_or(Vec::is_empty) {
            let detail = "at least one of user or group must be specified";
            errors.push(invalid("spec.user", "\"\"".to_owned(), detail));
        }
        if let Some(attributes) = &self.resource_attributes {
            validate_selector(&mut errors, "fieldSelector", attributes.field_selector.as_ref());
            validate_selector(&mut errors, "labelSelector", attributes.label_selector.as_ref());
        }
        errors
    }

    fn decide(&self, user: &UserInfo, authorizer: &dyn Authorizer) -> Value {
        let Some(at) = &self.resource_attributes else {
            let (verb, path) = match &self.non_resource_attributes {
                Some(attributes) => (&*attributes.verb, &*attributes.path),
                None => ("", ""),
            };
            return decision_status(&authorizer.authorize(&Attributes::non_resource(user, verb, path)), &[]);
        };
        let (field_selector, field_error) = at.field_requirements();
        let (label_selector, label_error) = at.label_requirements();
        let attributes = Attributes {
            user,
            verb: &at.verb,
            api_group: &at.group,
            api_version: if at.version.is_empty() { "*" } else { &at.version },
            resource: &at.resource,
            subresource: &at.subresource,
            namespace: &at.namespace,
            name: &at.name,
            path: "",
            resource_request: true,
            field_selector: &field_selector,
            label_selector: &label_selector,
        };
        let errors: Vec<_> = field_error.into_iter().chain(label_error).collect();
        decision_status(&authorizer.authorize(&attributes), &errors)
    }
}

impl NonResourceAttributes {
    /// As upstream's messages print the Go value.
    fn shown(&self) -> String {
        json!({"Path": self.path, "Verb": self.verb}).to_string()
    }
}

fn invalid(path: &str, shown: String, detail: &str) -> Error {
    Error { kind: ErrorKind::Invalid, path: path.to_owned(), shown: Some(shown), detail: detail.to_owned() }
}

fn validate_selector(errors: &mut Vec<Error>, field: &str, selector: Option<&SelectorAttributes>) {
    let Some(selector) = selector else { return };
    let path = format!("spec.resourceAttributes.{field}");
    match (selector.raw_selector.is_empty(), selector.requirements().is_empty()) {
        (false, false) => {
            let shown = apimachinery::field::go_quote(&selector.raw_selector);
            let detail = "may not specified at the same time as requirements";
            errors.push(invalid(&format!("{path}.rawSelector"), shown, detail));
        }
        (true, true) => errors.push(Error {
            kind: ErrorKind::Required,
            path: format!("{path}.requirements"),
            shown: None,
            detail: format!("when {path} is specified, requirements or rawSelector is required"),
        }),
        _ => {}
    }
}

impl ResourceAttributes {
    /// What is understood of the field selector, and what to say if that is not all of it. Leaving out a requirement
    /// asks for more than the user wanted, so the answer is never too generous.
    fn field_requirements(&self) -> (Vec<FieldRequirement>, Option<&'static str>) {
        let Some(selector) = &self.field_selector else { return (Vec::new(), None) };
        let all = selector.requirements();
        let (understood, complete) = if selector.raw_selector.is_empty() {
            let understood: Vec<_> = all.iter().filter_map(SelectorRequirement::of_field).collect();
            let complete = understood.len() == all.len();
            (understood, complete)
        } else {
            match FieldSelector::parse(&selector.raw_selector) {
                Ok(parsed) => (parsed.requirements().to_vec(), true),
                Err(_) => (Vec::new(), false),
            }
        };
        let error = match (complete, understood.is_empty()) {
            (true, _) => None,
            (false, true) => Some("spec.resourceAttributes.fieldSelector ignored due to parse error"),
            (false, false) => {
                Some("spec.resourceAttributes.fieldSelector partially ignored due to parse error")
            }
        };
        (understood, error)
    }

    /// As [`Self::field_requirements`], for labels.
    fn label_requirements(&self) -> (Vec<Requirement>, Option<&'static str>) {
        let Some(selector) = &self.label_selector else { return (Vec::new(), None) };
        let all = selector.requirements();
        let (understood, complete) = if selector.raw_selector.is_empty() {
            let understood: Vec<_> = all.iter().filter_map(SelectorRequirement::of_label).collect();
            let complete = understood.len() == all.len();
            (understood, complete)
        } else {
            match Selector::parse(&selector.raw_selector) {
                Ok(parsed) => (parsed.requirements().to_vec(), true),
                Err(_) => (Vec::new(), false),
            }
        };
        let error = match (complete, understood.is_empty()) {
            (true, _) => None,
            (false, true) => Some("spec.resourceAttributes.labelSelector ignored due to parse error"),
            (false, false) => {
                Some("spec.resourceAttributes.labelSelector partially ignored due to parse error")
            }
        };
        (understood, error)
    }
}

impl SelectorRequirement {
    fn of_field(&self) -> Option<FieldRequirement> {
        let negated = match self.operator.as_str() {
            "In" => false,
            "NotIn" => true,
            _ => return None,
        };
        let [value] = self.values.as_deref()? else { return None };
        Some(FieldRequirement { field: self.key.as_str().into(), negated, value: value.as_str().into() })
    }

    fn of_label(&self) -> Option<Requirement> {
        let operator = match self.operator.as_str() {
            "In" => Operator::In,
            "NotIn" => Operator::NotIn,
            "Exists" => Operator::Exists,
            "DoesNotExist" => Operator::DoesNotExist,
            _ => return None,
        };
        let values = self.values.iter().flatten().map(|value| value.as_str().into()).collect();
        Requirement::new(&self.key, operator, values).ok()
    }
}

fn decision_status(decision: &Decision, errors: &[&str]) -> Value {
    let mut status = Map::new();
    status.insert("allowed".to_owned(), decision.is_allowed().into());
    if matches!(decision, Decision::Deny { .. }) {
        status.insert("denied".to_owned(), true.into());
    }
    if !decision.reason().is_empty() {
        status.insert("reason".to_owned(), decision.reason().to_string().into());
    }
    if !errors.is_empty() {
        status.insert("evaluationError".to_owned(), errors.join("; ").into());
    }
    status.into()
}

/// The status of a SelfSubjectRulesReview: all rules that the requester has in `spec.namespace`.
///
/// The answer leaves metadata and spec empty, as upstream's does. Fails with 400 without a namespace.
pub fn self_subject_rules(
    review: &Value,
    requester: &UserInfo,
    authorizer: &dyn Authorizer,
) -> Result<Value, Status> {
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Spec {
        namespace: String,
    }
    let spec: Spec = read_spec(review)?;
    if spec.namespace.is_empty() {
        return Err(Status::bad_request("no namespace on request"));
    }
    let rules = authorizer.rules_for(requester, &spec.namespace);
    let mut status = json!({
        "resourceRules": rules.resource_rules.iter().map(resource_rule).collect::<Vec<_>>(),
        "nonResourceRules": rules.non_resource_rules.iter().map(non_resource_rule).collect::<Vec<_>>(),
        "incomplete": rules.incomplete,
    });
    match rules.errors.as_slice() {
        [] => {}
        [error] => status["evaluationError"] = error.as_str().into(),
        errors => status["evaluationError"] = format!("[{}]", errors.join(", ")).into(),
    }
    Ok(status)
}

fn resource_rule(rule: &ResourceRule) -> Value {
    let mut value = json!({ "verbs": rule.verbs });
    let lists = [
        ("apiGroups", &rule.api_groups),
        ("resources", &rule.resources),
        ("resourceNames", &rule.resource_names),
    ];
    for (field, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
        value[field] = list.as_slice().into();
    }
    value
}

fn non_resource_rule(rule: &NonResourceRule) -> Value {
    json!({ "verbs": rule.verbs, "nonResourceURLs": rule.non_resource_urls })
}

/// The status of a TokenReview: whose token it is, or why it is not good.
///
/// Fails with 400 without a token.
pub async fn token(review: &Value, authenticator: &Authenticator, now: SystemTime) -> Result<Value, Status> {
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Spec {
        token: String,
        audiences: Option<Vec<String>>,
    }
    let spec: Spec = read_spec(review)?;
    if spec.token.is_empty() {
        return Err(Status::bad_request("token is required for TokenReview in authentication"));
    }
    let audiences = spec.audiences.as_deref().filter(|audiences| !audiences.is_empty());
    Ok(match authenticator.authenticate_token(&spec.token, audiences, now).await {
        Ok(authentication) => json!({
            "authenticated": true,
            "user": user_info(&authentication.user),
            "audiences": authentication.audiences,
        }),
        Err(error) => json!({ "user": {}, "error": error.to_string() }),
    })
}

/// The status of a SelfSubjectReview: who the requester is.
pub fn self_subject(requester: &UserInfo) -> Value {
    json!({ "userInfo": user_info(requester) })
}

/// The JSON form of `authentication.k8s.io` UserInfo: what is empty is left out.
pub fn user_info(user: &UserInfo) -> Value {
    let mut info = Map::new();
    for (field, text) in [("username", user.name()), ("uid", user.uid())] {
        if !text.is_empty() {
            info.insert(field.to_owned(), text.into());
        }
    }
    if !user.groups().is_empty() {
        info.insert("groups".to_owned(), user.groups().into());
    }
    if !user.extra().is_empty() {
        info.insert("extra".to_owned(), json!(user.extra()));
    }
    info.into()
}

fn read_spec<T: Default + for<'de> Deserialize<'de>>(review: &Value) -> Result<T, Status> {
    match review.get("spec") {
        None | Some(Value::Null) => Ok(T::default()),
        Some(spec) => T::deserialize(spec).map_err(|error| Status::bad_request(format!("spec: {error}"))),
    }
}

#[cfg(test)]
mod tests;
