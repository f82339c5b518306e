//! Namespaces of a pod, held open by mounts on files: they need no process.
//!
//! A thread of its own leaves the host's namespaces, mounts the new ones on files and ends. Only a process namespace
//! that containers share needs a first process; the thread starts it. Where the pod has users of its own, it is a process
//! that does this: see [`super::user_namespace`].

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use rustix::mount::{UnmountFlags, mount_bind, unmount};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};
use serde::{Deserialize, Serialize};

use super::user_namespace;
use crate::spec::UserMapping;

pub(super) const NETWORK: &str = "net";
pub(super) const IPC: &str = "ipc";
pub(super) const UTS: &str = "uts";
pub(super) const PID: &str = "pid";
const ALL: [&str; 5] = [NETWORK, IPC, UTS, PID, user_namespace::USER];

/// A pod's program has this long to take a forwarded connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Which namespaces a pod has of its own.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Wanted {
    pub network: bool,
    pub ipc: bool,
    /// With this name of the host in it.
    pub uts: Option<String>,
    /// With this program as the first process.
    pub pid: Option<Vec<String>>,
    pub sysctls: BTreeMap<String, String>,
}

impl Wanted {
    /// Which namespaces are held from their making, by their names in `/proc`.
    pub(super) fn kinds(&self) -> [(&'static str, bool); 3] {
        [(NETWORK, self.network), (IPC, self.ipc), (UTS, self.uts.is_some())]
    }
}

/// Makes them and holds them in `dir`, within a user namespace if the pod has `users`; returns the first process of the
/// process namespace.
pub(super) fn pin(
    dir: &Utf8Path,
    wanted: &Wanted,
    users: Option<UserMapping>,
    shim: &[String],
) -> io::Result<Option<u32>> {
    if let Some(ids) = users {
        return user_namespace::pin(dir, wanted, ids, shim);
    }
    let (dir, wanted) = (dir.to_owned(), wanted.clone());
    std::thread::Builder::new()
        .name("pod-namespaces".to_owned())
        .spawn(move || make(&dir, &wanted))?
        .join()
        .map_err(|_| io::Error::other("the thread that makes namespaces panicked"))?
}

fn make(dir: &Utf8Path, wanted: &Wanted) -> io::Result<Option<u32>> {
    enter_new(wanted)?;
    for (kind, _) in wanted.kinds().into_iter().filter(|(_, made)| *made) {
        hold(&format!("/proc/thread-self/ns/{kind}"), &dir.join(kind))?;
    }
    let Some(program) = &wanted.pid else { return Ok(None) };
    let mut child = start_first(program)?;
    if let Err(error) = hold(&format!("/proc/{}/ns/pid", child.id()), &dir.join(PID)) {
        // It may have ended by itself.
        let _ = child.kill();
        let _ = child.wait();
        return Err(error);
    }
    Ok(Some(child.id()))
}

/// Makes and enters the namespaces that need no process, and puts them into the state that a pod begins with.
pub(super) fn enter_new(wanted: &Wanted) -> io::Result<()> {
    let mut flags = UnshareFlags::empty();
    flags.set(UnshareFlags::NEWNET, wanted.network);
    flags.set(UnshareFlags::NEWIPC, wanted.ipc);
    flags.set(UnshareFlags::NEWUTS, wanted.uts.is_some());
    leave(flags).map_err(|error| explain(error, "cannot make namespaces"))?;
    if let Some(hostname) = &wanted.uts {
        rustix::system::sethostname(hostname.as_bytes())
            .map_err(|error| explain(error.into(), &format!("cannot set the host's name {hostname}")))?;
    }
    if wanted.network {
        bring_up_loopback().map_err(|error| explain(error, "cannot bring the loopback up"))?;
    }
    // The thread's own: in them already.
    for (name, value) in &wanted.sysctls {
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        std::fs::write(&path, value)
            .map_err(|error| explain(error, &format!("cannot set the kernel parameter {name} to {value}")))?;
    }
    Ok(())
}

/// Starts the first process of a new process namespace.
pub(super) fn start_first(program: &[String]) -> io::Result<Child> {
    leave(UnshareFlags::NEWPID).map_err(|error| explain(error, "cannot make a process namespace"))?;
    let (name, arguments) = program.split_first().ok_or_else(|| io::Error::other("no program to start"))?;
    Command::new(name)
        .args(arguments)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| explain(error, "cannot start the pod's first process"))
}

