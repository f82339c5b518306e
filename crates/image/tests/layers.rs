//! Layers unpacked: what they mean for overlayfs, and that none of them reaches out of its folder.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::process::Command;

use camino::{Utf8Path, Utf8PathBuf};
use image::layer::{Limits, Unpacked, unpack};
use image::{Digest, Error};

/// A folder to unpack into, and one beside it that nothing may happen to.
struct World {
    _folder: tempfile::TempDir,
    path: Utf8PathBuf,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(folder.path().to_owned()).unwrap();
        fs::create_dir(path.join("root")).unwrap();
        fs::create_dir(path.join("outside")).unwrap();
        fs::write(path.join("outside/secret"), "untouched").unwrap();
        fs::set_permissions(path.join("outside"), fs::Permissions::from_mode(0o750)).unwrap();
        Self { _folder: folder, path }
    }

    fn root(&self) -> Utf8PathBuf {
        self.path.join("root")
    }

    fn unpack(&self, archive: &[u8]) -> image::Result<Unpacked> {
        unpack(archive, &self.root(), &[], &Limits::default())
    }

    fn assert_untouched(&self, case: &str) {
        let names = |path: &Utf8Path| {
            let mut names: Vec<_> =
                fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        assert_eq!(names(&self.path), ["outside", "root"], "{case}");
        assert_eq!(names(&self.path.join("outside")), ["secret"], "{case}");
        assert_eq!(fs::read_to_string(self.path.join("outside/secret")).unwrap(), "untouched", "{case}");
        let metadata = fs::metadata(self.path.join("outside")).unwrap();
        assert_eq!(metadata.mode() & 0o7777, 0o750, "{case}");
        assert_eq!(fs::metadata(self.path.join("outside/secret")).unwrap().nlink(), 1, "{case}");
    }
}

fn lacks_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        println!("skipped: only root can unpack layers");
    }
    !is_root
}

/// An archive, written as no decent tool would.
#[derive(Default)]
struct Raw(Vec<u8>);

impl Raw {
    fn entry(mut self, kind: u8, path: &str, link: &str, content: &[u8]) -> Self {
        self.block(kind, path.as_bytes(), link.as_bytes(), content.len() as u64, 0o644);
        self.content(content);
        self
    }

    fn file(self, path: &str, content: &str) -> Self {
        self.entry(b'0', path, "", content.as_bytes())
    }

    fn folder(mut self, path: &str, mode: u32) -> Self {
        self.block(b'5', path.as_bytes(), b"", 0, mode);
        self
    }

    fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(b'2', path, target, b"")
    }

    fn hard_link(self, path: &str, target: &str) -> Self {
        self.entry(b'1', path, target, b"")
    }

    fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut text = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let length =
                (1..).map(|digits: usize| digits + rest).find(|sum| sum.to_string().len() + rest == *sum);
            write!(text, "{} {key}=", length.unwrap()).unwrap();
            text.extend_from_slice(value);
            text.push(b'\n');
        }
        self.entry(b'x', "pax", "", &text)
    }

    fn block(&mut self, kind: u8, path: &[u8], link: &[u8], size: u64, mode: u32) {
        let mut header = tar::Header::new_ustar();
        header.set_size(size);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        header.set_entry_type(tar::EntryType::new(kind));
        let old = header.as_old_mut();
        old.name[..path.len()].copy_from_slice(path);
        old.linkname[..link.len()].copy_from_slice(link);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
    }

    fn content(&mut self, content: &[u8]) {
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
    }

    fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

