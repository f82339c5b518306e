//! Where the runtime's own mounts are: apart from the host's, so that a start can leave those of all other pods behind.
//!
//! A pod has half a dozen mounts in the state folder. Whoever reads the kernel's table of mounts pays for those of all
//! pods, and libcontainer reads it a dozen times for each start; a new mount namespace copies them all. With a hundred
//! pods that was a quarter of a start.
//!
//! ```text
//!     /run                            as the host has it
//!     /run/pintle/…/runtime           the folder on itself, private: what happens below stays here
//!     /run/pintle/…/runtime           the same once more: everything is mounted below this one
//! ```
//!
//! Who starts a container leaves the host's mounts with a copy of its own, takes off the upper one and with it all that
//! is below, and puts back its own part ([`withdraw`]). The lower one is there so that this tells nobody: taking off a
//! mount is passed on to all who share the one that it lies on. The host's mounts are left as they are, so that
//! volumes keep their propagation.
//!
//! Both mounts come with the first sandbox and go with the last. What a former version left without them stays so.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use camino::{Utf8Path, Utf8PathBuf};
use parking_lot::Mutex;
use rustix::fs::CWD;
use rustix::mount::{
    MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount_bind, mount_change, move_mount,
    open_tree, unmount,
};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use super::namespaces::leave;

/// How often the folder is mounted on itself.
const DEPTH: usize = 2;

/// The mounts of a state folder, for as long as sandboxes need them.
pub(super) struct Enclosure {
    state: Utf8PathBuf,
    /// Locked while mounts come or go.
    users: Mutex<Users>,
}

#[derive(Default)]
struct Users {
    sandboxes: usize,
    is_there: bool,
}

impl Enclosure {
    /// The enclosure of a folder without links in its path, with these sandboxes of a former process in it.
    pub(super) fn open(state: &Utf8Path, sandboxes: usize) -> io::Result<Self> {
        let is_there = Table::of(state, &table()?) == Table::Enclosed;
        Ok(Self { state: state.to_owned(), users: Mutex::new(Users { sandboxes, is_there }) })
    }

    /// One more sandbox. Blocks while the first one's mounts are made.
    pub(super) fn enter(&self) {
        let mut users = self.users.lock();
        if users.sandboxes == 0 && !users.is_there {
            users.is_there = self.make().unwrap_or_else(|error| {
                tracing::warn!(state = %self.state, %error, "The runtime's mounts are among the host's; starts are slower");
                false
            });
        }
        users.sandboxes += 1;
    }

    /// One sandbox less.
    pub(super) fn leave(&self) {
        let mut users = self.users.lock();
        users.sandboxes = users.sandboxes.saturating_sub(1);
        if users.sandboxes > 0 || !users.is_there {
            return;
        }
        // A program beside a container may be about to end in there: it keeps what it has, and nobody else sees it.
        let flags = UnmountFlags::NOFOLLOW | UnmountFlags::DETACH;
        match (0..DEPTH).try_for_each(|_| unmount(self.state.as_std_path(), flags)) {
            Ok(()) => users.is_there = false,
            Err(error) => tracing::warn!(state = %self.state, %error, "The runtime's mounts stay"),
        }
    }

    /// The folder that a start may [`withdraw`] to a part of.
    pub(super) fn folder(&self) -> Option<&Utf8Path> {
        self.users.lock().is_there.then_some(&self.state)
    }

    /// Whether the mounts are there now.
    fn make(&self) -> io::Result<bool> {
        match Table::of(&self.state, &table()?) {
            Table::Enclosed => return Ok(true),
            // Mounting over it would hide it from those who have its path.
            Table::Used => return Ok(false),
            Table::Free => {}
        }
        for made in 0..DEPTH {
            let done = mount_bind(self.state.as_std_path(), self.state.as_std_path()).and_then(|()| {
                mount_change(self.state.as_std_path(), MountPropagationFlags::PRIVATE).inspect_err(|_| {
                    // The first error is the one to tell.
                    let _ = unmount(self.state.as_std_path(), UnmountFlags::DETACH);
                })
            });
            if let Err(error) = done {
                for _ in 0..made {
                    let _ = unmount(self.state.as_std_path(), UnmountFlags::DETACH);
                }
                return Err(error.into());
            }
        }
        Ok(true)
    }
}

fn table() -> io::Result<String> {
    std::fs::read_to_string("/proc/thread-self/mountinfo")
}

/// What the table of mounts says about the folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Table {
    /// Nothing of it is mounted.
    Free,
    /// Something is mounted in it, and not by this version.
    Used,
    Enclosed,
}

impl Table {
    fn of(state: &Utf8Path, mountinfo: &str) -> Self {
        let (mut on, mut private, mut below) = (0, 0, false);
        for line in mountinfo.lines() {
            let mut fields = line.split(' ');
            let Some(target) = fields.nth(4) else { continue };
            // After the options of the mount come its tags, until a dash.
            let is_private = fields.nth(1) == Some("-");
            if target == state.as_str() {
                on += 1;
                // Those that were mounted last count.
                private = if is_private { private + 1 } else { 0 };
            } else {
                below |= Utf8Path::new(target).starts_with(state);
            }
        }
        match (on >= DEPTH && private >= DEPTH, below) {
            (true, _) => Self::Enclosed,
            (false, true) => Self::Used,
            (false, false) => Self::Free,
        }
    }
}

