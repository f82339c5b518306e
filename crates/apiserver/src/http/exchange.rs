//! A request and what is known about it.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use apimachinery::selector::{FieldSelector, Selector};
use apimachinery::{Status, Value};
use auth::{Attributes, UserInfo};
use flow_control::Classified;
use http::header::HeaderName;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, Uri, header};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use parking_lot::Mutex;
use registry::{Endpoint, Warnings};

use super::body::{self, ResponseBody};
use super::in_flight::Place;
use super::negotiate::{self, Accepted, Encoding};
use super::path::{self, ResourcePath, Target};
use super::query::{self, Query};
use super::render;
use crate::decode;
use crate::door::{Call, Door, Mode};

const PRIORITY_LEVEL_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");
const FLOW_SCHEMA_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");

/// A request with everything known about it. The path is borrowed from whoever decoded it.
pub(crate) struct Exchange<'a> {
    pub method: Method,
    uri: Uri,
    /// Where the request came from.
    pub peer: SocketAddr,
    /// What becomes the raw connection if the answer switches protocols.
    upgrade: Mutex<Option<OnUpgrade>>,
    pub headers: HeaderMap,
    /// Percent-decoded.
    pub path: &'a str,
    pub query: Query,
    pub target: Target<'a>,
    /// What is authorized: a resource's verb, or the method in lower case. Empty where a resource has nothing for the
    /// method.
    pub verb: Cow<'static, str>,
    /// Anonymous until the request is authenticated.
    pub user: UserInfo,
    selected: Selected,
    /// What serves the path, once somebody has looked.
    endpoint: OnceLock<Option<Endpoint>>,
    /// The path names something that is served and the user may have; only then is it counted by name.
    pub served: AtomicBool,
    pub warnings: Warnings,
    /// What flow control took it for.
    pub classified: Option<Classified>,
    /// Its place among the requests that are served, until somebody takes it over.
    pub place: Mutex<Option<Place>>,
    /// Whether CBOR is read and written.
    pub cbor: bool,
    /// What the audit log says about it; most often nothing.
    pub record: Option<Box<audit::Record>>,
    pub started: rt::Instant,
}

impl<'a> Exchange<'a> {
    /// Reads what a request's head says. `path` is that of the head's URI, percent-decoded.
    pub(crate) fn new(mut head: Parts, path: &'a str, peer: SocketAddr, cbor: bool) -> Self {
        let query = Query::parse(head.uri.query().unwrap_or_default());
        let target = path::parse(path);
        let (verb, selected) = match &target {
            Target::Resource(path) => {
                let verb = path::verb(&head.method, path, query.flag("watch")).unwrap_or_default();
                (Cow::Borrowed(verb), Selected::of(verb, path, &query))
            }
            Target::NonResource(_) => (non_resource_verb(&head.method), Selected::default()),
        };
        Self {
            method: head.method,
            uri: head.uri,
            peer,
            upgrade: Mutex::new(head.extensions.remove()),
            headers: head.headers,
            path,
            query,
            target,
            verb,
            user: UserInfo::anonymous(),
            selected,
            endpoint: OnceLock::new(),
            served: AtomicBool::new(false),
            warnings: Warnings::default(),
            classified: None,
            place: Mutex::default(),
            cbor,
            record: None,
            started: rt::instant(),
        }
    }

    /// What serves the path's resource. A request keeps to one catalog, whatever is defined meanwhile.
    pub(crate) fn endpoint(&self, door: &Door) -> Option<&Endpoint> {
        let Target::Resource(path) = &self.target else { return None };
        let found = self
            .endpoint
            .get_or_init(|| door.catalog().get(path.group, path.version, path.resource).cloned());
        found.as_ref()
    }

    pub(crate) fn check_escapes(&self) -> Result<(), Status> {
        let target = self.uri.path_and_query().map_or("", |target| target.as_str());
        if path::is_well_escaped(target) {
            return Ok(());
        }
        Err(Status::bad_request(
            "the request's path or query has a % that two hexadecimal digits do not follow",
        ))
    }

