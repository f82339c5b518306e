//! `emptyDir`: a folder, memory or huge pages that are a pod's as long as it lives.

use std::os::unix::fs::PermissionsExt;

use apimachinery::Quantity;
use camino::Utf8Path;
use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, Pod};

use super::{mount, ownership};
use crate::agent::config::all_containers;

/// Everybody may do everything; who shall not is not given the volume.
const MODE: u32 = 0o777;

/// What the folder is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Medium {
    Disk,
    /// Bytes at most; 0 is the kernel's own limit.
    Memory(i64),
    /// Bytes of a page.
    HugePages(i64),
}

/// What a volume asks for, where `memory_bytes` is what all pods of the node may have together and `pod_limit` the
/// pod's own limit, or 0.
///
/// # Errors
/// A message, for a medium that there is not.
pub fn medium(
    source: &EmptyDirVolumeSource,
    pod: &Pod,
    memory_bytes: i64,
    pod_limit: i64,
) -> Result<Medium, String> {
    let limit =
        source.size_limit.as_ref().and_then(|own| Quantity::parse(&own.0).ok()).map_or(0, |own| own.value());
    match source.medium.as_deref().unwrap_or_default() {
        "" => Ok(Medium::Disk),
        "Memory" => {
            let bounds = [memory_bytes, pod_limit, limit];
            Ok(Medium::Memory(bounds.into_iter().filter(|bound| *bound > 0).min().unwrap_or(0)))
        }
        "HugePages" => pages_of(pod).map(Medium::HugePages),
        other => {
            let size = other.strip_prefix("HugePages-").and_then(|size| Quantity::parse(size).ok());
            let size = size.map(|size| size.value()).filter(|size| *size > 0);
            size.map(Medium::HugePages).ok_or_else(|| format!("unknown storage medium {other:?}"))
        }
    }
}

/// The one size of huge pages that a pod asks for.
fn pages_of(pod: &Pod) -> Result<i64, String> {
    let mut sizes = std::collections::BTreeSet::new();
    for container in all_containers(pod) {
        let requests = container.resources.iter().flat_map(|own| own.requests.iter().flatten());
        sizes.extend(requests.filter_map(|(name, _)| name.strip_prefix("hugepages-").map(str::to_owned)));
    }
    match (sizes.pop_first(), sizes.is_empty()) {
        (Some(size), true) => {
            Quantity::parse(&size).map(|size| size.value()).map_err(|error| format!("{size:?}: {error}"))
        }
        (Some(_), false) => {
            Err("medium \"HugePages\" can only be used if the pod requests one huge page size".to_owned())
        }
        (None, _) => Err("hugePages storage requested, but there is no hugepage request in pod".to_owned()),
    }
}

/// Makes the volume where it is not there yet. What is there is left as its pod has made it.
///
/// # Errors
/// What the file system says.
pub fn set_up(folder: &Utf8Path, medium: &Medium, group: Option<u32>) -> std::io::Result<()> {
    let (file_system, options) = match medium {
        Medium::Disk => return make_folder(folder, group),
        Medium::Memory(0) => ("tmpfs", String::new()),
        Medium::Memory(bytes) => ("tmpfs", format!("size={bytes},")),
        Medium::HugePages(bytes) => ("hugetlbfs", format!("pagesize={bytes},")),
    };
    std::fs::create_dir_all(folder)?;
    if mount::is_mount_point(folder)? {
        return Ok(());
    }
    let owner = match group {
        Some(group) => format!("mode=2{MODE:o},gid={group}"),
        None => format!("mode={MODE:o}"),
    };
    mount::mount_virtual(file_system, folder, &(options + &owner))
}

