//! Answers in the form the client accepts.

use std::sync::Arc;

use api::Resource;
use api::table::{self, TableOptions};
use apimachinery::object::Form;
use apimachinery::{Object, Status, Value, json};
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use registry::{Endpoint, Page};

use super::body::{Item, ListBody, ResponseBody};
use super::negotiate::{Accepted, Encoding, Shape};
use crate::door::Answer;

pub use api::table::IncludeObject;

/// A response with a body of one piece.
pub fn bytes(code: u16, content_type: &'static str, body: impl Into<Bytes>) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::full(body));
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// A tree in the accepted encoding.
pub fn value(code: u16, encoding: Encoding, value: &Value) -> Response<ResponseBody> {
    let body = match encoding {
        Encoding::Json => {
            let mut body = value.to_json();
            body.push(b'\n');
            body
        }
        Encoding::JsonPretty => {
            let mut body = serde_json::to_vec_pretty(value).unwrap_or_default();
            body.push(b'\n');
            body
        }
        Encoding::Yaml => value.to_yaml().into_bytes(),
        Encoding::Cbor => apimachinery::cbor::encode(value),
        Encoding::Protobuf => match api::protobuf::encode(value) {
            Ok(body) => body,
            Err(error) => return status(&Status::internal(error), Encoding::Json),
        },
    };
    bytes(code, encoding.content_type(), body)
}

/// JSON that is written straight into the body; other encodings go through a tree.
fn written(code: u16, encoding: Encoding, write: impl FnOnce(&mut Vec<u8>)) -> Response<ResponseBody> {
    let mut body = Vec::new();
    write(&mut body);
    if encoding == Encoding::Json {
        body.push(b'\n');
        return bytes(code, "application/json", body);
    }
    value(code, encoding, &Value::parse(&body).unwrap_or_default())
}

/// A failure, in the encoding that an answer would have had.
pub fn status(status: &Status, encoding: Encoding) -> Response<ResponseBody> {
    let mut response = value(status.code, encoding, &status.to_value());
    let retry = status.details.as_ref().and_then(|details| details.retry_after_seconds);
    if let Some(seconds) = retry {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if status.code == 401 {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

/// What an operation answered.
pub fn answer(
    code: u16,
    endpoint: &Endpoint,
    answer: &Answer,
    accepted: Accepted,
    include: IncludeObject,
) -> Response<ResponseBody> {
    match answer {
        Answer::Object(object) => self::object(code, endpoint, object, accepted, include),
        Answer::Value(tree) => value(code, accepted.encoding, tree),
        Answer::Done => {
            let done = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": code});
            value(code, accepted.encoding, &done)
        }
    }
}

/// Hot path: one object.
pub fn object(
    code: u16,
    endpoint: &Endpoint,
    object: &Object,
    accepted: Accepted,
    include: IncludeObject,
) -> Response<ResponseBody> {
    match accepted.shape {
        Shape::Table(version) => {
            let metadata = json!({ "resourceVersion": object.revision().to_string() });
            let options = TableOptions { version, include, definitions: true };
            written(code, accepted.encoding, |out| {
                table::write_table(&endpoint.resource, [object], &metadata, rt::now(), options, out);
            })
        }
        Shape::Metadata(version) => {
            if accepted.encoding == Encoding::Protobuf {
                return value(
                    code,
                    accepted.encoding,
                    &table::partial_value(&endpoint.resource, object, version),
                );
            }
            written(code, accepted.encoding, |out| {
                table::write_partial(&endpoint.resource, object, version, out);
            })
        }
        Shape::Object if accepted.encoding == Encoding::Json && !endpoint.needs_conversion() => {
            let mut body = Vec::with_capacity(object.written_len() + 1);
            object.write(Form::As(&endpoint.resource.type_meta), &mut body);
            body.push(b'\n');
            bytes(code, "application/json", body)
        }
        Shape::Object => value(code, accepted.encoding, &endpoint.served(object)),
    }
}

/// Longer lists are not indented: that takes a tree of all of them in memory, and nobody reads so much.
const PRETTY_OBJECTS_MAX: usize = 1_000;

/// A page of objects; large ones are written while the client reads.
pub fn list(
    endpoint: &Endpoint,
    page: Page,
    accepted: Accepted,
    include: IncludeObject,
) -> Response<ResponseBody> {
    let metadata = list_metadata(&page);
    let count = page.objects.len();
    if accepted.encoding == Encoding::Protobuf {
        return protobuf_list(endpoint, page.objects, metadata, accepted.shape);
    }
    let body = json_list(endpoint, page.objects, &metadata, accepted.shape, include);
    match accepted.encoding {
        Encoding::JsonPretty if count > PRETTY_OBJECTS_MAX => list_response(body, count, "application/json"),
        Encoding::Json => list_response(body, count, "application/json"),
        other => value(200, other, &Value::parse(&body.collect()).unwrap_or_default()),
    }
}

fn list_response(body: ListBody, count: usize, content_type: &'static str) -> Response<ResponseBody> {
    /// Below this many objects one piece with a length is quicker for both sides.
    const STREAM_OBJECTS_MIN: usize = 16;
    let small = count < STREAM_OBJECTS_MIN;
    let body = if small { ResponseBody::full(body.collect()) } else { ResponseBody::List(body) };
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// Hot path: stored objects are copied as they are.
fn json_list(
    endpoint: &Endpoint,
    mut objects: Vec<Arc<Object>>,
    metadata: &Value,
    shape: Shape,
    include: IncludeObject,
) -> ListBody {
    let resource = endpoint.resource.clone();
    let mut header = Vec::with_capacity(256);
    let item = match shape {
        Shape::Table(version) => {
            let options = TableOptions { version, include, definitions: true };
            table::begin_table(&resource, metadata, options, &mut header);
            table::sort_rows(&resource, &mut objects);
            let now = rt::now();
            Item::Other(Box::new(move |object, out| table::write_row(&resource, object, now, options, out)))
        }
        Shape::Metadata(version) => {
            table::begin_partial_list(metadata, version, &mut header);
            Item::Other(Box::new(move |object, out| table::write_partial(&resource, object, version, out)))
        }
        Shape::Object => {
            // Go writes it of custom resources even when there is no more to come.
            let is_last = resource.custom.is_some() && metadata.get("continue").is_none();
            let extended = is_last.then(|| {
                let mut metadata = metadata.clone();
                metadata.set_at(&["continue"], "");
                metadata
            });
            begin_list(&resource, extended.as_ref().unwrap_or(metadata), &mut header);
            if endpoint.needs_conversion() {
                let endpoint = endpoint.clone();
                Item::Other(Box::new(move |object, out| list_item(&endpoint, object).write_json(out)))
            } else {
                Item::Stored((!resource.bare_list_items).then(|| resource.type_meta.clone()))
            }
        }
    };
    ListBody::new(header, objects, item)
}

fn begin_list(resource: &Resource, metadata: &Value, header: &mut Vec<u8>) {
    header.extend_from_slice(b"{\"kind\":");
    Value::from(resource.list_kind.clone()).write_json(header);
    header.extend_from_slice(b",\"apiVersion\":");
    Value::from(resource.api_version()).write_json(header);
    header.extend_from_slice(b",\"metadata\":");
    metadata.write_json(header);
    header.extend_from_slice(b",\"items\":[");
}

fn protobuf_list(
    endpoint: &Endpoint,
    objects: Vec<Arc<Object>>,
    metadata: Value,
    shape: Shape,
) -> Response<ResponseBody> {
    let resource = &endpoint.resource;
    let count = objects.len();
    let (api_version, kind) = match shape {
        Shape::Metadata(version) => (version.api_version().to_owned(), "PartialObjectMetadataList"),
        Shape::Object | Shape::Table(_) => (resource.api_version(), resource.list_kind.as_str()),
    };
    let mut list = json!({"apiVersion": api_version, "kind": kind});
    list.set_at(&["metadata"], metadata);
    let items = objects.into_iter().map(|object| match shape {
        Shape::Metadata(version) => table::partial_value(resource, &object, version),
        Shape::Object | Shape::Table(_) => list_item(endpoint, &object),
    });
    match api::protobuf::encode_list(&list, items) {
        Ok(pieces) => list_response(ListBody::written(pieces), count, api::protobuf::CONTENT_TYPE),
        Err(error) => status(&Status::internal(error), Encoding::Json),
    }
}

fn list_item(endpoint: &Endpoint, object: &Object) -> Value {
    let mut item = endpoint.served(object);
    if endpoint.resource.bare_list_items {
        let map = item.ensure_object();
        map.remove("apiVersion");
        map.remove("kind");
    }
    item
}

fn list_metadata(page: &Page) -> Value {
    let mut metadata = json!({ "resourceVersion": page.revision.to_string() });
    if !page.continue_token.is_empty() {
        metadata.set_at(&["continue"], page.continue_token.as_str());
    }
    if let Some(remaining) = page.remaining {
        metadata.set_at(&["remainingItemCount"], remaining);
    }
    metadata
}

/// What a finished deletion answers: upstream's success `Status` with the object's identity.
pub fn deleted(endpoint: &Endpoint, object: &Object, accepted: Accepted) -> Response<ResponseBody> {
    let resource = &endpoint.resource;
    let mut details = json!({"name": object.name(), "kind": resource.plural.as_str(), "uid": object.uid()});
    if !resource.group.is_empty() {
        details.set_at(&["group"], resource.group.clone());
    }
    let mut status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"});
    status.set_at(&["details"], details);
    value(200, accepted.encoding, &status)
}
