//! One request: who asks, what for, may they, and the answer.
//!
//! The order is upstream's filter chain: authentication, impersonation, in-flight limit, authorization, then the verb.

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use apimachinery::selector::FieldSelector;
use apimachinery::{Status, Value};
use auth::authenticator::PeerCertificate;
use auth::{Attributes, UserInfo};
use futures::FutureExt;
use http::{HeaderMap, HeaderValue, Method, Request, Response, header};
use hyper::body::Incoming;
use registry::{Deleted, Warnings, WatchRequest};
use rustls::pki_types::CertificateDer;

use super::body::{self, ResponseBody};
use super::identity::Identifier;
use super::negotiate::{self, Accepted, Encoding};
use super::path::{self, ResourcePath, Target};
use super::query::{self, Query};
use super::watch::{self, WatchBody};
use super::{compress, nonresource, render};
use crate::decode::{self, FieldValidation};
use crate::door::{self, Call, Door, Mode};
use crate::health::Readiness;
use crate::patch;

/// Requests being answered at a time, watches aside. Far above what two cores can use; it keeps a flood from
/// taking all memory (3 MiB a body at worst).
const IN_FLIGHT_MAX: usize = 1_024;

/// Everything the handlers need.
pub struct Handler {
    pub(super) door: Arc<Door>,
    pub(super) identifier: Identifier,
    pub(super) readiness: Arc<Readiness>,
    pub(super) version: Value,
    shutdown: rt::Shutdown,
    in_flight: tokio::sync::Semaphore,
    /// How many of them read and how many write.
    reading: Arc<telemetry::Gauge>,
    writing: Arc<telemetry::Gauge>,
}

/// The other end of a connection.
pub struct Peer {
    pub address: SocketAddr,
    /// What it showed in the handshake; checked once and remembered.
    pub(super) certificate: Option<PeerCertificate>,
}

impl Peer {
    pub fn new(address: SocketAddr, certificates: &[CertificateDer<'_>]) -> Self {
        Self { address, certificate: PeerCertificate::new(certificates) }
    }
}

/// A request with everything known about it.
struct Exchange<'a> {
    method: Method,
    headers: HeaderMap,
    query: Query,
    path: ResourcePath<'a>,
    verb: &'static str,
    user: UserInfo,
    /// The one name that a list, watch or deletion of a collection is limited to; empty without.
    selected: String,
    /// The path names something that is served and the user may have; only then is it counted by name.
    served: AtomicBool,
    warnings: Warnings,
}

impl Handler {
    pub fn new(
        door: Arc<Door>,
        identifier: Identifier,
        readiness: Arc<Readiness>,
        version: Value,
        shutdown: rt::Shutdown,
    ) -> Self {
        let in_flight = tokio::sync::Semaphore::new(IN_FLIGHT_MAX);
        let metrics = &telemetry::metrics().apiserver;
        let (reading, writing) = (metrics.inflight(false), metrics.inflight(true));
        Self { door, identifier, readiness, version, shutdown, in_flight, reading, writing }
    }

    /// Answers one request; every failure becomes a `Status`. A panic, which no input should cause, ends the request
    /// and not the connection with everything else on it.
    pub async fn handle(&self, peer: &Peer, request: Request<Incoming>) -> Response<ResponseBody> {
        match AssertUnwindSafe(self.answer(peer, request)).catch_unwind().await {
            Ok(response) => response,
            Err(_) => {
                tracing::error!(peer = %peer.address, "A request panicked");
                render::status(&Status::internal("the request could not be served"), Encoding::Json)
            }
        }
    }

