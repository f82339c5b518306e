//! The store with images made here: built, written, read back, mounted, removed.

use std::fs;
use std::io::Cursor;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use camino::{Utf8Path, Utf8PathBuf};
use image::build::Build;
use image::{Error, Options, Reference, Store, unmount};

struct World {
    _folder: tempfile::TempDir,
    path: Utf8PathBuf,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(folder.path().to_owned()).unwrap();
        Self { _folder: folder, path }
    }

    async fn store(&self, name: &str) -> Store {
        Store::open(&self.path.join(name), Options::default()).await.unwrap()
    }

    /// A folder with a bit of everything.
    fn content(&self, text: &str) -> Utf8PathBuf {
        let root = self.path.join(format!("content-{text}"));
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::create_dir_all(root.join("tmp")).unwrap();
        fs::write(root.join("etc/name"), text).unwrap();
        fs::hard_link(root.join("etc/name"), root.join("etc/other")).unwrap();
        std::os::unix::fs::symlink("/etc/name", root.join("link")).unwrap();
        fs::write(root.join("run"), "#!/bin/sh\n").unwrap();
        fs::set_permissions(root.join("run"), fs::Permissions::from_mode(0o4755)).unwrap();
        fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
        root
    }
}

fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

/// Why this cannot be tested here.
fn lacks_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        println!("skipped: only root can unpack and mount images");
    }
    !is_root
}

/// Unmounted also when a test fails.
struct Mounted(Utf8PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = unmount(&self.0);
    }
}

fn mount(rootfs: &image::Rootfs, at: &Utf8Path) -> Option<Mounted> {
    fs::create_dir_all(at).unwrap();
    match rootfs.mount(at, false) {
        Ok(()) => Some(Mounted(at.to_owned())),
        Err(Error::Io { source, .. }) if source.raw_os_error() == Some(1) => {
            println!("skipped: this process may not mount");
            None
        }
        Err(error) => panic!("{error:?}"),
    }
}

#[tokio::test]
async fn the_same_files_are_the_same_image() {
    let world = World::new();
    let (one, two) = (world.store("one").await, world.store("two").await);
    let folder = world.content("same");
    let mut build = Build::from_folder(&folder);
    build.config.cmd = vec!["/run".to_owned()];
    let first = one.build(build.clone(), &reference("app:1")).await.unwrap();
    let second = two.build(build.clone(), &reference("app:2")).await.unwrap();
    assert_eq!(first.id, second.id);
    assert_eq!(first.tags, ["docker.io/library/app:1"]);
    assert_eq!(first.config.cmd, ["/run"]);
    build.config.cmd = vec!["/other".to_owned()];
    let third = one.build(build, &reference("app:3")).await.unwrap();
    assert_ne!(first.id, third.id);
}

#[tokio::test]
async fn a_container_changes_its_own_files_only() {
    if lacks_root() {
        return;
    }
    let world = World::new();
    let store = world.store("images").await;
    let image = store.build(Build::from_folder(world.content("rw")), &reference("app")).await.unwrap();
    let rootfs = store.prepare(&image.id, "one").await.unwrap();
    assert_eq!(store.prepare(&image.id, "one").await.unwrap(), rootfs);
    let at = world.path.join("mounted");
    let Some(_mounted) = mount(&rootfs, &at) else { return };
    assert_eq!(fs::read_to_string(at.join("etc/name")).unwrap(), "rw");
    assert_eq!(fs::read_link(at.join("link")).unwrap(), Utf8Path::new("/etc/name"));
    assert_eq!(fs::metadata(at.join("run")).unwrap().mode() & 0o7777, 0o4755);
    assert_eq!(fs::metadata(at.join("tmp")).unwrap().mode() & 0o7777, 0o1777);
    assert_eq!(
        fs::metadata(at.join("etc/name")).unwrap().ino(),
        fs::metadata(at.join("etc/other")).unwrap().ino()
    );
    assert_eq!(fs::metadata(at.join("etc/name")).unwrap().mtime(), 0);
    let before = store.usage("one").await.unwrap();
    fs::write(at.join("etc/new"), vec![1; 1 << 20]).unwrap();
    fs::remove_file(at.join("run")).unwrap();
    let after = store.usage("one").await.unwrap();
    assert!(after.bytes >= before.bytes + (1 << 20) && after.inodes >= before.inodes + 2, "{after:?}");

    let other = store.prepare(&image.id, "two").await.unwrap();
    let beside = world.path.join("beside");
    let _beside = mount(&other, &beside).unwrap();
    assert!(beside.join("run").exists() && !beside.join("etc/new").exists());

    let view = store.view(&image.id, "three").await.unwrap();
    let seen = world.path.join("seen");
    let _seen = mount(&view, &seen).unwrap();
    assert!(seen.join("run").exists());
    let refused = fs::write(seen.join("etc/new"), "").unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
}

#[tokio::test]
async fn an_image_in_use_stays_and_one_that_is_not_goes_with_its_content() {
    if lacks_root() {
        return;
    }
    let world = World::new();
    let store = world.store("images").await;
    let image = store.build(Build::from_folder(world.content("gc")), &reference("app:1")).await.unwrap();
    let kept = store.build(Build::from_folder(world.content("kept")), &reference("app:2")).await.unwrap();
    store.tag("app:1", &reference("app:also")).await.unwrap();
    store.prepare("app:1", "user").await.unwrap();
    // One of two names is only a name.
    store.remove("app:also").await.unwrap();
    let error = store.remove("app:1").await.unwrap_err();
    assert!(matches!(&error, Error::InUse(text) if text.contains("user")), "{error}");
    let error = store.remove(&image.id).await.unwrap_err();
    assert!(matches!(error, Error::InUse(_)), "{error}");
    // Another process that has the store open sees the same.
    let same = world.store("images").await;
    same.remove_snapshot("user").await.unwrap();
    same.remove(&image.id).await.unwrap();
    assert_eq!(store.resolve("app:1").await.unwrap(), None);
    store.remove("app:1").await.unwrap();
    let left = |folder: &str| fs::read_dir(store.root().join(folder)).unwrap().count();
    assert_eq!((left("blobs/sha256"), left("layers"), left("snapshots"), left("leases")), (3, 1, 0, 0));
    let images = store.images().await.unwrap();
    assert_eq!(images, [kept]);
    let filesystem = store.filesystem().await.unwrap();
    assert!(filesystem.used_bytes > 0 && filesystem.capacity_bytes > filesystem.used_bytes);
}

