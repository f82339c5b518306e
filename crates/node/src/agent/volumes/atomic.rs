//! A folder of files that changes at once: readers see all of the old files or all of the new ones.
//!
//! The files lie in a folder of their own, named for the time; `..data` is a link to it that is replaced by renaming,
//! and what users see are links through `..data`. The layout is the kubelet's, which programs have come to watch.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};

use camino::{Utf8Path, Utf8PathBuf};

use super::ownership;

const DATA: &str = "..data";
const DATA_NEXT: &str = "..data_tmp";

/// A file that is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    pub data: Vec<u8>,
    pub mode: u32,
    /// Whose it is; root's where nobody says.
    pub user: Option<u32>,
}

/// By path below the folder.
pub type Payload = BTreeMap<String, File>;

/// Makes the folder hold exactly these files. Returns whether something changed.
///
/// # Errors
/// For a path that leads out of the folder, and what the file system says.
pub fn write(folder: &Utf8Path, payload: &Payload, group: Option<u32>) -> std::io::Result<bool> {
    let mut clean = BTreeMap::new();
    for (path, file) in payload {
        clean.insert(checked(path)?, file);
    }
    std::fs::create_dir_all(folder)?;
    let current = current(folder)?;
    if let Some(name) = &current
        && holds(&folder.join(name), &clean, group)
        && are_linked(folder, &clean)
    {
        return Ok(false);
    }
    let name = make_version(folder)?;
    let version = folder.join(&name);
    if let Err(error) = fill(&version, &clean, group).and_then(|()| switch(folder, &name, &clean)) {
        // What was there stays; the half of a version would lie there for ever.
        let _ = std::fs::remove_dir_all(&version);
        return Err(error);
    }
    if let Some(old) = current {
        std::fs::remove_dir_all(folder.join(old))?;
    }
    Ok(true)
}

/// A path that stays in the folder and hides nothing of ours.
fn checked(path: &str) -> std::io::Result<Utf8PathBuf> {
    let invalid = |why: &str| Err(std::io::Error::other(format!("invalid path {path:?}: {why}")));
    if path.starts_with('/') {
        return invalid("must not be an absolute path");
    }
    if path.split('/').any(|part| part == "..") {
        return invalid("must not contain '..'");
    }
    if path.starts_with("..") {
        return invalid("must not start with '..'");
    }
    let parts: Utf8PathBuf = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if parts.as_str().is_empty() {
        return invalid("must not be empty");
    }
    Ok(parts)
}

/// The name of the version that is shown.
fn current(folder: &Utf8Path) -> std::io::Result<Option<String>> {
    match std::fs::read_link(folder.join(DATA)) {
        Ok(target) => {
            let name = target.to_str().filter(|name| name.starts_with("..") && !name.contains('/'));
            Ok(name.map(str::to_owned))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether a version has these files and no others.
fn holds(version: &Utf8Path, payload: &BTreeMap<Utf8PathBuf, &File>, group: Option<u32>) -> bool {
    let mut found = BTreeSet::new();
    if list(version, Utf8Path::new(""), &mut found).is_err() || found.len() != payload.len() {
        return false;
    }
    payload.iter().all(|(path, file)| {
        let place = version.join(path);
        let wanted = ownership::file_mode(file.mode, group, true);
        found.contains(path)
            && std::fs::read(&place).is_ok_and(|own| own == file.data)
            && std::fs::metadata(&place).is_ok_and(|own| own.permissions().mode() & 0o7777 == wanted)
    })
}

fn list(root: &Utf8Path, below: &Utf8Path, found: &mut BTreeSet<Utf8PathBuf>) -> std::io::Result<()> {
    for entry in root.join(below).read_dir_utf8()? {
        let entry = entry?;
        let path = below.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            list(root, &path, found)?;
        } else {
            found.insert(path);
        }
    }
    Ok(())
}

fn are_linked(folder: &Utf8Path, payload: &BTreeMap<Utf8PathBuf, &File>) -> bool {
    names(payload).iter().all(|name| folder.join(name).symlink_metadata().is_ok_and(|own| own.is_symlink()))
}

/// What users see in the folder.
fn names<'a>(payload: &'a BTreeMap<Utf8PathBuf, &File>) -> BTreeSet<&'a str> {
    payload.keys().filter_map(|path| path.components().next().map(|part| part.as_str())).collect()
}

fn make_version(folder: &Utf8Path) -> std::io::Result<String> {
    let now = rt::now().strftime("%Y_%m_%d_%H_%M_%S").to_string();
    let name = format!("..{now}.{}", rt::name_suffix(10));
    let version = folder.join(&name);
    std::fs::create_dir(&version)?;
    std::fs::set_permissions(&version, std::fs::Permissions::from_mode(0o755))?;
    Ok(name)
}