    /// What is authorized, also where the path names nothing that is served.
    pub(crate) fn attributes(&self) -> Attributes<'_> {
        match &self.target {
            Target::Resource(path) => request_attributes(&self.user, &self.verb, path, &self.selected),
            Target::NonResource(path) => Attributes::non_resource(&self.user, &self.verb, path),
        }
    }

    /// Whether the answer goes on for as long as the client likes.
    pub(crate) fn is_long_running(&self) -> bool {
        self.verb == "watch" || self.is_stream()
    }

    /// Whether it is a connection to something that runs.
    pub(crate) fn is_stream(&self) -> bool {
        /// Subresources that connect, or go on for as long as the client likes.
        const STREAMS: [&str; 5] = ["attach", "exec", "log", "portforward", "proxy"];
        matches!(&self.target, Target::Resource(path) if STREAMS.contains(&path.subresource))
    }

    /// How long the request may take; none for what goes on as long as the client likes. `timeout` is a Go duration,
    /// and cannot make it longer.
    pub(crate) fn time_allowed(&self, max: Duration) -> Result<Option<Duration>, Status> {
        if self.is_long_running() {
            return Ok(None);
        }
        let given = self.query.get("timeout");
        if given.is_empty() {
            return Ok(Some(max));
        }
        let wanted = apimachinery::duration::parse(given).map_err(|error| {
            Status::bad_request(format!("invalid timeout specified in the request URL - {error}"))
        })?;
        // Nothing, or less, is no wish.
        let wanted = u64::try_from(wanted).ok().filter(|nanoseconds| *nanoseconds > 0);
        Ok(Some(wanted.map_or(max, |nanoseconds| Duration::from_nanos(nanoseconds).min(max))))
    }

    pub(crate) fn uri(&self) -> &Uri {
        &self.uri
    }

    /// The connection under the request, for an answer that switches protocols. There is one, once.
    pub(crate) fn take_upgrade(&self) -> Option<OnUpgrade> {
        self.upgrade.lock().take()
    }

    pub(crate) fn is_mutating(&self) -> bool {
        !matches!(&*self.verb, "get" | "list" | "watch" | "head" | "options" | "trace")
    }

    pub(crate) fn header(&self, name: HeaderName) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// How the body is written.
    pub(crate) fn body_media(&self) -> decode::BodyMedia<'_> {
        decode::BodyMedia { content_type: self.content_type(), cbor: self.cbor }
    }

    pub(crate) fn content_type(&self) -> &str {
        let full = self.header(header::CONTENT_TYPE);
        full.split(';').next().unwrap_or_default().trim()
    }

    pub(crate) fn accepted(&self, transformable: bool) -> Result<Accepted, Status> {
        negotiate::accept(self.header(header::ACCEPT), transformable, self.pretty(), self.cbor)
    }

    /// `?pretty=true`, or a browser or curl without saying otherwise, as upstream.
    fn pretty(&self) -> bool {
        if self.query.has("pretty") {
            return self.query.flag("pretty");
        }
        let agent = self.header(header::USER_AGENT);
        ["curl", "Wget", "Mozilla/5.0"].iter().any(|prefix| agent.starts_with(prefix))
    }

    pub(crate) fn error_encoding(&self) -> Encoding {
        match self.accepted(false) {
            Ok(Accepted { encoding: Encoding::Yaml, .. }) => Encoding::Yaml,
            Ok(Accepted { encoding, .. }) => encoding,
            Err(_) => Encoding::Json,
        }
    }

    pub(crate) fn include_object(&self) -> Result<render::IncludeObject, Status> {
        let given = self.query.get("includeObject");
        render::IncludeObject::parse(given)
            .ok_or_else(|| Status::bad_request(format!("unrecognized includeObject value: \"{given}\"")))
    }

    /// The manager of the fields this request writes: as named, or the first word of the user agent.
    fn field_manager<'b>(&'b self, options: &'b query::WriteOptions) -> &'b str {
        if !options.field_manager.is_empty() {
            return &options.field_manager;
        }
        let agent = self.header(header::USER_AGENT).split('/').next().unwrap_or_default();
        /// As long as a `fieldManager` may be.
        const MANAGER_BYTES_MAX: usize = 128;
        let agent = &agent[..agent.floor_char_boundary(MANAGER_BYTES_MAX)];
        if agent.is_empty() { "unknown" } else { agent }
    }

    pub(crate) fn mode<'b>(&'b self, options: &'b query::WriteOptions) -> Mode<'b> {
        Mode {
            dry_run: options.dry_run,
            field_manager: self.field_manager(options),
            force: options.force == Some(true),
            warnings: &self.warnings,
            now: rt::now(),
            validation: options.field_validation,
        }
    }

    pub(crate) async fn decode(
        &self,
        call: &Call<'_>,
        incoming: Incoming,
        options: &query::WriteOptions,
    ) -> Result<Value, Status> {
        let bytes = body::read(incoming).await?;
        let object = decode::object(call, &bytes, self.body_media(), &self.mode(options))?;
        if let Some(record) = &self.record {
            record.request_object(&object);
        }
        Ok(object)
    }

    pub(crate) fn finish(&self, mut response: Response<ResponseBody>) -> Response<ResponseBody> {
        for warning in self.warnings.take() {
            let text = format!("299 - {}", apimachinery::field::go_quote(&warning));
            if let Ok(text) = HeaderValue::from_str(&text) {
                response.headers_mut().append(header::WARNING, text);
            }
        }
        self.name_classification(response.headers_mut());
        let size = hyper::body::Body::size_hint(response.body()).exact();
        let code = response.status().as_u16();
        telemetry::metrics().apiserver.finished(&self.labels(), code, self.started.elapsed(), size);
        response
    }

    /// The uids and not the names: how an administrator sorts users is not their business.
    fn name_classification(&self, headers: &mut HeaderMap) {
        let Some(Classified { schema, level }) = &self.classified else { return };
        for (name, uid) in [(&PRIORITY_LEVEL_UID, level), (&FLOW_SCHEMA_UID, schema)] {
            if let Ok(value) = HeaderValue::from_maybe_shared(uid.clone()) {
                headers.insert(name.clone(), value);
            }
        }
    }

    pub(crate) fn labels(&self) -> telemetry::RequestLabels<'_> {
        let Target::Resource(path) = &self.target else {
            return telemetry::RequestLabels { verb: metric_method(&self.method), ..Default::default() };
        };
        if self.verb.is_empty() {
            return telemetry::RequestLabels { verb: metric_method(&self.method), ..Default::default() };
        }
        let scope = match (path.namespace.is_empty(), path.name.is_empty()) {
            (_, false) => "resource",
            (false, true) => "namespace",
            (true, true) => "cluster",
        };
        let verb = match path.subresource {
            "attach" | "exec" | "proxy" | "log" | "portforward" => "CONNECT",
            _ => metric_verb(&self.verb, &self.method, self.content_type()),
        };
        if !self.served.load(Ordering::Relaxed) {
            // Whatever a stranger types must not become a series.
            return telemetry::RequestLabels { verb, scope, ..Default::default() };
        }
        telemetry::RequestLabels {
            verb,
            dry_run: self.query.has("dryRun"),
            group: path.group,
            version: path.version,
            resource: path.resource,
            subresource: path.subresource,
            scope,
        }
    }
}

