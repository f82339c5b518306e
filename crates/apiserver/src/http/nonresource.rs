//! Discovery, OpenAPI, version, health, metrics and the keys of service-account tokens.

use api::discovery::{self, AggregatedVersion};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};

use super::body::ResponseBody;
use super::handler::Handler;
use super::negotiate::Encoding;
use super::query::Query;
use super::{compress, render};
use crate::catalog::{Catalog, Document};
use crate::fairness::Fairness;
use crate::health;

const JSON: &str = "application/json";
const AGGREGATED_V2: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
const AGGREGATED_V2BETA1: &str = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";
/// As clients ask for it; `@` is not allowed in a media type, so the answer spells it with a dot, as upstream's does.
const OPENAPI_V2_PROTOBUF_ACCEPT: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

/// Answers a path that names no resource. The caller was authorized for it.
pub fn answer(
    handler: &Handler,
    method: &Method,
    path: &str,
    query: &Query,
    headers: &HeaderMap,
) -> Response<ResponseBody> {
    if method != Method::GET && method != Method::HEAD {
        return render::status(&crate::door::not_allowed(), Encoding::Json);
    }
    let catalog = handler.door.catalog();
    let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
    match segments.as_slice() {
        [""] => render::value(200, Encoding::Json, &root(&catalog)),
        ["version"] => render::value(200, Encoding::JsonPretty, &handler.version),
        ["healthz" | "livez" | "readyz", rest @ ..] => health(handler, segments[0], rest, query),
        ["metrics"] => render::bytes(200, telemetry::METRICS_CONTENT_TYPE, telemetry::metrics().encode()),
        ["metrics", "slis"] => {
            render::bytes(200, telemetry::METRICS_CONTENT_TYPE, telemetry::metrics().health.encode())
        }
        ["openid", "v1", "jwks"] => handler.identifier.jwks(),
        [".well-known", "openid-configuration"] => handler.identifier.openid_configuration(),
        ["debug", "api_priority_and_fairness", table] => flow_control_table(handler, table, query),
        ["openapi", rest @ ..] => match openapi_document(&catalog, rest, headers) {
            Some(document) => cached(handler.backends.aggregator.merged(path, document), headers),
            None => not_found_text(),
        },
        ["api" | "apis", ..] => discovery_answer(handler, &catalog, path, headers),
        _ => not_found_text(),
    }
}

fn discovery_answer(
    handler: &Handler,
    catalog: &Catalog,
    path: &str,
    headers: &HeaderMap,
) -> Response<ResponseBody> {
    let path = path.trim_end_matches('/');
    let documents = catalog.discovery();
    let aggregated = aggregated_version(headers);
    let kept = |content_type, bytes: &Bytes| {
        catalog.document(&format!("{path} {content_type}"), || Document::new(content_type, bytes))
    };
    let document = match (path, aggregated) {
        ("/api", Some((version, content_type))) => kept(content_type, documents.aggregated_core(version)),
        ("/apis", Some((version, content_type))) => kept(content_type, documents.aggregated_groups(version)),
        ("/api", None) => {
            let versions = || discovery::api_versions(&handler.identifier.address());
            catalog.document("/api", || Document::new(JSON, &versions()))
        }
        _ => match documents.at(path) {
            Some(bytes) => kept(JSON, bytes),
            None if path.matches('/').count() == 2 && path.starts_with("/apis/") => {
                let group = path.trim_start_matches("/apis/");
                match handler.backends.aggregator.group_document(group) {
                    Some(bytes) => Document::new(JSON, &bytes),
                    None => return not_found_text(),
                }
            }
            None => return render::status(&apimachinery::Status::no_such_path(), Encoding::Json),
        },
    };
    cached(handler.backends.aggregator.merged(path, document), headers)
}

