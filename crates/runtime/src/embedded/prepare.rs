//! What a container needs before it starts: its root, its mounts, its user, its configuration on disk.
//!
//! Nothing is started here, and nothing is kept in memory but the record that is returned.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use camino::{Utf8Path, Utf8PathBuf};

use super::oci::{self, Facts};
use super::record::{ContainerRecord, SandboxRecord};
use super::sandbox::Sandbox;
use super::shim::protocol::{self, BUNDLE_FILE, CONFIG_FILE, Enclosed, ShimConfig};
use super::user::Accounts;
use super::user_namespace::{self, Owner};
use super::{Shared, blocking, cdi, failed, image_names, namespaces, sandbox, seccomp, user};
use crate::spec::{ContainerConfig, ContainerState, RunningUser, Seccomp};
use crate::{Error, Result};

/// Where the container's root is mounted, in its folder.
const ROOTFS: &str = "rootfs";
/// Where images that are mounted as volumes lie, by the number of the mount.
const VOLUMES: &str = "volumes";
/// Where other mounts lie with the pod's own users, by the number of the mount.
const MOUNTS: &str = "mounts";

/// Makes everything that a container needs before it starts.
pub(super) async fn prepare(
    shared: &Arc<Shared>,
    sandbox: &Sandbox,
    config: &ContainerConfig,
    id: &str,
) -> Result<ContainerRecord> {
    let pod = sandbox.record.lock().clone();
    let image = shared.images.config(&config.image).await?;
    let known = shared.images.status(&config.image).await?;
    let names = image_names::choose(&config.image_reference, &known.unwrap_or_default());
    if oci::command(config, &image).is_empty() {
        return Err(refused("no command specified".to_owned()));
    }
    let dir = shared.container_dir(id);
    let root = dir.join(ROOTFS);
    std::fs::create_dir_all(&root).map_err(|error| failed(format!("cannot make {root}"), error))?;
    let owner = sandbox.owner(shared);
    shared.images.mount(&config.image, id, &root, owner.as_ref()).await?;
    let sources = sources(shared, config, id, &dir, owner.as_ref()).await?;

    let accounts = Accounts::read(&root).map_err(|error| failed("cannot read the image's users", error))?;
    let user = user::resolve(&config.security, &image.user, &accounts)?;
    if let Some(owner) = &owner {
        check_user(&user.user, owner)?;
    }
    let confines_devices = shared.cgroups.confines_devices();
    let capabilities = oci::capabilities::decide(&config.security, &shared.capabilities, confines_devices)?;
    let filters = match &config.security.seccomp {
        _ if config.security.privileged => Vec::new(),
        Seccomp::Unconfined => Vec::new(),
        Seccomp::RuntimeDefault => seccomp::runtime_default(&capabilities).map_err(refused)?,
        Seccomp::Localhost(path) => std::fs::read(path)
            .map_err(|error| format!("cannot load seccomp profile \"{path}\": {error}"))
            .and_then(|bytes| seccomp::compile(&seccomp::parse(&bytes)?, &capabilities))
            .map_err(refused)?,
    };
    let (namespaces, shares_pids) = namespaces_of(shared, &pod, config)?;
    let cgroup = format!("{}/{id}", pod.config.cgroup_parent.trim_end_matches('/'));
    let files = files(&shared.sandbox_dir(&pod.id));
    let joins_processes = namespaces.iter().any(|(kind, held)| *kind == "pid" && held.is_some());
    let cgroup_folders = if joins_processes { shared.cgroups.folders(&cgroup) } else { Vec::new() };
    let read_only = match (config.security.privileged, cgroup_folders.is_empty()) {
        (true, _) => Vec::new(),
        (false, true) => shared.cgroups.places(),
        (false, false) => vec!["/sys/fs/cgroup".to_owned()],
    };
    let facts = Facts {
        root: root.as_str(),
        cgroup: &cgroup,
        user: &user,
        capabilities: &capabilities,
        namespaces: &namespaces,
        files: &files,
        sources: &sources.mounted,
        read_only: &read_only,
        cgroup_folders: &cgroup_folders,
        limits_hugepages: shared.cgroups.has("hugetlb"),
        binds_devices: pod.config.namespaces.user.is_some(),
    };
    let hostname = if pod.config.namespaces.host_network {
        rustix::system::uname().nodename().to_string_lossy().into_owned()
    } else {
        pod.config.hostname.clone()
    };
    let mut spec = oci::container(config, &image, &facts, &hostname)?;
    cdi::inject(&mut spec, &config.cdi_devices, &cdi::FOLDERS.map(Utf8Path::new))?;
    make_working_dir(&root, oci::working_dir(config, &image), config, &sources.own, owner.as_ref())
        .map_err(|error| refused(format!("failed to make the working directory: {error}")))?;

    let log = pod.config.log_directory.join(&config.log_path);
    let shim = ShimConfig {
        id: id.to_owned(),
        log: log.clone(),
        stdin: config.stdin,
        stdin_once: config.stdin_once,
        tty: config.tty,
        oom_score_adj: config.resources.oom_score_adj,
        seccomp: filters,
        cgroup: cgroup.clone(),
        shares_pids,
        cgroups: Some(shared.cgroups.clone()),
        enclosure: shared.enclosure.folder().map(|folder| Enclosed {
            folder: folder.to_owned(),
            kept: vec![shared.sandbox_dir(&pod.id), dir.clone()],
        }),
    };
    protocol::save(&dir.join(BUNDLE_FILE), &spec)
        .and_then(|()| protocol::save(&dir.join(CONFIG_FILE), &shim))
        // Commands in the container are started by its own root.
        .and_then(|()| owner.map_or(Ok(()), |owner| owner.give(&dir.join(BUNDLE_FILE))))
        .map_err(|error| failed("cannot write the container's configuration", error))?;
    let stop_signal = if config.stop_signal.is_empty() { &image.stop_signal } else { &config.stop_signal };
    let record = ContainerRecord {
        id: id.to_owned(),
        sandbox_id: pod.id,
        config: config.clone(),
        image_name: names.name,
        image_digest: names.digest,
        state: ContainerState::Created,
        created_at: rt::now(),
        started_at: None,
        finished_at: None,
        exit_code: 0,
        reason: String::new(),
        message: String::new(),
        log,
        pid: 0,
        user: user.user,
        stop_signal: stop_signal.clone(),
        cgroup,
        shares_pids,
    };
    shared
        .container_records
        .save(id, &record)
        .map_err(|error| failed("cannot remember the container", error))?;
    Ok(record)
}