    async fn answer(&self, peer: &Peer, request: Request<Incoming>) -> Response<ResponseBody> {
        let started = rt::instant();
        let (parts, incoming) = request.into_parts();
        if parts.uri.path_and_query().is_some_and(|target| !path::is_well_escaped(target.as_str())) {
            let refused = Status::bad_request(
                "the request's path or query has a % that two hexadecimal digits do not follow",
            );
            return counted(&parts.method, render::status(&refused, Encoding::Json), started);
        }
        let decoded = percent_encoding::percent_decode_str(parts.uri.path()).decode_utf8_lossy().into_owned();
        let query = Query::parse(parts.uri.query().unwrap_or_default());
        let user = match self.identifier.identify(peer, &parts.headers, rt::now().into()) {
            Ok(user) => user,
            Err(status) => return counted(&parts.method, render::status(&status, Encoding::Json), started),
        };
        let path = match path::parse(&decoded) {
            Target::Resource(path) => path,
            Target::NonResource(path) => {
                let answer = self.non_resource(user, &parts.method, path, &query, &parts.headers);
                let response = answer.unwrap_or_else(|status| render::status(&status, Encoding::Json));
                return counted(&parts.method, response, started);
            }
        };
        let watch = query.flag("watch");
        let Some(verb) = path::verb(&parts.method, &path, watch) else {
            return counted(&parts.method, render::status(&door::not_allowed(), Encoding::Json), started);
        };
        let selected = selected_name(verb, &path, &query);
        let requested = request_attributes(&user, verb, &path, &selected);
        let user = match self.identifier.impersonate(&self.door, &requested, &parts.headers) {
            Ok(user) => user,
            Err(status) => return counted(&parts.method, render::status(&status, Encoding::Json), started),
        };
        let exchange = Exchange {
            method: parts.method,
            headers: parts.headers,
            query,
            path,
            verb,
            user,
            selected,
            served: AtomicBool::new(false),
            warnings: Warnings::default(),
        };
        let response = match self.resource(&exchange, incoming).await {
            Ok(response) => response,
            Err(status) => render::status(&status, exchange.error_encoding()),
        };
        exchange.finish(response, started)
    }

    fn non_resource(
        &self,
        user: UserInfo,
        method: &Method,
        path: &str,
        query: &Query,
        headers: &HeaderMap,
    ) -> Result<Response<ResponseBody>, Status> {
        let verb = method.as_str().to_ascii_lowercase();
        let requested = Attributes::non_resource(&user, &verb, path);
        let user = self.identifier.impersonate(&self.door, &requested, headers)?;
        self.door.check(&Attributes::non_resource(&user, &verb, path))?;
        let response = nonresource::answer(self, method, path, query, headers);
        Ok(compress::maybe(response, headers))
    }

    async fn resource(
        &self,
        exchange: &Exchange<'_>,
        incoming: Incoming,
    ) -> Result<Response<ResponseBody>, Status> {
        let path = &exchange.path;
        let endpoint = {
            let catalog = self.door.catalog();
            catalog.get(path.group, path.version, path.resource).cloned()
        };
        // The right to do it is checked before whether it exists, so that a stranger learns nothing.
        self.door.check(&request_attributes(&exchange.user, exchange.verb, path, &exchange.selected))?;
        let endpoint = endpoint.ok_or_else(Status::no_such_path)?;
        exchange.served.store(true, Ordering::Relaxed);
        let call = Call {
            user: &exchange.user,
            endpoint: &endpoint,
            namespace: exchange.namespace(),
            name: path.name,
            subresource: path.subresource,
        };
        check_served(&call, exchange)?;
        if exchange.error_encoding() == Encoding::Protobuf
            && !api::protobuf::has_kind(&endpoint.resource.gvk())
        {
            return Err(negotiate::no_protobuf());
        }
        if let Some(warning) = deprecation(&call) {
            exchange.warnings.add(warning);
        }
        if exchange.verb == "watch" {
            return self.watch(exchange, &call);
        }
        let _permit = self
            .in_flight
            .try_acquire()
            .map_err(|_| Status::too_many_requests("Too many requests, please try again later.", 1))?;
        let _counted = match exchange.verb {
            "get" | "list" => self.reading.track(),
            _ => self.writing.track(),
        };
        match exchange.verb {
            "get" => {
                let accepted = exchange.accepted(true)?;
                let answer = self.door.get(&call)?;
                Ok(render::answer(200, &endpoint, &answer, accepted, exchange.include_object()?))
            }
            "list" => {
                let accepted = exchange.accepted(true)?;
                let page = self.door.list(&call, &query::list_request(&exchange.query)?)?;
                let response = render::list(&endpoint, page, accepted, exchange.include_object()?);
                Ok(compress::maybe(response, &exchange.headers))
            }
            "create" => self.create(exchange, &call, incoming).await,
            "update" => self.update(exchange, &call, incoming).await,
            "patch" => self.patch(exchange, &call, incoming).await,
            _ => self.delete(exchange, &call, incoming).await,
        }
    }

