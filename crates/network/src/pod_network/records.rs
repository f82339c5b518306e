//! [`Records`]: what each sandbox was given, on disk.
//!
//! A file per sandbox, written before anything is made for it and removed after all of it is gone, so that whatever a
//! crash leaves behind is known. A file appears whole or not at all. It is flushed only where what it tells of outlives
//! the kernel ([`Records::durable`]); otherwise the file may end with it, too.

use std::io::{ErrorKind, Write};
use std::marker::PhantomData;
use std::net::IpAddr;
use std::time::SystemTime;

use camino::{Utf8Path, Utf8PathBuf};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Error, HostPort, Result};

const SUFFIX: &str = ".json";
/// Of a file that is being written.
const TEMPORARY: &str = ".tmp";

/// What a sandbox was given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Record {
    /// The primary one first.
    pub addresses: Vec<IpAddr>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_ports: Vec<HostPort>,
}

/// A folder of records. Its functions block for as long as small files take.
#[derive(Debug)]
pub(crate) struct Records<T> {
    folder: Utf8PathBuf,
    is_durable: bool,
    kind: PhantomData<fn() -> T>,
}

impl<T> Clone for Records<T> {
    fn clone(&self) -> Self {
        Self { folder: self.folder.clone(), is_durable: self.is_durable, kind: PhantomData }
    }
}

impl<T: Serialize + DeserializeOwned> Records<T> {
    /// Opens the folder, and makes it.
    pub fn open(folder: &Utf8Path) -> Result<Self> {
        std::fs::create_dir_all(folder).map_err(|error| Error::system(format!("making {folder}"), error))?;
        Ok(Self { folder: folder.to_owned(), is_durable: false, kind: PhantomData })
    }

    /// As [`Records::open`], for what has to be known after the machine was started anew.
    pub fn durable(folder: &Utf8Path) -> Result<Self> {
        Ok(Self { is_durable: true, ..Self::open(folder)? })
    }

    /// All sandboxes', the oldest first. What cannot be read tells of nothing that still is, and is removed.
    pub fn load(&self) -> Result<Vec<(String, T)>> {
        let reading = |error| Error::system(format!("reading {}", self.folder), error);
        let mut found: Vec<(SystemTime, String, T)> = Vec::new();
        for entry in self.folder.read_dir_utf8().map_err(reading)? {
            let entry = entry.map_err(reading)?;
            let record =
                std::fs::read(entry.path()).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
            match (entry.file_name().strip_suffix(SUFFIX), record) {
                (Some(sandbox), Some(record)) => {
                    let written =
                        entry.metadata().and_then(|meta| meta.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
                    found.push((written, sandbox.to_owned(), record));
                }
                _ => {
                    tracing::warn!(file = %entry.path(), "Removing a record of a pod's network that cannot be read");
                    // If that fails, it is looked at again at the next start.
                    let _ = std::fs::remove_file(entry.path());
                }
            }
        }
        found.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
        Ok(found.into_iter().map(|(_, sandbox, record)| (sandbox, record)).collect())
    }

    pub fn write(&self, sandbox: &str, record: &T) -> Result<()> {
        let path = self.path(sandbox)?;
        let temporary = path.with_extension(&TEMPORARY[1..]);
        let bytes = serde_json::to_vec(record).expect("the keys of a record are text");
        std::fs::File::create(&temporary)
            .and_then(|mut file| {
                file.write_all(&bytes)?;
                if self.is_durable { file.sync_all() } else { Ok(()) }
            })
            .and_then(|()| std::fs::rename(&temporary, &path))
            .map_err(|error| Error::system(format!("writing {path}"), error))
    }

    pub fn remove(&self, sandbox: &str) -> Result<()> {
        let path = self.path(sandbox)?;
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(Error::system(format!("removing {path}"), error))
            }
            _ => Ok(()),
        }
    }

    fn path(&self, sandbox: &str) -> Result<Utf8PathBuf> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if sandbox.is_empty() || !sandbox.bytes().all(plain) {
            return Err(Error::Refused(format!(
                "sandbox ID {sandbox:?} has other than letters, digits, - and _"
            )));
        }
        Ok(self.folder.join(format!("{sandbox}{SUFFIX}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_again_and_rubbish_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(folder.path()).unwrap().join("network");
        let records = Records::open(&path).unwrap();
        let record = Record { addresses: vec!["10.0.0.5".parse().unwrap()], ..Record::default() };
        records.write("a1", &record).unwrap();
        records.write("b2", &Record::default()).unwrap();
        records.remove("b2").unwrap();
        records.remove("b2").unwrap();
        std::fs::write(path.join("c3.json"), "").unwrap();
        std::fs::write(path.join("d4.tmp"), "{").unwrap();

        assert_eq!(Records::open(&path).unwrap().load().unwrap(), [("a1".to_owned(), record)]);
        assert!(!path.join("c3.json").exists() && !path.join("d4.tmp").exists());
    }

    #[test]
    fn a_name_that_leaves_the_folder_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let records = Records::<Record>::open(Utf8Path::from_path(folder.path()).unwrap()).unwrap();
        for name in ["", "..", "../a", "a/b", "a.b"] {
            assert!(records.write(name, &Record::default()).is_err(), "{name:?}");
        }
    }
}
