//! Questions to the authorizer: `authorizer.group('apps').resource('deployments').check('get').allowed()`.
//!
//! The caller brings the one who answers as an [`Authorizer`].

use std::sync::Arc;

use super::Row;
use crate::eval_error::EvalError;
use crate::opaques::Opaques;
use crate::value::{Evaluated, Value};

pub(super) const FUNCTIONS: &[Row] = &[
    ("path", path, &[("authorizer_path", "authorizer::f(string) -> pathcheck")]),
    ("group", group, &[("authorizer_group", "authorizer::f(string) -> groupcheck")]),
    (
        "serviceAccount",
        service_account,
        &[("authorizer_serviceaccount", "authorizer::f(string, string) -> authorizer")],
    ),
    ("resource", resource, &[("groupcheck_resource", "groupcheck::f(string) -> resourcecheck")]),
    (
        "subresource",
        |args| narrowed(args, |check, text| check.subresource = text),
        &[("resourcecheck_subresource", "resourcecheck::f(string) -> resourcecheck")],
    ),
    (
        "namespace",
        |args| narrowed(args, |check, text| check.namespace = text),
        &[("resourcecheck_namespace", "resourcecheck::f(string) -> resourcecheck")],
    ),
    (
        "name",
        |args| narrowed(args, |check, text| check.name = text),
        &[("resourcecheck_name", "resourcecheck::f(string) -> resourcecheck")],
    ),
    (
        "fieldSelector",
        |args| narrowed(args, |check, text| check.field_selector = text),
        &[("authorizer_fieldselector", "resourcecheck::f(string) -> resourcecheck")],
    ),
    (
        "labelSelector",
        |args| narrowed(args, |check, text| check.label_selector = text),
        &[("authorizer_labelselector", "resourcecheck::f(string) -> resourcecheck")],
    ),
    (
        "check",
        check,
        &[
            ("pathcheck_check", "pathcheck::f(string) -> decision"),
            ("resourcecheck_check", "resourcecheck::f(string) -> decision"),
        ],
    ),
    (
        "errored",
        |args| of_decision(args, |decision| Value::Bool(decision.error.is_some())),
        &[("decision_errored", "decision::f() -> bool")],
    ),
    (
        "error",
        |args| of_decision(args, |decision| Value::text(decision.error.as_deref().unwrap_or_default())),
        &[("decision_error", "decision::f() -> string")],
    ),
    (
        "allowed",
        |args| of_decision(args, |decision| Value::Bool(decision.allowed)),
        &[("decision_allowed", "decision::f() -> bool")],
    ),
    (
        "reason",
        |args| of_decision(args, |decision| Value::text(&*decision.reason)),
        &[("decision_reason", "decision::f() -> string")],
    ),
];

/// Who answers. It is bound to the user of the request.
pub trait Authorizer: Send + Sync {
    fn authorize(&self, question: &Question<'_>) -> Decision;
}

/// What is asked.
#[derive(Debug)]
pub enum Question<'q> {
    Path { subject: Option<&'q ServiceAccount>, path: &'q str, verb: &'q str },
    Resource { subject: Option<&'q ServiceAccount>, check: &'q ResourceCheck, verb: &'q str },
}

/// The answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    pub allowed: bool,
    pub reason: String,
    pub error: Option<String>,
}

/// A service account that is asked about instead of the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceAccount {
    pub namespace: String,
    pub name: String,
}

/// An authorizer and about whom it is asked.
#[derive(Clone)]
pub struct Subject {
    authorizer: Arc<dyn Authorizer>,
    service_account: Option<Arc<ServiceAccount>>,
}

impl Subject {
    /// The user of the request.
    pub fn user(authorizer: Arc<dyn Authorizer>) -> Self {
        Self { authorizer, service_account: None }
    }

    /// `authorizer`
    pub fn into_value(self) -> Value<'static> {
        Value::opaque(Opaques::Authorizer(self))
    }
}

impl std::fmt::Debug for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subject").field("service_account", &self.service_account).finish_non_exhaustive()
    }
}

impl PartialEq for Subject {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.authorizer, &other.authorizer) && self.service_account == other.service_account
    }
}

/// A question about a path, without its verb.
#[derive(Clone, Debug, PartialEq)]
pub struct PathCheck {
    subject: Subject,
    path: String,
}

/// A question about a group, without the rest.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupCheck {
    subject: Subject,
    group: String,
}

