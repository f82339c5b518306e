//! Damages every file of a store in many ways and checks that opening it either finds everything that
//! was acknowledged or says what is damaged. Nothing in between, and no panic.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use storage::{Durability, Error, Key, Precondition, RangeRequest, Revision, Store, Write};
use storage_embedded::{EmbeddedStore, Options, open};

fn options() -> Options {
    Options { journal_file_bytes: 64 << 10, ..Options::default() }
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn put(store: &EmbeddedStore, key: &str, value: &str) -> Revision {
    let value = Some(value.to_owned().into());
    let (precondition, durability) = (Precondition::None, Durability::Synced);
    let write = Write { key: Key::from(key), precondition, value, attachment: None, durability };
    wait(store.commit(write)).unwrap().revision
}

fn delete(store: &EmbeddedStore, key: &str) {
    let (precondition, durability) = (Precondition::Present, Durability::Synced);
    let write = Write { key: Key::from(key), precondition, value: None, attachment: None, durability };
    wait(store.commit(write)).unwrap();
}

/// A store with history in tables and journal, compacted once, and everything one can read from it.
fn prepare(path: &Path) -> Content {
    let store = open(path, options()).unwrap();
    for round in 0..3 {
        for number in 0..100 {
            put(&store, &format!("/k/{number}"), &format!("{round} {}", "v".repeat(number * 9)));
        }
        for number in (round..100).step_by(7) {
            delete(&store, &format!("/k/{number}"));
        }
        if round == 1 {
            let current = store.current_revision();
            wait(store.compact(current)).unwrap();
        }
    }
    wait(store.close()).unwrap();
    // Once more, so that all that opening changes is changed already.
    let store = open(path, options()).unwrap();
    let content = Content::of(&store);
    wait(store.close()).unwrap();
    content
}

#[derive(Debug, PartialEq)]
struct Content {
    current: Revision,
    /// At some revisions; nothing for those before the compaction.
    lists: Vec<Option<Vec<Row>>>,
}

/// Key, create and mod revision, length of the value.
type Row = (String, u64, u64, usize);

impl Content {
    fn of(store: &EmbeddedStore) -> Self {
        let current = store.current_revision();
        let lists = (0..=current.0).step_by(25).chain([current.0]).map(|at| list_at(store, at)).collect();
        Self { current, lists }
    }
}

fn list_at(store: &EmbeddedStore, at: u64) -> Option<Vec<Row>> {
    match store.range(&RangeRequest { at: Some(Revision(at)), ..RangeRequest::default() }) {
        Ok(response) => Some(
            response
                .items
                .iter()
                .map(|pair| {
                    (pair.key.to_string(), pair.create_revision.0, pair.mod_revision.0, pair.value.len())
                })
                .collect(),
        ),
        Err(Error::Compacted { .. }) => None,
        Err(error) => panic!("{error}"),
    }
}

/// All files below a directory, relative to it.
fn files(path: &Path) -> Vec<PathBuf> {
    fn collect(root: &Path, folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(root, &path, found);
            } else {
                found.push(path.strip_prefix(root).unwrap().to_owned());
            }
        }
    }
    let mut found = Vec::new();
    collect(path, path, &mut found);
    found.sort();
    found
}

fn copy(source: &Path, target: &Path) {
    fs::create_dir_all(target).unwrap();
    for entry in fs::read_dir(source).unwrap() {
        let entry = entry.unwrap();
        let to = target.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), &to).unwrap();
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Damage {
    Remove,
    Truncate(u64),
    Flip(u64),
}

/// Ways to damage a file of a length: gone, cut at several places, bytes flipped from end to end.
fn damages(length: u64) -> Vec<Damage> {
    let mut all = vec![Damage::Remove];
    if length == 0 {
        return all;
    }
    all.extend([0, length / 3, length / 2, length - 1].map(Damage::Truncate));
    let step = (length / 24).max(1) as usize;
    all.extend((0..length).step_by(step).map(Damage::Flip));
    all.extend([1, 4, 8, 20, 4096, 4100, 4110].into_iter().filter(|at| *at < length).map(Damage::Flip));
    all.push(Damage::Flip(length - 1));
    all
}

