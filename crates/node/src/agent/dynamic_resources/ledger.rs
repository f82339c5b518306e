//! Which claims are prepared, for which pods, and what their containers get: decisions only, and what of them is kept on
//! disk.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use camino::Utf8Path;
use serde::{Deserialize, Serialize};

/// A device of a claim, as its driver prepared it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// None for all requests of the claim.
    pub requests: Vec<String>,
    pub pool: String,
    pub device: String,
    pub cdi: Vec<String>,
}

/// A claim that a driver was asked, or is about to be asked, to prepare.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub uid: String,
    pub pods: BTreeSet<String>,
    pub drivers: BTreeMap<String, Vec<Device>>,
    /// Not kept: after a restart drivers are asked again, who may have lost what they did.
    #[serde(skip)]
    pub is_prepared: bool,
}

/// Namespace and name.
pub type Key = (String, String);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    claims: BTreeMap<Key, Entry>,
}

impl Ledger {
    /// # Errors
    /// Where there is one and it cannot be read.
    pub fn read(path: &Utf8Path) -> io::Result<Self> {
        match std::fs::read(path) {
            Ok(bytes) => {
                let claims: Vec<(Key, Entry)> = serde_json::from_slice(&bytes)?;
                Ok(Self { claims: claims.into_iter().collect() })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    /// # Errors
    /// What the file system says; the old one is then still whole.
    pub fn write(&self, path: &Utf8Path) -> io::Result<()> {
        let next = path.with_extension("next");
        let claims: Vec<(&Key, &Entry)> = self.claims.iter().collect();
        std::fs::write(&next, serde_json::to_vec(&claims)?)?;
        std::fs::File::open(&next)?.sync_all()?;
        std::fs::rename(next, path)
    }

    /// A pod is going to use a claim of these drivers. Returns whether it is prepared.
    ///
    /// # Errors
    /// Where another claim of the name was not given back yet.
    pub fn reserve(
        &mut self,
        key: &Key,
        uid: &str,
        drivers: &BTreeSet<String>,
        pod: &str,
    ) -> Result<bool, String> {
        let made = || Entry {
            uid: uid.to_owned(),
            drivers: drivers.iter().map(|own| (own.clone(), Vec::new())).collect(),
            ..Entry::default()
        };
        let entry = self.claims.entry(key.clone()).or_insert_with(made);
        if entry.uid != uid {
            return Err(format!(
                "old ResourceClaim with same name {} and different UID {} still exists (previous pod force-deleted?!)",
                key.1, entry.uid
            ));
        }
        entry.pods.insert(pod.to_owned());
        Ok(entry.is_prepared)
    }

    pub fn set_devices(&mut self, uid: &str, driver: &str, devices: Vec<Device>) {
        if let Some(entry) = self.claims.values_mut().find(|own| own.uid == uid) {
            entry.drivers.insert(driver.to_owned(), devices);
        }
    }

    pub fn set_prepared(&mut self, uid: &str) {
        if let Some(entry) = self.claims.values_mut().find(|own| own.uid == uid) {
            entry.is_prepared = true;
        }
    }

    /// CDI's names of what a container gets of a claim: of one request, or of all where it names none.
    pub fn names(&self, key: &Key, request: &str) -> Option<Vec<String>> {
        let devices = self.claims.get(key)?.drivers.values().flatten();
        let is_meant = |own: &&Device| {
            request.is_empty() || own.requests.is_empty() || own.requests.iter().any(|known| known == request)
        };
        Some(devices.filter(is_meant).flat_map(|own| own.cdi.clone()).collect())
    }

    /// The claims that nobody but this pod has; it no longer has the others.
    pub fn release(&mut self, pod: &str) -> Vec<(Key, Entry)> {
        let mut last = Vec::new();
        for (key, entry) in &mut self.claims {
            if !entry.pods.contains(pod) {
                continue;
            }
            if entry.pods.len() > 1 {
                entry.pods.remove(pod);
            } else {
                last.push((key.clone(), entry.clone()));
                // Who takes it from now on has it prepared once more.
                entry.is_prepared = false;
            }
        }
        last
    }

    /// A claim was given back, unless somebody took it again meanwhile.
    pub fn remove(&mut self, key: &Key, pod: &str) {
        if let Some(entry) = self.claims.get_mut(key) {
            entry.pods.remove(pod);
            entry.is_prepared = false;
            if entry.pods.is_empty() {
                self.claims.remove(key);
            }
        }
    }

    /// Whether the pod has any.
    pub fn has(&self, pod: &str) -> bool {
        self.claims.values().any(|own| own.pods.contains(pod))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        ("ns".to_owned(), name.to_owned())
    }

    fn device(requests: &[&str], cdi: &str) -> Device {
        let requests = requests.iter().map(|own| (*own).to_owned()).collect();
        Device { requests, cdi: vec![cdi.to_owned()], ..Device::default() }
    }

    #[test]
    fn a_claim_is_given_back_by_the_last_pod_that_has_it() {
        let (mut ledger, drivers) = (Ledger::default(), BTreeSet::from(["d".to_owned()]));
        assert_eq!(ledger.reserve(&key("c"), "u", &drivers, "one"), Ok(false));
        ledger.set_prepared("u");
        assert_eq!(ledger.reserve(&key("c"), "u", &drivers, "two"), Ok(true));
        ledger.reserve(&key("c"), "other", &drivers, "three").expect_err("it is another claim");
        assert!(ledger.release("one").is_empty() && !ledger.has("one") && ledger.has("two"));
        let last = ledger.release("two");
        assert_eq!(last.iter().map(|(key, _)| key.1.as_str()).collect::<Vec<_>>(), ["c"]);
        assert!(ledger.has("two"), "until its driver has it back");
        ledger.remove(&key("c"), "two");
        assert_eq!(ledger, Ledger::default());
    }

    #[test]
    fn a_container_gets_what_its_requests_name() {
        let (mut ledger, drivers) = (Ledger::default(), BTreeSet::from(["d".to_owned()]));
        ledger.reserve(&key("c"), "u", &drivers, "one").expect("it is free");
        ledger.set_devices("u", "d", vec![device(&["a"], "x=1"), device(&["b"], "x=2"), device(&[], "x=3")]);
        for (request, wanted) in [("", ["x=1", "x=2", "x=3"].as_slice()), ("b", &["x=2", "x=3"])] {
            assert_eq!(ledger.names(&key("c"), request).expect("it is there"), wanted);
        }
        assert_eq!(ledger.names(&key("none"), ""), None);
    }

    #[test]
    fn what_is_read_is_what_was_written_but_has_to_be_prepared_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = Utf8Path::from_path(folder.path()).expect("it is text").join("ledger");
        let (mut ledger, drivers) = (Ledger::read(&path).expect("none is an empty one"), BTreeSet::new());
        ledger.reserve(&key("c"), "u", &drivers, "one").expect("it is free");
        ledger.write(&path).expect("written");
        assert_eq!(Ledger::read(&path).expect("read"), ledger);
        ledger.set_prepared("u");
        assert_ne!(Ledger::read(&path).expect("read"), ledger);
        std::fs::write(&path, "{").expect("written");
        Ledger::read(&path).expect_err("it is broken");
    }
}
