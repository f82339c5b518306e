//! Static pods: those that a folder on this machine describes, and no API (`--pod-manifest-path`).
//!
//! Owns: which files there are, the pod that each describes ([`manifest`], pure), that these pods run whether or not an
//! API answers, and the [`mirror`] by which an API shows them. Never touches: containers (a pod of a file has a
//! worker as any other).
//!
//! A file that cannot be used is said to be so, once, and what it described before goes on; only a file that is gone
//! ends its pod. A file that changed ends its pod, and then begins another: two pods of one name never run at a time.
//!
//! Start at [`StaticPods::run`].

pub mod manifest;
pub mod mirror;

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use apimachinery::Object;
use camino::{Utf8Path, Utf8PathBuf};
use k8s_openapi::api::core::v1::Pod;
use tracing::{info, warn};

use super::pod::worker::decode;
use super::server::logs::watch::{Watch, Watches};
use super::{Node, config, pods};

/// How often the folder is read without being told (`--file-check-frequency`).
const RESCAN: Duration = Duration::from_secs(20);

/// A larger file is no manifest of a pod.
const MANIFEST_BYTES_MAX: u64 = 10 << 20;

/// Marks a pod that does not come from the API, and says where it comes from.
pub const SOURCE: &str = "kubernetes.io/config.source";
/// What a pod's description hashes to; another description is another pod.
pub const HASH: &str = "kubernetes.io/config.hash";
/// When the node first saw it.
pub const SEEN: &str = "kubernetes.io/config.seen";
/// Marks a pod in the API that only shows one of a node's, by its hash.
pub const MIRROR: &str = "kubernetes.io/config.mirror";

/// What files contain, or why they cannot be read.
type Files = BTreeMap<Utf8PathBuf, io::Result<Vec<u8>>>;

fn annotation<'a>(pod: &'a Pod, key: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

/// Whether the pod comes from somewhere else than the API.
pub fn is_static(pod: &Pod) -> bool {
    annotation(pod, SOURCE).is_some_and(|source| source != "api")
}

/// A pod from the API is that, whatever it calls itself: anybody may write annotations.
pub fn note_api(pod: &mut Pod) {
    if is_static(pod) {
        let annotations = pod.metadata.annotations.get_or_insert_default();
        annotations.insert(SOURCE.to_owned(), "api".to_owned());
    }
}

/// Whether the pod only shows one that is static.
pub fn is_mirror(pod: &Pod) -> bool {
    annotation(pod, MIRROR).is_some()
}

/// What is to be done so that the pods of the files run, and no others of files.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// By uid.
    pub end: Vec<String>,
    /// By file.
    pub begin: Vec<Utf8PathBuf>,
}

/// A pod that somebody works on, or that a file wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub uid: String,
    /// Namespace and name.
    pub name: (String, String),
}

impl Identity {
    fn of(pod: &Pod) -> Self {
        let metadata = &pod.metadata;
        let name =
            (metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default());
        Self { uid: metadata.uid.clone().unwrap_or_default(), name }
    }
}

/// What begins and what ends, so that exactly the wanted pods run: `running` with whether each is static. Of two files
/// with one name the first by file name counts.
pub(super) fn changes(wanted: &BTreeMap<Utf8PathBuf, Identity>, running: &[(Identity, bool)]) -> Changes {
    let mut changes = Changes::default();
    let is_wanted = |uid: &str| wanted.values().any(|own| own.uid == uid);
    for (own, _) in running.iter().filter(|(own, is_static)| *is_static && !is_wanted(&own.uid)) {
        changes.end.push(own.uid.clone());
    }
    let mut names: Vec<_> = running.iter().map(|(own, _)| &own.name).collect();
    for (file, own) in wanted {
        if !names.contains(&&own.name) {
            names.push(&own.name);
            changes.begin.push(file.clone());
        }
    }
    changes
}

/// The folder, and what was found in it.
pub struct StaticPods {
    /// A folder of manifests, or one manifest; `None` where nobody asked for static pods.
    path: Option<Utf8PathBuf>,
    /// What each file describes, or described when it was last fit to be read.
    known: BTreeMap<Utf8PathBuf, Arc<Object>>,
    /// What was said of files that cannot be used.
    complaints: BTreeMap<Utf8PathBuf, String>,
    watches: Option<Watches>,
    /// Of this folder.
    watch: Option<(Utf8PathBuf, Watch)>,
}

impl StaticPods {
    pub fn new(path: Option<Utf8PathBuf>) -> Self {
        let watches = path.as_ref().and_then(|path| {
            Watches::new()
                .inspect_err(|error| warn!(%path, %error, "Manifests are found by reading them now and then"))
                .ok()
        });
        Self { path, known: BTreeMap::new(), complaints: BTreeMap::new(), watches, watch: None }
    }

    /// Begins and ends pods as their files come, change and go, until the node stops.
    pub async fn run(mut self, node: Arc<Node>) {
        if self.path.is_none() {
            return;
        }
        loop {
            tokio::select! {
                () = rt::sleep(RESCAN) => {}
                () = changed(&mut self.watch) => {}
                () = node.pods.one_is_gone() => {}
                () = node.shutdown.cancelled() => return,
            }
            self.look(&node).await;
        }
    }

