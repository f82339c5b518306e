//! The four kinds of patch: read from a body, applied to a state.

use apimachinery::patch::json::JsonPatch;
use apimachinery::patch::{PatchError, merge, strategic};
use apimachinery::{Status, Value, cbor};
use registry::{Endpoint, Rewrite, managed};

use crate::decode::{self, FieldValidation};
use crate::door::{self, Call, Mode};
use crate::scale;

/// A patch, parsed.
pub enum PatchBody {
    /// RFC 6902.
    Json(Value),
    /// RFC 7386.
    Merge(Value),
    Strategic(Value),
    /// Server-side apply.
    Apply(Value),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Json,
    Merge,
    Strategic,
    Apply,
    /// An apply whose configuration is CBOR.
    ApplyCbor,
}

impl Kind {
    /// By content type; strategic merge is for kinds with a Go type, which custom resources do not have. `cbor` says
    /// whether that is spoken.
    pub fn of_media_type(media_type: &str, endpoint: &Endpoint, cbor: bool) -> Result<Self, Status> {
        match media_type {
            "application/json-patch+json" => Ok(Self::Json),
            "application/merge-patch+json" => Ok(Self::Merge),
            "application/strategic-merge-patch+json" if endpoint.resource.bare_list_items => {
                Ok(Self::Strategic)
            }
            "application/apply-patch+yaml" => Ok(Self::Apply),
            cbor::APPLY_CONTENT_TYPE if cbor => Ok(Self::ApplyCbor),
            _ if endpoint.resource.custom.is_some() => Err(Status::unsupported_media_type(format!(
                "the body of the request was in an unknown format - accepted media types include: \
                 application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml{}",
                if cbor { ", application/apply-patch+cbor" } else { "" }
            ))),
            _ => Err(Status::unsupported_media_type("415: Unsupported Media Type")
                .with_details(Default::default())),
        }
    }

    pub fn is_apply(self) -> bool {
        matches!(self, Self::Apply | Self::ApplyCbor)
    }
}

/// Parses a patch's body.
pub fn parse(kind: Kind, bytes: &[u8]) -> Result<PatchBody, Status> {
    let json =
        || Value::parse(bytes).map_err(|error| Status::bad_request(format!("error decoding patch: {error}")));
    match kind {
        Kind::Json => Ok(PatchBody::Json(json()?)),
        Kind::Merge => Ok(PatchBody::Merge(json()?)),
        Kind::Strategic => Ok(PatchBody::Strategic(json()?)),
        Kind::Apply => configuration("YAML", yaml(bytes)),
        Kind::ApplyCbor => configuration("CBOR", cbor::decode(bytes).map_err(|error| error.to_string())),
    }
}

/// What is to be applied, as it was read in a format.
fn configuration(format: &str, read: Result<Value, String>) -> Result<PatchBody, Status> {
    let refused = |why: &str| Err(Status::bad_request(format!("error decoding {format}: {why}")));
    match read {
        Ok(value) if value.is_object() => Ok(PatchBody::Apply(value)),
        Ok(_) => refused("the applied configuration must be an object"),
        Err(why) => refused(&why),
    }
}

fn yaml(bytes: &[u8]) -> Result<Value, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
    // JSON is YAML, and the common case; its parser is the quicker one.
    Value::parse(bytes).or_else(|_| Value::parse_yaml(text)).map_err(|error| error.to_string())
}

/// The state after the patch.
pub fn apply(
    call: &Call<'_>,
    mode: &Mode<'_>,
    body: &PatchBody,
    current: Option<&Value>,
) -> Result<Rewrite, Status> {
    if call.subresource == "scale" {
        return apply_to_scale(call, mode, body, current);
    }
    if let PatchBody::Apply(applied) = body {
        return server_side_apply(call, mode, applied, current);
    }
    let Some(current) = current else {
        return Err(Status::not_found(&call.endpoint.resource.group_resource(), call.name));
    };
    let mut patched = patch_tree(call, mode, body, current)?;
    decode::patched(call, &mut patched, mode)?;
    Ok(Rewrite::of_current(patched, current))
}

/// A patch document applied to a tree; a strategic merge needs the kind's schema.
fn patch_tree(call: &Call<'_>, mode: &Mode<'_>, body: &PatchBody, current: &Value) -> Result<Value, Status> {
    let mut patched = current.clone();
    match body {
        PatchBody::Json(document) => apply_json(&mut patched, document, mode),
        PatchBody::Merge(patch) => merge::apply(&mut patched, patch.clone()),
        PatchBody::Strategic(patch) => {
            strategic::apply(&mut patched, patch.clone(), call.endpoint.resource.schema.root())
        }
        PatchBody::Apply(_) => return Err(Status::internal("an apply is no patch of a tree")),
    }
    .map_err(PatchError::into_status)?;
    Ok(patched)
}

fn apply_json(document: &mut Value, patch: &Value, mode: &Mode<'_>) -> Result<(), PatchError> {
    let (patch, notes) = JsonPatch::parse(patch.clone())?;
    match mode.validation {
        FieldValidation::Ignore => {}
        FieldValidation::Warn => notes.into_iter().for_each(|note| mode.warnings.add(note)),
        FieldValidation::Strict if notes.is_empty() => {}
        FieldValidation::Strict => {
            let why = notes.join(", ");
            return Err(PatchError::Malformed(format!("error decoding patch: strict decoding error: {why}")));
        }
    }
    patch.apply(document)
}

fn server_side_apply(
    call: &Call<'_>,
    mode: &Mode<'_>,
    applied: &Value,
    current: Option<&Value>,
) -> Result<Rewrite, Status> {
    decode::applied(call, applied)?;
    let apply = managed::Apply {
        applied,
        live: current,
        manager: mode.field_manager,
        subresource: call.subresource,
        force: mode.force,
        now: mode.now,
    };
    let mut object = managed::apply(call.endpoint, &apply)?;
    if call.endpoint.resource.custom.is_none() && current == Some(&object) {
        // What is stored was decoded before; the schema of a custom resource may have changed since.
        return Ok(Rewrite { object, managed: true, conditional: false, trusted: false });
    }
    door::check_name(call, &object)?;
    decode::patched(call, &mut object, mode)?;
    let conditional = current.is_some_and(|current| {
        object["metadata"]["resourceVersion"] != current["metadata"]["resourceVersion"]
    });
    Ok(Rewrite { object, managed: true, conditional, trusted: false })
}

/// A scale is patched as the small object it looks like, then written into its workload.
fn apply_to_scale(
    call: &Call<'_>,
    mode: &Mode<'_>,
    body: &PatchBody,
    current: Option<&Value>,
) -> Result<Rewrite, Status> {
    let Some(workload) = current else {
        return Err(Status::not_found(&call.endpoint.resource.group_resource(), call.name));
    };
    let resource = &call.endpoint.resource;
    let mut patched = scale::before_patch(resource, workload)?;
    match body {
        PatchBody::Json(document) => apply_json(&mut patched, document, mode),
        // A scale has no lists, so all other kinds of patch mean the same.
        PatchBody::Merge(patch) | PatchBody::Strategic(patch) | PatchBody::Apply(patch) => {
            merge::apply(&mut patched, patch.clone())
        }
    }
    .map_err(PatchError::into_status)?;
    decode::scale(&mut patched, mode)?;
    let scaled = scale::apply(resource, workload, &patched)?;
    Ok(Rewrite::of_current(scaled, workload))
}
