//! Which of the host's IDs the users of which pod are (`hostUsers: false`).
//!
//! Owns: the ranges, one for each such pod, in memory and on disk. Never touches: user namespaces, which are the
//! runtime's.
//!
//! As the kubelet has it by default, a range has 65,536 IDs, and the first one, which is the host's own users', is never
//! given. A range is written down before it is used, so that no restart gives it to another pod.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use camino::{Utf8Path, Utf8PathBuf};
use parking_lot::Mutex;
use runtime::Abilities;
use runtime::spec::UserMapping;
use serde::{Deserialize, Serialize};
use tracing::warn;

/// In the node's folder.
const FILE: &str = "user_namespaces.json";

/// IDs of a pod: as many as there are in sixteen bits, which is what images are made for.
const LENGTH: u32 = 1 << 16;
/// The last range whose every ID is one: the kernel takes the highest number for none.
const LAST: u32 = u32::MAX / LENGTH - 1;

/// The number of each pod's range, by uid. The host's own is 0.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Ledger {
    pods: BTreeMap<String, u32>,
}

impl Ledger {
    fn read(path: &Utf8Path) -> io::Result<Self> {
        let ledger: Self = match std::fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::default(),
            Err(error) => return Err(error),
        };
        let given: BTreeSet<u32> = ledger.pods.values().copied().collect();
        let is_sound = given.len() == ledger.pods.len() && given.iter().all(|own| (1..=LAST).contains(own));
        if is_sound {
            Ok(ledger)
        } else {
            Err(io::Error::other("a range is given twice, or is no pod's to have"))
        }
    }

    fn write(&self, path: &Utf8Path) -> io::Result<()> {
        let next = path.with_extension("next");
        std::fs::write(&next, serde_json::to_vec(self)?)?;
        std::fs::File::open(&next)?.sync_all()?;
        std::fs::rename(next, path)
    }

    /// The lowest number that is nobody's.
    fn free(&self) -> Option<u32> {
        let given: BTreeSet<u32> = self.pods.values().copied().collect();
        (1..=LAST).find(|number| !given.contains(number))
    }
}

fn mapping(number: u32) -> UserMapping {
    UserMapping { container: 0, host: number * LENGTH, length: LENGTH }
}

/// The ranges of a node's pods.
pub struct UserNamespaces {
    path: Utf8PathBuf,
    /// Why not, where it cannot be read: nobody knows which ranges are free then. Held while it is written.
    ledger: Mutex<Result<Ledger, String>>,
}

impl UserNamespaces {
    /// Those that were given before, of the node with this folder.
    pub fn open(root: &Utf8Path) -> Self {
        let path = root.join(FILE);
        let ledger = Ledger::read(&path).map_err(|error| {
            warn!(%path, %error, "Which users belong to which pod is not known, and pods with their own are refused");
            format!("{path} cannot be read: {error}")
        });
        Self { path, ledger: Mutex::new(ledger) }
    }

    /// The pod's range: the one that it has, or a free one.
    ///
    /// # Errors
    /// Where there is none left, or it cannot be written down.
    pub fn range(&self, uid: &str) -> Result<UserMapping, String> {
        let mut ledger = self.ledger.lock();
        let known = ledger.as_mut().map_err(|error| error.clone())?;
        if let Some(number) = known.pods.get(uid) {
            return Ok(mapping(*number));
        }
        let number = known.free().ok_or("no range of user IDs is left for the pod")?;
        let mut next = known.clone();
        next.pods.insert(uid.to_owned(), number);
        next.write(&self.path).map_err(|error| format!("{} cannot be written: {error}", self.path))?;
        *known = next;
        Ok(mapping(number))
    }

    /// The pod is gone, and with it every file of its containers.
    pub fn release(&self, uid: &str) {
        self.retain(|own| own != uid);
    }

    /// Only these pods are there.
    pub fn retain(&self, is_there: impl Fn(&str) -> bool) {
        let mut ledger = self.ledger.lock();
        let Ok(known) = ledger.as_mut() else { return };
        let mut next = known.clone();
        next.pods.retain(|uid, _| is_there(uid));
        if next == *known {
            return;
        }
        match next.write(&self.path) {
            Ok(()) => *known = next,
            // They are let go of once more when the node starts.
            Err(error) => warn!(path = %self.path, %error, "User IDs of pods that are gone stay taken"),
        }
    }
}