fn apply(path: &Path, damage: Damage) {
    match damage {
        Damage::Remove => fs::remove_file(path).unwrap(),
        Damage::Truncate(length) => {
            OpenOptions::new().write(true).open(path).unwrap().set_len(length).unwrap()
        }
        Damage::Flip(at) => {
            let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ 0x41], at).unwrap();
        }
    }
}

/// Opens a damaged store. Returns whether it was refused.
fn refused_or_complete(path: &Path, file: &Path, expected: &Content, what: &str) -> bool {
    match open(path, options()) {
        Ok(store) => {
            assert_eq!(&Content::of(&store), expected, "{what}: opened with other content");
            false
        }
        Err(Error::Corrupt { path: named, reason }) => {
            let is_near = if file.starts_with("journal") {
                // A missing file shows at its neighbour, or at the directory.
                named.starts_with(path.join("journal"))
            } else {
                named == path.join(file)
            };
            assert!(is_near, "{what}: names {}: {reason}", named.display());
            let text = Error::Corrupt { path: named, reason }.to_string();
            assert!(text.contains("restore a snapshot"), "{what}: {text}");
            true
        }
        Err(Error::Format { .. }) => true,
        Err(error) => panic!("{what}: {error}"),
    }
}

#[test]
fn damage_to_any_file_is_noticed_or_harmless() {
    // Panics inside the engine underneath are expected here, and turned into errors.
    std::panic::set_hook(Box::new(|info| {
        if std::thread::current().name().is_some_and(|name| name.contains("damage_to_any_file")) {
            let from_engine = info.location().is_some_and(|at| at.file().contains("/registry/"));
            if !from_engine {
                eprintln!("{info}");
            }
        }
    }));
    let folder = tempfile::tempdir().unwrap();
    let good = folder.path().join("good");
    let expected = prepare(&good);
    let (mut tried, mut refused) = (0, 0);
    for file in files(&good) {
        let length = good.join(&file).metadata().unwrap().len();
        for damage in damages(length) {
            let bad = folder.path().join("bad");
            copy(&good, &bad);
            apply(&bad.join(&file), damage);
            let what = format!("{damage:?} on {} of {length} bytes", file.display());
            tried += 1;
            let first = refused_or_complete(&bad, &file, &expected, &what);
            if first {
                refused += 1;
                // Trying again must not get past it either.
                refused_or_complete(&bad, &file, &expected, &format!("second start after {what}"));
            }
            fs::remove_dir_all(&bad).unwrap();
        }
    }
    eprintln!("{tried} damages, {refused} refused");
    assert!(refused * 2 > tried, "only {refused} of {tried} damages were noticed");
}

fn newest_journal(path: &Path) -> PathBuf {
    let mut found: Vec<PathBuf> =
        files(path).into_iter().filter(|file| file.starts_with("journal")).collect();
    found.retain(|file| file.extension().is_some());
    path.join(found.last().unwrap())
}

/// The places of all frames in a journal file.
fn frames(journal: &Path) -> Vec<usize> {
    let bytes = fs::read(journal).unwrap();
    bytes.windows(4).enumerate().filter(|(_, window)| window == b"pFrm").map(|(at, _)| at).collect()
}

