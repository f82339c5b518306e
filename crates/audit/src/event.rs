//! The events of one request.

use std::collections::BTreeMap;
use std::sync::Arc;

use apimachinery::{Status, Value};
use auth::{Attributes, UserInfo};
use jiff::Timestamp;
use parking_lot::Mutex;
use serde::Serialize;

use crate::Auditor;
use crate::policy::{Audited, Level};

/// Where a request is when an event is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    RequestReceived,
    /// Only of long-running requests: the head of the answer is sent.
    ResponseStarted,
    ResponseComplete,
    Panic,
}

impl Stage {
    pub(crate) const ALL: [Self; 4] =
        [Self::RequestReceived, Self::ResponseStarted, Self::ResponseComplete, Self::Panic];

    pub fn name(self) -> &'static str {
        match self {
            Self::RequestReceived => "RequestReceived",
            Self::ResponseStarted => "ResponseStarted",
            Self::ResponseComplete => "ResponseComplete",
            Self::Panic => "Panic",
        }
    }
}

/// An `audit.k8s.io/v1` Event, in upstream's order of fields.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Event {
    kind: &'static str,
    api_version: &'static str,
    level: &'static str,
    #[serde(rename = "auditID")]
    audit_id: String,
    stage: &'static str,
    #[serde(rename = "requestURI")]
    request_uri: String,
    verb: String,
    user: User,
    #[serde(skip_serializing_if = "Option::is_none")]
    impersonated_user: Option<User>,
    #[serde(rename = "sourceIPs", skip_serializing_if = "Vec::is_empty")]
    source_ips: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    user_agent: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    object_ref: Option<ObjectReference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_status: Option<ResponseStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_object: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_object: Option<Value>,
    request_received_timestamp: String,
    stage_timestamp: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Serialize)]
struct User {
    #[serde(skip_serializing_if = "String::is_empty")]
    username: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    uid: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    groups: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    extra: BTreeMap<String, Vec<String>>,
}

#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct ObjectReference {
    #[serde(skip_serializing_if = "String::is_empty")]
    resource: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    namespace: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    uid: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    api_group: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    api_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    resource_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    subresource: String,
}

/// How a request was answered; of a success only the code.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ResponseStatus {
    metadata: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "str::is_empty")]
    status: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    message: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Value>,
    code: u16,
}

impl ResponseStatus {
    pub fn code(code: u16) -> Self {
        Self { code, ..Self::default() }
    }

    pub fn failure(status: &Status) -> Self {
        let tree = status.to_value();
        Self {
            status: "Failure",
            message: tree.str_at(&["message"]).to_owned(),
            reason: tree.str_at(&["reason"]).to_owned(),
            details: tree.get("details").cloned(),
            ..Self::code(status.code)
        }
    }
}

/// What is known about a request when its record begins.
#[derive(Clone, Debug)]
pub struct Begin<'a> {
    pub id: &'a str,
    /// Path and query as received.
    pub uri: &'a str,
    pub user_agent: &'a str,
    /// The client's address, after those that proxies name.
    pub source_ips: Vec<String>,
    pub received: Timestamp,
}

/// The record of one request while it is served.
#[derive(Debug)]
pub struct Record {
    auditor: Arc<Auditor>,
    level: Level,
    /// Of each stage whether it is left out.
    omitted: [bool; 4],
    omit_managed_fields: bool,
    event: Mutex<Event>,
}

/// As long as a user agent may be; longer ones say that they are cut.
const USER_AGENT_MAX: usize = 1024;
const AGENT_CUT: &str = "...TRUNCATED";

impl Record {
    pub(crate) fn new(
        auditor: Arc<Auditor>,
        audited: Audited<'_>,
        request: &Attributes<'_>,
        begin: Begin<'_>,
    ) -> Self {
        let received = apimachinery::time::format_micros(begin.received);
        let omitted = Stage::ALL.map(|stage| audited.omit_stages.iter().any(|own| own == stage.name()));
        let event = Event {
            kind: "Event",
            api_version: "audit.k8s.io/v1",
            level: audited.level.name(),
            audit_id: begin.id.to_owned(),
            stage: Stage::RequestReceived.name(),
            request_uri: begin.uri.to_owned(),
            verb: request.verb.to_owned(),
            user: User::of(request.user),
            impersonated_user: None,
            source_ips: begin.source_ips,
            user_agent: cut(begin.user_agent),
            object_ref: request.resource_request.then(|| ObjectReference::of(request)),
            response_status: None,
            request_object: None,
            response_object: None,
            stage_timestamp: received.clone(),
            request_received_timestamp: received,
            annotations: BTreeMap::new(),
        };
        Self {
            level: audited.level,
            omit_managed_fields: audited.omit_managed_fields,
            omitted,
            event: Mutex::new(event),
            auditor,
        }
    }

