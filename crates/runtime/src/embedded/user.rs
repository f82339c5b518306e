//! As whom a container runs: an image's `USER` and a pod's wishes, looked up in the image's own files.
//!
//! The rules are runc's: a name or a number, then perhaps a colon and a group; names must be in the files, numbers need
//! not. Supplementary groups come from `/etc/group` by the user's name.

use std::io::{self, Read};
use std::os::fd::OwnedFd;

use camino::Utf8Path;
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

use crate::spec::{RunningUser, Security, User};
use crate::{Error, Result};

/// Larger files of users are not believed.
const FILE_BYTES_MAX: u64 = 4 << 20;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Resolved {
    pub user: RunningUser,
    /// Where it lives, if the image says so.
    pub home: Option<String>,
}

/// The image's files of users and groups; empty where it has none.
#[derive(Clone, Debug, Default)]
pub(super) struct Accounts {
    pub passwd: String,
    pub group: String,
}

impl Accounts {
    pub(super) fn read(root: &Utf8Path) -> io::Result<Self> {
        Ok(Self { passwd: read_in_root(root, "etc/passwd")?, group: read_in_root(root, "etc/group")? })
    }
}

/// Opens a path as if `root` were the root, whatever links it has.
pub(super) fn open_in_root(root: &Utf8Path, path: &str, flags: OFlags) -> io::Result<OwnedFd> {
    let root = std::fs::File::open(root)?;
    Ok(openat2(
        root,
        path,
        flags | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
    )?)
}

fn read_in_root(root: &Utf8Path, path: &str) -> io::Result<String> {
    // Not blocking: an image may have a pipe there.
    let file = match open_in_root(root, path, OFlags::RDONLY | OFlags::NONBLOCK) {
        Ok(file) => std::fs::File::from(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        Err(error) => return Err(error),
    };
    if !file.metadata()?.is_file() {
        return Ok(String::new());
    }
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Decides who it is. `image_user` is the image's `USER`, perhaps empty.
pub(super) fn resolve(security: &Security, image_user: &str, accounts: &Accounts) -> Result<Resolved> {
    let (wanted, wanted_group) = match security.user {
        User::Id(uid) => (uid.to_string(), None),
        User::Image => match image_user.split_once(':') {
            Some((user, group)) => {
                (user.to_owned(), Some(group.to_owned()).filter(|group| !group.is_empty()))
            }
            None => (image_user.to_owned(), None),
        },
    };
    let wanted = if wanted.is_empty() { "0".to_owned() } else { wanted };
    let number = wanted.parse::<u32>().ok();
    let entry = passwd_entries(&accounts.passwd)
        .find(|entry| entry.name == wanted || number.is_some_and(|number| entry.uid == number));
    let (uid, gid, name, home) = match (&entry, number) {
        (Some(entry), _) => (entry.uid, entry.gid, entry.name, Some(entry.home.to_owned())),
        (None, Some(number)) => (number, 0, "", None),
        (None, None) => {
            return Err(refused(format!("unable to find user {wanted}: no matching entries in passwd file")));
        }
    };
    let gid = match (security.group, &wanted_group) {
        (Some(gid), _) => gid,
        (None, Some(group)) => group_id(&accounts.group, group)?,
        (None, None) => gid,
    };
    let mut groups = security.supplemental_groups.clone();
    if !security.strict_groups && !name.is_empty() {
        groups.extend(
            group_entries(&accounts.group)
                .filter(|entry| entry.members.split(',').any(|member| member == name))
                .map(|entry| entry.gid),
        );
    }
    // As containerd has it: the primary group is one of them.
    groups.push(gid);
    groups.sort_unstable();
    groups.dedup();
    Ok(Resolved { user: RunningUser { uid, gid, supplemental_groups: groups }, home })
}

struct PasswdEntry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

fn passwd_entries(text: &str) -> impl Iterator<Item = PasswdEntry<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let name = fields.next().filter(|name| !name.is_empty() && !name.starts_with('#'))?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some(PasswdEntry { name, uid, gid, home: fields.nth(1).unwrap_or_default() })
    })
}