#[test]
fn a_torn_last_frame_is_what_a_power_cut_leaves_and_is_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data");
    let store = open(&path, options()).unwrap();
    for number in 0..10 {
        put(&store, &format!("/{number}"), "value");
    }
    // The mark as it was when the last write had not been synced yet.
    let mark = fs::read(path.join("durable")).unwrap();
    let last = put(&store, "/last", "value");
    wait(store.close()).unwrap();
    let journal = newest_journal(&path);
    let at = *frames(&journal).last().unwrap() as u64;
    let whole = fs::read(&journal).unwrap();

    for written in [0, 1, 10, 50] {
        let mut torn = whole.clone();
        torn[(at + written) as usize..].fill(0);
        fs::write(&journal, &torn).unwrap();
        fs::write(path.join("durable"), &mark).unwrap();
        let store = open(&path, options()).unwrap();
        assert_eq!(store.current_revision().0, last.0 - 1, "{written} bytes of the frame were written");
        assert_eq!(store.get("/last").unwrap(), None);
        assert!(store.get("/9").unwrap().is_some());
    }

    // The same bytes are damage if the write is known to have been acknowledged.
    let store = open(&path, options()).unwrap();
    assert_eq!(put(&store, "/again", "value"), last);
    wait(store.close()).unwrap();
    let journal = newest_journal(&path);
    let at = *frames(&journal).last().unwrap() as u64;
    apply(&journal, Damage::Flip(at + 60));
    match open(&path, options()).err() {
        Some(Error::Corrupt { path: named, .. }) => assert_eq!(named, journal),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_damaged_frame_with_synced_ones_behind_it_is_never_taken_for_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data");
    let store = open(&path, options()).unwrap();
    // A mark from long ago, as a power cut may leave it.
    let mark = fs::read(path.join("durable")).unwrap();
    for number in 0..10 {
        put(&store, &format!("/{number}"), "value");
    }
    wait(store.close()).unwrap();
    let journal = newest_journal(&path);
    let frames = frames(&journal);
    assert_eq!(frames.len(), 10);
    let whole = fs::read(&journal).unwrap();
    // The last but one is followed by a frame that says it was durable; only the last is not.
    for frame in &frames[..9] {
        fs::write(&journal, &whole).unwrap();
        fs::write(path.join("durable"), &mark).unwrap();
        apply(&journal, Damage::Flip(*frame as u64 + 45));
        match open(&path, options()).err() {
            Some(Error::Corrupt { path: named, reason }) => {
                assert_eq!(named, journal);
                assert!(reason.contains(&format!("byte {frame}")), "{reason}");
            }
            other => panic!("frame at {frame}: {other:?}"),
        }
    }
}

#[test]
fn a_second_store_on_the_same_directory_is_refused_and_told_who_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), options()).unwrap();
    match open(folder.path(), options()).err() {
        Some(Error::InUse { path, holder }) => {
            assert_eq!(path, folder.path());
            assert_eq!(holder, Some(std::process::id()));
        }
        other => panic!("{other:?}"),
    }
    wait(store.close()).unwrap();
    open(folder.path(), options()).unwrap();
}

#[test]
fn a_directory_of_something_else_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("thesis.txt"), "important").unwrap();
    match open(folder.path(), options()).err() {
        Some(Error::Format { path, reason }) => {
            assert_eq!(path, folder.path());
            assert!(reason.contains("thesis.txt"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(fs::read(folder.path().join("thesis.txt")).unwrap(), b"important");
}

#[test]
fn a_newer_format_and_an_unusable_path_give_clear_errors() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    File::create(&file).unwrap();
    for path in [file.clone(), file.join("below")] {
        match open(&path, options()).err() {
            Some(Error::Io { operation, path: named, .. }) => {
                assert_eq!(operation, "create directory");
                assert_eq!(named, path);
            }
            other => panic!("{other:?}"),
        }
    }
    // Root may write anywhere, so only others can show this.
    let sealed = folder.path().join("sealed");
    fs::create_dir(&sealed).unwrap();
    fs::set_permissions(&sealed, fs::Permissions::from_mode(0o500)).unwrap();
    match open(&sealed, options()) {
        Ok(_) => eprintln!("skipped: this user may write to a directory of mode 0500"),
        Err(error) => assert!(matches!(error, Error::Io { .. }), "{error}"),
    }
}

#[test]
fn an_interrupted_set_up_is_done_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data");
    let store = open(&path, options()).unwrap();
    wait(store.close()).unwrap();
    // Back to how it looks before the last step, with some of it missing.
    let other = folder.path().join("other");
    let body = "pintle storage 1\nstate new\n";
    fs::write(path.join("format"), format!("{body}checksum {:016x}\n", checksum(body))).unwrap();
    fs::remove_file(path.join("manifest")).unwrap();
    let store = open(&path, options()).unwrap();
    assert_eq!(store.current_revision(), Revision::ZERO);
    assert!(put(&store, "/a", "1") > Revision::ZERO);
    drop((store, other));
    assert_eq!(open(&path, options()).unwrap().get("/a").unwrap().unwrap().value, "1".as_bytes());
}

fn checksum(body: &str) -> u64 {
    xxhash_rust::xxh3::xxh3_64(body.as_bytes())
}

#[test]
fn files_are_for_their_owner_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data");
    prepare(&path);
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    for file in files(&path) {
        let file = path.join(file);
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{}", file.display());
        let folder = file.parent().unwrap();
        assert_eq!(folder.metadata().unwrap().permissions().mode() & 0o777, 0o700, "{}", folder.display());
    }
}
