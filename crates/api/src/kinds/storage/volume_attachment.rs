//! `VolumeAttachment`: the wish that a volume be attached to a node.

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path};

use crate::kinds::core::pod::volumes::csi_driver_name;
use crate::strategy::{Context, Strategy};
use crate::validation::fields::{Fields, immutable, invalid_each, item_text};
use crate::validation::text;

const METADATA_MAX: usize = 256 << 10;
const MESSAGE_MAX: usize = 1024;

pub struct VolumeAttachment;

impl Strategy for VolumeAttachment {
    fn validate(&self, _ctx: &Context<'_>, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let (spec, path) = (&object["spec"], Path::root("spec"));
        csi_driver_name(&mut errors, spec.text("attacher"), &path.child("attacher"));
        let source = &spec["source"];
        let source_path = path.child("source");
        const EXACTLY_ONE: &str = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
        match (source.has("inlineVolumeSpec"), source.maybe_text("persistentVolumeName")) {
            (false, None) => errors.push(Error::required(&source_path, EXACTLY_ONE)),
            (true, Some(_)) => errors.push(Error::forbidden(&source_path, EXACTLY_ONE)),
            (false, Some("")) => errors.push(Error::required(
                &source_path.child("persistentVolumeName"),
                "must specify non empty persistentVolumeName",
            )),
            _ => {}
        }
        let node = spec.text("nodeName");
        invalid_each(&mut errors, &path.child("nodeName"), node, text::dns1123_subdomain(node));
        status(&mut errors, &object["status"]);
        if let Some(volume) = source.maybe_text("persistentVolumeName") {
            let path = source_path.child("persistentVolumeName");
            invalid_each(&mut errors, &path, volume, text::dns1123_subdomain(volume));
        }
        errors
    }

    fn validate_update(&self, ctx: &Context<'_>, new: &Value, old: &Value) -> ErrorList {
        let mut errors = self.validate(ctx, new);
        immutable(&mut errors, new, old, "spec", &Path::root("spec"));
        errors
    }
}

fn status(errors: &mut ErrorList, status: &Value) {
    let path = Path::root("status");
    let size: usize =
        status.entries("attachmentMetadata").map(|(key, value)| key.len() + item_text(value).len()).sum();
    if size > METADATA_MAX {
        errors.push(Error::too_long(&path.child("attachmentMetadata"), METADATA_MAX));
    }
    for key in ["attachError", "detachError"] {
        let Some(error) = status.maybe(key) else { continue };
        let path = path.child(key);
        if error.text("message").len() > MESSAGE_MAX {
            // Upstream names the other limit.
            errors.push(Error::too_long(&path.child("message"), METADATA_MAX));
        }
        let code = error.int("errorCode");
        if code < 0 {
            errors.push(Error::invalid(
                &path.child("errorCode"),
                code,
                "must be between 0 and 2147483647, inclusive",
            ));
        }
    }
}
