//! Archives of images that other tools write and read.

mod export;
mod import;

use serde::Serialize;

pub(crate) use export::{Exported, export};
pub(crate) use import::import;

use crate::{Error, Result};

/// As a document of an image.
pub(crate) fn encode(document: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(document)
        .map_err(|error| Error::of_io("encode a document".to_owned(), std::io::Error::other(error)))
}
