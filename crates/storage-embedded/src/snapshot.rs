//! Copying a store to a new directory while it is in use.
//!
//! The copy holds what is live at one revision and nothing of its history, as if just compacted.

use std::path::Path;

use storage::Error;

use crate::Options;
use crate::directory::{self, Directory, Found};
use crate::index::Version;
use crate::log::{Spread, View};
use crate::manifest::{LiveSum, Manifest};
use crate::open::set_up;

/// Everything live at a revision, by revision.
pub(crate) struct Content {
    pub revision: u64,
    pub versions: Vec<Version>,
    pub view: View,
}

/// Writes the content into a new directory. Leaves nothing behind if it fails.
pub(crate) fn write(target: &Path, options: &Options, content: &Content) -> Result<(), Error> {
    if target.try_exists().map_err(directory::io_error("inspect", target))? {
        let source = std::io::Error::from(std::io::ErrorKind::AlreadyExists);
        return Err(directory::io_error("create snapshot", target)(source));
    }
    let outcome = write_new(target, options, content);
    if outcome.is_err() {
        let _ = std::fs::remove_dir_all(target);
    }
    outcome
}

fn write_new(target: &Path, options: &Options, content: &Content) -> Result<(), Error> {
    let Found::Empty(directory) = Directory::open(target)? else {
        return Err(Error::Format { path: target.to_owned(), reason: "it appeared meanwhile".to_owned() });
    };
    let mut live = LiveSum::default();
    content.versions.iter().for_each(|version| live.add(version.modified));
    let (compacted, ingested) = (content.revision, content.revision);
    let manifest = Manifest { compacted, ingested, live, ..Manifest::default() };
    let _parts = set_up(&directory, options, manifest, |tables| {
        tables.ingest([], |add| {
            content.view.each(
                &content.versions,
                |version| version.modified,
                Spread::Dense,
                |_, record| add(record.revision, record.raw),
            )
        })
    })?;
    directory::sync_directory(target)?;
    directory::sync_directory(target.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(".".as_ref()))
}