    fn watch(&self, exchange: &Exchange<'_>, call: &Call<'_>) -> Result<Response<ResponseBody>, Status> {
        let accepted = exchange.accepted(true)?;
        let mut options = query::watch_options(&exchange.query)?;
        if !call.name.is_empty() {
            options.fields = options.fields.and("metadata.name", call.name);
        }
        let request = WatchRequest {
            labels: options.labels.clone(),
            fields: options.fields.clone(),
            start: options.start,
        };
        let stream = match self.door.watch(call, request) {
            // Upstream answers 200 and tells in the stream that history is gone.
            Err(status) if status.is_expired() => return Ok(expired_watch(&status, accepted.encoding)),
            stream => stream?,
        };
        let include = exchange.include_object()?;
        let body = WatchBody::new(call.endpoint, stream, &options, accepted, include, self.shutdown.clone());
        let running = telemetry::metrics().apiserver.long_running(&exchange.labels()).track();
        let mut response = Response::new(ResponseBody::Stream(body.into_stream(running)));
        let content_type = HeaderValue::from_static(accepted.encoding.watch_content_type());
        response.headers_mut().insert(header::CONTENT_TYPE, content_type);
        Ok(response)
    }

    async fn create(
        &self,
        exchange: &Exchange<'_>,
        call: &Call<'_>,
        incoming: Incoming,
    ) -> Result<Response<ResponseBody>, Status> {
        if !call.name.is_empty() && call.subresource.is_empty() {
            return Err(door::not_allowed());
        }
        let options = query::write_options(&exchange.query, "CreateOptions", false)?;
        let accepted = exchange.accepted(true)?;
        let object = exchange.decode(call, incoming, &options).await?;
        let mode = exchange.mode(&options);
        let answer = self.door.create(call, &mode, object).await?;
        Ok(render::answer(201, call.endpoint, &answer, accepted, exchange.include_object()?))
    }

    async fn update(
        &self,
        exchange: &Exchange<'_>,
        call: &Call<'_>,
        incoming: Incoming,
    ) -> Result<Response<ResponseBody>, Status> {
        let options = query::write_options(&exchange.query, "UpdateOptions", false)?;
        let accepted = exchange.accepted(true)?;
        let object = exchange.decode(call, incoming, &options).await?;
        let mode = exchange.mode(&options);
        let (answer, created) = self.door.update(call, &mode, object).await?;
        let code = if created { 201 } else { 200 };
        Ok(render::answer(code, call.endpoint, &answer, accepted, exchange.include_object()?))
    }

    async fn patch(
        &self,
        exchange: &Exchange<'_>,
        call: &Call<'_>,
        incoming: Incoming,
    ) -> Result<Response<ResponseBody>, Status> {
        let media = exchange.content_type();
        let kind = patch::Kind::of_media_type(media, call.endpoint)?;
        let options = query::write_options(&exchange.query, "PatchOptions", kind == patch::Kind::Apply)?;
        let accepted = exchange.accepted(true)?;
        let bytes = body::read(incoming).await?;
        let patch_body = patch::parse(kind, &bytes)?;
        let mode = exchange.mode(&options);
        let (answer, created) = self.door.patch(call, &mode, &patch_body).await?;
        let code = if created { 201 } else { 200 };
        Ok(render::answer(code, call.endpoint, &answer, accepted, exchange.include_object()?))
    }

    async fn delete(
        &self,
        exchange: &Exchange<'_>,
        call: &Call<'_>,
        incoming: Incoming,
    ) -> Result<Response<ResponseBody>, Status> {
        let accepted = exchange.accepted(true)?;
        let bytes = body::read(incoming).await?;
        let options_body =
            if bytes.is_empty() { None } else { Some(decode::options(&bytes, exchange.content_type())?) };
        let (request, dry_run) = query::delete_options(&exchange.query, options_body.as_ref())?;
        let options = query::WriteOptions {
            dry_run,
            field_manager: String::new(),
            field_validation: FieldValidation::Ignore,
            force: None,
        };
        let mode = exchange.mode(&options);
        let include = exchange.include_object()?;
        if exchange.verb == "deletecollection" {
            let list = query::list_request(&exchange.query)?;
            let (objects, revision) = self.door.delete_collection(call, &mode, &list, &request).await?;
            let page = registry::Page { objects, revision, continue_token: String::new(), remaining: None };
            return Ok(render::list(call.endpoint, page, accepted, include));
        }
        match self.door.delete(call, &mode, &request).await? {
            Deleted::Pending(object) => Ok(render::object(200, call.endpoint, &object, accepted, include)),
            Deleted::Gone(object) if call.endpoint.resource.strategy.returns_deleted_object() => {
                let object = registry::pods::last_state(call.endpoint, object, mode.now)?;
                Ok(render::object(200, call.endpoint, &object, accepted, include))
            }
            Deleted::Gone(object) => Ok(render::deleted(call.endpoint, &object, accepted)),
        }
    }
}