    /// How much is recorded; what costs something to gather asks first.
    pub fn level(&self) -> Level {
        self.level
    }

    /// Writes the event of a stage, unless the policy leaves it out.
    pub fn stage(&self, stage: Stage) {
        if self.omitted[stage as usize] {
            return;
        }
        let mut event = self.event.lock();
        event.stage = stage.name();
        if stage != Stage::RequestReceived {
            event.stage_timestamp = apimachinery::time::format_micros(rt::now());
        }
        self.auditor.process(&event);
    }

    /// Notes something about how the request was decided. What is noted stays.
    pub fn annotate(&self, key: &str, value: &str) {
        self.event.lock().annotations.entry(key.to_owned()).or_insert_with(|| value.to_owned());
    }

    /// The request goes on as somebody else.
    pub fn impersonated(&self, user: &UserInfo) {
        self.event.lock().impersonated_user = Some(User::of(user));
    }

    /// What a write brings.
    pub fn request_object(&self, object: &Value) {
        let mut event = self.event.lock();
        if let Some(reference) = &mut event.object_ref {
            reference.fill(object);
        }
        if self.level >= Level::Request {
            event.request_object = Some(self.shown(object.clone()));
        }
    }

    /// A patch, as it came.
    pub fn request_patch(&self, patch: &[u8]) {
        if self.level >= Level::Request {
            self.event.lock().request_object = Value::parse(patch).ok();
        }
    }

    pub fn answered(&self, status: ResponseStatus) {
        self.event.lock().response_status = Some(status);
    }

    /// What was answered; for the level `RequestResponse`.
    pub fn response_object(&self, object: Value) {
        if self.level >= Level::RequestResponse {
            self.event.lock().response_object = Some(self.shown(object));
        }
    }

    fn shown(&self, mut object: Value) -> Value {
        if self.omit_managed_fields {
            drop_managed_fields(&mut object);
            let items = object.at_mut(&["items"]).and_then(Value::as_array_mut);
            items.into_iter().flatten().for_each(drop_managed_fields);
        }
        object
    }
}

impl Event {
    pub(crate) fn id(&self) -> &str {
        &self.audit_id
    }

    /// Without the objects, for what takes only so much; says so.
    pub(crate) fn truncated(&self) -> Self {
        let mut short = Self { request_object: None, response_object: None, ..self.clone() };
        short.annotations.insert("audit.k8s.io/truncated".to_owned(), "true".to_owned());
        short
    }
}

impl User {
    fn of(user: &UserInfo) -> Self {
        Self {
            username: user.name().to_owned(),
            uid: user.uid().to_owned(),
            groups: user.groups().to_vec(),
            extra: user.extra().clone(),
        }
    }
}

impl ObjectReference {
    fn of(request: &Attributes<'_>) -> Self {
        Self {
            resource: request.resource.to_owned(),
            namespace: request.namespace.to_owned(),
            name: request.name.to_owned(),
            api_group: request.api_group.to_owned(),
            api_version: request.api_version.to_owned(),
            subresource: request.subresource.to_owned(),
            ..Self::default()
        }
    }

    /// Adds what the path does not say.
    fn fill(&mut self, object: &Value) {
        for (own, key) in [
            (&mut self.namespace, "namespace"),
            (&mut self.name, "name"),
            (&mut self.uid, "uid"),
            (&mut self.resource_version, "resourceVersion"),
        ] {
            if own.is_empty() {
                object.str_at(&["metadata", key]).clone_into(own);
            }
        }
    }
}

fn drop_managed_fields(object: &mut Value) {
    if let Some(Value::Object(metadata)) = object.get_mut("metadata") {
        metadata.remove("managedFields");
    }
}

fn cut(agent: &str) -> String {
    if agent.len() <= USER_AGENT_MAX {
        return agent.to_owned();
    }
    format!("{}{AGENT_CUT}", &agent[..agent.floor_char_boundary(USER_AGENT_MAX)])
}
