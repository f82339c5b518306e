//! What a name means here, and taking it away.

use std::collections::HashSet;

use super::layout::Layout;
use super::records::StoredImage;
use crate::{Digest, Error, Reference, Result};

pub(super) fn not_found(name: &str) -> Error {
    Error::NotFound(format!("image {name:?} not found"))
}

/// By reference, ID, or a beginning of an ID that only one has.
pub(super) fn find(layout: &Layout, name: &str) -> Result<Option<StoredImage>> {
    if let Ok(id) = name.parse::<Digest>() {
        return layout.image(&id);
    }
    if let Ok(reference) = name.parse::<Reference>() {
        for candidate in [Some(reference.clone()), reference.digest().map(|digest| reference.at(digest))] {
            let Some(candidate) = candidate else { continue };
            if let Some(found) = layout.reference(&candidate)? {
                return layout.image(&found.image);
            }
        }
    }
    let hex = name.strip_prefix("sha256:").unwrap_or(name);
    if hex.len() < 6 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(None);
    }
    let mut matching = layout.all_images()?.into_iter().filter(|image| image.id().hex().starts_with(hex));
    match (matching.next(), matching.next()) {
        (Some(only), None) => Ok(Some(only)),
        (Some(_), Some(_)) => {
            Err(Error::Invalid(format!("several images have an ID that begins with {hex}")))
        }
        (None, _) => Ok(None),
    }
}

pub(super) fn remove(layout: &Layout, name: &str) -> Result<()> {
    let _lock = layout.lock_alone()?;
    let Some(image) = find(layout, name)? else { return Ok(()) };
    let names: Vec<String> = layout
        .all_references()?
        .into_iter()
        .filter(|reference| reference.image == *image.id())
        .map(|reference| reference.reference)
        .collect();
    let by_name = name.parse::<Reference>().ok().map(|reference| reference.to_string());
    if let Some(named) = by_name.filter(|named| names.contains(named)) {
        // What it is called by digest in the same repository came with it and goes with it.
        let is_tag = |name: &String| !name.contains('@');
        let repository = |name: &str| name.parse::<Reference>().map(|name| name.repository()).ok();
        let same = repository(&named);
        let others: HashSet<&String> = names
            .iter()
            .filter(|other| **other != named)
            .filter(|other| is_tag(other) || repository(other) != same)
            .collect();
        if !others.is_empty() {
            return layout.remove_reference(&named);
        }
    }
    if let Some(user) =
        layout.all_snapshots()?.into_iter().find(|snapshot| snapshot.image == image.id().as_str())
    {
        let key = user.key;
        return Err(Error::InUse(format!("image {name:?} is in use by container {key}")));
    }
    for reference in &names {
        layout.remove_reference(reference)?;
    }
    layout.remove_image_file(image.id())
}