#[tokio::test]
async fn what_is_exported_is_imported_as_the_same() {
    let world = World::new();
    let store = world.store("images").await;
    let image = store
        .build(Build::from_folder(world.content("out")), &reference("host.example/app:1"))
        .await
        .unwrap();
    let path = world.path.join("image.tar");
    store.export(&["host.example/app:1".to_owned()], fs::File::create(&path).unwrap()).await.unwrap();
    let other = world.store("other").await;
    let imported = other.import(fs::File::open(&path).unwrap(), None).await.unwrap();
    assert_eq!(imported.len(), 1);
    assert_eq!((&imported[0].id, &imported[0].tags), (&image.id, &image.tags));
    let found = other.resolve("host.example/app:1").await.unwrap().unwrap();
    assert_eq!(found.id, image.id);
    let beginning = &image.id["sha256:".len()..][..12];
    assert_eq!(other.resolve(beginning).await.unwrap().unwrap().id, image.id);
    assert_eq!(other.resolve("host.example/app:2").await.unwrap(), None);
    let error = other.export(&["nothing".to_owned()], Vec::new()).await.unwrap_err();
    assert!(matches!(error, Error::NotFound(_)), "{error}");
}

#[tokio::test]
async fn what_is_no_archive_of_images_is_refused_and_leaves_nothing() {
    let world = World::new();
    let store = world.store("images").await;
    let mut plain = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(2);
    header.set_mode(0o644);
    plain.append_data(&mut header, "index.json", &b"{}"[..]).unwrap();
    let empty = plain.into_inner().unwrap();
    for (bytes, problem) in [
        (b"no tar".to_vec(), "breaks off"),
        (vec![b'x'; 4096], "tar archive"),
        (Vec::new(), "neither index.json nor manifest.json"),
        (empty, "index.json of the archive cannot be read"),
    ] {
        let error = store.import(Cursor::new(bytes), None).await.unwrap_err();
        assert!(matches!(&error, Error::Invalid(text) if text.contains(problem)), "{error}");
    }
    store.collect().await.unwrap();
    assert_eq!(fs::read_dir(store.root().join("blobs/sha256")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_damaged_store_is_reported_and_the_rest_goes_on() {
    let world = World::new();
    let store = world.store("images").await;
    let bad = store.build(Build::from_folder(world.content("bad")), &reference("bad")).await.unwrap();
    let good = store.build(Build::from_folder(world.content("good")), &reference("good")).await.unwrap();
    fs::write(store.root().join("blobs/sha256").join(&bad.id["sha256:".len()..]), "{}").unwrap();
    let error = store.resolve("bad").await.unwrap_err();
    assert!(matches!(&error, Error::Corrupt(text) if text.contains("digest mismatch")), "{error}");
    assert_eq!(store.images().await.unwrap(), [good]);
}

#[tokio::test]
async fn a_layer_that_was_not_on_disk_when_the_machine_went_down_is_unpacked_again() {
    if lacks_root() {
        return;
    }
    let world = World::new();
    let store = world.store("images").await;
    let image = store.build(Build::from_folder(world.content("boot")), &reference("app")).await.unwrap();
    let layers = store.root().join("layers");
    let layer =
        Utf8PathBuf::from_path_buf(fs::read_dir(&layers).unwrap().next().unwrap().unwrap().path()).unwrap();
    let is_durable = || fs::read_to_string(layer.join("layer.json")).unwrap().contains("\"is_durable\":true");
    for (lost, is_made_again) in [
        (r#"{"boot":"another","is_durable":true,"bytes":1,"inodes":1}"#, false),
        (r#"{"boot":"another","is_durable":false,"bytes":1,"inodes":1}"#, true),
        ("", true),
    ] {
        // Whoever unpacked last still writes this file, as soon as the disk has everything.
        while !is_durable() {
            rt::sleep(std::time::Duration::from_millis(10)).await;
        }
        fs::write(layer.join("layer.json"), lost).unwrap();
        fs::write(layer.join("fs/etc/name"), "torn").unwrap();
        let rootfs = store.prepare(&image.id, &format!("key-{is_made_again}-{}", lost.len())).await.unwrap();
        let text = fs::read_to_string(rootfs.lower[0].join("etc/name")).unwrap();
        assert_eq!(text, if is_made_again { "boot" } else { "torn" }, "{lost}");
    }
}

#[tokio::test]
async fn the_running_program_is_an_image_that_runs() {
    if lacks_root() {
        return;
    }
    let world = World::new();
    let store = world.store("images").await;
    let image = store.build_self(&reference("pintle.local/self")).await.unwrap();
    let rootfs = store.prepare(&image.id, "self").await.unwrap();
    let at = world.path.join("self");
    let Some(_mounted) = mount(&rootfs, &at) else { return };
    let ran = std::process::Command::new("chroot")
        .arg(&at)
        .args(&image.config.entrypoint)
        .args(["--list", "--exact", "nothing"])
        .output()
        .unwrap();
    assert!(ran.status.success(), "{ran:?}");
}