    /// Reads the files, and begins and ends what that says.
    pub async fn look(&mut self, node: &Arc<Node>) {
        let Some(path) = self.path.clone() else { return };
        // Watched before it is read, so that nothing is missed between.
        let folder = if path.is_dir() { Some(path.as_path()) } else { path.parent() };
        let is_watched = self.watch.as_ref().is_some_and(|(watched, _)| Some(watched.as_path()) == folder);
        if let (false, Some(folder), Some(watches)) = (is_watched, folder, &self.watches) {
            self.watch = watches.watch(folder).ok().map(|watch| (folder.to_owned(), watch));
        }
        let from = path.clone();
        let read = tokio::task::spawn_blocking(move || read(&from)).await.map_err(io::Error::other);
        match read.flatten() {
            Ok(files) => self.take(files, &node.identity.name),
            // What cannot be read is not gone.
            Err(error) => self.complain(path, format!("failed to read: {error}")),
        }
        self.apply(node).await;
    }

    /// Notes what files describe now. Those that are missing are forgotten, those that cannot be used are not.
    fn take(&mut self, files: Files, node_name: &str) {
        self.known.retain(|path, _| files.contains_key(path));
        self.complaints.retain(|path, _| files.contains_key(path));
        for (path, content) in files {
            let read = content.map_err(|error| format!("failed to read: {error}"));
            match read.and_then(|content| manifest::read(&content, &path, node_name, rt::now())) {
                Ok(object) => {
                    // Files come in the order of their names, so that earlier ones are known already.
                    match self.twin(&path, &object) {
                        Some(complaint) => self.complain(path.clone(), complaint),
                        None => _ = self.complaints.remove(&path),
                    }
                    let is_same = self.known.get(&path).is_some_and(|own| own.uid() == object.uid());
                    if !is_same {
                        self.known.insert(path, Arc::new(object));
                    }
                }
                Err(complaint) => self.complain(path, complaint),
            }
        }
    }

    /// Why a file's pod does not run: one before it has the name.
    fn twin(&self, path: &Utf8Path, object: &Object) -> Option<String> {
        let name = (object.namespace(), object.name());
        let mut before = self.known.iter().take_while(|(other, _)| other.as_path() < path);
        let (first, _) = before.find(|(_, own)| (own.namespace(), own.name()) == name)?;
        Some(format!("{first} describes the pod {}/{} already", name.0, name.1))
    }

    /// Says it once.
    fn complain(&mut self, path: Utf8PathBuf, complaint: String) {
        if self.complaints.get(&path) != Some(&complaint) {
            warn!(%path, error = complaint, "Can't process manifest file");
            self.complaints.insert(path, complaint);
        }
    }

    async fn apply(&self, node: &Arc<Node>) {
        let named = |object: &Object| Identity {
            uid: object.uid().to_owned(),
            name: (object.namespace().to_owned(), object.name().to_owned()),
        };
        let wanted = self.known.iter().map(|(path, object)| (path.clone(), named(object))).collect();
        let workers = node.pods.all();
        let running: Vec<_> = workers.iter().map(|own| (Identity::of(&own.pod()), own.is_static)).collect();
        let Changes { end, begin } = changes(&wanted, &running);
        for worker in workers.iter().filter(|own| end.contains(&own.uid) && !own.is_gone()) {
            let pod = config::pod_name(&worker.pod());
            info!(pod, "A static pod's manifest is gone or has changed, and the pod ends");
            worker.forget();
        }
        for object in begin.iter().filter_map(|path| self.known.get(path)) {
            match decode(object) {
                Ok(pod) => {
                    info!(namespace = object.namespace(), name = object.name(), "A static pod begins");
                    pods::begin_new(node, object, Arc::new(pod)).await;
                }
                Err(error) => warn!(name = object.name(), %error, "A static pod cannot be read"),
            }
        }
    }
}

/// Waits for ever where nothing is watched. A watch that has ended is given up, for another at the next look.
async fn changed(watch: &mut Option<(Utf8PathBuf, Watch)>) {
    let goes_on = match watch {
        Some((_, watch)) => watch.changed().await,
        None => std::future::pending().await,
    };
    if !goes_on {
        *watch = None;
    }
}