#[test]
fn no_archive_reaches_out_of_its_folder() {
    if lacks_root() {
        return;
    }
    let raw = Raw::default;
    let outside = |world: &World| world.path.join("outside").to_string();
    type Case = (&'static str, fn(Raw, &str) -> Raw, Option<&'static str>);
    let cases: &[Case] = &[
        ("a path above", |raw, _| raw.file("../escape", "x"), Some("leads out")),
        ("a path above, later", |raw, _| raw.file("a/../../escape", "x"), Some("leads out")),
        ("a folder above", |raw, _| raw.folder("../outside", 0o777), Some("leads out")),
        ("an absolute path", |raw, outside| raw.file(&format!("{outside}/new"), "x"), None),
        (
            "through a relative link",
            |raw, _| raw.symlink("l", "../outside").file("l/new", "x"),
            Some("no folder"),
        ),
        (
            "through an absolute link",
            |raw, outside| raw.symlink("l", outside).file("l/new", "x"),
            Some("no folder"),
        ),
        (
            "through two links",
            |raw, _| raw.symlink("a", "..").symlink("b", "a/outside").file("b/new", "x"),
            Some("no folder"),
        ),
        ("through a link to the root", |raw, _| raw.symlink("l", "/..").file("l/new", "x"), None),
        ("over a link", |raw, outside| raw.symlink("f", &format!("{outside}/secret")).file("f", "x"), None),
        ("a folder over a link", |raw, outside| raw.symlink("d", outside).folder("d", 0o777), None),
        (
            "a folder in a folder over a link",
            |raw, outside| raw.symlink("d", outside).folder("d", 0o777).file("d/secret", "x"),
            None,
        ),
        ("a hard link above", |raw, _| raw.hard_link("h", "../outside/secret"), Some("leads out")),
        (
            "an absolute hard link",
            |raw, outside| raw.hard_link("h", &format!("{outside}/secret")),
            Some("not there"),
        ),
        (
            "a hard link through a link",
            |raw, outside| raw.symlink("l", outside).hard_link("h", "l/secret"),
            Some("not there"),
        ),
        (
            "a hard link to a link, and over it",
            |raw, outside| raw.symlink("s", &format!("{outside}/secret")).hard_link("h", "s").file("h", "x"),
            None,
        ),
        ("a hard link to the root", |raw, _| raw.hard_link("h", "/"), Some("hard link to the root")),
        ("a hard link to itself", |raw, _| raw.file("h", "x").hard_link("h", "./h"), None),
        ("a hard link over its folder", |raw, _| raw.file("d/h", "x").hard_link("d", "d/h"), Some("link")),
        ("a whiteout of nothing", |raw, _| raw.file(".wh.", ""), Some("hides nothing")),
        ("a whiteout of here", |raw, _| raw.file("a/.wh..", ""), Some("hides nothing")),
        ("a whiteout of above", |raw, _| raw.file(".wh...", ""), Some("hides nothing")),
        (
            "a whiteout through a link",
            |raw, outside| raw.symlink("l", outside).file("l/.wh.secret", ""),
            Some("no folder"),
        ),
        (
            "an opaque mark through a link",
            |raw, outside| raw.symlink("l", outside).file("l/.wh..wh..opq", ""),
            Some("no folder"),
        ),
        ("the root as a file", |raw, _| raw.file("/.", "x"), Some("root is a folder")),
        ("the root as a link", |raw, outside| raw.symlink(".", outside), Some("root is a folder")),
        ("a zero in a path", |raw, _| raw.pax(&[("path", b"a\0b")]).file("x", ""), Some("zero")),
        ("a link to nothing", |raw, _| raw.symlink("l", ""), Some("link")),
        ("a magic link", |raw, _| raw.symlink("p", "/proc/self/root/tmp").file("p/x", ""), Some("no folder")),
        ("an unknown type", |raw, _| raw.entry(b'~', "x", "", b""), Some("type")),
        (
            "a size beyond numbers",
            |raw, _| raw.pax(&[("size", b"18446744073709551615")]).file("x", ""),
            Some("larger"),
        ),
        (
            "an owner beyond numbers",
            |raw, _| raw.pax(&[("uid", b"4294967296")]).file("x", ""),
            Some("nobody's number"),
        ),
        ("a negative owner", |raw, _| raw.pax(&[("uid", b"-1")]).file("x", ""), Some("PAX")),
        (
            "a PAX record of no length",
            |raw, _| raw.entry(b'x', "p", "", b"0 a=b\n").file("x", ""),
            Some("PAX"),
        ),
        (
            "a PAX record that is too long",
            |raw, _| raw.entry(b'x', "p", "", b"99 a=b\n").file("x", ""),
            Some("PAX"),
        ),
        (
            "a header of megabytes",
            |raw, _| raw.entry(b'L', "L", "", &vec![b'a'; 2 << 20]),
            Some("longer than"),
        ),
        ("a header at the end", |raw, _| raw.pax(&[("path", b"x")]), Some("should follow")),
        (
            "a sparse file of a terabyte and more",
            |raw, _| {
                let map: &[(&str, &[u8])] =
                    &[("GNU.sparse.map", b"0,1"), ("GNU.sparse.size", b"9999999999999")];
                raw.pax(map).file("x", "y")
            },
            Some("larger"),
        ),
        (
            "a sparse file whose pieces overlap",
            |raw, _| raw.pax(&[("GNU.sparse.map", b"0,1,0,1"), ("GNU.sparse.size", b"9")]).file("x", "yy"),
            Some("pieces"),
        ),
    ];
    for (case, make, problem) in cases {
        let world = World::new();
        let outcome = world.unpack(&make(raw(), &outside(&world)).end());
        match (outcome, problem) {
            (Ok(_), None) => {}
            (Err(error), Some(problem)) => {
                let text =
                    format!("{error} {:?}", std::error::Error::source(&error).map(ToString::to_string));
                assert!(text.contains(problem), "{case}: {text}");
            }
            (outcome, wanted) => panic!("{case}: {outcome:?}, not {wanted:?}"),
        }
        world.assert_untouched(case);
    }
}

