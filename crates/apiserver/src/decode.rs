//! From a request's bytes to a tree of the right kind, as strict as the client asks.

use api::{Resource, protobuf};
pub use apimachinery::decode::FieldValidation;
use apimachinery::decode::{self as typed, DecodeError};
use apimachinery::patch;
use apimachinery::{GroupVersion, GroupVersionKind, Status, Value, cbor};

use crate::door::{Call, Mode};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Media {
    Json,
    Yaml,
    Protobuf,
    Cbor,
}

/// How a request says its body is written, and whether CBOR is spoken at all.
#[derive(Clone, Copy, Debug)]
pub struct BodyMedia<'a> {
    pub content_type: &'a str,
    pub cbor: bool,
}

/// `kind` is what the body has to be: custom resources have no protobuf.
fn media(body: BodyMedia<'_>, kind: &GroupVersionKind) -> Result<Media, Status> {
    let has_protobuf = || protobuf::has_kind(kind);
    match body.content_type {
        "" | "application/json" | "*/*" => Ok(Media::Json),
        "application/yaml" | "application/x-yaml" | "text/yaml" => Ok(Media::Yaml),
        protobuf::CONTENT_TYPE if has_protobuf() => Ok(Media::Protobuf),
        cbor::CONTENT_TYPE if body.cbor => Ok(Media::Cbor),
        _ => Err(Status::unsupported_media_type(format!(
            "the body of the request was in an unknown format - accepted media types include: application/json, \
             application/yaml{}{}",
            if has_protobuf() { ", application/vnd.kubernetes.protobuf" } else { "" },
            if body.cbor { ", application/cbor" } else { "" }
        ))),
    }
}

/// The kind that a call's body has to be of.
fn expected_kind(call: &Call<'_>) -> GroupVersionKind {
    let resource = &call.endpoint.resource;
    resource
        .subresource(call.subresource)
        .map_or_else(|| resource.gvk(), |subresource| subresource.kind.clone())
}

/// Reads the object that a create or update sends.
pub fn object(call: &Call<'_>, bytes: &[u8], body: BodyMedia<'_>, mode: &Mode<'_>) -> Result<Value, Status> {
    let expected = expected_kind(call);
    let media = media(body, &expected)?;
    let (mut value, duplicates) = parse(bytes, media)
        .map_err(|why| Status::bad_request(unrecognized(bytes, media, &expected, &why)))?;
    check_kind(&mut value, &expected)?;
    let resource = &call.endpoint.resource;
    let decoded = if expected == resource.gvk() {
        resource.strategy.decode(&mut value, resource.schema.root(), mode.validation, &duplicates)
    } else {
        let Some(schema) = api::builtin::schema(&expected) else { return Ok(value) };
        typed::decode(&mut value, schema.root(), mode.validation, &duplicates)
    };
    let is_strict_yaml = media == Media::Yaml && mode.validation == FieldValidation::Strict;
    let decoded = if is_strict_yaml { refusing_duplicates(decoded, bytes) } else { decoded };
    let notes = decoded
        .map_err(|error| Status::bad_request(cannot_be_handled(&expected, &expected, &error.to_string())))?;
    notes.into_iter().for_each(|note| mode.warnings.add(note));
    Ok(value)
}

/// Adds a field that a YAML document gives twice to what a strict reader refuses. Whoever is only warned does not hear
/// of it: what there would be to say has more lines than a header.
fn refusing_duplicates(
    decoded: Result<Vec<String>, DecodeError>,
    yaml: &[u8],
) -> Result<Vec<String>, DecodeError> {
    let Some(duplicate) = std::str::from_utf8(yaml).ok().and_then(Value::duplicate_in_yaml) else {
        return decoded;
    };
    Err(match decoded {
        Ok(_) => DecodeError::Strict(vec![duplicate]),
        Err(DecodeError::Strict(mut notes)) => {
            notes.insert(0, duplicate);
            DecodeError::Strict(notes)
        }
        Err(other) => other,
    })
}