/// What lies at `path`: its files, if it is a folder, or itself. Names that begin with a dot are somebody's work in
/// progress.
fn read(path: &Utf8Path) -> io::Result<Files> {
    let mut files = Files::new();
    let is_folder = match path.metadata() {
        Ok(meta) => meta.is_dir(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(files),
        Err(error) => return Err(error),
    };
    if !is_folder {
        files.insert(path.to_owned(), read_file(path));
        return Ok(files);
    }
    for entry in path.read_dir_utf8()? {
        let entry = entry?;
        let path = entry.path();
        // Through links: what a ConfigMap is mounted as consists of them.
        if entry.file_name().starts_with('.') || path.is_dir() {
            continue;
        }
        match read_file(path) {
            // It went meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            content => drop(files.insert(path.to_owned(), content)),
        }
    }
    Ok(files)
}

fn read_file(path: &Utf8Path) -> io::Result<Vec<u8>> {
    if !path.metadata()?.is_file() {
        // Reading others may never end.
        return Err(io::Error::other("not a regular file"));
    }
    let mut content = Vec::new();
    std::fs::File::open(path)?.take(MANIFEST_BYTES_MAX + 1).read_to_end(&mut content)?;
    if content.len() as u64 > MANIFEST_BYTES_MAX {
        return Err(io::Error::other(format!("larger than {} MiB", MANIFEST_BYTES_MAX >> 20)));
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(uid: &str, name: &str) -> Identity {
        Identity { uid: uid.into(), name: ("default".into(), name.into()) }
    }

    #[test]
    fn one_pod_of_a_name_runs_at_a_time() {
        let (a1, a2, b) = (identity("1", "a"), identity("2", "a"), identity("3", "b"));
        for (wanted, running, end, begin) in [
            (vec![("x", &a1), ("y", &b)], vec![], "", "x y"),
            (vec![("x", &a1)], vec![(&a1, true)], "", ""),
            // It changed: first one ends, then the other begins.
            (vec![("x", &a2)], vec![(&a1, true)], "1", ""),
            (vec![("x", &a2)], vec![], "", "x"),
            (vec![], vec![(&a1, true), (&b, false)], "1", ""),
            // Somebody else's pod of that name is not ended for it.
            (vec![("x", &a1)], vec![(&a2, false)], "", ""),
            (vec![("x", &a1), ("y", &a2)], vec![], "", "x"),
        ] {
            let wanted = wanted.into_iter().map(|(path, own)| (path.into(), own.clone())).collect();
            let running: Vec<_> = running.into_iter().map(|(own, kind)| (own.clone(), kind)).collect();
            let Changes { end: ended, begin: begun } = changes(&wanted, &running);
            let begun: Vec<&str> = begun.iter().map(|path| path.as_str()).collect();
            assert_eq!(
                (ended.join(" ").as_str(), begun.join(" ").as_str()),
                (end, begin),
                "{wanted:?} {running:?}"
            );
        }
    }

    #[test]
    fn a_file_that_cannot_be_used_leaves_what_it_described_and_one_that_is_gone_does_not() {
        let manifest = |image: &str| {
            let text = format!(
                "apiVersion: v1\nkind: Pod\nmetadata: {{name: a}}\nspec: {{containers: [{{name: c, image: {image}}}]}}\n"
            );
            Ok(text.into_bytes())
        };
        let mut pods = StaticPods::new(None);
        let uids = |pods: &StaticPods| {
            pods.known.iter().map(|(path, own)| (path.to_string(), own.uid().to_owned())).collect::<Vec<_>>()
        };
        pods.take([("f".into(), manifest("one")), ("g".into(), Ok(b"{".to_vec()))].into(), "n1");
        let first = uids(&pods);
        assert_eq!(first.len(), 1);
        pods.take([("f".into(), Ok(b"kind: Pod".to_vec()))].into(), "n1");
        assert_eq!(uids(&pods), first);
        assert_eq!(pods.complaints.keys().map(|path| path.as_str()).collect::<Vec<_>>(), ["f"]);
        pods.take([("f".into(), manifest("two"))].into(), "n1");
        assert_ne!(uids(&pods), first);
        assert!(pods.complaints.is_empty());
        // A second file of one name is said to be idle, until it is alone.
        pods.take([("f".into(), manifest("two")), ("g".into(), manifest("three"))].into(), "n1");
        let complaints: Vec<_> =
            pods.complaints.iter().map(|(path, text)| format!("{path}: {text}")).collect();
        assert_eq!(complaints, ["g: f describes the pod default/a-n1 already"]);
        pods.take([("g".into(), manifest("three"))].into(), "n1");
        assert!(pods.complaints.is_empty());
        pods.take(BTreeMap::new(), "n1");
        assert!(pods.known.is_empty());
    }

    #[test]
    fn files_are_read_and_not_what_is_hidden_or_too_large() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = Utf8Path::from_path(folder.path()).expect("temporary paths are text");
        for name in ["a.yaml", ".b.yaml", "c"] {
            std::fs::write(root.join(name), name).expect("it is written");
        }
        std::fs::create_dir(root.join("d")).expect("it is made");
        std::fs::File::create(root.join("e"))
            .and_then(|file| file.set_len(MANIFEST_BYTES_MAX + 1))
            .expect("a hole");
        let read_all = |path: &Utf8Path| {
            let files = read(path).expect("it is read");
            let names = files.iter().map(|(path, content)| {
                format!("{}{}", path.file_name().unwrap_or_default(), if content.is_ok() { "" } else { "!" })
            });
            names.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(read_all(root), "a.yaml c e!");
        assert_eq!(read_all(&root.join("c")), "c");
        assert_eq!(read_all(&root.join("none")), "");
    }
}
