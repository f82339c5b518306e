//! Pods whose users are nobody on the host: their user namespace, and files that are theirs nonetheless.
//!
//! A user namespace can be made and entered by a process of one thread only, so it is the program beside containers that
//! does it ([`super::shim`]), in a conversation over its standard streams:
//!
//! ```text
//!     here                                   there
//!                                  <──────   apart: in a new user namespace, as nobody
//!     writes its maps of IDs
//!     what is wanted               ──────>   becomes root, makes the other namespaces in it
//!                                  <──────   made, and the first process, or why not
//!     holds them by mounts
//!     held                         ──────>   ends
//! ```
//!
//! Files keep the owners that they have on disk: a mount of them shows the pod's users in place of the host's
//! ([`Owner::mount`]), as upstream does it.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use camino::{Utf8Path, Utf8PathBuf};
use libcontainer::syscall::linux::MountAttr;
use libcontainer::syscall::syscall::create_syscall;
use rustix::fs::{AtFlags, CWD};
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};
use rustix::process::{Gid, Uid};
use rustix::thread::{
    LinkNameSpaceType, move_into_link_name_space, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::namespaces::{self, PID, Wanted, explain};
use super::shim;
use crate::spec::UserMapping;

/// Where the namespace is held, in the folder of its sandbox.
pub(super) const USER: &str = "user";

/// `MOUNT_ATTR_IDMAP` of the kernel.
const IDMAP: u64 = 0x0010_0000;

/// What the program that makes namespaces says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    Apart,
    /// With the first process of the process namespace, if one was wanted.
    Made(Option<u32>),
    Failed(String),
}

/// Whether this kernel lets pods have users of their own.
pub(super) fn is_supported() -> bool {
    let limit = std::fs::read_to_string("/proc/sys/user/max_user_namespaces");
    limit.is_ok_and(|limit| limit.trim() != "0")
}

/// Makes a pod's namespaces within a user namespace with these IDs, and holds all of them in `dir`; returns the first
/// process of the process namespace.
pub(super) fn pin(
    dir: &Utf8Path,
    wanted: &Wanted,
    ids: UserMapping,
    shim: &[String],
) -> io::Result<Option<u32>> {
    let (program, arguments) = shim.split_first().ok_or_else(|| io::Error::other("no program to start"))?;
    let mut child = Command::new(program)
        .args(arguments)
        .arg(shim::NAMESPACES)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let outcome = converse(&mut child, dir, wanted, ids);
    // The end of its input is the end of it.
    drop(child.stdin.take());
    child.wait()?;
    outcome
}

fn converse(child: &mut Child, dir: &Utf8Path, wanted: &Wanted, ids: UserMapping) -> io::Result<Option<u32>> {
    let cut_off = || io::Error::other("the program that makes namespaces has no streams");
    let pid = child.id();
    let mut answers = BufReader::new(child.stdout.take().ok_or_else(cut_off)?);
    let to = child.stdin.as_mut().ok_or_else(cut_off)?;
    hear(&mut answers)?;
    let UserMapping { container, host, length } = ids;
    for map in ["uid_map", "gid_map"] {
        std::fs::write(format!("/proc/{pid}/{map}"), format!("{container} {host} {length}\n"))
            .map_err(|error| explain(error, &format!("cannot map the pod's users to {host} and up")))?;
    }
    say(to, wanted)?;
    let holder = hear(&mut answers)?;
    let own = wanted.kinds().into_iter().filter(|(_, made)| *made).map(|(kind, _)| kind);
    for kind in own.chain([USER]) {
        namespaces::hold(&format!("/proc/{pid}/ns/{kind}"), &dir.join(kind))?;
    }
    if let Some(holder) = holder {
        namespaces::hold(&format!("/proc/{holder}/ns/pid"), &dir.join(PID))?;
    }
    say(to, &())?;
    Ok(holder)
}

/// The other side of [`pin`].
///
/// # Errors
/// Where nobody is there to tell.
pub(super) fn make(input: &mut impl BufRead, output: &mut impl Write) -> io::Result<()> {
    let tell = |output: &mut dyn Write, answer: io::Result<Answer>| {
        say(output, &answer.unwrap_or_else(|error| Answer::Failed(error.to_string())))
    };
    let apart = namespaces::leave(rustix::thread::UnshareFlags::NEWUSER)
        .map(|()| Answer::Apart)
        .map_err(|error| explain(error, "cannot make a user namespace"));
    tell(output, apart)?;
    let wanted: Wanted = listen(input)?;
    let made = become_root().and_then(|()| {
        namespaces::enter_new(&wanted)?;
        wanted.pid.as_deref().map(namespaces::start_first).transpose()
    });
    let holder = match made {
        Ok(holder) => holder,
        Err(error) => return tell(output, Err(error)),
    };
    let id = holder.as_ref().map(Child::id);
    let held = tell(output, Ok(Answer::Made(id))).and_then(|()| listen::<()>(input));
    if held.is_err()
        && let Some(mut holder) = holder
    {
        // It may have ended by itself.
        let _ = holder.kill();
        let _ = holder.wait();
    }
    held
}

/// Becomes root of the user namespace that the calling process, of one thread, has entered.
pub(super) fn become_root() -> io::Result<()> {
    set_thread_groups(&[])?;
    set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT)?;
    Ok(set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT)?)
}