/// The first aggregated form that the client lists before plain JSON.
fn aggregated_version(headers: &HeaderMap) -> Option<(AggregatedVersion, &'static str)> {
    let accept = headers.get(header::ACCEPT)?.to_str().ok()?;
    for clause in accept.split(',') {
        let mut parts = clause.split(';').map(str::trim);
        if parts.next() != Some(JSON) {
            continue;
        }
        let parameters: Vec<&str> = parts.collect();
        if !parameters.contains(&"as=APIGroupDiscoveryList") || !parameters.contains(&"g=apidiscovery.k8s.io")
        {
            return None;
        }
        if parameters.contains(&"v=v2") {
            return Some((AggregatedVersion::V2, AGGREGATED_V2));
        }
        if parameters.contains(&"v=v2beta1") {
            return Some((AggregatedVersion::V2Beta1, AGGREGATED_V2BETA1));
        }
    }
    None
}

fn openapi_document(catalog: &Catalog, path: &[&str], headers: &HeaderMap) -> Option<Document> {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match path {
        ["v2"] if accept.contains(OPENAPI_V2_PROTOBUF_ACCEPT) => Some(catalog.openapi_v2_protobuf()),
        ["v2"] => Some(catalog.openapi_v2()),
        ["v3"] => Some(catalog.openapi_v3_index()),
        ["v3", rest @ ..] => catalog.openapi_v3(&rest.join("/")),
        _ => None,
    }
}

/// A document in the encoding that the client takes, or that it has it already.
fn cached(document: Document, headers: &HeaderMap) -> Response<ResponseBody> {
    let known = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let gzip = document.gzip().filter(|_| compress::takes_gzip(headers));
    let mut response = match gzip {
        _ if known == Some(&*document.etag) => {
            let mut response = Response::new(ResponseBody::empty());
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            response
        }
        Some(gzip) => {
            let mut response = render::bytes(200, document.content_type, gzip.clone());
            response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            response
        }
        None => {
            let mut response = Response::new(document.body());
            let content_type = HeaderValue::from_static(document.content_type);
            response.headers_mut().insert(header::CONTENT_TYPE, content_type);
            response
        }
    };
    if let Ok(etag) = HeaderValue::from_str(&document.etag) {
        response.headers_mut().insert(header::ETAG, etag);
    }
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept-Encoding, Accept"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

fn health(handler: &Handler, endpoint: &str, rest: &[&str], query: &Query) -> Response<ResponseBody> {
    let excluded: Vec<&str> = query.values("exclude").collect();
    let mut checks = handler.readiness.report(&excluded);
    if endpoint == "livez" {
        // Being alive does not depend on the roles being ready.
        checks.truncate(1);
    }
    if let [name] = rest {
        checks.retain(|(own, _)| own == name);
        if checks.is_empty() {
            return not_found_text();
        }
    }
    for (name, healthy) in &checks {
        telemetry::metrics().health.checked(name, endpoint, *healthy);
    }
    let (code, text) = health::answer(endpoint, &checks, query.flag("verbose"));
    render::bytes(code, "text/plain; charset=utf-8", text)
}

/// What flow control has in hand, for people.
fn flow_control_table(handler: &Handler, table: &str, query: &Query) -> Response<ResponseBody> {
    let Some(control) = handler.in_flight.fairness().map(Fairness::control) else { return not_found_text() };
    let text = match table {
        "dump_priority_levels" => control.dump_priority_levels(),
        "dump_queues" => control.dump_queues(),
        "dump_requests" => control.dump_requests(!query.get("includeRequestDetails").is_empty()),
        _ => return not_found_text(),
    };
    render::bytes(200, "text/plain; charset=utf-8", text)
}

/// `/`: the paths there are.
fn root(catalog: &Catalog) -> apimachinery::Value {
    const OWN: [&str; 11] = [
        "/.well-known/openid-configuration",
        "/api",
        "/healthz",
        "/livez",
        "/metrics",
        "/metrics/slis",
        "/openapi/v2",
        "/openapi/v3",
        "/openid/v1/jwks",
        "/readyz",
        "/version",
    ];
    let mut paths: Vec<&str> = OWN.into_iter().chain(catalog.discovery().paths()).collect();
    paths.sort_unstable();
    apimachinery::json!({ "paths": paths })
}

fn not_found_text() -> Response<ResponseBody> {
    render::bytes(404, "text/plain; charset=utf-8", "404 page not found\n")
}