fn fill(
    version: &Utf8Path,
    payload: &BTreeMap<Utf8PathBuf, &File>,
    group: Option<u32>,
) -> std::io::Result<()> {
    use std::io::Write;
    for (path, file) in payload {
        let place = version.join(path);
        if let Some(parent) = place.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let mut made = std::fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(&place)?;
        made.write_all(&file.data)?;
        if let Some(user) = file.user {
            rustix::fs::fchown(&made, Some(rustix::fs::Uid::from_raw(user)), None)?;
        }
        made.set_permissions(std::fs::Permissions::from_mode(file.mode & 0o777))?;
    }
    match group {
        Some(group) => ownership::apply(version, group, true),
        None => Ok(()),
    }
}

fn switch(folder: &Utf8Path, name: &str, payload: &BTreeMap<Utf8PathBuf, &File>) -> std::io::Result<()> {
    let next = folder.join(DATA_NEXT);
    match std::fs::remove_file(&next) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    symlink(name, &next)?;
    // From here on the new files are seen.
    std::fs::rename(&next, folder.join(DATA))?;
    let wanted = names(payload);
    for name in &wanted {
        let link = folder.join(name);
        if link.symlink_metadata().is_err() {
            symlink(Utf8Path::new(DATA).join(name), &link)?;
        }
    }
    for entry in folder.read_dir_utf8()? {
        let entry = entry?;
        let name = entry.file_name();
        if !name.starts_with("..") && !wanted.contains(name) && entry.file_type()?.is_symlink() {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn payload(files: &[(&str, &str, u32)]) -> Payload {
        let file = |data: &str, mode: u32| File { data: data.into(), mode, user: None };
        files.iter().map(|(path, data, mode)| ((*path).to_owned(), file(data, *mode))).collect()
    }

    fn seen(folder: &Utf8Path) -> String {
        let mut names: Vec<String> = folder
            .read_dir_utf8()
            .expect("it is there")
            .map(|entry| entry.expect("an entry").file_name().to_owned())
            .map(|name| if name.starts_with("..2") { "..VERSION".to_owned() } else { name })
            .collect();
        names.sort();
        names.join(" ")
    }

    #[test]
    fn files_change_together_and_only_when_they_differ() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = Utf8Path::from_path(folder.path()).expect("it is text").join("v");
        let first = payload(&[("a", "1", 0o644), ("d/b", "2", 0o400), ("d/e/c", "3", 0o644)]);
        assert!(write(&root, &first, None).expect("written"));
        assert_eq!(seen(&root), "..VERSION ..data a d");
        assert_eq!(std::fs::read_to_string(root.join("d/e/c")).expect("there"), "3");
        assert_eq!(std::fs::metadata(root.join("d/b")).expect("there").mode() & 0o777, 0o400);
        let before = std::fs::read_link(root.join(DATA)).expect("there");
        assert!(!write(&root, &first, None).expect("the same"));
        assert_eq!(std::fs::read_link(root.join(DATA)).expect("there"), before);

        for changed in [
            payload(&[("a", "9", 0o644), ("x", "", 0o644)]),
            payload(&[("a", "9", 0o600), ("x", "", 0o644)]),
            payload(&[("a", "9", 0o600)]),
        ] {
            assert!(write(&root, &changed, None).expect("written"), "{changed:?}");
            assert!(!write(&root, &changed, None).expect("the same"));
        }
        assert_eq!(seen(&root), "..VERSION ..data a");
        assert!(write(&root, &Payload::new(), None).expect("written"));
        assert_eq!(seen(&root), "..VERSION ..data");
    }

    #[test]
    fn what_a_crash_left_is_mended() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = Utf8Path::from_path(folder.path()).expect("it is text");
        let files = payload(&[("a", "1", 0o644), ("b", "1", 0o644)]);
        write(root, &files, None).expect("written");
        std::fs::remove_file(root.join("b")).expect("removed");
        symlink("nowhere", root.join(DATA_NEXT)).expect("made");
        assert!(write(root, &files, None).expect("written"));
        assert_eq!(seen(root), "..VERSION ..data a b");
    }

    #[test]
    fn a_group_can_read_what_is_its_own() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: giving files away needs root");
            return;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let root = Utf8Path::from_path(folder.path()).expect("it is text");
        let mut files = payload(&[("d/a", "1", 0o600)]);
        files.get_mut("d/a").expect("there").user = Some(1_234);
        assert!(write(root, &files, Some(4_321)).expect("written"));
        let meta = std::fs::metadata(root.join("d/a")).expect("there");
        assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777), (1_234, 4_321, 0o640));
        let meta = std::fs::metadata(root.join("d")).expect("there");
        assert_eq!((meta.gid(), meta.mode() & 0o7777), (4_321, 0o2755));
        assert!(!write(root, &files, Some(4_321)).expect("the same"));
    }

    #[test]
    fn paths_stay_in_the_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = Utf8Path::from_path(folder.path()).expect("it is text").join("v");
        for path in ["/etc/x", "../x", "a/../../x", "..data", "", ".", "..x/y"] {
            assert!(write(&root, &payload(&[(path, "", 0o644)]), None).is_err(), "{path}");
        }
        assert!(!root.exists());
        assert_eq!(checked("a//./b").expect("a path"), "a/b");
        assert_eq!(checked("a..b/..c").expect("a path"), "a..b/..c");
    }
}
