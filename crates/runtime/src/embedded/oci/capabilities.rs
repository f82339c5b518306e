//! What a container's root may do.

use std::collections::BTreeSet;

use crate::spec::Security;
use crate::{Error, Result};

/// What containerd gives containers.
const DEFAULT: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// Decides the set. `available` is the bounding set of this process: more cannot be given. Where devices are not kept
/// from containers by their group, making device files is not among the defaults.
pub(in crate::embedded) fn decide(
    security: &Security,
    available: &BTreeSet<String>,
    confines_devices: bool,
) -> Result<BTreeSet<String>> {
    if security.privileged {
        return Ok(available.clone());
    }
    let added = names(&security.add_capabilities)?;
    let dropped = names(&security.drop_capabilities)?;
    let mut set: BTreeSet<String> = DEFAULT
        .into_iter()
        .filter(|name| confines_devices || *name != "CAP_MKNOD")
        .map(str::to_owned)
        .collect();
    // As containerd has it: what ALL adds or drops comes first, single names after.
    if added.contains("CAP_ALL") {
        set.clone_from(available);
    }
    if dropped.contains("CAP_ALL") {
        set.clear();
    }
    set.extend(added.into_iter().filter(|name| name != "CAP_ALL"));
    for name in dropped {
        set.remove(&name);
    }
    Ok(set.intersection(available).cloned().collect())
}

fn names(given: &[String]) -> Result<BTreeSet<String>> {
    given
        .iter()
        .map(|name| {
            let name = caps::to_canonical(name);
            if name != "CAP_ALL" && name.parse::<caps::Capability>().is_err() {
                return Err(Error::Refused {
                    reason: "CreateContainerError",
                    message: format!("unknown capability \"{name}\""),
                });
            }
            Ok(name)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> BTreeSet<String> {
        caps::all().into_iter().map(|cap| cap.to_string()).filter(|name| name != "CAP_SYS_RESOURCE").collect()
    }

    fn decided(add: &[&str], drop: &[&str]) -> BTreeSet<String> {
        let strings = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let security = Security {
            add_capabilities: strings(add),
            drop_capabilities: strings(drop),
            ..Security::default()
        };
        decide(&security, &all(), true).unwrap()
    }

    #[test]
    fn the_defaults_are_containerds_and_names_add_and_drop() {
        assert_eq!(decided(&[], &[]).len(), DEFAULT.len());
        assert_eq!(decided(&["NET_ADMIN"], &["ALL"]).into_iter().collect::<Vec<_>>(), ["CAP_NET_ADMIN"]);
        assert!(!decided(&["ALL"], &["CHOWN"]).contains("CAP_CHOWN"));
        assert_eq!(decided(&["ALL"], &[]), all(), "no more than this process could give");
        assert!(decided(&[], &["cap_net_raw"]).iter().all(|name| name != "CAP_NET_RAW"));
        assert!(!decided(&["SYS_RESOURCE"], &[]).contains("CAP_SYS_RESOURCE"));
    }

    #[test]
    fn privileged_is_everything_and_unknown_names_are_refused() {
        let security = Security { privileged: true, ..Security::default() };
        assert_eq!(decide(&security, &all(), true).unwrap(), all());
        let security = Security { add_capabilities: vec!["FLY".into()], ..Security::default() };
        assert_eq!(
            decide(&security, &all(), true).unwrap_err().to_string(),
            "unknown capability \"CAP_FLY\""
        );
    }

    #[test]
    fn device_files_cannot_be_made_where_devices_are_not_confined() {
        assert!(!decide(&Security::default(), &all(), false).unwrap().contains("CAP_MKNOD"));
    }
}