/// Where the calling thread came from.
pub(super) struct Home(OwnedFd);

/// Leaves the host's mounts for a copy of them, in which only `kept` is left of what is mounted in the enclosure. Only
/// for a process, or thread, that nobody else works in: until [`Home::enter`] it sees no mount that is made after this.
pub(super) fn withdraw(state: &Utf8Path, kept: &[&Utf8Path]) -> io::Result<Home> {
    let home = Home(File::open("/proc/thread-self/ns/mnt")?.into());
    leave(UnshareFlags::NEWNS)?;
    match reduce(state, kept) {
        Ok(()) => Ok(home),
        Err(error) => {
            home.enter()?;
            Err(error)
        }
    }
}

fn reduce(state: &Utf8Path, kept: &[&Utf8Path]) -> io::Result<()> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::AT_RECURSIVE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    let trees = kept
        .iter()
        .map(|path| Ok((open_tree(CWD, path.as_std_path(), flags)?, *path)))
        .collect::<io::Result<Vec<_>>>()?;
    unmount(state.as_std_path(), UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)?;
    for (tree, path) in trees {
        move_mount(&tree, "", CWD, path.as_std_path(), MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    }
    Ok(())
}

impl Home {
    /// Goes back. The working directory is the root then.
    pub(super) fn enter(&self) -> io::Result<()> {
        Ok(move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Mount))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_enclosed_by_two_private_mounts() {
        let on = |tags: &str| format!("30 29 0:26 / /run/p rw,nosuid{tags} - tmpfs tmpfs rw\n");
        let below = "31 30 0:27 / /run/p/a rw - tmpfs tmpfs rw\n";
        let beside = "31 30 0:27 / /run/pp rw - tmpfs tmpfs rw\n";
        for (table, want) in [
            (String::new(), Table::Free),
            (beside.to_owned(), Table::Free),
            (below.to_owned(), Table::Used),
            (on(" shared:5"), Table::Free),
            (on("") + below, Table::Used),
            (on("") + &on(""), Table::Enclosed),
            (on(" shared:5") + &on("") + below + &on(""), Table::Enclosed),
            (on("") + &on(" master:1") + &on(""), Table::Free),
            (on("") + &on("") + &on(" shared:5"), Table::Free),
        ] {
            assert_eq!(Table::of("/run/p".into(), &table), want, "{table}");
        }
    }

    /// What is mounted below a folder, as the calling thread sees it.
    fn mounted(folder: &Utf8Path) -> Vec<String> {
        let table = table().unwrap();
        let targets = table.lines().filter_map(|line| line.split(' ').nth(4));
        targets.filter_map(|target| target.strip_prefix(folder.as_str()).map(str::to_owned)).collect()
    }

    #[test]
    fn a_start_leaves_the_mounts_of_others_behind_and_nobody_else_does() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: mounting needs root");
            return;
        }
        let temp = tempfile::tempdir().unwrap();
        let host = Utf8PathBuf::try_from(temp.path().canonicalize().unwrap()).unwrap();
        // A thread of its own stands for the host, so that nothing is left if the test fails.
        let test = std::thread::spawn(move || {
            leave(UnshareFlags::NEWNS).unwrap();
            // As systemd has it: whatever happens is passed on to all copies.
            mount_bind(host.as_std_path(), host.as_std_path()).unwrap();
            mount_change(host.as_std_path(), MountPropagationFlags::SHARED).unwrap();
            let state = host.join("state");
            for folder in ["state/a", "state/b", "volume"] {
                std::fs::create_dir_all(host.join(folder)).unwrap();
            }
            let enclosure = Enclosure::open(&state, 0).unwrap();
            assert_eq!(enclosure.folder(), None);
            enclosure.enter();
            enclosure.enter();
            assert_eq!(enclosure.folder(), Some(&*state));
            let before = ["", "/state", "/state", "/state/a", "/state/b"];
            for own in ["a", "b"] {
                let at = state.join(own);
                rustix::mount::mount("t", at.as_str(), "tmpfs", rustix::mount::MountFlags::empty(), None)
                    .unwrap();
            }
            assert_eq!(mounted(&host), before);

            let home = withdraw(&state, &[&state.join("a")]).unwrap();
            assert_eq!(mounted(&host), ["", "/state", "/state/a"]);
            // Volumes are passed on as before.
            mount_bind(host.join("volume").as_str(), host.join("volume").as_str()).unwrap();
            home.enter().unwrap();
            let now = mounted(&host);
            assert_eq!(now[..5], before);
            assert_eq!(now[5..], ["/volume"]);
            assert_eq!(
                Enclosure::open(&state, 2).unwrap().folder(),
                Some(&*state),
                "a later process finds it"
            );
            withdraw(&state, &[&state.join("none")]).map(drop).unwrap_err();
            assert_eq!(mounted(&host).len(), 6, "who could not withdraw is where it was");

            for own in ["a", "b"] {
                unmount(state.join(own).as_std_path(), UnmountFlags::empty()).unwrap();
                enclosure.leave();
            }
            assert_eq!(
                (enclosure.folder(), mounted(&host)),
                (None, vec![String::new(), "/volume".to_owned()])
            );
        });
        test.join().unwrap();
    }
}