impl Exchange<'_> {
    /// The namespace an object lives in; `/namespaces/x` itself lives in none.
    fn namespace(&self) -> &str {
        self.path.namespace
    }

    fn header(&self, name: header::HeaderName) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    fn content_type(&self) -> &str {
        let full = self.header(header::CONTENT_TYPE);
        full.split(';').next().unwrap_or_default().trim()
    }

    fn accepted(&self, transformable: bool) -> Result<Accepted, Status> {
        negotiate::accept(self.header(header::ACCEPT), transformable, self.pretty())
    }

    /// `?pretty=true`, or a browser or curl without saying otherwise, as upstream.
    fn pretty(&self) -> bool {
        if self.query.has("pretty") {
            return self.query.flag("pretty");
        }
        let agent = self.header(header::USER_AGENT);
        ["curl", "Wget", "Mozilla/5.0"].iter().any(|prefix| agent.starts_with(prefix))
    }

    fn error_encoding(&self) -> Encoding {
        match self.accepted(false) {
            Ok(Accepted { encoding: Encoding::Yaml, .. }) => Encoding::Yaml,
            Ok(Accepted { encoding, .. }) => encoding,
            Err(_) => Encoding::Json,
        }
    }

    fn include_object(&self) -> Result<render::IncludeObject, Status> {
        let given = self.query.get("includeObject");
        render::IncludeObject::parse(given)
            .ok_or_else(|| Status::bad_request(format!("unrecognized includeObject value: \"{given}\"")))
    }

    /// The manager of the fields this request writes: as named, or the first word of the user agent.
    fn field_manager<'a>(&'a self, options: &'a query::WriteOptions) -> &'a str {
        if !options.field_manager.is_empty() {
            return &options.field_manager;
        }
        let agent = self.header(header::USER_AGENT).split('/').next().unwrap_or_default();
        /// As long as a `fieldManager` may be.
        const MANAGER_BYTES_MAX: usize = 128;
        let agent = &agent[..agent.floor_char_boundary(MANAGER_BYTES_MAX)];
        if agent.is_empty() { "unknown" } else { agent }
    }

    fn mode<'a>(&'a self, options: &'a query::WriteOptions) -> Mode<'a> {
        Mode {
            dry_run: options.dry_run,
            field_manager: self.field_manager(options),
            force: options.force == Some(true),
            warnings: &self.warnings,
            now: rt::now(),
            validation: options.field_validation,
        }
    }

    async fn decode(
        &self,
        call: &Call<'_>,
        incoming: Incoming,
        options: &query::WriteOptions,
    ) -> Result<Value, Status> {
        let bytes = body::read(incoming).await?;
        decode::object(call, &bytes, self.content_type(), &self.mode(options))
    }

    fn finish(&self, mut response: Response<ResponseBody>, started: rt::Instant) -> Response<ResponseBody> {
        for warning in self.warnings.take() {
            let text = format!("299 - {}", apimachinery::field::go_quote(&warning));
            if let Ok(text) = HeaderValue::from_str(&text) {
                response.headers_mut().append(header::WARNING, text);
            }
        }
        let size = hyper::body::Body::size_hint(response.body()).exact();
        let code = response.status().as_u16();
        telemetry::metrics().apiserver.finished(&self.labels(), code, started.elapsed(), size);
        response
    }

    fn labels(&self) -> telemetry::RequestLabels<'_> {
        let scope = match (self.path.namespace.is_empty(), self.path.name.is_empty()) {
            (_, false) => "resource",
            (false, true) => "namespace",
            (true, true) => "cluster",
        };
        let verb = metric_verb(self.verb, &self.method, self.content_type());
        if !self.served.load(Ordering::Relaxed) {
            // Whatever a stranger types must not become a series.
            return telemetry::RequestLabels { verb, scope, ..Default::default() };
        }
        telemetry::RequestLabels {
            verb,
            dry_run: self.query.has("dryRun"),
            group: self.path.group,
            version: self.path.version,
            resource: self.path.resource,
            subresource: self.path.subresource,
            scope,
        }
    }
}

