//! Names of cgroups, as the runtime's driver for them wants them.

/// Who makes cgroups for the runtime.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CgroupDriver {
    #[default]
    Cgroupfs,
    Systemd,
}

impl CgroupDriver {
    /// `/kubepods/burstable/pod1` as it is, or as a path of systemd's slices, each of which has the names of those
    /// above it in its own.
    pub(super) fn parent(self, path: &str) -> String {
        if self == CgroupDriver::Cgroupfs || path.is_empty() {
            return path.to_owned();
        }
        let mut slices = String::new();
        let mut name = String::new();
        for part in path.split('/').filter(|part| !part.is_empty()) {
            if !name.is_empty() {
                name.push('-');
            }
            name.push_str(&part.replace('-', "_"));
            slices.push_str(&format!("/{name}.slice"));
        }
        slices
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_repeat_the_names_above_them() {
        for (path, expected) in [
            ("", ""),
            ("/kubepods", "/kubepods.slice"),
            (
                "/kubepods/burstable/pod12-34",
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod12_34.slice",
            ),
        ] {
            assert_eq!(CgroupDriver::Systemd.parent(path), expected);
            assert_eq!(CgroupDriver::Cgroupfs.parent(path), path);
        }
    }
}