/// Whether a handler of the runtime, by its name, lets pods have users of their own.
///
/// # Errors
/// Upstream's words for why not.
pub fn check(abilities: &Abilities, handler: &str) -> Result<(), String> {
    if abilities.handlers.is_empty() {
        return Err("runtime does not support user namespaces (hostUsers: false)".to_owned());
    }
    match abilities.handlers.iter().find(|own| own.name == handler) {
        None => Err(format!("the handler {handler:?} is not known")),
        Some(own) if own.user_namespaces => Ok(()),
        Some(_) => Err(format!("RuntimeClass handler {handler:?} does not support user namespaces")),
    }
}

#[cfg(test)]
mod tests {
    use runtime::Handler;

    use super::*;

    fn folder() -> (tempfile::TempDir, Utf8PathBuf) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = Utf8Path::from_path(folder.path()).expect("it is text").to_owned();
        (folder, path)
    }

    #[test]
    fn each_pod_has_a_range_of_its_own_and_keeps_it_until_it_is_gone() {
        let (_folder, root) = folder();
        let ranges = UserNamespaces::open(&root);
        let of = |ranges: &UserNamespaces, uid: &str| ranges.range(uid).expect("one is free").host;
        let first = ranges.range("a").expect("one is free");
        assert_eq!(first, UserMapping { container: 0, host: 65_536, length: 65_536 }, "not the host's own");
        assert_eq!((of(&ranges, "b"), of(&ranges, "a"), of(&ranges, "c")), (131_072, 65_536, 196_608));

        let again = UserNamespaces::open(&root);
        assert_eq!((of(&again, "d"), of(&again, "b")), (262_144, 131_072), "a restart gives none twice");
        again.release("b");
        again.release("absent");
        assert_eq!((of(&again, "e"), of(&again, "f")), (131_072, 327_680), "what is free is given again");
        again.retain(|uid| uid == "f");
        assert_eq!(of(&UserNamespaces::open(&root), "g"), 65_536);
    }

    #[test]
    fn the_last_range_ends_below_the_number_that_means_nobody() {
        let last = mapping(LAST);
        assert!(last.host.checked_add(last.length - 1).is_some_and(|end| end < u32::MAX));
        let pods = (1..=LAST).map(|number| (number.to_string(), number)).collect();
        let mut full = Ledger { pods };
        assert_eq!(full.free(), None);
        full.pods.remove("77");
        assert_eq!(full.free(), Some(77));
    }

    #[test]
    fn nothing_is_given_while_nobody_knows_what_is_free() {
        for text in ["{", r#"{"pods":{"a":1,"b":1}}"#, r#"{"pods":{"a":0}}"#, r#"{"pods":{"a":65535}}"#] {
            let (_folder, root) = folder();
            std::fs::write(root.join(FILE), text).expect("written");
            let ranges = UserNamespaces::open(&root);
            ranges.release("a");
            let error = ranges.range("c").expect_err("it is broken");
            assert!(error.contains(FILE), "{error}");
            assert_eq!(std::fs::read_to_string(root.join(FILE)).expect("it is there"), text);
        }
        let ranges = UserNamespaces::open("/nowhere/at/all".into());
        assert!(ranges.range("a").is_err(), "what cannot be written down is not given");
    }

    #[test]
    fn a_runtime_says_whether_it_can() {
        let handler = |name: &str, user_namespaces| Handler {
            name: name.to_owned(),
            recursive_read_only_mounts: true,
            user_namespaces,
        };
        let silent = Abilities::default();
        let some = Abilities { handlers: vec![handler("", true), handler("vm", false)], ..silent.clone() };
        for (abilities, name, want) in [
            (&some, "", Ok(())),
            (&some, "vm", Err("RuntimeClass handler \"vm\" does not support user namespaces")),
            (&some, "other", Err("the handler \"other\" is not known")),
            (&silent, "", Err("runtime does not support user namespaces (hostUsers: false)")),
        ] {
            assert_eq!(
                check(abilities, name).as_ref().map_err(String::as_str),
                want.as_ref().map_err(|own| *own)
            );
        }
    }
}
