//! [`Status`]: the API's error, and the only form in which a failure leaves the server.
//!
//! Constructors give the code, reason, message and details of upstream's `k8s.io/apimachinery/pkg/api/errors`.

use std::borrow::Cow;
use std::fmt;

use crate::{GroupKind, GroupResource, Str, Value, field, json};

/// An answer that is not an object: `metav1.Status`.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// HTTP status code.
    pub code: u16,
    /// `metav1.StatusReason`; empty when the code says it all. Webhooks may make up their own.
    pub reason: Cow<'static, str>,
    pub message: String,
    pub details: Option<Box<Details>>,
    /// `metadata.continue`: where a list whose history is gone can go on, inconsistently.
    pub continue_token: Option<Box<str>>,
}

/// `metav1.StatusDetails`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Details {
    pub name: Str,
    pub group: Str,
    /// The kind, or for lack of it the resource, as upstream does.
    pub kind: Str,
    pub uid: Str,
    pub causes: Vec<Cause>,
    pub retry_after_seconds: Option<u32>,
}

/// `metav1.StatusCause`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cause {
    pub reason: String,
    pub message: String,
    pub field: String,
}

impl Status {
    pub fn new(code: u16, reason: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self { code, reason: reason.into(), message: message.into(), details: None, continue_token: None }
    }

    /// What a failure `Status` in somebody else's answer says; `None` for a body that is none.
    pub fn from_value(body: &Value) -> Option<Self> {
        let is_failure = body["kind"] == "Status".into() && body["status"] == "Failure".into();
        is_failure.then(|| {
            let code = body["code"].as_i64().and_then(|code| u16::try_from(code).ok()).unwrap_or(500);
            let mut status = Self::new(code, body.str_at(&["reason"]).to_owned(), body.str_at(&["message"]));
            status.details =
                body["details"].as_object().map(|_| Box::new(Details::from_value(&body["details"])));
            status
        })
    }

    /// What a code from another server stands for when its body does not say: upstream's
    /// `NewGenericServerResponse`. `text` is that body.
    pub fn of_response(code: u16, verb: &str, text: &str, retry_after_seconds: Option<u32>) -> Self {
        let (reason, message) = match code {
            409 if verb == "POST" => ("AlreadyExists", "the server reported a conflict"),
            409 => ("Conflict", "the server reported a conflict"),
            404 => ("NotFound", "the server could not find the requested resource"),
            400 => ("BadRequest", "the server rejected our request for an unknown reason"),
            401 => ("Unauthorized", "the server has asked for the client to provide credentials"),
            403 => ("Forbidden", text),
            406 if matches!(text, "" | "unknown") => (
                "NotAcceptable",
                "the server was unable to respond with a content type that the client supports",
            ),
            406 => ("NotAcceptable", text),
            415 => ("UnsupportedMediaType", text),
            405 => ("MethodNotAllowed", "the server does not allow this method on the requested resource"),
            422 => ("Invalid", "the server rejected our request due to an error in our request"),
            503 => ("ServiceUnavailable", "the server is currently unable to handle the request"),
            504 => (
                "Timeout",
                "the server was unable to return a response in the time allotted, but may still be processing the \
                 request",
            ),
            429 => (
                "TooManyRequests",
                "the server has received too many requests and has asked us to try again later",
            ),
            500.. => ("InternalError", ""),
            _ => ("Unknown", ""),
        };
        let message = match reason {
            "InternalError" => format!(
                "an error on the server ({}) has prevented the request from succeeding",
                field::go_quote(text)
            ),
            "Unknown" => {
                format!(
                    "the server responded with the status code {code} but did not return more information"
                )
            }
            _ => message.to_owned(),
        };
        let cause =
            Cause { reason: "UnexpectedServerResponse".into(), message: text.into(), ..Cause::default() };
        Self::new(code, reason, message).with_details(Details {
            causes: vec![cause],
            retry_after_seconds,
            ..Details::default()
        })
    }

    fn about(mut self, resource: &GroupResource, name: &str) -> Self {
        self.details = Some(Box::new(Details {
            name: name.into(),
            group: resource.group.clone(),
            kind: resource.resource.clone(),
            ..Details::default()
        }));
        self
    }

    pub fn with_details(mut self, details: Details) -> Self {
        self.details = Some(Box::new(details));
        self
    }

    pub fn not_found(resource: &GroupResource, name: &str) -> Self {
        Self::new(404, "NotFound", format!("{resource} {} not found", field::go_quote(name)))
            .about(resource, name)
    }

    /// The path names nothing that is served.
    pub fn no_such_path() -> Self {
        Self::new(404, "NotFound", "the server could not find the requested resource")
            .with_details(Details::default())
    }

    pub fn already_exists(resource: &GroupResource, name: &str) -> Self {
        Self::new(409, "AlreadyExists", format!("{resource} {} already exists", field::go_quote(name)))
            .about(resource, name)
    }

    /// `why` follows upstream's `Operation cannot be fulfilled on …:`.
    pub fn conflict(resource: &GroupResource, name: &str, why: impl fmt::Display) -> Self {
        let text = format!("Operation cannot be fulfilled on {resource} {}: {why}", field::go_quote(name));
        Self::new(409, "Conflict", text).about(resource, name)
    }