/// Checks a tree from inside the process against its kind's schema.
pub fn tree(resource: &Resource, mut value: Value) -> Result<Value, Status> {
    check_kind(&mut value, &resource.gvk())?;
    resource
        .strategy
        .decode(&mut value, resource.schema.root(), FieldValidation::Ignore, &[])
        .map_err(|error| Status::bad_request(error.to_string()))?;
    Ok(value)
}

/// Checks the result of a patch, whose author may have named fields that do not exist.
pub fn patched(call: &Call<'_>, value: &mut Value, mode: &Mode<'_>) -> Result<(), Status> {
    let resource = &call.endpoint.resource;
    let kind = resource.gvk();
    check_kind(value, &kind)?;
    match resource.strategy.decode(value, resource.schema.root(), mode.validation, &[]) {
        Ok(notes) => {
            notes.into_iter().for_each(|note| mode.warnings.add(note));
            Ok(())
        }
        Err(error) => Err(patch::undecodable(&value.to_json_string(), &error.to_string())),
    }
}

/// Checks a patched scale against its kind.
pub fn scale(value: &mut Value, mode: &Mode<'_>) -> Result<(), Status> {
    let kind = GroupVersionKind::new("autoscaling", "v1", "Scale");
    check_kind(value, &kind)?;
    let Some(schema) = api::builtin::schema(&kind) else { return Ok(()) };
    let notes = typed::decode(value, schema.root(), mode.validation, &[])
        .map_err(|error| patch::undecodable(&value.to_json_string(), &error.to_string()))?;
    notes.into_iter().for_each(|note| mode.warnings.add(note));
    Ok(())
}

/// Checks that an applied configuration says which kind it is, and that it is the path's.
pub fn applied(call: &Call<'_>, value: &Value) -> Result<(), Status> {
    let kind = call.endpoint.resource.gvk();
    let given = (value.str_at(&["apiVersion"]).to_owned(), value.str_at(&["kind"]).to_owned());
    if given.1.is_empty() {
        return Err(Status::bad_request("Object 'Kind' is missing in the applied configuration"));
    }
    if given != (kind.api_version(), kind.kind.to_string()) {
        return Err(Status::bad_request(format!(
            "incorrect kind in the applied configuration: got {}, Kind={}, expected {}, Kind={}",
            given.0,
            given.1,
            kind.api_version(),
            kind.kind
        )));
    }
    Ok(())
}

/// Reads a `DeleteOptions` body. A mistyped field is an error: ignoring a `dryRun` or a precondition would delete
/// what the caller meant to keep.
pub fn options(bytes: &[u8], body: BodyMedia<'_>) -> Result<Value, Status> {
    let wrong =
        |why: String| Status::bad_request(format!("couldn't get version/kind; json parse error: {why}"));
    let expected = GroupVersionKind::new("", "v1", "DeleteOptions");
    let media = media(body, &expected)?;
    let (mut value, _) = parse(bytes, media).map_err(|why| match media {
        Media::Protobuf | Media::Cbor => Status::bad_request(unrecognized(bytes, media, &expected, &why)),
        Media::Json | Media::Yaml => wrong(why),
    })?;
    if !value.is_object() {
        return Err(wrong("DeleteOptions must be an object".to_owned()));
    }
    let kind = value.str_at(&["kind"]);
    if !matches!(kind, "" | "DeleteOptions") {
        return Err(Status::bad_request(format!("{kind} cannot be handled as a DeleteOptions")));
    }
    if let Some(schema) = api::builtin::schema(&expected) {
        typed::normalize(&mut value, schema.root())
            .map_err(|error| Status::bad_request(error.to_string()))?;
    }
    Ok(value)
}

