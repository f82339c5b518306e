//! What each verb on a resource does with its request.

use std::sync::atomic::Ordering;

use apimachinery::Status;
use http::{HeaderValue, Response, header};
use hyper::body::Incoming;
use registry::{Deleted, WatchRequest};

use super::body::{self, ResponseBody};
use super::exchange::Exchange;
use super::handler::Handler;
use super::negotiate::{self, Encoding};
use super::path::ResourcePath;
use super::query;
use super::watch::{self, WatchBody};
use super::{proxy, render};
use crate::connect::{self, Purpose};
use crate::decode::{self, FieldValidation};
use crate::door::{self, Call};
use crate::patch;

impl Handler {
    /// Answers an authorized request for a resource.
    pub(super) async fn resource(
        &self,
        exchange: &Exchange<'_>,
        path: &ResourcePath<'_>,
        incoming: Incoming,
    ) -> Result<Response<ResponseBody>, Status> {
        let endpoint = exchange.endpoint(&self.door).ok_or_else(Status::no_such_path)?;
        exchange.served.store(true, Ordering::Relaxed);
        let call = Call {
            user: &exchange.user,
            endpoint,
            namespace: path.namespace,
            name: path.name,
            subresource: path.subresource,
        };
        check_served(&call, path, &exchange.verb)?;
        if exchange.error_encoding() == Encoding::Protobuf
            && !api::protobuf::has_kind(&endpoint.resource.gvk())
        {
            return Err(negotiate::no_protobuf());
        }
        if let Some(warning) = &endpoint.resource.deprecation {
            exchange.warnings.add(warning.as_str());
        }
        if let Some(purpose) = Purpose::of(&endpoint.resource, path.subresource) {
            return self.connect(exchange, &call, purpose, path.rest, incoming).await;
        }
        match &*exchange.verb {
            "watch" => self.watch(exchange, &call).await,
            "get" => {
                let accepted = exchange.accepted(true)?;
                let answer = self.door.get(&call).await?;
                Ok(render::answer(200, endpoint, &answer, accepted, exchange.include_object()?))
            }
            "list" => {
                let accepted = exchange.accepted(true)?;
                let page = self.door.list(&call, &query::list_request(&exchange.query)?).await?;
                Ok(render::list(endpoint, page, accepted, exchange.include_object()?))
            }
            "create" => self.create(exchange, &call, incoming).await,
            "update" => self.update(exchange, &call, incoming).await,
            "patch" => self.patch(exchange, &call, incoming).await,
            _ => self.delete(exchange, &call, incoming).await,
        }
    }

    /// Hands the request on to where the pod, Service or node is.
    async fn connect(
        &self,
        exchange: &Exchange<'_>,
        call: &Call<'_>,
        purpose: Purpose,
        rest: &str,
        incoming: Incoming,
    ) -> Result<Response<ResponseBody>, Status> {
        let options = connect::options(call, &exchange.query, rest);
        self.door.connect(call, &exchange.mode(&Default::default()), purpose, options).await?;
        let located = connect::locate(&*self.door, self.backends.options(), call, &exchange.query, rest)?;
        let Some(location) = located else {
            return Ok(render::bytes(200, "text/plain", ""));
        };
        let running = telemetry::metrics().apiserver.long_running(&exchange.labels()).track();
        let onward = proxy::Onward { exchange, running, shutdown: &self.shutdown };
        onward.send(&self.backends, purpose, &location, incoming).await
    }

    async fn watch(
        &self,
        exchange: &Exchange<'_>,
        call: &Call<'_>,
    ) -> Result<Response<ResponseBody>, Status> {
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
        let stream = match self.door.watch(call, request).await {
            // Upstream answers 200 and tells in the stream that history is gone.
            Err(status) if status.is_expired() => return Ok(expired_watch(&status, accepted.encoding)),
            stream => stream?,
        };
        let include = exchange.include_object()?;
        let body = WatchBody::new(call.endpoint, stream, &options, accepted, include, self.shutdown.clone());
        let body = match exchange.place.lock().take() {
            Some(place) => body.beginning_in(place),
            None => body,
        };
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
        let kind = patch::Kind::of_media_type(media, call.endpoint, exchange.cbor)?;
        let options = query::write_options(&exchange.query, "PatchOptions", kind.is_apply())?;
        let accepted = exchange.accepted(true)?;
        let bytes = body::read(incoming).await?;
        if let Some(record) = &exchange.record {
            record.request_patch(&bytes);
        }
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
            if bytes.is_empty() { None } else { Some(decode::options(&bytes, exchange.body_media())?) };
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

/// Whether the resource has this verb, and is in a namespace or not as the path has it.
fn check_served(call: &Call<'_>, path: &ResourcePath<'_>, verb: &str) -> Result<(), Status> {
    let resource = &call.endpoint.resource;
    if path.subresource.is_empty() {
        let needed = if verb == "watch" && !resource.has_verb("watch") { "list" } else { verb };
        if !resource.has_verb(needed) {
            return Err(door::not_allowed());
        }
        let collection_write = path.name.is_empty() && matches!(verb, "update" | "patch");
        if collection_write {
            return Err(door::not_allowed());
        }
    } else {
        let subresource = resource.subresource(path.subresource).ok_or_else(|| match resource.custom {
            Some(_) => Status::not_found(&resource.group_resource(), path.name),
            None => Status::no_such_path(),
        })?;
        if !subresource.verbs.iter().any(|own| own == verb) {
            return Err(door::not_allowed());
        }
    }
    let needs_namespace = resource.namespaced
        && path.namespace.is_empty()
        && !(path.name.is_empty() && matches!(verb, "list" | "watch"));
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