#[test]
fn folders_do_not_become_deeper_than_can_be_removed() {
    if lacks_root() {
        return;
    }
    let world = World::new();
    let part = format!("{}/", "d".repeat(90));
    let mut raw = Raw::default();
    // Each step begins at a link to where the last one ended.
    for step in 0..100 {
        let from = if step == 0 { String::new() } else { "l/".to_owned() };
        raw = raw.folder(&format!("{from}{part}"), 0o755).symlink("n", &format!("{from}{part}"));
        raw = raw.hard_link("l", "n");
        if step > 0 {
            raw = raw.pax(&[("linkpath", part.repeat(step + 1).as_bytes())]).symlink("l", "");
        }
    }
    let error = world.unpack(&raw.end()).unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error:?}");
    world.assert_untouched("deep folders");
}

#[test]
fn limits_hold_and_what_breaks_off_is_noticed() {
    let owner = rustix::process::geteuid().as_raw();
    if owner != 0 {
        println!("skipped: only root can unpack layers");
        return;
    }
    let limits = Limits { entries_max: 2, bytes_max: 10 };
    let limited = |archive: &[u8]| {
        let world = World::new();
        unpack(archive, &world.root(), &[], &limits).map_err(|error| error.to_string())
    };
    let fits = Raw::default().file("a", "12345").file("b", "12345").end();
    assert_eq!(limited(&fits).unwrap(), Unpacked { diff_id: Digest::of(&fits), entries: 2, bytes: 10 });
    let many = Raw::default().file("a", "").file("b", "").file("c", "").end();
    assert!(limited(&many).unwrap_err().contains("more than 2 entries"));
    let large = Raw::default().file("a", "123456").file("b", "12345").end();
    assert!(limited(&large).unwrap_err().contains("more than 10 bytes"));
    for cut in [100, 600, 1100] {
        let error =
            World::new().unpack(&Raw::default().file("a", &"x".repeat(1000)).end()[..cut]).unwrap_err();
        assert!(error.to_string().contains("breaks off"), "{cut}: {error}");
    }
    // The end of the archive need not be marked.
    assert!(World::new().unpack(&Raw::default().file("a", "x").0).is_ok());
}

