//! What nobody refers to goes.

use std::collections::HashSet;
use std::fs;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};

use super::layout::{self, DEAD_PREFIX, Layout, NEW_PREFIX};
use super::lease;
use crate::{Error, Result};

/// So long the beginning of a blob is kept for whoever tries again.
const PARTIAL_AGE_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// A small file that was not renamed for so long never will be.
const RECORD_AGE_MAX: Duration = Duration::from_secs(60 * 60);

/// What went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    pub blobs: usize,
    pub layers: usize,
}

impl Layout {
    pub(super) fn collect(&self) -> Result<Collected> {
        let mut dead: Vec<Utf8PathBuf> = Vec::new();
        let collected = {
            let _lock = self.lock_alone()?;
            let (mut kept, alive) = lease::claimed(self)?;
            self.keep_recorded(&mut kept)?;
            self.bury(&kept, &alive, &mut dead)?
        };
        // They have no name any more under which somebody could want them, so nobody has to wait.
        for path in &dead {
            match fs::symlink_metadata(path) {
                Ok(metadata) if metadata.is_dir() => layout::remove_tree(path)?,
                _ => layout::remove_file(path)?,
            }
        }
        Ok(collected)
    }

    /// Unlike a listing this fails when a record cannot be read: what it names must not go.
    fn keep_recorded(&self, kept: &mut HashSet<String>) -> Result<()> {
        let mut images = HashSet::new();
        for name in layout::names(&self.folder("images"))? {
            if name.starts_with(NEW_PREFIX) {
                continue;
            }
            let path = self.folder("images").join(&name);
            let Some(image) = layout::read_json::<super::records::StoredImage>(&path)? else { continue };
            kept.extend(image.blobs().chain(&image.chain).map(|digest| digest.to_string()));
            images.insert(image.id().to_string());
        }
        for reference in self.all_references()? {
            if images.contains(reference.image.as_str()) {
                kept.insert(reference.target.to_string());
            }
        }
        for snapshot in self.all_snapshots()? {
            kept.extend(snapshot.chain.iter().map(|digest| digest.to_string()));
        }
        Ok(())
    }

    /// Takes away the names of what goes; the files are removed later.
    fn bury(
        &self,
        kept: &HashSet<String>,
        alive: &[String],
        dead: &mut Vec<Utf8PathBuf>,
    ) -> Result<Collected> {
        let mut collected = Collected::default();
        let is_in_work =
            |name: &str| alive.iter().any(|id| name[NEW_PREFIX.len()..].starts_with(id.as_str()));
        for folder in ["blobs/sha256", "blobs/sha512", "layers"] {
            let folder = self.folder(folder);
            for name in layout::names(&folder)? {
                let path = folder.join(&name);
                if name.starts_with(DEAD_PREFIX) {
                    dead.push(path);
                } else if name.starts_with(NEW_PREFIX) {
                    if !is_in_work(&name) {
                        dead.push(path);
                    }
                } else if !kept.contains(&with_algorithm(&name)) {
                    let buried = folder.join(format!("{DEAD_PREFIX}{}", rt::uuid()));
                    fs::rename(&path, &buried).map_err(|error| Error::io("remove", &path, error))?;
                    dead.push(buried);
                    if folder.ends_with("layers") {
                        collected.layers += 1;
                    } else {
                        collected.blobs += 1;
                    }
                }
            }
        }
        for name in layout::names(&self.folder("snapshots"))? {
            let gone = name.starts_with(DEAD_PREFIX) || (name.starts_with(NEW_PREFIX) && !is_in_work(&name));
            if gone {
                dead.push(self.folder("snapshots").join(name));
            }
        }
        for name in layout::names(&self.folder("ingest"))? {
            let path = self.folder("ingest").join(name);
            if is_older(&path, PARTIAL_AGE_MAX) {
                dead.push(path);
            }
        }
        for folder in ["images", "references"] {
            for name in layout::names(&self.folder(folder))? {
                let path = self.folder(folder).join(&name);
                if name.starts_with(NEW_PREFIX) && is_older(&path, RECORD_AGE_MAX) {
                    dead.push(path);
                }
            }
        }
        Ok(collected)
    }
}

/// The digest that a name is the digits of.
pub(super) fn with_algorithm(hex: &str) -> String {
    format!("{}:{hex}", if hex.len() == 128 { "sha512" } else { "sha256" })
}

fn is_older(path: &Utf8Path, age: Duration) -> bool {
    let changed = fs::metadata(path).and_then(|metadata| metadata.modified());
    let now = std::time::SystemTime::from(rt::now());
    changed.ok().and_then(|changed| now.duration_since(changed).ok()).is_some_and(|found| found > age)
}