/// What every user of a deprecated API is told.
fn deprecation(call: &Call<'_>) -> Option<&'static str> {
    let resource = &call.endpoint.resource;
    match (resource.group.as_str(), resource.plural.as_str()) {
        ("", "endpoints") => {
            Some("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice")
        }
        ("", "componentstatuses") => Some("v1 ComponentStatus is deprecated in v1.19+"),
        _ => None,
    }
}

/// What is authorized, also where the path names nothing that is served.
fn request_attributes<'a>(
    user: &'a UserInfo,
    verb: &'a str,
    path: &ResourcePath<'a>,
    selected: &'a str,
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
        name: if path.name.is_empty() { selected } else { path.name },
        ..Attributes::resource(user, verb, path.resource)
    }
}

/// As upstream: a collection request with `fieldSelector=metadata.name=x` counts as one about `x`, so that a rule
/// with resource names can allow it.
fn selected_name(verb: &str, path: &ResourcePath<'_>, query: &Query) -> String {
    if !path.name.is_empty() || !matches!(verb, "list" | "watch" | "deletecollection") {
        return String::new();
    }
    let selector = FieldSelector::parse(query.get("fieldSelector")).unwrap_or_default();
    let name = selector.exact("metadata.name").unwrap_or_default();
    let is_path_segment = !matches!(name, "." | "..") && !name.contains(['/', '%']);
    if is_path_segment { name.to_owned() } else { String::new() }
}

/// Counts an answer that is about no resource, or was given before it was known about which.
fn counted(
    method: &Method,
    response: Response<ResponseBody>,
    started: rt::Instant,
) -> Response<ResponseBody> {
    // Clients may make up methods, and each would be a series of its own.
    let verb = match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        _ => "other",
    };
    let labels = telemetry::RequestLabels { verb, ..telemetry::RequestLabels::default() };
    let size = hyper::body::Body::size_hint(response.body()).exact();
    telemetry::metrics().apiserver.finished(&labels, response.status().as_u16(), started.elapsed(), size);
    response
}

fn metric_verb(verb: &str, method: &Method, content_type: &str) -> &'static str {
    match verb {
        "get" if method == Method::HEAD => "HEAD",
        "get" => "GET",
        "list" => "LIST",
        "watch" => "WATCH",
        "create" => "POST",
        "update" => "PUT",
        "patch" if content_type == "application/apply-patch+yaml" => "APPLY",
        "patch" => "PATCH",
        "delete" => "DELETE",
        _ => "DELETECOLLECTION",
    }
}

/// Whether the resource has this verb, and is in a namespace or not as the path has it.
fn check_served(call: &Call<'_>, exchange: &Exchange<'_>) -> Result<(), Status> {
    let resource = &call.endpoint.resource;
    let path = &exchange.path;
    if path.subresource.is_empty() {
        let verb =
            if exchange.verb == "watch" && !resource.has_verb("watch") { "list" } else { exchange.verb };
        if !resource.has_verb(verb) {
            return Err(door::not_allowed());
        }
        let collection_write = path.name.is_empty() && matches!(exchange.verb, "update" | "patch");
        if collection_write {
            return Err(door::not_allowed());
        }
    } else {
        let subresource = resource.subresource(path.subresource).ok_or_else(Status::no_such_path)?;
        if !subresource.verbs.iter().any(|verb| verb == exchange.verb) {
            return Err(door::not_allowed());
        }
    }
    let needs_namespace = resource.namespaced
        && path.namespace.is_empty()
        && !(path.name.is_empty() && matches!(exchange.verb, "list" | "watch"));
    if !resource.namespaced && !path.namespace.is_empty() {
        return Err(Status::no_such_path());
    }
    if needs_namespace {
        return Err(if path.name.is_empty() { door::not_allowed() } else { Status::no_such_path() });
    }
    Ok(())
}

fn expired_watch(status: &Status, encoding: Encoding) -> Response<ResponseBody> {
    let mut frame = Vec::new();
    watch::write_tree("ERROR", &status.to_value(), encoding, &mut frame);
    render::bytes(200, encoding.watch_content_type(), frame)
}