    /// The write was based on an older version of the object.
    pub fn stale(resource: &GroupResource, name: &str) -> Self {
        Self::conflict(
            resource,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    pub fn forbidden(resource: &GroupResource, name: &str, why: impl fmt::Display) -> Self {
        let text = if name.is_empty() {
            format!("{resource} is forbidden: {why}")
        } else {
            format!("{resource} {} is forbidden: {why}", field::go_quote(name))
        };
        Self::new(403, "Forbidden", text).about(resource, name)
    }

    /// 422 with one cause per validation error.
    pub fn invalid(kind: &GroupKind, name: &str, errors: &[field::Error]) -> Self {
        let list = match errors {
            [one] => one.to_string(),
            many => {
                // Upstream's aggregate drops repeated messages.
                let mut texts: Vec<String> = Vec::new();
                for text in many.iter().map(ToString::to_string) {
                    if !texts.contains(&text) {
                        texts.push(text);
                    }
                }
                match texts.as_slice() {
                    [one] => one.clone(),
                    _ => format!("[{}]", texts.join(", ")),
                }
            }
        };
        let causes = errors
            .iter()
            .map(|error| Cause {
                reason: error.kind.cause().into(),
                message: error.body(),
                field: error.path.clone(),
            })
            .collect();
        Self::new(422, "Invalid", format!("{kind} {} is invalid: {list}", field::go_quote(name)))
            .with_details(Details {
                name: name.into(),
                group: kind.group.clone(),
                kind: kind.kind.clone(),
                causes,
                ..Details::default()
            })
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    pub fn method_not_allowed(message: impl Into<String>) -> Self {
        Self::new(405, "MethodNotAllowed", message)
    }

    pub fn not_acceptable(message: impl Into<String>) -> Self {
        Self::new(406, "NotAcceptable", message)
    }

    pub fn unsupported_media_type(message: impl Into<String>) -> Self {
        Self::new(415, "UnsupportedMediaType", message)
    }

    /// A list continuation or a watch asks for history that is gone.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    pub fn too_large(message: impl Into<String>) -> Self {
        Self::new(413, "RequestEntityTooLarge", format!("Request entity too large: {}", message.into()))
    }

    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: u32) -> Self {
        Self::new(429, "TooManyRequests", message)
            .with_details(Details { retry_after_seconds: Some(retry_after_seconds), ..Details::default() })
    }

    pub fn internal(message: impl fmt::Display) -> Self {
        let text = message.to_string();
        Self::new(500, "InternalError", format!("Internal error occurred: {text}")).with_details(Details {
            causes: vec![Cause { message: text, ..Cause::default() }],
            ..Details::default()
        })
    }

    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(503, "ServiceUnavailable", message)
    }

    pub fn timeout(message: impl Into<String>) -> Self {
        Self::new(504, "Timeout", message)
    }

    pub fn is_not_found(&self) -> bool {
        self.reason == "NotFound"
    }

    pub fn is_conflict(&self) -> bool {
        self.reason == "Conflict"
    }

    pub fn is_already_exists(&self) -> bool {
        self.reason == "AlreadyExists"
    }

    pub fn is_expired(&self) -> bool {
        self.code == 410
    }

    pub fn is_invalid(&self) -> bool {
        self.reason == "Invalid"
    }

    /// The body as upstream sends it.
    pub fn to_value(&self) -> Value {
        let mut body = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message.as_str(), "code": self.code,
        });
        if !self.reason.is_empty() {
            body.ensure_object().insert("reason", &*self.reason);
        }
        if let Some(token) = self.continue_token.as_deref() {
            body.set_at(&["metadata", "continue"], token);
        }
        if let Some(details) = &self.details {
            body.ensure_object().insert("details", details.to_value());
        }
        body
    }
}

impl Details {
    /// Reads `status.details` of somebody else's answer.
    pub fn from_value(details: &Value) -> Self {
        let text = |field: &str| Str::from(details.str_at(&[field]));
        let cause = |cause: &Value| Cause {
            reason: cause.str_at(&["reason"]).into(),
            message: cause.str_at(&["message"]).into(),
            field: cause.str_at(&["field"]).into(),
        };
        Self {
            name: text("name"),
            group: text("group"),
            kind: text("kind"),
            uid: text("uid"),
            causes: details.array_at(&["causes"]).iter().map(cause).collect(),
            retry_after_seconds: details["retryAfterSeconds"].as_i64().and_then(|n| u32::try_from(n).ok()),
        }
    }

    fn to_value(&self) -> Value {
        let mut out = Value::object();
        let map = out.ensure_object();
        for (key, text) in
            [("name", &self.name), ("group", &self.group), ("kind", &self.kind), ("uid", &self.uid)]
        {
            if !text.is_empty() {
                map.insert(key, text.clone());
            }
        }
        if !self.causes.is_empty() {
            map.insert("causes", self.causes.iter().map(Cause::to_value).collect::<Value>());
        }
        if let Some(seconds) = self.retry_after_seconds {
            map.insert("retryAfterSeconds", seconds);
        }
        out
    }
}

impl Cause {
    fn to_value(&self) -> Value {
        [("reason", &self.reason), ("message", &self.message), ("field", &self.field)]
            .into_iter()
            .filter(|(_, text)| !text.is_empty())
            .map(|(key, text)| (Str::from(key), Value::from(text)))
            .collect()
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Status {}
