//! Device files of a container, and which devices it may use.

use std::os::unix::fs::{FileTypeExt, MetadataExt};

use rustix::fs::{major, minor};
use serde_json::{Value, json};

use crate::spec::ContainerConfig;
use crate::{Error, Result};

/// What the kernel is told first: nothing, but making device files, which is harmless alone.
fn denied() -> Vec<Value> {
    vec![
        json!({"allow": false, "access": "rwm"}),
        json!({"allow": true, "type": "c", "access": "m"}),
        json!({"allow": true, "type": "b", "access": "m"}),
    ]
}

/// Character devices that every container has: major and minor numbers; `None` is any.
const COMMON: [(u32, Option<u32>); 10] = [
    (1, Some(3)),
    (1, Some(5)),
    (1, Some(7)),
    (1, Some(8)),
    (1, Some(9)),
    (5, Some(0)),
    (5, Some(1)),
    (5, Some(2)),
    (136, None),
    (10, Some(200)),
];

/// What libcontainer gives to every container, and opens to do so.
const ALWAYS: [&str; 6] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/tty", "/dev/urandom", "/dev/random"];

#[derive(Debug, PartialEq)]
pub(super) struct Devices {
    /// `linux.devices`.
    pub files: Vec<Value>,
    /// Where each of them is on the host, in their order.
    pub hosts: Vec<String>,
    /// `linux.resources.devices`.
    pub rules: Vec<Value>,
}

impl Devices {
    /// The files as mounts of the host's, in place of new ones.
    pub(super) fn binds(&self) -> impl Iterator<Item = Value> {
        let path = |file: &Value| file["path"].as_str().unwrap_or_default().to_owned();
        let all = self.files.iter().map(path).zip(&self.hosts);
        all.filter(|(path, host)| path != *host || !ALWAYS.contains(&path.as_str()))
            .map(|(path, host)| bind(host, &path))
    }
}

/// A device of the host as a mount.
pub(in crate::embedded) fn bind(host: &str, container: &str) -> Value {
    json!({"source": host, "destination": container, "type": "bind", "options": ["bind", "nosuid", "noexec"]})
}

pub(super) fn decide(config: &ContainerConfig) -> Result<Devices> {
    if config.security.privileged {
        let files = every_device();
        let path = |file: &Value| file["path"].as_str().unwrap_or_default().to_owned();
        let hosts = files.iter().map(path).collect();
        return Ok(Devices { files, hosts, rules: vec![json!({"allow": true, "access": "rwm"})] });
    }
    let mut devices = Devices { files: Vec::new(), hosts: Vec::new(), rules: denied() };
    for (major, minor) in COMMON {
        let mut rule = json!({"allow": true, "type": "c", "major": major, "access": "rwm"});
        if let Some(minor) = minor {
            rule["minor"] = json!(minor);
        }
        devices.rules.push(rule);
    }
    for device in &config.devices {
        let metadata = std::fs::metadata(&device.host).map_err(|error| Error::Refused {
            reason: "CreateContainerError",
            message: format!(
                "error gathering device information while adding custom device \"{}\": {error}",
                device.host
            ),
        })?;
        let found = entries(device.host.as_str(), device.container.as_str(), &metadata)?;
        for (host, file) in found {
            devices.hosts.push(host);
            devices.rules.push(json!({
                "allow": true, "type": file["type"], "major": file["major"], "minor": file["minor"],
                "access": device.permissions,
            }));
            devices.files.push(file);
        }
    }
    Ok(devices)
}