/// What a list, watch or deletion of a collection is limited to; nothing for other requests.
#[derive(Default)]
struct Selected {
    /// As upstream: a collection request with `fieldSelector=metadata.name=x` counts as one about `x`, so that a rule
    /// with resource names can allow it.
    name: String,
    fields: FieldSelector,
    labels: Selector,
}

impl Selected {
    /// A selector that does not parse selects nothing here; the request fails on it later.
    fn of(verb: &str, path: &ResourcePath<'_>, query: &Query) -> Self {
        if !matches!(verb, "list" | "watch" | "deletecollection") {
            return Self::default();
        }
        let fields = FieldSelector::parse(query.get("fieldSelector")).unwrap_or_default();
        let labels = Selector::parse(query.get("labelSelector")).unwrap_or_default();
        let name = if path.name.is_empty() { selected_name(&fields).to_owned() } else { String::new() };
        Self { name, fields, labels }
    }
}

/// The one name that a request for a collection is limited to, if it is.
pub(crate) fn selected_name(fields: &FieldSelector) -> &str {
    let name = fields.exact("metadata.name").unwrap_or_default();
    let is_path_segment = !matches!(name, "." | "..") && !name.contains(['/', '%']);
    if is_path_segment { name } else { "" }
}

fn request_attributes<'a>(
    user: &'a UserInfo,
    verb: &'a str,
    path: &ResourcePath<'a>,
    selected: &'a Selected,
) -> Attributes<'a> {
    Attributes {
        api_group: path.group,
        api_version: path.version,
        subresource: path.subresource,
        // As upstream: a namespace is its own namespace, so that a Role in it may grant reading it.
        namespace: if path.group.is_empty() && path.resource == "namespaces" {
            path.name
        } else {
            path.namespace
        },
        name: if path.name.is_empty() { &selected.name } else { path.name },
        field_selector: selected.fields.requirements(),
        label_selector: selected.labels.requirements(),
        ..Attributes::resource(user, verb, path.resource)
    }
}

fn metric_verb(verb: &str, method: &Method, content_type: &str) -> &'static str {
    match verb {
        "get" if method == Method::HEAD => "HEAD",
        "get" => "GET",
        "list" => "LIST",
        "watch" => "WATCH",
        "create" => "POST",
        "update" => "PUT",
        "patch" if content_type.starts_with("application/apply-patch+") => "APPLY",
        "patch" => "PATCH",
        "delete" => "DELETE",
        _ => "DELETECOLLECTION",
    }
}

/// The method as a label; clients may make up methods, and each would be a series of its own.
fn metric_method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        _ => "other",
    }
}

/// The verb of a path that names no resource: the method in lower case.
fn non_resource_verb(method: &Method) -> Cow<'static, str> {
    Cow::Borrowed(match *method {
        Method::GET => "get",
        Method::HEAD => "head",
        Method::POST => "post",
        Method::PUT => "put",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        Method::OPTIONS => "options",
        _ => return Cow::Owned(method.as_str().to_ascii_lowercase()),
    })
}
