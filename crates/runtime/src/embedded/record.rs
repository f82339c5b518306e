//! What is remembered of sandboxes and containers across restarts: a file of JSON each.
//!
//! Losing one to a crash in the middle of a write is no harm: the file is replaced, and what has no file is cleaned up.

use std::io;

use camino::{Utf8Path, Utf8PathBuf};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::shim::protocol;
use crate::spec::{
    ContainerConfig, ContainerState, ContainerStatus, RunningUser, SandboxConfig, SandboxState, SandboxStatus,
};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct SandboxRecord {
    pub id: String,
    pub config: SandboxConfig,
    pub state: SandboxState,
    pub created_at: Timestamp,
    pub addresses: Vec<std::net::IpAddr>,
    /// The first process of the process namespace that its containers share.
    pub holder: Option<u32>,
}

impl SandboxRecord {
    pub(super) fn status(&self) -> SandboxStatus {
        SandboxStatus {
            id: self.id.clone(),
            name: self.config.name.clone(),
            namespace: self.config.namespace.clone(),
            uid: self.config.uid.clone(),
            attempt: self.config.attempt,
            state: self.state,
            created_at: self.created_at,
            addresses: self.addresses.clone(),
            host_network: self.config.namespaces.host_network,
            labels: self.config.labels.clone(),
            annotations: self.config.annotations.clone(),
        }
    }

    /// The group of this sandbox itself, if it has a process.
    pub(super) fn cgroup(&self) -> String {
        format!("{}/{}", self.config.cgroup_parent.trim_end_matches('/'), self.id)
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct ContainerRecord {
    pub id: String,
    pub sandbox_id: String,
    pub config: ContainerConfig,
    /// The image by name and by digest; empty in records of former versions.
    #[serde(default)]
    pub image_name: String,
    #[serde(default)]
    pub image_digest: String,
    pub state: ContainerState,
    pub created_at: Timestamp,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    pub exit_code: i32,
    pub reason: String,
    pub message: String,
    pub log: Utf8PathBuf,
    pub pid: u32,
    pub user: RunningUser,
    pub stop_signal: String,
    pub cgroup: String,
    pub shares_pids: bool,
}

impl ContainerRecord {
    pub(super) fn status(&self) -> ContainerStatus {
        ContainerStatus {
            id: self.id.clone(),
            sandbox_id: self.sandbox_id.clone(),
            name: self.config.name.clone(),
            attempt: self.config.attempt,
            state: self.state,
            created_at: self.created_at,
            started_at: self.started_at,
            finished_at: self.finished_at,
            exit_code: self.exit_code,
            reason: self.reason.clone(),
            message: self.message.clone(),
            image: self.config.image.clone(),
            image_reference: or(&self.image_name, &self.config.image_reference).to_owned(),
            image_digest: or(&self.image_digest, &self.config.image).to_owned(),
            labels: self.config.labels.clone(),
            annotations: self.config.annotations.clone(),
            log_path: self.log.clone(),
            mounts: self.config.mounts.clone(),
            pid: self.pid,
            user: Some(self.user.clone()),
        }
    }

    /// It ended, in one of the ways that a status tells apart.
    pub(super) fn finish(&mut self, exit: Option<protocol::Exit>, now: Timestamp) {
        let exit_code = exit.map_or(137, |exit| exit.code);
        self.state = ContainerState::Exited;
        self.pid = 0;
        self.exit_code = exit_code;
        self.finished_at = Some(exit.map_or(now, |exit| exit.at));
        let (reason, message) = match exit {
            None => (
                "ContainerStatusUnknown",
                "The container's end was not seen: the process that attended it was killed",
            ),
            Some(exit) if exit.out_of_memory => ("OOMKilled", ""),
            Some(_) if exit_code == 0 => ("Completed", ""),
            Some(_) => ("Error", ""),
        };
        reason.clone_into(&mut self.reason);
        message.clone_into(&mut self.message);
    }
}

fn or<'a>(text: &'a str, fallback: &'a str) -> &'a str {
    if text.is_empty() { fallback } else { text }
}

/// The folder of one kind of record.
#[derive(Clone, Debug)]
pub(super) struct Records(Utf8PathBuf);

impl Records {
    pub(super) fn open(dir: Utf8PathBuf) -> io::Result<Self> {
        std::fs::create_dir_all(&dir)?;
        Ok(Self(dir))
    }

    fn path(&self, id: &str) -> Utf8PathBuf {
        self.0.join(format!("{id}.json"))
    }

    pub(super) fn save(&self, id: &str, record: &impl Serialize) -> io::Result<()> {
        let path = self.path(id);
        protocol::save(&path, record)
            .map_err(|error| io::Error::new(error.kind(), format!("cannot write {path}: {error}")))
    }

    pub(super) fn remove(&self, id: &str) -> io::Result<()> {
        match std::fs::remove_file(self.path(id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// All that can be read; what cannot is logged and deleted, and so forgotten.
    pub(super) fn load<T: DeserializeOwned>(&self) -> io::Result<Vec<T>> {
        let mut records = Vec::new();
        for entry in std::fs::read_dir(&self.0)? {
            let path = Utf8PathBuf::try_from(entry?.path()).map_err(io::Error::other)?;
            match read(&path) {
                Ok(record) => records.push(record),
                Err(error) => {
                    if path.extension() == Some("json") {
                        tracing::warn!(%path, %error, "A record cannot be read and is forgotten");
                    }
                    std::fs::remove_file(&path)?;
                }
            }
        }
        Ok(records)
    }
}

fn read<T: DeserializeOwned>(path: &Utf8Path) -> io::Result<T> {
    if path.extension() != Some("json") {
        return Err(io::Error::other("not a record"));
    }
    protocol::load(path)?.ok_or_else(|| io::ErrorKind::NotFound.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_was_cut_off_is_forgotten_and_the_others_stay() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::open(Utf8PathBuf::try_from(dir.path().to_owned()).unwrap()).unwrap();
        records.save("whole", &7).unwrap();
        std::fs::write(dir.path().join("cut.json"), "").unwrap();
        std::fs::write(dir.path().join("other.json.new"), "1").unwrap();
        assert_eq!(records.load::<u32>().unwrap(), [7]);
        let left: Vec<_> =
            std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["whole.json"]);
        records.remove("whole").unwrap();
        records.remove("whole").unwrap();
    }

    #[test]
    fn ends_are_told_apart() {
        let at = Timestamp::UNIX_EPOCH;
        let exit = |code, out_of_memory| Some(protocol::Exit { code, at, out_of_memory });
        for (exit, code, reason) in [
            (exit(0, false), 0, "Completed"),
            (exit(3, false), 3, "Error"),
            (exit(137, true), 137, "OOMKilled"),
            (None, 137, "ContainerStatusUnknown"),
        ] {
            let mut record = ContainerRecord {
                id: String::new(),
                sandbox_id: String::new(),
                config: ContainerConfig::default(),
                image_name: String::new(),
                image_digest: String::new(),
                state: ContainerState::Running,
                created_at: at,
                started_at: None,
                finished_at: None,
                exit_code: 0,
                reason: String::new(),
                message: String::new(),
                log: Utf8PathBuf::new(),
                pid: 5,
                user: RunningUser::default(),
                stop_signal: String::new(),
                cgroup: String::new(),
                shares_pids: false,
            };
            record.finish(exit, at);
            assert_eq!((record.exit_code, record.reason.as_str(), record.pid), (code, reason, 0));
        }
    }
}
