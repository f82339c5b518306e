//! Which devices there are and whose they are: decisions only, and what of them is kept on disk.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use camino::Utf8Path;
use serde::{Deserialize, Serialize};

use super::messages::Allocated;

/// What a container has of one resource.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Grant {
    pub devices: Vec<String>,
    pub allocated: Allocated,
    /// An init container's, which later containers of the pod take over.
    pub passes_on: bool,
}

/// By pod's uid, container and resource.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ledger {
    pods: BTreeMap<String, BTreeMap<String, BTreeMap<String, Grant>>>,
}

impl Ledger {
    /// # Errors
    /// Where there is one and it cannot be read.
    pub fn read(path: &Utf8Path) -> io::Result<Self> {
        match std::fs::read(path) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    /// # Errors
    /// What the file system says; the old one is then still whole.
    pub fn write(&self, path: &Utf8Path) -> io::Result<()> {
        let next = path.with_extension("next");
        std::fs::write(&next, serde_json::to_vec(self)?)?;
        std::fs::File::open(&next)?.sync_all()?;
        std::fs::rename(next, path)
    }

    pub fn of_container(&self, uid: &str, container: &str) -> BTreeMap<String, Grant> {
        self.pods.get(uid).and_then(|own| own.get(container)).cloned().unwrap_or_default()
    }

    pub fn grant(&mut self, uid: &str, container: &str, resource: &str, grant: Grant) {
        let of_pod = self.pods.entry(uid.to_owned()).or_default();
        of_pod.entry(container.to_owned()).or_default().insert(resource.to_owned(), grant);
    }

    /// Returns whether the pod had any.
    pub fn release(&mut self, uid: &str) -> bool {
        self.pods.remove(uid).is_some()
    }

    fn grants<'a>(&'a self, resource: &'a str) -> impl Iterator<Item = (&'a str, &'a Grant)> {
        self.pods.iter().flat_map(move |(uid, containers)| {
            containers.values().filter_map(move |own| Some((uid.as_str(), own.get(resource)?)))
        })
    }

    /// Which devices a container of the pod may have: those that its init containers leave to it, and then free ones.
    pub fn candidates<'a>(
        &self,
        uid: &str,
        resource: &str,
        healthy: impl Iterator<Item = &'a String>,
    ) -> (Vec<String>, Vec<String>) {
        let (mut left, mut taken) = (BTreeSet::new(), BTreeSet::new());
        for (owner, grant) in self.grants(resource) {
            let set = if owner == uid && grant.passes_on { &mut left } else { &mut taken };
            set.extend(grant.devices.iter().cloned());
        }
        let free = healthy.filter(|id| !taken.contains(*id));
        free.cloned().partition(|id| left.contains(id))
    }
}

/// # Errors
/// Upstream's words for too few.
pub fn choose(
    resource: &str,
    (left, free): (Vec<String>, Vec<String>),
    wanted: usize,
    preferred: &[String],
) -> Result<Vec<String>, String> {
    let available = left.len() + free.len();
    if available < wanted {
        return Err(format!(
            "requested number of devices unavailable for {resource}. Requested: {wanted}, Available: {available}"
        ));
    }
    let (liked, rest): (Vec<_>, Vec<_>) = free.into_iter().partition(|id| preferred.contains(id));
    Ok(left.into_iter().chain(liked).chain(rest).take(wanted).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(list: &[&str]) -> Vec<String> {
        list.iter().map(|own| (*own).to_owned()).collect()
    }

    #[test]
    fn devices_go_to_one_container_and_from_init_containers_to_later_ones() {
        let mut ledger = Ledger::default();
        let grant = |ids: &[&str], passes_on| Grant { devices: texts(ids), passes_on, ..Grant::default() };
        ledger.grant("a", "init", "x/r", grant(&["2"], true));
        ledger.grant("a", "side", "x/r", grant(&["3"], false));
        ledger.grant("b", "init", "x/r", grant(&["4"], true));
        ledger.grant("b", "c", "x/other", grant(&["1"], false));
        let all = texts(&["1", "2", "3", "4", "5"]);
        assert_eq!(ledger.candidates("a", "x/r", all.iter()), (texts(&["2"]), texts(&["1", "5"])));
        assert_eq!(ledger.candidates("c", "x/r", all.iter()), (texts(&[]), texts(&["1", "5"])));
        assert!(ledger.release("b") && !ledger.release("b"));
        assert_eq!(ledger.candidates("c", "x/r", all.iter()), (texts(&[]), texts(&["1", "4", "5"])));
    }

    #[test]
    fn what_is_left_over_comes_first_and_then_what_the_plugin_likes() {
        let of = |left: &[&str], free: &[&str], wanted, preferred: &[&str]| {
            choose("x/r", (texts(left), texts(free)), wanted, &texts(preferred))
        };
        assert_eq!(of(&["2"], &["1", "5"], 2, &["5"]), Ok(texts(&["2", "5"])));
        assert_eq!(of(&[], &["1", "5"], 1, &["9"]), Ok(texts(&["1"])));
        assert_eq!(
            of(&[], &["1"], 2, &[]),
            Err("requested number of devices unavailable for x/r. Requested: 2, Available: 1".to_owned())
        );
    }

    #[test]
    fn a_ledger_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = Utf8Path::from_path(folder.path()).expect("it is text").join("ledger");
        assert_eq!(Ledger::read(&path).expect("none is an empty one"), Ledger::default());
        let mut ledger = Ledger::default();
        ledger.grant("a", "c", "x/r", Grant { devices: texts(&["1"]), ..Grant::default() });
        ledger.write(&path).expect("written");
        assert_eq!(Ledger::read(&path).expect("read"), ledger);
        std::fs::write(&path, "{").expect("written");
        Ledger::read(&path).expect_err("it is broken");
    }
}