#[test]
fn entries_are_what_they_say() {
    if lacks_root() {
        return;
    }
    let world = World::new();
    let capability: &[u8] = &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    // A line end inside, as the capability of bit 10 has.
    let newline: &[u8] = b"one\ntwo";
    let long = format!("{}/{}", "long".repeat(30), "name".repeat(50));
    let raw = Raw::default()
        .folder("set", 0o2775)
        .file("set/file", "text")
        .pax(&[("SCHILY.xattr.security.capability", capability), ("SCHILY.xattr.trusted.note", newline)])
        .file("tool", "x")
        .pax(&[
            ("SCHILY.xattr.trusted.overlay.redirect", b"/elsewhere"),
            ("SCHILY.xattr.user.overlay.opaque", b"y"),
        ])
        .folder("sly", 0o755)
        .pax(&[("path", long.as_bytes()), ("mtime", b"123.5"), ("uid", b"3000000"), ("gid", b"7")])
        .file("short", "long")
        .entry(b'6', "pipe", "", b"")
        .symlink("link", "anything/at all")
        .hard_link("other", "set/file")
        .entry(b'g', "global", "", b"ignored")
        .file("twice", "one")
        .file("twice", "two")
        .folder("becomes", 0o755)
        .file("becomes/inside", "x")
        .file("becomes", "a file");
    let mut raw = raw;
    raw.block(b'0', b"suid", b"", 0, 0o6755);
    let unpacked = world.unpack(&raw.end()).unwrap();
    let root = world.root();
    let metadata = |path: &str| fs::symlink_metadata(root.join(path)).unwrap();
    assert_eq!(metadata("set").mode() & 0o7777, 0o2775);
    // Its file came later, and left its time alone.
    assert_eq!((metadata("set").mtime(), metadata("set/file").mtime()), (1_000_000_000, 1_000_000_000));
    assert_eq!(metadata("suid").mode() & 0o7777, 0o6755);
    assert_eq!((metadata(&long).uid(), metadata(&long).gid()), (3_000_000, 7));
    assert_eq!((metadata(&long).mtime(), metadata(&long).mtime_nsec()), (123, 500_000_000));
    assert!(metadata("pipe").file_type().is_fifo());
    assert_eq!(fs::read_link(root.join("link")).unwrap().to_str(), Some("anything/at all"));
    assert_eq!(metadata("other").ino(), metadata("set/file").ino());
    assert_eq!(fs::read_to_string(root.join("twice")).unwrap(), "two");
    assert_eq!(fs::read_to_string(root.join("becomes")).unwrap(), "a file");
    assert_eq!(unpacked.entries, 15);
    let xattr = |path: &str, name: &str| {
        let mut value = vec![0_u8; 100];
        let read = rustix::fs::lgetxattr(root.join(path).as_str(), name, &mut value[..]).ok()?;
        value.truncate(read);
        Some(value)
    };
    assert_eq!(xattr("tool", "security.capability").as_deref(), Some(capability));
    assert_eq!(xattr("tool", "trusted.note").as_deref(), Some(newline));
    assert_eq!(xattr("sly", "trusted.overlay.redirect"), None);
    assert_eq!(xattr("sly", "user.overlay.opaque"), None);
}

fn is_whiteout(path: &Utf8Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_char_device() && found.rdev() == 0)
}

fn is_opaque(path: &Utf8Path) -> bool {
    let mut value = [0_u8; 2];
    rustix::fs::lgetxattr(path.as_str(), "trusted.overlay.opaque", &mut value[..])
        .is_ok_and(|read| &value[..read] == b"y")
}

#[test]
fn whiteouts_are_those_of_overlayfs() {
    if lacks_root() {
        return;
    }
    let world = World::new();
    let raw = Raw::default()
        .file("dir/.wh.gone", "")
        .file("new/.wh..wh..opq", "")
        .file(".wh..wh.plnk", "")
        // In either order, a folder that is hidden below and made anew shows nothing of the old one.
        .file(".wh.first", "")
        .folder("first", 0o755)
        .folder("second", 0o755)
        .file(".wh.second", "")
        .file(".wh.third", "")
        .file("third/file", "x")
        // A file that is here hides what is below by being here.
        .file("file", "x")
        .file(".wh.file", "");
    world.unpack(&raw.end()).unwrap();
    let root = world.root();
    assert!(is_whiteout(&root.join("dir/gone")));
    assert!(!is_opaque(&root.join("dir")));
    assert!(is_opaque(&root.join("new")) && fs::read_dir(root.join("new")).unwrap().count() == 0);
    assert!(!root.join(".wh..wh.plnk").exists());
    for folder in ["first", "second", "third"] {
        assert!(is_opaque(&root.join(folder)), "{folder}");
    }
    assert_eq!(fs::read_to_string(root.join("file")).unwrap(), "x");
}