fn refused(message: String) -> Error {
    Error::Refused { reason: "CreateContainerError", message }
}

/// A user that the pod does not have cannot run anything in it.
fn check_user(user: &RunningUser, owner: &Owner) -> Result<()> {
    let groups = user.supplemental_groups.iter().map(|group| ("supplemental group", *group));
    let mut all = [("user", user.uid), ("group", user.gid)].into_iter().chain(groups);
    match all.find(|(_, id)| owner.host_id(*id).is_none()) {
        None => Ok(()),
        Some((what, id)) => Err(refused(format!(
            "{what} {id} is none of the pod's own (hostUsers: false), of which there are {}",
            owner.count()
        ))),
    }
}

/// Where the container's mounts lie on the host, in their order.
#[derive(Default)]
struct Sources {
    /// As they were given; images among them are mounted.
    own: Vec<String>,
    /// What the container sees: the same, or mounts of it with the pod's users.
    mounted: Vec<String>,
}

async fn sources(
    shared: &Shared,
    config: &ContainerConfig,
    id: &str,
    dir: &Utf8Path,
    owner: Option<&Owner>,
) -> Result<Sources> {
    let mut sources = Sources::default();
    for (index, mount) in config.mounts.iter().enumerate() {
        let own = match &mount.image {
            Some((image, path)) => image_source(shared, image, path, id, dir, index, owner).await?,
            None => {
                // As containerd has it: what is missing becomes a folder.
                if !mount.source.exists() {
                    std::fs::create_dir_all(&mount.source)
                        .map_err(|error| refused(format!("failed to mkdir \"{}\": {error}", mount.source)))?;
                }
                mount.source.to_string()
            }
        };
        let mounted = match owner.filter(|_| mount.image.is_none()) {
            Some(owner) => {
                let (source, target) = (mount.source.clone(), dir.join(MOUNTS).join(index.to_string()));
                let (owner, at) = (owner.clone(), target.clone());
                blocking(move || {
                    std::fs::create_dir_all(at.parent().unwrap_or(&at))?;
                    owner.mount(&source, &at)
                })
                .await
                .map_err(|error| refused(format!("failed to mount \"{}\": {error}", mount.target)))?;
                target.into_string()
            }
            None => own.clone(),
        };
        sources.own.push(own);
        sources.mounted.push(mounted);
    }
    Ok(sources)
}

/// Mounts an image that a container has as its mount of this number, and finds the path in it.
async fn image_source(
    shared: &Shared,
    image: &str,
    path: &Utf8Path,
    id: &str,
    dir: &Utf8Path,
    index: usize,
    owner: Option<&Owner>,
) -> Result<String> {
    let target = dir.join(VOLUMES).join(index.to_string());
    std::fs::create_dir_all(&target).map_err(|error| failed(format!("cannot make {target}"), error))?;
    shared.images.mount_read_only(image, id, &target, owner).await?;
    let inside = path.as_str().trim_start_matches('/');
    if inside.is_empty() {
        return Ok(target.to_string());
    }
    // Opened as the container would, so that no link leads out of the image; then named by where that is.
    let found = user::open_in_root(&target, inside, rustix::fs::OFlags::PATH)
        .and_then(|fd| std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())))
        .map_err(|error| refused(format!("failed to find \"{path}\" in image {image}: {error}")))?;
    Ok(found.to_string_lossy().into_owned())
}