struct GroupEntry<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

fn group_entries(text: &str) -> impl Iterator<Item = GroupEntry<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let name = fields.next().filter(|name| !name.is_empty() && !name.starts_with('#'))?;
        let gid = fields.nth(1)?.parse().ok()?;
        Some(GroupEntry { name, gid, members: fields.next().unwrap_or_default() })
    })
}

fn group_id(text: &str, wanted: &str) -> Result<u32> {
    group_entries(text)
        .find(|entry| entry.name == wanted)
        .map(|entry| entry.gid)
        .or_else(|| wanted.parse().ok())
        .ok_or_else(|| refused(format!("unable to find group {wanted}: no matching entries in group file")))
}

fn refused(message: String) -> Error {
    Error::Refused { reason: "CreateContainerError", message }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts() -> Accounts {
        Accounts {
            passwd: "root:x:0:0:root:/root:/bin/sh\n# comment\napp:x:1000:1001::/srv/app:/bin/sh\nbroken:x\n"
                .into(),
            group: "root:x:0:\napp:x:1001:\nwheel:x:10:root,app\nvideo:x:44:app\n".into(),
        }
    }

    #[test]
    fn users_are_found_as_runc_finds_them() {
        let image = |user: &str| (Security::default(), user.to_owned());
        let id = |uid: u32, group: Option<u32>| {
            (Security { user: User::Id(uid), group, ..Security::default() }, "app".to_owned())
        };
        for ((security, image_user), uid, gid, groups, home) in [
            (image(""), 0, 0, vec![0, 10], Some("/root")),
            (image("app"), 1000, 1001, vec![10, 44, 1001], Some("/srv/app")),
            (image("1000"), 1000, 1001, vec![10, 44, 1001], Some("/srv/app")),
            (image("app:video"), 1000, 44, vec![10, 44], Some("/srv/app")),
            (image("app:77"), 1000, 77, vec![10, 44, 77], Some("/srv/app")),
            (image("4711"), 4711, 0, vec![0], None),
            (id(4711, Some(5)), 4711, 5, vec![5], None),
            (id(1000, None), 1000, 1001, vec![10, 44, 1001], Some("/srv/app")),
            (
                (
                    Security {
                        user: User::Id(1000),
                        supplemental_groups: vec![9],
                        strict_groups: true,
                        ..Security::default()
                    },
                    String::new(),
                ),
                1000,
                1001,
                vec![9, 1001],
                Some("/srv/app"),
            ),
        ] {
            let resolved = resolve(&security, &image_user, &accounts()).unwrap();
            let want = Resolved {
                user: RunningUser { uid, gid, supplemental_groups: groups },
                home: home.map(str::to_owned),
            };
            assert_eq!(resolved, want, "{security:?} {image_user}");
        }
    }

    #[test]
    fn a_name_that_the_image_does_not_have_is_refused_in_upstreams_words() {
        for (user, want) in [
            ("ghost", "unable to find user ghost: no matching entries in passwd file"),
            ("app:ghosts", "unable to find group ghosts: no matching entries in group file"),
        ] {
            let error = resolve(&Security::default(), user, &accounts()).unwrap_err();
            assert_eq!(error.to_string(), want);
        }
    }

    #[test]
    fn links_in_an_image_do_not_lead_out_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let root = Utf8Path::from_path(dir.path()).unwrap().join("root");
        std::fs::create_dir_all(root.join("etc")).unwrap();
        std::fs::write(dir.path().join("secret"), "outside").unwrap();
        std::os::unix::fs::symlink("../../secret", root.join("etc/passwd")).unwrap();
        std::os::unix::fs::symlink("/etc/real", root.join("etc/group")).unwrap();
        std::fs::write(root.join("etc/real"), "inside").unwrap();
        let accounts = Accounts::read(&root).unwrap();
        assert_eq!((accounts.passwd.as_str(), accounts.group.as_str()), ("", "inside"));
    }
}