#[test]
fn what_a_layer_does_not_describe_is_as_it_is_below() {
    if lacks_root() {
        return;
    }
    let world = World::new();
    let lower = world.path.join("outside");
    fs::create_dir_all(lower.join("tmp/hidden/deep")).unwrap();
    fs::create_dir_all(lower.join("tmp/kept")).unwrap();
    for (path, mode) in
        [("tmp", 0o1777), ("tmp/kept", 0o700), ("tmp/hidden", 0o711), ("tmp/hidden/deep", 0o711)]
    {
        fs::set_permissions(lower.join(path), fs::Permissions::from_mode(mode)).unwrap();
    }
    std::os::unix::fs::chown(lower.join("tmp/kept"), Some(12), Some(34)).unwrap();
    fs::write(lower.join("tmp/file"), "below").unwrap();
    symlink("nowhere", lower.join("tmp/link")).unwrap();
    let middle = world.path.join("middle");
    fs::create_dir_all(middle.join("tmp")).unwrap();
    fs::set_permissions(middle.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        middle.join("tmp/hidden").as_str(),
        rustix::fs::FileType::CharacterDevice,
        rustix::fs::Mode::empty(),
        0,
    )
    .unwrap();
    let raw = Raw::default()
        .file("tmp/kept/new", "")
        .file("tmp/hidden/deep/new", "")
        .hard_link("copy", "tmp/file")
        .hard_link("copied-link", "tmp/link");
    let archive = raw.end();
    unpack(&archive[..], &world.root(), &[middle.clone(), lower.clone()], &Limits::default()).unwrap();
    let root = world.root();
    let attributes = |path: &str| {
        let found = fs::symlink_metadata(root.join(path)).unwrap();
        (found.mode() & 0o7777, found.uid(), found.gid())
    };
    assert_eq!(attributes("tmp"), (0o1777, 0, 0));
    assert_eq!(attributes("tmp/kept"), (0o700, 12, 34));
    // It was removed in between, so it is a new one.
    assert_eq!(attributes("tmp/hidden/deep"), (0o755, 0, 0));
    assert_eq!(fs::read_to_string(root.join("copy")).unwrap(), "below");
    assert_eq!(
        fs::metadata(root.join("copy")).unwrap().ino(),
        fs::metadata(root.join("tmp/file")).unwrap().ino()
    );
    assert_eq!(fs::read_link(root.join("copied-link")).unwrap().to_str(), Some("nowhere"));
    assert_eq!(fs::metadata(lower.join("tmp/file")).unwrap().nlink(), 1);
    let gone = Raw::default().hard_link("copy", "tmp/hidden/deep").end();
    let fresh = World::new();
    let error = unpack(&gone[..], &fresh.root(), &[middle, lower], &Limits::default()).unwrap_err();
    assert!(error.to_string().contains("not there"), "{error}");
}

#[test]
fn what_tar_writes_is_read_in_every_dialect() {
    if lacks_root() {
        return;
    }
    if Command::new("tar").arg("--version").output().is_err() {
        println!("skipped: tar is not installed");
        return;
    }
    let source = World::new();
    let content = source.root();
    let deep = content.join("a".repeat(80)).join("b".repeat(80)).join("c".repeat(80));
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("d".repeat(120)), "deep").unwrap();
    symlink("t".repeat(150), content.join("link")).unwrap();
    let mut sparse = fs::File::create(content.join("sparse")).unwrap();
    for piece in 0..40_u64 {
        std::io::Seek::seek(&mut sparse, std::io::SeekFrom::Start(piece << 20)).unwrap();
        sparse.write_all(format!("piece {piece}").as_bytes()).unwrap();
    }
    sparse.set_len(50 << 20).unwrap();
    let wanted = fs::read(content.join("sparse")).unwrap();
    for options in [
        &["--format=gnu"][..],
        &["--format=gnu", "--sparse"],
        &["--format=pax"],
        &["--format=pax", "--sparse", "--sparse-version=0.0"],
        &["--format=pax", "--sparse", "--sparse-version=0.1"],
        &["--format=pax", "--sparse", "--sparse-version=1.0"],
    ] {
        let made =
            Command::new("tar").args(options).args(["-C", content.as_str(), "-c", "."]).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let world = World::new();
        world.unpack(&made.stdout).unwrap_or_else(|error| panic!("{options:?}: {error}"));
        let root = world.root();
        assert!(fs::read(root.join("sparse")).unwrap() == wanted, "{options:?}");
        let is_sparse = fs::metadata(root.join("sparse")).unwrap().blocks() * 512 < 10 << 20;
        assert_eq!(is_sparse, options.contains(&"--sparse"), "{options:?}");
        let inside = deep.strip_prefix(&content).unwrap();
        assert_eq!(fs::read_to_string(root.join(inside).join("d".repeat(120))).unwrap(), "deep");
        assert_eq!(fs::read_link(root.join("link")).unwrap().as_os_str().len(), 150);
    }
}
