//! Whole requests to a served cluster: any resource, verb, parameters and forms, with bodies that its kind could have.
#![no_main]

use std::cell::RefCell;
use std::sync::{Arc, LazyLock};

use api::{Resource, protobuf};
use http::Request;
use http_body_util::Full;
use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use pintle_fuzz::server::Server;
use pintle_fuzz::shape;

thread_local! {
    static SERVER: RefCell<Server> = RefCell::new(Server::start());
}

static RESOURCES: LazyLock<Vec<Arc<Resource>>> = LazyLock::new(api::builtin::resources);

const METHODS: [&str; 5] = ["GET", "POST", "PUT", "PATCH", "DELETE"];
const NAMES: [&str; 3] = ["a", "default", "missing"];
const FORMS: [&str; 8] = [
    "application/json",
    "application/yaml",
    protobuf::CONTENT_TYPE,
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
    "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
];
const PARAMETERS: [&str; 12] = [
    "limit=",
    "continue=",
    "labelSelector=",
    "fieldSelector=",
    "resourceVersion=",
    "resourceVersionMatch=",
    "fieldManager=",
    "fieldValidation=",
    "force=",
    "pretty=",
    "watch=",
    "sendInitialEvents=",
];

fuzz_target!(|bytes: &[u8]| {
    if let Ok(Some(request)) = request(&mut Unstructured::new(bytes)) {
        SERVER.with_borrow_mut(|server| server.send(request));
    }
});

fn request(bytes: &mut Unstructured<'_>) -> Result<Option<Request<Full<bytes::Bytes>>>> {
    let resource = bytes.choose(&RESOURCES)?;
    let method = *bytes.choose(&METHODS)?;
    let mut path = match resource.group.as_str() {
        "" => format!("/api/{}", resource.version),
        group => format!("/apis/{group}/{}", resource.version),
    };
    if resource.namespaced && bytes.arbitrary()? {
        path += "/namespaces/t";
    }
    path = format!("{path}/{}", resource.plural);
    if method != "POST" || bytes.ratio(1, 4)? {
        path = format!("{path}/{}", bytes.choose(&NAMES)?);
        if !resource.subresources.is_empty() && bytes.ratio(1, 3)? {
            path = format!("{path}/{}", bytes.choose(&resource.subresources)?.name);
        }
    }
    path += "?dryRun=All&timeout=5s";
    for _ in 0..bytes.int_in_range(0..=3)? {
        path = format!("{path}&{}{}", bytes.choose(&PARAMETERS)?, bytes.arbitrary::<&str>()?);
    }
    let form = *bytes.choose(&FORMS)?;
    let accept = *bytes.choose(&FORMS)?;
    let body = if method == "GET" || method == "DELETE" { Vec::new() } else { body(resource, form, bytes)? };
    let request =
        Request::builder().method(method).uri(path).header("content-type", form).header("accept", accept);
    Ok(request.body(Full::from(body)).ok())
}

fn body(resource: &Resource, form: &str, bytes: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    if bytes.ratio(1, 8)? {
        return Ok(bytes.bytes(bytes.len())?.to_vec());
    }
    let object = shape::sent(resource, bytes)?;
    Ok(match form {
        protobuf::CONTENT_TYPE => protobuf::encode(&object).unwrap_or_default(),
        "application/yaml" => object.to_yaml().into_bytes(),
        _ => object.to_json(),
    })
}