/// The folder appears when it is ready, so that a crash leaves none with half of its rights.
fn make_folder(folder: &Utf8Path, group: Option<u32>) -> std::io::Result<()> {
    if folder.symlink_metadata().is_ok_and(|own| own.is_dir()) {
        return Ok(());
    }
    let (Some(parent), Some(name)) = (folder.parent(), folder.file_name()) else {
        return Err(std::io::Error::other(format!("{folder} is no place for a volume")));
    };
    // No volume has such a name.
    let draft = parent.join(format!("..{name}"));
    std::fs::create_dir_all(&draft)?;
    std::fs::set_permissions(&draft, std::fs::Permissions::from_mode(MODE))?;
    if let Some(group) = group {
        ownership::apply(&draft, group, false)?;
    }
    std::fs::rename(draft, folder)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::agent::config::fixture;

    #[test]
    fn the_medium_is_bounded_by_whoever_says_least() {
        let of = |source: serde_json::Value, pod: serde_json::Value, pod_limit: i64| {
            let source: EmptyDirVolumeSource = serde_json::from_value(source).expect("a source");
            medium(&source, &fixture::pod(serde_json::json!({"containers": [pod]})), 1_000, pod_limit)
        };
        let plain = serde_json::json!({"name": "c"});
        let memory = |limit: &str| serde_json::json!({"medium": "Memory", "sizeLimit": limit});
        assert_eq!(of(serde_json::json!({"sizeLimit": "1"}), plain.clone(), 0), Ok(Medium::Disk));
        assert_eq!(of(serde_json::json!({"medium": "Memory"}), plain.clone(), 0), Ok(Medium::Memory(1_000)));
        assert_eq!(of(memory("10"), plain.clone(), 0), Ok(Medium::Memory(10)));
        assert_eq!(of(memory("600"), plain.clone(), 500), Ok(Medium::Memory(500)));
        assert_eq!(of(memory("0"), plain.clone(), 0), Ok(Medium::Memory(1_000)));
        let huge = serde_json::json!({"medium": "HugePages"});
        let asks = serde_json::json!({"name": "c", "resources": {"requests": {"hugepages-2Mi": "2Mi"}}});
        assert_eq!(of(huge.clone(), asks, 0), Ok(Medium::HugePages(2 << 20)));
        assert!(of(huge, plain.clone(), 0).is_err());
        let sized = serde_json::json!({"medium": "HugePages-1Gi"});
        assert_eq!(of(sized, plain.clone(), 0), Ok(Medium::HugePages(1 << 30)));
        assert_eq!(
            of(serde_json::json!({"medium": "Tape"}), plain, 0),
            Err("unknown storage medium \"Tape\"".into())
        );
    }

    #[test]
    fn a_folder_is_made_once_and_left_to_its_pod() {
        let root = tempfile::tempdir().expect("a folder");
        let root = Utf8Path::from_path(root.path()).expect("it is text");
        let folder = root.join("a/v");
        let mode = || std::fs::metadata(&folder).expect("there").mode() & 0o7777;
        set_up(&folder, &Medium::Disk, None).expect("made");
        assert_eq!(mode(), 0o777);
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o700)).expect("ours");
        std::fs::write(folder.join("kept"), "").expect("written");
        set_up(&folder, &Medium::Disk, None).expect("there");
        assert!(mode() == 0o700 && folder.join("kept").exists());
    }

    #[test]
    fn memory_has_its_size_and_its_group() {
        if !mount::is_permitted() {
            println!("skipped: mounting needs CAP_SYS_ADMIN");
            return;
        }
        let root = tempfile::tempdir().expect("a folder");
        let folder = Utf8Path::from_path(root.path()).expect("it is text").join("v");
        let guard = mount::Unmounted::below(&folder);
        for _ in 0..2 {
            set_up(&folder, &Medium::Memory(1 << 20), Some(4_321)).expect("mounted");
        }
        assert_eq!(mount::below(&folder).expect("the table").len(), 1);
        let meta = std::fs::metadata(&folder).expect("there");
        assert_eq!((meta.gid(), meta.mode() & 0o7777), (4_321, 0o2777));
        let size = rustix::fs::statvfs(folder.as_str()).expect("it has one");
        assert_eq!(size.f_blocks * size.f_frsize, 1 << 20);
        drop(guard);
    }
}