/// A question about a resource, without its verb.
#[derive(Clone, Debug, PartialEq)]
pub struct ResourceCheck {
    subject: Subject,
    pub group: String,
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
    pub field_selector: String,
    pub label_selector: String,
}

impl ResourceCheck {
    /// A question about a resource; the parts of it can be set.
    pub fn new(subject: Subject, group: &str, resource: &str) -> Self {
        Self {
            subject,
            group: group.into(),
            resource: resource.into(),
            subresource: String::new(),
            namespace: String::new(),
            name: String::new(),
            field_selector: String::new(),
            label_selector: String::new(),
        }
    }

    /// `authorizer.requestResource`
    pub fn into_value(self) -> Value<'static> {
        Value::opaque(Opaques::ResourceCheck(self))
    }
}

fn opaque<'v, 'a>(args: &'v [Value<'a>]) -> Result<(&'v Opaques, &'v [Value<'a>]), EvalError> {
    match args {
        [Value::Opaque(value), rest @ ..] => Ok((value, rest)),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn path<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    match opaque(args)? {
        (Opaques::Authorizer(_), [Value::String(path)]) if path.trim().is_empty() => {
            Err(EvalError::new("path must not be empty"))
        }
        (Opaques::Authorizer(subject), [Value::String(path)]) => {
            Ok(Value::opaque(Opaques::PathCheck(PathCheck {
                subject: subject.clone(),
                path: path.to_string(),
            })))
        }
        _ => Err(EvalError::no_such_overload()),
    }
}

fn group<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    match opaque(args)? {
        (Opaques::Authorizer(subject), [Value::String(group)]) => {
            Ok(Value::opaque(Opaques::GroupCheck(GroupCheck {
                subject: subject.clone(),
                group: group.to_string(),
            })))
        }
        _ => Err(EvalError::no_such_overload()),
    }
}

fn service_account<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    let (Opaques::Authorizer(subject), [Value::String(namespace), Value::String(name)]) = opaque(args)?
    else {
        return Err(EvalError::no_such_overload());
    };
    if !apimachinery::dns::dns1123_subdomain(name).is_empty() {
        return Err(EvalError::new("Invalid service account name"));
    }
    if !apimachinery::dns::dns1123_label(namespace).is_empty() {
        return Err(EvalError::new("Invalid service account namespace"));
    }
    let account = ServiceAccount { namespace: namespace.to_string(), name: name.to_string() };
    Ok(Value::opaque(Opaques::Authorizer(Subject {
        authorizer: subject.authorizer.clone(),
        service_account: Some(Arc::new(account)),
    })))
}

fn resource<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    match opaque(args)? {
        (Opaques::GroupCheck(_), [Value::String(resource)]) if resource.trim().is_empty() => {
            Err(EvalError::new("resource must not be empty"))
        }
        (Opaques::GroupCheck(group), [Value::String(resource)]) => Ok(Value::opaque(Opaques::ResourceCheck(
            ResourceCheck::new(group.subject.clone(), &group.group, resource),
        ))),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn narrowed<'a>(args: &[Value<'a>], narrow: impl Fn(&mut ResourceCheck, String)) -> Evaluated<'a> {
    match opaque(args)? {
        (Opaques::ResourceCheck(check), [Value::String(text)]) => {
            let mut check = check.clone();
            narrow(&mut check, text.to_string());
            Ok(Value::opaque(Opaques::ResourceCheck(check)))
        }
        _ => Err(EvalError::no_such_overload()),
    }
}

fn check<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    let (asked, [Value::String(verb)]) = opaque(args)? else { return Err(EvalError::no_such_overload()) };
    let decision =
        match asked {
            Opaques::PathCheck(PathCheck { subject, path }) => subject
                .authorizer
                .authorize(&Question::Path { subject: subject.service_account.as_deref(), path, verb }),
            Opaques::ResourceCheck(check) => check.subject.authorizer.authorize(&Question::Resource {
                subject: check.subject.service_account.as_deref(),
                check,
                verb,
            }),
            _ => return Err(EvalError::no_such_overload()),
        };
    Ok(Value::opaque(Opaques::Decision(decision)))
}

fn of_decision<'a>(args: &[Value<'a>], read: impl Fn(&Decision) -> Value<'a>) -> Evaluated<'a> {
    match opaque(args)? {
        (Opaques::Decision(decision), []) => Ok(read(decision)),
        _ => Err(EvalError::no_such_overload()),
    }
}