/// The device itself, or all devices in a folder, as containerd has it.
fn entries(host: &str, container: &str, metadata: &std::fs::Metadata) -> Result<Vec<(String, Value)>> {
    if let Some(file) = device(container, metadata) {
        return Ok(vec![(host.to_owned(), file)]);
    }
    if !metadata.is_dir() {
        return Err(Error::Refused {
            reason: "CreateContainerError",
            message: format!(
                "error gathering device information while adding custom device \"{host}\": not a device node"
            ),
        });
    }
    let Ok(children) = std::fs::read_dir(host) else { return Ok(Vec::new()) };
    Ok(children
        .flatten()
        .filter_map(|child| {
            let name = child.file_name().into_string().ok()?;
            let file = device(&format!("{container}/{name}"), &child.metadata().ok()?)?;
            Some((format!("{host}/{name}"), file))
        })
        .collect())
}

fn device(path: &str, metadata: &std::fs::Metadata) -> Option<Value> {
    let kind = metadata.file_type();
    let letter = if kind.is_char_device() {
        "c"
    } else if kind.is_block_device() {
        "b"
    } else {
        return None;
    };
    Some(json!({
        "path": path,
        "type": letter,
        "major": major(metadata.rdev()),
        "minor": minor(metadata.rdev()),
        "fileMode": metadata.mode() & 0o777,
        "uid": metadata.uid(),
        "gid": metadata.gid(),
    }))
}

/// Every device of the host, but terminals and what a container has of its own.
fn every_device() -> Vec<Value> {
    const OWN: [&str; 9] = [
        "/dev/pts",
        "/dev/shm",
        "/dev/fd",
        "/dev/mqueue",
        "/dev/console",
        "/dev/ptmx",
        "/dev/.lxc",
        "/dev/.lxd-mounts",
        "/dev/.udev",
    ];
    let mut found = Vec::new();
    let mut folders = vec![std::path::PathBuf::from("/dev")];
    while let Some(folder) = folders.pop() {
        let Ok(children) = std::fs::read_dir(&folder) else { continue };
        for child in children.flatten() {
            let path = child.path();
            let Some(text) = path.to_str().filter(|text| !OWN.contains(text)) else { continue };
            // Not through links, which would name a device twice.
            match path.symlink_metadata() {
                Ok(metadata) if metadata.is_dir() => folders.push(path.clone()),
                Ok(metadata) => found.extend(device(text, &metadata)),
                Err(_) => {}
            }
        }
    }
    found.sort_by_key(|file| file["path"].to_string());
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Device, Security};

    #[test]
    fn a_devices_numbers_are_read_from_the_host_and_what_is_none_is_refused() {
        let with = |host: &str| ContainerConfig {
            devices: vec![Device {
                host: host.into(),
                container: "/dev/nothing".into(),
                permissions: "rw".into(),
            }],
            ..ContainerConfig::default()
        };
        let devices = decide(&with("/dev/null")).unwrap();
        assert_eq!(
            (&devices.files[0]["path"], &devices.files[0]["major"]),
            (&json!("/dev/nothing"), &json!(1))
        );
        let last = devices.rules.last().unwrap();
        assert_eq!(last, &json!({"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rw"}));
        assert_eq!(devices.rules[0], json!({"allow": false, "access": "rwm"}));
        let binds: Vec<Value> = devices.binds().collect();
        assert_eq!(binds, [bind("/dev/null", "/dev/nothing")]);
        for host in ["/etc/passwd", "/dev/absent"] {
            assert!(matches!(decide(&with(host)), Err(Error::Refused { .. })), "{host}");
        }
    }

    #[test]
    fn a_privileged_container_has_every_device_of_the_host() {
        let security = Security { privileged: true, ..Security::default() };
        let devices = decide(&ContainerConfig { security, ..ContainerConfig::default() }).unwrap();
        assert!(devices.files.iter().any(|file| file["path"] == "/dev/null"));
        assert!(devices.files.iter().all(|file| file["path"] != "/dev/ptmx"));
        assert_eq!(devices.files.len(), devices.hosts.len());
        assert!(devices.binds().all(|mount| mount["destination"] != "/dev/null"), "it is there in any case");
        assert_eq!(devices.rules, [json!({"allow": true, "access": "rwm"})]);
    }
}