/// Namespaces of the container, and whether its processes outlive the first one.
#[expect(clippy::type_complexity, reason = "a list of pairs and a flag, used once")]
fn namespaces_of(
    shared: &Shared,
    pod: &SandboxRecord,
    config: &ContainerConfig,
) -> Result<(Vec<(&'static str, Option<String>)>, bool)> {
    let dir = shared.sandbox_dir(&pod.id);
    let held = |kind: &str| Some(dir.join(kind).to_string());
    let wanted = &pod.config.namespaces;
    let mut namespaces = vec![("mount", None)];
    if wanted.user.is_some() {
        namespaces.push(("user", held(user_namespace::USER)));
    }
    if !config.security.privileged || wanted.user.is_some() {
        namespaces.push(("cgroup", None));
    }
    if !wanted.host_network {
        namespaces.push(("network", held(namespaces::NETWORK)));
        namespaces.push(("uts", held(namespaces::UTS)));
    }
    if !wanted.host_ipc {
        namespaces.push(("ipc", held(namespaces::IPC)));
    }
    let shares_pids = match &config.pid_target {
        Some(target) => {
            let target = shared.container(target)?;
            let (pid, state) = {
                let record = target.record.lock();
                (record.pid, record.state)
            };
            if state != ContainerState::Running {
                return Err(refused(format!("target container {} is not running", target.id())));
            }
            namespaces.push(("pid", Some(format!("/proc/{pid}/ns/pid"))));
            true
        }
        None if wanted.host_pid => true,
        None if wanted.shared_pid => {
            namespaces.push(("pid", held(namespaces::PID)));
            true
        }
        None => {
            namespaces.push(("pid", None));
            false
        }
    };
    Ok((namespaces, shares_pids))
}

/// Files that every container of the pod has.
fn files(sandbox: &Utf8Path) -> Vec<(&'static str, String)> {
    let or_host = |name: &str, host: &str| {
        let own = sandbox.join(name);
        if own.exists() { own.into_string() } else { host.to_owned() }
    };
    let mut files = vec![
        ("/etc/hostname", or_host(sandbox::HOSTNAME, "/etc/hostname")),
        ("/etc/resolv.conf", or_host(sandbox::RESOLV_CONF, "/etc/resolv.conf")),
        ("/dev/shm", or_host(sandbox::SHM, "/dev/shm")),
    ];
    files.retain(|(_, source)| Utf8Path::new(source).exists());
    files
}

/// Makes the folder in which the container's program starts, where it is missing; below a mount, in the mount.
fn make_working_dir(
    root: &Utf8Path,
    dir: &str,
    config: &ContainerConfig,
    sources: &[String],
    owner: Option<&Owner>,
) -> io::Result<()> {
    use rustix::fs::{AtFlags, Gid, Mode, OFlags, ResolveFlags, Uid, chownat, mkdirat, openat2};
    let dir = Utf8Path::new(dir);
    let below = config
        .mounts
        .iter()
        .zip(sources)
        .filter(|(mount, _)| dir.starts_with(&mount.target))
        .max_by_key(|(mount, _)| mount.target.components().count());
    // What is made in a mount is root's on the disk, and so the pod's root's where it is mounted.
    let (root, dir, owner) = match below {
        Some((mount, _)) if mount.read_only || mount.image.is_some() => return Ok(()),
        Some((mount, source)) => {
            (Utf8Path::new(source), dir.strip_prefix(&mount.target).map_err(io::Error::other)?, None)
        }
        None => (root, dir, owner.and_then(|owner| owner.host_id(0))),
    };
    if !root.is_dir() {
        return Ok(());
    }
    let root = std::fs::File::open(root)?;
    let mut path = Utf8PathBuf::from(".");
    for part in dir.components().filter_map(|part| match part {
        camino::Utf8Component::Normal(part) => Some(part),
        _ => None,
    }) {
        let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::DIRECTORY;
        let parent = openat2(&root, path.as_std_path(), flags, Mode::empty(), ResolveFlags::IN_ROOT)?;
        match mkdirat(&parent, part, Mode::from_raw_mode(0o755)) {
            Ok(()) => {
                if let Some(owner) = owner {
                    let (user, group) = (Uid::from_raw(owner), Gid::from_raw(owner));
                    chownat(&parent, part, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW)?;
                }
            }
            Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        path.push(part);
    }
    Ok(())
}