/// Enters a user namespace as its root. For a process of one thread.
pub(super) fn enter(namespace: &Utf8Path) -> io::Result<()> {
    move_into_link_name_space(File::open(namespace)?.as_fd(), Some(LinkNameSpaceType::User))?;
    become_root()
}

fn say(to: &mut (impl Write + ?Sized), value: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    to.write_all(&line)?;
    to.flush()
}

fn listen<T: DeserializeOwned>(from: &mut impl BufRead) -> io::Result<T> {
    let mut line = String::new();
    if from.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_str(&line)?)
}

fn hear(from: &mut impl BufRead) -> io::Result<Option<u32>> {
    match listen(from).map_err(|error| explain(error, "the program that makes namespaces said nothing"))? {
        Answer::Apart => Ok(None),
        Answer::Made(holder) => Ok(holder),
        Answer::Failed(message) => Err(io::Error::other(message)),
    }
}

/// Whose the files of a pod are that has a user namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    namespace: Utf8PathBuf,
    ids: UserMapping,
}

impl Owner {
    /// The users of the sandbox in this folder.
    pub(super) fn new(sandbox: &Utf8Path, ids: UserMapping) -> Self {
        Self { namespace: sandbox.join(USER), ids }
    }

    pub(super) fn namespace(&self) -> &Utf8Path {
        &self.namespace
    }

    /// How many users the pod has.
    pub(super) fn count(&self) -> u32 {
        self.ids.length
    }

    /// What a user or group of the pod is on the host; `None` where it has no such one.
    pub fn host_id(&self, id: u32) -> Option<u32> {
        let UserMapping { container, host, length } = self.ids;
        id.checked_sub(container)
            .filter(|offset| *offset < length)
            .and_then(|offset| host.checked_add(offset))
    }

    /// Gives a file or folder of ours to the pod's root.
    ///
    /// # Errors
    /// Where the pod has no root, or the file system does not let its owner be changed.
    pub fn give(&self, path: &Utf8Path) -> io::Result<()> {
        let root = self.host_id(0).ok_or_else(|| io::Error::other("the pod has no user 0"))?;
        chown(path, Some(root), Some(root))
            .map_err(|error| explain(error, &format!("cannot give {path} away")))
    }

    /// Mounts a file or folder at `target`, which is made, with the pod's users in place of the host's. What is mounted
    /// below it is there, too, as the host has it.
    ///
    /// # Errors
    /// Where the file system, or the kernel, cannot show a file's owners as others.
    pub fn mount(&self, source: &Utf8Path, target: &Utf8Path) -> io::Result<()> {
        if source.is_dir() {
            std::fs::create_dir_all(target)?;
        } else {
            File::create(target)?;
        }
        let flags =
            OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::AT_RECURSIVE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let tree = open_tree(CWD, source.as_std_path(), flags)?;
        let namespace = File::open(&self.namespace)?;
        let attributes = MountAttr {
            attr_set: IDMAP,
            attr_clr: 0,
            propagation: 0,
            userns_fd: u64::try_from(namespace.as_raw_fd()).map_err(io::Error::other)?,
        };
        create_syscall()
            .mount_setattr(
                tree.as_fd(),
                Path::new(""),
                AtFlags::EMPTY_PATH.bits(),
                &attributes,
                size_of::<MountAttr>(),
            )
            .map_err(|error| {
                io::Error::other(format!(
                    "cannot show {source} with the users of the pod (hostUsers: false): {error}; its file system may not \
                     support ID-mapped mounts on this kernel"
                ))
            })?;
        Ok(move_mount(&tree, "", CWD, target.as_std_path(), MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
    }
}

/// The first folder on the way to `path` that users other than its owner cannot pass through: the pod's root is such one
/// while its containers are made.
pub(super) fn closed_on_the_way(path: &Utf8Path) -> Option<&Utf8Path> {
    const OTHERS_PASS: u32 = 0o001;
    let closed = |folder: &&Utf8Path| {
        std::fs::metadata(folder).is_ok_and(|metadata| metadata.permissions().mode() & OTHERS_PASS == 0)
    };
    path.ancestors().filter(closed).last()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_of_a_pod_are_those_of_its_range() {
        let owner = Owner::new("/s".into(), UserMapping { container: 0, host: 131_072, length: 65_536 });
        for (id, want) in [(0, Some(131_072)), (1000, Some(132_072)), (65_535, Some(196_607)), (65_536, None)]
        {
            assert_eq!(owner.host_id(id), want, "{id}");
        }
        let shifted = Owner::new("/s".into(), UserMapping { container: 10, host: 100, length: 5 });
        for (id, want) in [(9, None), (10, Some(100)), (14, Some(104)), (15, None)] {
            assert_eq!(shifted.host_id(id), want, "{id}");
        }
        assert!(shifted.give("/nowhere".into()).unwrap_err().to_string().contains("no user 0"));
    }

    #[test]
    fn a_folder_that_others_cannot_pass_is_named() {
        let temp = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::try_from(temp.path().canonicalize().unwrap()).unwrap();
        let inner = path.join("a/b");
        std::fs::create_dir_all(&inner).unwrap();
        let mode = |path: &Utf8Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        mode(&path, 0o711);
        assert_eq!(closed_on_the_way(&inner), None);
        mode(&inner, 0o700);
        assert_eq!(closed_on_the_way(&inner), Some(&*inner));
        mode(&path, 0o750);
        assert_eq!(closed_on_the_way(&inner), Some(&*path), "the outermost is the one to open");
    }
}