fn parse(bytes: &[u8], media: Media) -> Result<(Value, Vec<String>), String> {
    match media {
        Media::Json => {
            let parsed = Value::parse_strict(bytes).map_err(|error| error.go_text(bytes))?;
            Ok((parsed.value, parsed.duplicates))
        }
        Media::Yaml => {
            let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
            Ok((Value::parse_yaml(text).map_err(|error| error.to_string())?, Vec::new()))
        }
        Media::Protobuf => {
            let decoded = protobuf::decode(bytes).map_err(|error| error.to_string())?;
            Ok((decoded.value, Vec::new()))
        }
        Media::Cbor => {
            let why = |error| format!("unable to determine group/version/kind: {error}");
            Ok((cbor::decode(bytes).map_err(why)?, Vec::new()))
        }
    }
}

fn unrecognized(bytes: &[u8], media: Media, expected: &GroupVersionKind, why: &str) -> String {
    let kind = &expected.kind;
    let stage = match media {
        Media::Json | Media::Yaml => "couldn't get version/kind; json parse error: ",
        Media::Protobuf | Media::Cbor => "",
    };
    format!("the object provided is unrecognized (must be of type {kind}): {stage}{why} ({})", shown(bytes))
}

/// The beginning of a body for messages: JSON as it is, anything else in hexadecimal digits.
fn shown(bytes: &[u8]) -> String {
    const SHOWN_BYTES_MAX: usize = 30;
    if bytes.is_empty() {
        return "<empty>".to_owned();
    }
    let beginning = &bytes[..bytes.len().min(SHOWN_BYTES_MAX)];
    let shown = match bytes[0] {
        b'{' => String::from_utf8_lossy(beginning).into_owned(),
        _ => beginning.iter().map(|byte| format!("{byte:02x}")).collect(),
    };
    if beginning.len() < bytes.len() { shown + " ..." } else { shown }
}

/// Body and path must mean the same kind; what the body leaves out is filled in.
fn check_kind(value: &mut Value, expected: &GroupVersionKind) -> Result<(), Status> {
    if !value.is_object() {
        let kind = &expected.kind;
        return Err(Status::bad_request(format!(
            "the object provided is unrecognized (must be of type {kind}): couldn't get version/kind; json parse \
             error: json: cannot unmarshal {} into Go value of type struct {{ APIVersion string \"json:\\\"apiVersion,\
             omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }} ({})",
            value.json_type(),
            shown(&value.to_json()),
        )));
    }
    let (api_version, kind) = (value.str_at(&["apiVersion"]), value.str_at(&["kind"]));
    let given = GroupVersion::parse(api_version).unwrap_or_default();
    let given = GroupVersionKind { group: given.group, version: given.version, kind: kind.into() };
    let wrong_version = !api_version.is_empty() && api_version != expected.api_version();
    let wrong_kind = !kind.is_empty() && given.kind != expected.kind;
    if wrong_version {
        let why = if wrong_kind || api::builtin::schema(&given).is_some() {
            unknown_conversion(&given, expected)
        } else {
            format!(
                "no kind \"{kind}\" is registered for version \"{api_version}\" in scheme \
                 \"pkg/api/legacyscheme/scheme.go:30\""
            )
        };
        return Err(Status::bad_request(cannot_be_handled(&given, expected, &why)));
    }
    if wrong_kind {
        let why = unknown_conversion(&given, expected);
        return Err(Status::bad_request(cannot_be_handled(&given, expected, &why)));
    }
    let map = value.ensure_object();
    map.insert("apiVersion", expected.api_version());
    map.insert("kind", expected.kind.clone());
    Ok(())
}

fn unknown_conversion(given: &GroupVersionKind, expected: &GroupVersionKind) -> String {
    let package = match expected.group.as_str() {
        "" => "core",
        group => group.split('.').next().unwrap_or_default(),
    };
    format!(
        "converting ({}.{}) to ({package}.{}): unknown conversion",
        given.version, given.kind, expected.kind
    )
}

fn cannot_be_handled(given: &GroupVersionKind, expected: &GroupVersionKind, why: &str) -> String {
    format!("{} in version \"{}\" cannot be handled as a {}: {why}", given.kind, given.version, expected.kind)
}