#[expect(
    deprecated,
    reason = "its successor is unsafe for file descriptors only, which are not unshared here"
)]
pub(super) fn leave(flags: UnshareFlags) -> io::Result<()> {
    if flags.is_empty() {
        return Ok(());
    }
    Ok(rustix::thread::unshare(flags)?)
}

pub(super) fn hold(namespace: &str, file: &Utf8Path) -> io::Result<()> {
    File::create(file)?;
    mount_bind(namespace, file.as_std_path())
        .map_err(|error| explain(error.into(), &format!("cannot hold {namespace}")))
}

/// Lets go of everything held in `dir`.
pub(super) fn unpin(dir: &Utf8Path) -> io::Result<()> {
    ALL.iter().try_for_each(|kind| release(&dir.join(kind)))
}

/// Unmounts what is on a file or folder, and deletes it.
fn release(path: &Utf8Path) -> io::Result<()> {
    unmount_all(path)?;
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Unmounts everything that is mounted at a path.
pub(super) fn unmount_all(path: &Utf8Path) -> io::Result<()> {
    loop {
        match unmount(path.as_std_path(), UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            // Nothing is mounted there, or nothing is there.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => return Ok(()),
            Err(error) => return Err(explain(error.into(), &format!("cannot unmount {path}"))),
        }
    }
}

/// Whether the namespace of this kind is still held.
pub(super) fn is_held(dir: &Utf8Path, kind: &str) -> bool {
    is_namespace(&dir.join(kind))
}

/// Whether something holds a namespace open at this path, and not only its name is left.
pub fn is_namespace(path: &Utf8Path) -> bool {
    const NSFS_MAGIC: u64 = 0x6e73_6673;
    let statfs = rustix::fs::statfs(path.as_std_path());
    statfs.is_ok_and(|statfs| u64::try_from(statfs.f_type).ok() == Some(NSFS_MAGIC))
}

/// Connects to a port on the loopback of a network namespace; `None` is the host's.
pub(super) fn connect(namespace: Option<Utf8PathBuf>, port: u16) -> io::Result<TcpStream> {
    std::thread::Builder::new()
        .name("port-forward".to_owned())
        .spawn(move || {
            if let Some(path) = &namespace {
                move_into_link_name_space(File::open(path)?.as_fd(), Some(LinkNameSpaceType::Network))?;
            }
            let dial = |ip: IpAddr| TcpStream::connect_timeout(&SocketAddr::new(ip, port), CONNECT_TIMEOUT);
            dial(Ipv4Addr::LOCALHOST.into()).or_else(|v4| {
                dial(Ipv6Addr::LOCALHOST.into()).map_err(|v6| {
                    let message = format!(
                        "failed to connect to localhost:{port} inside the pod, IPv4: {v4}, IPv6: {v6}"
                    );
                    io::Error::new(v4.kind(), message)
                })
            })
        })?
        .join()
        .map_err(|_| io::Error::other("the thread that connects panicked"))?
}

/// `ip link set lo up`, in the thread's network namespace.
fn bring_up_loopback() -> io::Result<()> {
    const RTM_NEWLINK: u16 = 16;
    const REQUEST_WITH_ANSWER: u16 = 0x1 | 0x4;
    const LOOPBACK: i32 = 1;
    const UP: u32 = 1;
    const LEN: u32 = 32;
    let mut message = Vec::with_capacity(LEN as usize);
    // The header: length, type, flags, sequence number, sender.
    message.extend_from_slice(&LEN.to_ne_bytes());
    message.extend_from_slice(&RTM_NEWLINK.to_ne_bytes());
    message.extend_from_slice(&REQUEST_WITH_ANSWER.to_ne_bytes());
    message.extend_from_slice(&[0; 8]);
    // The link: family and type, index, flags, which flags change.
    message.extend_from_slice(&[0; 4]);
    message.extend_from_slice(&LOOPBACK.to_ne_bytes());
    message.extend_from_slice(&UP.to_ne_bytes());
    message.extend_from_slice(&UP.to_ne_bytes());
    // Protocol 0 is the one of links and addresses.
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    send(&socket, &message, SendFlags::empty())?;
    let mut answer = [0; 64];
    let (len, _) = recv(&socket, &mut answer[..], RecvFlags::empty())?;
    match answer
        .get(16..20)
        .filter(|_| len >= 20)
        .and_then(|code| code.try_into().ok())
        .map(i32::from_ne_bytes)
    {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(-code)),
        None => Err(io::Error::new(io::ErrorKind::InvalidData, "the kernel's answer is cut off")),
    }
}

pub(super) fn explain(error: io::Error, what: &str) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}
