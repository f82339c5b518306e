//! `hostPath`: what is on the host already, after a look at what it is.

use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};

use camino::{Utf8Path, Utf8PathBuf};
use k8s_openapi::api::core::v1::HostPathVolumeSource;

/// # Errors
/// Upstream's message where something else is there than was asked for, or what the file system says.
pub fn set_up(source: &HostPathVolumeSource) -> Result<Utf8PathBuf, String> {
    let path = Utf8Path::new(&source.path);
    if path.components().any(|part| part.as_str() == "..") {
        return Err(format!("invalid HostPath `{path}`: must not contain '..'"));
    }
    if !path.is_absolute() {
        return Err(format!("invalid HostPath `{path}`: must be an absolute path"));
    }
    let failed = |cause: std::io::Error| format!("{path}: {cause}");
    let kind = || std::fs::metadata(path).ok().map(|own| own.file_type());
    let check = |is_right: bool, what: &str| {
        if is_right { Ok(()) } else { Err(format!("hostPath type check failed: {path} is not a {what}")) }
    };
    match source.type_.as_deref().unwrap_or_default() {
        // A runtime would make it.
        "" if kind().is_none() => make_folder(path).map_err(failed)?,
        "" => {}
        "DirectoryOrCreate" => {
            if kind().is_none() {
                make_folder(path).map_err(failed)?;
            }
            check(kind().is_some_and(|own| own.is_dir()), "directory")?;
        }
        "Directory" => check(kind().is_some_and(|own| own.is_dir()), "directory")?,
        "FileOrCreate" => {
            if kind().is_none() {
                let made = std::fs::OpenOptions::new().create_new(true).write(true).mode(0o644).open(path);
                made.map_err(failed)?;
            }
            check(kind().is_some_and(|own| own.is_file()), "file")?;
        }
        "File" => check(kind().is_some_and(|own| own.is_file()), "file")?,
        "Socket" => check(kind().is_some_and(|own| own.is_socket()), "socket file")?,
        "CharDevice" => check(kind().is_some_and(|own| own.is_char_device()), "character device")?,
        "BlockDevice" => check(kind().is_some_and(|own| own.is_block_device()), "block device")?,
        other => return Err(format!("{other} is an invalid volume type")),
    }
    Ok(path.to_owned())
}

fn make_folder(path: &Utf8Path) -> std::io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o755).create(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_what_was_asked_for() {
        let root = tempfile::tempdir().expect("a folder");
        let root = Utf8Path::from_path(root.path()).expect("it is text");
        std::fs::create_dir(root.join("dir")).expect("made");
        std::fs::write(root.join("file"), "").expect("written");
        let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).expect("bound");
        let of = |path: &Utf8Path, kind: &str| {
            let source = HostPathVolumeSource { path: path.to_string(), type_: Some(kind.to_owned()) };
            set_up(&source).map(drop).map_err(|why| why.replace(root.as_str(), "R"))
        };
        let not =
            |path: &str, what: &str| Err(format!("hostPath type check failed: R/{path} is not a {what}"));
        for (path, kind, wanted) in [
            ("dir", "", Ok(())),
            ("dir", "Directory", Ok(())),
            ("file", "Directory", not("file", "directory")),
            ("none", "Directory", not("none", "directory")),
            ("none", "File", not("none", "file")),
            ("dir", "File", not("dir", "file")),
            ("socket", "Socket", Ok(())),
            ("file", "Socket", not("file", "socket file")),
            ("file", "CharDevice", not("file", "character device")),
            ("file", "BlockDevice", not("file", "block device")),
            ("a/b", "DirectoryOrCreate", Ok(())),
            ("file", "DirectoryOrCreate", not("file", "directory")),
            ("made", "FileOrCreate", Ok(())),
            ("x/../y", "", Err("invalid HostPath `R/x/../y`: must not contain '..'".into())),
            ("file", "Tape", Err("Tape is an invalid volume type".into())),
            ("fresh/one", "", Ok(())),
        ] {
            assert_eq!(of(&root.join(path), kind), wanted, "{path} {kind}");
        }
        assert!(root.join("a/b").is_dir() && root.join("made").is_file() && root.join("fresh/one").is_dir());
        assert_eq!(of(Utf8Path::new("/dev/null"), "CharDevice"), Ok(()));
    }
}
